//! Which kinds take how much of a lane, and which of them goes first when there is no room.

use collector_common::event::kind::Kind;
use serde::{Deserialize, Serialize};

/// Bytes of events, by [`Kind::index`].
pub type ByKind = [u64; Kind::ALL.len()];

/// What the events of a segment, or of a lane, take: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The first rows of each kind, which are kept longest.
    pub first: ByKind,
    /// All other rows.
    pub later: ByKind,
}

/// What goes next: the events of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The kind.
    pub kind: Kind,
    /// Its first rows go too: no kind of the lane has other rows left.
    pub first_too: bool,
}

/// How many events were given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// By kind.
    pub events: ByKind,
    /// Events whose kind nobody can tell: damaged, or written by a later version.
    pub unknown: u64,
}

impl Usage {
    /// Adds one event.
    pub fn add(&mut self, kind: Kind, is_first: bool, bytes: u64) {
        let table = if is_first { &mut self.first } else { &mut self.later };
        table[kind.index()] += bytes;
    }

    /// Adds what another segment holds.
    pub fn add_all(&mut self, other: &Usage) {
        for index in 0..Kind::ALL.len() {
            self.first[index] += other.first[index];
            self.later[index] += other.later[index];
        }
    }

    /// The kind that uses most; first rows count only when there are no others. `None` when there is no event.
    pub fn victim(&self) -> Option<Victim> {
        let most = |table: &ByKind| Kind::ALL.into_iter().max_by_key(|kind| table[kind.index()]);
        let victim = |table: &ByKind, first_too| {
            most(table).filter(|kind| table[kind.index()] > 0).map(|kind| Victim { kind, first_too })
        };
        victim(&self.later, false).or_else(|| victim(&self.first, true))
    }

    /// Whether there is anything a victim could give.
    pub fn holds(&self, victim: Victim) -> bool {
        let index = victim.kind.index();
        self.later[index] > 0 || victim.first_too && self.first[index] > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_that_uses_most_goes_first_and_first_rows_go_last() {
        let mut usage = Usage::default();
        assert_eq!(usage.victim(), None);
        usage.add(Kind::Login, true, 900);
        assert_eq!(usage.victim(), Some(Victim { kind: Kind::Login, first_too: true }));
        usage.add(Kind::ProcessCreate, false, 10);
        usage.add(Kind::Diagnostic, false, 5);
        let victim = Victim { kind: Kind::ProcessCreate, first_too: false };
        assert_eq!(usage.victim(), Some(victim));
        assert!(usage.holds(victim));
        assert!(!usage.holds(Victim { kind: Kind::Login, first_too: false }));
    }
}
