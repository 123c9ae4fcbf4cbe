//! What the test causes: lines in a log file, each with a number of its own, and what happens to the file itself.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, copy, rename};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;

use crate::arrivals::Arrival;
use crate::clock::Clock;

/// The list of causes is this test's own; nothing is taken from what the agent says.
#[derive(Clone)]
pub struct Causes {
    log: Arc<Mutex<Log>>,
    /// Causes up to this number may be written.
    allowed: Arc<AtomicU32>,
}

struct Log {
    path: PathBuf,
    file: File,
    rotations: u32,
    clock: Clock,
    has_lines: bool,
    /// The first first.
    causes: Vec<Cause>,
}

/// One cause.
#[derive(Clone, Copy, Debug)]
pub struct Cause {
    /// When it was written.
    pub at: Timestamp,
    /// When its line says that it was written.
    pub stamp: Timestamp,
}

impl Causes {
    /// Causes nothing yet.
    pub fn new(path: &Path, clock: Clock) -> Causes {
        let path = path.to_owned();
        let log = Log { file: open(&path), path, rotations: 0, clock, has_lines: false, causes: Vec::new() };
        Causes { log: Arc::new(Mutex::new(log)), allowed: Arc::default() }
    }

    /// Writes bursts until `last` was written, never further than is allowed.
    pub fn write(&self, last: u32, mut random: fastrand::Rng) {
        while self.count() < last {
            let room = self.allowed.load(Ordering::SeqCst).min(last).saturating_sub(self.count());
            self.burst(room.min(random.u32(1..=20)));
            std::thread::sleep(Duration::from_millis(random.u64(20..=160)));
        }
    }

    /// Lets `write` go on up to this number.
    pub fn allow(&self, last: u32) {
        self.allowed.store(last, Ordering::SeqCst);
    }

    /// Writes so many at once.
    pub fn burst(&self, lines: u32) {
        let mut log = self.log();
        for _ in 0..lines {
            log.line();
        }
    }

    /// How many there are; they are numbered from 1.
    pub fn count(&self) -> u32 {
        u32::try_from(self.log().causes.len()).unwrap()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Cause> {
        self.log().causes.clone()
    }

    /// What logrotate does without options: the writer goes on with the renamed file until it is told.
    pub fn rotate_by_rename(&self, late_lines: u32) {
        let to = self.log().rotated();
        rename(&self.log().path, to).unwrap();
        self.burst(late_lines);
        let mut log = self.log();
        log.file = open(&log.path);
        log.has_lines = false;
        // A log that rotated is written to, or the agent would rightly go on with the old one.
        log.line();
    }

    /// What logrotate does with `copytruncate`. Nothing is written in between, which with a real daemon may happen.
    pub fn rotate_by_copy(&self) {
        let mut log = self.log();
        if !log.has_lines {
            log.line();
        }
        let to = log.rotated();
        copy(&log.path, to).unwrap();
        log.file.set_len(0).unwrap();
        log.has_lines = false;
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }
}

impl Log {
    /// Writes the next cause, in one write, as a syslog daemon does it. Every other line is another machine's, whose
    /// clock is right.
    fn line(&mut self) {
        let number = u32::try_from(self.causes.len() + 1).unwrap();
        let (at, port) = (Timestamp::now(), port(number));
        let stamp = if number.is_multiple_of(2) { at } else { self.clock.shows(at) };
        let line =
            format!("{stamp:.6} board sshd[{number}]: Failed password for root from 198.51.100.7 port {port} ssh2\n");
        self.file.write_all(line.as_bytes()).unwrap();
        self.causes.push(Cause { at, stamp });
        self.has_lines = true;
    }

    /// The next name for the file.
    fn rotated(&mut self) -> PathBuf {
        self.rotations += 1;
        let mut name = self.path.clone().into_os_string();
        name.push(format!("-{:06}", self.rotations));
        name.into()
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn port(number: u32) -> u32 {
    1024 + number % 60_000
}

/// Which cause a row tells of. A row of this kind that is not word for word what some line says is no answer.
pub fn number(arrival: &Arrival) -> Result<u32, String> {
    let number = arrival.details["ProcessId"].as_u64().and_then(|number| u32::try_from(number).ok());
    let number = number.ok_or_else(|| format!("no number in {arrival:?}"))?;
    let expected: BTreeMap<&str, String> = [
        ("UserName", "root".to_owned()),
        ("RemoteAddress", "198.51.100.7".to_owned()),
        ("RemotePort", port(number).to_string()),
        ("Result", "Fail".to_owned()),
        ("Operation", "LoginFailed".to_owned()),
        ("Executable", "/usr/sbin/sshd".to_owned()),
    ]
    .into();
    match expected.iter().find(|(key, value)| arrival.text(key) != value.as_str()) {
        Some((key, value)) => Err(format!("{key} is not {value} in {arrival:?}")),
        None => Ok(number),
    }
}
