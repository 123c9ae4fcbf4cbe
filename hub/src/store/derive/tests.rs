use serde_json::{Value, json};

use jiff::{SignedDuration, Timestamp};

use crate::schema;
use crate::store::Entry;
use crate::store::alert::Alert;
use crate::store::{Store, moment};

const START: &str = "2026-11-24T05:00:00Z";

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    next_id: u32,
}

fn at(second: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
}

/// A message of one event, its id made of `id`.
fn entry(device: &str, id: u32, name: &str, at: Timestamp, items: &[Value]) -> Entry {
    let category = if name == "LocalUsers" { "Periodic" } else { "Triggered" };
    let payload = json!({
        "AgentVersion": "0.1.0", "AgentId": "0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001", "MessageSchemaVersion": "1.0",
        "Events": [{
            "Id": format!("0b7c5a52-57a0-4c89-9a53-0f3c{id:08x}"), "TimestampLocal": at.to_string(),
            "TimestampUTC": at.to_string(), "Category": category, "Name": name, "EventType": "Security",
            "IsEmpty": items.is_empty(), "PayloadSchemaVersion": "1.0", "Payload": items,
        }],
    })
    .to_string()
    .into_bytes();
    let verdict = schema::parse(&payload).map(|message| (device.to_owned(), message));
    assert!(verdict.is_ok(), "{verdict:?}");
    Entry { topic: format!("edgewarden/{device}/security"), payload, speaker: Some(device.to_owned()), verdict }
}

fn login(result: &str, user: &str, address: Option<&str>) -> Value {
    let mut item = json!({"ProcessId": 7, "UserName": user, "Operation": "Login", "Executable": "/usr/sbin/sshd",
        "Result": result});
    if let Some(address) = address {
        item["RemoteAddress"] = json!(address);
    }
    item
}

fn user(name: &str, groups: &str) -> Value {
    json!({"UserName": name, "UserId": "1000", "GroupNames": groups, "GroupIds": groups})
}

fn names(alerts: &[Alert]) -> Vec<&str> {
    let mut names: Vec<&str> = alerts.iter().map(|alert| alert["AlertName"].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Fixture { _dir: dir, store, next_id: 0 }
    }

    fn write(&mut self, entry: &Entry) -> usize {
        self.store.write("/edgewarden/hubs/plant", at(0), std::slice::from_ref(entry)).unwrap()[0].alerts
    }

    fn event(&mut self, name: &str, second: i64, items: &[Value]) -> usize {
        self.next_id += 1;
        let entry = entry("press-17", self.next_id, name, at(second), items);
        self.write(&entry)
    }

    fn alerts(&self) -> Vec<Alert> {
        self.store.alerts(None).unwrap()
    }
}

#[test]
fn five_failures_within_ten_minutes_and_the_success_behind_them() {
    let mut fixture = Fixture::new();
    let fail = login("Fail", "root", Some("192.0.2.9"));
    for n in 0..4 {
        assert_eq!(fixture.event("Login", n * 150, std::slice::from_ref(&fail)), 0);
    }
    // Another address's failure, and another device's, do not count.
    fixture.event("Login", 599, &[login("Fail", "root", Some("192.0.2.10"))]);
    let other = entry("press-18", 99, "Login", at(599), std::slice::from_ref(&fail));
    fixture.write(&other);
    assert!(fixture.alerts().is_empty());
    assert_eq!(fixture.event("Login", 600, std::slice::from_ref(&fail)), 1);
    // The same attack in the same hour is the same alert.
    assert_eq!(fixture.event("Login", 610, std::slice::from_ref(&fail)), 0);
    assert_eq!(fixture.event("Login", 660, &[login("Success", "pi", Some("192.0.2.9"))]), 1);
    let alerts = fixture.alerts();
    assert_eq!(names(&alerts), ["Failed Bruteforce attempt", "Successful Bruteforce attempt"]);
    let (fail, success) = (&alerts[0], &alerts[1]);
    assert_eq!((fail["AlertSeverity"].as_str(), success["AlertSeverity"].as_str()), (Some("Low"), Some("High")));
    assert_eq!(fail["AlertType"], "IoT_Bruteforce_Fail");
    assert_eq!(fail["ResourceId"], "/edgewarden/hubs/plant");
    assert_eq!(fail["StartTime"], moment(at(0)));
    assert_eq!(fail["EndTime"], moment(at(600)));
    assert_eq!((&fail["Type"], &fail["IsIncident"]), (&json!("SecurityAlert"), &json!(false)));
    let properties: Value = serde_json::from_str(success["ExtendedProperties"].as_str().unwrap()).unwrap();
    assert_eq!((&properties["DeviceId"], &properties["User Name"]), (&json!("press-17"), &json!("pi")));
    assert_eq!(properties["Remote Address"], "192.0.2.9");
}

