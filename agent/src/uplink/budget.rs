//! Bytes a day on a metered link: decisions without I/O, and one small file that a restart reads.
//!
//! ```text
//! <state directory>/sent.json    {"day": DAY, "bytes": BYTES}, replaced as a whole
//! ```
//!
//! A day is one of UTC, or of 24 hours since boot while the clock cannot be right. Counted are the bytes of MQTT
//! packets that are published, second deliveries included; TCP, TLS and keep-alives come on top.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use collector_common::clock::{Reading, is_plausible};
use serde::{Deserialize, Serialize};

use crate::spool::state::replace_file;

const DAY_US: i64 = 86_400_000_000;

/// What an MQTT packet has beside topic and payload: fixed header, two lengths, packet id.
const PACKET_BYTES: u64 = 9;

/// The file is written at most this often, to spare the flash.
const STORE_EVERY: Duration = Duration::from_secs(600);

/// What was sent today.
#[derive(Debug)]
pub struct Budget {
    path: PathBuf,
    usage: Usage,
    stored: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Usage {
    /// Days since the Unix epoch; below zero it is a day since boot.
    day: i64,
    bytes: u64,
}

/// Which lanes may send, and until when not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// High events may go.
    pub high: bool,
    /// Low events may go.
    pub low: bool,
}

impl Budget {
    /// What was sent today before the restart, by the file; one that is missing or damaged is a new day.
    pub fn load(path: PathBuf, now: &Reading) -> Budget {
        let today = Usage { day: day(now), bytes: 0 };
        let read = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Usage>(&bytes).ok());
        let usage = read.filter(|usage| usage.day == today.day).unwrap_or(today);
        Budget { path, usage, stored: None }
    }

    /// Counts a message, and writes the count down from time to time.
    pub fn spend(&mut self, now: &Reading, topic_bytes: usize, payload_bytes: usize) -> io::Result<()> {
        self.roll(now);
        self.usage.bytes = self.usage.bytes.saturating_add(cost(topic_bytes, payload_bytes));
        if self.stored.is_none_or(|stored| stored.elapsed() >= STORE_EVERY) { self.store() } else { Ok(()) }
    }

    /// Writes the count down.
    pub fn store(&mut self) -> io::Result<()> {
        self.stored = Some(Instant::now());
        replace_file(&self.path, &serde_json::to_vec(&self.usage)?)
    }

    /// Bytes sent today.
    pub fn sent_today_bytes(&mut self, now: &Reading) -> u64 {
        self.roll(now);
        self.usage.bytes
    }

    /// Whether a message may still go today. High events may use the whole limit, Low events the first half of it, so
    /// that a flood of programs does not use up what a login needs.
    pub fn allowance(&mut self, now: &Reading, limit_bytes: Option<u64>, message_bytes: usize) -> Allowance {
        self.roll(now);
        let Some(limit) = limit_bytes else { return Allowance { high: true, low: true } };
        let after = self.usage.bytes.saturating_add(cost(0, message_bytes));
        Allowance { high: after <= limit, low: after <= limit / 2 }
    }

    fn roll(&mut self, now: &Reading) {
        if self.usage.day != day(now) {
            self.usage = Usage { day: day(now), bytes: 0 };
        }
    }
}

/// Until the day is over.
pub fn rest_of_day(now: &Reading) -> Duration {
    let (_, since_us) = split(now);
    Duration::from_micros((DAY_US - since_us).unsigned_abs())
}

fn cost(topic_bytes: usize, payload_bytes: usize) -> u64 {
    topic_bytes as u64 + payload_bytes as u64 + PACKET_BYTES
}

fn day(now: &Reading) -> i64 {
    split(now).0
}

/// The day, and microseconds since it began.
fn split(now: &Reading) -> (i64, i64) {
    if is_plausible(now.wall_us) {
        return (now.wall_us.div_euclid(DAY_US), now.wall_us.rem_euclid(DAY_US));
    }
    let up_us = i64::try_from(now.boottime_us).unwrap_or(i64::MAX);
    (-1 - up_us / DAY_US, up_us % DAY_US)
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::clock::{EARLIEST_PLAUSIBLE_US, Origin};
    use uuid::Uuid;

    fn at(hours: i64) -> Reading {
        let wall_us = (EARLIEST_PLAUSIBLE_US / DAY_US + 1) * DAY_US + hours * 3_600_000_000;
        Reading { boot: Uuid::nil(), boottime_us: 5, wall_us, origin: Origin::Clock }
    }

    #[test]
    fn low_stops_at_half_the_limit_and_high_at_all_of_it_until_the_day_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut budget = Budget::load(directory.path().join("sent.json"), &at(0));
        let allowed = |budget: &mut Budget, hours| budget.allowance(&at(hours), Some(100_000), 10_000);
        assert_eq!(allowed(&mut budget, 1), Allowance { high: true, low: true });
        budget.spend(&at(1), 10, 45_000).unwrap();
        assert_eq!(allowed(&mut budget, 2), Allowance { high: true, low: false });
        budget.spend(&at(2), 10, 50_000).unwrap();
        assert_eq!(allowed(&mut budget, 23), Allowance { high: false, low: false });
        assert_eq!(budget.allowance(&at(23), None, 10_000), Allowance { high: true, low: true });
        assert_eq!(allowed(&mut budget, 24), Allowance { high: true, low: true });
        assert_eq!(rest_of_day(&at(23)), Duration::from_secs(3600));
    }

    #[test]
    fn a_restart_does_not_give_a_second_budget_and_a_damaged_file_costs_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sent.json");
        Budget::load(path.clone(), &at(0)).spend(&at(0), 0, 991).unwrap();
        assert_eq!(Budget::load(path.clone(), &at(5)).sent_today_bytes(&at(5)), 1000);
        assert_eq!(Budget::load(path.clone(), &at(25)).sent_today_bytes(&at(25)), 0);
        fs::write(&path, "{").unwrap();
        assert_eq!(Budget::load(path, &at(5)).sent_today_bytes(&at(5)), 0);
    }

    #[test]
    fn without_a_right_clock_a_day_is_one_since_boot() {
        let up = |hours: u64| Reading { boottime_us: hours * 3_600_000_000, wall_us: 7, ..at(0) };
        assert_eq!((day(&up(1)), day(&up(25))), (-1, -2));
        assert_eq!(rest_of_day(&up(23)), Duration::from_secs(3600));
    }
}
