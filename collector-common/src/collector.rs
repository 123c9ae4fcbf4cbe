//! The one trait, and the way out of a collector.
//!
//! A collector observes until it is dropped. It hands [`Draft`]s to its [`Emitter`]; the recorder behind it gives each
//! its id, serialises it once and writes it to disk. The channel between them is bounded: [`Emitter::send`] waits,
//! [`Emitter::offer`] never waits and counts what did not fit.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::clock::{Clock, Reading};
use crate::event::kind::Kind;
use crate::event::payload::{Diagnostic, Payload};
use crate::redact::Redaction;
use crate::root::Root;

/// A source of events.
pub trait Collector: Send + Sync {
    /// What it collects; the kind's name is the twin key, the status key and the name on the command line.
    fn kind(&self) -> Kind;

    /// What it would use on this machine and what it lacks there, without collecting anything.
    fn survey(&self, root: &Root, settings: &Settings) -> Survey;

    /// Observes until dropped. `Ok` means there is no more to observe ([`Context::once`]); an error means the
    /// collector cannot go on, and the supervisor says so and starts it again later.
    fn run(&self, cx: Context) -> Running;
}

/// A running collector.
pub type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Everything a running collector has.
pub struct Context {
    /// The machine to look at.
    pub root: Root,
    /// Where a collector may keep a small file of its own; `None` when nothing is kept.
    pub state_directory: Option<PathBuf>,
    /// Its clocks.
    pub clock: Clock,
    /// What is asked for, now and after each change.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Where events go.
    pub out: Emitter,
    /// What `status` says about this collector.
    pub state: StateSlot,
    /// Return after the first complete snapshot, for `collect`.
    pub once: bool,
}

/// The settings collectors read. They are total: every value is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Twin `snapshotFrequency`: between two snapshots of which nothing changed.
    pub snapshot_interval: Duration,
    /// Where logins are read.
    pub login_source: LoginSource,
    /// Send repeated failures of one address as one row a minute.
    pub fold_failed_logins: bool,
    /// How execs are noticed.
    pub process_backend: ProcessBackend,
    /// Report the processes that already run when the collector starts.
    pub process_snapshot: bool,
    /// Read the programs that are executed, for their SHA-256.
    pub process_hash: bool,
    /// What is taken for a secret in a command line.
    pub redaction: Arc<Redaction>,
    /// Ask directory services for accounts, too.
    pub users_from_nss: bool,
}

/// `edgewarden.loginSource`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginSource {
    /// The journal where there is one, else the first authentication log that exists.
    Auto,
    /// The systemd journal.
    Journal,
    /// This log file.
    File(PathBuf),
}

/// `edgewarden.processBackend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessBackend {
    /// The best that works.
    Auto,
    /// A BPF program in the kernel.
    Bpf,
    /// One that does without the kernel's types.
    BpfNoBtf,
    /// The kernel's audit.
    Audit,
    /// The netlink process connector.
    Connector,
    /// A repeated look at `/proc`.
    Poll,
}

/// What a collector would use on a machine, for `check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The back end, in the words `status` uses too.
    pub backend: String,
    /// What is missing, one sentence each, with what to do about it.
    pub lacks: Vec<String>,
}

/// Why a collector cannot go on: what was tried, on what, what the system said, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// How a collector fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started yet.
    Starting,
    /// Collecting through this back end.
    Running {
        /// What it uses.
        backend: String,
        /// What it does not see, if anything.
        gap: Option<String>,
    },
    /// Not collecting, and why.
    Degraded {
        /// What was tried, what the system said, what to do.
        reason: String,
    },
    /// Turned off by the twin.
    Off,
}

/// Where a collector's state is kept for `status`.
#[derive(Clone, Debug)]
pub struct StateSlot(Arc<Mutex<State>>);

impl StateSlot {
    /// A slot that says [`State::Starting`].
    pub fn new() -> StateSlot {
        StateSlot(Arc::new(Mutex::new(State::Starting)))
    }

