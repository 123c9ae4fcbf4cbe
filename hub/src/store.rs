//! The event store: one SQLite file with the table the investigation guide reads.
//!
//! `SecurityIoTRawEvent` has the columns of Azure Monitor's table of that name, one row per payload item, and
//! `PayloadIndex`. (`DeviceId`, `IoTRawEventId`, `PayloadIndex`) is unique, so a second delivery counts once; the device
//! belongs to it because the id is the device's own word, and no device may make another's events be taken for known.
//!
//! What [`Store::write`] returned for survives `kill -9` and a power cut: WAL with `synchronous=FULL` syncs the log at
//! every commit (sqlite.org/pragma.html#pragma_synchronous).

mod kql;
pub mod read;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use collector_common::event::wire;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use crate::schema::{Event, Message};

/// The file inside the state directory.
pub const FILE_NAME: &str = "events.db";

/// How many refused messages are kept, the newest; with the broker's limit on a message this bounds their disk space.
pub const REFUSED_KEPT: i64 = 1000;

/// An open store.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    path: PathBuf,
}

/// What became of one delivery and is to be kept.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The topic it came on.
    pub topic: String,
    /// The message as it came.
    pub payload: Vec<u8>,
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
        let path = dir.join(FILE_NAME);
        let db = Connection::open(&path).map_err(|error| StoreError::new("open", &path, error))?;
        let mut store = Store { db, path };
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

    /// Opens a store by its file, for reading.
    ///
    /// # Errors
    ///
    /// When there is none, or it was written by another version.
    pub fn open_file_to_read(path: &Path) -> Result<Store, StoreError> {
        let path = path.to_owned();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags).map_err(|error| StoreError::new("open", &path, error))?;
        let store = Store { db, path };
        store.db.busy_timeout(BUSY_TIMEOUT).map_err(|error| store.failed("open", error))?;
        let version = store.version()?;
        if version == MIGRATIONS.len() { Ok(store) } else { Err(store.foreign(version)) }
    }

    /// Keeps a batch of entries: all of them or, with an error, none. When it returns `Ok` they are on disk.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write, for example because the disk is full.
    pub fn write(&mut self, resource_id: &str, now: Timestamp, batch: &[Entry]) -> Result<Vec<Outcome>, StoreError> {
        let path = self.path.clone();
        let failed = |error| StoreError::new("write to", &path, error);
        let transaction = self.db.transaction().map_err(failed)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for entry in batch {
            outcomes.push(write_entry(&transaction, resource_id, now, entry).map_err(failed)?);
        }
        transaction.commit().map_err(failed)?;
        Ok(outcomes)
    }

    fn prepare(&mut self) -> rusqlite::Result<()> {
        self.db.busy_timeout(BUSY_TIMEOUT)?;
        self.db.pragma_update(None, "journal_mode", "WAL")?;
        self.db.pragma_update(None, "synchronous", "FULL")
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
        self.failed(
            "use",
            format!("its format is {version} and this edgewarden-hub knows {known}; use the version that wrote it"),
        )
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

/// How long a reader or a second writer waits for the first.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Step n brings format n to n + 1. A step that was released is never changed.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE SecurityIoTRawEvent (
        TimeGenerated TEXT NOT NULL,
        AgentVersion TEXT NOT NULL,
        AssociatedResourceId TEXT NOT NULL,
        AzureSubscriptionId TEXT NOT NULL,
        DeviceId TEXT NOT NULL,
        EventDetails TEXT NOT NULL,
        IoTRawEventId TEXT NOT NULL,
        IsEmpty INTEGER NOT NULL,
        RawEventCategory TEXT NOT NULL,
        RawEventName TEXT NOT NULL,
        RawEventType TEXT NOT NULL,
        TimeStamp TEXT NOT NULL,
        Type TEXT NOT NULL,
        PayloadIndex INTEGER NOT NULL,
        UNIQUE (DeviceId, IoTRawEventId, PayloadIndex)
    ) STRICT;
    CREATE INDEX DeviceNameTime ON SecurityIoTRawEvent (DeviceId, RawEventName, TimeStamp);
    CREATE TABLE Refused (
        Received TEXT NOT NULL,
        Topic TEXT NOT NULL,
        Reason TEXT NOT NULL,
        Payload BLOB NOT NULL
    ) STRICT;
