//! The event store: one SQLite file with the table the investigation guide reads.
//!
//! `SecurityIoTRawEvent` has the columns of Azure Monitor's table of that name, one row per payload item, and
//! `PayloadIndex`. (`DeviceId`, `IoTRawEventId`, `PayloadIndex`) is unique, so a second delivery counts once; the device
//! belongs to it because the id is the device's own word, and no device may make another's events be taken for known.
//!
//! What [`Store::write`] returned for survives `kill -9` and a power cut: WAL with `synchronous=FULL` syncs the log at
//! every commit (sqlite.org/pragma.html#pragma_synchronous).

pub mod alert;
mod derive;
mod kql;
mod migrations;
pub mod read;
pub mod retention;
mod settle;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::schema::Message;
use migrations::MIGRATIONS;
use read::Row;
use retention::Keep;

/// The file inside the state directory.
pub const FILE_NAME: &str = "events.db";

/// How many refused messages are kept, the newest; with the broker's limit on a message this bounds their disk space.
pub const REFUSED_KEPT: i64 = 1000;

/// An open store.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    path: PathBuf,
    keep: Keep,
}

/// What became of one delivery and is to be kept.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The topic it came on.
    pub topic: String,
    /// The message as it came.
    pub payload: Vec<u8>,
    /// The device that is heard of by it; nobody is by a file.
    pub speaker: Option<String>,
    /// The device and what it said, or why it is refused.
    pub verdict: Result<(String, Message), String>,
}

/// What a write did with one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that are new.
    pub stored: usize,
    /// Rows that were there already, word for word.
    pub known: usize,
    /// Rows whose place is taken by other content; the message is kept among the refused ones.
    pub conflicts: usize,
    /// Whether the message is kept among the refused ones.
    pub refused: bool,
    /// Alerts that are new.
    pub alerts: usize,
}

/// What SQLite said, and to what.
#[derive(Debug)]
pub struct StoreError {
    doing: &'static str,
    path: PathBuf,
    cause: String,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.doing, self.path.display(), self.cause)
    }
}

impl std::error::Error for StoreError {}