#[test]
fn a_flood_of_logins_is_looked_up_by_statements_planned_once() {
    use rusqlite::StatementStatus::{RePrepare, Run};
    let mut fixture = Fixture::new();
    for n in 0..20 {
        fixture.event("Login", n, &[login("Fail", "root", Some("192.0.2.9"))]);
    }
    for sql in [super::FAILURES_BEFORE, super::LOGINS_AFTER] {
        let statement = fixture.store.db.prepare_cached(sql).unwrap();
        assert!(statement.get_status(Run) >= 20, "the text is that of the statement in use");
        assert_eq!(statement.get_status(RePrepare), 0, "{sql}");
    }
}

#[test]
fn failures_further_apart_are_no_attack() {
    let mut fixture = Fixture::new();
    for n in 0..12 {
        assert_eq!(fixture.event("Login", n * 151, &[login("Fail", "root", Some("192.0.2.9"))]), 0);
    }
    assert_eq!(fixture.event("Login", 12 * 151, &[login("Success", "root", Some("192.0.2.9"))]), 0);
}

#[test]
fn a_local_login_is_one_without_another_machine() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.event("Login", 0, &[login("Success", "pi", None)]), 1);
    assert_eq!(fixture.event("Login", 5, &[login("Success", "pi", None)]), 0);
    assert_eq!(fixture.event("Login", 9, &[login("Fail", "pi", Some("127.0.0.1"))]), 1);
    let mut by_name = login("Success", "eve", None);
    by_name["ExtraDetails"] = json!({"RemoteHost": "evil.example"});
    assert_eq!(fixture.event("Login", 10, &[by_name]), 0);
    assert_eq!(fixture.event("Login", 11, &[login("Success", "eve", Some("192.0.2.9"))]), 0);
    assert_eq!(fixture.event("Login", 3600, &[login("Success", "pi", None)]), 1);
    assert_eq!(names(&fixture.alerts()), ["Failed local login", "Successful local login", "Successful local login"]);
}

#[test]
fn a_miner_is_an_alert_and_a_second_delivery_is_not() {
    let mut fixture = Fixture::new();
    let item = json!({"Executable": "/usr/bin/dash", "ProcessId": u64::MAX, "ParentProcessId": 1, "UserId": "0",
        "CommandLine": "sh -c 'echo cpuminer-multi'"});
    let entry = entry("press-17", 1, "ProcessCreate", at(0), &[item]);
    assert_eq!((fixture.write(&entry), fixture.write(&entry)), (1, 0));
    assert_eq!(names(&fixture.alerts()), ["Crypto coin miner image"]);
}

#[test]
fn the_alerts_of_a_set_of_logins_do_not_depend_on_their_order() {
    // A fixed walk (Knuth's MMIX numbers): logins of two addresses over two hours, many in the same second.
    let mut state: u64 = 20_261_124;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..4 {
        let mut entries: Vec<Entry> = (0..60)
            .map(|id| {
                let second = i64::try_from(random(120)).unwrap() * 60;
                let address = ["192.0.2.9", "2001:db8::9"][usize::try_from(random(2)).unwrap()];
                let result = if random(8) == 0 { "Success" } else { "Fail" };
                entry("press-17", id, "Login", at(second), &[login(result, "root", Some(address))])
            })
            .collect();
        let ids = |entries: &[Entry]| {
            let mut fixture = Fixture::new();
            fixture.store.write("r", at(0), entries).unwrap();
            let mut ids: Vec<String> =
                fixture.alerts().iter().map(|alert| alert["SystemAlertId"].to_string()).collect();
            ids.sort_unstable();
            ids
        };
        let expected = ids(&entries);
        assert!(!expected.is_empty());
        for _ in 0..3 {
            for n in (1..entries.len()).rev() {
                entries.swap(n, usize::try_from(random(n as u64 + 1)).unwrap());
            }
            assert_eq!(ids(&entries), expected);
        }
    }
}

#[test]
fn a_snapshot_is_compared_when_it_has_settled() {
    let mut fixture = Fixture::new();
    fixture.event("LocalUsers", 0, &[user("root", "root"), user("pi", "pi"), user("old", "old")]);
    assert_eq!(fixture.store.settle_all_snapshots(at(0)).unwrap(), 0);
    fixture.event("LocalUsers", 100, &[user("root", "root"), user("pi", "pi;sudo")]);
    assert_eq!(fixture.store.settle_snapshots(at(4)).unwrap(), 0, "more of it may come");
    assert_eq!(fixture.store.settle_snapshots(at(5)).unwrap(), 2);
    assert_eq!(fixture.store.settle_all_snapshots(at(9)).unwrap(), 0);
    let alerts = fixture.alerts();
    assert_eq!(names(&alerts), ["Local user added to one or more groups", "Local user deletion detected"]);
    assert_eq!(
        (alerts[0]["StartTime"].as_str(), alerts[0]["EndTime"].as_str()),
        (Some(&*moment(at(0))), Some(&*moment(at(100))))
    );
}

