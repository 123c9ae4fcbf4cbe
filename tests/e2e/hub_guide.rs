//! The investigation guide, word for word, asked of a hub that real agents have filled: each answer is what the story
//! did, written down by hand.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};

use crate::agent::{Agent, connection};
use crate::hub::{Hub, details};
use crate::wait;

/// What the guide's queries have where its reader writes the own names.
pub const DEVICE: &str = "YOUR_DEVICE_ID";
const HUB: &str = "YOUR_HUB_NAME";

/// More command lines than `makeset` keeps.
const PROCESSES: usize = 140;
const MAKESET_KEEPS: usize = 128;

const QUERIES: [&str; 5] =
    ["1_related_alerts", "2_users_with_access", "3_open_ports", "4_user_logins", "5_process_list"];

fn query_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/fixtures/kql/guide/{name}.kql"))
}

pub fn hub() -> Hub {
    let mut hub = Hub::stopped();
    hub.name = HUB;
    hub.listen(0);
    hub
}

pub fn answer(hub: &Hub, name: &str) -> Vec<Value> {
    let file = query_file(name);
    let text = hub.ask(&["query", file.to_str().unwrap(), "--format", "json"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The one row of an answer with this in a column.
fn row<'a>(rows: &'a [Value], column: &str, value: &str) -> &'a Value {
    let found: Vec<_> = rows.iter().filter(|row| row[column] == value).collect();
    assert_eq!(found.len(), 1, "rows with {column} {value} in {rows:?}");
    found[0]
}

pub fn set(value: &Value) -> BTreeSet<String> {
    let items = value.as_array().unwrap_or_else(|| panic!("no array: {value}"));
    let set: BTreeSet<_> = items.iter().map(|item| item.as_str().unwrap().to_owned()).collect();
    assert_eq!(set.len(), items.len(), "twice in {value}");
    set
}

pub fn texts(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn moment(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// The middle of the hour before, so that everything logged then falls into one hour.
fn attack_start() -> Timestamp {
    let hour = Timestamp::now().round((Unit::Hour, 1)).unwrap();
    hour - SignedDuration::from_mins(90)
}

struct Processes(Vec<Child>);

impl Processes {
    fn start(program: &Path, numbers: std::ops::Range<usize>) -> Processes {
        let start = |number| Command::new(program).arg(seconds(number)).spawn().unwrap();
        Processes(numbers.map(start).collect())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// An argument no other process of the machine has.
fn seconds(number: usize) -> String {
    format!("86200.{number:03}")
}

#[test]
fn the_queries_are_the_guides_own() {
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/queries");
    if !published.exists() {
        eprintln!("left out: the guide's own files in {} are not there", published.display());
        return;
    }
    for name in QUERIES {
        let theirs = std::fs::read(published.join(format!("{name}.kql"))).unwrap();
        assert!(std::fs::read(query_file(name)).unwrap() == theirs, "{name}");
    }
}

#[test]
fn who_logged_in_and_which_alerts_there_are() {
    let hub = hub();
    let mut agent = Agent::new(DEVICE, connection(hub.port));
    agent.start();
    agent.wait_collecting();
    let start = attack_start();
    let at = |number: i64| start + SignedDuration::from_secs(number);
    let log = |number: i64, what: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).open(agent.path("auth.log")).unwrap();
        let pid = 4000 + number;
        file.write_all(format!("{:.6} board sshd[{pid}]: {what} ssh2\n", at(number)).as_bytes()).unwrap();
    };
    for number in 0..6 {
        log(number, &format!("Failed password for root from 198.51.100.7 port {}", 50_000 + number));
    }
    log(6, "Failed password for root from 2001:db8::5 port 50006");
    log(7, "Failed password for invalid user admin from 203.0.113.9 port 50007");
    log(8, "Accepted publickey for root from 127.0.0.1 port 50008");
    log(9, "Accepted password for root from 198.51.100.7 port 50009");
    hub.wait_row("the last login", |row| row["RawEventName"] == "Login" && details(row)["RemotePort"] == "50009");

    // Neither the loopback login nor the one that named no account is among them.
    let logins = answer(&hub, "4_user_logins");
    assert_eq!(logins.len(), 2, "{logins:?}");
    let failed = row(&logins, "Result", "Fail");
    assert_eq!([&failed["UserName"], &failed["LoginHandler"]], ["root", "/usr/sbin/sshd"]);
    assert_eq!([&failed["CntLoginAttempts"], &failed["CntIPAddress"]], [7, 2]);
    assert_eq!(set(&failed["IPAddress"]), texts(&["198.51.100.7", "2001:db8::5"]));
    assert_eq!([moment(&failed["MinObservedTime"]), moment(&failed["MaxObservedTime"])], [at(0), at(6)]);
    let success = row(&logins, "Result", "Success");
    assert_eq!([&success["UserName"], &success["LoginHandler"]], ["root", "/usr/sbin/sshd"]);
    assert_eq!([&success["CntLoginAttempts"], &success["CntIPAddress"]], [1, 1]);
    assert_eq!(set(&success["IPAddress"]), texts(&["198.51.100.7"]));
    assert_eq!([moment(&success["MinObservedTime"]), moment(&success["MaxObservedTime"])], [at(9), at(9)]);

    let alerts = answer(&hub, "1_related_alerts");
    let known: BTreeSet<_> = alerts
        .iter()
        .map(|alert| (alert["AlertName"].as_str().unwrap(), alert["AlertSeverity"].as_str().unwrap()))
        .collect();
    let expected = [
        ("Failed Bruteforce attempt", "Low"),
        ("Successful Bruteforce attempt", "High"),
        ("Successful local login", "High"),
    ];
    assert_eq!(known, BTreeSet::from(expected), "{alerts:?}");
    assert_eq!(alerts.len(), 3, "{alerts:?}");
    for name in ["Failed Bruteforce attempt", "Successful Bruteforce attempt"] {
        let alert = row(&alerts, "AlertName", name);
        let properties: Value = serde_json::from_str(alert["ExtendedProperties"].as_str().unwrap()).unwrap();
        assert_eq!([&properties["DeviceId"], &properties["Remote Address"]], [DEVICE, "198.51.100.7"], "{alert}");
        assert!(alert["Description"].as_str().unwrap().contains("198.51.100.7"), "{alert}");
    }
}

#[test]
fn who_has_access_and_what_ran() {
    let tools = tempfile::tempdir().unwrap();
    let program = tools.path().join("sleep");
    std::fs::copy(std::fs::canonicalize("/bin/sleep").unwrap(), &program).unwrap();
    let begin = Timestamp::now() - SignedDuration::from_secs(2);
    let _before = Processes::start(&program, 0..PROCESSES);
    let hub = hub();
    let mut agent = Agent::new(DEVICE, connection(hub.port));
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.own()["processSnapshot"] = json!(true);
    agent.start();
    agent.wait_status("processes to be watched", |status| status["collectors"]["ProcessCreate"]["state"] == "running");
    let later = Processes::start(&program, PROCESSES..PROCESSES + 3);
    // What was there when the agent started may come in several messages.
    let ours = |row: &&Value| row["RawEventName"] == "ProcessCreate" && details(row)["Executable"] == text(&program);
    wait::until("the processes", || {
        let seen = hub.rows().iter().filter(ours).count();
        if seen >= PROCESSES + later.0.len() { Ok(()) } else { Err(format!("{seen} rows")) }
    });
    hub.wait_row("root among the users", |row| {
        row["RawEventName"] == "LocalUsers" && details(row)["UserName"] == "root"
    });

    let accounts = accounts();
    let users = answer(&hub, "2_users_with_access");
    let names: Vec<_> = users.iter().map(|user| user["UserName"].as_str().unwrap()).collect();
    assert_eq!(names.len(), accounts.len(), "{names:?}");
    for (name, _) in &accounts {
        let user = row(&users, "UserName", name);
        let mut groups: Vec<_> = user["GroupNames"].as_str().unwrap().split(';').collect();
        groups.sort_unstable();
        assert_eq!(groups, groups_of(name), "{name}");
        assert!((begin..=Timestamp::now()).contains(&moment(&user["FirstObserved"])), "{user}");
    }

    let processes = answer(&hub, "5_process_list");
    let sleeps = row(&processes, "Executable", &text(&program));
    let uid = nix::unistd::Uid::current().to_string();
    let mut executing: BTreeSet<_> =
        accounts.iter().filter(|(_, id)| *id == uid).map(|(name, _)| format!("Id:{uid}, Name:{name}")).collect();
    if executing.is_empty() {
        executing.insert(format!("Id:{uid}, Name:"));
    }
    // The join has a row for each name of the uid.
    assert_eq!(sleeps["CntExecutions"], (PROCESSES + 3) * executing.len(), "{sleeps}");
    assert_eq!(set(&sleeps["ExecutingUsers"]), executing);
    let all: BTreeSet<_> = (0..PROCESSES + 3).map(|number| format!("{} {}", text(&program), seconds(number))).collect();
    let shown = set(&sleeps["ExecutionCommandLines"]);
    assert_eq!(shown.len(), MAKESET_KEEPS);
    assert!(shown.is_subset(&all), "{shown:?}");
    let [first, last] = [moment(&sleeps["MinObservedTime"]), moment(&sleeps["MaxObservedTime"])];
    assert!(begin <= first && first < last && last <= Timestamp::now(), "{sleeps}");
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Names and uids of the account file.
fn accounts() -> Vec<(String, String)> {
    let file = std::fs::read_to_string("/etc/passwd").unwrap();
    let lines = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.filter(|fields| fields.len() == 7).map(|fields| (fields[0].to_owned(), fields[2].to_owned())).collect()
}

/// What the system says of the groups of an account.
fn groups_of(name: &str) -> Vec<String> {
    let out = Command::new("id").args(["-Gn", "--", name]).output().unwrap();
    let mut groups: Vec<_> = String::from_utf8(out.stdout).unwrap().split_whitespace().map(str::to_owned).collect();
    groups.sort_unstable();
    groups
}

#[test]
fn which_ports_are_open_and_who_is_connected() {
    // Only ports up to 1024 are asked for; not everybody may open one.
    let Some(listener) = low_listener() else {
        eprintln!("left out: this user may not listen on a port below 1024");
        return;
    };
    let high = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let peer_port = peer.local_addr().unwrap().port().to_string();
    let hub = hub();
    let mut agent = Agent::new(DEVICE, connection(hub.port));
    agent.start();
    hub.wait_row("the peer", |row| row["RawEventName"] == "ListeningPorts" && details(row)["RemotePort"] == peer_port);

    let ports = answer(&hub, "3_open_ports");
    let found: Vec<_> = ports.iter().filter(|row| row["Protocol"] == "TCP" && row["LocalPort"] == port).collect();
    assert_eq!(found.len(), 1, "{ports:?}");
    assert_eq!(set(&found[0]["AllowedRemoteIPAddress"]), texts(&["0.0.0.0", "127.0.0.1"]));
    assert_eq!(set(&found[0]["AllowedRemotePort"]), texts(&["*", &peer_port]));
    assert!(moment(&found[0]["MinObservedTime"]) <= moment(&found[0]["MaxObservedTime"]));
    let high = high.local_addr().unwrap().port();
    assert!(
        ports.iter().all(|row| row["LocalPort"].as_i64().unwrap() <= 1024 && row["LocalPort"] != high),
        "{ports:?}"
    );
}

/// A listener on a free port that needs a right on most machines.
fn low_listener() -> Option<TcpListener> {
    let mut ports = 700..1_000_u16;
    ports.find_map(|port| match TcpListener::bind(("127.0.0.1", port)) {
        Ok(listener) => Some(Some(listener)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Some(None),
        Err(_) => None,
    })?
}