"];

fn write_entry(to: &Transaction, resource_id: &str, now: Timestamp, entry: &Entry) -> rusqlite::Result<Outcome> {
    let (device, message) = match &entry.verdict {
        Ok(accepted) => accepted,
        Err(reason) => {
            refuse(to, now, entry, reason)?;
            return Ok(Outcome { refused: true, ..Outcome::default() });
        }
    };
    let mut outcome = Outcome::default();
    let mut first_conflict = None;
    for (n, event) in message.events.iter().enumerate() {
        for (index, details) in details(event).into_iter().enumerate() {
            let row = NewRow { resource_id, now, agent_version: &message.agent_version, device, event, index, details };
            match insert(to, &row)? {
                Inserted::New => outcome.stored += 1,
                Inserted::Known => outcome.known += 1,
                Inserted::Conflict => {
                    outcome.conflicts += 1;
                    first_conflict = first_conflict.or(Some((n, index)));
                }
            }
        }
    }
    if let Some((n, index)) = first_conflict {
        let reason = format!("Events[{n}].Payload[{index}]: other content is stored under this Id already");
        refuse(to, now, entry, &reason)?;
        outcome.refused = true;
    }
    Ok(outcome)
}

/// The `EventDetails` of the rows of an event; an empty event is one row.
fn details(event: &Event) -> Vec<String> {
    let id = event.id.to_string();
    let render = |item: &str| wire::details(item, &event.timestamp_local, &event.timestamp_utc, &id);
    if event.items.is_empty() { vec![render("{}")] } else { event.items.iter().map(|item| render(item)).collect() }
}

struct NewRow<'a> {
    resource_id: &'a str,
    now: Timestamp,
    agent_version: &'a str,
    device: &'a str,
    event: &'a Event,
    index: usize,
    details: String,
}

enum Inserted {
    New,
    Known,
    Conflict,
}

fn insert(to: &Transaction, row: &NewRow) -> rusqlite::Result<Inserted> {
    let id = row.event.id.to_string();
    let index = i64::try_from(row.index).unwrap_or(i64::MAX);
    let new = to
        .prepare_cached(
            "INSERT INTO SecurityIoTRawEvent VALUES (?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?, 'SecurityIoTRawEvent', ?)
             ON CONFLICT (DeviceId, IoTRawEventId, PayloadIndex) DO NOTHING",
        )?
        .execute(params![
            moment(row.now),
            row.agent_version,
            row.resource_id,
            row.device,
            row.details,
            id,
            row.event.items.is_empty(),
            row.event.category,
            row.event.name,
            row.event.event_type,
            moment(row.event.at),
            index,
        ])?;
    if new == 1 {
        return Ok(Inserted::New);
    }
    let same = to
        .prepare_cached(
            "SELECT RawEventName = ? AND EventDetails = ? FROM SecurityIoTRawEvent
             WHERE DeviceId = ? AND IoTRawEventId = ? AND PayloadIndex = ?",
        )?
        .query_row(params![row.event.name, row.details, row.device, id, index], |found| found.get::<_, bool>(0))
        .optional()?;
    Ok(if same == Some(true) { Inserted::Known } else { Inserted::Conflict })
}

fn refuse(to: &Transaction, now: Timestamp, entry: &Entry, reason: &str) -> rusqlite::Result<()> {
    to.prepare_cached("INSERT INTO Refused (Received, Topic, Reason, Payload) VALUES (?, ?, ?, ?)")?
        .execute(params![moment(now), entry.topic, reason, entry.payload])?;
    let newest = to.last_insert_rowid();
    to.prepare_cached("DELETE FROM Refused WHERE rowid <= ?")?.execute([newest.saturating_sub(REFUSED_KEPT)])?;
    Ok(())
}

#[cfg(test)]
mod tests;
