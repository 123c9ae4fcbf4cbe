//! Reads the frames of a segment one after the other, through a window, past whatever is damaged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

use super::segment::{FRAME_HEADER_BYTES, FRAME_MAGIC, MAX_BODY_BYTES, checksum};

/// Read at once: bytes.
const WINDOW_BYTES: usize = 32 * 1024;

/// What one failed read may cost: bytes. It is the page of most kernels, and a multiple of every sector.
const PAGE_BYTES: u64 = 4096;

/// What stands at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// The body of a whole frame whose checksum is right.
    Whole(Vec<u8>),
    /// So many bytes that are no frame; behind them a whole one begins.
    Damaged(u64),
    /// No whole frame from here on. So many bytes are left: a torn write, or 0 for a clean end.
    End(u64),
}

/// The frames of a file from a place on.
#[derive(Debug)]
pub struct Frames {
    file: File,
    /// Where the next frame is looked for.
    at: u64,
    /// Bytes of the file; `window[start]` is the one at `at`.
    window: Vec<u8>,
    start: usize,
    /// Bytes the disk could not read. They are taken for zeros, which are never a frame, so that they cost what was
    /// there and not the rest of the file.
    pub unreadable_bytes: u64,
}

impl Frames {
    /// Begins at a place.
    pub fn new(file: File, at: u64) -> Frames {
        Frames { file, at, window: Vec::new(), start: 0, unreadable_bytes: 0 }
    }

