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
//!   numbers go on even when everything was acknowledged and deleted but the last segment. A number that is in no
//!   record is a lost event, and counted; numbers of events that were given up are in a record that says so.
//! * A source's cursor lies in the frame of the event it produced. Each segment begins with a checkpoint of all
//!   cursors, so the last segments of both lanes tell how far every source was read. Cursors that are not synced lie in
//!   one lane only, behind one another: none is ever safe before the events it stands behind.
//! * What a burst brings is written with one write, all of it before the next burst is looked at. It is in the file or it
//!   was refused: nothing waits in memory, so a crash of the agent alone loses none that was appended.
//! * An event is handed to the uplink only after it was synced. What was sent is therefore found again after any crash.
//! * Segments whose events are all acknowledged are deleted whole. When the quota is full, or the file system nearly so,
//!   events go: Low before High, of the kind that uses most, from the oldest segment that holds any, the first rows of
//!   each kind last. The segment is written anew without them, and what is lost is counted per kind.
//! * A segment that is begun gets its room on the disk at once, as long as that is within the quota and leaves enough to
//!   others; what it does not use is given back when it is full, and at stop. A file is not longer than what is in it.
//! * A sync that failed is not tried again on the same file: what was not safe is written again to a new segment.

pub mod damage;
mod frames;
mod inner;
mod lane;
mod outcome;
mod outlook;
mod reading;
pub mod record;
mod room;
mod run;
mod scan;
mod segment;
pub mod state;
mod usage;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use collector_common::clock::Reading;
use collector_common::collector::SourceCursor;
use collector_common::event::kind::{Kind, Lane};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use damage::Damage;
use inner::Inner;
use lane::LaneFiles;
use outlook::Troubles;
use record::{Record, StoredCursor, StoredEvent};
use scan::keep_newest;
use state::{BootOffset, Mark, State};

pub use outcome::{Appended, Dropped, Entry, Opened, SpoolError, Stats};
pub use outlook::Outlook;
pub use room::Lack;

/// An open spool. Clones are the same spool: the recorder appends and syncs, the uplink reads and acknowledges.
#[derive(Clone, Debug)]
pub struct Spool {
    inner: Arc<Mutex<Inner>>,
    synced: Arc<watch::Sender<[u64; 2]>>,
    sync_request: Arc<Notify>,
    acknowledgement: Arc<Notify>,
}

