//! Reads a lane, and counts what cannot be read: numbers have no gaps, so a gap is exactly what is lost.

use std::fs::File;
use std::io;

use collector_common::clock::Reading;
use nix::errno::Errno;

use super::frames::{Frame, Frames, is_bad_flash};
use super::lane::{LaneFiles, Reader};
use super::record::{Record, StoredEvent};
use super::segment;

impl LaneFiles {
    /// Events that are kept and not read yet.
    pub fn unread(&self) -> u64 {
        self.next_seq.saturating_sub(self.read_seq.max(self.kept_from))
    }

    /// A lower bound of the bytes that are kept and not read yet.
    pub fn unread_bytes(&self) -> u64 {
        let Some(reader) = &self.reader else {
            return self.segments.iter().filter(|s| s.first_seq >= self.read_seq).map(|s| s.bytes).sum();
        };
        let later = self.segments.iter().filter(|s| s.first_seq >= reader.first_seq).map(|s| s.bytes);
        later.sum::<u64>().saturating_sub(reader.frames.offset())
    }

    /// Goes back to the first event behind `acked`.
    pub fn rewind(&mut self, acked: u64) {
        self.read_seq = (acked + 1).max(self.kept_from);
        self.reader = None;
    }

    /// Reads the next event that is on the disk for good. Damage on the way is counted and noted.
    pub fn read(&mut self) -> io::Result<Option<StoredEvent>> {
        self.read_seq = self.read_seq.max(self.kept_from);
        while self.read_seq <= self.synced_seq {
            let Some(first_seq) = self.segments.iter().map(|s| s.first_seq).rfind(|first| *first <= self.read_seq)
            else {
                let first_kept = self.segments.first().map_or(u64::MAX, |segment| segment.first_seq);
                self.note("segments are missing");
                self.lose_up_to(first_kept.min(self.synced_seq + 1));
                continue;
            };
            let frame = match self.next_frame(first_seq) {
                Ok(frame) => frame,
                Err(error) if is_lasting(&error) => {
                    self.note(format!("segment {first_seq} cannot be read: {error}"));
                    self.reader = None;
                    self.lose_up_to(self.end_of(first_seq).min(self.synced_seq) + 1);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match frame {
                Frame::Whole(body) => {
                    if let Some(event) = self.take(first_seq, Record::decode(&body)) {
                        return Ok(Some(event));
                    }
                }
                Frame::Damaged(bytes) => self.note(format!("{bytes} bytes of segment {first_seq} are damaged")),
                // The rest of this segment holds nothing; go on with the next one, or with the end of the lane.
                Frame::End(_) => {
                    let next = self.end_of(first_seq).min(self.synced_seq) + 1;
                    if next > self.read_seq && self.told_through < next - 1 {
                        self.note(format!("the last events of segment {first_seq} are missing"));
                    }
                    self.lose_up_to(next);
                }
            }
        }
        Ok(None)
    }

    /// The event in a record, when it is the next one or one behind a gap.
    fn take(&mut self, first_seq: u64, record: Result<Record, String>) -> Option<StoredEvent> {
        // Events of the next segment can be here as well, when a crash came between copying and deleting.
        let last_seq = self.end_of(first_seq).min(self.synced_seq);
        match record {
            Ok(Record::Event(event) | Record::FirstRow(event)) => {
                if event.seq < self.read_seq || event.seq > last_seq {
                    return None;
                }
                self.lose_up_to(event.seq);
                if event.kind().is_none() {
                    self.note(format!("an event of the unknown kind {}, of a later version, is skipped", event.kind));
                    self.lose_up_to(event.seq + 1);
                    return None;
                }
                self.read_seq = event.seq + 1;
                self.told_through = self.told_through.max(event.seq);
                Some(event)
            }
            Ok(Record::Dropped { from, through }) => {
                let through = through.min(last_seq);
                if through >= self.read_seq {
                    self.lose_up_to(from);
                    self.read_seq = through + 1;
                    self.told_through = self.told_through.max(through);
                }
                None
            }
            Ok(_) => None,
            Err(error) => {
                self.note(format!("a record of segment {first_seq} is none of this version: {error}"));
                None
            }
        }
    }

    /// The numbers from the next one to before `seq` are in no record.
    fn lose_up_to(&mut self, seq: u64) {
        if seq > self.read_seq {
            self.damage.lost += self.counted.add(self.read_seq, seq - 1);
            self.told_through = self.told_through.max(seq - 1);
            self.read_seq = seq;
        }
    }

    /// What was met before is not told again: every new connection reads from the first unacknowledged event.
    fn note(&mut self, what: impl std::fmt::Display) {
        if self.read_seq > self.told_through {
            self.damage.note(format!("the {} lane of the spool: {what}", self.lane.name()));
        }
    }

    fn next_frame(&mut self, first_seq: u64) -> io::Result<Frame> {
        if self.reader.as_ref().is_none_or(|reader| reader.first_seq != first_seq) {
            let file = File::open(segment::path(&self.directory, first_seq))?;
            self.reader = Some(Reader { first_seq, frames: Frames::new(file, segment::HEADER_BYTES) });
        }
        match &mut self.reader {
            Some(reader) => reader.frames.next(),
            None => Ok(Frame::End(0)),
        }
    }

    /// When the first event behind `acked` happened.
    pub fn oldest_behind(&self, acked: u64) -> Option<Reading> {
        let seq = (acked + 1).max(self.kept_from);
        let segment = self.segments.iter().rev().find(|segment| segment.first_seq <= seq)?;
        let file = File::open(segment::path(&self.directory, segment.first_seq)).ok()?;
        let mut frames = Frames::new(file, segment::HEADER_BYTES);
        loop {
            match frames.next().ok()? {
                Frame::Whole(body) => {
                    if let Ok(Record::Event(event) | Record::FirstRow(event)) = Record::decode(&body)
                        && event.seq >= seq
                    {
                        return Some(event.at);
                    }
                }
                Frame::Damaged(_) => {}
                Frame::End(_) => return None,
            }
        }
    }
}

/// Whether reading again cannot help: the file is gone, or the flash under it.
pub fn is_lasting(error: &io::Error) -> bool {
    is_bad_flash(error) || matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::EISDIR))
}
