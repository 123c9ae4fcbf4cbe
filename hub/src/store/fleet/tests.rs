use serde_json::json;

use super::*;
use crate::schema;
use crate::store::read::Filter;
use crate::store::{Entry, FILE_NAME, MIGRATIONS, Timestamp};

const HUB: &str = "/edgewarden/hubs/plant";

/// A message with one item; ids are never used again.
fn message(id: u32, name: &str, item: serde_json::Value) -> Vec<u8> {
    let (category, event_type) = match name {
        "DroppedEventsStatistics" => ("Periodic", "Operational"),
        "Diagnostic" => ("Triggered", "Diagnostic"),
        _ => ("Triggered", "Security"),
    };
    let at = format!("2026-11-24T05:{:02}:00Z", id % 60);
    let event = json!({
        "Id": format!("0b7c5a52-57a0-4c89-9a53-0f3c{id:08x}"), "TimestampLocal": at, "TimestampUTC": at,
        "Category": category, "Name": name, "EventType": event_type, "IsEmpty": false, "PayloadSchemaVersion": "1.0",
        "Payload": [item],
    });
    let message = json!({
        "AgentVersion": format!("0.1.{id}"), "AgentId": "0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001",
        "MessageSchemaVersion": "1.0", "Events": [event],
    });
    message.to_string().into_bytes()
}

fn start(id: u32, boot: &str, before: &str) -> Vec<u8> {
    let extra = json!({"Lifecycle": "started", "Before": before, "BootId": boot, "AgentVersion": "0.1.0"});
    message(
        id,
        "Diagnostic",
        json!({"Severity": "Information", "Message": "x", "ProcessId": 1, "ThreadId": 1, "ExtraDetails": extra}),
    )
}

fn dropped(id: u32, count: serde_json::Value) -> Vec<u8> {
    message(id, "DroppedEventsStatistics", json!({"Queue": "Low", "CollectedEvents": 9, "DroppedEvents": count}))
}

fn process(id: u32) -> Vec<u8> {
    let item =
        json!({"Executable": "/bin/true", "ProcessId": 1, "ParentProcessId": 0, "UserId": "0", "CommandLine": "true"});
    message(id, "ProcessCreate", item)
}

fn hear(store: &mut Store, at: &str, device: &str, payloads: &[Vec<u8>]) {
    let entry = |payload: &Vec<u8>| Entry {
        topic: format!("edgewarden/{device}/security"),
        payload: payload.clone(),
        speaker: Some(device.to_owned()),
        verdict: schema::parse(payload).map(|message| (device.to_owned(), message)),
    };
    let entries: Vec<Entry> = payloads.iter().map(entry).collect();
    store.write(HUB, at.parse().unwrap(), &entries).unwrap();
}

#[test]
fn a_device_is_counted_with_what_it_lost_and_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    hear(&mut store, "2026-11-20T05:00:00Z", "press-17", &[start(1, "a", "first"), process(2), dropped(3, json!(5))]);
    let later = [
        start(4, "a", "killed"),
        start(5, "b", "powerLost"),
        start(6, "c", "first"),
        dropped(7, json!(2)),
        // A device says what it likes of itself.
        dropped(8, json!(-4)),
        b"junk".to_vec(),
        process(2),
    ];
    hear(&mut store, "2026-11-21T05:00:00Z", "press-17", &later);
    hear(&mut store, "2026-11-21T05:00:00Z", "press-16", &[b"junk".to_vec()]);
    store.tell_silent("2026-11-24T06:00:00Z".parse().unwrap()).unwrap();
    let fleet = store.fleet().unwrap();
    let rows = [("Diagnostic", 4), ("DroppedEventsStatistics", 3), ("ProcessCreate", 1)];
    let wanted = Member {
        device_id: "press-17".to_owned(),
        associated_resource_id: HUB.to_owned(),
        agent_version: "0.1.8".to_owned(),
        first_seen: "2026-11-20T05:00:00.000000Z".to_owned(),
        last_seen: "2026-11-21T05:00:00.000000Z".to_owned(),
        is_heard: true,
        first_event: "2026-11-24T05:01:00.000000Z".to_owned(),
        last_event: "2026-11-24T05:08:00.000000Z".to_owned(),
        rows: rows.map(|(kind, count)| (kind.to_owned(), count)).into(),
        lost: 7,
        refused: 1,
        boots: 3,
        killed: 1,
        power_lost: 1,
        first_starts: 2,
        alerts: 1,
        silences: 1,
    };
    assert_eq!(fleet[1], wanted);
    let only_refused = &fleet[0];
    assert_eq!((only_refused.device_id.as_str(), only_refused.refused, only_refused.rows.len()), ("press-16", 1, 0));
    assert_eq!(only_refused.associated_resource_id, HUB);
}

