//! What listens, beside what `ss` says, in every network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{Agent, binary, connection};
use crate::wait;

/// Processes, listeners and connections of one namespace; three of them are 201, 504 and 2,001.
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
    // A process that ends at this moment holds nothing any more.
    let holders = extra["Holders"].as_str().unwrap_or("1");
    assert!(pids.is_empty() || holders == pids.len().to_string(), "{row}");
    text(&word(&row["Protocol"]), &word(&extra["State"]), &socket, pids)
}

fn compiled(dir: &TempDir) -> std::path::PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/sockets.c");
    let sockets = dir.path().join("sockets");
    let cc = Command::new("cc").args(["-O1", "-Wall", "-o"]).arg(&sockets).arg(source).status();
    assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
    sockets
}

/// The rows of each snapshot, by its moment.
type Snapshots = BTreeMap<String, Vec<Value>>;

/// `collect` at work, and the rows and remarks it has printed.
struct Collect {
    child: Child,
    /// The remarks are in the log.
    snapshots: Arc<Mutex<Snapshots>>,
    log: Arc<Mutex<String>>,
    _agent: Agent,
}

impl Collect {
    /// In a namespace or, without one, where the test is.
    fn start(within: Option<&Crowd>, backend: &str) -> Collect {
        let mut agent = Agent::new("press-71", connection(1));
        agent.own()["processBackend"] = backend.into();
        agent.write_twin();
        let mut command = within.map_or_else(|| Command::new(binary()), |crowd| crowd.inside(binary()));
        command.args(["collect", "ListeningPorts", "--for", "10m", "--config"]).arg(agent.config());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let rows = BufReader::new(child.stdout.take().expect("piped"));
        let remarks = BufReader::new(child.stderr.take().expect("piped"));
        let (snapshots, log): (Arc<Mutex<Snapshots>>, Arc<Mutex<String>>) = Default::default();
        let (into, into_log) = (Arc::clone(&snapshots), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in rows.lines().map_while(Result::ok) {
                let row: Value = serde_json::from_str(&line).unwrap();
                let moment = row["TimestampUTC"].as_str().unwrap().to_owned();
                into.lock().unwrap().entry(moment).or_default().push(row);
            }
        });
        std::thread::spawn(move || {
            for line in remarks.lines().map_while(Result::ok) {
                into_log.lock().unwrap().extend([line.as_str(), "\n"]);
            }
        });
        Collect { child, snapshots, log, _agent: agent }
    }

    /// Rows of the newest snapshot that has one of these.
    fn newest(&self, mut wanted: impl FnMut(&Value) -> bool) -> Option<Vec<Value>> {
        let snapshots = self.snapshots.lock().unwrap();
        snapshots.values().rev().find(|rows| rows.iter().any(&mut wanted)).cloned()
    }

    fn remarks(&self, about: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.lines().filter(|line| line.contains(about)).map(str::to_owned).collect()
    }
}

