//! Lines of a file that may hold anything.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

/// A longer line is refused. A message over MQTT has at most 256 KiB.
const MAX_LINE_BYTES: usize = 4 << 20;

/// How a gzip stream begins (RFC 1952, 2.3.1), and no line of JSON does.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Opens a file, or standard input for `-`, to be read as text: what is compressed with gzip is unpacked as it is read,
/// whatever its name, so that it never needs more room than a line.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path == Path::new("-") { unpacked(io::stdin().lock()) } else { unpacked(File::open(path)?) }
}

fn unpacked(input: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    if input.fill_buf()?.starts_with(&GZIP) {
        // Several streams one after the other are one text, as `cat` and log rotation make them.
        return Ok(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(input))));
    }
    Ok(Box::new(input))
}

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
