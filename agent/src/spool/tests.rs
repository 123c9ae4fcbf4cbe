use std::fs::{self, File};
use std::path::PathBuf;

use super::*;
use collector_common::clock::{Origin, Reading};

const QUOTA: u64 = 64 * 1024 * 1024;

pub fn event(text: &str) -> StoredEvent {
    let at = Reading { boot: Uuid::nil(), boottime_us: 1, wall_us: 2, origin: Origin::Clock };
    StoredEvent {
        seq: 0,
        id: Uuid::now_v7(),
        kind: Kind::Login as u8,
        at,
        utc_offset_seconds: 0,
        items: vec![format!(r#"{{"Text":"{text}"}}"#)],
        cursor: None,
    }
}

fn cursor(place: &str) -> Option<SourceCursor> {
    Some(SourceCursor { source: "journal".to_owned(), place: place.to_owned() })
}

fn append_cursor(spool: &Spool, source: &str, place: &str) -> Dropped {
    let cursor = SourceCursor { source: source.to_owned(), place: place.to_owned() };
    let appended = spool.append_all(&mut [Entry { lane: Lane::Low, record: Record::Cursor(cursor.into()) }]);
    assert_eq!((appended.stored, appended.refused.map(|error| error.to_string())), (1, None));
    appended.dropped
}

fn read_all(spool: &Spool, lane: Lane) -> (Vec<(u64, String)>, Vec<String>) {
    let mut events = Vec::new();
    while let Some(event) = spool.read(lane).unwrap() {
        events.push((event.seq, event.items[0].clone()));
    }
    let [high, low] = spool.take_damage();
    (events, if lane == Lane::High { high.sentences } else { low.sentences })
}

fn tail(directory: &Path, lane: &str) -> PathBuf {
    let mut files: Vec<_> =
        fs::read_dir(directory.join("spool").join(lane)).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.pop().unwrap()
}

#[test]
fn an_event_is_read_only_after_it_was_synced() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    spool.append(Lane::High, event("a"), None).unwrap();
    assert_eq!(read_all(&spool, Lane::High).0.len(), 0);
    spool.sync(Lane::High).unwrap();
    assert_eq!(read_all(&spool, Lane::High).0, [(1, r#"{"Text":"a"}"#.to_owned())]);
    assert_eq!(*spool.watch_synced().borrow(), [1, 0]);
}

#[test]
fn no_cursor_is_safe_before_the_events_it_stands_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), 80 * 1024).unwrap();
    let synced = || *spool.watch_synced().borrow();
    for lane in Lane::ALL {
        spool.append(lane, event("begins a segment"), None).unwrap();
        spool.sync(lane).unwrap();
    }
    // The next one is in the other lane.
    spool.append(Lane::Low, event("a"), cursor("1")).unwrap();
    spool.append(Lane::High, event("no cursor"), None).unwrap();
    assert_eq!(synced(), [1, 1], "nothing but a cursor makes anybody wait");
    spool.append(Lane::High, event("b"), cursor("2")).unwrap();
    assert_eq!(synced(), [1, 2]);
    append_cursor(&spool, "journal", "3");
    assert_eq!(synced(), [3, 2]);
    // A new segment begins with all cursors.
    spool.append(Lane::Low, event("c"), cursor("4")).unwrap();
    spool.append(Lane::High, event(&"x".repeat(11 * 1024)), None).unwrap();
    assert_eq!(synced(), [3, 2]);
    spool.append(Lane::High, event("d"), None).unwrap();
    assert_eq!(synced(), [4, 3]);
}

#[test]
fn a_restart_goes_on_at_the_first_unacknowledged_event_and_numbers_go_on() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (spool, opened) = Spool::open(directory.path(), QUOTA).unwrap();
        assert_eq!(opened.damage, [] as [String; 0]);
        for text in ["a", "b", "c"] {
            spool.append(Lane::Low, event(text), None).unwrap();
        }
    }
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!(read_all(&spool, Lane::Low).0.len(), 6);
    spool.acknowledge(Lane::Low, 4).unwrap();
    spool.store_acknowledged().unwrap();
    drop(spool);
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    let seqs: Vec<_> = read_all(&spool, Lane::Low).0.into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seqs, [5, 6]);
    spool.rewind();
    assert_eq!(read_all(&spool, Lane::Low).0.len(), 2);
}