impl Drop for Collect {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn namespace(row: &Value) -> &str {
    row["ExtraDetails"]["NetworkNamespace"].as_str().unwrap_or("own")
}

/// Whether these rows are all that `ss` shows in a crowd's namespace, and nothing else. The sentence says what is not.
fn compare(rows: &[Value], crowd: &Crowd, name: &str) -> Result<(), String> {
    let rows = rows.iter().filter(|row| namespace(row) == name);
    let (listeners, peers): (Vec<&Value>, Vec<_>) = rows.partition(|row| row["RemotePort"] == "*");
    let ours: BTreeSet<String> =
        listeners.iter().filter(|row| row["Protocol"] != "RAW").map(|row| line_of_row(row)).collect();
    let theirs = crowd.of_ss();
    assert_eq!(theirs.len(), 168, "the crowd is there as it should be");
    if ours != theirs {
        let missing: Vec<_> = theirs.difference(&ours).collect();
        let invented: Vec<_> = ours.difference(&theirs).collect();
        return Err(format!("{name}: ss has {missing:?}, and not {invented:?}"));
    }
    let owned = peers.iter().filter(|row| row["ExtraDetails"]["ProcessId"].is_string()).count();
    if owned == 667 { Ok(()) } else { Err(format!("{name}: {owned} of {} peers have an owner", peers.len())) }
}

fn three_full_namespaces_are_what_ss_says(backend: &str) {
    let dir = TempDir::new().unwrap();
    let sockets = compiled(&dir);
    let home = Crowd::start(&sockets);
    let collect = Collect::start(Some(&home), backend);
    wait::until_true("the first snapshot", || collect.newest(|_| true).is_some());
    // Whoever comes later is noticed, and told by what the kernel tells if it does.
    let others = [(); 2].map(|()| Crowd::start(&sockets));
    let last = others[1].namespace();
    wait::until("a snapshot of what ss says in each namespace", || {
        let rows = collect.newest(|row| namespace(row) == last).ok_or("none with the newest namespace")?;
        compare(&rows, &home, "own")?;
        others.iter().try_for_each(|crowd| compare(&rows, crowd, &crowd.namespace()))
    });
    drop(others);
    wait::until_true("the remark that they are gone", || {
        collect.remarks("no longer listening").iter().any(|it| it.contains("in network namespace"))
    });
}

#[test]
fn the_rows_of_each_network_namespace_are_what_ss_says_there() {
    three_full_namespaces_are_what_ss_says("poll");
}

#[test]
fn so_they_are_where_the_kernel_tells_who_holds_a_socket() {
    three_full_namespaces_are_what_ss_says("auto");
}

/// Without entering a namespace a process's tables are read, which tell neither interfaces nor dual-stack sockets.
#[test]
fn without_the_right_to_enter_the_tables_of_a_namespace_tell_the_same() {
    let dir = TempDir::new().unwrap();
    let crowd = Crowd::start(&compiled(&dir));
    let rights = ["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    let collect = wait::output(
        "collect without CAP_SYS_ADMIN",
        Command::new("setpriv").args(rights).arg(binary()).args(["collect", "ListeningPorts"]),
    );
    assert!(collect.status.success(), "{}", String::from_utf8_lossy(&collect.stderr));
    let text = String::from_utf8(collect.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let name = crowd.namespace();
    let listeners = rows.iter().filter(|row| namespace(row) == name && row["RemotePort"] == "*");
    let ours: BTreeSet<String> = listeners.map(line_of_row).collect();
    let plain = |line: &String| line.replace("%lo", "").replace(" *:", " [::]:");
    assert_eq!(ours, crowd.of_ss().iter().map(plain).collect());
}

/// What listens for 300 ms is a row while it does, because the kernel tells at once; and what is gone before anybody
/// could look is a remark.
#[test]
fn a_listener_of_a_moment_is_seen_where_the_kernel_tells() {
    let collect = Collect::start(None, "auto");
    // Until the program is in the kernel nothing is told at once.
    let mut canary = 0;
    wait::until_true("the kernel to tell", || {
        canary += 1;
        drop(std::net::TcpListener::bind(("127.1.1.1", 9000 + canary % 50)).unwrap());
        !collect.remarks("listened for a moment: ").is_empty()
    });
    let nc = ["0.3", "busybox", "nc", "-l", "-p", "8888"];
    Command::new("timeout").args(nc).status().unwrap();
    let is_it = |row: &Value| row["LocalPort"] == "8888" && row["ExtraDetails"]["Executable"] == "/usr/bin/busybox";
    wait::until_true("the row of nc", || {
        collect.newest(is_it).is_some() || !collect.remarks(":8888 (/usr/bin/busybox").is_empty()
    });
    wait::until_true("the remark that it is gone", || !collect.remarks(":8888 (/usr/bin/busybox").is_empty());
}

#[test]
fn a_listener_that_stays_is_a_row_of_its_own_snapshot_without_any_help_of_the_kernel() {
    let collect = Collect::start(None, "poll");
    wait::until_true("the first snapshot", || collect.newest(|_| true).is_some());
    let listener = std::net::TcpListener::bind("127.1.1.2:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let is_it = |row: &Value| row["LocalAddress"] == "127.1.1.2" && row["LocalPort"] == port.as_str();
    let rows = wait::until("its row", || collect.newest(is_it).ok_or_else(|| "no row".to_owned()));
    let row = rows.iter().find(|row| is_it(row)).unwrap();
    assert_eq!(row["ExtraDetails"]["ProcessId"], std::process::id().to_string(), "{row}");
    drop(listener);
    // The remark names twenty at most, and other tests take away more at once.
    wait::until_true("a snapshot without it", || !collect.newest(|_| true).unwrap().iter().any(is_it));
    wait::until_true("the remark", || !collect.remarks("no longer listening").is_empty());
}