    /// Where the next frame is looked for.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The next frame. Behind [`Frame::End`] it looks at the same place again: the file may have grown.
    pub fn next(&mut self) -> io::Result<Frame> {
        if let Some(body) = self.take_whole()? {
            return Ok(Frame::Whole(body));
        }
        let begin = self.at;
        loop {
            let at = self.at;
            let bytes = self.ahead(FRAME_HEADER_BYTES)?;
            if bytes.len() < FRAME_HEADER_BYTES {
                let rest = at + bytes.len() as u64 - begin;
                (self.at, self.start) = (begin, 0);
                self.window.clear();
                return Ok(Frame::End(rest));
            }
            // The last bytes of the window may be the first ones of a magic.
            let beyond = bytes.len() + 1 - FRAME_MAGIC.len();
            let from = usize::from(at == begin);
            let found = bytes[from..].windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC);
            self.skip(found.map_or(beyond, |found| from + found));
            if found.is_some() {
                if self.whole_length()?.is_some() {
                    return Ok(Frame::Damaged(self.at - begin));
                }
                self.skip(1);
            }
        }
    }

    fn take_whole(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = self.whole_length()? else { return Ok(None) };
        let body = self.window[self.start + FRAME_HEADER_BYTES..][..length].to_vec();
        self.skip(FRAME_HEADER_BYTES + length);
        Ok(Some(body))
    }

    /// The length of the body of the whole frame that begins here, which then lies in the window.
    fn whole_length(&mut self) -> io::Result<Option<usize>> {
        let Some(header) = self.ahead(FRAME_HEADER_BYTES)?.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let [m0, m1, m2, m3, l0, l1, l2, l3, s0, s1, s2, s3] = *header;
        let (length, sum) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([s0, s1, s2, s3]));
        let body_bytes = length as usize;
        if [m0, m1, m2, m3] != *FRAME_MAGIC || body_bytes > MAX_BODY_BYTES {
            return Ok(None);
        }
        let bytes = self.ahead(FRAME_HEADER_BYTES + body_bytes)?;
        let body = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + body_bytes);
        Ok(body.filter(|body| checksum(length, body) == sum).map(|_| body_bytes))
    }

    /// The bytes from here on: at least so many, unless the file ends before.
    fn ahead(&mut self, wanted: usize) -> io::Result<&[u8]> {
        if self.window.len() - self.start < wanted {
            self.window.drain(..self.start);
            self.start = 0;
            let mut have = self.window.len();
            self.window.resize(wanted.max(WINDOW_BYTES), 0);
            while have < self.window.len() {
                match self.file.read_at(&mut self.window[have..], self.at + have as u64) {
                    Ok(0) => break,
                    Ok(got) => have += got,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => match self.around_bad_page(&error, have)? {
                        0 => break,
                        got => have += got,
                    },
                }
            }
            self.window.truncate(have);
        }
        Ok(&self.window[self.start..])
    }

    /// After a read that failed: reads to the end of the page only, and takes that for zeros when it fails as well.
    fn around_bad_page(&mut self, error: &io::Error, have: usize) -> io::Result<usize> {
        if !is_bad_flash(error) {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        let at = self.at + have as u64;
        let in_file = self.file.metadata()?.len().saturating_sub(at);
        let in_page = (PAGE_BYTES - at % PAGE_BYTES).min(in_file).min((self.window.len() - have) as u64);
        // It fits: the window's length is more.
        let in_page = in_page as usize;
        let page = &mut self.window[have..have + in_page];
        match self.file.read_at(page, at) {
            Ok(got) if got > 0 => Ok(got),
            _ => {
                page.fill(0);
                self.unreadable_bytes += in_page as u64;
                Ok(in_page)
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        self.at += bytes as u64;
    }
}

/// Whether the flash cannot give back what was written (`read(2)`, and what file systems with checksums say).
pub fn is_bad_flash(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EIO | Errno::EBADMSG | Errno::EUCLEAN))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use collector_common::event::kind::Lane;

    use super::super::segment::{HEADER_BYTES, create, frame, path};
    use super::*;

    fn frames(directory: &Path, content: &[u8]) -> Frames {
        let (file, _) = create(&path(directory, 1), Lane::High, 1, content).unwrap();
        Frames::new(file, HEADER_BYTES)
    }

    #[test]
    fn a_flipped_bit_costs_one_frame_wherever_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let bodies = [&b"first"[..], b"second", b"third"];
        let whole: Vec<u8> = bodies.iter().flat_map(|body| frame(body).unwrap()).collect();
        let second = FRAME_HEADER_BYTES + 5;
        for at in second..second + FRAME_HEADER_BYTES + 6 {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let mut frames = frames(directory.path(), &bytes);
            assert_eq!(frames.next().unwrap(), Frame::Whole(b"first".to_vec()));
            assert_eq!(frames.next().unwrap(), Frame::Damaged(FRAME_HEADER_BYTES as u64 + 6), "byte {at}");
            assert_eq!(frames.next().unwrap(), Frame::Whole(b"third".to_vec()));
            assert_eq!(frames.next().unwrap(), Frame::End(0));
        }
    }

    #[test]
    fn frames_larger_than_the_window_and_across_its_end_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let bodies: Vec<_> = [10, WINDOW_BYTES - 30, 3 * WINDOW_BYTES, 7, MAX_BODY_BYTES]
            .into_iter()
            .map(|length| vec![b'x'; length])
            .collect();
        let whole: Vec<u8> = bodies.iter().flat_map(|body| frame(body).unwrap()).collect();
        let mut frames = frames(directory.path(), &whole);
        for body in bodies {
            assert_eq!(frames.next().unwrap(), Frame::Whole(body));
        }
        assert_eq!(frames.next().unwrap(), Frame::End(0));
    }

    #[test]
    fn random_bytes_are_never_a_frame() {
        let mut random = fastrand::Rng::with_seed(7);
        let directory = tempfile::tempdir().unwrap();
        for length in [200, WINDOW_BYTES + 3] {
            let noise: Vec<u8> = (0..length).map(|_| *random.choice(b"EWfr\0\x01\xff").unwrap()).collect();
            let mut frames = frames(directory.path(), &noise);
            assert_eq!(frames.next().unwrap(), Frame::End(length as u64));
            assert_eq!(frames.next().unwrap(), Frame::End(length as u64));
            assert_eq!(frames.offset(), HEADER_BYTES);
        }
    }
}
