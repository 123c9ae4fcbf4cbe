//! One lane of the spool: its segments, the end that is appended to and the end that is read.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use collector_common::clock::Reading;
use collector_common::event::kind::{Kind, Lane};

use nix::errno::Errno;

use super::record::{Record, StoredCursor, StoredEvent};
use super::scan::{Found, count_unacknowledged, scan, scan_whole};
use super::segment::{self, Frame};

/// One lane. All numbers of events are counted from 1 and have no gaps.
#[derive(Debug)]
pub struct LaneFiles {
    lane: Lane,
    directory: PathBuf,
    /// In order of their first event; the last one is appended to.
    segments: Vec<Segment>,
    /// The last segment, once it begins with a checkpoint that can be read: only then may older ones be deleted.
    tail: Option<Arc<File>>,
    /// The number the next event gets.
    pub next_seq: u64,
    /// All events up to this one are on the disk for good.
    pub synced_seq: u64,
    /// Something was appended since the last sync.
    pub is_dirty: bool,
    /// The number of the next event to read.
    read_seq: u64,
    reader: Option<Reader>,
}

#[derive(Debug)]
struct Segment {
    first_seq: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Reader {
    first_seq: u64,
    file: File,
    offset: u64,
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
            match segment::first_seq(&path) {
                Some(first_seq) => segments.push(Segment { first_seq, bytes: fs::metadata(&path)?.len() }),
                None => found.damage.push(format!("{} is not a file of the spool; it is left alone", path.display())),
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
            is_dirty: false,
            read_seq: 1,
            reader: None,
        };
        files.recover_tail(&mut found)?;
        files.synced_seq = files.next_seq - 1;
        files.read_seq = files.first_kept();
        Ok((files, found))
    }

