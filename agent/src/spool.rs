//! The spool: events on disk until the hub has acknowledged them.
//!
//! ```text
//! <state directory>/spool/
//!   lock                        held while an agent runs (flock)
//!   state.json                  acknowledged up to, clock offsets: see state.rs
//!   high/00000000000000000001.seg    named for the number of its first event
//!   low/00000000000000000001.seg
//!
//! segment  = header frame*
//! header   = "EDGEWSEG" version:u16 lane:u8 ('H'|'L') 0:u8 first_seq:u64 crc32:u32          24 bytes
//! frame    = "EWfr" length:u32 crc32:u32 body:[u8; length]        crc32 over length and body
//! body     = Record in the postcard format: see record.rs
//! ```
//!
//! Numbers are little-endian; CRC-32 is the IEEE one. What holds:
//!
//! * A frame is whole or it is not there: a torn or damaged one costs itself, is reported, and the next is found by its
//!   magic. At start the end of each lane's last segment is cut back to its last whole frame.
//! * Events of a lane are numbered from 1 without gaps. A segment's name is the number of its first event, so the
//!   numbers go on even when everything was acknowledged and deleted but the last segment.
//! * A source's cursor lies in the frame of the event it produced. Each segment begins with a checkpoint of all
//!   cursors, so the last segments of both lanes tell how far every source was read.
//! * An event is handed to the uplink only after it was synced. What was sent is therefore found again after any crash.
//! * Segments whose events are all acknowledged are deleted whole. When the quota is full the oldest segment goes, Low
//!   before High, and what is lost is counted per kind.

mod lane;
pub mod record;
mod scan;
mod segment;
pub mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use collector_common::clock::Reading;
use collector_common::collector::SourceCursor;
use collector_common::event::kind::{Kind, Lane};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use lane::LaneFiles;
use record::{Record, StoredCursor, StoredEvent};
use scan::keep_newest;
use state::{BootOffset, Mark, State};

/// A full segment: bytes. A smaller quota gets smaller segments, so that dropping one does not drop everything.
const SEGMENT_BYTES: u64 = 1024 * 1024;

/// Why the spool cannot be used.
#[derive(Debug)]
pub struct SpoolError {
    what: String,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.what, self.path.display(), self.source)
    }
}

impl std::error::Error for SpoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// An open spool. Clones are the same spool: the recorder appends and syncs, the uplink reads and acknowledges.
#[derive(Clone, Debug)]
pub struct Spool {
    inner: Arc<Mutex<Inner>>,
    synced: Arc<watch::Sender<[u64; 2]>>,
    sync_request: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    lanes: [LaneFiles; 2],
    state: State,
    state_is_dirty: bool,
    cursors: BTreeMap<String, StoredCursor>,
    cursor_version: u64,
    quota_bytes: u64,
    _lock: File,
}

/// What was found when the spool was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// How far every source was read.
    pub cursors: BTreeMap<String, String>,
    /// What was damaged, one sentence each.
    pub damage: Vec<String>,
}

/// Events that had to make room, per lane and kind.
pub type Dropped = Vec<(Lane, Kind, u64)>;

/// What `status` says about the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// On disk: bytes.
    pub bytes: u64,
    /// Acknowledged up to this number, High and Low.
    pub acked: [u64; 2],
    /// Recorded up to this number, High and Low.
    pub recorded: [u64; 2],
}