impl Spool {
    /// Opens the spool below a state directory, repairs what a crash left, and keeps every other agent out.
    pub fn open(state_directory: &Path, quota_bytes: u64) -> Result<(Spool, Opened), SpoolError> {
        let directory = state_directory.join("spool");
        let fault = |what: &str, path: &Path| {
            let (what, path) = (what.to_owned(), path.to_owned());
            move |source| SpoolError { what, path, source }
        };
        inner::make_directory(&directory).map_err(fault("create the spool directory", &directory))?;
        let lock = inner::lock(&directory).map_err(fault("lock", &directory.join("lock")))?;
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
            keep_newest(&mut cursors, &found.cursors);
            Ok(files)
        };
        let mut lanes = [open_lane(Lane::High)?, open_lane(Lane::Low)?];
        for (files, acked) in lanes.iter_mut().zip(state.acked) {
            files.never_reuse(acked);
        }
        let cursor_version = cursors.values().map(|cursor: &StoredCursor| cursor.version).max().unwrap_or(0);
        opened.cursors = cursors.values().map(|cursor| (cursor.source.clone(), cursor.place.clone())).collect();
        let synced = lanes.each_ref().map(|lane| lane.synced_seq);
        let mut inner = Inner {
            directory,
            lanes,
            state,
            state_is_dirty: false,
            cursors,
            cursor_version,
            quota_bytes,
            first_rows: [0; Kind::ALL.len()],
            is_disk_short: false,
            troubles: Troubles::default(),
            lock,
        };
        inner.rewind();
        let spool = Spool {
            inner: Arc::new(Mutex::new(inner)),
            synced: Arc::new(watch::Sender::new(synced)),
            sync_request: Arc::new(Notify::new()),
            acknowledgement: Arc::new(Notify::new()),
        };
        Ok((spool, opened))
    }

    /// Appends one event. Returns the events that had to make room for it.
    pub fn append(
        &self,
        lane: Lane,
        mut event: StoredEvent,
        cursor: Option<SourceCursor>,
    ) -> Result<Dropped, (io::Error, Dropped)> {
        event.cursor = cursor.map(StoredCursor::from);
        let appended = self.append_all(&mut [Entry { lane, record: Record::Event(event) }]);
        match appended.refused {
            None => Ok(appended.dropped),
            Some(error) => Err((error, appended.dropped)),
        }
    }

    /// Appends entries in their order, with as few writes as can be, up to the first that is refused or for which
    /// something had to make room. What this says is stored is in the files when it returns.
    pub fn append_all(&self, entries: &mut [Entry]) -> Appended {
        let mut appended = Appended::default();
        while let Some(lane) = entries.get(appended.stored).map(|entry| entry.lane) {
            let ahead = entries[appended.stored..].iter().take_while(|entry| entry.lane == lane);
            self.sync_before(lane, ahead.map(|entry| &entry.record).any(Record::moves_cursor));
            let mut inner = self.lock();
            let result = inner.append(&mut entries[appended.stored..], &mut appended.dropped);
            self.publish_synced(&inner);
            match result {
                Ok(records) => appended.stored += records,
                Err(error) => appended.refused = Some(error),
            }
            if appended.refused.is_some() || !appended.dropped.is_empty() {
                break;
            }
        }
        appended
    }

    /// Makes everything in a lane safe (`fdatasync`). The disk may take its time: nothing is locked meanwhile. When it
    /// fails, what was not safe is written again to a new segment; an error says that this failed too.
    pub fn sync(&self, lane: Lane) -> io::Result<()> {
        let begun = {
            let mut inner = self.lock();
            let files = &mut inner.lanes[lane.index()];
            if files.is_distrusted() { None } else { Some(files.begin_sync()) }
        };
        let result = match begun {
            Some(None) => return Ok(()),
            Some(Some((file, seq, bytes))) => match file.sync_data() {
                Ok(()) => {
                    self.lock().lanes[lane.index()].end_sync(&file, seq, bytes);
                    Ok(())
                }
                Err(error) => {
                    let mut inner = self.lock();
                    inner.lanes[lane.index()].distrust(&error);
                    inner.begin_again(lane)
                }
            },
            None => self.lock().begin_again(lane),
        };
        let mut inner = self.lock();
        inner.troubles.note(outlook::sync_of(lane), result.as_ref().err());
        self.publish_synced(&inner);
        result
    }

    /// Makes safe what has to be before something is appended, before the lock is taken, so that nobody waits for the
    /// disk: for a new segment both lanes, because it begins with all cursors; for a cursor the other lane, if one is
    /// there that is not safe. Otherwise a power cut could leave a cursor without the events before it, and their lines
    /// would never be read again.
    fn sync_before(&self, lane: Lane, moves_cursor: bool) {
        let (is_full, is_behind) = {
            let inner = self.lock();
            (inner.needs_segment(lane), moves_cursor && inner.lanes[lane.other().index()].moves_cursor)
        };
        for (lane, is_due) in [(lane.other(), is_full || is_behind), (lane, is_full)] {
            if is_due && self.is_dirty(lane) {
                // What is appended next is not safe either then, and that sync says why.
                let _said_later = self.sync(lane);
            }
        }
    }

    /// Making room can begin a new segment, which makes the old one safe, so this is due after an append too.
    fn publish_synced(&self, inner: &Inner) {
        let synced = inner.lanes.each_ref().map(|lane| lane.synced_seq);
        self.synced.send_if_modified(|known| std::mem::replace(known, synced) != synced);
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

    /// Reads the next event of a lane that is on the disk for good. Damage met on the way is kept for
    /// [`Spool::take_damage`].
    pub fn read(&self, lane: Lane) -> io::Result<Option<StoredEvent>> {
        self.lock().lanes[lane.index()].read()
    }

    /// The number of the next event to read: those before it were read, or are gone.
    pub fn next_to_read(&self, lane: Lane) -> u64 {
        self.lock().lanes[lane.index()].read_seq
    }

    /// What was found damaged since the last time, High and Low.
    pub fn take_damage(&self) -> [Damage; 2] {
        self.lock().lanes.each_mut().map(|lane| std::mem::take(&mut lane.damage))
    }

    /// Makes the spool anew where somebody removed or replaced its files under the running agent. What is in the last
    /// segments is kept; what is lost is found by its missing numbers.
    pub fn restore_if_gone(&self) -> io::Result<()> {
        let mut inner = self.lock();
        let result = inner.restore_if_gone();
        inner.troubles.note("make the files of the spool anew, which are gone", result.as_ref().err());
        self.publish_synced(&inner);
        result
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
        if !std::mem::replace(&mut inner.state_is_dirty, true) {
            self.acknowledgement.notify_one();
        }
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

    /// Whether something was acknowledged that is not written down.
    pub fn is_to_be_stored(&self) -> bool {
        self.lock().state_is_dirty
    }

    /// Waits for the first acknowledgement after the last was written down.
    pub async fn acknowledged(&self) {
        self.acknowledgement.notified().await;
    }

    /// Gives back the room that is reserved: nothing more will be appended for now.
    pub fn give_back(&self) {
        self.lock().lanes.iter_mut().for_each(LaneFiles::give_back);
    }

    /// Changes the quota. A smaller one takes effect with the next event.
    pub fn set_quota_bytes(&self, quota_bytes: u64) {
        let mut inner = self.lock();
        if quota_bytes < inner.quota_bytes {
            inner.lanes.iter_mut().for_each(LaneFiles::give_back);
        }
        inner.quota_bytes = quota_bytes;
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
            syncs: inner.lanes.iter().map(|lane| lane.syncs).sum(),
            written_bytes: inner.lanes.iter().map(|lane| lane.written_bytes).sum(),
        }
    }

    /// How the spool stands to its quota and its disk, for `status`.
    pub fn outlook(&self) -> Outlook {
        self.lock().outlook()
    }

    /// A panic elsewhere cannot leave a half-done change here: each change ends with the assignment that makes it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
