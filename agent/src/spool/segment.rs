//! Segment files: a header, then frames. `spool.rs` draws the format.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use collector_common::event::kind::Lane;
use nix::fcntl::{FallocateFlags, fallocate};

/// First bytes of a segment file.
const FILE_MAGIC: &[u8; 8] = b"EDGEWSEG";

/// The only version of the format so far.
const FILE_VERSION: u16 = 1;

/// Length of the header of a segment file: bytes.
pub const HEADER_BYTES: u64 = 24;

/// First bytes of a frame, by which a reader finds the next one behind a damaged one.
pub const FRAME_MAGIC: &[u8; 4] = b"EWfr";

/// Length of what stands before the body of a frame: bytes.
pub const FRAME_HEADER_BYTES: usize = 12;

/// No event has a higher number: one a nanosecond would take 146 years to get there. So a number may be counted on
/// from without a look at where numbers end.
pub const MAX_SEQ: u64 = u64::MAX / 4;

/// Extension of a segment that is being made. One that a crash left is worth nothing.
pub const UNFINISHED: &str = "new";

/// No body is longer: the largest message a hub takes is 256 KiB, and an event must fit in one.
pub const MAX_BODY_BYTES: usize = 512 * 1024;

/// The name of the segment whose first event has this number.
pub fn path(directory: &Path, first_seq: u64) -> PathBuf {
    directory.join(format!("{first_seq:020}.seg"))
}

/// The number in a segment's name; `None` for a file of somebody else.
pub fn first_seq(path: &Path) -> Option<u64> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    let number = stem.parse().ok().filter(|_| stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit()));
    number.filter(|first_seq| *first_seq <= MAX_SEQ)
}

/// Makes a segment that holds some frames, and tells its length. It appears under its name whole and synced, or not at
/// all, and takes the place of one of that name; its directory is still to be synced.
pub fn create(path: &Path, lane: Lane, first_seq: u64, frames: &[u8]) -> io::Result<(File, u64)> {
    let content = [header(lane, first_seq).as_slice(), frames].concat();
    let unfinished = path.with_extension(UNFINISHED);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all_at(&content, 0)?;
    file.sync_data()?;
    fs::rename(&unfinished, path)?;
    Ok((file, content.len() as u64))
}

/// Takes room on the disk for a file up to a length, and tells whether it got any. The file does not become longer. A
/// file system that cannot do that, or has no room, gives room as it is needed.
pub fn reserve(file: &File, bytes: u64) -> bool {
    let Ok(bytes) = bytes.try_into() else { return false };
    fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes).is_ok()
}

/// Whether a file begins as this program would have begun it.
pub fn has_right_header(file: &File, lane: Lane, first_seq: u64) -> bool {
    let mut found = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut found, 0).is_ok() && found == header(lane, first_seq)
}

fn header(lane: Lane, first_seq: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(FILE_MAGIC);
    header[8..10].copy_from_slice(&FILE_VERSION.to_le_bytes());
    header[10] = lane.name().as_bytes()[0];
    header[12..20].copy_from_slice(&first_seq.to_le_bytes());
    let sum = crc32fast::hash(&header[..20]);
    header[20..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// How much a body takes in its frame: bytes.
pub fn framed_bytes(body: &[u8]) -> u64 {
    (FRAME_HEADER_BYTES + body.len()) as u64
}

/// A body in its frame.
pub fn frame(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut frame = [&[0; FRAME_HEADER_BYTES], body].concat();
    seal(&mut frame)?;
    Ok(frame)
}

/// Fills in what stands before the body of a frame.
pub fn seal(frame: &mut [u8]) -> io::Result<()> {
    let (header, body) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= MAX_BODY_BYTES);
    let length = length.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("a record of {} bytes is too large", body.len()))
    })?;
    header[..4].copy_from_slice(FRAME_MAGIC);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..].copy_from_slice(&checksum(length, body).to_le_bytes());
    Ok(())
}

/// What stands in a frame before the body. The length is under the checksum too, so that a frame of zeros is never a right one.
pub fn checksum(length: u32, body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length.to_le_bytes());
    sum.update(body);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_numbers_do_and_foreign_files_have_none() {
        let directory = Path::new("/spool/high");
        assert!(path(directory, 9) < path(directory, 10));
        assert_eq!(first_seq(&path(directory, MAX_SEQ)), Some(MAX_SEQ));
        assert_eq!(first_seq(&path(directory, MAX_SEQ + 1)), None);
        for foreign in ["1.seg", "lock", "00000000000000000001.seg.bak", "+0000000000000000001.seg"] {
            assert_eq!(first_seq(&directory.join(foreign)), None, "{foreign}");
        }
    }
}
