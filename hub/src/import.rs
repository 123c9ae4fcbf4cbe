//! `import`: events from files, one JSON object a line, into the store, and the alerts they lead to.
//!
//! ```text
//! line ──┬ message ("Events")          ──┐
//!        ├ row ("EventDetails")          ├──▶ event of the schema ──▶ checked ──▶ store
//!        └ EventDetails object itself  ──┘
//! ```
//!
//! Whatever form a line has, it becomes an event of the published schema and is checked as one that came over MQTT. A
//! line that is refused is named with its reason, and the others are stored. A second import changes nothing.

mod line;
mod read;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use jiff::Timestamp;

use crate::ingest;
use crate::schema::{Event, Message};
use crate::store::alert::Alert;
use crate::store::{Entry, Outcome, Store, StoreError};
use line::{Line, Said};

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
}

/// What is written together: entries of one hub, each with the number of its first line, or alerts.
#[derive(Default)]
struct Batch {
    resource_id: String,
    entries: Vec<(u64, Entry)>,
    alerts: Vec<Alert>,
    bytes: usize,
}

/// One sync for so many lines.
const BATCH_LINES: usize = 2000;

/// And not more memory than this.
const BATCH_BYTES: usize = 8 << 20;

impl<'a> Import<'a> {
    fn new(store: &'a mut Store, settings: &'a Settings, path: &'a Path) -> Import<'a> {
        Import { store, settings, path, counts: Counts::default(), batch: Batch::default() }
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
                Ok(line) => self.add(number, bytes, line)?,
                Err(reason) => self.counts.refusals.push((number, reason)),
            }
        }
        let lines = self.batch.entries.len() + self.batch.alerts.len();
        if lines >= BATCH_LINES || self.batch.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// The rows of an event stand together and carry no number of their own, so each goes on where the last one ended.
    fn add(&mut self, number: u64, bytes: &[u8], line: Line) -> Result<(), String> {
        if self.batch.resource_id != line.resource_id {
            self.flush()?;
            self.batch.resource_id.clone_from(&line.resource_id);
        }
        let Line { device, said, .. } = line;
        let message = match said {
            Said::Message(message) => message,
            Said::Item { agent_version, event, index } => {
                if let Some(last) = self.last_event(&device, &event, index) {
                    last.items.extend(event.items);
                    return Ok(());
                }
                let event = Event { first_index: index.unwrap_or(0), ..event };
                Message { agent_version, events: vec![event] }
            }
        };
        let topic = format!("file {}", self.path.display());
        let entry = Entry { topic, payload: bytes.to_vec(), speaker: None, verdict: Ok((device, message)) };
        self.batch.entries.push((number, entry));
        Ok(())
    }

    /// The event before, when this item is its next one.
    fn last_event(&mut self, device: &str, event: &Event, index: Option<usize>) -> Option<&mut Event> {
        let (_, Entry { verdict: Ok((last_device, message)), .. }) = self.batch.entries.last_mut()? else {
            return None;
        };
        let last = message.events.last_mut()?;
        let next = last.first_index + last.items.len();
        let same = last_device == device && last.id == event.id && last.name == event.name && last.at == event.at;
        let same = same && last.timestamp_local == event.timestamp_local;
        (same && !last.items.is_empty() && !event.items.is_empty() && index.unwrap_or(next) == next).then_some(last)
    }

    fn flush(&mut self) -> Result<(), String> {
        let batch = std::mem::take(&mut self.batch);
        self.batch.resource_id.clone_from(&batch.resource_id);
        let entries = self.flush_entries(&batch.resource_id, batch.entries);
        entries.and_then(|()| self.flush_alerts(batch.alerts)).map_err(|error| error.to_string())
    }

    fn flush_entries(&mut self, resource_id: &str, entries: Vec<(u64, Entry)>) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let (numbers, entries): (Vec<u64>, Vec<Entry>) = entries.into_iter().unzip();
        let outcomes = self.store.write(resource_id, Timestamp::now(), &entries)?;
        for (number, Outcome { stored, known, conflicts, alerts, .. }) in numbers.into_iter().zip(outcomes) {
            self.counts.stored += stored;
            self.counts.known += known;
            self.counts.alerts += alerts;
            if conflicts > 0 {
                let reason = format!("{conflicts} items: other content is stored under this Id already");
                self.counts.refusals.push((number, reason));
            }
        }
        Ok(())
    }

    fn flush_alerts(&mut self, alerts: Vec<Alert>) -> Result<(), StoreError> {
        for new in self.store.write_alerts(Timestamp::now(), &alerts)? {
            if new {
                self.counts.stored += 1;
            } else {
                self.counts.known += 1;
            }
        }
        Ok(())
    }
}

impl Settings {
    fn resource_id(&self) -> Option<String> {
        self.hub.as_deref().map(ingest::resource_id)
    }
}

#[cfg(test)]
mod tests;
