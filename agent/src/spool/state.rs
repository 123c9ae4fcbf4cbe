//! What was acknowledged, and by which clock offset events were rendered: one small JSON file beside the lanes.
//!
//! It is replaced as a whole (temporary file, fsync, rename). Losing it costs a second delivery, never an event.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use collector_common::event::kind::Lane;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::lane::sync_directory;
use super::segment::MAX_SEQ;

/// No number above this is believed: it leaves room for events behind it. This file has no checksum.
const MAX_ACKED: u64 = MAX_SEQ / 2;

/// Clock offsets are kept for so many boots. A board without a battery adds one at every start, for as long as it lives.
pub const BOOTS_KEPT: usize = 64;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Everything up to this number was acknowledged, High and Low.
    pub acked: [u64; 2],
    /// By which offset the events from a number on were rendered, oldest first.
    pub marks: Vec<Mark>,
    /// Clock offsets of boots whose clock was wrong at first.
    pub boots: Vec<BootOffset>,
}

/// By what events of a boot are rendered, from this one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// High or Low.
    pub lane: Lane,
    /// The first event it holds for.
    pub from_seq: u64,
    /// The boot.
    pub boot: Uuid,
    /// The wall time is the boot time plus this: microseconds. Without it, it is what the clock said when each was
    /// recorded, because the clock was wrong when they were rendered.
    pub offset_us: Option<i64>,
}

/// What a boot's clock turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootOffset {
    /// The boot.
    pub boot: Uuid,
    /// Microseconds between its boot time and the wall time.
    pub offset_us: i64,
}

impl State {
    /// The mark an event was or would be rendered by.
    pub fn mark(&self, lane: Lane, boot: Uuid, seq: u64) -> Option<Mark> {
        let fits = |mark: &&Mark| mark.lane == lane && mark.boot == boot && mark.from_seq <= seq;
        self.marks.iter().rev().find(fits).copied()
    }

    /// The offset of a boot whose clock was set only after events had been recorded.
    pub fn boot_offset_us(&self, boot: Uuid) -> Option<i64> {
        self.boots.iter().find(|known| known.boot == boot).map(|known| known.offset_us)
    }

    /// Adds the offset of a boot in place of what was known of it, and forgets the oldest beyond [`BOOTS_KEPT`].
    pub fn add_boot(&mut self, offset: BootOffset) {
        self.boots.retain(|known| known.boot != offset.boot);
        self.boots.push(offset);
        self.boots.drain(..self.boots.len().saturating_sub(BOOTS_KEPT));
    }

    /// Reads the file. None there yet is a fresh state; a damaged one is an error to report, and a fresh state serves.
    pub fn load(path: &Path) -> Result<State, String> {
        match fs::read(path) {
            Ok(bytes) => match serde_json::from_slice::<State>(&bytes) {
                Ok(state) if state.acked.iter().any(|acked| *acked > MAX_ACKED) => {
                    Err(format!("{}: no event can have a number in {:?}", path.display(), state.acked))
                }
                read => read.map_err(|error| format!("{}: {error}", path.display())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Replaces the file.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        replace_file(path, &serde_json::to_vec(self)?)
    }
}

/// Replaces a file so that a crash leaves the old content or the new one, readable by the owner only.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut file: File = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}
