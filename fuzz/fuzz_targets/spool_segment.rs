//! Damage in a segment costs what it hits: the spool opens, the whole frames before and behind are read, and recording
//! goes on.
#![no_main]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use collector_common::clock::{Origin, Reading};
use collector_common::event::kind::Lane;
use edgewarden::spool::Spool;
use edgewarden::spool::record::StoredEvent;
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

const SEGMENT: &str = "spool/high/00000000000000000001.seg";

fuzz_target!(|input: (u16, bool, Vec<u8>)| {
    let (at, is_insert, noise) = input;
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let begins = record(directory.path());
    let path = directory.path().join(SEGMENT);
    let whole = fs::read(&path).expect("the segment was made");
    let at = usize::from(at) % (whole.len() + 1);
    let (mut bytes, behind) = (whole[..at].to_vec(), if is_insert { at } else { whole.len().min(at + noise.len()) });
    bytes.extend(&noise);
    bytes.extend(&whole[behind..]);
    let file = File::create(&path).expect("the segment can be written");
    file.write_all_at(&bytes, 0).expect("the segment can be written");
    let (spool, _) = Spool::open(directory.path(), 1 << 20).expect("damage does not keep a spool shut");
    spool.append(Lane::High, event(99), None).expect("recording goes on");
    spool.sync(Lane::High).expect("the disk is good");
    let found = read_all(&spool);
    let untouched = |index: &usize| begins[index + 1] <= at || begins[*index] >= behind;
    for index in (0..begins.len() - 1).filter(untouched) {
        assert!(found.contains(&(index as i64)), "event {index} is whole and was not read: {found:?}");
    }
    assert!(found.contains(&99), "what is recorded after the damage was not read: {found:?}");
});

/// Records a few events, and tells where in the segment each begins, and where the last ends.
fn record(directory: &Path) -> Vec<usize> {
    let (spool, _) = Spool::open(directory, 1 << 20).expect("an empty spool opens");
    let path = directory.join(SEGMENT);
    let length = || fs::metadata(&path).map_or(0, |metadata| metadata.len() as usize);
    let mut ends = Vec::new();
    for number in 0..4 {
        spool.append(Lane::High, event(number), None).expect("memory takes it");
        ends.push(length());
    }
    let first = ends[0] - (ends[1] - ends[0]);
    std::iter::once(first).chain(ends).collect()
}

/// Known by its wall time.
fn event(number: i64) -> StoredEvent {
    let at = Reading { boot: Uuid::nil(), boottime_us: 0, wall_us: number, origin: Origin::Source };
    StoredEvent { seq: 0, id: Uuid::nil(), kind: 3, at, utc_offset_seconds: 0, items: vec!["{}".into()], cursor: None }
}

fn read_all(spool: &Spool) -> Vec<i64> {
    let next = || spool.read(Lane::High).expect("the disk is good");
    std::iter::from_fn(|| next().map(|event| event.at.wall_us)).collect()
}
