//! What the spool takes, and what it says came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use collector_common::event::kind::{Kind, Lane};

use super::record::Record;

/// Why the spool cannot be used.
#[derive(Debug)]
pub struct SpoolError {
    pub(super) what: String,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.what, self.path.display(), self.source)
    }
}

impl std::error::Error for SpoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What was found when the spool was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// How far every source was read.
    pub cursors: BTreeMap<String, String>,
    /// What was damaged, one sentence each.
    pub damage: Vec<String>,
}

/// What is to be appended.
#[derive(Debug)]
pub struct Entry {
    /// Where it goes.
    pub lane: Lane,
    /// An event, or a cursor without one. The number of the one and the version of the other are given here.
    pub record: Record,
}

/// What became of a list of entries.
#[derive(Debug, Default)]
pub struct Appended {
    /// So many of the first ones are in the files.
    pub stored: usize,
    /// What had to make room.
    pub dropped: Dropped,
    /// Why the one behind them is not.
    pub refused: Option<io::Error>,
}

/// Events that had to make room.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Per lane and kind.
    pub events: Vec<(Lane, Kind, u64)>,
    /// Found damaged on that occasion, per lane: nobody can tell their kind.
    pub damaged: [u64; 2],
}

/// What `status` says about the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// On disk, with the room that is reserved for what comes next: bytes.
    pub bytes: u64,
    /// Acknowledged up to this number, High and Low.
    pub acked: [u64; 2],
    /// Recorded up to this number, High and Low.
    pub recorded: [u64; 2],
    /// `fdatasync` and `fsync` of segments since the start.
    pub syncs: u64,
    /// Bytes written to segments since the start.
    pub written_bytes: u64,
}
