//! How fast rows go in, with the alert rules at work, and how fast one device's rows come out. Prints, asserts nothing.
//!
//! `cargo bench -p edgewarden-hub --bench ingest`; `KEEP_STORE=DIR` leaves the last store there.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and its input is its own")]

use std::path::PathBuf;
use std::time::Instant;

use edgewarden_hub::ingest::{Topic, judge};
use edgewarden_hub::store::Store;
use edgewarden_hub::store::read::Filter;
use jiff::{SignedDuration, Timestamp};

/// As many messages as the writer takes into one transaction.
const MESSAGES: u32 = 64;

const EVENTS_OF_A_MESSAGE: u32 = 16;

struct Source {
    next_id: u64,
    at: Timestamp,
}

impl Source {
    /// A message of the agent's: events of one kind, a tenth of a second apart.
    fn message(&mut self, name: &str, events: u32, item: &impl Fn(u64) -> String) -> Vec<u8> {
        let category = if name == "LocalUsers" { "Periodic" } else { "Triggered" };
        let events: Vec<String> = (0..events)
            .map(|_| {
                self.next_id += 1;
                self.at += SignedDuration::from_millis(100);
                let (id, at) = (self.next_id, self.at);
                format!(
                    r#"{{"Id":"01a20c11-35d6-706c-821f-{id:012x}","TimestampLocal":"{at:.3}","TimestampUTC":"{at:.3}","Category":"{category}","Name":"{name}","EventType":"Security","IsEmpty":false,"PayloadSchemaVersion":"1.0","Payload":[{}]}}"#,
                    item(id)
                )
            })
            .collect();
        format!(
            r#"{{"AgentVersion":"0.1.0","AgentId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001","MessageSchemaVersion":"1.0","Events":[{}]}}"#,
            events.join(",")
        )
        .into_bytes()
    }
}

fn process(id: u64) -> String {
    format!(
        r#"{{"Executable":"/usr/bin/dash","CommandLine":"/bin/sh /usr/local/bin/backup --full '/srv/my data' --run {id}","UserId":"65534","ProcessId":{id},"ParentProcessId":24234,"ExtraDetails":{{"ParentExecutable":"/usr/sbin/runuser","Script":"/usr/local/bin/backup"}}}}"#
    )
}

fn login(id: u64) -> String {
    let (result, operation) = if id.is_multiple_of(50) { ("Success", "Login") } else { ("Fail", "LoginFailed") };
    format!(
        r#"{{"ProcessId":19063,"UserId":"0","UserName":"root","Operation":"{operation}","Executable":"/usr/sbin/sshd","RemoteAddress":"192.0.2.{}","RemotePort":"49444","Result":"{result}","ExtraDetails":{{"Method":"password","Source":"journal","Trust":"executable"}}}}"#,
        id % 7
    )
}

fn users(_: u64) -> String {
    let user = |n: u32| {
        format!(
            r#"{{"UserName":"user{n}","UserId":"{n}","GroupNames":"user{n};ssl-cert","GroupIds":"{n};103","ExtraDetails":{{"Home":"/var/lib/user{n}","PasswordLogin":"no","Shell":"/bin/bash"}}}}"#
        )
    };
    (0..30).map(user).collect::<Vec<_>>().join(",")
}

fn ingest(what: &str, name: &str, batches: u32, item: impl Fn(u64) -> String) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let topic = Topic::new("edgewarden/{deviceId}/security").unwrap();
    let mut source = Source { next_id: 0, at: "2026-11-24T05:00:00Z".parse().unwrap() };
    let (mut rows, mut alerts, mut bytes, mut seconds) = (0, 0, 0, 0.0);
    for _ in 0..batches {
        let messages: Vec<(String, Vec<u8>)> = (0..MESSAGES)
            .map(|n| {
                let message = source.message(name, EVENTS_OF_A_MESSAGE, &item);
                (format!("edgewarden/press-{}/security", n % 40), message)
            })
            .collect();
        bytes += messages.iter().map(|(_, message)| message.len()).sum::<usize>();
        let started = Instant::now();
        let entries: Vec<_> = messages.into_iter().map(|(to, message)| judge(&topic, to, message)).collect();
        let outcomes = store.write("/edgewarden/hubs/bench", Timestamp::now(), &entries).unwrap();
        alerts += store.settle_all_snapshots(Timestamp::now()).unwrap();
        seconds += started.elapsed().as_secs_f64();
        rows += outcomes.iter().map(|outcome| outcome.stored).sum::<usize>();
        alerts += outcomes.iter().map(|outcome| outcome.alerts).sum::<usize>();
    }
    println!(
        "ingest {what}: {rows} rows, {} bytes of messages a row, {alerts} alerts: {:.0} rows/s",
        bytes / rows,
        rows as f64 / seconds
    );
}

/// One device with 250,000 ProcessCreate rows among 1,000 others with 50 each, all at the same time.
fn scan() {
    let dir = tempfile::tempdir().unwrap();
    let place = std::env::var_os("KEEP_STORE").map_or_else(|| dir.path().to_owned(), PathBuf::from);
    let mut store = Store::open(&place).unwrap();
    let topic = Topic::new("edgewarden/{deviceId}/security").unwrap();
    let mut source = Source { next_id: 0, at: "2026-11-24T05:00:00Z".parse().unwrap() };
    for turn in 0..250 {
        let mut entries = Vec::new();
        for n in 0..50 {
            let message = source.message("ProcessCreate", 20, &process);
            entries.push(judge(&topic, "edgewarden/press-17/security".to_owned(), message));
            let message = source.message("ProcessCreate", 4, &process);
            entries.push(judge(&topic, format!("edgewarden/other-{}/security", (turn * 50 + n) % 1000), message));
        }
        store.write("/edgewarden/hubs/bench", Timestamp::now(), &entries).unwrap();
    }
    drop(store);
    let bytes = std::fs::metadata(place.join("events.db")).unwrap().len();
    for turn in ["first", "second"] {
        let started = Instant::now();
        let store = Store::open_to_read(&place).unwrap();
        let (mut rows, mut read) = (0, 0);
        let filter = Filter { device: Some("press-17"), name: Some("ProcessCreate") };
        store
            .for_each_row(filter, |row| {
                rows += 1;
                read += row.event_details.len();
                true
            })
            .unwrap();
        println!(
            "scan of one device among 1,000, {turn} time: {rows} rows, {read} bytes of EventDetails, store {bytes} bytes: {:.0} ms",
            started.elapsed().as_secs_f64() * 1000.0
        );
    }
}

fn main() {
    ingest("ProcessCreate", "ProcessCreate", 100, process);
    ingest("Login, 98 % failed from 7 addresses", "Login", 100, login);
    ingest("LocalUsers, 30 a snapshot", "LocalUsers", 5, users);
    scan();
}