impl Store {
    /// Opens the store in a directory for reading and writing; makes the directory, private to this user, and the store.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, the file is no store, or a newer version wrote it.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| StoreError::new("create the state directory", dir, error))?;
        Store::open_file(&dir.join(FILE_NAME))
    }

    /// Opens the store in a file for reading and writing; makes it, private to this user, where there is none.
    ///
    /// # Errors
    ///
    /// When the file cannot be made, is no store, or a newer version wrote it.
    pub fn open_file(path: &Path) -> Result<Store, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        // SQLite would make it readable to all. The log beside it gets the same rights.
        let made = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        made.map_err(|error| StoreError::new("open", path, error))?;
        let db = Connection::open(path).map_err(|error| StoreError::new("open", path, error))?;
        let mut store = Store { db, path: path.to_owned(), keep: Keep::default() };
        store.prepare().map_err(|error| store.failed("prepare", error))?;
        store.migrate()?;
        Ok(store)
    }

    /// Opens the store of a running or stopped hub for reading.
    ///
    /// # Errors
    ///
    /// When there is none, or it was written by another version.
    pub fn open_to_read(dir: &Path) -> Result<Store, StoreError> {
        Store::open_file_to_read(&dir.join(FILE_NAME))
    }

    /// As [`Store::open_to_read`], by the name of the file.
    ///
    /// # Errors
    ///
    /// When there is none, or it was written by another version.
    pub fn open_file_to_read(path: &Path) -> Result<Store, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(|error| StoreError::new("open", path, error))?;
        let store = Store { db, path: path.to_owned(), keep: Keep::default() };
        store.prepare_to_read().map_err(|error| store.failed("open", error))?;
        let version = store.version()?;
        if version == MIGRATIONS.len() { Ok(store) } else { Err(store.foreign(version)) }
    }

    /// Keeps a batch of entries: all of them or, with an error, none. When it returns `Ok` they are on disk.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write, for example because the disk is full.
    pub fn write(&mut self, resource_id: &str, now: Timestamp, entries: &[Entry]) -> Result<Vec<Outcome>, StoreError> {
        self.change("write to", |to| {
            let batch = write::Batch { to, resource_id, now: &moment(now) };
            entries.iter().map(|entry| batch.keep(entry)).collect()
        })
    }

    /// Keeps rows that are whole ones already, all of them or none. Their time and the hub they name stay; `TimeGenerated`
    /// is when this store got them, and `Type` its table.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write.
    pub fn write_rows(&mut self, now: Timestamp, rows: &[Row]) -> Result<Vec<Outcome>, StoreError> {
        self.change("write to", |to| {
            let batch = write::Batch { to, resource_id: "", now: &moment(now) };
            rows.iter().map(|row| batch.keep_row(row)).collect()
        })
    }

    /// The rows of one device lie all over the file, so a long scan is mostly pages found again: the system's cache is
    /// read in place, without a call and a copy for each.
    fn prepare_to_read(&self) -> rusqlite::Result<()> {
        self.db.busy_timeout(BUSY_TIMEOUT)?;
        self.db.pragma_update(None, "mmap_size", MAPPED_BYTES)
    }

    fn prepare(&mut self) -> rusqlite::Result<()> {
        self.db.busy_timeout(BUSY_TIMEOUT)?;
        self.db.set_prepared_statement_cache_capacity(64);
        self.db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        // Else SQLite plans a statement anew whenever a parameter of a partial index's condition is bound again.
        self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        // Only a store without tables takes it: what retention frees can then be given back to the file system.
        self.db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        self.db.pragma_update(None, "journal_mode", "WAL")?;
        self.db.pragma_update(None, "journal_size_limit", MAX_IDLE_LOG_BYTES)?;
        self.db.pragma_update(None, "synchronous", "FULL")
    }

    /// Does something to the store, as a whole or not at all. The lock is taken at once: a transaction that reads first
    /// and writes later fails when another process wrote in between.
    fn change<T>(
        &mut self,
        doing: &'static str,
        run: impl FnOnce(&Transaction) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let attempt = || {
            let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = run(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        let done: rusqlite::Result<T> = attempt();
        done.map_err(|error| StoreError::new(doing, &self.path, error))
    }

    /// Brings an older store up to date, each step in its own transaction together with its number.
    fn migrate(&mut self) -> Result<(), StoreError> {
        let version = self.version()?;
        if version > MIGRATIONS.len() {
            return Err(self.foreign(version));
        }
        for (done, sql) in MIGRATIONS.iter().enumerate().skip(version) {
            let step = format!("BEGIN IMMEDIATE; {sql} PRAGMA user_version = {}; COMMIT;", done + 1);
            self.db.execute_batch(&step).map_err(|error| self.failed("migrate", error))?;
        }
        Ok(())
    }

    fn version(&self) -> Result<usize, StoreError> {
        let version = self.db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        let version = version.map_err(|error| self.failed("read", error))?;
        usize::try_from(version).map_err(|_| self.failed("read", "its version is negative; this is no event store"))
    }

    fn foreign(&self, version: usize) -> StoreError {
        let known = MIGRATIONS.len();
        let advice =
            if version < known { "serve or import bring it up to date" } else { "use the version that wrote it" };
        self.failed("use", format!("its format is {version} and this edgewarden-hub knows {known}; {advice}"))
    }

    fn failed(&self, doing: &'static str, cause: impl ToString) -> StoreError {
        StoreError::new(doing, &self.path, cause)
    }
}

impl StoreError {
    fn new(doing: &'static str, path: &Path, cause: impl ToString) -> StoreError {
        StoreError { doing, path: path.to_owned(), cause: cause.to_string() }
    }
}

/// A moment as the store writes it: UTC, always six digits after the second, so that text order is time order.
pub fn moment(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// A batch of many devices' rows touches the ends of as many indexes; pages that do not fit are written twice.
const WRITER_CACHE_KIB: i64 = 32 * 1024;

/// How much of the file a reader maps; what lies behind is read in the common way.
const MAPPED_BYTES: i64 = if cfg!(target_pointer_width = "64") { 1 << 36 } else { 1 << 28 };

/// A log that grew beyond this while somebody read for long is cut back when it has been folded in.
const MAX_IDLE_LOG_BYTES: i64 = 64 * 1024 * 1024;

/// How long a reader or a second writer waits for the first.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
