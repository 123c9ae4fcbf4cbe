//! `import`: events from files, one JSON object a line, into the store, and the alerts they lead to.
//!
//! ```text
//! line ──┬ message ("Events")     ──▶ schema ──────────┬──▶ store, alerts
//!        ├ row ("EventDetails")   ──▶ columns ──▶ place ─┘
//!        └ EventDetails itself    ──▶ row ──▶ place ─────┘
//! ```
//!
//! A message is checked as one that came over MQTT, a row for its columns (`import::line` says why). A line that is
//! refused is named with its reason, and the others are stored. A second import changes nothing.

mod line;
mod read;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use jiff::Timestamp;
use uuid::Uuid;

use crate::alerts::content_id;
use crate::ingest;
use crate::store::alert::Alert;
use crate::store::read::Row;
use crate::store::{Entry, Outcome, Store, StoreError};
use line::Line;

/// Which table lines belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// Events of devices.
    #[default]
    #[value(name = "SecurityIoTRawEvent")]
    SecurityIoTRawEvent,
    /// What was made of them.
    #[value(name = "SecurityAlert")]
    SecurityAlert,
}

/// What the lines do not say.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What the lines are.
    pub table: Table,
    /// Name of the hub.
    pub hub: Option<String>,
    /// Device id.
    pub device: Option<String>,
    /// Kind of `EventDetails` objects.
    pub name: Option<String>,
}

/// Imports files and says on `out` what became of each, and on `complaints` why lines were refused.
///
/// # Errors
///
/// A sentence, when a file cannot be read, the store cannot be written, or a line was refused.
pub fn run(
    mut store: Store,
    settings: Settings,
    files: &[PathBuf],
    out: &mut impl Write,
    complaints: &mut impl Write,
) -> Result<(), String> {
    let mut refused = 0;
    let mut failed = Vec::new();
    for path in files {
        let mut import = Import::new(&mut store, &settings, path);
        match import.file() {
            Ok(()) => {}
            Err(error) => failed.push(error),
        }
        let Counts { stored, known, alerts, refusals } = import.counts;
        for (number, reason) in &refusals {
            writeln!(complaints, "{}:{number}: {reason}", path.display())
                .map_err(|error| format!("stderr: {error}"))?;
        }
        refused += refusals.len();
        let summary = format!("{stored} stored, {known} known, {alerts} alerts, {} refused", refusals.len());
        writeln!(out, "{}: {summary}", path.display()).map_err(|error| format!("stdout: {error}"))?;
    }
    match (failed.is_empty(), refused) {
        (true, 0) => Ok(()),
        (true, refused) => Err(format!("{refused} lines were refused; the others are stored")),
        (false, _) => Err(failed.join("; ")),
    }
}

#[derive(Default)]
struct Counts {
    stored: usize,
    known: usize,
    alerts: usize,
    refusals: Vec<(u64, String)>,
}

struct Import<'a> {
    store: &'a mut Store,
    settings: &'a Settings,
    path: &'a Path,
    counts: Counts,
    batch: Batch,
    /// How many items of an event there were before, by device and event.
    places: HashMap<Uuid, i64>,
}

/// What is written together, with the numbers of its lines.
#[derive(Default)]
struct Batch {
    messages: Vec<(u64, Entry)>,
    rows: Vec<(u64, Row)>,
    alerts: Vec<Alert>,
    bytes: usize,
}

/// One sync for so many lines.
const BATCH_LINES: usize = 2000;

/// And not more memory than this.
const BATCH_BYTES: usize = 8 << 20;