#[test]
fn a_device_belongs_to_the_hub_it_last_spoke_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    hear(&mut store, "2026-11-20T05:00:00Z", "d", &[process(1)]);
    // Somebody imports what another hub had of it; then this hub gets another name.
    let mut rows = store.rows(Filter::default()).unwrap();
    rows[0].iot_raw_event_id = "x".to_owned();
    rows[0].associated_resource_id = "/edgewarden/hubs/other".to_owned();
    store.write_rows("2026-11-20T06:00:00Z".parse().unwrap(), &rows).unwrap();
    assert_eq!(store.fleet().unwrap()[0].associated_resource_id, HUB);
    let speaker = Some("d".to_owned());
    let entry = Entry { topic: String::new(), payload: Vec::new(), speaker, verdict: Err("junk".to_owned()) };
    store.write("/edgewarden/hubs/new", "2026-11-20T07:00:00Z".parse().unwrap(), &[entry]).unwrap();
    let member = store.fleet().unwrap().remove(0);
    assert_eq!(
        (member.associated_resource_id.as_str(), &member.first_seen[..13]),
        ("/edgewarden/hubs/new", "2026-11-20T05")
    );
}

#[test]
fn what_is_lost_is_never_too_large_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    hear(&mut store, "2026-11-20T05:00:00Z", "d", &[dropped(1, json!(u64::MAX)), dropped(2, json!(u64::MAX))]);
    assert_eq!(store.fleet().unwrap()[0].lost, u64::MAX);
}

#[test]
fn rows_are_counted_without_a_look_at_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let step = |sql: &str| -> String {
        let mut plan = store.db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps: Vec<String> = plan.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        steps.join("; ")
    };
    assert_eq!(step(COUNT_ROWS), "SCAN SecurityIoTRawEvent USING COVERING INDEX DeviceNameTime");
    assert!(step(STARTS).starts_with("SCAN SecurityIoTRawEvent USING INDEX StartsOfDevice"), "{}", step(STARTS));
}

#[test]
fn a_store_of_the_second_format_learns_since_when_its_devices_are_heard() {
    let dir = tempfile::tempdir().unwrap();
    let old = rusqlite::Connection::open(dir.path().join(FILE_NAME)).unwrap();
    old.execute_batch(&MIGRATIONS[..2].concat()).unwrap();
    old.execute_batch(
        "INSERT INTO SecurityIoTRawEvent VALUES ('2026-11-01T00:00:00.000000Z', '', '', '', 'a', '{}', '1', 0, '', '', '',
            '2026-11-01T00:00:00.000000Z', '', 0, NULL);
         INSERT INTO Device VALUES ('a', '', '2026-11-20T00:00:00.000000Z', 0), ('b', '', '2026-11-20T00:00:00.000000Z', 0);
         PRAGMA user_version = 2;",
    )
    .unwrap();
    drop(old);
    let fleet = Store::open(dir.path()).unwrap().fleet().unwrap();
    let seen: Vec<_> = fleet.iter().map(|member| (&member.first_seen[..10], &member.last_seen[..10])).collect();
    assert_eq!(seen, [("2026-11-01", "2026-11-20"), ("2026-11-20", "2026-11-20")]);
    assert!(fleet[0].last_seen.parse::<Timestamp>().is_ok());
}
