use jiff::ToSpan;

use super::*;
use crate::schema;
use crate::store::Entry;
use crate::store::read::Filter;

const DAY_S: i64 = 24 * 3600;

fn now(day: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + day * DAY_S).unwrap()
}

/// A day's logins, one of them local and so an alert.
fn write(store: &mut Store, day: i64, logins: u32) {
    let entries: Vec<Entry> = (0..logins)
        .map(|n| {
            let id = u64::try_from(day).unwrap() << 24 | u64::from(n);
            let address = if n == 0 { "" } else { r#""RemoteAddress":"192.0.2.9","# };
            let payload = format!(
                r#"{{"AgentVersion":"0.1.0","AgentId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001","MessageSchemaVersion":"1.0","Events":[{{"Id":"0b7c5a52-57a0-4c89-9a53-{id:012x}","TimestampLocal":"2026-11-24T06:12:01.123+01:00","TimestampUTC":"{}","Category":"Triggered","Name":"Login","EventType":"Security","IsEmpty":false,"PayloadSchemaVersion":"1.0","Payload":[{{"ProcessId":7,"UserName":"root","Operation":"Login","Executable":"/usr/sbin/sshd",{address}"Result":"Success"}}]}}]}}"#,
                now(0) + day.hours()
            )
            .into_bytes();
            let verdict = schema::parse(&payload).map(|message| ("press-17".to_owned(), message));
            assert!(verdict.is_ok(), "{verdict:?}");
            Entry { topic: String::new(), payload, speaker: Some("press-17".to_owned()), verdict }
        })
        .collect();
    store.write("/edgewarden/hubs/plant", now(day), &entries).unwrap();
}

fn delete_all(store: &mut Store, keep: Keep, day: i64) -> Deleted {
    store.keep(keep);
    let mut sum = Deleted::default();
    loop {
        let deleted = store.delete_old(now(day)).unwrap();
        sum.rows += deleted.rows;
        sum.alerts += deleted.alerts;
        if !deleted.more {
            return sum;
        }
    }
}

#[test]
fn rows_leave_with_their_alerts_when_their_days_are_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    for day in 0..4 {
        write(&mut store, day, 1100);
    }
    let keep = Keep { days: Some(2), bytes: None };
    assert_eq!(delete_all(&mut store, keep, 2), Deleted::default());
    assert_eq!(delete_all(&mut store, keep, 4), Deleted { rows: 2200, alerts: 2, ..Deleted::default() });
    assert_eq!(store.rows(Filter::default()).unwrap().len(), 2200);
    assert_eq!(store.alerts(None).unwrap().len(), 2);
    assert_eq!(delete_all(&mut store, Keep::default(), 400), Deleted::default());
}

#[test]
fn the_oldest_rows_leave_when_the_store_is_too_large_and_the_file_stays_within() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let limit = 1_200_000;
    let keep = Keep { days: None, bytes: Some(limit) };
    let mut largest = 0;
    for day in 0..30 {
        write(&mut store, day, 200);
        delete_all(&mut store, keep, day);
        largest = largest.max(std::fs::metadata(dir.path().join("events.db")).unwrap().len());
    }
    let rows = store.rows(Filter::default()).unwrap();
    assert!(rows.len() > 200 && rows.len() < 6000, "{}", rows.len());
    assert!(rows.iter().all(|row| row.time_generated > moment(now(10))), "the newest stay");
    assert!(store.alerts(None).unwrap().len() < 30);
    // The log is folded in from time to time; a batch and what the pages lack to be full come on top.
    assert!(largest <= limit + limit / 2, "{largest}");
}

#[test]
fn a_lower_limit_makes_the_file_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    write(&mut store, 0, 3000);
    store.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let before = std::fs::metadata(dir.path().join("events.db")).unwrap().len();
    store.keep(Keep { days: None, bytes: Some(500_000) });
    while store.delete_old(now(1)).unwrap().rows > 0 {}
    store.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let after = std::fs::metadata(dir.path().join("events.db")).unwrap().len();
    assert!(after < before / 2, "{before} to {after}");
}
