//! What executed, told the same by every back end, and what is told when the better ones cannot be.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{Agent, binary, connection};
use crate::wait;

/// `collect` at work, and what it prints.
struct Collect {
    child: Child,
    rows: Arc<Mutex<Vec<Value>>>,
}

/// One back end at work, and the program that executes itself in all ways.
struct Watched {
    collect: Collect,
    /// Holds its configuration.
    _agent: Agent,
    dir: TempDir,
}

impl Collect {
    fn start(mut command: Command) -> Collect {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let rows: Arc<Mutex<Vec<Value>>> = Arc::default();
        let into = Arc::clone(&rows);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                into.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Collect { child, rows }
    }

    fn row(&self, pid: u32) -> Option<Value> {
        self.rows.lock().unwrap().iter().rev().find(|row| row["ProcessId"] == pid).cloned()
    }
}

impl Watched {
    fn by(backend: &str) -> Watched {
        let mut agent = Agent::new("press-70", connection(1));
        agent.own()["processBackend"] = backend.into();
        agent.write_twin();
        let mut command = Command::new(binary());
        command.args(["collect", "ProcessCreate", "--for", "10m", "--config"]).arg(agent.config());
        let collect = Collect::start(command);
        let dir = TempDir::new().unwrap();
        // The jail in it is looked into by a process that is root there, and by nobody else.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/execs.c");
        let cc = Command::new("cc").args(["-static", "-O1", "-o"]).arg(dir.path().join("execs")).arg(source).status();
        assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
        let watched = Watched { _agent: agent, collect, dir };
        wait::until_true("the collector to run", || {
            let mut canary = Command::new(watched.dir.path().join("execs")).args(["canary", backend]).spawn().unwrap();
            canary.wait().unwrap();
            watched.collect.row(canary.id()).is_some()
        });
        watched
    }

    /// The row of each case.
    fn cases(&self) -> BTreeMap<String, Value> {
        let mut command = Command::new(self.dir.path().join("execs"));
        let out = wait::output("the program that executes itself", command.arg(self.dir.path()));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let started = text.lines().map(|line| line.split_once(' ').unwrap());
        let row = |(case, pid): (&str, &str)| {
            let row = wait::until(case, || self.collect.row(pid.parse().unwrap()).ok_or_else(|| "no row".to_owned()));
            (case.to_owned(), row)
        };
        started.map(row).collect()
    }
}

impl Drop for Collect {
    /// Asks it to end, because what it did to the machine has to be undone.
    fn drop(&mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

/// A long line shows its beginning and its end, and says how much is missing.
fn assert_cut(row: &Value, letter: &str, total: usize) {
    let line = row["CommandLine"].as_str().unwrap();
    assert!(line.starts_with(&format!("execs first {letter}{letter}")) && line.ends_with(&format!("{letter} last")));
    assert!(line.contains(" bytes cut...] ") && line.len() <= 4096, "{line}");
    let strange: String = line.chars().filter(|char| !char.is_ascii()).collect();
    assert_eq!(strange, "");
    assert_eq!(row["ExtraDetails"]["Truncated"], total.to_string());
    assert_eq!(row["ExtraDetails"]["KeptSha256"].as_str().map(str::len), Some(64));
}

/// Each case of `tests/support/execs.c`, as one back end tells it.
pub fn told_right(backend: &str) {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: {backend} and a chroot are for root");
        return;
    }
    let watched = Watched::by(backend);
    let rows = watched.cases();
    let path = |name: &str| watched.dir.path().join(name).display().to_string();
    let own = path("execs");
    let script_line = format!("{} -x ./script one 'two words'", path("copy"));
    let expected: [(&str, &str, &str); 10] = [
        ("not_utf8", &own, "execs 'caf\u{fffd}' '\u{fffd}\u{fffd}'"),
        ("lines_and_quotes", &own, "execs 'two\nlines' 'it'\\''s \"quoted\"' '' 'back\\slash'"),
        ("no_arguments", &own, "''"),
        ("relative", &path("copy"), "copy relative"),
        ("script", &path("copy"), &script_line),
        ("deleted", &path("gone"), "gone deleted"),
        ("unlinked", &path("unlinked"), "unlinked"),
        ("memfd", "/memfd:hidden", "memfd"),
        ("unshared", &own, "execs unshared"),
        ("jailed", &path("jail/bin/execs"), "execs jailed"),
    ];
    for (case, executable, line) in expected {
        let row = &rows[case];
        assert_eq!((row["Executable"].as_str(), row["CommandLine"].as_str()), (Some(executable), Some(line)), "{case}");
    }
    for (case, row) in &rows {
        assert!(row["ExtraDetails"]["Incomplete"].is_null(), "{case}: {row}");
        assert_eq!(
            (row["UserId"].as_str(), row["ExtraDetails"]["ParentExecutable"].as_str()),
            (Some("0"), Some(&*own))
        );
    }
    let more = |case: &str, key: &str| rows[case]["ExtraDetails"][key].as_str().map(str::to_owned);
    assert_cut(&rows["nine_thousand"], "n", "execs first  last ".len() + 9_000);
    assert_cut(&rows["hundred_thousand"], "h", "execs first  last ".len() + 100_000);
    assert_eq!(more("not_utf8", "Undecodable").as_deref(), Some("true"));
    assert_eq!(more("script", "Script"), Some(path("script")));
    for case in ["unlinked", "memfd"] {
        assert_eq!(more(case, "Deleted").as_deref(), Some("true"), "{case}");
    }
    let (own, other) = (std::fs::read_link("/proc/self/ns/net").unwrap(), more("unshared", "NetworkNamespace"));
    assert!(other.is_some_and(|number| !own.to_str().unwrap().contains(&number)));
    assert_eq!(more("relative", "NetworkNamespace"), None);
}

#[test]
fn the_program_in_the_kernel_tells_what_executed_however_it_was_done() {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        told_right("bpf");
    } else {
        eprintln!("not run: this kernel has no BTF");
    }
}