#[test]
fn a_second_agent_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let (_spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    let error = Spool::open(directory.path(), QUOTA).unwrap_err().to_string();
    assert!(error.contains("another edgewarden uses this state directory"), "{error}");
}

#[test]
fn a_lock_that_is_about_to_be_given_back_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(150));
        drop(spool);
    });
    Spool::open(directory.path(), QUOTA).unwrap();
    holder.join().unwrap();
}

#[test]
fn a_cut_at_any_byte_costs_only_the_events_it_reaches() {
    let whole = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(whole.path(), QUOTA).unwrap();
    let mut ends = vec![0];
    for text in ["first", "second", "third"] {
        spool.append(Lane::High, event(text), cursor(text)).unwrap();
        ends.push(fs::metadata(tail(whole.path(), "high")).unwrap().len());
    }
    drop(spool);
    let bytes = fs::read(tail(whole.path(), "high")).unwrap();
    for length in 0..=bytes.len() {
        let directory = tempfile::tempdir().unwrap();
        let lane = directory.path().join("spool/high");
        fs::create_dir_all(&lane).unwrap();
        fs::write(lane.join(tail(whole.path(), "high").file_name().unwrap()), &bytes[..length]).unwrap();
        let expected = ends[1..].iter().filter(|end| **end <= length as u64).count();
        let (spool, opened) = Spool::open(directory.path(), QUOTA).unwrap();
        assert_eq!(read_all(&spool, Lane::High).0.len(), expected, "cut at {length}");
        let place = ["first", "second", "third"].get(expected.wrapping_sub(1)).map(|text| (*text).to_owned());
        assert_eq!(opened.cursors.get("journal").cloned(), place, "cut at {length}");
        spool.append(Lane::High, event("later"), None).unwrap();
        spool.sync(Lane::High).unwrap();
        let (events, _) = read_all(&spool, Lane::High);
        assert_eq!(events, [(expected as u64 + 1, r#"{"Text":"later"}"#.to_owned())], "cut at {length}");
    }
}

#[test]
fn a_flipped_bit_costs_one_event_and_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    for text in ["first", "second", "third"] {
        spool.append(Lane::High, event(text), None).unwrap();
    }
    drop(spool);
    let path = tail(directory.path(), "high");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (spool, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert!(opened.damage[0].contains("are damaged"), "{:?}", opened.damage);
    let (events, damage) = read_all(&spool, Lane::High);
    assert_eq!(events.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(damage.len(), 1);
}

#[test]
fn a_full_spool_gives_up_the_oldest_low_events_first_and_counts_them() {
    let directory = tempfile::tempdir().unwrap();
    let quota = 32 * 1024;
    let (spool, _) = Spool::open(directory.path(), quota).unwrap();
    let long = "x".repeat(500);
    let mut lost = [0, 0];
    let mut note =
        |dropped: Dropped| dropped.events.into_iter().for_each(|(lane, _, events)| lost[lane.index()] += events);
    for _ in 0..20 {
        note(spool.append(Lane::High, event(&long), None).unwrap());
    }
    for _ in 0..200 {
        note(spool.append(Lane::Low, event(&long), None).unwrap());
    }
    spool.sync(Lane::High).unwrap();
    spool.sync(Lane::Low).unwrap();
    assert!(spool.stats().bytes <= quota + 1024, "{:?}", spool.stats());
    let high = read_all(&spool, Lane::High).0;
    let low = read_all(&spool, Lane::Low).0;
    assert_eq!(high.len(), 20);
    assert_eq!(lost[0], 0);
    assert_eq!(low.len() as u64 + lost[1], 200);
    assert_eq!(low.last().unwrap().0, 200);
}

#[test]
fn cursors_survive_the_deletion_of_the_segments_that_held_them() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), 64 * 1024).unwrap();
    spool.append(Lane::High, event("a"), cursor("the place")).unwrap();
    for _ in 0..300 {
        spool.append(Lane::High, event(&"x".repeat(500)), None).unwrap();
        spool.acknowledge(Lane::High, spool.stats().recorded[0]).unwrap();
    }
    drop(spool);
    assert_eq!(fs::read_dir(directory.path().join("spool/high")).unwrap().count(), 1);
    let (_, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!(opened.cursors["journal"], "the place");
}

#[test]
fn a_crash_before_the_checkpoint_of_a_new_segment_loses_no_cursor() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    spool.append(Lane::High, event("a"), cursor("the place")).unwrap();
    drop(spool);
    fs::write(directory.path().join("spool/high/00000000000000000002.seg"), "").unwrap();
    fs::write(directory.path().join("spool/high/00000000000000000003.new"), "half").unwrap();
    let (spool, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!(opened.cursors["journal"], "the place");
    spool.append(Lane::High, event("b"), None).unwrap();
    spool.sync(Lane::High).unwrap();
    assert_eq!(read_all(&spool, Lane::High).0.len(), 2);
    spool.acknowledge(Lane::High, 2).unwrap();
    drop(spool);
    let (_, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!(opened.cursors["journal"], "the place", "the older segment went and took it along");
    assert_eq!(opened.damage, [] as [String; 0]);
}

#[test]
fn a_number_that_was_acknowledged_is_never_given_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    for text in ["a", "b", "c"] {
        spool.append(Lane::High, event(text), None).unwrap();
    }
    spool.acknowledge(Lane::High, 3).unwrap();
    spool.store_acknowledged().unwrap();
    drop(spool);
    fs::remove_dir_all(directory.path().join("spool/high")).unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    spool.append(Lane::High, event("new"), None).unwrap();
    spool.sync(Lane::High).unwrap();
    assert_eq!(read_all(&spool, Lane::High).0, [(4, r#"{"Text":"new"}"#.to_owned())]);
}

#[test]
fn impossible_numbers_are_damage_and_cost_nothing_new() {
    let directory = tempfile::tempdir().unwrap();
    let lane = directory.path().join("spool/low");
    fs::create_dir_all(&lane).unwrap();
    fs::write(lane.join(format!("{}.seg", u64::MAX)), "").unwrap();
    fs::write(
        directory.path().join("spool/state.json"),
        format!(r#"{{"acked":[{0},{0}],"marks":[],"boots":[]}}"#, u64::MAX),
    )
    .unwrap();
    let (spool, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!(opened.damage.len(), 2, "{:?}", opened.damage);
    spool.append(Lane::Low, event("a"), None).unwrap();
    spool.sync(Lane::Low).unwrap();
    assert_eq!(read_all(&spool, Lane::Low).0.len(), 1);
    let mut last = event("z");
    last.seq = u64::MAX;
    let mut body = Vec::new();
    Record::Event(last).encode_onto(&mut body).unwrap();
    assert!(Record::decode(&body).is_err());
}

#[test]
fn behind_any_acknowledged_number_that_is_believed_there_is_room() {
    for acked in [segment::MAX_SEQ, segment::MAX_SEQ / 2, 7] {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("spool")).unwrap();
        let state = format!(r#"{{"acked":[0,{acked}],"marks":[],"boots":[]}}"#);
        fs::write(directory.path().join("spool/state.json"), state).unwrap();
        let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
        spool.append(Lane::Low, event("a"), None).unwrap();
        spool.sync(Lane::Low).unwrap();
        assert_eq!(read_all(&spool, Lane::Low).0.len(), 1, "{acked}");
    }
}

#[test]
fn a_segment_that_could_not_be_begun_is_begun_later() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    // A directory stands where the new segment is to be written, as a full disk would.
    let in_the_way = directory.path().join("spool/high/00000000000000000001.new");
    fs::create_dir(&in_the_way).unwrap();
    spool.append(Lane::High, event("a"), None).unwrap_err();
    fs::remove_dir(&in_the_way).unwrap();
    spool.append(Lane::High, event("b"), None).unwrap();
    spool.sync(Lane::High).unwrap();
    assert_eq!(read_all(&spool, Lane::High).0, [(1, r#"{"Text":"b"}"#.to_owned())]);
}

#[test]
fn of_a_batch_what_is_stored_and_what_is_refused_is_told_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), 64 * 1024).unwrap();
    spool.append(Lane::High, event("first"), None).unwrap();
    // Directories stand where the next segment of a lane is to be written, as a full disk would.
    let in_the_way: Vec<_> = (2..100).map(|seq| directory.path().join(format!("spool/high/{seq:020}.new"))).collect();
    in_the_way.iter().for_each(|path| fs::create_dir(path).unwrap());
    let lane = |number| if number == 5 { Lane::Low } else { Lane::High };
    let text = |number: usize| format!("{number} {}", "x".repeat(500));
    let entry = |number: usize| {
        let cursor = cursor(&number.to_string()).map(StoredCursor::from);
        Entry { lane: lane(number), record: Record::Event(StoredEvent { cursor, ..event(&text(number)) }) }
    };
    let mut entries: Vec<_> = (0..40).map(entry).collect();
    let Appended { stored, dropped, refused } = spool.append_all(&mut entries);
    assert!(refused.is_some() && dropped.is_empty() && (10..20).contains(&stored), "{stored}: {refused:?}");
    in_the_way.iter().for_each(|path| fs::remove_dir(path).unwrap());
    let again = spool.append_all(&mut entries[stored + 1..]);
    assert!(again.refused.is_none() && again.dropped.is_empty() && again.stored == 39 - stored, "{again:?}");
    Lane::ALL.into_iter().for_each(|lane| spool.sync(lane).unwrap());
    let expected = |of: Lane| (0..40).filter(move |number| lane(*number) == of && *number != stored).map(text);
    for of in Lane::ALL {
        let read = std::iter::from_fn(|| spool.read(of).unwrap()).map(|event| event.items.concat());
        let expected = expected(of).map(|text| format!(r#"{{"Text":"{text}"}}"#));
        assert_eq!(read.skip(usize::from(of == Lane::High)).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
    assert!(spool.take_damage().iter().all(Damage::is_empty));
    drop(spool);
    let (_, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!((opened.damage, opened.cursors["journal"].as_str()), (vec![], "39"));
}

#[test]
fn cursors_without_events_do_not_fill_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let quota = 32 * 1024;
    let (spool, _) = Spool::open(directory.path(), quota).unwrap();
    spool.append(Lane::High, event("a"), None).unwrap();
    for place in 0..1000 {
        let place = format!("{place:0100}");
        assert_eq!(append_cursor(&spool, "journal", &place), Dropped::default());
    }
    assert!(spool.stats().bytes < quota / 2, "{:?}", spool.stats());
    spool.append(Lane::Low, event("b"), None).unwrap();
    for lane in Lane::ALL {
        spool.sync(lane).unwrap();
        assert_eq!(read_all(&spool, lane).0.len(), 1);
    }
    drop(spool);
    let (_, opened) = Spool::open(directory.path(), quota).unwrap();
    assert_eq!(opened.cursors["journal"], format!("{:0100}", 999));
}

#[test]
fn the_newest_cursor_of_both_lanes_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    spool.append(Lane::High, event("a"), cursor("older")).unwrap();
    spool.append(Lane::Low, event("b"), cursor("newer")).unwrap();
    append_cursor(&spool, "file", "9");
    drop(spool);
    let (_, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!(opened.cursors["journal"], "newer");
    assert_eq!(opened.cursors["file"], "9");
}

#[test]
fn foreign_and_zeroed_files_do_not_stop_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let lane = directory.path().join("spool/low");
    fs::create_dir_all(&lane).unwrap();
    fs::write(lane.join("README"), "hello").unwrap();
    fs::write(lane.join("00000000000000000007.seg"), vec![0; 5000]).unwrap();
    fs::write(directory.path().join("spool/state.json"), "{").unwrap();
    let (spool, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!(opened.damage.len(), 4, "{:?}", opened.damage);
    spool.append(Lane::Low, event("a"), None).unwrap();
    spool.sync(Lane::Low).unwrap();
    assert_eq!(read_all(&spool, Lane::Low).0, [(7, r#"{"Text":"a"}"#.to_owned())]);
}

#[test]
fn offsets_of_boots_do_not_grow_for_ever_and_the_newest_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    let boots: Vec<_> = (0..state::BOOTS_KEPT as u128 + 10).map(Uuid::from_u128).collect();
    for boot in &boots {
        spool.add_boot_offset(BootOffset { boot: *boot, offset_us: 1 }).unwrap();
    }
    drop(spool);
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    let kept: Vec<_> = boots.iter().filter(|boot| spool.boot_offset_us(**boot).is_some()).collect();
    assert_eq!(kept, boots[10..].iter().collect::<Vec<_>>());
}

#[test]
fn a_segment_that_cannot_be_read_is_given_up_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), 32 * 1024).unwrap();
    spool.append(Lane::Low, event("a"), None).unwrap();
    let first = directory.path().join("spool/low/00000000000000000001.seg");
    fs::remove_file(&first).unwrap();
    std::os::unix::fs::symlink("nowhere", &first).unwrap();
    for _ in 0..200 {
        spool.append(Lane::Low, event(&"x".repeat(500)), None).unwrap();
    }
    assert!(fs::symlink_metadata(&first).is_err());
}

#[test]
fn a_segment_that_cannot_be_read_does_not_keep_the_later_ones_back() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), 64 * 1024).unwrap();
    for _ in 0..40 {
        spool.append(Lane::Low, event(&"x".repeat(500)), None).unwrap();
    }
    spool.sync(Lane::Low).unwrap();
    let first = directory.path().join("spool/low/00000000000000000001.seg");
    fs::remove_file(&first).unwrap();
    let (events, damage) = read_all(&spool, Lane::Low);
    assert_eq!(events.last().map(|(seq, _)| *seq), Some(40));
    assert_eq!(damage.len(), 1, "{damage:?}");
}

#[test]
fn marks_and_offsets_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (boot, other) = (Uuid::now_v7(), Uuid::now_v7());
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    spool.append(Lane::High, event("a"), None).unwrap();
    spool.add_mark(Mark { lane: Lane::High, from_seq: 1, boot, offset_us: None }).unwrap();
    spool.add_mark(Mark { lane: Lane::High, from_seq: 5, boot, offset_us: Some(20) }).unwrap();
    spool.add_boot_offset(BootOffset { boot: other, offset_us: 30 }).unwrap();
    drop(spool);
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!(spool.mark(Lane::High, boot, 4).unwrap().offset_us, None);
    assert_eq!(spool.mark(Lane::High, boot, 5).unwrap().offset_us, Some(20));
    assert_eq!(spool.mark(Lane::Low, boot, 5), None);
    assert_eq!(spool.mark(Lane::High, other, 5), None);
    assert_eq!(spool.boot_offset_us(other), Some(30));
}

#[test]
fn every_flipped_byte_costs_at_most_what_it_touches_and_lost_numbers_are_counted() {
    let whole = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(whole.path(), QUOTA).unwrap();
    let mut ends = Vec::new();
    for text in ["first", "second", "third"] {
        spool.append(Lane::High, event(text), cursor(text)).unwrap();
        ends.push(fs::metadata(tail(whole.path(), "high")).unwrap().len() as usize);
    }
    drop(spool);
    let name = tail(whole.path(), "high").file_name().unwrap().to_owned();
    let bytes = fs::read(tail(whole.path(), "high")).unwrap();
    for at in 0..bytes.len() {
        let directory = tempfile::tempdir().unwrap();
        let lane = directory.path().join("spool/high");
        fs::create_dir_all(&lane).unwrap();
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x41;
        fs::write(lane.join(&name), flipped).unwrap();
        // "second" is one byte longer than "first", in the text and in the cursor.
        let first_begins = ends[0] - (ends[1] - ends[0]) + 2;
        let touched = if at < first_begins { 0 } else { 1 + ends.iter().filter(|end| **end <= at).count() as u64 };
        let (spool, opened) = Spool::open(directory.path(), QUOTA).unwrap();
        assert!(!opened.damage.is_empty(), "byte {at}");
        spool.append(Lane::High, event("later"), None).unwrap();
        spool.sync(Lane::High).unwrap();
        let mut read = Vec::new();
        while let Some(event) = spool.read(Lane::High).unwrap() {
            read.push(event.items[0].clone());
        }
        let expected: Vec<_> = ["first", "second", "third", "later"]
            .into_iter()
            .zip(1..)
            .filter(|(_, seq)| *seq != touched)
            .map(|(text, _)| format!(r#"{{"Text":"{text}"}}"#))
            .collect();
        assert_eq!(read, expected, "byte {at}");
        // The number of a damaged last event is given again, so that no number is missing.
        let lost = u64::from(touched == 1 || touched == 2);
        assert_eq!(spool.take_damage()[0].lost, lost, "byte {at}");
        spool.rewind();
        assert_eq!(read_all(&spool, Lane::High).0.len(), expected.len());
        assert_eq!(spool.take_damage()[0], Damage::default(), "the same damage is told once");
    }
}

#[test]
fn events_of_a_kind_of_a_later_version_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    for kind in [Kind::Login as u8, 200, Kind::Login as u8] {
        spool.append(Lane::Low, StoredEvent { kind, ..event("a") }, None).unwrap();
    }
    spool.sync(Lane::Low).unwrap();
    let seqs: Vec<_> = std::iter::from_fn(|| spool.read(Lane::Low).unwrap()).map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 3]);
    let damage = &spool.take_damage()[1];
    assert_eq!((damage.lost, damage.sentences.len()), (1, 1), "{damage:?}");
}

#[test]
fn what_a_failed_sync_left_unsafe_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    spool.append(Lane::Low, event("safe"), cursor("1")).unwrap();
    spool.sync(Lane::Low).unwrap();
    spool.append(Lane::Low, event("b"), cursor("2")).unwrap();
    spool.append(Lane::Low, event("c"), None).unwrap();
    let old = tail(directory.path(), "low");
    spool.lock().lanes[1].distrust(&io::Error::other("the disk is gone"));
    spool.sync(Lane::Low).unwrap();
    assert_ne!(tail(directory.path(), "low"), old);
    assert_eq!(*spool.watch_synced().borrow(), [0, 3]);
    spool.append(Lane::Low, event("d"), None).unwrap();
    spool.sync(Lane::Low).unwrap();
    let (events, damage) = read_all(&spool, Lane::Low);
    assert_eq!(events.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(damage[0].contains("could not be synced: the disk is gone"), "{damage:?}");
    drop(spool);
    let (spool, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!(opened.damage, [] as [String; 0]);
    assert_eq!(read_all(&spool, Lane::Low).0.len(), 4);
}

#[test]
fn a_flood_does_not_erase_other_kinds_nor_its_own_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let quota = 128 * 1024;
    let (spool, _) = Spool::open(directory.path(), quota).unwrap();
    let of = |kind: Kind| StoredEvent { kind: kind as u8, ..event(&"x".repeat(300)) };
    let (mut lost, mut flood, mut logins) = (0, 0, 0);
    let mut record = |event: StoredEvent| {
        let dropped = spool.append(Lane::Low, event, None).unwrap();
        assert_eq!(dropped.damaged, [0, 0]);
        for (lane, kind, events) in dropped.events {
            assert_eq!((lane, kind), (Lane::Low, Kind::ProcessCreate));
            lost += events;
        }
    };
    for round in 0..3000 {
        record(of(Kind::ProcessCreate));
        flood += 1;
        if round % 100 == 0 {
            record(of(Kind::Login));
            logins += 1;
        }
    }
    assert!(spool.stats().bytes <= quota + 1024, "{:?}", spool.stats());
    assert!(fs::read_dir(directory.path().join("spool/low")).unwrap().count() < 20);
    spool.sync(Lane::Low).unwrap();
    let read = |spool: &Spool| -> Vec<_> { std::iter::from_fn(|| spool.read(Lane::Low).unwrap()).collect() };
    let all = read(&spool);
    let count = |kind: Kind| all.iter().filter(|event| event.kind == kind as u8).count() as u64;
    assert_eq!(count(Kind::Login), logins);
    assert_eq!(count(Kind::ProcessCreate) + lost, flood);
    assert_eq!(all.first().map(|event| event.seq), Some(1), "the first rows are kept");
    assert_eq!(all.last().map(|event| event.seq), Some(flood + logins));
    assert!(spool.take_damage().iter().all(Damage::is_empty), "what was given up is no damage");
    drop(spool);
    let (spool, opened) = Spool::open(directory.path(), quota).unwrap();
    assert_eq!(opened.damage, [] as [String; 0]);
    assert_eq!(read(&spool), all);
    assert!(spool.take_damage().iter().all(Damage::is_empty));
}

#[test]
fn a_disk_without_room_is_made_room_on_without_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    for text in ["a", "b", "c"] {
        spool.append(Lane::Low, event(text), cursor(text)).unwrap();
    }
    let mut inner = spool.lock();
    let (cursors, files) = (inner.cursors.values().cloned().collect(), &mut inner.lanes[1]);
    assert!(matches!(files.remove_oldest(0).unwrap(), room::GivenUp::Nothing));
    let room::GivenUp::Events(lost) = files.empty_tail(0, cursors).unwrap() else { panic!() };
    assert_eq!(lost.events[Kind::Login.index()], 3);
    drop(inner);
    spool.append(Lane::Low, event("d"), None).unwrap();
    spool.sync(Lane::Low).unwrap();
    assert_eq!(read_all(&spool, Lane::Low), (vec![(4, r#"{"Text":"d"}"#.to_owned())], vec![]));
    drop(spool);
    let (spool, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!((opened.damage, opened.cursors["journal"].as_str()), (vec![], "c"));
    assert_eq!(read_all(&spool, Lane::Low), (vec![(4, r#"{"Text":"d"}"#.to_owned())], vec![]));
}

#[test]
fn a_spool_that_was_removed_is_made_anew_and_what_is_lost_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), 64 * 1024).unwrap();
    for _ in 0..40 {
        spool.append(Lane::Low, event(&"x".repeat(500)), None).unwrap();
    }
    spool.append(Lane::High, event("a"), cursor("the place")).unwrap();
    let before_tail: u64 = tail(directory.path(), "low").file_stem().unwrap().to_str().unwrap().parse().unwrap();
    spool.restore_if_gone().unwrap();
    assert!(spool.take_damage().iter().all(Damage::is_empty));
    fs::remove_dir_all(directory.path().join("spool")).unwrap();
    spool.restore_if_gone().unwrap();
    spool.append(Lane::Low, event("later"), None).unwrap();
    Lane::ALL.into_iter().for_each(|lane| spool.sync(lane).unwrap());
    let mut low = Vec::new();
    while let Some(event) = spool.read(Lane::Low).unwrap() {
        low.push(event.seq);
    }
    assert_eq!(low, (before_tail..=41).collect::<Vec<_>>());
    assert_eq!(spool.read(Lane::High).unwrap().map(|event| event.seq), Some(1));
    let [high, low] = spool.take_damage();
    assert_eq!((high.lost, low.lost), (0, before_tail - 1));
    assert!(low.sentences[0].contains("removed or replaced"), "{low:?}");
    assert!(Spool::open(directory.path(), QUOTA).is_err(), "the lock was taken anew");
    drop(spool);
    let (_, opened) = Spool::open(directory.path(), QUOTA).unwrap();
    assert_eq!((opened.damage, opened.cursors["journal"].as_str()), (vec![], "the place"));
}

#[test]
fn what_the_disk_refuses_is_told_while_it_lasts() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    spool.append(Lane::High, event("x"), None).unwrap();
    spool.lock().lanes[0].distrust(&io::Error::other("a test"));
    let in_the_way = directory.path().join("spool/high/00000000000000000001.new");
    fs::create_dir(&in_the_way).unwrap();
    spool.sync(Lane::High).unwrap_err();
    let troubles = spool.outlook().troubles;
    assert!(troubles[0].1.starts_with("cannot make the events of the High lane safe (fdatasync): "), "{troubles:?}");
    fs::remove_dir(&in_the_way).unwrap();
    spool.sync(Lane::High).unwrap();
    assert_eq!(spool.outlook().troubles, []);
}

#[test]
fn the_outlook_says_how_much_room_is_left_and_what_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let quota = 64 * 1024;
    let (spool, _) = Spool::open(directory.path(), quota).unwrap();
    let outlook = spool.outlook();
    assert_eq!((outlook.is_full, outlook.room_bytes, outlook.next_to_go), (false, quota, None));
    while spool.append(Lane::Low, event(&"x".repeat(1000)), None).unwrap() == Dropped::default() {}
    let outlook = spool.outlook();
    let kind = event("x").kind().unwrap();
    assert_eq!((outlook.is_full, outlook.next_to_go), (true, Some((Lane::Low, kind))));
    assert!(outlook.room_bytes <= quota / 4, "{outlook:?}");
}

#[test]
fn room_is_taken_for_a_segment_that_is_begun_and_given_back_once_it_is_full_or_at_the_end() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let quota = 1024 * 1024;
    let (spool, _) = Spool::open(directory.path(), quota).unwrap();
    for _ in 0..500 {
        spool.append(Lane::Low, event(&"x".repeat(500)), None).unwrap();
    }
    spool.append(Lane::High, event("a"), None).unwrap();
    Lane::ALL.into_iter().for_each(|lane| spool.sync(lane).unwrap());
    // More than the last page of it is spare room; a file system may also need a page to find the others.
    let spare = |path: &Path| {
        let file = fs::metadata(path).unwrap();
        (file.blocks() * 512).saturating_sub(file.len().next_multiple_of(4096) + 4096)
    };
    let mut low: Vec<_> =
        fs::read_dir(directory.path().join("spool/low")).unwrap().map(|entry| entry.unwrap().path()).collect();
    low.sort();
    let tails = [low.pop().unwrap(), tail(directory.path(), "high")];
    assert_eq!(low.len(), 2);
    assert!(low.iter().all(|full| spare(full) == 0));
    assert!(spare(&tails[1]) > 100_000, "{}", spare(&tails[1]));
    assert!(spool.stats().bytes <= quota);
    let reserved = spool.stats().bytes;
    spool.give_back();
    assert!(tails.iter().all(|tail| spare(tail) == 0));
    assert!(spool.stats().bytes < reserved);
    // Killed, it could not give back; the next start does.
    segment::reserve(&File::options().write(true).open(&tails[1]).unwrap(), 200_000);
    assert!(spare(&tails[1]) > 100_000);
    drop(spool);
    let (_spool, opened) = Spool::open(directory.path(), quota).unwrap();
    assert_eq!((spare(&tails[1]), opened.damage), (0, vec![]));
}

#[test]
fn what_was_acknowledged_is_to_be_written_down_once() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    spool.append(Lane::Low, event("a"), None).unwrap();
    spool.sync(Lane::Low).unwrap();
    assert!(!spool.is_to_be_stored());
    spool.acknowledge(Lane::Low, 1).unwrap();
    assert!(spool.is_to_be_stored());
    spool.store_acknowledged().unwrap();
    assert!(!spool.is_to_be_stored());
}

#[test]
fn a_spool_that_nothing_happens_to_writes_and_syncs_nothing() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), QUOTA).unwrap();
    spool.append(Lane::High, event("a"), None).unwrap();
    let everything_due = || {
        Lane::ALL.into_iter().for_each(|lane| spool.sync(lane).unwrap());
        spool.store_acknowledged().unwrap();
        spool.restore_if_gone().unwrap();
    };
    everything_due();
    spool.acknowledge(Lane::High, 1).unwrap();
    everything_due();
    let state = || fs::metadata(directory.path().join("spool/state.json")).unwrap().ino();
    let before = (spool.stats(), state());
    everything_due();
    assert_eq!((spool.stats(), state()), before);
}
