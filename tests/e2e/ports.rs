//! What listens, beside what `ss` says, in every network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::agent::binary;
use crate::wait;

/// Listeners, processes and connections of one namespace; three of them are 504, 201 and 2,001.
const SIZE: [&str; 3] = ["66", "168", "667"];

/// A network namespace full of sockets, which ends with it.
struct Crowd(Child);

impl Crowd {
    fn start(sockets: &Path) -> Crowd {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
            .arg(sockets)
            .args(SIZE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the crowd in a namespace of its own is there");
        Crowd(child)
    }

    fn namespace(&self) -> String {
        let link = std::fs::read_link(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        link.to_str().unwrap().trim_matches(|it: char| !it.is_ascii_digit()).to_owned()
    }

    /// A command that runs in this namespace.
    fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg(program);
        command
    }

    fn of_ss(&self) -> BTreeSet<String> {
        let out = wait::output("ss", self.inside(Path::new("ss")).args(["-H", "-O", "-tulpn"]));
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap().lines().map(line_of_ss).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// `TCP LISTEN 0.0.0.0%lo:80 1 2 3`: protocol, state, socket and all processes that hold it.
fn line_of_ss(line: &str) -> String {
    let fields: Vec<_> = line.split_whitespace().collect();
    let pids = line.split("pid=").skip(1).map(|rest| rest.split(',').next().unwrap().parse::<u32>().unwrap());
    text(&fields[0].to_uppercase(), fields[1], fields[4], pids.collect())
}

fn text(protocol: &str, state: &str, socket: &str, pids: BTreeSet<u32>) -> String {
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    format!("{protocol} {state} {socket} {}", pids.join(" "))
}

/// The same of a row.
fn line_of_row(row: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let extra = &row["ExtraDetails"];
    let address = match word(&row["LocalAddress"]).as_str() {
        "::" if extra["DualStack"] == "true" => "*".to_owned(),
        v6 if v6.contains(':') => format!("[{v6}]"),
        v4 => v4.to_owned(),
    };
    let interface = extra["Interface"].as_str().map(|name| format!("%{name}")).unwrap_or_default();
    let socket = format!("{address}{interface}:{}", word(&row["LocalPort"]));
    let (owner, others) = (word(&extra["ProcessId"]), word(&extra["OtherProcessIds"]));
    let pids: BTreeSet<u32> = others.split(';').chain([owner.as_str()]).filter_map(|pid| pid.parse().ok()).collect();
    assert_eq!(extra["Holders"].as_str().unwrap_or("1"), pids.len().to_string(), "{row}");
    text(&word(&row["Protocol"]), &word(&extra["State"]), &socket, pids)
}

fn compiled(dir: &TempDir) -> std::path::PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/sockets.c");
    let sockets = dir.path().join("sockets");
    let cc = Command::new("cc").args(["-O1", "-Wall", "-o"]).arg(&sockets).arg(source).status();
    assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
    sockets
}

#[test]
fn the_rows_of_each_network_namespace_are_what_ss_says_there() {
    let dir = TempDir::new().unwrap();
    let sockets = compiled(&dir);
    let crowds = [(); 3].map(|()| Crowd::start(&sockets));
    let collect = crowds[0].inside(binary()).args(["collect", "ListeningPorts"]).output().unwrap();
    assert!(collect.status.success(), "{}", String::from_utf8_lossy(&collect.stderr));
    let rows = String::from_utf8(collect.stdout).unwrap();
    let mut by_namespace: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let namespace = row["ExtraDetails"]["NetworkNamespace"].as_str().unwrap_or("own").to_owned();
        by_namespace.entry(namespace).or_default().push(row);
    }
    for (index, crowd) in crowds.iter().enumerate() {
        let namespace = if index == 0 { "own".to_owned() } else { crowd.namespace() };
        let rows = &by_namespace[&namespace];
        let (listeners, peers): (Vec<&Value>, Vec<_>) = rows.iter().partition(|row| row["RemotePort"] == "*");
        let ours: BTreeSet<String> =
            listeners.iter().filter(|row| row["Protocol"] != "RAW").map(|row| line_of_row(row)).collect();
        let theirs = crowd.of_ss();
        assert_eq!(theirs.len(), 168, "the crowd is there as it should be");
        let missing: Vec<_> = theirs.difference(&ours).collect();
        let invented: Vec<_> = ours.difference(&theirs).collect();
        assert_eq!((missing, invented), (Vec::new(), Vec::new()), "namespace {index}");
        assert_eq!(peers.len(), 667, "a row for each peer of a listener");
        assert!(peers.iter().all(|row| row["ExtraDetails"]["ProcessId"].is_string()), "each has its owner");
    }
}
