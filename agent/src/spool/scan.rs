//! Looks over whole segments: what an agent that starts needs to know, and what is lost with one that goes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use collector_common::event::kind::Kind;

use super::record::{Record, StoredCursor};
use super::segment::{self, Frame};

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
    /// The highest number of an event in it.
    pub last_seq: u64,
    /// A checkpoint in it can be read.
    pub has_checkpoint: bool,
    /// Behind the last whole frame.
    pub end: u64,
    /// Bytes behind that.
    pub torn_bytes: u64,
}

/// Looks at a whole segment that is not open.
pub fn scan_whole(path: &Path, found: &mut Found) -> io::Result<Scan> {
    scan(&File::open(path)?, path, found)
}

/// Looks at a whole segment.
pub fn scan(file: &File, path: &Path, found: &mut Found) -> io::Result<Scan> {
    let mut scan = Scan { end: segment::HEADER_BYTES, ..Scan::default() };
    loop {
        match segment::read_frame(file, scan.end)? {
            Frame::Whole { body, next } => {
                match Record::decode(&body) {
                    Ok(record) => {
                        found.cursors.extend_from_slice(record.cursors());
                        match record {
                            Record::Event(event) => scan.last_seq = scan.last_seq.max(event.seq),
                            Record::Checkpoint(_) => scan.has_checkpoint = true,
                            Record::Cursor(_) => {}
                        }
                    }
                    Err(error) => found.damage.push(format!("{} at {}: {error}", path.display(), scan.end)),
                }
                scan.end = next;
            }
            Frame::Damaged { next } => {
                let lost = next - scan.end;
                found.damage.push(format!("{}: {lost} bytes at {} are damaged", path.display(), scan.end));
                scan.end = next;
            }
            Frame::End { rest } => return Ok(Scan { torn_bytes: rest, ..scan }),
        }
    }
}

/// The events in a segment that were not acknowledged, as far as they can be counted. A segment on a worn-out place of the flash must not stand in the way of new events.
pub fn count_unacknowledged(path: &Path, acked: u64) -> Vec<(Kind, u64)> {
    let mut counts = [0; Kind::ALL.len()];
    let mut offset = segment::HEADER_BYTES;
    let Ok(file) = File::open(path) else { return Vec::new() };
    loop {
        offset = match segment::read_frame(&file, offset) {
            Ok(Frame::Whole { body, next }) => {
                if let Ok(Record::Event(event)) = Record::decode(&body)
                    && event.seq > acked
                    && let Some(kind) = event.kind()
                {
                    counts[kind.index()] += 1;
                }
                next
            }
            Ok(Frame::Damaged { next }) => next,
            Ok(Frame::End { .. }) | Err(_) => break,
        };
    }
    let counts = Kind::ALL.into_iter().map(|kind| (kind, counts[kind.index()]));
    counts.filter(|(_, events)| *events > 0).collect()
}

/// Adds cursors to those that are known, unless a newer one is known already.
pub fn keep_newest(cursors: &mut BTreeMap<String, StoredCursor>, found: Vec<StoredCursor>) {
    for cursor in found {
        let is_newer = cursors.get(&cursor.source).is_none_or(|known| known.version < cursor.version);
        if is_newer {
            cursors.insert(cursor.source.clone(), cursor);
        }
    }
}
