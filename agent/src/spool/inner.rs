//! What is behind the spool's lock: both lanes, and how they share the room.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use collector_common::event::kind::{Kind, Lane};

use super::lane::LaneFiles;
use super::outlook::{Outlook, Troubles};
use super::record::{Record, StoredCursor, StoredEvent};
use super::room::{GivenUp, free};
use super::run::Run;
use super::scan::keep_newest;
use super::state::State;
use super::usage::ByKind;
use super::{Dropped, Entry};

/// A full segment: bytes. Beginning one costs three syncs, so larger ones are cheaper, but what is left of one that has to
/// make room is in memory at once. A smaller quota gets smaller segments, so that dropping one does not drop everything.
const SEGMENT_BYTES: u64 = 2 * 1024 * 1024;

/// The first rows of a kind since the agent started, which are given up last: bytes. Of a small quota it is a part, so
/// that there is room for newer ones.
const FIRST_ROWS_BYTES: u64 = 1024 * 1024;
const FIRST_ROWS_PART: u64 = 16;

/// So much is written at once: bytes, and one record more.
const WRITE_BYTES: u64 = 64 * 1024;

#[derive(Debug)]
pub struct Inner {
    pub directory: PathBuf,
    pub lanes: [LaneFiles; 2],
    pub state: State,
    pub state_is_dirty: bool,
    pub cursors: BTreeMap<String, StoredCursor>,
    pub cursor_version: u64,
    pub quota_bytes: u64,
    /// Recorded since the start, up to the limit for first rows: bytes.
    pub first_rows: ByKind,
    pub is_disk_short: bool,
    pub troubles: Troubles,
    /// Held while the agent runs.
    pub lock: File,
}

impl Inner {
    /// On the disk, with what is reserved.
    pub fn bytes(&self) -> u64 {
        self.lanes.iter().map(LaneFiles::bytes).sum()
    }

    pub fn rewind(&mut self) {
        for lane in Lane::ALL {
            self.lanes[lane.index()].rewind(self.state.acked[lane.index()]);
        }
    }