impl<'a> Import<'a> {
    fn new(store: &'a mut Store, settings: &'a Settings, path: &'a Path) -> Import<'a> {
        let counts = Counts::default();
        Import { store, settings, path, counts, batch: Batch::default(), places: HashMap::new() }
    }

    fn file(&mut self) -> Result<(), String> {
        let input: Box<dyn BufRead> = if self.path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            let file =
                File::open(self.path).map_err(|error| format!("cannot open {}: {error}", self.path.display()))?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        let cannot_read = |error| format!("cannot read {}: {error}", self.path.display());
        let mut lines = read::Lines::new(input);
        let mut failure = None;
        loop {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    failure = Some(cannot_read(error));
                    break;
                }
            };
            match line.bytes {
                Ok(bytes) if bytes.trim_ascii().is_empty() => {}
                Ok(bytes) => self.take(line.number, bytes)?,
                Err(reason) => self.counts.refusals.push((line.number, reason)),
            }
        }
        self.flush()?;
        self.counts.alerts += self.store.settle_all_snapshots(Timestamp::now()).map_err(|error| error.to_string())?;
        self.counts.refusals.sort_by_key(|(number, _)| *number);
        failure.map_or(Ok(()), Err)
    }

    fn take(&mut self, number: u64, bytes: &[u8]) -> Result<(), String> {
        self.batch.bytes += bytes.len();
        if self.settings.table == Table::SecurityAlert {
            match line::alert(bytes, self.settings).and_then(|alert| self.store.check_alert(alert)) {
                Ok(alert) => self.batch.alerts.push(alert),
                Err(reason) => self.counts.refusals.push((number, reason)),
            }
        } else {
            match line::read(bytes, self.settings) {
                Ok(line) => self.add(number, bytes, line),
                Err(reason) => self.counts.refusals.push((number, reason)),
            }
        }
        let lines = self.batch.messages.len() + self.batch.rows.len() + self.batch.alerts.len();
        if lines >= BATCH_LINES || self.batch.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn add(&mut self, number: u64, bytes: &[u8], line: Line) {
        match line {
            Line::Message { device, message } => {
                let topic = format!("file {}", self.path.display());
                let entry = Entry { topic, payload: bytes.to_vec(), speaker: None, verdict: Ok((device, message)) };
                self.batch.messages.push((number, entry));
            }
            Line::Row { mut row, has_index } => {
                self.place(&mut row, has_index);
                self.batch.rows.push((number, *row));
            }
        }
    }

    /// A row that does not say which item of its event it is comes behind the ones before it. One without an event is one
    /// of its own, made of its content; of two that are alike the second is a second one.
    fn place(&mut self, row: &mut Row, has_index: bool) {
        if row.iot_raw_event_id.is_empty() {
            let id = content_id(&[&row.device_id, &row.raw_event_name, &row.time_stamp, &row.event_details]);
            row.iot_raw_event_id = id.to_string();
        }
        if !has_index {
            let next = self.places.entry(content_id(&[&row.device_id, &row.iot_raw_event_id])).or_default();
            row.payload_index = *next;
            *next += 1;
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        let Batch { messages, rows, alerts, .. } = std::mem::take(&mut self.batch);
        let now = Timestamp::now();
        let write = || {
            let resource_id = self.settings.resource_id().unwrap_or_default();
            let (numbers, entries): (Vec<u64>, Vec<Entry>) = messages.into_iter().unzip();
            let outcomes = self.store.write(&resource_id, now, &entries)?;
            self.counts.add(&numbers, &outcomes);
            let (numbers, rows): (Vec<u64>, Vec<Row>) = rows.into_iter().unzip();
            let outcomes = self.store.write_rows(now, &rows)?;
            self.counts.add(&numbers, &outcomes);
            for new in self.store.write_alerts(now, &alerts)? {
                if new {
                    self.counts.stored += 1;
                } else {
                    self.counts.known += 1;
                }
            }
            Ok(())
        };
        write().map_err(|error: StoreError| error.to_string())
    }
}

impl Counts {
    fn add(&mut self, numbers: &[u64], outcomes: &[Outcome]) {
        for (number, outcome) in numbers.iter().zip(outcomes) {
            self.stored += outcome.stored;
            self.known += outcome.known;
            self.alerts += outcome.alerts;
            if outcome.conflicts > 0 {
                let reason = format!("{} items: other content is stored under this Id already", outcome.conflicts);
                self.refusals.push((*number, reason));
            }
        }
    }
}

impl Settings {
    fn resource_id(&self) -> Option<String> {
        self.hub.as_deref().map(ingest::resource_id)
    }
}

#[cfg(test)]
mod tests;
