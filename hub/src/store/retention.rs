//! What leaves the store: the oldest rows, by age and by size.
//!
//! Age and order are those in which the hub stored them (`TimeGenerated`, `rowid`), not the devices' clocks: a device
//! whose clock is wrong must neither lose its rows at once nor keep them for ever, and old evidence that is imported
//! stays as long as any other. Alerts leave with the rows of their time.
//!
//! The size is what is in use of the file, and the log beside it: freed pages are used again, so the file does not grow
//! beyond what it held at the most. Rows leave in batches of their own transaction, so that no delivery waits for more
//! than one.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use super::{Store, StoreError, moment};

/// How much stays; `None` is without limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Days since the hub stored a row.
    pub days: Option<u32>,
    /// Bytes of the store.
    pub bytes: Option<u64>,
}

/// What one batch deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Rows of `SecurityIoTRawEvent`.
    pub rows: usize,
    /// Rows of `SecurityAlert`.
    pub alerts: usize,
    /// Devices not heard of for as long as rows stay.
    pub devices: usize,
    /// Whether there is more that has to leave.
    pub more: bool,
}

/// Rows that leave at a time: some tens of milliseconds on a small machine.
const BATCH_ROWS: i64 = 1000;

/// Refused messages that stay when the store is too large: whoever sends junk must not push rows out by it.
const REFUSED_IN_NEED: i64 = 100;

/// Pages given back to the file system at a time.
const BATCH_PAGES: i64 = 256;

impl Store {
    /// Sets how much stays. Without it everything does.
    pub fn keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// Deletes one batch of what has stayed long enough.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write.
    pub fn delete_old(&mut self, now: Timestamp) -> Result<Deleted, StoreError> {
        let keep = self.keep;
        let too_large = match keep.bytes {
            Some(bytes) => self.bytes_in_use(bytes)? > bytes,
            None => false,
        };
        let age = keep.days.map(|days| SignedDuration::from_hours(24 * i64::from(days)));
        let cutoff = age.map(|age| moment(now.saturating_sub(age).unwrap_or(Timestamp::MIN)));
        let mut deleted = Deleted::default();
        if too_large {
            deleted = self.delete_batch(None)?;
        } else if let Some(cutoff) = cutoff.filter(|cutoff| self.holds_older(cutoff)) {
            deleted = self.delete_batch(Some(&cutoff))?;
        }
        if deleted.rows > 0 || deleted.alerts > 0 {
            self.give_back()?;
        }
        Ok(deleted)
    }

    /// Whether the oldest row or alert is older. This is asked every second.
    fn holds_older(&self, than: &str) -> bool {
        let sql = "SELECT ?1 > (SELECT TimeGenerated FROM SecurityIoTRawEvent ORDER BY rowid LIMIT 1)
            OR ?1 > (SELECT MIN(Stored) FROM SecurityAlert)";
        let found = self.db.prepare_cached(sql).and_then(|mut find| find.query_row([than], |row| row.get(0)));
        matches!(found, Ok(Some(true)))
    }

    /// The oldest rows, only those stored before a moment or any.
    fn delete_batch(&mut self, before: Option<&str>) -> Result<Deleted, StoreError> {
        self.change("delete from", |to| {
            let no_row_is_younger = "9";
            let limit = before.unwrap_or(no_row_is_younger);
            let rows = to
                .prepare_cached(
                    "DELETE FROM SecurityIoTRawEvent WHERE TimeGenerated < ? AND rowid IN
                        (SELECT rowid FROM SecurityIoTRawEvent ORDER BY rowid LIMIT ?)",
                )?
                .execute(params![limit, BATCH_ROWS])?;
            let oldest_row = "SELECT TimeGenerated FROM SecurityIoTRawEvent ORDER BY rowid LIMIT 1";
            let alerts_sql = format!(
                "DELETE FROM SecurityAlert WHERE rowid IN (SELECT rowid FROM SecurityAlert
                    WHERE Stored < COALESCE(?1, ({oldest_row}), '') ORDER BY Stored LIMIT ?2)"
            );
            let alerts = to.prepare_cached(&alerts_sql)?.execute(params![before, BATCH_ROWS])?;
            if before.is_none() {
                let sql = "DELETE FROM Refused WHERE rowid <= (SELECT MAX(rowid) FROM Refused) - ?";
                to.prepare_cached(sql)?.execute([REFUSED_IN_NEED])?;
            }
            let devices = to
                .prepare_cached("DELETE FROM Device WHERE LastSeen < ? AND SilenceTold = 1")?
                .execute([before.unwrap_or_default()])?;
            let full = usize::try_from(BATCH_ROWS).unwrap_or(usize::MAX);
            let more = rows == full || alerts == full;
            Ok(Deleted { rows, alerts, devices, more })
        })
    }

    /// Bytes of the pages that hold something, and of the log. A log that a slow reader keeps long counts up to a quarter
    /// of the limit: deleting rows does not make it shorter.
    fn bytes_in_use(&self, limit: u64) -> Result<u64, StoreError> {
        let pages = self.number("page_count")?.saturating_sub(self.number("freelist_count")?);
        let log = std::fs::metadata(self.path.with_extension("db-wal")).map_or(0, |log| log.len());
        Ok(pages.saturating_mul(self.number("page_size")?).saturating_add(log.min(limit / 4)))
    }

    /// Makes the file smaller where it is larger than it may be, because the limit was once higher.
    fn give_back(&self) -> Result<(), StoreError> {
        let file = self.number("page_count")?.saturating_mul(self.number("page_size")?);
        if self.keep.bytes.is_none_or(|bytes| file <= bytes) {
            return Ok(());
        }
        // It gives back one page a step.
        let shrink = || {
            let mut statement = self.db.prepare_cached(&format!("PRAGMA incremental_vacuum({BATCH_PAGES})"))?;
            let mut steps = statement.query([])?;
            while steps.next()?.is_some() {}
            Ok(())
        };
        shrink().map_err(|error: rusqlite::Error| self.failed("shrink", error))
    }

    fn number(&self, pragma: &str) -> Result<u64, StoreError> {
        let number = self.db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        number.map(i64::unsigned_abs).map_err(|error| self.failed("read", error))
    }
}

#[cfg(test)]
mod tests;
