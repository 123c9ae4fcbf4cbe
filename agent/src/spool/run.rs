//! What is appended with one write.

use std::io;

use super::record::Record;
use super::segment::{self, FRAME_HEADER_BYTES};
use super::usage::Usage;

/// Frames that go into a segment all or none.
#[derive(Debug, Default)]
pub struct Run {
    /// The bytes.
    pub frames: Vec<u8>,
    /// How many records there are.
    pub records: usize,
    /// How many of them are events.
    pub events: u64,
    /// What the events take.
    pub usage: Usage,
    /// A cursor is in one of them.
    pub moves_cursor: bool,
}

impl Run {
    /// Adds a record. One that cannot be written changes nothing.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        let begin = self.frames.len();
        encode(record, &mut self.frames)?;
        self.records += 1;
        self.moves_cursor |= record.moves_cursor();
        if let Some((event, is_first)) = record.event() {
            self.events += 1;
            if let Some(kind) = event.kind() {
                self.usage.add(kind, is_first, (self.frames.len() - begin) as u64);
            }
        }
        Ok(())
    }
}

/// Adds a record in its frame to some frames. One that cannot be written changes nothing.
pub fn encode(record: &Record, frames: &mut Vec<u8>) -> io::Result<()> {
    let begin = frames.len();
    frames.extend([0; FRAME_HEADER_BYTES]);
    let encoded = record.encode_onto(frames).map_err(io::Error::other);
    let sealed = encoded.and_then(|()| segment::seal(&mut frames[begin..]));
    if sealed.is_err() {
        frames.truncate(begin);
    }
    sealed
}
