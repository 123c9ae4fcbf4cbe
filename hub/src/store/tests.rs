use super::read::Filter;
use super::*;
use crate::schema;

const RESOURCE: &str = "/edgewarden/hubs/plant";
const ID: &str = "0b7c5a52-57a0-4c89-9a53-0f3cf1b0a002";

fn message(id: &str, ports: &[&str]) -> Vec<u8> {
    let items: Vec<String> = ports.iter().map(|port| format!(r#"{{"LocalPort":"{port}","Protocol":"TCP"}}"#)).collect();
    format!(
        r#"{{"AgentVersion":"0.1.0","AgentId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001","MessageSchemaVersion":"1.0","Events":[
        {{"Id":"{id}","TimestampLocal":"2026-11-24T06:12:01.123+01:00","TimestampUTC":"2026-11-24T05:12:01.123Z",
        "Category":"Periodic","Name":"ListeningPorts","EventType":"Security","IsEmpty":{},"PayloadSchemaVersion":"1.0",
        "Payload":[{}]}}]}}"#,
        items.is_empty(),
        items.join(",")
    )
    .into_bytes()
}

fn entry(device: &str, payload: Vec<u8>) -> Entry {
    let verdict = schema::parse(&payload).map(|message| (device.to_owned(), message));
    Entry { topic: format!("edgewarden/{device}/security"), payload, speaker: Some(device.to_owned()), verdict }
}

fn write(store: &mut Store, entry: Entry) -> Outcome {
    store.write(RESOURCE, Timestamp::UNIX_EPOCH, &[entry]).unwrap()[0]
}

#[test]
fn a_row_has_the_published_columns() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("new/state")).unwrap();
    assert_eq!(write(&mut store, entry("press-17", message(ID, &["22", "80"]))).stored, 2);
    let rows = store.rows(Filter { device: Some("press-17"), name: Some("ListeningPorts") }).unwrap();
    assert_eq!(
        serde_json::to_string(&rows[1]).unwrap(),
        concat!(
            r#"{"TimeGenerated":"1970-01-01T00:00:00.000000Z","AgentVersion":"0.1.0","#,
            r#""AssociatedResourceId":"/edgewarden/hubs/plant","AzureSubscriptionId":"","DeviceId":"press-17","#,
            r#""EventDetails":"{\"LocalPort\":\"80\",\"Protocol\":\"TCP\",\"TimestampLocal\":\"2026-11-24T06:12:01.123+01:00\","#,
            r#"\"TimestampUTC\":\"2026-11-24T05:12:01.123Z\",\"EventId\":\"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a002\"}","#,
            r#""IoTRawEventId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a002","IsEmpty":false,"RawEventCategory":"Periodic","#,
            r#""RawEventName":"ListeningPorts","RawEventType":"Security","TimeStamp":"2026-11-24T05:12:01.123000Z","#,
            r#""Type":"SecurityIoTRawEvent","PayloadIndex":1}"#
        )
    );
    assert!(store.rows(Filter { device: Some("Press-17"), name: None }).unwrap().is_empty());
    assert!(store.rows(Filter { device: None, name: Some("Login") }).unwrap().is_empty());
}

#[test]
fn a_second_delivery_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let twice = entry("a", message(ID, &["22", "80"]));
    let outcomes = store.write(RESOURCE, Timestamp::now(), &[twice.clone(), twice]).unwrap();
    assert_eq!(outcomes[0], Outcome { stored: 2, ..Outcome::default() });
    assert_eq!(outcomes[1], Outcome { known: 2, ..Outcome::default() });
    let counts = store.counts().unwrap();
    assert_eq!((counts.len(), counts[0].rows, counts[0].events), (1, 2, 1));
    assert!(store.refused().unwrap().is_empty());
}

