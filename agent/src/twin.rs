//! What the hub desires of this device, in the order of its versions, and what is reported back: decisions without I/O.
//! `mailbox` lies between the connection and the daemon, `keeper` is the daemon's side of it.
//!
//! ```text
//! mqtt::poll ─told─▶ Mailbox(Inbox) ─▶ daemon: keep on disk, flush, new settings ─▶ report ─▶ Mailbox ─▶ uplink
//! ```
//!
//! A change is worth something only on top of the version before it. One that comes again is ignored, and one that does
//! not fit, or that finds no room, is answered with asking for the whole. So a flood costs a fixed amount of memory and
//! the newest desire still wins.

use std::time::{Duration, Instant};

pub mod keeper;
pub mod mailbox;
pub mod report;

/// Changes that wait to be applied. More than these are forgotten, and the whole is asked for.
const MAX_CHANGES: usize = 16;

/// The same in bytes.
const MAX_CHANGES_BYTES: usize = 128 * 1024;

/// What is applied at once, when nothing was for a while.
const BUCKET: u32 = 8;

/// How soon the hub can change something again that changes something all the time. Each change costs a write on the
/// disk, and messages that were not full yet.
const REFILL: Duration = Duration::from_secs(30);

/// What is to be applied, in this order, on what was applied before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Desired {
    /// All desired properties.
    Whole {
        /// JSON, not looked into.
        bytes: Vec<u8>,
        /// Its version; 0 when it has none.
        version: u64,
    },
    /// What changed in them (RFC 7396).
    Change {
        /// JSON, not looked into.
        bytes: Vec<u8>,
        /// The version the whole has with it.
        version: u64,
    },
}

/// What was told and is not applied yet.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Vec<Desired>,
    /// The version of the last that was let in; `None` before the first whole of a connection.
    version: Option<u64>,
    is_to_ask: bool,
    /// What was let in could not be applied: the next change shows that the hub has another mind.
    is_lost: bool,
}

impl Inbox {
    /// A connection was made: nothing that was told before it says what holds now.
    pub fn connected(&mut self) {
        *self = Inbox { is_to_ask: true, ..Inbox::default() };
    }

    /// The whole was told. It replaces everything that waits, unless a change that is newer was let in.
    pub fn on_whole(&mut self, bytes: Vec<u8>, version: u64) {
        if self.version.is_none_or(|ours| ours <= version) {
            self.on_retained(bytes, version);
        }
    }

    /// The whole was told where there are no versions to go by. It replaces everything.
    pub fn on_retained(&mut self, bytes: Vec<u8>, version: u64) {
        *self = Inbox { waiting: vec![Desired::Whole { bytes, version }], version: Some(version), ..Inbox::default() };
    }

    /// A change was told.
    pub fn on_change(&mut self, bytes: Vec<u8>, version: u64) {
        let Some(ours) = self.version else {
            // Before the whole is here, its answer will hold the change or be behind it; then the next change shows it.
            self.is_to_ask |= std::mem::take(&mut self.is_lost);
            return;
        };
        if version <= ours {
            return;
        }
        let is_change = |desired: &&Desired| matches!(desired, Desired::Change { .. });
        let (changes, changes_bytes) = self
            .waiting
            .iter()
            .filter(is_change)
            .fold((0, bytes.len()), |(changes, sum), desired| (changes + 1, sum + desired.bytes().len()));
        if version - ours > 1 || changes >= MAX_CHANGES || changes_bytes > MAX_CHANGES_BYTES {
            self.waiting.retain(|desired| matches!(desired, Desired::Whole { .. }));
            (self.version, self.is_to_ask) = (None, true);
            return;
        }
        self.waiting.push(Desired::Change { bytes, version });
        self.version = Some(version);
    }

    /// Of what was taken something could not be applied. After a change the whole is asked for; a whole that is wrong
    /// is asked for again only when the hub has changed it.
    pub fn lost(&mut self, taken: &[Desired]) {
        if self.waiting.iter().any(|desired| matches!(desired, Desired::Whole { .. })) {
            return;
        }
        self.waiting.clear();
        let is_change = matches!(taken.last(), Some(Desired::Change { .. }));
        (self.version, self.is_lost, self.is_to_ask) = (None, !is_change, is_change);
    }

    /// The question for the whole was not answered with it.
    pub fn not_answered(&mut self) {
        self.is_to_ask |= self.version.is_none();
    }

