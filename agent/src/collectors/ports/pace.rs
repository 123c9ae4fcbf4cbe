//! How often is looked and how much is sent, by what it costs. Nothing here asks the machine but for the time.

use std::time::{Duration, Instant};

use nix::time::ClockId;

/// With the look and the snapshot behind it a listener is told within a second.
const LOOK_EVERY: Duration = Duration::from_millis(900);
/// So late can be what is due while nothing happens, such as that a datagram client turns out to be none.
pub(super) const LOOK_ANYWAY_EVERY: Duration = Duration::from_secs(5);
const READ_ANYWAY_EVERY: Duration = Duration::from_secs(5);
/// To read what seems to be the same: a sixty-thousandth, 1 ms a minute.
const READ_ANYWAY_SHARE: u32 = 60_000;
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// Looks may take a five-hundredth of one processor. Those the kernel asks for may take a twentieth.
const LOOKS_SHARE: u32 = 500;
const EVENTS_SHARE: u32 = 20;
/// To read what the kernel counts otherwise than before may take a hundredth: 9 ms, some ten thousand listeners, are read
/// at each look.
const READING_SHARE: u32 = 100;
const EVENTS_APART: Duration = Duration::from_millis(50);
/// To ask who is connected costs a walk over the table of all connections: a forty-thousandth, 1.5 ms a minute.
const PEERS_SHARE: u32 = 40_000;
const PEERS_EVERY: Duration = Duration::from_secs(5);
const PEERS_AT_LEAST_EVERY: Duration = Duration::from_secs(5 * 60);

/// Snapshots for changes that come one after the other, and how soon there may be another. Anybody on the machine can
/// open and close a socket as often as he likes.
const CHANGES_AT_ONCE: u32 = 10;
const CHANGE_EVERY: Duration = Duration::from_secs(10);

/// Of work that took no longer than this it does not matter how much of it was CPU: after it the pauses are the shortest.
const SHORT: Duration = Duration::from_millis(1);

/// Tells what the calling thread took for something.
pub(super) struct Stopwatch {
    at: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(super) fn start() -> Stopwatch {
        Stopwatch { at: Instant::now(), cpu: cpu_time() }
    }

    /// The CPU; the time of what was short, because that can be told without a call into the kernel.
    pub(super) fn cost(&self) -> Duration {
        let time = self.at.elapsed();
        if time <= SHORT { time } else { cpu_time().saturating_sub(self.cpu) }
    }
}

fn cpu_time() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().map_or(Duration::ZERO, Duration::from)
}

/// The pause between two looks, the first of which took this much CPU.
pub(super) fn until_look(cost: Duration) -> Duration {
    cost.saturating_mul(LOOKS_SHARE).clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY)
}

/// How soon a namespace is read again that seems to have changed: at the next look, unless that is dear.
pub(super) fn until_reading(cost: Duration) -> Duration {
    cost.saturating_mul(READING_SHARE).min(LOOK_AT_LEAST_EVERY)
}

/// The same for one that does not seem to, while processes are started.
pub(super) fn until_reading_beside_new_processes(cost: Duration) -> Duration {
    until_reading(cost).max(READ_ANYWAY_EVERY)
}

/// The same for one that does not seem to, while nothing else happens either.
pub(super) fn until_reading_anyway(cost: Duration) -> Duration {
    cost.saturating_mul(READ_ANYWAY_SHARE).clamp(READ_ANYWAY_EVERY, LOOK_AT_LEAST_EVERY)
}

/// The same as `until_look`, when the kernel said that something changed.
pub(super) fn until_look_for_event(cost: Duration) -> Duration {
    cost.saturating_mul(EVENTS_SHARE).clamp(EVENTS_APART, LOOK_AT_LEAST_EVERY)
}

/// The pause between two questions who is connected.
pub(super) fn until_peers(cost: Duration) -> Duration {
    cost.saturating_mul(PEERS_SHARE).clamp(PEERS_EVERY, PEERS_AT_LEAST_EVERY)
}

/// What is left of the snapshots that changes may cause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    left: u32,
    /// When the last one came back.
    since: Duration,
}

impl Allowance {
    pub(super) fn full() -> Allowance {
        Allowance { left: CHANGES_AT_ONCE, since: Duration::ZERO }
    }

    /// Takes one, if there is any at this moment of a clock that never goes back.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.since).as_secs() / CHANGE_EVERY.as_secs();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(earned).min(CHANGES_AT_ONCE);
        self.since = if self.left == CHANGES_AT_ONCE { now } else { self.since + CHANGE_EVERY * earned };
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rarer_where_they_are_dear() {
        let micros = Duration::from_micros;
        assert_eq!(until_look(SHORT), LOOK_EVERY);
        assert_eq!(until_look_for_event(SHORT), EVENTS_APART);
        assert_eq!(until_look(micros(6_000)), Duration::from_secs(3));
        assert_eq!(until_look(Duration::MAX), LOOK_AT_LEAST_EVERY);
        assert_eq!(until_look_for_event(micros(6_000)), Duration::from_millis(120));
        assert_eq!(until_peers(micros(1_000)), Duration::from_secs(40));
        assert!(until_reading(SHORT) < LOOK_EVERY);
        assert!(until_reading(micros(9_000)) <= LOOK_EVERY, "so many listeners are a matter of a second too");
        assert_eq!(until_reading(micros(15_000)), micros(1_500_000));
        assert_eq!(until_reading_anyway(micros(50)), READ_ANYWAY_EVERY);
        assert_eq!(until_reading_anyway(micros(200)), Duration::from_secs(12));
        assert_eq!(until_reading_beside_new_processes(micros(400)), READ_ANYWAY_EVERY);
    }

    #[test]
    fn a_listener_that_is_toggled_gives_ten_snapshots_and_then_one_in_ten_seconds() {
        let mut allowance = Allowance::full();
        let taken = |allowance: &mut Allowance, from: u64, to: u64| {
            (from..to).filter(|second| allowance.take(Duration::from_secs(*second))).count()
        };
        assert_eq!(taken(&mut allowance, 1000, 1010), 10);
        assert_eq!(taken(&mut allowance, 1010, 1110), 10);
        assert_eq!(taken(&mut allowance, 1300, 1309), 9, "a while without changes fills it again");
    }
}
