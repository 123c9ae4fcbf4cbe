//! The daemon's side of the mailbox: how often something is applied and reported, and what is kept on the disk.
//!
//! ```text
//! <state directory>/desired.json    the last desired document, each key that cannot be used at its last good value
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::mailbox::{Link, Mailbox, version_in};
use super::{Bucket, Desired, report};
use crate::config::layers::MAX_DESIRED_BYTES;
use crate::spool::state::replace_file;
use crate::tick;

const FILE: &str = "desired.json";

/// Reports are made at most this often, and it is looked this often whether there is news.
const REPORT: Duration = Duration::from_secs(60);

/// Figures without news are reported this often.
const FIGURES: Duration = Duration::from_secs(3600);

/// In this time so many troubles are told.
const TROUBLES: Duration = Duration::from_secs(3600);
const MAX_TROUBLES: usize = 4;

/// Collectors need a moment to come up or to end before their state is worth a report.
const SETTLE: Duration = Duration::from_secs(1);

/// When what is done.
pub struct Keeper {
    mailbox: Mailbox,
    path: PathBuf,
    bucket: Bucket,
    /// When the next change can be applied; `None` when nothing waits for that.
    apply_at: Option<Instant>,
    report_at: Instant,
    reported: Option<Instant>,
    /// Since when how many were told.
    troubles: (Instant, usize),
}

impl Keeper {
    /// Nothing was told and nothing reported.
    pub fn new(mailbox: Mailbox, state_directory: &Path, now: Instant) -> Keeper {
        let path = state_directory.join(FILE);
        let (bucket, report_at) = (Bucket::new(now), now + REPORT);
        Keeper { mailbox, path, bucket, apply_at: None, report_at, reported: None, troubles: (now, 0) }
    }

    /// Until something is to be done.
    pub async fn wake(&self) {
        let wake = self.apply_at.map_or(self.report_at, |at| at.min(self.report_at));
        tokio::select! {
            () = self.mailbox.for_daemon() => {}
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }

    /// What went wrong at the connection, as far as it is worth an alarm: a hub that refuses, refuses every minute.
    pub fn take_troubles(&mut self, now: Instant) -> Vec<String> {
        let mut troubles = self.mailbox.take_troubles();
        let (since, told) = &mut self.troubles;
        if now.saturating_duration_since(*since) >= TROUBLES {
            (*since, *told) = (now, 0);
        }
        troubles.truncate(MAX_TROUBLES.saturating_sub(*told));
        *told += troubles.len();
        troubles
    }

    /// The hub does not have what is in force, as after a connection was made.
    fn is_news_to_hub(&self) -> bool {
        matches!(self.mailbox.known(), Some((_, None)))
    }

    /// What is to be applied now; a hub that tells too much has to wait.
    pub fn take(&mut self, now: Instant) -> Vec<Desired> {
        self.apply_at = None;
        if self.is_news_to_hub() {
            self.changed(now);
        }
        if !self.mailbox.is_waiting() {
            return Vec::new();
        }
        match self.bucket.take(now) {
            Ok(()) => self.mailbox.take(),
            Err(at) => {
                self.apply_at = Some(at);
                Vec::new()
            }
        }
    }

    /// Of what was taken something could not be applied.
    pub fn lost(&self, taken: &[Desired]) {
        self.mailbox.lost(taken);
    }

    /// There may be news soon.
    pub fn changed(&mut self, now: Instant) {
        let earliest = self.reported.map_or(now, |at| at + REPORT);
        self.report_at = self.report_at.min(earliest.max(now + SETTLE));
    }

    /// Reports, if it is time and there is news.
    pub fn report(&mut self, now: Instant, make: impl FnOnce() -> Value) {
        if now < self.report_at {
            return;
        }
        self.report_at = tick::within(REPORT, now);
        let Some((link, known)) = self.mailbox.known() else { return };
        let report = make();
        let is_old = self.reported.is_none_or(|at| now.saturating_duration_since(at) >= FIGURES);
        if known.as_ref().is_some_and(|known| !is_old && !report::is_news(known, &report)) {
            return;
        }
        let text = match (link, known) {
            (Link::Merges, Some(known)) => report::change(&known, &report),
            _ => report.clone(),
        };
        self.reported = Some(now);
        self.mailbox.report(text.to_string(), report);
    }

    /// Keeps a desired document, so that a start without a hub goes by it. After a crash the file holds the old one or
    /// the new one.
    pub fn store(&self, desired: &Value) -> Result<(), String> {
        let stored = replace_file(&self.path, desired.to_string().as_bytes());
        stored.map_err(|error| format!("cannot keep what the hub desires in {}: {error}", self.path.display()))
    }
}

/// The document that was kept, if there is one.
///
/// # Errors
/// A sentence: it cannot be read.
pub fn stored(state_directory: &Path) -> Result<Option<Desired>, String> {
    let path = state_directory.join(FILE);
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() > 2 * MAX_DESIRED_BYTES as u64 => return Err(cannot(&"it is far too large")),
        _ => {}
    }
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(Desired::Whole { version: version_in(&bytes), bytes })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot(&error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::profile::twin::TwinTopics;

    #[test]
    fn reports_go_on_news_and_once_a_minute() {
        let directory = tempfile::tempdir().unwrap();
        let (mailbox, start) = (Mailbox::default(), Instant::now());
        let mut keeper = Keeper::new(mailbox.clone(), directory.path(), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let take = |mailbox: &Mailbox| mailbox.take_report();
        keeper.report(at(60), || panic!("nobody listens"));
        mailbox.up(&TwinTopics::IotHub);
        keeper.changed(at(61));
        keeper.report(at(62), || json!({"a": 1, "b": 1}));
        assert_eq!(take(&mailbox).unwrap(), r#"{"a":1,"b":1}"#);
        keeper.changed(at(63));
        keeper.report(at(64), || panic!("too soon"));
        keeper.report(at(122), || json!({"a": 2, "b": 1}));
        assert_eq!(take(&mailbox).unwrap(), r#"{"a":2}"#);
        keeper.report(at(182), || json!({"a": 2, "b": 1}));
        assert_eq!(take(&mailbox), None);
        mailbox.up(&TwinTopics::Retained { device_id: "d".to_owned() });
        keeper.report(at(242), || json!({"a": 2, "b": 1}));
        assert_eq!(take(&mailbox).unwrap(), r#"{"a":2,"b":1}"#);
    }

    #[test]
    fn a_hub_that_always_refuses_is_told_of_a_few_times_an_hour() {
        let directory = tempfile::tempdir().unwrap();
        let (mailbox, start) = (Mailbox::default(), Instant::now());
        let mut keeper = Keeper::new(mailbox.clone(), directory.path(), start);
        let mut told = 0;
        for minute in 0..60 {
            mailbox.trouble("no".to_owned());
            told += keeper.take_troubles(start + Duration::from_secs(minute * 60)).len();
        }
        mailbox.trouble("no".to_owned());
        assert_eq!((told, keeper.take_troubles(start + TROUBLES).len()), (4, 1));
    }

    #[test]
    fn what_was_kept_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(Mailbox::default(), directory.path(), Instant::now());
        assert_eq!(stored(directory.path()), Ok(None));
        keeper.store(&json!({"$version": 5})).unwrap();
        assert_eq!(
            stored(directory.path()),
            Ok(Some(Desired::Whole { bytes: br#"{"$version":5}"#.to_vec(), version: 5 }))
        );
        fs::write(directory.path().join(FILE), " ".repeat(200_000)).unwrap();
        assert!(stored(directory.path()).unwrap_err().ends_with("desired.json: it is far too large"));
    }
}
