//! Lines of a file that may hold anything.

use std::io::{self, BufRead, Read};

/// A longer line is refused. A message over MQTT has at most 256 KiB.
const MAX_LINE_BYTES: usize = 4 << 20;

/// The lines of an input, one at a time.
pub struct Lines<R> {
    input: R,
    number: u64,
    buffer: Vec<u8>,
}

/// One line.
pub struct RawLine<'a> {
    /// From 1.
    pub number: u64,
    /// Without its end, or why it is refused.
    pub bytes: Result<&'a [u8], String>,
}

impl<R: BufRead> Lines<R> {
    /// At the beginning of the input.
    pub fn new(input: R) -> Lines<R> {
        Lines { input, number: 0, buffer: Vec::new() }
    }

    /// The next line, `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<RawLine<'_>>> {
        self.buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        let read = (&mut self.input).take(limit).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.buffer.len() > MAX_LINE_BYTES {
            if self.buffer.last() != Some(&b'\n') {
                self.input.skip_until(b'\n')?;
            }
            let reason = format!("line: longer than {MAX_LINE_BYTES} bytes");
            return Ok(Some(RawLine { number: self.number, bytes: Err(reason) }));
        }
        Ok(Some(RawLine { number: self.number, bytes: Ok(&self.buffer) }))
    }
}