#[test]
fn the_program_that_knows_no_types_tells_what_executed_however_it_was_done() {
    told_right("bpfNoBtf");
}

#[test]
fn the_connector_tells_what_executed_however_it_was_done() {
    told_right("connector");
}

#[test]
fn a_look_at_proc_tells_what_executed_however_it_was_done() {
    told_right("poll");
}

/// Runs a program that must not use BPF.
pub const WITHOUT_BPF: [&str; 3] =
    ["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-bpf,-perfmon,-sys_admin"];

/// Runs a program that may use neither BPF nor audit, of which another test may just change who owns it.
const WITHOUT_BOTH: [&str; 3] = [
    "setpriv",
    "--bounding-set=-bpf,-perfmon,-sys_admin,-audit_control",
    "--inh-caps=-bpf,-perfmon,-sys_admin,-audit_control",
];

/// What `check` says of ProcessCreate when it is run by this command.
pub fn survey(inside: &[&str]) -> String {
    let mut words = inside.iter().copied().chain([binary().to_str().unwrap(), "check"]);
    let out = wait::output("check", Command::new(words.next().expect("at least the agent")).args(words));
    let text = String::from_utf8(out.stdout).unwrap() + &String::from_utf8_lossy(&out.stderr);
    let of_ours = text.lines().filter(|line| line.trim_start().starts_with("ProcessCreate: "));
    of_ours.map(|line| line.trim_start().to_owned() + "\n").collect()
}

/// The published key of the micro agent: 1 is what works best, 2 netlink, 3 polling.
#[test]
fn the_twins_mode_chooses_the_back_end() {
    let mut agent = Agent::new("press-77", connection(1));
    agent.set("eventPriorityProcessCreate", serde_json::json!("Low"));
    agent.own().as_object_mut().expect("an object").remove("processBackend");
    let best = survey(&[]);
    let best = best.lines().next().and_then(|line| line.strip_prefix("ProcessCreate: ")).expect("a first line");
    for (mode, expected) in [(1, best), (2, "netlink"), (3, "/proc")] {
        agent.twin["properties"]["desired"]["Process_Mode"] = mode.into();
        agent.write_twin();
        let out = wait::output("check", Command::new(binary()).args(["check", "--config"]).arg(agent.config()));
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains(&format!("\n  ProcessCreate: {expected}")), "{mode}: {text}");
    }
}

/// Whatever back end `collect` takes when it is run by this command, it tells of an exec.
fn assert_told(inside: &[&str]) {
    let mut words = inside.iter().copied().chain([binary().to_str().unwrap(), "collect", "ProcessCreate"]);
    let mut command = Command::new(words.next().expect("at least the agent"));
    command.args(words).args(["--for", "10m"]);
    let collect = Collect::start(command);
    wait::until("an exec to be told", || {
        let mut sleep = Command::new("sleep").arg("1000").spawn().unwrap();
        let told = (0..40).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            collect.row(sleep.id()).is_some()
        });
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        if told { Ok(()) } else { Err(format!("{} rows", collect.rows.lock().unwrap().len())) }
    });
}

#[test]
fn the_next_best_runs_where_the_best_cannot_and_check_says_why() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: only root can be without what only root has");
        return;
    }
    let bpf = "ProcessCreate: eBPF\n";
    let no_btf = "ProcessCreate: eBPF without BTF\n";
    let connector = "ProcessCreate: netlink process connector\n";
    let poll = "ProcessCreate: /proc, looked at twice a second\n";
    let no_tracefs = "umount -l /sys/kernel/tracing /sys/kernel/debug 2>/dev/null; \
                      ! test -d /sys/kernel/tracing/events && ! test -d /sys/kernel/debug/tracing/events";
    let no_types = "mount -t tmpfs none /sys/kernel/btf";
    let empty_types = "mount -t tmpfs none /sys/kernel/btf && : >/sys/kernel/btf/vmlinux";
    let in_a_world = |mounts: &[&str]| {
        let script = format!("{} && exec \"$0\" \"$@\"", mounts.join(" && "));
        let inside = ["unshare", "--mount", "sh", "-c", &script];
        assert_told(&inside);
        survey(&inside)
    };
    // The namespace has to be made before the right to make it is given up.
    let no_network = [&["unshare", "--net"], &WITHOUT_BOTH[..]].concat();

    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        assert_eq!(survey(&[]), bpf);
        assert_eq!(in_a_world(&[no_tracefs]), bpf);
        let told = in_a_world(&[no_tracefs, no_types]);
        assert!(told.starts_with(no_btf) && told.contains("CONFIG_DEBUG_INFO_BTF=y"), "{told}");
        let told = in_a_world(&[empty_types]);
        assert!(told.starts_with(no_btf) && told.contains("eBPF is not used: the BPF program cannot"), "{told}");
    }
    assert_told(&WITHOUT_BOTH);
    let told = survey(&WITHOUT_BOTH);
    assert!(told.starts_with(connector) && told.contains("give it CAP_BPF and CAP_PERFMON"), "{told}");
    assert_told(&no_network);
    let told = survey(&no_network);
    assert!(
        told.starts_with(poll)
            && told.contains("CAP_BPF")
            && told.contains("give it CAP_AUDIT_CONTROL")
            && told.contains("host's network namespace"),
        "{told}"
    );
}
