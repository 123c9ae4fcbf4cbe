//! Looks over whole segments: what an agent that starts needs to know, and what stays of one that has to make room.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::frames::{Frame, Frames};
use super::record::{Record, Sealed, StoredCursor};
use super::run::encode;
use super::segment;
use super::usage::{Lost, Usage, Victim};

/// What was found when a lane was opened.
#[derive(Debug, Default)]
pub struct Found {
    /// The cursors in its last segment.
    pub cursors: Vec<StoredCursor>,
    /// What is lost or strange, one sentence each.
    pub damage: Vec<String>,
}

/// What lies in a segment.
#[derive(Default)]
pub struct Scan {
    /// The highest number of an event in it, or of one that was given up.
    pub last_seq: u64,
    /// A checkpoint in it can be read.
    pub has_checkpoint: bool,
    /// Behind the last whole frame.
    pub end: u64,
    /// Bytes behind that.
    pub torn_bytes: u64,
    /// Bytes the disk could not read.
    pub unreadable_bytes: u64,
    /// What its events take.
    pub usage: Usage,
}

/// Looks at a whole segment.
pub fn scan(file: &File, path: &Path, found: &mut Found) -> io::Result<Scan> {
    let mut scan = Scan { end: segment::HEADER_BYTES, ..Scan::default() };
    let mut frames = Frames::new(file.try_clone()?, scan.end);
    loop {
        match frames.next()? {
            Frame::Whole(body) => match Record::decode(&body) {
                Ok(record) => {
                    found.cursors.extend_from_slice(record.cursors());
                    match &record {
                        Record::Checkpoint(_) => scan.has_checkpoint = true,
                        Record::Dropped { through, .. } => scan.last_seq = scan.last_seq.max(*through),
                        Record::Event(_) | Record::FirstRow(_) | Record::Cursor(_) => {}
                    }
                    if let Some((event, is_first)) = record.event() {
                        scan.last_seq = scan.last_seq.max(event.seq);
                        if let Some(kind) = event.kind() {
                            scan.usage.add(kind, is_first, segment::framed_bytes(&body));
                        }
                    }
                }
                Err(error) => found.damage.push(format!("{} at {}: {error}", path.display(), scan.end)),
            },
            Frame::Damaged(lost) => {
                found.damage.push(format!("{}: {lost} bytes at {} are damaged", path.display(), scan.end));
            }
            Frame::End(torn_bytes) => {
                return Ok(Scan { torn_bytes, unreadable_bytes: frames.unreadable_bytes, ..scan });
            }
        }
        scan.end = frames.offset();
    }
}

/// What a segment's first record says about the one before; `None` when it says nothing.
pub fn sealed_before(path: &Path) -> Option<Sealed> {
    match Frames::new(File::open(path).ok()?, segment::HEADER_BYTES).next().ok()? {
        Frame::Whole(body) => match Record::decode(&body).ok()? {
            Record::Checkpoint(checkpoint) => checkpoint.before,
            _ => None,
        },
        _ => None,
    }
}

/// Which events of a segment are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Sieve {
    /// What goes; `None` for all events.
    pub victim: Option<Victim>,
    /// Events up to this number are acknowledged: they go without being lost.
    pub acked: u64,
    /// The number in the segment's name.
    pub first_seq: u64,
    /// The last number that belongs to it.
    pub last_seq: u64,
}

/// What a sieve leaves.
#[derive(Default)]
pub struct Sifted {
    /// Frames that stay.
    pub frames: Vec<u8>,
    /// What the events in them take.
    pub usage: Usage,
    /// Whether there is an event in them.
    pub holds_event: bool,
    /// What goes, but for what is missing.
    pub lost: Lost,
    /// Numbers that are in no record, or in one of a later version.
    pub missing: Vec<(u64, u64)>,
    /// The numbers that go and are not written as a record yet.
    pub run: Option<(u64, u64)>,
}

/// Sifts a segment. What the disk cannot read is lost like what goes: it must not stand in the way of new events.
pub fn sift(file: File, sieve: Sieve) -> io::Result<Sifted> {
    let mut sifted = Sifted::default();
    let mut frames = Frames::new(file, segment::HEADER_BYTES);
    let mut expected = sieve.first_seq.max(sieve.acked.saturating_add(1));
    loop {
        let body = match frames.next()? {
            Frame::Whole(body) => body,
            Frame::Damaged(_) => continue,
            Frame::End(_) => break,
        };
        let Ok(record) = Record::decode(&body) else { continue };
        if let Some((event, is_first)) = record.event()
            && event.seq >= expected
            && event.seq <= sieve.last_seq
        {
            sifted.miss(expected, event.seq - 1)?;
            expected = event.seq + 1;
            let goes = |kind| sieve.victim.is_none_or(|victim| kind == victim.kind && (victim.first_too || !is_first));
            match event.kind() {
                Some(kind) if !goes(kind) => {
                    sifted.keep(&body)?;
                    sifted.holds_event = true;
                    sifted.usage.add(kind, is_first, segment::framed_bytes(&body));
                }
                Some(kind) => {
                    sifted.lost.events[kind.index()] += 1;
                    sifted.extend(event.seq, event.seq)?;
                }
                None => sifted.miss(event.seq, event.seq)?,
            }
        }
        match record {
            Record::Dropped { from, through } if through >= expected && from <= sieve.last_seq => {
                sifted.miss(expected, from.saturating_sub(1))?;
                let through = through.min(sieve.last_seq);
                sifted.extend(from.max(expected), through)?;
                expected = through + 1;
            }
            Record::Checkpoint(_) => sifted.keep(&body)?,
            _ => {}
        }
    }
    sifted.miss(expected, sieve.last_seq)?;
    sifted.flush()?;
    Ok(sifted)
}

impl Sifted {
    /// Numbers that are in no record.
    fn miss(&mut self, from: u64, through: u64) -> io::Result<()> {
        if from > through {
            return Ok(());
        }
        self.missing.push((from, through));
        self.extend(from, through)
    }

    fn extend(&mut self, from: u64, through: u64) -> io::Result<()> {
        match &mut self.run {
            Some((_, end)) if *end + 1 == from => *end = through,
            _ => {
                self.flush()?;
                self.run = Some((from, through));
            }
        }
        Ok(())
    }

    fn keep(&mut self, body: &[u8]) -> io::Result<()> {
        self.flush()?;
        self.frames.extend(segment::frame(body)?);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some((from, through)) = self.run.take() {
            encode(&Record::Dropped { from, through }, &mut self.frames)?;
        }
        Ok(())
    }
}

/// Adds cursors to those that are known, unless a newer one is known already.
pub fn keep_newest(cursors: &mut BTreeMap<String, StoredCursor>, found: &[StoredCursor]) {
    for cursor in found {
        let is_newer = cursors.get(&cursor.source).is_none_or(|known| known.version < cursor.version);
        if is_newer {
            cursors.insert(cursor.source.clone(), cursor.clone());
        }
    }
}
