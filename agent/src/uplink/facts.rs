//! What the uplink tells `status` and the statistics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What `status` says about the connection.
#[derive(Clone, Debug, Default)]
pub struct LinkStatus(Arc<Mutex<LinkFacts>>);

/// The facts behind [`LinkStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// A hub took us in and the connection stands.
    pub is_connected: bool,
    /// Since when that is so; `None` is since the start.
    pub since: Option<Instant>,
    /// Connections made so far.
    pub connections: u64,
    /// Messages the hub acknowledged.
    pub acknowledged_messages: u64,
    /// Of those, the ones that were smaller than a billing unit.
    pub small_messages: u64,
    /// Events the hub acknowledged.
    pub acknowledged_events: u64,
    /// When it last acknowledged a message.
    pub last_acknowledged: Option<Instant>,
    /// Messages that were under way when a connection broke.
    pub failed_messages: u64,
    /// Payload bytes handed to the connection, second deliveries included.
    pub sent_bytes: u64,
    /// Bytes published today, as the budget counts them.
    pub sent_today_bytes: u64,
    /// Why there is no connection, in words.
    pub trouble: Option<String>,
    /// What the last trouble was, over or not, and when it was met last.
    pub last_trouble: Option<(String, Instant)>,
    /// Connections that failed since something got through.
    pub failures: u32,
    /// When the next one is.
    pub next_try: Option<Instant>,
    /// Why events wait although there is a connection, in words.
    pub waiting: Option<String>,
    /// What the session does now; `None` without a connection.
    pub session: Option<SessionFacts>,
}

/// What a connection does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Messages that were sent and not acknowledged.
    pub under_way: usize,
    /// When the oldest of them was sent.
    pub oldest_sent: Option<Instant>,
    /// No more may be sent before one is acknowledged.
    pub is_window_full: bool,
    /// The next event of each lane that is not in a message, High and Low.
    pub next_seq: [u64; 2],
    /// When a lane's interval ends.
    pub next_send: [Option<Instant>; 2],
    /// When to connect anew, because what let us in expires.
    pub renew_at: Option<Instant>,
}

impl LinkStatus {
    /// The facts as they are.
    pub fn get(&self) -> LinkFacts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the facts.
    pub fn change(&self, change: impl FnOnce(&mut LinkFacts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl LinkFacts {
    /// The connection was made.
    pub fn came_up(&mut self) {
        (self.is_connected, self.since) = (true, Some(Instant::now()));
        self.connections += 1;
        (self.trouble, self.next_try) = (None, None);
    }

    /// There is no connection any more, if there was one.
    pub fn went_down(&mut self) {
        if std::mem::take(&mut self.is_connected) {
            self.since = Some(Instant::now());
        }
        (self.session, self.waiting) = (None, None);
    }

    /// Why there is no connection, and how many there were not since something got through.
    pub fn failed(&mut self, why: String, failures: u32, next_try: Instant) {
        self.last_trouble = Some((why.clone(), Instant::now()));
        (self.trouble, self.failures, self.next_try) = (Some(why), failures, Some(next_try));
    }

    /// The hub acknowledged a message, so this connection is a good one.
    pub fn got_through(&mut self) {
        (self.last_acknowledged, self.failures) = (Some(Instant::now()), 0);
    }
}
