//! How the spool stands to its quota and its disk, for `status`. What the disk refused once is damage or a loss, and
//! told as such; here is what it refuses at present.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use collector_common::event::kind::{Kind, Lane};

use super::room::Lack;

/// How the spool stands to its quota and its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// What the file system has so little of that the spool does not grow, whatever its quota.
    pub disk_lacks: Option<Lack>,
    /// The quota is reached: older events make room for newer ones.
    pub is_full: bool,
    /// What may still be written before events have to make room: bytes.
    pub room_bytes: u64,
    /// The kind that would make room first, as far as it is known what the segments hold.
    pub next_to_go: Option<(Lane, Kind)>,
    /// What the disk refuses at present, one sentence each, and since when.
    pub troubles: Vec<(Instant, String)>,
}

/// By what was tried: since when it fails, and how it failed last. A success takes it back.
#[derive(Debug, Default)]
pub struct Troubles(BTreeMap<&'static str, (Instant, String)>);

impl Troubles {
    /// Something was tried, and this came of it.
    pub fn note(&mut self, tried: &'static str, error: Option<&io::Error>) {
        match error {
            None => drop(self.0.remove(tried)),
            Some(error) => {
                let since = self.0.get(tried).map_or_else(Instant::now, |(since, _)| *since);
                self.0.insert(tried, (since, format!("cannot {tried}: {error}")));
            }
        }
    }

    /// One sentence each, and since when.
    pub fn list(&self) -> Vec<(Instant, String)> {
        self.0.values().cloned().collect()
    }
}

/// What a sync of a lane is called.
pub fn sync_of(lane: Lane) -> &'static str {
    match lane {
        Lane::High => "make the events of the High lane safe (fdatasync)",
        Lane::Low => "make the events of the Low lane safe (fdatasync)",
    }
}
