//! One lane of the spool: its segments and the end that is appended to. `reading.rs` reads it, `room.rs` gives it up.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use collector_common::event::kind::Lane;

use super::damage::{Counted, Damage};
use super::frames::{Frame, Frames};
use super::record::{Checkpoint, Record, Sealed, StoredCursor};
use super::run::{Run, encode};
use super::scan::{Found, scan, sealed_before};
use super::segment;
use super::usage::Usage;

/// One lane. Its events are numbered from 1, and each number is in a record of its own or of events given up.
#[derive(Debug)]
pub struct LaneFiles {
    pub(super) lane: Lane,
    pub(super) directory: PathBuf,
    /// In order of their first event; the last one is appended to.
    pub(super) segments: Vec<Segment>,
    /// The last segment, once it begins with a checkpoint that can be read: only then may older ones be deleted.
    pub(super) tail: Option<Arc<File>>,
    /// The number the next event gets.
    pub next_seq: u64,
    /// All events up to this one are on the disk for good.
    pub synced_seq: u64,
    /// The length of the tail up to which it is on the disk for good.
    pub(super) synced_bytes: u64,
    /// The length of the tail for which there is room on the disk already; 0 when nobody asked for any.
    pub(super) reserved_bytes: u64,
    /// Something was appended since the last sync.
    pub is_dirty: bool,
    /// A cursor is in what was appended since.
    pub moves_cursor: bool,
    /// A sync failed. The kernel may have marked the pages clean all the same, so another sync of the same file proves
    /// nothing (<https://lwn.net/Articles/752063/>): what was not synced is written again to a new segment.
    pub(super) is_distrusted: bool,
    /// Numbers below this one went knowingly: acknowledged, or given up and counted.
    pub(super) kept_from: u64,
    /// The number of the next event to read.
    pub(super) read_seq: u64,
    pub(super) reader: Option<Reader>,
    /// The numbers up to this one were read or found missing once: there is nothing new to tell about them.
    pub(super) told_through: u64,
    /// Which numbers were found missing and counted.
    pub(super) counted: Counted,
    /// Found, and not told yet.
    pub damage: Damage,
    /// `fdatasync` and `fsync` of segments since the start.
    pub syncs: u64,
    /// Bytes written to segments since the start.
    pub written_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) first_seq: u64,
    pub(super) bytes: u64,
    /// What its events take; `None` until somebody has to know.
    pub(super) usage: Option<Usage>,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) first_seq: u64,
    pub(super) frames: Frames,
}

