//! A device with genuine daemons to log in to, and clients with addresses of their own (`login_lab.sh` draws it).

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::wait;

/// Who takes the daemons' lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// busybox's syslogd, into one file.
    File,
    /// systemd-journald.
    Journal,
}

/// Runs until it is dropped.
pub struct Lab {
    dir: TempDir,
    child: Child,
}

/// Gives the next line of the file `$ANSWERS` whenever a password is asked for; `hang` lets the asker wait for longer
/// than any daemon does.
const ASKPASS: &str = "#!/bin/sh\nread -r answer <\"$ANSWERS\" && sed -i 1d \"$ANSWERS\"\n[ \"$answer\" != hang ] || exec sleep 12\necho \"$answer\"\n";

impl Lab {
    /// Starts one; `None` where it cannot be, after it has said why. Where the project's own checks run it must be.
    pub fn start(log: Log) -> Option<Lab> {
        if let Some(lack) = lack(log) {
            assert!(std::env::var_os("CI").is_none(), "{lack}");
            eprintln!("not run: {lack}");
            return None;
        }
        let dir = TempDir::new().unwrap();
        for key in ["host", "known", "foreign"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.path().join(key))
                .status()
                .unwrap();
            assert!(made.success(), "{key}");
        }
        let askpass = dir.path().join("askpass");
        std::fs::write(&askpass, ASKPASS).unwrap();
        std::fs::set_permissions(&askpass, PermissionsExt::from_mode(0o755)).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/login_lab.sh");
        let mut child = Command::new("sh")
            .arg(script)
            .arg(dir.path())
            .arg(if log == Log::File { "file" } else { "journal" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).unwrap();
        let device = Lab { dir, child };
        assert_eq!(ready, "ready\n", "the device did not start: {}", device.daemons());
        Some(device)
    }

    /// What makes room for an agent on the device: its files and log, but the network and the processes of the test.
    pub fn inside(&self) -> Vec<String> {
        let mount = format!("--mount=/proc/{}/ns/mnt", self.child.id());
        let proc = "mount -t proc proc /proc && exec \"$0\" \"$@\"";
        ["nsenter", &mount, "--", "unshare", "--mount", "sh", "-c", proc].map(str::to_owned).to_vec()
    }

    /// A program on a client, or with 0 on the device itself.
    pub fn run(&self, client: u8, program: &str) -> Command {
        let namespaces = ["mnt", "net"].map(|name| format!("/proc/{}/ns/{name}", self.child.id()));
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount={}", namespaces[0])).arg(format!("--net={}", namespaces[1]));
        if client > 0 {
            command.args(["ip", "netns", "exec", &format!("client{client}")]);
        }
        command.arg(program).env("SSH_ASKPASS", self.path("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
        command
    }

    /// A path in its directory, which is the same inside and outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the daemons logged to the file.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("auth.log")).unwrap_or_default()).into_owned()
    }

    /// What they wrote to where nobody looks.
    fn daemons(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("daemons.log")).unwrap_or_default()).into_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The end of its input ends the first process of its namespaces, and the kernel all others.
        drop(self.child.stdin.take());
        if std::thread::panicking() {
            eprintln!("--- log of the device\n{}{}", self.log(), self.daemons());
            self.child.kill().ok();
            self.child.wait().ok();
        } else {
            wait::end("the device", &mut self.child);
        }
    }
}

/// Why there can be no such device here.
fn lack(log: Log) -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("namespaces with accounts and daemons of their own are for root".to_owned());
    }
    if log == Log::Journal && !Path::new("/usr/lib/systemd/systemd-journald").exists() {
        return Some("systemd-journald is not installed".to_owned());
    }
    let made = Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "true"]).output();
    match made {
        Ok(out) if out.status.success() => None,
        Ok(out) => Some(format!("no namespaces: {}", String::from_utf8_lossy(&out.stderr))),
        Err(error) => Some(format!("unshare: {error}")),
    }
}
