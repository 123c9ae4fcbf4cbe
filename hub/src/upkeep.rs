//! What the writer does besides writing, because time went by: lists of users that have settled are compared, silent
//! devices named, old rows deleted.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::store::retention::Deleted;
use crate::store::{Store, StoreError};

/// When what was done last.
#[derive(Debug)]
pub struct Upkeep {
    started: Instant,
    silence_looked: Option<Instant>,
    /// Whether rows wait to be deleted; then each turn deletes a batch.
    behind: bool,
    deleted: Deleted,
    deleted_told: Option<Instant>,
}

/// After a start every device gets this long to say that it is there: the hub may have been off for days itself.
const SILENCE_GRACE: Duration = Duration::from_secs(3600);

/// How often silence is looked for; it reads one row per device.
const SILENCE_LOOK: Duration = Duration::from_secs(60);

/// How often the log says what was deleted.
const DELETED_TELL: Duration = Duration::from_secs(24 * 3600);

impl Upkeep {
    /// Begins now.
    pub fn new() -> Upkeep {
        Upkeep {
            started: Instant::now(),
            silence_looked: None,
            behind: false,
            deleted: Deleted::default(),
            deleted_told: None,
        }
    }

    /// One turn, after a batch was written or a second went by. What fails is logged and tried again.
    pub fn look(&mut self, store: &mut Store, ticked: bool) {
        if let Err(error) = self.try_look(store, ticked) {
            tracing::error!("{error}; it is tried again");
        }
    }

    fn try_look(&mut self, store: &mut Store, ticked: bool) -> Result<(), StoreError> {
        if ticked || self.behind {
            self.delete(store)?;
        }
        if ticked {
            tell("accounts changed", store.settle_snapshots(Timestamp::now())?);
            let due = self.silence_looked.is_none_or(|last| last.elapsed() >= SILENCE_LOOK);
            if due && self.started.elapsed() >= SILENCE_GRACE {
                self.silence_looked = Some(Instant::now());
                tell("devices are silent", store.tell_silent(Timestamp::now())?);
            }
        }
        Ok(())
    }

    fn delete(&mut self, store: &mut Store) -> Result<(), StoreError> {
        let batch = store.delete_old(Timestamp::now())?;
        self.behind = batch.more;
        self.deleted.rows += batch.rows;
        self.deleted.alerts += batch.alerts;
        self.deleted.devices += batch.devices;
        let due = self.deleted_told.is_none_or(|last| last.elapsed() >= DELETED_TELL);
        if due && !self.behind && self.deleted != Deleted::default() {
            let Deleted { rows, alerts, devices, .. } = std::mem::take(&mut self.deleted);
            tracing::info!(rows, alerts, devices, "old rows deleted; see --keep-days and --keep-bytes");
            self.deleted_told = Some(Instant::now());
        }
        Ok(())
    }
}

fn tell(what: &str, alerts: usize) {
    if alerts > 0 {
        tracing::warn!(alerts, "alerts raised: {what}");
    }
}
