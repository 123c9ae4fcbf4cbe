//! Who tried to get in, told by genuine daemons: each attempt that is made is the rows that are written down beside it,
//! no more and no fewer, whether the daemons log to a file or to a journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use serde_json::Value;

use self::attempts::{Attempt, Row, attempts};
use crate::agent::{Agent, connection};
use crate::hub::{Hub, details};
use crate::hub_guide::{DEVICE, answer, hub, set, texts};
use crate::login_lab::{Lab, Log};
use crate::wait;

mod attempts;
mod flood;

/// Address and port of one connection; 0 for rows without one.
type Peer = (String, u16);

/// What the rows say of each connection.
type Told = BTreeMap<Peer, Vec<Row>>;

/// Of all attempts, what the guide's query about logins returns: user, result, handler, count, addresses. It leaves
/// out those over loopback, those from nowhere, and those whose user is no account or was not named.
#[rustfmt::skip]
const GUIDE: [(&str, &str, &str, usize, &[&str]); 13] = [
    ("alice", "Success", "/usr/sbin/sshd", 9,
        &["192.0.2.2", "198.51.100.2", "2001:db8:1::2", "2001:db8:2::2", "2001:db8:3::2"]),
    ("alice", "Fail", "/usr/sbin/sshd", 6,
        &["192.0.2.2", "198.51.100.2", "203.0.113.2", "2001:db8:1::2", "2001:db8:2::2"]),
    ("bob", "Success", "/usr/sbin/sshd", 1, &["203.0.113.2"]),
    ("bob", "Fail", "/usr/sbin/sshd", 3, &["203.0.113.2"]),
    ("locked", "Fail", "/usr/sbin/sshd", 1, &["192.0.2.2"]),
    ("root", "Success", "/usr/sbin/sshd", 1, &["2001:db8:2::2"]),
    ("root", "Fail", "/usr/sbin/sshd", 2, &["198.51.100.2", "203.0.113.2"]),
    ("alice", "Success", "/usr/sbin/dropbear", 3, &["192.0.2.2", "2001:db8:1::2", "2001:db8:3::2"]),
    ("alice", "Fail", "/usr/sbin/dropbear", 3, &["198.51.100.2", "2001:db8:2::2", "2001:db8:3::2"]),
    ("bob", "Fail", "/usr/sbin/dropbear", 3, &["2001:db8:1::2"]),
    ("root", "Success", "/usr/sbin/dropbear", 1, &["192.0.2.2"]),
    ("root", "Fail", "/usr/sbin/dropbear", 1, &["198.51.100.2"]),
    ("shellless", "Fail", "/usr/sbin/dropbear", 1, &["203.0.113.2"]),
];

fn told(hub: &Hub) -> Told {
    let mut told = Told::new();
    for row in hub.rows().iter().filter(|row| row["RawEventName"] == "Login") {
        let row = details(row);
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let port = text("RemotePort").parse().unwrap_or(0);
        assert!(row["ProcessId"].as_u64().is_some_and(|pid| pid > 1), "{row}");
        told.entry((text("RemoteAddress"), port)).or_default().push(Row::of(&row));
    }
    told
}

/// Makes all attempts, several at a time.
fn make(device: &Lab, attempts: &[Attempt]) {
    let next = Mutex::new(attempts.iter());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let attempt = next.lock().unwrap().next();
                    let Some(attempt) = attempt else { return };
                    attempt.make(device);
                }
            });
        }
    });
}

/// An agent on the device that follows its log.
fn collecting(device: &Lab, log: Log, hub: &Hub) -> Agent {
    let mut agent = Agent::new(DEVICE, connection(hub.port));
    agent.inside = device.inside();
    agent.own()["loginSource"] = match log {
        Log::File => device.path("auth.log").to_str().unwrap().into(),
        Log::Journal => "journal".into(),
    };
    agent.start();
    agent.wait_collecting();
    agent
}

fn tell_every_attempt_once(log: Log, source: &str, trusts: &[&str]) {
    let Some(device) = Lab::start(log) else { return };
    let hub = hub();
    let _agent = collecting(&device, log, &hub);
    let attempts = attempts();
    let (last, others) = attempts.split_last().expect("there are some");
    make(&device, others);
    last.make(&device);
    let mut expected = Told::new();
    for (peer, row) in attempts.iter().flat_map(Attempt::told) {
        expected.entry(peer).or_default().push(row);
    }
    wait::until("every attempt", || {
        let told = told(&hub);
        let is_short = |(peer, rows): &(&Peer, &Vec<Row>)| told.get(*peer).map_or(0, Vec::len) < rows.len();
        let missing: Vec<_> = expected.iter().filter(is_short).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:#?}")) }
    });
    let mut told = told(&hub);
    let left_open: Vec<_> = attempts.iter().filter(|attempt| attempt.is_left_open()).map(Attempt::port).collect();
    told.retain(|(_, port), _| !left_open.contains(port));
    let differs = |peer: &&Peer| told.get(*peer) != expected.get(*peer);
    let wrong: BTreeMap<_, _> = expected
        .keys()
        .chain(told.keys())
        .filter(differs)
        .map(|peer| (peer, [expected.get(peer), told.get(peer)]))
        .collect();
    assert!(wrong.is_empty(), "what was tried, and what is told instead: {wrong:#?}");
    for row in hub.rows().iter().filter(|row| row["RawEventName"] == "Login") {
        let row = details(row);
        let trust = row["ExtraDetails"]["Trust"].as_str().unwrap_or_default();
        assert_eq!(row["ExtraDetails"]["Source"], source, "{row}");
        assert!(trusts.contains(&trust), "{row}");
    }
    check_guide(&hub);
}

fn check_guide(hub: &Hub) {
    let key = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let returned: BTreeSet<_> = answer(hub, "4_user_logins")
        .iter()
        .map(|row| {
            let count = usize::try_from(row["CntLoginAttempts"].as_u64().unwrap()).unwrap();
            let addresses = set(&row["IPAddress"]);
            assert_eq!(row["CntIPAddress"], addresses.len(), "{row}");
            (key(row, "UserName"), key(row, "Result"), key(row, "LoginHandler"), count, addresses)
        })
        .collect();
    let expected = GUIDE.iter().map(|(user, result, handler, count, addresses)| {
        ((*user).to_owned(), (*result).to_owned(), (*handler).to_owned(), *count, texts(addresses))
    });
    assert_eq!(returned, expected.collect());
}

#[test]
fn every_attempt_is_told_once_from_a_log_file() {
    tell_every_attempt_once(Log::File, "file", &["file"]);
}

#[test]
fn every_attempt_is_told_once_from_the_journal() {
    // A process that ends as it writes is gone before journald can look at its program.
    tell_every_attempt_once(Log::Journal, "journal", &["executable", "uid"]);
}
