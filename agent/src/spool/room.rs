//! Gives up events when there is no room: kind by kind, so that a flood of one does not cost the others.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::lane::{LaneFiles, remove_if_there, sync_directory};
use super::reading::is_lasting;
use super::record::{Checkpoint, Record, StoredCursor};
use super::run::encode;
use super::scan::{Found, Sieve, Sifted, scan, sift};
use super::segment;
use super::usage::{Lost, Usage, Victim};

/// The spool leaves at least so much of a file system to others: bytes, and a part of the whole.
const RESERVE_BYTES: u64 = 1024 * 1024;
const RESERVE_PART: u64 = 100;

/// And so many inodes.
const RESERVE_INODES: u64 = 16;

/// What became of an attempt to make room.
#[derive(Debug)]
pub enum GivenUp {
    /// So much was given up.
    Events(Lost),
    /// What would go lies in the segment that is appended to: a new one must be begun first.
    BeginSegment,
    /// The lane holds nothing that could go.
    Nothing,
}

/// What a file system has too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Bytes.
    Space,
    /// Inodes: no file can be made, however much space there is.
    Inodes,
}

/// How a file system stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// What it has so little of that the spool must not grow.
    pub lack: Option<Lack>,
    /// How much the spool may still take: bytes.
    pub bytes: u64,
}

/// Looks at a file system. One that cannot say lacks nothing.
pub fn free(directory: &Path) -> Free {
    let Ok(stat) = statvfs(directory) else { return Free { lack: None, bytes: u64::MAX } };
    // `fsblkcnt_t` is 32 bits wide on some machines.
    #[allow(clippy::useless_conversion)]
    let [free, all, inodes_free, inodes] = [
        u64::from(stat.blocks_available()),
        u64::from(stat.blocks()),
        u64::from(stat.files_available()),
        u64::from(stat.files()),
    ];
    #[allow(clippy::useless_conversion)]
    let block = u64::from(stat.fragment_size());
    let reserve = RESERVE_BYTES.max(all.saturating_mul(block) / RESERVE_PART);
    match free.saturating_mul(block).checked_sub(reserve) {
        None => Free { lack: Some(Lack::Space), bytes: 0 },
        Some(bytes) => {
            let lacks_inodes = inodes > 0 && inodes_free < RESERVE_INODES;
            Free { lack: lacks_inodes.then_some(Lack::Inodes), bytes }
        }
    }
}

impl LaneFiles {
    /// Takes room for what is going to be appended to the tail, up to a length.
    pub fn reserve(&mut self, bytes: u64) {
        if self.tail.as_ref().is_some_and(|tail| segment::reserve(tail, bytes)) {
            self.reserved_bytes = bytes;
        }
    }

    /// How much room was taken and is not used yet: bytes.
    pub fn ahead(&self) -> u64 {
        self.segments.last().map_or(0, |tail| self.reserved_bytes.saturating_sub(tail.bytes))
    }

    /// Gives back the room that was taken and is not used.
    pub fn give_back(&mut self) {
        if self.ahead() > 0
            && let (Some(tail), Some(last)) = (&self.tail, self.segments.last())
        {
            // Cutting a file to the length it has frees what is behind. Where that fails, the next start does it.
            let _kept = tail.set_len(last.bytes);
        }
        self.reserved_bytes = 0;
    }

    /// Gives up events of the kind that uses most, from the oldest segment that holds any.
    pub fn give_up(&mut self, acked: u64, segment_bytes: u64) -> io::Result<GivenUp> {
        self.know_usage();
        let Some(victim) = self.usage().victim() else {
            // Nothing but records of a later version, damage, or what is acknowledged.
            return if self.segments.len() > 1 { self.remove_oldest(acked) } else { Ok(GivenUp::Nothing) };
        };
        let holder = self.segments.iter().position(|segment| segment.usage.is_some_and(|usage| usage.holds(victim)));
        match holder {
            Some(index) if index + 1 < self.segments.len() => self.sift(index, victim, acked, segment_bytes),
            _ => Ok(GivenUp::BeginSegment),
        }
    }