    /// Reads the last segment, and the ones before it as far back as the newest checkpoint: the last one's may be
    /// damaged. Then nothing is appended to it, so that the next one begins with a checkpoint.
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
            file.set_len(scan.end.min(last.bytes))?;
        }
        // What the kernel still held when the last agent died is not on the disk yet, and is sent as if it were.
        file.sync_data()?;
        last.bytes = scan.end;
        self.next_seq = last.first_seq.max(scan.last_seq.saturating_add(1));
        let mut has_checkpoint = scan.has_checkpoint;
        self.tail = has_checkpoint.then(|| Arc::new(file));
        for older in self.segments.iter().rev().skip(1) {
            if has_checkpoint {
                break;
            }
            let path = segment::path(&self.directory, older.first_seq);
            has_checkpoint = scan_whole(&path, found)?.has_checkpoint;
        }
        Ok(())
    }

    /// The number of the oldest event that may still be read.
    fn first_kept(&self) -> u64 {
        self.segments.first().map_or(self.next_seq, |segment| segment.first_seq)
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether the next record needs a new segment, when one is full at so many bytes.
    pub fn needs_segment(&self, segment_bytes: u64) -> bool {
        self.tail.is_none() || self.segments.last().is_none_or(|tail| tail.bytes >= segment_bytes)
    }

    /// Whether there is an event that could be given up.
    pub fn holds_event(&self) -> bool {
        self.first_kept() < self.next_seq
    }

    /// Numbers up to this one were given before, whatever became of the events: they are never given again.
    pub fn never_reuse(&mut self, acked: u64) {
        self.next_seq = self.next_seq.max(acked + 1);
        self.synced_seq = self.next_seq - 1;
    }

    /// Events that are kept and not read yet.
    pub fn unread(&self) -> u64 {
        self.next_seq.saturating_sub(self.read_seq.max(self.first_kept()))
    }

    /// A lower bound of the bytes that are kept and not read yet.
    pub fn unread_bytes(&self) -> u64 {
        let Some(reader) = &self.reader else {
            return self.segments.iter().filter(|s| s.first_seq >= self.read_seq).map(|s| s.bytes).sum();
        };
        let later = self.segments.iter().filter(|s| s.first_seq >= reader.first_seq).map(|s| s.bytes);
        later.sum::<u64>().saturating_sub(reader.offset)
    }

    /// Begins a new segment whose first record is what all sources were read up to. It takes the place of one that
    /// holds no event, such as one that is full of cursors.
    pub fn begin_segment(&mut self, cursors: Vec<StoredCursor>) -> io::Result<()> {
        if let Some(old) = &self.tail {
            old.sync_data()?;
        }
        let checkpoint = Record::Checkpoint(cursors).encode().map_err(io::Error::other)?;
        let path = segment::path(&self.directory, self.next_seq);
        let (file, bytes) = segment::create(&path, self.lane, self.next_seq, &checkpoint)?;
        self.segments.retain(|old| old.first_seq != self.next_seq);
        self.segments.push(Segment { first_seq: self.next_seq, bytes });
        self.tail = Some(Arc::new(file));
        self.reader = None;
        // Only then may the older segments go, with the cursors in them.
        sync_directory(&self.directory)
    }

    /// Appends a record. An event must carry [`LaneFiles::next_seq`]. When it fails, the file is as it was before.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        let (Some(tail), Some(last)) = (&self.tail, self.segments.last_mut()) else {
            return Err(io::Error::other("no segment was begun"));
        };
        let frame = segment::frame(&record.encode().map_err(io::Error::other)?)?;
        if let Err(error) = tail.write_all_at(&frame, last.bytes) {
            // Half a frame is cut off at once, or by the next start where even that fails.
            return Err(tail.set_len(last.bytes).err().unwrap_or(error));
        }
        last.bytes += frame.len() as u64;
        self.is_dirty = true;
        if matches!(record, Record::Event(_)) {
            self.next_seq += 1;
        }
        Ok(())
    }

    /// What to sync, and up to which event that makes the lane safe; `None` when there is nothing new.
    pub fn begin_sync(&mut self) -> Option<(Arc<File>, u64)> {
        let tail = self.tail.clone()?;
        std::mem::take(&mut self.is_dirty).then(|| (tail, self.next_seq - 1))
    }

    /// Goes back to the first event behind `acked`.
    pub fn rewind(&mut self, acked: u64) {
        self.read_seq = (acked + 1).max(self.first_kept());
        self.reader = None;
    }

    /// Reads the next event that is on the disk for good. Damage on the way is named in `damage`.
    pub fn read(&mut self, damage: &mut Vec<String>) -> io::Result<Option<StoredEvent>> {
        self.read_seq = self.read_seq.max(self.first_kept());
        while self.read_seq <= self.synced_seq {
            let (mut reader, frame) = match self.next_frame() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(None),
                Err(error) if is_lasting(&error) && self.skip_segment() => {
                    damage.push(format!(
                        "a segment of {} cannot be read, its events are lost: {error}",
                        self.lane.name()
                    ));
                    continue;
                }
                Err(error) => return Err(error),
            };
            match frame {
                Frame::Whole { body, next } => {
                    reader.offset = next;
                    self.reader = Some(reader);
                    match Record::decode(&body) {
                        Ok(Record::Event(event)) if event.seq >= self.read_seq => {
                            self.read_seq = event.seq + 1;
                            return Ok(Some(event));
                        }
                        Ok(_) => {}
                        Err(error) => damage.push(format!("{}: a record cannot be read: {error}", self.lane.name())),
                    }
                }
                Frame::Damaged { next } => {
                    let lost = next - reader.offset;
                    damage.push(format!(
                        "segment {} of {}: {lost} bytes are damaged",
                        reader.first_seq,
                        self.lane.name()
                    ));
                    self.reader = Some(Reader { offset: next, ..reader });
                }
                // The rest of this segment holds nothing; go on with the next one, or with the end of the lane.
                Frame::End { .. } => self.read_seq = self.end_of(reader.first_seq).min(self.synced_seq) + 1,
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> io::Result<Option<(Reader, Frame)>> {
        let Some(reader) = self.take_reader()? else { return Ok(None) };
        let frame = segment::read_frame(&reader.file, reader.offset)?;
        Ok(Some((reader, frame)))
    }

    /// Goes on behind the segment that holds `read_seq`, if it is not the last one.
    fn skip_segment(&mut self) -> bool {
        let next = self.segments.iter().find(|segment| segment.first_seq > self.read_seq);
        let Some(next) = next.map(|segment| segment.first_seq) else { return false };
        (self.read_seq, self.reader) = (next, None);
        true
    }

    /// The reader of the segment that holds `read_seq`.
    fn take_reader(&mut self) -> io::Result<Option<Reader>> {
        let Some(segment) = self.segments.iter().rev().find(|segment| segment.first_seq <= self.read_seq) else {
            return Ok(None);
        };
        match self.reader.take() {
            Some(reader) if reader.first_seq == segment.first_seq => Ok(Some(reader)),
            _ => {
                let file = File::open(segment::path(&self.directory, segment.first_seq))?;
                Ok(Some(Reader { first_seq: segment.first_seq, file, offset: segment::HEADER_BYTES }))
            }
        }
    }

    /// When the first event behind `acked` happened.
    pub fn oldest_behind(&self, acked: u64) -> Option<Reading> {
        let seq = (acked + 1).max(self.first_kept());
        let segment = self.segments.iter().rev().find(|segment| segment.first_seq <= seq)?;
        let file = File::open(segment::path(&self.directory, segment.first_seq)).ok()?;
        let mut offset = segment::HEADER_BYTES;
        loop {
            match segment::read_frame(&file, offset).ok()? {
                Frame::Whole { body, next } => {
                    offset = next;
                    if let Ok(Record::Event(event)) = Record::decode(&body)
                        && event.seq >= seq
                    {
                        return Some(event.at);
                    }
                }
                Frame::Damaged { next } => offset = next,
                Frame::End { .. } => return None,
            }
        }
    }

    /// The number of the last event of the segment that begins with `first_seq`.
    fn end_of(&self, first_seq: u64) -> u64 {
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
            fs::remove_file(segment::path(&self.directory, oldest.first_seq))?;
            self.segments.remove(0);
        }
        Ok(())
    }

    /// Deletes the oldest segment to make room, and counts the events in it that were not acknowledged. The last
    /// segment is given up too when `begin_segment` was called just before.
    pub fn drop_oldest(&mut self, acked: u64) -> io::Result<Option<Vec<(Kind, u64)>>> {
        let [oldest, _, ..] = self.segments.as_slice() else { return Ok(None) };
        let path = segment::path(&self.directory, oldest.first_seq);
        let lost = count_unacknowledged(&path, acked);
        fs::remove_file(&path)?;
        self.segments.remove(0);
        Ok(Some(lost))
    }
}

/// Whether reading again cannot help: the file is gone, or the flash under it (`read(2)`, and what file systems with
/// checksums say).
fn is_lasting(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EIO | Errno::ENOENT | Errno::EBADMSG | Errno::EUCLEAN)
    )
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
