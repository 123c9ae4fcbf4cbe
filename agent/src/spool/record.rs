//! What one frame of the spool holds.
//!
//! A body is a [`Record`] in the postcard wire format (<https://postcard.jamesmunns.com/wire-format>). Variants and
//! fields are only ever added at the end: a spool outlives the version that wrote it.

use collector_common::clock::Reading;
use collector_common::event::kind::Kind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::segment::MAX_SEQ;

/// One thing that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// An event, and with it how far its source was read.
    Event(StoredEvent),
    /// A source was read further without an event.
    Cursor(StoredCursor),
    /// All cursors known when a segment was begun, so that older segments may be deleted.
    Checkpoint(Vec<StoredCursor>),
}

/// An event as it is kept: serialised once, its two timestamps still to be rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// Position in its lane, from 1, without gaps.
    pub seq: u64,
    /// One id for life.
    pub id: Uuid,
    /// [`Kind`] by its number.
    pub kind: u8,
    /// When it happened.
    pub at: Reading,
    /// How far east of Greenwich the machine thought it was: seconds.
    pub utc_offset_seconds: i32,
    /// Payload items, compact JSON objects.
    pub items: Vec<String>,
    /// How far the source was read with this event.
    pub cursor: Option<StoredCursor>,
}

/// How far a source was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCursor {
    /// Which source.
    pub source: String,
    /// Where in it.
    pub place: String,
    /// Counts all cursors of the spool, so that the newest of two lanes is known.
    pub version: u64,
}

impl StoredEvent {
    /// The kind; `None` for one that a later version wrote and this one does not know.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.kind)
    }
}

impl Record {
    /// The body of a frame. It can only fail for want of memory or for a bug in a `Serialize`, neither of which the
    /// caller can mend, so the error is a text.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        postcard::to_allocvec(self).map_err(|error| error.to_string())
    }

    /// Reads a body whose checksum was right. An error means a format this version does not know.
    pub fn decode(body: &[u8]) -> Result<Record, String> {
        match postcard::from_bytes(body).map_err(|error| error.to_string())? {
            Record::Event(event) if event.seq > MAX_SEQ => Err(format!("no event can have the number {}", event.seq)),
            record => Ok(record),
        }
    }

    /// The cursors in it.
    pub fn cursors(&self) -> &[StoredCursor] {
        match self {
            Record::Event(event) => event.cursor.as_slice(),
            Record::Cursor(cursor) => std::slice::from_ref(cursor),
            Record::Checkpoint(cursors) => cursors,
        }
    }
}