#[test]
fn a_part_of_a_snapshot_that_comes_late_withdraws_what_it_disproves() {
    let mut fixture = Fixture::new();
    fixture.event("LocalUsers", 0, &[user("root", "root"), user("pi", "pi")]);
    fixture.event("LocalUsers", 100, &[user("root", "root")]);
    assert_eq!(fixture.store.settle_all_snapshots(at(9)).unwrap(), 1);
    fixture.event("LocalUsers", 100, &[user("pi", "pi;sudo")]);
    assert_eq!(fixture.store.settle_all_snapshots(at(9)).unwrap(), 1);
    let alerts = fixture.alerts();
    assert_eq!(names(&alerts), ["Local user added to one or more groups", "Local user deletion detected"]);
    let gone = alerts.iter().find(|alert| alert["AlertName"] == "Local user deletion detected").unwrap();
    assert_eq!(gone["Status"], "Dismissed");
    assert!(gone["Description"].as_str().unwrap().starts_with("Withdrawn"));
}

#[test]
fn a_snapshot_between_two_others_moves_the_change_to_where_it_was() {
    let mut fixture = Fixture::new();
    fixture.event("LocalUsers", 0, &[user("pi", "pi")]);
    fixture.event("LocalUsers", 200, &[user("pi", "pi;sudo")]);
    fixture.store.settle_all_snapshots(at(9)).unwrap();
    fixture.event("LocalUsers", 100, &[user("pi", "pi;sudo")]);
    fixture.store.settle_all_snapshots(at(9)).unwrap();
    let alerts = fixture.alerts();
    let new: Vec<_> = alerts.iter().filter(|alert| alert["Status"] == "New").collect();
    assert_eq!((alerts.len(), new.len()), (2, 1));
    assert_eq!(new[0]["EndTime"], moment(at(100)));
}

#[test]
fn a_snapshot_that_waits_is_compared_in_the_next_life() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let before = entry("press-17", 1, "LocalUsers", at(0), &[user("pi", "pi")]);
    let after = entry("press-17", 2, "LocalUsers", at(100), &[]);
    store.write("r", at(0), &[before, after.clone()]).unwrap();
    // No destructor runs, as with kill -9.
    std::mem::forget(store);
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(store.settle_snapshots(at(60)).unwrap(), 1);
    store.write("r", at(61), &[after]).unwrap();
    assert_eq!(store.settle_all_snapshots(at(120)).unwrap(), 0, "known rows start nothing");
    assert_eq!(store.alerts(Some("press-17")).unwrap().len(), 1);
}

#[test]
fn nothing_a_device_may_say_keeps_a_row_out() {
    let mut fixture = Fixture::new();
    // What SQLite's JSON functions read must be what the schema let through.
    for text in ["\u{0}", "\u{1b}[2J", "\u{7f}\u{80}\u{10ffff}", "\\\"'--", "$.Result", "{\"a\":[", ""] {
        let mut item = login("Fail", text, Some("::ffff:192.0.2.9"));
        item["ExtraDetails"] = json!({text: text});
        fixture.event("Login", 0, &[item]);
        fixture.event("LocalUsers", 60, &[user(text, text)]);
    }
    fixture.event("LocalUsers", 120, &[]);
    fixture.store.settle_all_snapshots(at(0)).unwrap();
    let rows = fixture.store.counts().unwrap();
    assert_eq!(rows.iter().map(|count| count.rows).sum::<u64>(), 15);
    let alerts = fixture.alerts();
    assert!(alerts.iter().any(|alert| alert["AlertType"] == "IoT_Bruteforce_Fail"));
    assert!(alerts.iter().all(|alert| !alert["Description"].as_str().unwrap().contains(char::is_control)));
}

#[test]
fn a_flood_of_snapshots_is_settled_turn_by_turn() {
    let mut fixture = Fixture::new();
    let entries: Vec<Entry> =
        (0..250).map(|n: u32| entry("press-17", n, "LocalUsers", at(n.into()), &[user(&n.to_string(), "g")])).collect();
    fixture.store.write("r", at(0), &entries).unwrap();
    let mut turns = 0;
    while fixture.store.settle_snapshots(at(60)).unwrap() > 0 {
        turns += 1;
    }
    assert_eq!((turns, fixture.alerts().len()), (3, 2 * 249));
}

#[test]
fn silence_is_told_once_until_the_device_speaks_again() {
    let mut fixture = Fixture::new();
    fixture.event("Login", 0, &[login("Success", "pi", Some("192.0.2.9"))]);
    const HOUR: i64 = 3600;
    assert_eq!(fixture.store.tell_silent(at(72 * HOUR - 1)).unwrap(), 0);
    assert_eq!(fixture.store.tell_silent(at(72 * HOUR)).unwrap(), 1);
    assert_eq!(fixture.store.tell_silent(at(80 * HOUR)).unwrap(), 0);
    // What cannot be read is a sign of life too.
    let junk = Entry {
        payload: Vec::new(),
        verdict: Err("junk".to_owned()),
        ..entry("press-17", 9, "LocalUsers", at(0), &[])
    };
    fixture.store.write("r", at(100 * HOUR), &[junk]).unwrap();
    assert_eq!(fixture.store.tell_silent(at(171 * HOUR)).unwrap(), 0);
    assert_eq!(fixture.store.tell_silent(at(172 * HOUR)).unwrap(), 1);
    assert_eq!(fixture.alerts().len(), 2);
}