    /// Replaces the state.
    pub fn set(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Says that the collector runs, and through what.
    pub fn running(&self, backend: impl Into<String>, gap: Option<String>) {
        self.set(State::Running { backend: backend.into(), gap });
    }

    /// The state as it is.
    pub fn get(&self) -> State {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for StateSlot {
    fn default() -> Self {
        StateSlot::new()
    }
}

/// An event on its way to the recorder.
#[derive(Clone, Debug)]
pub struct Draft {
    /// When it happened.
    pub at: Reading,
    /// What happened. `None` moves the cursor only.
    pub payload: Option<Payload>,
    /// How far the source was read when this event was made.
    pub cursor: Option<SourceCursor>,
    /// The event's id, where the same fact must be recognised however often it is looked at. Others get one when they
    /// are recorded.
    pub id: Option<Uuid>,
    /// Goes out High whatever the twin says: forged evidence, loss, tampering, a collector blinded.
    pub security_relevant: bool,
}

impl Draft {
    /// An ordinary event.
    pub fn new(at: Reading, payload: Payload) -> Draft {
        Draft { at, payload: Some(payload), cursor: None, id: None, security_relevant: false }
    }

    /// A remark that goes out High whatever the twin says.
    pub fn alarm(at: Reading, diagnostic: Diagnostic) -> Draft {
        Draft { at, payload: Some(Payload::Diagnostic(diagnostic)), cursor: None, id: None, security_relevant: true }
    }

    /// Only the news that a source was read further.
    pub fn cursor_only(at: Reading, cursor: SourceCursor) -> Draft {
        Draft { at, payload: None, cursor: Some(cursor), id: None, security_relevant: false }
    }

    /// Adds how far the source was read: both are stored in the same frame, so neither can be lost alone.
    #[must_use]
    pub fn with_cursor(mut self, cursor: SourceCursor) -> Draft {
        self.cursor = Some(cursor);
        self
    }
}

/// How far a source was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceCursor {
    /// Which source, such as `journal` or `file:/var/log/auth.log`.
    pub source: String,
    /// The place in it, in the source's own words.
    pub place: String,
}

/// The recorder is gone: the agent is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// The way out of a collector.
#[derive(Clone, Debug)]
pub struct Emitter {
    queue: mpsc::Sender<Draft>,
    shared: Arc<Shared>,
}

/// How many events were lost before the recorder.
#[derive(Clone, Debug)]
pub struct Losses(Arc<Shared>);

impl Losses {
    /// Takes the counts since the last call.
    pub fn take(&self) -> Vec<(Kind, u64)> {
        let taken = Kind::ALL.map(|kind| (kind, self.0.overflow[kind.index()].swap(0, Ordering::Relaxed)));
        taken.into_iter().filter(|(_, events)| *events > 0).collect()
    }
}

#[derive(Debug)]
struct Shared {
    overflow: [AtomicU64; Kind::ALL.len()],
    cursors: Mutex<BTreeMap<String, String>>,
}

/// How many events may wait for the recorder. At 1 KiB an event this is 1 MiB, some seconds of a busy board.
pub const QUEUE_EVENTS: usize = 1024;

/// The bounded channel between the collectors and the recorder. When it is full, `send` waits and `offer` counts.
///
/// `cursors` are the places the spool knows from before.
pub fn channel(cursors: BTreeMap<String, String>) -> (Emitter, mpsc::Receiver<Draft>) {
    let (queue, receiver) = mpsc::channel(QUEUE_EVENTS);
    let shared = Arc::new(Shared { overflow: Default::default(), cursors: Mutex::new(cursors) });
    (Emitter { queue, shared }, receiver)
}

impl Emitter {
    /// Hands an event over, and waits while the recorder is behind. For sources that keep what was not read yet.
    pub async fn send(&self, draft: Draft) -> Result<(), Closed> {
        let permit = self.queue.reserve().await.map_err(|_| Closed)?;
        self.note(&draft);
        permit.send(draft);
        Ok(())
    }

    /// Waits until there is room for an event. For sources that let go of an event when they make it: whoever drops
    /// the future meanwhile drops no event with it.
    pub async fn room(&self) -> Result<(), Closed> {
        self.queue.reserve().await.map(drop).map_err(|_| Closed)
    }

    /// For how many events there is room just now. Others may take it first.
    pub fn free(&self) -> usize {
        self.queue.capacity()
    }

    /// Hands an event over if there is room, and counts it as lost if not. For sources that do not wait for us.
    pub fn offer(&self, draft: Draft) -> Result<(), Closed> {
        match self.queue.try_reserve() {
            Ok(permit) => {
                self.note(&draft);
                permit.send(draft);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => {
                if let Some(payload) = &draft.payload {
                    self.lost(payload.kind(), 1);
                }
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(())) => Err(Closed),
        }
    }

    /// Counts events that never became one: a kernel that dropped them before they could be read.
    pub fn lost(&self, kind: Kind, events: u64) {
        self.shared.overflow[kind.index()].fetch_add(events, Ordering::Relaxed);
    }

    /// The counts of events that were lost before the recorder. They do not keep the channel open.
    pub fn losses(&self) -> Losses {
        Losses(Arc::clone(&self.shared))
    }

    /// How far a source was read, by what was handed over so far or by what the spool knew at start.
    pub fn cursor(&self, source: &str) -> Option<String> {
        self.shared.cursors.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned()
    }

    fn note(&self, draft: &Draft) {
        if let Some(SourceCursor { source, place }) = &draft.cursor {
            let mut cursors = self.shared.cursors.lock().unwrap_or_else(PoisonError::into_inner);
            cursors.insert(source.clone(), place.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::payload::Severity;

    fn draft(clock: &Clock) -> Draft {
        Draft::new(clock.now(), Payload::Diagnostic(Diagnostic::new(Severity::Information, "x")))
    }

    #[tokio::test]
    async fn offer_never_waits_and_counts_what_does_not_fit() {
        let clock = Clock::new(&Root::host());
        let (out, mut queue) = channel(BTreeMap::new());
        for _ in 0..QUEUE_EVENTS + 3 {
            out.offer(draft(&clock)).unwrap();
        }
        assert_eq!(out.losses().take(), [(Kind::Diagnostic, 3)]);
        assert_eq!(out.losses().take(), []);
        queue.recv().await.unwrap();
        out.offer(draft(&clock)).unwrap();
        assert_eq!(out.losses().take(), []);
    }

    #[tokio::test]
    async fn send_waits_for_room() {
        let clock = Clock::new(&Root::host());
        let (out, mut queue) = channel(BTreeMap::new());
        for _ in 0..QUEUE_EVENTS {
            out.send(draft(&clock)).await.unwrap();
        }
        let blocked = tokio::spawn({
            let out = out.clone();
            let draft = draft(&clock);
            async move { out.send(draft).await }
        });
        tokio::task::yield_now().await;
        assert!(!blocked.is_finished());
        queue.recv().await.unwrap();
        assert_eq!(blocked.await.unwrap(), Ok(()));
        assert_eq!(out.losses().take(), []);
    }

    #[tokio::test]
    async fn room_is_waited_for_and_not_taken() {
        let clock = Clock::new(&Root::host());
        let (out, mut queue) = channel(BTreeMap::new());
        for _ in 0..QUEUE_EVENTS {
            out.room().await.unwrap();
            out.offer(draft(&clock)).unwrap();
        }
        assert_eq!(out.losses().take(), []);
        let waiting = tokio::spawn({
            let out = out.clone();
            async move { out.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        queue.recv().await.unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(()));
        drop(queue);
        assert_eq!(out.room().await, Err(Closed));
    }

    #[tokio::test]
    async fn a_cursor_is_known_once_its_event_was_handed_over() {
        let clock = Clock::new(&Root::host());
        let (out, queue) = channel(BTreeMap::from([("journal".to_owned(), "a".to_owned())]));
        assert_eq!(out.cursor("journal").as_deref(), Some("a"));
        let cursor = SourceCursor { source: "journal".to_owned(), place: "b".to_owned() };
        out.send(draft(&clock).with_cursor(cursor)).await.unwrap();
        assert_eq!(out.cursor("journal").as_deref(), Some("b"));
        drop(queue);
        assert_eq!(out.send(draft(&clock)).await, Err(Closed));
    }
}