impl LaneFiles {
    /// Opens a lane, cuts off what a crash left half written, and finds where it ends.
    pub fn open(lane: Lane, directory: PathBuf) -> io::Result<(LaneFiles, Found)> {
        fs::create_dir_all(&directory)?;
        // Without its own name on the disk, nothing in it is.
        directory.parent().map_or(Ok(()), sync_directory)?;
        let mut found = Found::default();
        let mut segments = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == segment::UNFINISHED) {
                fs::remove_file(&path)?;
                continue;
            }
            match (segment::first_seq(&path), fs::metadata(&path)) {
                (Some(first_seq), Ok(metadata)) if metadata.is_file() => {
                    segments.push(Segment { first_seq, bytes: metadata.len(), usage: None });
                }
                _ => found.damage.push(format!("{} is not a file of the spool; it is left alone", path.display())),
            }
        }
        segments.sort_by_key(|segment| segment.first_seq);
        let mut files = LaneFiles {
            lane,
            directory,
            segments,
            tail: None,
            next_seq: 1,
            synced_seq: 0,
            synced_bytes: 0,
            reserved_bytes: 0,
            is_dirty: false,
            moves_cursor: false,
            is_distrusted: false,
            kept_from: 1,
            read_seq: 1,
            reader: None,
            told_through: 0,
            counted: Counted::default(),
            damage: Damage::default(),
            syncs: 0,
            written_bytes: 0,
        };
        files.recover_tail(&mut found)?;
        files.synced_seq = files.next_seq - 1;
        files.kept_from = files.segments.first().map_or(files.next_seq, |segment| segment.first_seq);
        files.read_seq = files.kept_from;
        Ok((files, found))
    }

    /// Reads the last segment, and the ones before it as far back as the newest checkpoint: the last one's may be
    /// damaged. Then nothing is appended to it, so that the next one begins with a checkpoint; neither is anything to
    /// one that the disk cannot read.
    fn recover_tail(&mut self, found: &mut Found) -> io::Result<()> {
        let Some(last) = self.segments.last_mut() else { return Ok(()) };
        let path = segment::path(&self.directory, last.first_seq);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        if !segment::has_right_header(&file, self.lane, last.first_seq) {
            found.damage.push(format!("{}: the header is damaged", path.display()));
        }
        let scan = scan(&file, &path, found)?;
        if scan.torn_bytes > 0 {
            found.damage.push(format!("{}: {} bytes at the end were half written", path.display(), scan.torn_bytes));
        }
        self.next_seq = last.first_seq.max(scan.last_seq.saturating_add(1));
        last.usage = Some(scan.usage);
        let mut has_checkpoint = scan.has_checkpoint;
        // This also gives back what was reserved. What the kernel still held when the last agent died is not on the
        // disk yet, and is sent as if it were.
        let safe = file.set_len(scan.end.min(last.bytes)).and_then(|()| file.sync_data());
        if let Err(error) = &safe {
            found.damage.push(format!("{}: {error}; a new segment is begun", path.display()));
        }
        if scan.unreadable_bytes > 0 {
            found.damage.push(format!("{}: the disk cannot read {} bytes", path.display(), scan.unreadable_bytes));
        }
        if scan.unreadable_bytes == 0 && safe.is_ok() {
            (last.bytes, self.synced_bytes) = (scan.end, scan.end);
            self.tail = has_checkpoint.then(|| Arc::new(file));
        }
        for older in self.segments.iter().rev().skip(1) {
            if has_checkpoint {
                break;
            }
            let path = segment::path(&self.directory, older.first_seq);
            match File::open(&path).and_then(|file| super::scan::scan(&file, &path, found)) {
                Ok(scan) => has_checkpoint = scan.has_checkpoint,
                Err(error) => found.damage.push(format!("cannot read {}: {error}", path.display())),
            }
        }
        self.learn_usage();
        Ok(())
    }

    /// What each segment says about the one before it.
    fn learn_usage(&mut self) {
        for index in 1..self.segments.len() {
            let path = segment::path(&self.directory, self.segments[index].first_seq);
            let before = &mut self.segments[index - 1];
            let fits = |sealed: &Sealed| sealed.first_seq == before.first_seq && sealed.bytes == before.bytes;
            before.usage = sealed_before(&path).filter(fits).map(|sealed| sealed.usage);
        }
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum::<u64>() + self.ahead()
    }

    /// How much is left in the segment that is appended to, when one is full at so many bytes. Without any, the next
    /// record needs a new one.
    pub fn room(&self, segment_bytes: u64) -> u64 {
        let tail = self.segments.last().filter(|_| self.tail.is_some());
        tail.map_or(0, |tail| segment_bytes.saturating_sub(tail.bytes))
    }

    /// Numbers up to this one were given before, whatever became of the events: they are never given again.
    pub fn never_reuse(&mut self, acked: u64) {
        self.next_seq = self.next_seq.max(acked + 1);
        self.synced_seq = self.next_seq - 1;
    }

    /// Begins a new segment whose first record is what all sources were read up to. It takes the place of one that
    /// holds no event, such as one that is full of cursors.
    pub fn begin_segment(&mut self, cursors: Vec<StoredCursor>) -> io::Result<()> {
        self.give_back();
        if let Some(old) = self.tail.clone().filter(|_| self.is_dirty && !self.is_distrusted) {
            self.syncs += 1;
            if let Err(error) = old.sync_data() {
                self.distrust(&error);
            }
        }
        if self.is_distrusted {
            return self.begin_again(cursors);
        }
        self.install(self.next_seq, cursors, &[], None)?;
        (self.synced_seq, self.is_dirty, self.moves_cursor) = (self.next_seq - 1, false, false);
        Ok(())
    }

    /// Remembers that a sync failed.
    pub fn distrust(&mut self, error: &io::Error) {
        self.is_distrusted = true;
        self.is_dirty = true;
        self.damage.note(format!(
            "the {} lane of the spool could not be synced: {error}; what was not safe is written again",
            self.lane.name()
        ));
    }

    /// Whether a sync of the tail would prove nothing.
    pub fn is_distrusted(&self) -> bool {
        self.is_distrusted
    }

    /// Writes what was not synced to a new segment. It is still in the page cache, or in a file that lost its name;
    /// where it is not, the numbers are missing and counted when they are read.
    pub fn begin_again(&mut self, cursors: Vec<StoredCursor>) -> io::Result<()> {
        let mut kept = Vec::new();
        let mut usage = Usage::default();
        if let Some(tail) = &self.tail {
            let mut frames = Frames::new(tail.try_clone()?, self.synced_bytes);
            loop {
                match frames.next()? {
                    Frame::Whole(body) => {
                        let record = Record::decode(&body);
                        if let Ok(Some((event, is_first))) = record.as_ref().map(Record::event)
                            && let Some(kind) = event.kind()
                        {
                            usage.add(kind, is_first, segment::framed_bytes(&body));
                        }
                        kept.extend(segment::frame(&body)?);
                    }
                    Frame::Damaged(_) => {}
                    Frame::End(_) => break,
                }
            }
        }
        let (old, synced_bytes) = (self.tail.clone(), self.synced_bytes);
        let old_first_seq = self.segments.last().map(|segment| segment.first_seq);
        let first_seq = self.synced_seq + 1;
        self.install(first_seq, cursors, &kept, Some(usage))?;
        if let (Some(old), [.., before, _]) = (old, self.segments.as_mut_slice())
            && Some(before.first_seq) == old_first_seq
        {
            // A tail of frames that are elsewhere too is skipped by their numbers, so it may also stay.
            if old.set_len(synced_bytes).is_ok() {
                before.bytes = synced_bytes;
            }
            before.usage = None;
        }
        (self.synced_seq, self.is_dirty, self.is_distrusted) = (self.next_seq - 1, false, false);
        self.moves_cursor = false;
        Ok(())
    }

    /// Makes a segment, and appends to it from now on.
    fn install(
        &mut self,
        first_seq: u64,
        cursors: Vec<StoredCursor>,
        frames: &[u8],
        usage: Option<Usage>,
    ) -> io::Result<()> {
        let before = self.segments.iter().rev().find(|segment| segment.first_seq < first_seq);
        let before = before.and_then(|before| {
            before.usage.map(|usage| Sealed { first_seq: before.first_seq, bytes: before.bytes, usage })
        });
        let checkpoint = Record::Checkpoint(Checkpoint { cursors, before });
        let mut content = Vec::new();
        encode(&checkpoint, &mut content)?;
        content.extend_from_slice(frames);
        let path = segment::path(&self.directory, first_seq);
        let (file, bytes) = segment::create(&path, self.lane, first_seq, &content)?;
        self.syncs += 2;
        self.written_bytes += bytes;
        self.segments.retain(|old| old.first_seq < first_seq);
        self.segments.push(Segment { first_seq, bytes, usage: Some(usage.unwrap_or_default()) });
        self.tail = Some(Arc::new(file));
        (self.synced_bytes, self.reserved_bytes) = (bytes, 0);
        self.reader = None;
        // Only then may the older segments go, with the cursors in them.
        sync_directory(&self.directory)
    }

    /// Appends some records. Events must be numbered from [`LaneFiles::next_seq`] on. When it fails, the file is as it
    /// was before.
    pub fn append(&mut self, run: &Run) -> io::Result<()> {
        let (Some(tail), Some(last)) = (&self.tail, self.segments.last_mut()) else {
            return Err(io::Error::other("no segment was begun"));
        };
        if let Err(error) = tail.write_all_at(&run.frames, last.bytes) {
            // The reader may have seen what is not there any more.
            (self.reader, self.reserved_bytes) = (None, 0);
            // Half a frame is cut off at once, or by the next start where even that fails.
            return Err(tail.set_len(last.bytes).err().unwrap_or(error));
        }
        last.bytes += run.frames.len() as u64;
        if let Some(usage) = &mut last.usage {
            usage.add_all(&run.usage);
        }
        self.written_bytes += run.frames.len() as u64;
        self.next_seq += run.events;
        (self.is_dirty, self.moves_cursor) = (true, self.moves_cursor || run.moves_cursor);
        Ok(())
    }

    /// What to sync, and up to which event and which byte that makes the lane safe; `None` when there is nothing new.
    pub fn begin_sync(&mut self) -> Option<(Arc<File>, u64, u64)> {
        let (tail, bytes) = (self.tail.clone()?, self.segments.last()?.bytes);
        self.moves_cursor = false;
        std::mem::take(&mut self.is_dirty).then(|| (tail, self.next_seq - 1, bytes))
    }

    /// What was synced is safe now.
    pub fn end_sync(&mut self, file: &Arc<File>, seq: u64, bytes: u64) {
        self.syncs += 1;
        self.synced_seq = self.synced_seq.max(seq);
        if self.tail.as_ref().is_some_and(|tail| Arc::ptr_eq(tail, file)) {
            self.synced_bytes = self.synced_bytes.max(bytes);
        }
    }

    /// Whether the file that is appended to is still the one under its name.
    pub fn is_in_place(&self) -> bool {
        let (Some(tail), Some(last)) = (&self.tail, self.segments.last()) else { return self.directory.is_dir() };
        let named = fs::metadata(segment::path(&self.directory, last.first_seq));
        match (named, tail.metadata()) {
            (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            (Err(error), _) => error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::NotADirectory,
            // A look that fails says nothing about the file.
            (Ok(_), Err(_)) => true,
        }
    }

    /// Makes the directory anew. What is in the tail is still there, because it is open, and is written again. The
    /// numbers in older segments that are gone are lost; of those that had to make room before some count twice.
    pub fn restore(&mut self, acked: u64, cursors: Vec<StoredCursor>) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let tail = self.segments.last().filter(|_| self.tail.is_some()).map(|tail| tail.first_seq);
        let directory = self.directory.clone();
        self.segments.retain(|old| segment::path(&directory, old.first_seq).is_file());
        if let Some(first_seq) = tail {
            (self.synced_bytes, self.synced_seq) = (segment::HEADER_BYTES, first_seq - 1);
        } else {
            self.synced_seq = self.next_seq - 1;
        }
        self.begin_again(cursors)?;
        let first_kept = self.segments.first().map_or(self.next_seq, |segment| segment.first_seq);
        if first_kept > self.kept_from {
            self.damage.lost += self.counted.add(self.kept_from.max(acked + 1), first_kept - 1);
            self.kept_from = first_kept;
        }
        Ok(())
    }

    /// The number of the last event of the segment that begins with `first_seq`.
    pub(super) fn end_of(&self, first_seq: u64) -> u64 {
        let next = self.segments.iter().find(|segment| segment.first_seq > first_seq);
        next.map_or(self.next_seq, |segment| segment.first_seq) - 1
    }

    /// Deletes the segments that hold nothing but acknowledged events. The last one stays: it is appended to, and its
    /// name keeps the numbers going on.
    pub fn forget(&mut self, acked: u64) -> io::Result<()> {
        while self.tail.is_some()
            && let [oldest, next, ..] = self.segments.as_slice()
            && next.first_seq <= acked + 1
        {
            remove_if_there(&segment::path(&self.directory, oldest.first_seq))?;
            self.kept_from = self.kept_from.max(next.first_seq);
            self.counted.forget_below(self.kept_from);
            self.segments.remove(0);
        }
        Ok(())
    }
}

/// Deletes a file that may be gone already.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
