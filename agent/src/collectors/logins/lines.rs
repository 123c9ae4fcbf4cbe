//! Bytes in, lines out, with a bound on what is kept.
//!
//! A file grows by halves of lines; after a power cut it may hold a run of NULs where blocks never reached the disk;
//! and somebody may write a line without an end. NULs are left out, a line over the bound is skipped and counted.

/// A line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many bytes were fed up to and with the line's end.
    pub end: u64,
}

/// The lines in a stream of bytes.
#[derive(Debug)]
pub struct Lines {
    max_bytes: usize,
    half: Vec<u8>,
    skipping: bool,
    fed: u64,
    skipped: u64,
}

impl Lines {
    /// Lines of at most `max_bytes`.
    pub fn new(max_bytes: usize) -> Lines {
        Lines { max_bytes, half: Vec::new(), skipping: false, fed: 0, skipped: 0 }
    }

    /// The lines that end within these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.fed += part.len() as u64;
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            match (self.skipping, text.contains(&0)) {
                (true, _) => {}
                (false, false) => self.half.extend_from_slice(text),
                (false, true) => self.half.extend(text.iter().filter(|byte| **byte != 0)),
            }
            if self.half.len() > self.max_bytes {
                self.half = Vec::new();
                self.skipping = true;
                self.skipped += 1;
            }
            if ended && !std::mem::take(&mut self.skipping) {
                lines.push(Line { bytes: std::mem::take(&mut self.half), end: self.fed });
            }
        }
        lines
    }

    /// The half line at the end, when nothing will follow it.
    pub fn finish(&mut self) -> Option<Line> {
        let bytes = std::mem::take(&mut self.half);
        (!bytes.is_empty()).then_some(Line { bytes, end: self.fed })
    }

    /// Takes the number of lines that were skipped since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_joined_nuls_left_out_and_long_lines_skipped() {
        let mut lines = Lines::new(4);
        assert_eq!(lines.feed(b"ab"), []);
        assert_eq!(
            lines.feed(b"c\n\0\0de\n\n"),
            [
                Line { bytes: b"abc".to_vec(), end: 4 },
                Line { bytes: b"de".to_vec(), end: 9 },
                Line { bytes: Vec::new(), end: 10 },
            ]
        );
        assert_eq!(lines.feed(b"12345"), []);
        assert_eq!(lines.feed(b"6789\nok\nrest"), [Line { bytes: b"ok".to_vec(), end: 23 }]);
        assert_eq!((lines.take_skipped(), lines.take_skipped()), (1, 0));
        assert_eq!(lines.finish(), Some(Line { bytes: b"rest".to_vec(), end: 27 }));
        assert_eq!(lines.finish(), None);
    }
}
