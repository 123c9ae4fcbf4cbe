//! What the hub desires of this device, in the order of its versions: decisions without I/O.
//!
//! A change is worth something only on top of the version before it. One that comes again is ignored, and one that does
//! not fit, or that finds no room, is answered with asking for the whole. So a flood costs a fixed amount of memory and
//! the newest desire still wins.

use std::collections::VecDeque;

/// Changes that wait to be applied. More than these are forgotten, and the whole is asked for.
const MAX_CHANGES: usize = 16;

/// What is to be applied, in this order, on what was applied before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Desired {
    /// All desired properties.
    Whole {
        /// JSON, not looked into.
        bytes: Vec<u8>,
        /// Its version.
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
    waiting: VecDeque<Desired>,
    /// The version of the last that was let in; `None` before the first whole of a connection.
    version: Option<u64>,
    is_to_ask: bool,
}

impl Inbox {
    /// A connection was made: nothing that was told before it says what holds now.
    pub fn connected(&mut self) {
        *self = Inbox { is_to_ask: true, ..Inbox::default() };
    }

    /// The whole was told. It replaces everything that waits, unless a change that is newer was let in.
    pub fn on_whole(&mut self, bytes: Vec<u8>, version: u64) {
        if self.version.is_some_and(|ours| ours > version) {
            return;
        }
        self.waiting.clear();
        self.waiting.push_back(Desired::Whole { bytes, version });
        (self.version, self.is_to_ask) = (Some(version), false);
    }

    /// A change was told.
    pub fn on_change(&mut self, bytes: Vec<u8>, version: u64) {
        // Before the whole is here, its answer will hold the change or be behind it; then the next change shows it.
        let Some(ours) = self.version else { return };
        if version <= ours {
            return;
        }
        if version - ours > 1 || self.waiting.len() >= MAX_CHANGES {
            self.waiting.retain(|desired| matches!(desired, Desired::Whole { .. }));
            (self.version, self.is_to_ask) = (None, true);
            return;
        }
        self.waiting.push_back(Desired::Change { bytes, version });
        self.version = Some(version);
    }

    /// Whether to ask for the whole, which is then taken as asked.
    pub fn take_ask(&mut self) -> bool {
        std::mem::take(&mut self.is_to_ask)
    }

    /// What to apply next.
    pub fn next(&mut self) -> Option<Desired> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(inbox: &mut Inbox) -> Vec<u64> {
        let version = |desired| match desired {
            Desired::Whole { version, .. } | Desired::Change { version, .. } => version,
        };
        std::iter::from_fn(|| inbox.next()).map(version).collect()
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
}
