//! When something is sent: decisions without I/O.
//!
//! An event becomes due when its lane's interval has passed, when a message could be filled, after a connection was
//! made, or on request; what is due stays due. High-priority messages go out first and are filled up with Low ones.

use std::time::{Duration, Instant};

use collector_common::event::kind::Lane;

use crate::config::settings::Settings;

/// What is due.
#[derive(Debug)]
pub struct Pacing {
    connected: Instant,
    /// Everything up to this event of a lane is due.
    due_through: [u64; 2],
    /// When a lane was last made due; its interval counts from here.
    last_due: [Instant; 2],
    interval: [Duration; 2],
}

impl Pacing {
    /// Nothing is due yet.
    pub fn new(now: Instant) -> Pacing {
        Pacing { connected: now, due_through: [0; 2], last_due: [now; 2], interval: [Duration::MAX; 2] }
    }

    /// A connection was made: everything recorded is due.
    pub fn connected(&mut self, now: Instant, recorded: [u64; 2]) {
        self.connected = now;
        self.last_due = [now; 2];
        self.due_through = recorded;
    }

    /// How long the connection has stood.
    pub fn connected_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.connected)
    }

    /// Everything recorded is due.
    pub fn flush(&mut self, recorded: [u64; 2]) {
        self.due_through = recorded;
    }

    /// Looks at the clock and at what is unread (events and bytes a lane); whether something became due, so that it
    /// should be synced now.
    pub fn on_time(&mut self, now: Instant, settings: &Settings, unread: [(u64, u64); 2], recorded: [u64; 2]) -> bool {
        self.interval = [settings.high_interval, settings.low_interval];
        let unread_bytes: u64 = unread.iter().map(|(_, bytes)| bytes).sum();
        let is_full = unread_bytes >= settings.max_message_bytes as u64;
        let mut became_due = false;
        for lane in Lane::ALL.map(Lane::index) {
            let is_time = now.saturating_duration_since(self.last_due[lane]) >= self.interval[lane];
            if unread[lane].0 > 0 && (is_full || is_time) && recorded[lane] > self.due_through[lane] {
                self.due_through[lane] = recorded[lane];
                became_due = true;
            }
            if is_time {
                self.last_due[lane] = now;
            }
        }
        became_due
    }

    /// Whether a message is to be made, when these are the next unsent events of the lanes.
    pub fn is_due(&self, next_seq: [u64; 2]) -> bool {
        next_seq.iter().zip(self.due_through).any(|(next, through)| *next <= through)
    }

    /// When to look again, if anything is unread at all.
    pub fn next_wake(&self, unread: [(u64, u64); 2]) -> Option<Instant> {
        let waiting = Lane::ALL.map(Lane::index).into_iter().filter(|lane| unread[*lane].0 > 0);
        waiting.filter_map(|lane| self.next_times()[lane]).min()
    }

    /// When each lane's interval ends.
    pub fn next_times(&self) -> [Option<Instant>; 2] {
        Lane::ALL.map(Lane::index).map(|lane| self.last_due[lane].checked_add(self.interval[lane]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let mut settings = Settings::default();
        settings.high_interval = Duration::from_secs(60);
        settings.low_interval = Duration::from_secs(600);
        settings.max_message_bytes = 8192;
        settings
    }

    #[test]
    fn a_lane_is_due_after_its_interval_and_stays_due() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        let unread = [(1, 100), (1, 100)];
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!pacing.on_time(at(59), &settings(), unread, [1, 1]));
        assert!(!pacing.is_due([1, 1]));
        assert_eq!(pacing.next_wake(unread), Some(at(60)));
        assert!(pacing.on_time(at(60), &settings(), unread, [1, 1]));
        assert!(pacing.is_due([1, 1]));
        assert!(!pacing.is_due([2, 1]), "Low has time");
        assert!(!pacing.on_time(at(61), &settings(), unread, [1, 1]), "it is due already");
        assert!(pacing.is_due([1, 1]));
    }

    #[test]
    fn a_full_message_goes_at_once() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        assert!(pacing.on_time(start, &settings(), [(0, 0), (20, 8192)], [0, 20]));
        assert!(pacing.is_due([1, 1]));
        assert!(!pacing.is_due([1, 21]));
    }

    #[test]
    fn a_backlog_is_due_on_connection_and_nothing_wakes_an_empty_spool() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        pacing.connected(start, [4, 0]);
        assert!(pacing.is_due([4, 1]));
        assert!(!pacing.is_due([5, 1]));
        assert_eq!(pacing.next_wake([(0, 0), (0, 0)]), None);
    }
}