impl Spool {
    /// Opens the spool below a state directory, repairs what a crash left, and keeps every other agent out.
    pub fn open(state_directory: &Path, quota_bytes: u64) -> Result<(Spool, Opened), SpoolError> {
        let directory = state_directory.join("spool");
        let fault = |what: &str, path: &Path| {
            let (what, path) = (what.to_owned(), path.to_owned());
            move |source| SpoolError { what, path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(fault("create the spool directory", &directory))?;
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path).map_err(fault("open the lock file", &lock_path))?;
        lock.try_lock().map_err(|error| {
            let source = match error {
                TryLockError::WouldBlock => io::Error::other("another edgewarden uses this state directory"),
                TryLockError::Error(source) => source,
            };
            fault("lock", &lock_path)(source)
        })?;
        let mut opened = Opened::default();
        let state = State::load(&directory.join("state.json")).unwrap_or_else(|error| {
            opened.damage.push(format!("{error}; events that were acknowledged are sent again"));
            State::default()
        });
        let mut cursors = BTreeMap::new();
        let mut open_lane = |lane: Lane| {
            let path = directory.join(lane.name().to_ascii_lowercase());
            let (files, found) = LaneFiles::open(lane, path.clone()).map_err(fault("open the lane", &path))?;
            opened.damage.extend(found.damage);
            keep_newest(&mut cursors, found.cursors);
            Ok(files)
        };
        let mut lanes = [open_lane(Lane::High)?, open_lane(Lane::Low)?];
        for (files, acked) in lanes.iter_mut().zip(state.acked) {
            files.never_reuse(acked);
        }
        let cursor_version = cursors.values().map(|cursor: &StoredCursor| cursor.version).max().unwrap_or(0);
        opened.cursors = cursors.values().map(|cursor| (cursor.source.clone(), cursor.place.clone())).collect();
        let synced = lanes.each_ref().map(|lane| lane.synced_seq);
        let mut inner =
            Inner { directory, lanes, state, state_is_dirty: false, cursors, cursor_version, quota_bytes, _lock: lock };
        inner.rewind();
        let spool = Spool {
            inner: Arc::new(Mutex::new(inner)),
            synced: Arc::new(watch::Sender::new(synced)),
            sync_request: Arc::new(Notify::new()),
        };
        Ok((spool, opened))
    }

    /// Appends an event; its number is given here. Returns the events that had to make room for it.
    pub fn append(
        &self,
        lane: Lane,
        mut event: StoredEvent,
        cursor: Option<SourceCursor>,
    ) -> Result<Dropped, (io::Error, Dropped)> {
        let mut inner = self.lock();
        event.cursor = cursor.map(|cursor| inner.version(cursor));
        event.seq = inner.lanes[lane.index()].next_seq;
        inner.append(lane, &Record::Event(event))
    }

    /// Records that a source was read further without an event.
    pub fn append_cursor(&self, cursor: SourceCursor) -> Result<Dropped, (io::Error, Dropped)> {
        let mut inner = self.lock();
        let cursor = inner.version(cursor);
        inner.append(Lane::Low, &Record::Cursor(cursor))
    }

    /// Makes everything in a lane safe (`fdatasync`). The disk may take its time: nothing is locked meanwhile.
    pub fn sync(&self, lane: Lane) -> io::Result<()> {
        let Some((file, seq)) = self.lock().lanes[lane.index()].begin_sync() else { return Ok(()) };
        let result = file.sync_data();
        let mut inner = self.lock();
        let files = &mut inner.lanes[lane.index()];
        match result {
            Ok(()) => files.synced_seq = files.synced_seq.max(seq),
            Err(_) => files.is_dirty = true,
        }
        let synced = inner.lanes.each_ref().map(|lane| lane.synced_seq);
        drop(inner);
        self.synced.send_replace(synced);
        result
    }

    /// Whether a lane holds something that was not synced.
    pub fn is_dirty(&self, lane: Lane) -> bool {
        self.lock().lanes[lane.index()].is_dirty
    }

    /// Asks the recorder to sync both lanes now.
    pub fn request_sync(&self) {
        self.sync_request.notify_one();
    }

    /// Waits until somebody asks for a sync.
    pub async fn sync_requested(&self) {
        self.sync_request.notified().await;
    }

    /// The numbers up to which events are on the disk for good, High and Low.
    pub fn watch_synced(&self) -> watch::Receiver<[u64; 2]> {
        self.synced.subscribe()
    }

    /// Goes back to the first event that was not acknowledged, in both lanes.
    pub fn rewind(&self) {
        self.lock().rewind();
    }

    /// Reads the next event of a lane that is on the disk for good. Damage met on the way is named in `damage`.
    pub fn read(&self, lane: Lane, damage: &mut Vec<String>) -> io::Result<Option<StoredEvent>> {
        self.lock().lanes[lane.index()].read(damage)
    }

    /// Events of a lane that were not read yet, synced or not, and a lower bound of their bytes.
    pub fn unread(&self, lane: Lane) -> (u64, u64) {
        let inner = self.lock();
        let files = &inner.lanes[lane.index()];
        (files.unread(), files.unread_bytes())
    }

    /// The hub has everything of a lane up to this number. Whole segments below it are deleted.
    pub fn acknowledge(&self, lane: Lane, through: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let acked = &mut inner.state.acked[lane.index()];
        if through <= *acked {
            return Ok(());
        }
        *acked = through;
        inner.state_is_dirty = true;
        inner.lanes[lane.index()].forget(through)
    }

    /// The mark an event is rendered by; [`State::mark`].
    pub fn mark(&self, lane: Lane, boot: Uuid, seq: u64) -> Option<Mark> {
        self.lock().state.mark(lane, boot, seq)
    }

    /// The clock offset of a boot, where it had to be kept; [`State::boot_offset_us`].
    pub fn boot_offset_us(&self, boot: Uuid) -> Option<i64> {
        self.lock().state.boot_offset_us(boot)
    }

    /// Keeps a mark for good, before anything is sent that was rendered by it.
    pub fn add_mark(&self, mark: Mark) -> io::Result<()> {
        let mut inner = self.lock();
        inner.state.marks.push(mark);
        inner.store_state()
    }

    /// Keeps for good what the clock of a boot turned out to be.
    pub fn add_boot_offset(&self, offset: BootOffset) -> io::Result<()> {
        let mut inner = self.lock();
        inner.state.add_boot(offset);
        inner.store_state()
    }

    /// Writes down what was acknowledged, if that changed.
    pub fn store_acknowledged(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.state_is_dirty { inner.store_state() } else { Ok(()) }
    }

    /// Changes the quota. A smaller one takes effect with the next event.
    pub fn set_quota_bytes(&self, quota_bytes: u64) {
        self.lock().quota_bytes = quota_bytes;
    }

    /// When the oldest event happened that was not acknowledged; `None` when there is none or it cannot be read.
    pub fn oldest_unacknowledged(&self) -> Option<Reading> {
        let inner = self.lock();
        let oldest = |lane: Lane| inner.lanes[lane.index()].oldest_behind(inner.state.acked[lane.index()]);
        Lane::ALL.into_iter().filter_map(oldest).min_by_key(|at| at.wall_us)
    }

    /// Sizes and numbers, for `status`.
    pub fn stats(&self) -> Stats {
        let inner = self.lock();
        Stats {
            bytes: inner.bytes(),
            acked: inner.state.acked,
            recorded: inner.lanes.each_ref().map(|lane| lane.next_seq - 1),
        }
    }

    /// A panic elsewhere cannot leave a half-done change here: each change ends with the assignment that makes it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn bytes(&self) -> u64 {
        self.lanes.iter().map(LaneFiles::bytes).sum()
    }