    /// Whether the next record of a lane begins a new segment.
    pub fn needs_segment(&self, lane: Lane) -> bool {
        self.lanes[lane.index()].room(self.segment_bytes()) == 0
    }

    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES.min(self.quota_bytes / 8)
    }

    pub fn outlook(&self) -> Outlook {
        let victim = |lane: Lane| self.lanes[lane.index()].usage().victim().map(|victim| (lane, victim.kind));
        let free = free(&self.directory);
        Outlook {
            disk_lacks: free.lack,
            // What makes room frees no more than a segment.
            is_full: self.bytes() + self.segment_bytes() >= self.quota_bytes,
            room_bytes: self.quota_bytes.saturating_sub(self.bytes()).min(free.bytes),
            next_to_go: [Lane::Low, Lane::High].into_iter().find_map(victim),
            troubles: self.troubles.list(),
        }
    }

    /// Appends the first entries of a list that are of one lane and fit into a segment, and tells how many. When it
    /// fails, the first one cannot be written, and none was.
    pub fn append(&mut self, entries: &mut [Entry], dropped: &mut Dropped) -> io::Result<usize> {
        let first_rows = self.first_rows;
        let result = self.try_append(entries, dropped).or_else(|error| match error.kind() {
            // The disk is fuller than anybody foresaw: give up what needs no room to be given up, and try once more,
            // with the first one only, because a little may fit where much does not.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.first_rows = first_rows;
                self.give_up_without_room(dropped)?;
                self.try_append(&mut entries[..1], dropped)
            }
            _ => Err(error),
        });
        self.troubles.note("write events to the spool", result.as_ref().err());
        if result.is_err() {
            self.first_rows = first_rows;
        }
        result
    }

    fn try_append(&mut self, entries: &mut [Entry], dropped: &mut Dropped) -> io::Result<usize> {
        let Some(lane) = entries.first().map(|entry| entry.lane) else { return Ok(0) };
        self.make_room(lane, dropped)?;
        let files = &self.lanes[lane.index()];
        let room = files.ahead().max(self.quota_bytes.saturating_sub(self.bytes()));
        let room = room.min(files.room(self.segment_bytes())).min(WRITE_BYTES);
        // What went is to be told before much is stored behind it.
        let most = if dropped.is_empty() { entries.len() } else { 1 };
        let mut run = Run::default();
        for entry in entries[..most].iter_mut().take_while(|entry| entry.lane == lane) {
            if run.records > 0 && run.frames.len() as u64 >= room {
                break;
            }
            self.number(&mut entry.record, self.lanes[lane.index()].next_seq + run.events);
            match run.add(&entry.record) {
                Err(error) if run.records == 0 => return Err(error),
                // The next call begins with it, and says why.
                Err(_) => break,
                Ok(()) => {}
            }
        }
        self.lanes[lane.index()].append(&run)?;
        for entry in &entries[..run.records] {
            // Only what is in the file may be carried over into the next checkpoint.
            keep_newest(&mut self.cursors, entry.record.cursors());
        }
        Ok(run.records)
    }

    /// Gives an event its number, and a cursor its version.
    fn number(&mut self, record: &mut Record, seq: u64) {
        let limit = FIRST_ROWS_BYTES.min(self.quota_bytes / FIRST_ROWS_PART);
        if let Record::Event(event) | Record::FirstRow(event) = record {
            event.seq = seq;
            let kind = event.kind().filter(|kind| self.first_rows[kind.index()] < limit);
            if let Some(kind) = kind {
                self.first_rows[kind.index()] += event.items.iter().map(String::len).sum::<usize>() as u64;
            }
            record.set_first(kind.is_some());
        }
        if let Record::Event(StoredEvent { cursor: Some(cursor), .. })
        | Record::FirstRow(StoredEvent { cursor: Some(cursor), .. })
        | Record::Cursor(cursor) = record
        {
            self.cursor_version += 1;
            cursor.version = self.cursor_version;
        }
    }

    /// Sees to it that a record can be appended: within the quota, and to a segment that is not full.
    fn make_room(&mut self, lane: Lane, dropped: &mut Dropped) -> io::Result<()> {
        let needs_segment = self.needs_segment(lane);
        if needs_segment {
            self.is_disk_short = free(&self.directory).lack.is_some();
        }
        // On a disk that is short a new segment takes the room of what goes for it, and no more: somebody else's files
        // must not cost all events.
        let short = self.is_disk_short && needs_segment;
        let room = if short { self.bytes().saturating_sub(self.segment_bytes()) + 1 } else { u64::MAX };
        // What fits into room that was taken before makes the spool no larger.
        let grows = needs_segment || self.lanes[lane.index()].ahead() == 0;
        while grows && self.bytes() >= self.quota_bytes.min(room) && self.give_up(dropped)? {}
        if self.needs_segment(lane) {
            self.begin_segment(lane)?;
        }
        Ok(())
    }

    /// All cursors, for a lane to write down: what they stand behind in the other lane is made safe first.
    fn all_cursors(&mut self, lane: Lane) -> Vec<StoredCursor> {
        let other = &mut self.lanes[lane.other().index()];
        if !other.is_distrusted()
            && let Some((file, seq, bytes)) = other.begin_sync()
        {
            match file.sync_data() {
                Ok(()) => other.end_sync(&file, seq, bytes),
                // Its next sync writes it again.
                Err(error) => other.distrust(&error),
            }
        }
        self.cursors.values().cloned().collect()
    }

    fn begin_segment(&mut self, lane: Lane) -> io::Result<()> {
        let (cursors, segment_bytes) = (self.all_cursors(lane), self.segment_bytes());
        self.lanes[lane.index()].begin_segment(cursors)?;
        let (is_in_quota, free) = (self.bytes() + segment_bytes <= self.quota_bytes, free(&self.directory));
        if is_in_quota && free.lack.is_none() && free.bytes >= segment_bytes {
            self.lanes[lane.index()].reserve(segment_bytes);
        }
        Ok(())
    }

    pub fn begin_again(&mut self, lane: Lane) -> io::Result<()> {
        let cursors = self.all_cursors(lane);
        self.lanes[lane.index()].begin_again(cursors)
    }

    /// Gives up events, Low before High; `false` when there are none.
    fn give_up(&mut self, dropped: &mut Dropped) -> io::Result<bool> {
        let segment_bytes = self.segment_bytes();
        for lane in [Lane::Low, Lane::High] {
            let acked = self.state.acked[lane.index()];
            let mut given_up = self.lanes[lane.index()].give_up(acked, segment_bytes)?;
            if matches!(given_up, GivenUp::BeginSegment) {
                self.begin_segment(lane)?;
                given_up = self.lanes[lane.index()].give_up(acked, segment_bytes)?;
            }
            if dropped.add(lane, given_up) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn give_up_without_room(&mut self, dropped: &mut Dropped) -> io::Result<()> {
        for lane in [Lane::Low, Lane::High] {
            let (acked, cursors) = (self.state.acked[lane.index()], self.all_cursors(lane));
            let files = &mut self.lanes[lane.index()];
            let given_up = files.remove_oldest(acked)?;
            if dropped.add(lane, given_up) {
                return Ok(());
            }
            let given_up = files.empty_tail(acked, cursors)?;
            if dropped.add(lane, given_up) {
                return Ok(());
            }
        }
        Ok(())
    }

    pub fn restore_if_gone(&mut self) -> io::Result<()> {
        if self.lanes.iter().all(LaneFiles::is_in_place) {
            return Ok(());
        }
        make_directory(&self.directory)?;
        // The lock went with the directory; the next agent must find it held.
        if !self.directory.join("lock").exists() {
            self.lock = lock(&self.directory)?;
        }
        for lane in Lane::ALL {
            if !self.lanes[lane.index()].is_in_place() {
                let (acked, cursors) = (self.state.acked[lane.index()], self.all_cursors(lane));
                let files = &mut self.lanes[lane.index()];
                let path = files.directory.display().to_string();
                files.damage.note(format!("{path} was removed or replaced while the agent ran; it is made anew"));
                files.restore(acked, cursors)?;
            }
        }
        self.store_state()
    }

    pub fn store_state(&mut self) -> io::Result<()> {
        for lane in Lane::ALL {
            let acked = self.state.acked[lane.index()];
            if acked + 1 >= self.lanes[lane.index()].next_seq {
                // Nothing of this lane can be rendered again, so only the newest mark is of use.
                let newest = self.state.marks.iter().rfind(|mark| mark.lane == lane).copied();
                self.state.marks.retain(|mark| mark.lane != lane);
                self.state.marks.extend(newest);
            }
        }
        self.state.store(&self.directory.join("state.json"))?;
        self.state_is_dirty = false;
        Ok(())
    }
}

impl Dropped {
    /// Whether nothing had to go.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.damaged == [0; 2]
    }

    /// Adds what a lane gave up; `false` when it had nothing.
    fn add(&mut self, lane: Lane, given_up: GivenUp) -> bool {
        let GivenUp::Events(lost) = given_up else { return false };
        let by_kind = Kind::ALL.into_iter().map(|kind| (lane, kind, lost.events[kind.index()]));
        self.events.extend(by_kind.filter(|(.., events)| *events > 0));
        self.damaged[lane.index()] += lost.unknown;
        true
    }
}

/// Makes a directory that only its owner can look into.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// How often a lock that is held is asked for again, a tenth of a second apart. A program that a killed agent was just
/// starting holds its lock until it executes.
const LOCK_TRIES: u32 = 10;

/// Keeps every other agent out of a spool for as long as the file is open.
pub fn lock(directory: &Path) -> io::Result<File> {
    let lock = File::create(directory.join("lock"))?;
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(100)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other("another edgewarden uses this state directory"))
}
