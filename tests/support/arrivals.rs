//! What came out at the far end, in one shape for both ends: our hub's rows and a foreign broker's messages.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// One row: one payload item of one event.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The event's id.
    pub event: String,
    /// Place in the event's payload.
    pub index: u64,
    /// `Login`, `LocalUsers`, ...
    pub name: String,
    /// The item itself, or the hub's `EventDetails`.
    pub details: Value,
}

impl Arrival {
    /// A text member of the details; empty when it is absent.
    pub fn text(&self, key: &str) -> &str {
        self.details[key].as_str().unwrap_or("")
    }
}

/// Takes a message of the published schema apart.
pub fn of_message(message: &Value) -> Vec<Arrival> {
    let mut out = Vec::new();
    for event in message["Events"].as_array().expect("a message has Events") {
        for (index, item) in event["Payload"].as_array().expect("an event has a Payload").iter().enumerate() {
            out.push(Arrival {
                event: event["Id"].as_str().expect("an event has an Id").to_owned(),
                index: index as u64,
                name: event["Name"].as_str().expect("an event has a Name").to_owned(),
                details: item.clone(),
            });
        }
    }
    out
}

/// The failed logins among the arrivals: remote port, which identifies the log line, to the ids of its events.
pub fn logins_by_port(arrivals: &[Arrival]) -> BTreeMap<u16, BTreeSet<String>> {
    let mut out: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for arrival in arrivals.iter().filter(|arrival| arrival.name == "Login") {
        let port = arrival.text("RemotePort").parse().unwrap_or_else(|_| panic!("no RemotePort in {arrival:?}"));
        out.entry(port).or_default().insert(arrival.event.clone());
    }
    out
}

/// Waits until every port of the range has arrived.
pub fn wait_ports(what: &str, ports: std::ops::Range<u16>, arrivals: impl Fn() -> Vec<Arrival>) {
    crate::wait::until(what, || {
        let seen = logins_by_port(&arrivals());
        let missing: Vec<u16> = ports.clone().filter(|port| !seen.contains_key(port)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{} ports are missing, {missing:?}", missing.len())) }
    });
}

/// The heart of the crash and link stories: each port of the range is one event, no more and no less, nothing else is
/// there, and each row is what its log line says.
pub fn assert_each_once(ports: std::ops::Range<u16>, arrivals: &[Arrival]) {
    let seen = logins_by_port(arrivals);
    assert!(seen.keys().copied().eq(ports), "other ports than were logged: {:?}", seen.keys());
    let twice: Vec<_> = seen.iter().filter(|(_, events)| events.len() != 1).collect();
    assert!(twice.is_empty(), "a line became more than one event: {twice:?}");
    let events: BTreeSet<_> = seen.values().flatten().collect();
    assert_eq!(events.len(), seen.len(), "two lines became one event");

    let mut first: BTreeMap<(&str, u64), &Value> = BTreeMap::new();
    for arrival in arrivals.iter().filter(|arrival| arrival.name == "Login") {
        let before = first.entry((&arrival.event, arrival.index)).or_insert(&arrival.details);
        assert_eq!(**before, arrival.details, "a redelivery must be the same event word for word");
        let [user, address, result, operation, executable] =
            ["UserName", "RemoteAddress", "Result", "Operation", "Executable"].map(|key| arrival.text(key));
        assert_eq!(
            [user, address, result, operation, executable],
            ["root", "198.51.100.7", "Fail", "LoginFailed", "/usr/sbin/sshd"]
        );
        assert_eq!(arrival.details["ProcessId"].to_string(), arrival.text("RemotePort"), "{arrival:?}");
    }
}
