//! Which messages are under way, and what may be forgotten: decisions without I/O.
//!
//! The MQTT client gives each publish a packet id and tells it in the order of the publishes, so ids are paired with
//! messages first in, first out. Acknowledgements may come in any order; the spool may forget only up to the first
//! message that was not acknowledged.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Hubs bill a message by units of so many bytes: one below it wastes the rest.
pub const UNIT_BYTES: usize = 4096;

/// The messages under way, oldest first.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    messages: VecDeque<Message>,
    /// When a message was last acknowledged, or the first one was sent after there had been none.
    progress: Instant,
}

#[derive(Debug)]
struct Message {
    /// The last event of each lane in it.
    through: [Option<u64>; 2],
    events: u64,
    bytes: usize,
    sent: Instant,
    pkid: Option<u16>,
    is_acknowledged: bool,
}

/// What an acknowledgement completed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Everything up to this event of a lane, High and Low, has arrived.
    pub through: [Option<u64>; 2],
    /// Messages that are done with.
    pub messages: u64,
    /// Of those, the ones below [`UNIT_BYTES`].
    pub small_messages: u64,
    /// Events in them.
    pub events: u64,
}

impl Window {
    /// A window for at most `limit` messages.
    pub fn new(limit: usize, now: Instant) -> Window {
        Window { limit, messages: VecDeque::with_capacity(limit), progress: now }
    }

    /// Whether one more message may be sent.
    pub fn has_room(&self) -> bool {
        self.messages.len() < self.limit
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether messages are under way of which none was acknowledged since `limit` ago.
    pub fn is_stuck(&self, now: Instant, limit: Duration) -> bool {
        !self.is_empty() && now.saturating_duration_since(self.progress) >= limit
    }

    /// When [`Window::is_stuck`] may become true, if anything is under way.
    pub fn stuck_at(&self, limit: Duration) -> Option<Instant> {
        (!self.is_empty()).then_some(self.progress + limit)
    }

    /// Messages under way.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// When the oldest message under way was sent.
    pub fn oldest_sent(&self) -> Option<Instant> {
        self.messages.front().map(|message| message.sent)
    }

    /// A message was handed to the client.
    pub fn push(&mut self, through: [Option<u64>; 2], events: u64, bytes: usize, now: Instant) {
        if self.is_empty() {
            self.progress = now;
        }
        self.messages.push_back(Message { through, events, bytes, sent: now, pkid: None, is_acknowledged: false });
    }

    /// The client wrote the oldest message without an id under this one. An error means that client and window disagree,
    /// and only a new connection can help.
    pub fn on_handed(&mut self, pkid: u16) -> Result<(), String> {
        let message = self.messages.iter_mut().find(|message| message.pkid.is_none());
        let message = message.ok_or_else(|| format!("the client sent a packet {pkid} that nobody asked for"))?;
        message.pkid = Some(pkid);
        Ok(())
    }

    /// The hub acknowledged a packet id. One that is not under way, or was acknowledged before, completes nothing.
    pub fn on_acknowledged(&mut self, pkid: u16, now: Instant) -> Done {
        let is_it = |message: &&mut Message| message.pkid == Some(pkid) && !message.is_acknowledged;
        if let Some(message) = self.messages.iter_mut().find(is_it) {
            message.is_acknowledged = true;
            self.progress = now;
        }
        let mut done = Done::default();
        while let Some(message) = self.messages.pop_front_if(|message| message.is_acknowledged) {
            done.messages += 1;
            done.small_messages += u64::from(message.bytes < UNIT_BYTES);
            done.events += message.events;
            for (done, through) in done.through.iter_mut().zip(message.through) {
                *done = through.or(*done);
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_contiguous_prefix_is_done() {
        let mut window = Window::new(3, Instant::now());
        window.push([Some(3), None], 3, 5000, Instant::now());
        window.push([Some(5), Some(9)], 4, 5000, Instant::now());
        window.push([None, Some(12)], 3, 5000, Instant::now());
        assert!(!window.has_room());
        for pkid in [1, 2, 3] {
            window.on_handed(pkid).unwrap();
        }
        assert_eq!(window.on_acknowledged(2, Instant::now()), Done::default());
        assert_eq!(window.on_acknowledged(2, Instant::now()), Done::default());
        assert_eq!(window.on_acknowledged(7, Instant::now()), Done::default());
        assert_eq!(
            window.on_acknowledged(1, Instant::now()),
            Done { through: [Some(5), Some(9)], messages: 2, small_messages: 0, events: 7 }
        );
        assert_eq!(
            window.on_acknowledged(3, Instant::now()),
            Done { through: [None, Some(12)], messages: 1, small_messages: 0, events: 3 }
        );
        assert!(window.is_empty());
    }

    #[test]
    fn ids_may_be_used_again_after_they_were_acknowledged() {
        let mut window = Window::new(2, Instant::now());
        for seq in 1..=4 {
            window.push([Some(seq), None], 1, 5000, Instant::now());
            window.on_handed(1).unwrap();
            assert_eq!(window.on_acknowledged(1, Instant::now()).through, [Some(seq), None]);
        }
    }

    #[test]
    fn a_hub_that_acknowledges_nothing_for_long_is_noticed_and_a_slow_one_is_not() {
        let (start, limit) = (Instant::now(), Duration::from_secs(45));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::new(4, start);
        assert!(!window.is_stuck(at(1000), limit));
        window.push([Some(1), None], 1, 5000, at(1000));
        window.push([Some(2), None], 1, 5000, at(1001));
        window.on_handed(1).unwrap();
        window.on_handed(2).unwrap();
        assert_eq!(window.stuck_at(limit), Some(at(1045)));
        window.on_acknowledged(2, at(1040));
        assert!(!window.is_stuck(at(1084), limit));
        assert!(window.is_stuck(at(1085), limit));
    }

    #[test]
    fn an_id_nobody_asked_for_is_an_error() {
        let mut window = Window::new(2, Instant::now());
        window.push([Some(1), None], 1, 5000, Instant::now());
        window.on_handed(1).unwrap();
        assert!(window.on_handed(2).is_err());
    }

    #[test]
    fn any_order_of_acknowledgements_forgets_everything_once_and_in_order() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut window = Window::new(16, Instant::now());
            let (mut sent, mut through, mut free, mut open) = (0, 0, (1..=32).collect::<Vec<u16>>(), Vec::new());
            while through < 100 {
                if sent < 100 && window.has_room() && random.bool() {
                    sent += 1;
                    window.push([Some(sent), None], 1, 5000, Instant::now());
                    let pkid = free.remove(0);
                    window.on_handed(pkid).unwrap();
                    open.push(pkid);
                } else if !open.is_empty() {
                    let pkid = open.swap_remove(random.usize(..open.len()));
                    free.push(pkid);
                    if let Some(now) = window.on_acknowledged(pkid, Instant::now()).through[0] {
                        assert!(now > through && now <= sent);
                        through = now;
                    }
                }
            }
        }
    }
}
