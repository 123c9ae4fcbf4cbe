//! Who is in, and who waits to be let in.
//!
//! A connection that has not said who it is costs a socket and its buffers, and any stranger can open one. So only a
//! few may be in that state at once, and a new one pushes the *oldest* out: a flood then has to open hundreds of
//! sockets in the time one honest device needs to log in, while with "no more for now" a handful of silent sockets
//! would keep everybody out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How many connections may be on their way in at once.
const WAITING_AT_ONCE: usize = 256;

pub(super) struct Lobby {
    waiting: Mutex<Waiting>,
    seated: Arc<Mutex<HashMap<String, usize>>>,
    max_seated: usize,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    oldest_first: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// A place in the lobby.
pub(super) struct Ticket {
    pub(super) number: u64,
    /// Says `Ok` when the place is lost. An error means that the connection is in.
    pub(super) pushed_out: oneshot::Receiver<()>,
}

impl Lobby {
    pub(super) fn new(max_seated: usize) -> Lobby {
        Lobby { waiting: Mutex::default(), seated: Arc::default(), max_seated }
    }

    /// Takes a place, perhaps that of the one that waits longest.
    pub(super) fn enter(&self) -> Ticket {
        let mut waiting = lock(&self.waiting);
        if waiting.oldest_first.len() >= WAITING_AT_ONCE {
            push_out(waiting.oldest_first.pop_front());
        }
        let number = waiting.next;
        waiting.next += 1;
        let (sender, pushed_out) = oneshot::channel();
        waiting.oldest_first.push_back((number, sender));
        Ticket { number, pushed_out }
    }

    /// Gives the place back: the connection is in, or over.
    pub(super) fn leave(&self, number: u64) {
        lock(&self.waiting).oldest_first.retain(|(waiting, _)| *waiting != number);
    }

    /// Sends everybody away who is not in, at the end.
    pub(super) fn clear(&self) {
        lock(&self.waiting).oldest_first.drain(..).for_each(|one| push_out(Some(one)));
    }

    /// A seat for a client, `None` when the house is full. A client that is in gets another at once: it comes back
    /// before its old connection is noticed to be dead.
    pub(super) fn seat(&self, client_id: &str) -> Option<Seat> {
        let mut seated = lock(&self.seated);
        if seated.len() >= self.max_seated && !seated.contains_key(client_id) {
            return None;
        }
        *seated.entry(client_id.to_owned()).or_default() += 1;
        Some(Seat { seated: self.seated.clone(), client_id: client_id.to_owned() })
    }
}

fn push_out(one: Option<(u64, oneshot::Sender<()>)>) {
    if let Some((_, sender)) = one {
        // Nobody listens when the connection has just ended by itself.
        let _gone = sender.send(());
    }
}

/// A client that is in, until this is dropped.
pub(super) struct Seat {
    seated: Arc<Mutex<HashMap<String, usize>>>,
    client_id: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seated = lock(&self.seated);
        if let Some(count) = seated.get_mut(&self.client_id) {
            *count -= 1;
            if *count == 0 {
                seated.remove(&self.client_id);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets a log line through at most every ten seconds, because strangers decide how often there is cause for one.
#[derive(Default)]
pub(super) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// How many were kept back since the last one, when it may be said now.
    pub(super) fn now(&self) -> Option<u64> {
        let mut state = lock(&self.0);
        if state.0.is_some_and(|last| last.elapsed() < Duration::from_secs(10)) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(Instant::now());
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_pushes_out_the_oldest_and_never_one_that_is_in() {
        let lobby = Lobby::new(1);
        let mut first = lobby.enter();
        let mut second = lobby.enter();
        lobby.leave(second.number);
        for _ in 0..WAITING_AT_ONCE - 1 {
            lobby.enter();
        }
        assert_eq!(first.pushed_out.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        lobby.enter();
        assert_eq!(first.pushed_out.try_recv(), Ok(()));
        assert_eq!(second.pushed_out.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(lock(&lobby.waiting).oldest_first.len(), WAITING_AT_ONCE);
    }

    #[test]
    fn a_full_house_lets_in_who_is_in_already() {
        let lobby = Lobby::new(1);
        let old = lobby.seat("a").unwrap();
        assert!(lobby.seat("b").is_none());
        let new = lobby.seat("a").unwrap();
        drop(old);
        assert!(lobby.seat("b").is_none());
        drop(new);
        assert!(lobby.seat("b").is_some());
    }
}
