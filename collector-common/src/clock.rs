//! When something happened, on a machine whose wall clock may be wrong.
//!
//! A board without a battery starts in 1970 or at the date of its image and jumps once it has met a time server. So an
//! occurrence is stored with both what the wall clock said and how long the machine had been up, and the wall time that
//! is sent is worked out later, when the boot's true offset may be known (`CLOCK_BOOTTIME`, `clock_gettime(2)`).

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::root::Root;

/// The wall clock cannot be right before this instant (2026-11-01, when this program was young): microseconds.
pub const EARLIEST_PLAUSIBLE_US: i64 = 1_793_491_200_000_000;

/// A record that somebody else wrote may be older than this program, but not older than this (2015-01-01): microseconds.
pub const EARLIEST_RECORD_US: i64 = 1_420_070_400_000_000;

/// One moment, as it was read when something was noticed or as its source recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The boot it belongs to, `/proc/sys/kernel/random/boot_id`.
    pub boot: Uuid,
    /// Microseconds since that boot, suspend included. 0 when the source tells the wall time only.
    pub boottime_us: u64,
    /// Microseconds since the Unix epoch, as the wall clock said then.
    pub wall_us: i64,
    /// Whose wall time it is.
    pub origin: Origin,
}

impl Reading {
    /// The moment of the same boot at which the machine had been up for so long, by the clock as it stands now.
    #[must_use]
    pub fn at_boottime_us(self, boottime_us: u64) -> Reading {
        let later_us = boottime_us.wrapping_sub(self.boottime_us).cast_signed();
        Reading { boottime_us, wall_us: self.wall_us.saturating_add(later_us), ..self }
    }
}

/// Whose wall time a reading holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The machine's clock, read by us: may be corrected later from the boot's offset.
    Clock,
    /// The source's own record, such as a line of a log: taken as it is while it is plausible.
    Source,
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot: Uuid,
}

impl Clock {
    /// Reads which boot this is. A machine that does not tell (no `/proc`) gets a made-up boot id, which is as good as
    /// a real one for as long as this process lives.
    pub fn new(root: &Root) -> Clock {
        let text = fs::read_to_string(root.path("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
        Clock { boot: Uuid::parse_str(text.trim()).unwrap_or_else(|_| Uuid::now_v7()) }
    }

    /// The id of the running boot.
    pub fn boot(&self) -> Uuid {
        self.boot
    }

    /// Now.
    pub fn now(&self) -> Reading {
        Reading { boot: self.boot, boottime_us: boottime_us(), wall_us: wall_us(), origin: Origin::Clock }
    }

    /// A moment whose source recorded the wall time only.
    pub fn from_source(&self, wall_us: i64) -> Reading {
        Reading { boot: self.boot, boottime_us: 0, wall_us, origin: Origin::Source }
    }
}

/// Whether a wall time can be true at all.
pub fn is_plausible(wall_us: i64) -> bool {
    wall_us >= EARLIEST_PLAUSIBLE_US
}

/// The standard library's clock has 64 bits on every machine; the C library's would end in 2038 on 32-bit ones.
fn wall_us() -> i64 {
    let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

/// The clock exists on every kernel this program can run on, so an error can only mean a sandbox that forbids the call;
/// zero then says that the boot time is not known.
fn boottime_us() -> u64 {
    let boottime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(boottime.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_moment_of_the_boot_is_as_far_on_both_clocks() {
        let now = Clock::new(&Root::host()).now();
        let (before, after) = (now.at_boottime_us(now.boottime_us - 7), now.at_boottime_us(now.boottime_us + 7));
        assert_eq!((before.wall_us, after.wall_us, after.boot), (now.wall_us - 7, now.wall_us + 7, now.boot));
    }

    #[test]
    fn boot_time_runs_forward_and_names_the_boot() {
        let clock = Clock::new(&Root::host());
        let (first, second) = (clock.now(), clock.now());
        assert_eq!(first.boot, second.boot);
        assert!(second.boottime_us >= first.boottime_us);
        assert!(is_plausible(first.wall_us), "the clock of this machine stands at {}", first.wall_us);
    }
}
