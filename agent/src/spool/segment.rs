//! Segment files: a header, then frames. `spool.rs` draws the format.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use collector_common::event::kind::Lane;

/// First bytes of a segment file.
const FILE_MAGIC: &[u8; 8] = b"EDGEWSEG";

/// The only version of the format so far.
const FILE_VERSION: u16 = 1;

/// Length of the header of a segment file: bytes.
pub const HEADER_BYTES: u64 = 24;

/// First bytes of a frame, by which a reader finds the next one behind a damaged one.
const FRAME_MAGIC: &[u8; 4] = b"EWfr";

/// Length of what stands before the body of a frame: bytes.
pub const FRAME_HEADER_BYTES: usize = 12;

/// No event has a higher number: one a nanosecond would take 146 years to get there. So a number may be counted on
/// from without a look at where numbers end.
pub const MAX_SEQ: u64 = u64::MAX / 4;

/// Extension of a segment that is being made. One that a crash left is worth nothing.
pub const UNFINISHED: &str = "new";

/// No body is longer: the largest message a hub takes is 256 KiB, and an event must fit in one.
pub const MAX_BODY_BYTES: usize = 512 * 1024;

/// What stands at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole frame whose checksum is right.
    Whole {
        /// Its body.
        body: Vec<u8>,
        /// Where the next frame begins.
        next: u64,
    },
    /// Bytes that are no frame; a whole one begins at `next`.
    Damaged {
        /// Where the next whole frame begins.
        next: u64,
    },
    /// No whole frame from here on. `rest` bytes are left: a torn write, or 0 for a clean end.
    End {
        /// Bytes between here and the end of the file.
        rest: u64,
    },
}

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

/// Makes a segment that holds one record, and tells its length. It appears under its name whole and synced, or not at
/// all, and takes the place of one of that name; its directory is still to be synced.
pub fn create(path: &Path, lane: Lane, first_seq: u64, body: &[u8]) -> io::Result<(File, u64)> {
    let content = [header(lane, first_seq).as_slice(), &frame(body)?].concat();
    let unfinished = path.with_extension(UNFINISHED);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all_at(&content, 0)?;
    file.sync_data()?;
    fs::rename(&unfinished, path)?;
    Ok((file, content.len() as u64))
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

/// A body in its frame.
pub fn frame(body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= MAX_BODY_BYTES);
    let length = length.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("a record of {} bytes is too large", body.len()))
    })?;
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    frame.extend_from_slice(FRAME_MAGIC);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&checksum(length, body).to_le_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

/// Looks at the place `offset` of a segment.
pub fn read_frame(file: &File, offset: u64) -> io::Result<Frame> {
    let length = file.metadata()?.len();
    if let Some(body) = whole_frame(file, offset, length)? {
        let next = offset + (FRAME_HEADER_BYTES + body.len()) as u64;
        return Ok(Frame::Whole { body, next });
    }
    if offset >= length {
        return Ok(Frame::End { rest: 0 });
    }
    // Damage is rare and a segment is small, so the rest of the file is read at once and searched.
    let mut rest = vec![0; usize::try_from(length - offset).unwrap_or(usize::MAX)];
    let got = read_up_to(file, &mut rest, offset)?;
    let mut from = 1;
    while let Some(found) = find(&rest[..got], from) {
        let place = offset + found as u64;
        if whole_frame(file, place, length)?.is_some() {
            return Ok(Frame::Damaged { next: place });
        }
        from = found + 1;
    }
    Ok(Frame::End { rest: length - offset })
}

fn whole_frame(file: &File, offset: u64, file_length: u64) -> io::Result<Option<Vec<u8>>> {
    let body_at = offset + FRAME_HEADER_BYTES as u64;
    if body_at > file_length {
        return Ok(None);
    }
    let mut header = [0; FRAME_HEADER_BYTES];
    file.read_exact_at(&mut header, offset)?;
    let [m0, m1, m2, m3, l0, l1, l2, l3, s0, s1, s2, s3] = header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let fits = length as usize <= MAX_BODY_BYTES && body_at + u64::from(length) <= file_length;
    if [m0, m1, m2, m3] != *FRAME_MAGIC || !fits {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    file.read_exact_at(&mut body, body_at)?;
    let right = checksum(length, &body) == u32::from_le_bytes([s0, s1, s2, s3]);
    Ok(right.then_some(body))
}

/// The length is under the checksum too, so that a frame of zeros is never a right one.
fn checksum(length: u32, body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length.to_le_bytes());
    sum.update(body);
    sum.finalize()
}

fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC).map(|at| from + at)
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
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

    #[test]
    fn a_flipped_bit_costs_one_frame_wherever_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), 1);
        let (file, _) = create(&path, Lane::High, 1, b"").unwrap();
        let mut whole = header(Lane::High, 1).to_vec();
        for body in [&b"first"[..], b"second", b"third"] {
            whole.extend(frame(body).unwrap());
        }
        let second = HEADER_BYTES as usize + FRAME_HEADER_BYTES + 5;
        for at in second..second + FRAME_HEADER_BYTES + 6 {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            file.write_all_at(&bytes, 0).unwrap();
            let third = (second + FRAME_HEADER_BYTES + 6) as u64;
            assert_eq!(read_frame(&file, second as u64).unwrap(), Frame::Damaged { next: third }, "byte {at}");
            assert!(matches!(read_frame(&file, third).unwrap(), Frame::Whole { body, .. } if body == b"third"));
        }
    }

    #[test]
    fn random_bytes_are_never_a_frame() {
        let mut random = fastrand::Rng::with_seed(7);
        let directory = tempfile::tempdir().unwrap();
        let (file, _) = create(&path(directory.path(), 1), Lane::Low, 1, b"").unwrap();
        for _ in 0..200 {
            let noise: Vec<u8> = (0..200).map(|_| *random.choice(b"EWfr\0\x01\xff").unwrap()).collect();
            file.write_all_at(&noise, HEADER_BYTES).unwrap();
            assert!(matches!(read_frame(&file, HEADER_BYTES).unwrap(), Frame::End { rest: 200 }));
        }
    }
}
