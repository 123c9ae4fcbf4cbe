//! What one frame of the spool holds.
//!
//! A body is a [`Record`] in the postcard wire format (<https://postcard.jamesmunns.com/wire-format>). Variants and
//! fields are only ever added at the end: a spool outlives the version that wrote it.

use collector_common::clock::Reading;
use collector_common::collector::SourceCursor;
use collector_common::event::kind::Kind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::segment::MAX_SEQ;
use super::usage::Usage;

/// One thing that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// An event, and with it how far its source was read.
    Event(StoredEvent),
    /// A source was read further without an event.
    Cursor(StoredCursor),
    /// What is known when a segment is begun.
    Checkpoint(Checkpoint),
    /// One of the first events of its kind since the agent started: it is given up last.
    FirstRow(StoredEvent),
    /// In place of events that had to make room, and were counted then.
    Dropped {
        /// The number of the first one.
        from: u64,
        /// The number of the last one.
        through: u64,
    },
}

/// What is known when a segment is begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// All cursors, so that older segments may be deleted.
    pub cursors: Vec<StoredCursor>,
    /// What lies in the segment before, so that it need not be read to know.
    pub before: Option<Sealed>,
}

/// A segment that is not appended to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The number in its name.
    pub first_seq: u64,
    /// Its length. When the file has another one, it was changed since, and this is out of date.
    pub bytes: u64,
    /// What its events take.
    pub usage: Usage,
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

impl From<SourceCursor> for StoredCursor {
    /// Its version is given when it is appended.
    fn from(cursor: SourceCursor) -> StoredCursor {
        StoredCursor { source: cursor.source, place: cursor.place, version: 0 }
    }
}

impl StoredEvent {
    /// The kind; `None` for one that a later version wrote and this one does not know.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.kind)
    }
}

impl Record {
    /// Adds the body of a frame to some bytes. It can only fail for want of memory or for a bug in a `Serialize`,
    /// neither of which the caller can mend, so the error is a text.
    pub fn encode_onto(&self, bytes: &mut Vec<u8>) -> Result<(), String> {
        struct Onto<'a>(&'a mut Vec<u8>);
        impl Extend<u8> for Onto<'_> {
            fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
                self.0.extend(bytes);
            }
        }
        postcard::to_extend(self, Onto(bytes)).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Reads a body whose checksum was right. An error means a format this version does not know.
    pub fn decode(body: &[u8]) -> Result<Record, String> {
        match postcard::from_bytes(body).map_err(|error| error.to_string())? {
            Record::Event(event) | Record::FirstRow(event) if event.seq > MAX_SEQ => {
                Err(format!("no event can have the number {}", event.seq))
            }
            Record::Dropped { from, through } if from == 0 || from > through || through > MAX_SEQ => {
                Err(format!("no events can have the numbers {from} to {through}"))
            }
            record => Ok(record),
        }
    }

    /// The cursors in it.
    pub fn cursors(&self) -> &[StoredCursor] {
        match self {
            Record::Event(event) | Record::FirstRow(event) => event.cursor.as_slice(),
            Record::Cursor(cursor) => std::slice::from_ref(cursor),
            Record::Checkpoint(checkpoint) => &checkpoint.cursors,
            Record::Dropped { .. } => &[],
        }
    }

    /// Whether it says that a source was read further.
    pub fn moves_cursor(&self) -> bool {
        !self.cursors().is_empty()
    }

    /// Makes an event one of the first of its kind, or one of the others.
    pub fn set_first(&mut self, is_first: bool) {
        *self = match std::mem::replace(self, Record::Dropped { from: 0, through: 0 }) {
            Record::Event(event) | Record::FirstRow(event) if is_first => Record::FirstRow(event),
            Record::Event(event) | Record::FirstRow(event) => Record::Event(event),
            other => other,
        };
    }

    /// The event in it, and whether it is one of the first of its kind.
    pub fn event(&self) -> Option<(&StoredEvent, bool)> {
        match self {
            Record::Event(event) => Some((event, false)),
            Record::FirstRow(event) => Some((event, true)),
            _ => None,
        }
    }
}