    fn rewind(&mut self) {
        for lane in Lane::ALL {
            self.lanes[lane.index()].rewind(self.state.acked[lane.index()]);
        }
    }

    fn version(&mut self, cursor: SourceCursor) -> StoredCursor {
        self.cursor_version += 1;
        StoredCursor { source: cursor.source, place: cursor.place, version: self.cursor_version }
    }

    fn append(&mut self, lane: Lane, record: &Record) -> Result<Dropped, (io::Error, Dropped)> {
        let mut dropped = Dropped::new();
        let result = self.try_append(lane, record, &mut dropped).or_else(|error| match error.kind() {
            // The disk is fuller than the quota foresaw: give up what the quota would give up, and try once more.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.drop_oldest(&mut dropped)?;
                self.try_append(lane, record, &mut dropped)
            }
            _ => Err(error),
        });
        match result {
            Ok(()) => {
                // Only what is in the file may be carried over into the next checkpoint.
                keep_newest(&mut self.cursors, record.cursors().to_vec());
                Ok(dropped)
            }
            Err(error) => Err((error, dropped)),
        }
    }

    fn try_append(&mut self, lane: Lane, record: &Record, dropped: &mut Dropped) -> io::Result<()> {
        while self.bytes() >= self.quota_bytes && self.drop_oldest(dropped)? {}
        let segment_bytes = SEGMENT_BYTES.min(self.quota_bytes / 8);
        if self.lanes[lane.index()].needs_segment(segment_bytes) {
            self.begin_segment(lane)?;
        }
        self.lanes[lane.index()].append(record)
    }

    fn begin_segment(&mut self, lane: Lane) -> io::Result<()> {
        self.lanes[lane.index()].begin_segment(self.cursors.values().cloned().collect())
    }

    /// Gives up the oldest segment, Low before High; `false` when there is none that holds an event.
    fn drop_oldest(&mut self, dropped: &mut Dropped) -> io::Result<bool> {
        for lane in [Lane::Low, Lane::High] {
            let acked = self.state.acked[lane.index()];
            if !self.lanes[lane.index()].holds_event() {
                continue;
            }
            let lost = match self.lanes[lane.index()].drop_oldest(acked)? {
                Some(lost) => Some(lost),
                None => {
                    self.begin_segment(lane)?;
                    self.lanes[lane.index()].drop_oldest(acked)?
                }
            };
            if let Some(lost) = lost {
                dropped.extend(lost.into_iter().map(|(kind, events)| (lane, kind, events)));
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn store_state(&mut self) -> io::Result<()> {
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

#[cfg(test)]
mod tests;
