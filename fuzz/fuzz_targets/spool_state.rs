//! Whatever stands in `state.json` and in the names and bytes of segments, the spool opens and what is recorded then
//! can be read.
#![no_main]

use std::fs;

use collector_common::clock::{Origin, Reading};
use collector_common::collector::SourceCursor;
use collector_common::event::kind::Lane;
use edgewarden::spool::Spool;
use edgewarden::spool::record::{Record, StoredEvent};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|input: (Vec<u8>, [u64; 2], Option<u64>, Vec<u8>)| {
    let (state, acked, segment, body) = input;
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let low = directory.path().join("spool/low");
    fs::create_dir_all(&low).expect("the directory can be made");
    let counted = format!(r#"{{"acked":{acked:?},"marks":[],"boots":[]}}"#).into_bytes();
    let state = if state.is_empty() { counted } else { state };
    fs::write(directory.path().join("spool/state.json"), state).expect("the file can be written");
    // A name at the very end of the numbers leaves no room for an event; nobody but root could put it there.
    if let Some(first_seq) = segment.map(|number| number % (1 << 61)) {
        fs::write(low.join(format!("{first_seq:020}.seg")), &body).expect("the file can be written");
    }
    if let Ok(record) = Record::decode(&body) {
        let mut again = Vec::new();
        record.encode_onto(&mut again).expect("what was read can be written");
        assert_eq!(Record::decode(&again).as_ref(), Ok(&record));
    }
    let (spool, _) = Spool::open(directory.path(), 1 << 20).expect("a strange state does not keep a spool shut");
    let at = Reading { boot: Uuid::nil(), boottime_us: 0, wall_us: 99, origin: Origin::Source };
    let event =
        StoredEvent { seq: 0, id: Uuid::nil(), kind: 3, at, utc_offset_seconds: 0, items: vec![], cursor: None };
    let cursor = SourceCursor { source: "log".into(), place: "here".into() };
    spool.append(Lane::Low, event, Some(cursor)).expect("recording goes on");
    spool.sync(Lane::Low).expect("the disk is good");
    let found = std::iter::from_fn(|| spool.read(Lane::Low).expect("the disk is good")).last();
    assert_eq!(found.map(|event| event.at.wall_us), Some(99), "what was recorded is not sent");
});
