//! Accounts changed by the tools that change them on a real machine: each change is told once, by the word for it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{Agent, binary, connection};
use crate::hub::Hub;
use crate::wait;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmh0BxFm9bJDlz7oNH1tHvUUdtuAz2jHbIDh9ZyxLMU";

/// The files of a machine with what changes about them in memory, in a mount namespace that goes when the test does.
struct Machine {
    holder: Child,
    dir: TempDir,
}

impl Machine {
    /// What lies in `lower` is only read. The agent's directory and its program are seen in it under their own paths.
    fn over(lower: &Path, agent: &Path) -> Machine {
        let dir = TempDir::new().unwrap();
        let script = r#"
            mount -t tmpfs users-e2e "$1"; mkdir "$1/up" "$1/work" "$1/root"
            mount -t overlay users-e2e -o "lowerdir=$0,upperdir=$1/up,workdir=$1/work" "$1/root"
            mount -t proc proc "$1/root/proc"
            mount --rbind /dev "$1/root/dev"
            for folder in "$2" "$3"; do mkdir -p "$1/root$folder"; mount --bind "$folder" "$1/root$folder"; done
            mkdir -p "$1/root/opt/libraries"
            cp --dereference $4 "$1/root/opt/libraries"
            echo ready
            exec cat"#;
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-euc", script])
            .args([lower, dir.path(), agent, binary().parent().expect("a folder")])
            .arg(libraries().join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "mounting over {}", lower.display());
        Machine { holder, dir }
    }

    /// The words that run a program in it.
    fn inside(&self) -> Vec<String> {
        let (pid, root) = (self.holder.id().to_string(), self.dir.path().join("root"));
        let words = ["nsenter", "--target", &pid, "--mount", "chroot", root.to_str().expect("a name")];
        words.map(str::to_owned).into()
    }

    /// The words that start the agent in it, which was linked to a C library that may be newer than the machine's.
    fn for_agent(&self) -> Vec<String> {
        let there = |path: &str| format!("/opt/libraries/{}", path.rsplit('/').next().expect("a name"));
        let loader = libraries().into_iter().find(|path| path.contains("/ld-linux")).expect("a dynamic loader");
        let more = [there(&loader), "--library-path".to_owned(), "/opt/libraries".to_owned()];
        self.inside().into_iter().chain(more).collect()
    }