#[test]
fn an_empty_snapshot_is_one_row_and_is_recognised_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(write(&mut store, entry("a", message(ID, &[]))).stored, 1);
    assert_eq!(write(&mut store, entry("a", message(ID, &[]))).known, 1);
    let rows = store.rows(Filter::default()).unwrap();
    assert!(rows[0].is_empty);
    assert!(rows[0].event_details.starts_with(r#"{"TimestampLocal":"#));
}

#[test]
fn other_content_under_a_known_id_is_kept_apart_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    write(&mut store, entry("a", message(ID, &["22", "80"])));
    let outcome = write(&mut store, entry("a", message(ID, &["22", "81", "82"])));
    assert_eq!(outcome, Outcome { stored: 1, known: 1, conflicts: 1, refused: true, alerts: 0 });
    let details: Vec<_> = store.rows(Filter::default()).unwrap().into_iter().map(|row| row.event_details).collect();
    assert!(details[1].contains(r#""LocalPort":"80""#), "{details:?}");
    let refused = store.refused().unwrap();
    assert_eq!(refused[0].reason, "Events[0].Payload[1]: other content is stored under this Id already");
    assert_eq!(refused[0].payload, message(ID, &["22", "81", "82"]));
}

#[test]
fn a_device_cannot_make_another_devices_event_be_taken_for_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    write(&mut store, entry("hostile", message(ID, &["1"])));
    assert_eq!(write(&mut store, entry("victim", message(ID, &["22"]))).stored, 1);
    let devices: Vec<_> = store.counts().unwrap().into_iter().map(|count| count.device).collect();
    assert_eq!(devices, ["hostile", "victim"]);
}

#[test]
fn refused_messages_are_kept_as_they_came_and_only_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let extra = 3;
    let mut batch: Vec<Entry> =
        (0..REFUSED_KEPT + extra).map(|n| entry("a", format!("junk {n}").into_bytes())).collect();
    batch.push(entry("a", vec![0, 255, 0]));
    let outcomes = store.write(RESOURCE, Timestamp::now(), &batch).unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.refused && outcome.stored == 0));
    let refused = store.refused().unwrap();
    assert_eq!(i64::try_from(refused.len()).unwrap(), REFUSED_KEPT);
    assert_eq!(refused[0].payload, b"junk 4");
    let last = refused.last().unwrap();
    assert_eq!((last.payload.as_slice(), last.topic.as_str()), ([0, 255, 0].as_slice(), "edgewarden/a/security"));
    assert_eq!(last.reason, "message: not UTF-8 from byte 1 on");
}

#[test]
fn what_was_written_is_there_when_the_process_never_closed_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    write(&mut store, entry("a", message(ID, &["22"])));
    // No destructor runs, as with kill -9: the write-ahead log is all there is.
    std::mem::forget(store);
    let again = Store::open(dir.path()).unwrap();
    assert_eq!(again.counts().unwrap()[0].rows, 1);
    let mode: String = again.db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    let synchronous: i64 = again.db.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 2));
}

#[test]
fn a_failed_batch_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.db.execute_batch("DROP TABLE Refused").unwrap();
    let batch = [entry("a", message(ID, &["22"])), entry("a", b"junk".to_vec())];
    let error = store.write(RESOURCE, Timestamp::now(), &batch).unwrap_err().to_string();
    assert!(error.contains("cannot write to") && error.contains("events.db"), "{error}");
    assert!(store.counts().unwrap().is_empty());
}

#[test]
fn a_store_of_another_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.db.pragma_update(None, "user_version", 99).unwrap();
    for error in [Store::open(dir.path()).unwrap_err(), Store::open_to_read(dir.path()).unwrap_err()] {
        assert!(error.to_string().contains("its format is 99"), "{error}");
    }
}

#[test]
fn a_migration_that_was_interrupted_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    // A file of format 0: made, and never filled.
    drop(Connection::open(dir.path().join(FILE_NAME)).unwrap());
    assert!(Store::open_to_read(dir.path()).is_err());
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(write(&mut store, entry("a", message(ID, &["22"]))).stored, 1);
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().counts().unwrap()[0].rows, 1);
}

#[test]
fn what_is_no_store_is_refused_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Store::open_to_read(dir.path()).unwrap_err().to_string().contains("events.db"));
    std::fs::write(dir.path().join(FILE_NAME), vec![b'x'; 8192]).unwrap();
    assert!(Store::open(dir.path()).unwrap_err().to_string().contains("not a database"));
}

#[test]
fn the_reader_sees_what_a_running_writer_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let reader = Store::open_to_read(dir.path()).unwrap();
    write(&mut store, entry("a", message(ID, &["22"])));
    assert_eq!(reader.rows(Filter::default()).unwrap().len(), 1);
}

#[test]
fn a_store_of_the_first_format_is_brought_up_to_date_with_its_logins() {
    let dir = tempfile::tempdir().unwrap();
    let old = Connection::open(dir.path().join(FILE_NAME)).unwrap();
    old.execute_batch(MIGRATIONS[0]).unwrap();
    for (n, address) in [(1, r#""RemoteAddress":"192.0.2.9","#), (2, "")] {
        let details = format!(r#"{{"UserName":"root",{address}"Result":"Fail"}}"#);
        let sql =
            "INSERT INTO SecurityIoTRawEvent VALUES ('', '', '', '', 'press-17', ?, ?, 0, '', 'Login', '', '', '', 0)";
        old.execute(sql, rusqlite::params![details, n.to_string()]).unwrap();
    }
    old.execute_batch("PRAGMA user_version = 1").unwrap();
    drop(old);
    let error = Store::open_to_read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("serve or import bring it up to date"), "{error}");
    let store = Store::open(dir.path()).unwrap();
    let mut keys = store.db.prepare("SELECT LoginKey FROM SecurityIoTRawEvent ORDER BY IoTRawEventId").unwrap();
    let keys: Vec<Option<String>> = keys.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(keys, [Some("Fail 192.0.2.9".to_owned()), None]);
    assert_eq!(store.rows(Filter::default()).unwrap().len(), 2);
}
