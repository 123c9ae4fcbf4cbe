//! Names that were called and got no answer.
//!
//! ```text
//! Invalid user oracle from 192.0.2.7 port 9          nothing more of this process: an attempt, by this line
//! ```
//!
//! `sshd` writes this as soon as it hears the name. Nearly always a line follows that says how it ended, and this one is
//! no attempt of its own. None follows when the grace time ends at an sshd that does not log from a signal handler (that
//! of Debian before 13, since CVE-2024-6387), when it is killed, and where a log was cut. Such a name is told once its
//! process serves another peer, or after a while.

use std::collections::BTreeMap;

use collector_common::clock::Reading;
use collector_common::collector::Draft;
use collector_common::parse::login::{Handler, Peer};

/// How long a name waits, microseconds: `LoginGraceTime` is two minutes unless it is set.
const WAIT_US: u64 = 180_000_000;

/// The most names that wait. Beyond them the oldest is told early.
const MAX_WAITING: usize = 1024;

/// A process that serves a connection.
pub type Server = (Handler, u32);

/// Names that wait for a line that says how it ended.
#[derive(Debug, Default)]
pub struct Unanswered {
    waiting: BTreeMap<Server, Waiting>,
    /// The keys of `waiting` in the order they came.
    order: BTreeMap<u64, Server>,
    next: u64,
    given_up: Vec<(Server, Draft)>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    since_us: u64,
    peer: Peer,
    draft: Draft,
}

impl Unanswered {
    /// Lets a name wait as the row it is going to be.
    pub fn wait(&mut self, server: Server, peer: Peer, draft: Draft, now: Reading) {
        if let Some(before) = self.remove(server)
            && !before.peer.agrees_with(&peer)
        {
            self.given_up.push((server, before.draft));
        }
        if self.waiting.len() >= MAX_WAITING
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            self.give_up(*oldest);
        }
        self.order.insert(self.next, server);
        self.waiting.insert(server, Waiting { number: self.next, since_us: now.boottime_us, peer, draft });
        self.next += 1;
    }

    /// A line said how it ended.
    pub fn answer(&mut self, server: Server) {
        self.remove(server);
    }

    /// The row of a name that waits.
    pub fn waiting(&mut self, server: Server) -> Option<&mut Draft> {
        self.waiting.get_mut(&server).map(|waiting| &mut waiting.draft)
    }

    /// Gives up those that have waited long enough.
    pub fn give_up_until(&mut self, now: Reading) {
        while let Some(server) = self.order.first_key_value().map(|(_, server)| *server)
            && self.waiting.get(&server).is_none_or(|oldest| oldest.since_us.saturating_add(WAIT_US) <= now.boottime_us)
        {
            self.give_up(server);
        }
    }

    /// Takes those that were given up.
    pub fn take(&mut self) -> Vec<(Server, Draft)> {
        std::mem::take(&mut self.given_up)
    }

    /// Whether any waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.given_up.is_empty()
    }

    fn give_up(&mut self, server: Server) {
        if let Some(waiting) = self.remove(server) {
            self.given_up.push((server, waiting.draft));
        }
    }

    fn remove(&mut self, server: Server) -> Option<Waiting> {
        let waiting = self.waiting.remove(&server)?;
        self.order.remove(&waiting.number);
        Some(waiting)
    }
}