    fn shell(&self, script: &str) {
        let words = self.inside();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["sh", "-euc", script]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let out = wait::output(script, &mut command);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{script}: {} {said}", out.status);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

/// The files that the agent's program is linked to.
fn libraries() -> Vec<String> {
    let out = Command::new("ldd").arg(binary()).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

/// A story about accounts, and what has been told in it so far.
struct Story {
    hub: Hub,
    machine: Machine,
    agent: Agent,
    told: usize,
    snapshots: usize,
}

impl Story {
    fn over(lower: &Path) -> Story {
        let hub = Hub::start();
        let mut agent = Agent::new("press-80", connection(hub.port));
        let machine = Machine::over(lower, agent.config().parent().expect("a folder"));
        agent.inside = machine.for_agent();
        agent.set("eventPriorityListeningPorts", "Off".into());
        agent.start();
        let mut story = Story { hub, machine, agent, told: 0, snapshots: 0 };
        story.expect(&[]);
        story
    }

    /// A word for each change, in the order they were told: `NAME CHANGE` of rows, `NAME vanished` of alarms.
    fn changes(&self) -> (Vec<String>, usize) {
        let arrivals = self.hub.arrivals();
        let snapshots: std::collections::BTreeSet<_> =
            arrivals.iter().filter(|it| it.name == "LocalUsers").map(|it| it.text("TimestampUTC").to_owned()).collect();
        let mut changes: Vec<_> = arrivals
            .iter()
            .filter_map(|it| {
                let extra = &it.details["ExtraDetails"];
                let change = extra["Change"].as_str().map(|change| format!("{} {change}", it.text("UserName")));
                let gone = extra["VanishedUsers"].as_str().map(|name| format!("{name} vanished"));
                Some((it.text("TimestampUTC").to_owned(), change.or(gone)?))
            })
            .collect();
        changes.sort();
        (changes.into_iter().map(|(_, change)| change).collect(), snapshots.len())
    }

    /// Waits until this and nothing else was told since the last time, in one more snapshot.
    fn expect(&mut self, expected: &[&str]) {
        let (told, wanted) = (self.told, self.snapshots + 1);
        let (changes, snapshots) = wait::until(&format!("{expected:?}"), || {
            let (changes, snapshots) = self.changes();
            let is_there = changes.len() >= told + expected.len() && snapshots >= wanted;
            if is_there {
                Ok((changes, snapshots))
            } else {
                Err(format!("{changes:?} in {snapshots}, {}", self.agent.log()))
            }
        });
        assert_eq!(
            (&changes[told..], snapshots),
            (expected.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>().as_slice(), wanted)
        );
        (self.told, self.snapshots) = (changes.len(), snapshots);
    }

    fn does(&mut self, script: &str, expected: &[&str]) {
        self.machine.shell(script);
        self.expect(expected);
    }

    /// What the last snapshot says of an account.
    fn details(&self, name: &str) -> Value {
        let mut rows: Vec<_> = self.hub.arrivals().into_iter().filter(|it| it.text("UserName") == name).collect();
        rows.sort_by_key(|row| row.text("TimestampUTC").to_owned());
        rows.last().expect("a row").details["ExtraDetails"].clone()
    }
}

fn told_once_by_its_word(lower: &Path) {
    let mut story = Story::over(lower);
    story.does("useradd -m -s /bin/bash ewalice", &["ewalice Added"]);
    story.does("useradd ewbob", &["ewbob Added"]);
    story.does("usermod -aG sudo ewalice", &["ewalice Groups;Privileged"]);
    assert!(story.details("ewalice")["Privileged"].as_str().unwrap().starts_with("group:sudo"));
    story.does("groupmod -n ewcrew ewalice", &["ewalice Groups"]);
    story.does("usermod -p '$6$salt$hash' ewalice", &["ewalice Password"]);
    story.does("passwd -l ewalice", &["ewalice Password"]);
    assert_eq!(story.details("ewalice")["PasswordLogin"], "locked");
    story.does("sed -i 's#/home/ewalice:/bin/bash#/home/ewalice:/bin/sh#' /etc/passwd", &["ewalice Shell"]);
    // vipw looks whether the file is older than what the editor left, to the second.
    let edit = "EDITOR='sleep 2; sed -i s#/home/ewalice:/bin/sh#/home/ewalice:/bin/bash#' vipw";
    story.does(edit, &["ewalice Shell"]);
    let key = format!("cd ~ewalice; mkdir .ssh; echo '{KEY} x' >.ssh/authorized_keys; chown -R ewalice .ssh");
    story.does(&key, &["ewalice Keys"]);
    assert_eq!(story.details("ewalice")["AuthorizedKeys"], "1");
    assert!(story.details("ewalice")["KeyFingerprints"].as_str().unwrap().starts_with("SHA256:"));
    story.does("rm -r ~ewalice/.ssh", &["ewalice Keys"]);
    story.does("userdel ewbob", &["ewbob vanished"]);
    story.does("echo 'ewalice ALL=NOPASSWD: ALL' >>/etc/sudoers", &["ewalice Privileged"]);

    assert!(story.agent.terminate().success());
    story.machine.shell("userdel -r ewalice; useradd ewcarol");
    story.agent.start();
    story.expect(&["ewalice vanished", "ewcarol Added"]);
    story.agent.kill_9();
    story.agent.start();
    story.expect(&[]);
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    assert!(is_root || std::env::var_os("CI").is_none(), "accounts of another root need root");
    if !is_root {
        eprintln!("not run: tools that change accounts need root");
    }
    is_root
}

/// The root file system of a release: one that is there already, or a small one made now and kept.
fn root_of(release: &str) -> PathBuf {
    let target = binary().ancestors().nth(2).expect("the target directory");
    let roots = std::env::var_os("EDGEWARDEN_ROOTS").map_or(target.join("roots"), PathBuf::from);
    let has_tools = std::fs::read_to_string(roots.join(format!("{release}.packages")))
        .is_ok_and(|packages| ["passwd", "sudo"].iter().all(|tool| packages.split_whitespace().any(|it| it == *tool)));
    if has_tools {
        return roots.join(release);
    }
    let root = roots.join(format!("accounts-{release}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/make-root.sh");
    let out = Command::new(script).arg(release).arg(&root).args(["passwd", "sudo"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    root
}

#[test]
fn changes_by_this_machines_tools_are_told_once() {
    if is_root() {
        told_once_by_its_word(Path::new("/"));
    }
}

#[test]
fn changes_by_the_tools_of_debian_11_are_told_once() {
    if is_root() {
        told_once_by_its_word(&root_of("bullseye"));
    }
}

#[test]
fn changes_by_the_tools_of_debian_12_are_told_once() {
    if is_root() {
        told_once_by_its_word(&root_of("bookworm"));
    }
}

#[test]
fn changes_by_the_tools_of_debian_13_are_told_once() {
    if is_root() {
        told_once_by_its_word(&root_of("trixie"));
    }
}