    /// What the segments hold, as far as it is known.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.segments.iter().filter_map(|segment| segment.usage).for_each(|each| usage.add_all(&each));
        usage
    }

    /// Reads the segments of which nobody has said what they hold.
    fn know_usage(&mut self) {
        for segment in self.segments.iter_mut().filter(|segment| segment.usage.is_none()) {
            let path = segment::path(&self.directory, segment.first_seq);
            let scanned = File::open(&path).and_then(|file| scan(&file, &path, &mut Found::default()));
            // One that cannot be read holds nothing that can be sent.
            segment.usage = Some(scanned.map(|scan| scan.usage).unwrap_or_default());
        }
    }

    /// Takes the victim out of a segment. What stays is appended to the segment before, where it fits: otherwise a
    /// long flood would leave ever more, ever smaller files.
    fn sift(&mut self, index: usize, victim: Victim, acked: u64, segment_bytes: u64) -> io::Result<GivenUp> {
        let first_seq = self.segments[index].first_seq;
        let path = segment::path(&self.directory, first_seq);
        let mut sifted = match File::open(&path).and_then(|file| sift(file, self.sieve(index, Some(victim), acked))) {
            Ok(sifted) => sifted,
            Err(error) if is_lasting(&error) && index == 0 => return self.remove_oldest(acked),
            Err(error) if is_lasting(&error) => {
                // Its numbers are found missing, and counted, when they are read.
                self.segments[index].usage = Some(Usage::default());
                return Ok(GivenUp::Events(Lost::default()));
            }
            Err(error) => return Err(error),
        };
        self.count_missing(&mut sifted);
        self.reader = None;
        if index == 0 && !sifted.holds_event {
            self.remove_first(&path)?;
            return Ok(GivenUp::Events(sifted.lost));
        }
        let may_merge = index > 0 && (!sifted.holds_event || self.fits_into(index - 1, &sifted, segment_bytes));
        if !may_merge || !self.merge(index, &sifted, &path)? {
            let (_, bytes) = segment::create(&path, self.lane, first_seq, &sifted.frames)?;
            sync_directory(&self.directory)?;
            (self.syncs, self.written_bytes) = (self.syncs + 2, self.written_bytes + bytes);
            (self.segments[index].bytes, self.segments[index].usage) = (bytes, Some(sifted.usage));
        }
        Ok(GivenUp::Events(sifted.lost))
    }

    fn sieve(&self, index: usize, victim: Option<Victim>, acked: u64) -> Sieve {
        let first_seq = self.segments[index].first_seq;
        Sieve { victim, acked, first_seq, last_seq: self.end_of(first_seq) }
    }

    fn fits_into(&self, index: usize, sifted: &Sifted, segment_bytes: u64) -> bool {
        self.segments[index].bytes + sifted.frames.len() as u64 <= segment_bytes
    }

    /// Appends what is left of a segment to the one before, and deletes it. A crash in between leaves events twice,
    /// which their numbers tell. `false` when the one before cannot be written to.
    fn merge(&mut self, index: usize, sifted: &Sifted, path: &Path) -> io::Result<bool> {
        let into = &mut self.segments[index - 1];
        let opened = OpenOptions::new().write(true).open(segment::path(&self.directory, into.first_seq));
        let written = opened.and_then(|file| match file.write_all_at(&sifted.frames, into.bytes) {
            Ok(()) => file.sync_data(),
            Err(error) => Err(file.set_len(into.bytes).err().unwrap_or(error)),
        });
        match written {
            Ok(()) => {}
            Err(error) if is_lasting(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        into.bytes += sifted.frames.len() as u64;
        if let Some(usage) = &mut into.usage {
            usage.add_all(&sifted.usage);
        }
        (self.syncs, self.written_bytes) = (self.syncs + 1, self.written_bytes + sifted.frames.len() as u64);
        remove_if_there(path)?;
        self.segments.remove(index);
        Ok(true)
    }

    /// Gives up all events of the oldest segment. It needs no room on the disk.
    pub fn remove_oldest(&mut self, acked: u64) -> io::Result<GivenUp> {
        let [oldest, _, ..] = self.segments.as_slice() else { return Ok(GivenUp::Nothing) };
        let path = segment::path(&self.directory, oldest.first_seq);
        let sieve = self.sieve(0, None, acked);
        let lost = self.count(&path, sieve);
        self.remove_first(&path)?;
        Ok(GivenUp::Events(lost))
    }

    /// Gives up all events of the only segment, the one that is appended to: its blocks are freed, and there is room.
    pub fn empty_tail(&mut self, acked: u64, cursors: Vec<StoredCursor>) -> io::Result<GivenUp> {
        let (Some(tail), [last]) = (self.tail.clone(), self.segments.as_slice()) else { return Ok(GivenUp::Nothing) };
        let (from, through) = (last.first_seq, self.next_seq - 1);
        if from > through {
            return Ok(GivenUp::Nothing);
        }
        let sieve = self.sieve(0, None, acked);
        let lost = self.count(&segment::path(&self.directory, from), sieve);
        let mut content = Vec::new();
        encode(&Record::Checkpoint(Checkpoint { cursors, before: None }), &mut content)?;
        encode(&Record::Dropped { from, through }, &mut content)?;
        tail.set_len(segment::HEADER_BYTES)?;
        (self.reader, self.reserved_bytes) = (None, 0);
        let last = &mut self.segments[0];
        (last.bytes, last.usage) = (segment::HEADER_BYTES, Some(Usage::default()));
        self.kept_from = self.next_seq;
        // Without a checkpoint nothing may be appended to it: the next append begins a new segment.
        self.tail = None;
        tail.write_all_at(&content, segment::HEADER_BYTES)?;
        self.segments[0].bytes += content.len() as u64;
        (self.tail, self.synced_bytes, self.is_dirty) = (Some(tail), segment::HEADER_BYTES, true);
        self.written_bytes += content.len() as u64;
        Ok(GivenUp::Events(lost))
    }

    /// What is lost with a segment. One that cannot be opened: all its numbers.
    fn count(&mut self, path: &Path, sieve: Sieve) -> Lost {
        let mut sifted = File::open(path).and_then(|file| sift(file, sieve)).unwrap_or_else(|_| Sifted {
            missing: vec![(sieve.first_seq.max(sieve.acked + 1), sieve.last_seq)],
            ..Sifted::default()
        });
        self.count_missing(&mut sifted);
        sifted.lost
    }

    fn count_missing(&mut self, sifted: &mut Sifted) {
        sifted.lost.unknown = sifted.missing.iter().map(|(from, through)| self.counted.add(*from, *through)).sum();
    }

    fn remove_first(&mut self, path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path).is_ok() {
            fs::remove_file(path)?;
        }
        self.segments.remove(0);
        self.reader = None;
        let kept_from = self.segments.first().map_or(self.next_seq, |segment| segment.first_seq);
        self.kept_from = self.kept_from.max(kept_from);
        self.counted.forget_below(self.kept_from);
        Ok(())
    }
}