    /// Whether something waits, or is to be asked.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.is_to_ask
    }

    /// Whether to ask for the whole, which is then taken as asked.
    pub fn take_ask(&mut self) -> bool {
        std::mem::take(&mut self.is_to_ask)
    }

    /// Everything to apply now.
    pub fn take(&mut self) -> Vec<Desired> {
        std::mem::take(&mut self.waiting)
    }
}

impl Desired {
    /// The document.
    pub fn bytes(&self) -> &[u8] {
        let (Desired::Whole { bytes, .. } | Desired::Change { bytes, .. }) = self;
        bytes
    }
}

/// How often the hub may change something.
#[derive(Debug)]
pub struct Bucket {
    left: u32,
    refilled: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(now: Instant) -> Bucket {
        Bucket { left: BUCKET, refilled: now }
    }

    /// Takes one out, or says when there will be one.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        while self.left < BUCKET && now.saturating_duration_since(self.refilled) >= REFILL {
            (self.left, self.refilled) = (self.left + 1, self.refilled + REFILL);
        }
        if self.left == BUCKET {
            self.refilled = now;
        }
        self.left = self.left.checked_sub(1).ok_or(self.refilled + REFILL)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(inbox: &mut Inbox) -> Vec<u64> {
        let version = |desired| match desired {
            Desired::Whole { version, .. } | Desired::Change { version, .. } => version,
        };
        inbox.take().into_iter().map(version).collect()
    }

    fn with_whole(version: u64) -> Inbox {
        let mut inbox = Inbox::default();
        inbox.connected();
        assert!(inbox.take_ask());
        inbox.on_whole(Vec::new(), version);
        assert_eq!(drain(&mut inbox), [version]);
        inbox
    }

    #[test]
    fn changes_apply_in_order_and_once() {
        let mut inbox = with_whole(3);
        for version in [2, 3, 4, 4, 5] {
            inbox.on_change(Vec::new(), version);
        }
        assert!(!inbox.take_ask());
        assert_eq!(drain(&mut inbox), [4, 5]);
    }

    #[test]
    fn a_gap_is_closed_by_asking_once_and_an_older_answer_changes_nothing() {
        let mut inbox = with_whole(3);
        inbox.on_change(Vec::new(), 5);
        inbox.on_change(Vec::new(), 6);
        assert!(inbox.take_ask() && !inbox.take_ask());
        assert_eq!(drain(&mut inbox), [0; 0]);
        inbox.on_whole(Vec::new(), 6);
        inbox.on_change(Vec::new(), 7);
        inbox.on_whole(Vec::new(), 6);
        assert_eq!(drain(&mut inbox), [6, 7]);
    }

    #[test]
    fn a_flood_takes_little_room_and_its_newest_wins() {
        let mut inbox = with_whole(1);
        for version in 2..=1000 {
            inbox.on_change(Vec::new(), version);
            assert!(inbox.waiting.len() <= MAX_CHANGES);
        }
        assert!(inbox.take_ask());
        inbox.on_whole(Vec::new(), 1000);
        assert_eq!(drain(&mut inbox), [1000]);
    }

    #[test]
    fn what_could_not_be_applied_is_asked_for_once() {
        let mut inbox = with_whole(3);
        inbox.lost(&[Desired::Whole { bytes: Vec::new(), version: 3 }]);
        assert!(!inbox.take_ask(), "the answer would be the same");
        inbox.on_change(Vec::new(), 5);
        inbox.on_change(Vec::new(), 6);
        assert!(inbox.take_ask() && !inbox.take_ask());
        inbox.on_whole(Vec::new(), 6);
        assert_eq!(drain(&mut inbox), [6]);
        inbox.lost(&[Desired::Change { bytes: Vec::new(), version: 6 }]);
        assert!(inbox.take_ask(), "the whole holds the change, and may be right");
    }

    #[test]
    fn a_few_changes_go_at_once_and_many_one_by_one() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        for _ in 0..BUCKET {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(start + REFILL));
        assert_eq!(bucket.take(start + REFILL), Ok(()));
        assert_eq!(bucket.take(start + REFILL), Err(start + 2 * REFILL));
        let later = start + 100 * REFILL;
        assert_eq!((0..100).filter(|_| bucket.take(later).is_ok()).count(), 8);
    }
}
