//! What the running daemon says of itself, over a socket that only writes.
//!
//! ```text
//! <state directory>/status.sock    connect, read one JSON object, end of file
//! ```
//!
//! Nothing is ever read from a connection, so there is nothing to parse and nothing to attack. Whoever asks trusts the
//! answer as little: it is bounded in size and in time.

mod facts;
pub mod units;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use collector_common::clock::{Clock, Reading, is_plausible};
use collector_common::collector::{State, StateSlot};
use collector_common::event::kind::{Kind, Lane};
use jiff::Timestamp;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tracing::warn;

use crate::config::settings::Settings;
use crate::lifecycle::Before;
use crate::privileges::Privileges;
use crate::recorder::counts::Counts;
use crate::recorder::progress::Progress;
use crate::spool::{Lack, Spool};
use crate::uplink::{LinkFacts, LinkStatus, budget};

pub use facts::{ClockFacts, CollectorFacts, EventCounts, LinkCounts, PrivilegeFacts, SpoolFacts, Status, Trouble};
pub use words::in_words;

/// A reader that does not read is let go after this time.
const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long whoever asks waits for the whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// No status is larger: bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Where the socket is.
pub fn socket_path(state_directory: &Path) -> PathBuf {
    state_directory.join("status.sock")
}

/// Where the facts come from.
#[derive(Clone)]
pub struct Sources {
    /// The device id, or `None`.
    pub device: Option<String>,
    /// The hub's address, or `None`.
    pub hub: Option<String>,
    /// When the agent started.
    pub started: Reading,
    /// Clocks.
    pub clock: Clock,
    /// The spool.
    pub spool: Spool,
    /// What was collected and lost.
    pub counts: Counts,
    /// What the recorder is at.
    pub progress: Progress,
    /// The connection.
    pub link: LinkStatus,
    /// Quota and limits.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// How the run before this one ended.
    pub before: Option<Before>,
    /// What the process may do.
    pub privileges: Privileges,
    /// Certificates that expire soon.
    pub expiring: watch::Receiver<Vec<String>>,
    /// Each collector's state.
    pub collectors: Vec<(Kind, StateSlot)>,
}

impl Sources {
    /// The status as it is.
    pub fn status(&self) -> Status {
        let (link, now) = (self.link.get(), self.clock.now());
        let mut lost_by_cause = BTreeMap::new();
        for loss in self.counts.lost() {
            *lost_by_cause.entry(loss.name()).or_default() += loss.events;
        }
        let noise = self.counts.noise();
        let uptime_seconds = seconds_between(&self.started, &now).unwrap_or(0);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.device.clone(),
            uptime_seconds,
            run_before: self.before.map(|before| before.name().to_owned()),
            clock: ClockFacts {
                wall: Timestamp::from_microsecond(now.wall_us).map(|wall| format!("{wall:.0}")).unwrap_or_default(),
                is_wrong: !is_plausible(now.wall_us),
            },
            privileges: self.privileges.facts(),
            connected: link.is_connected,
            hub: self.hub.clone(),
            trouble: link.trouble.clone(),
            waiting: link.waiting.clone(),
            expiring: self.expiring.borrow().clone(),
            spool: self.spool_facts(&now),
            link: self.link_facts(link, &now, uptime_seconds),
            events: event_counts(&self.counts, &self.link),
            lost: lost_by_cause,
            excluded: noise.excluded,
            flood: noise.is_flood,
            collectors: self.collectors.iter().map(|(kind, slot)| (kind.name().to_owned(), facts(slot))).collect(),
        }
    }

    fn spool_facts(&self, now: &Reading) -> SpoolFacts {
        let (stats, outlook, damage) = (self.spool.stats(), self.spool.outlook(), self.counts.damage());
        let trouble = |(since, what): (Instant, String)| Trouble { what, seconds: since.elapsed().as_secs() };
        let wait_seconds = self.progress.busy_for(Instant::now()).as_secs();
        let wait = Trouble { what: "waits for the disk; events wait in memory".to_owned(), seconds: wait_seconds };
        let next_to_go = outlook.next_to_go.map(|(lane, kind)| (lane.name().to_owned(), kind.name().to_owned()));
        let oldest = self.spool.oldest_unacknowledged();
        SpoolFacts {
            bytes: stats.bytes,
            disk_short: outlook.disk_lacks.is_some(),
            disk_lacks: outlook.disk_lacks.map(|lack| match lack {
                Lack::Space => "space".to_owned(),
                Lack::Inodes => "inodes".to_owned(),
            }),
            quota_bytes: self.settings.borrow().max_cache_bytes,
            full: outlook.is_full,
            room_bytes: outlook.room_bytes,
            written_bytes: stats.written_bytes,
            next_to_go,
            troubles: outlook.troubles.into_iter().map(trouble).chain((wait_seconds > 0).then_some(wait)).collect(),
            damage: damage.sentences,
            more_damage: damage.more,
            synced: by_lane(*self.spool.watch_synced().borrow()),
            oldest_age_seconds: oldest.and_then(|oldest| seconds_between(&oldest, now)),
            recorded: by_lane(stats.recorded),
            acknowledged: by_lane(stats.acked),
        }
    }

    fn link_facts(&self, link: LinkFacts, now: &Reading, uptime_seconds: u64) -> LinkCounts {
        let ago = |then: Instant| then.elapsed().as_secs();
        let until = |then: Instant| then.saturating_duration_since(Instant::now()).as_secs();
        let session = link.session;
        let recorded = self.spool.stats().recorded;
        let unsent = |next_seq: [u64; 2]| [0, 1].map(|lane| (recorded[lane] + 1).saturating_sub(next_seq[lane]));
        let next_send = session.map(|session| session.next_send).unwrap_or_default();
        let next_send = Lane::ALL.into_iter().filter_map(|lane| Some((lane, until(next_send[lane.index()]?))));
        LinkCounts {
            connections: link.connections,
            acknowledged_messages: link.acknowledged_messages,
            failed_messages: link.failed_messages,
            sent_bytes: link.sent_bytes,
            sent_today_bytes: link.sent_today_bytes,
            day_limit_bytes: self.settings.borrow().max_bytes_per_day,
            next_day_seconds: budget::rest_of_day(now).as_secs(),
            since_seconds: link.since.map_or(uptime_seconds, ago),
            failures: link.failures,
            next_try_seconds: link.next_try.map(until),
            last_trouble_seconds: link.last_trouble.as_ref().map(|(_, at)| ago(*at)),
            last_trouble: link.last_trouble.map(|(why, _)| why),
            last_acknowledged_seconds: link.last_acknowledged.map(ago),
            under_way_messages: session.map_or(0, |session| session.under_way as u64),
            oldest_under_way_seconds: session.and_then(|session| session.oldest_sent).map(ago),
            window_full: session.is_some_and(|session| session.is_window_full),
            unsent: session.map(|session| by_lane(unsent(session.next_seq))).unwrap_or_default(),
            next_send_seconds: next_send.map(|(lane, seconds)| (lane.name().to_owned(), seconds)).collect(),
            renewal_seconds: session.and_then(|session| session.renew_at).map(until),
        }
    }
}

/// By the time since boot where both are of the same one: the wall clock may have been set in between.
fn seconds_between(then: &Reading, now: &Reading) -> Option<u64> {
    (then.boot == now.boot && then.boottime_us > 0)
        .then(|| now.boottime_us.saturating_sub(then.boottime_us) / 1_000_000)
        .or_else(|| u64::try_from(now.wall_us.saturating_sub(then.wall_us) / 1_000_000).ok())
}

/// Events since the start.
pub fn event_counts(counts: &Counts, link: &LinkStatus) -> EventCounts {
    let by_kind: BTreeMap<_, _> =
        Kind::ALL.into_iter().map(|kind| (kind.name().to_owned(), counts.collected(kind))).collect();
    EventCounts {
        collected: by_kind.values().sum(),
        acknowledged: link.get().acknowledged_events,
        lost: counts.lost().iter().map(|loss| loss.events).sum(),
        by_kind,
        split: counts.fitted().split,
        cut: counts.fitted().cut,
    }
}

fn by_lane(numbers: [u64; 2]) -> BTreeMap<String, u64> {
    Lane::ALL.into_iter().map(|lane| (lane.name().to_owned(), numbers[lane.index()])).collect()
}

fn facts(slot: &StateSlot) -> CollectorFacts {
    let none = CollectorFacts { state: String::new(), backend: None, gap: None, reason: None };
    match slot.get() {
        State::Starting => CollectorFacts { state: "starting".to_owned(), ..none },
        State::Off => CollectorFacts { state: "off".to_owned(), ..none },
        State::Running { backend, gap } => {
            CollectorFacts { state: "running".to_owned(), backend: Some(backend), gap, ..none }
        }
        State::Degraded { reason } => CollectorFacts { state: "degraded".to_owned(), reason: Some(reason), ..none },
    }
}

/// Opens the socket. A socket that a crash left is replaced: the spool's lock is held, so nobody else can own it.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Answers until the task is aborted. One reader at a time: a status is small and quickly read.
pub async fn serve(listener: UnixListener, sources: Sources) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("the status socket cannot accept: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        match serde_json::to_vec(&sources.status()) {
            Ok(text) => {
                // A reader that went away, or does not read, has itself to blame.
                let _gone = tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&text)).await;
            }
            Err(error) => warn!("cannot serialise the status: {error}"),
        }
    }
}

/// Asks the daemon that runs on a state directory.
///
/// # Errors
/// A sentence: no daemon, no permission, or what is wrong with the answer.
pub fn ask(state_directory: &Path) -> Result<Status, String> {
    let path = socket_path(state_directory);
    let text = read_answer(&path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; is edgewarden running, and with this stateDirectory?",
            // What a file that is no socket gives, too.
            io::ErrorKind::ConnectionRefused if is_socket(&path) => {
                "; nobody listens there any more, the daemon was killed: start it again"
            }
            io::ErrorKind::ConnectionRefused => "; it is no socket: remove it, and start the daemon again",
            io::ErrorKind::PermissionDenied => "; ask as root or as a member of the agent's group",
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "; the daemon, or the disk under it, hangs",
            _ => "",
        };
        format!("cannot ask the daemon at {}: {error}{hint}", path.display())
    })?;
    serde_json::from_slice(&text).map_err(|error| {
        let path = path.display();
        match text.len() {
            0 => format!("the daemon at {path} took the question and ended without an answer; ask again"),
            bytes if error.is_eof() => {
                format!("the answer of the daemon at {path} ends after {bytes} bytes, in the middle; ask again")
            }
            _ => format!("what answers at {path} is no edgewarden of this version: {error}"),
        }
    })
}

/// Reads to the end, but neither without a limit nor for ever: anybody may listen behind a path.
fn read_answer(path: &Path) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut stream = UnixStream::connect(path)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no whole answer within 5 s"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no whole answer within 5 s"));
            }
            Err(error) => return Err(error),
        }
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(io::Error::other("the answer is far too long for a status; it is not edgewarden that listens"));
        }
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net;
    use std::thread;

    use super::*;

    /// What `ask` says when this is behind the socket's path.
    fn refusal(listener: impl FnOnce(&Path) + Send + 'static) -> String {
        let directory = tempfile::tempdir().unwrap();
        listener(&socket_path(directory.path()));
        let said = ask(directory.path()).unwrap_err();
        said.replace(&directory.path().display().to_string(), "STATE")
    }

    fn answers(text: Vec<u8>) -> impl FnOnce(&Path) + Send + 'static {
        move |path| {
            let listener = net::UnixListener::bind(path).unwrap();
            // Who is refused closes the connection, so writing may fail.
            thread::spawn(move || listener.accept().unwrap().0.write_all(&text));
        }
    }

    #[test]
    fn whoever_asks_is_told_why_there_is_no_answer() {
        let hostile = "x".repeat(MAX_ANSWER_BYTES + 1).into_bytes();
        for (said, expected) in [
            (refusal(|_| {}), "is edgewarden running, and with this stateDirectory?"),
            (refusal(|path| fs::write(path, "").unwrap()), "it is no socket: remove it, and start the daemon again"),
            (refusal(|path| fs::create_dir(path).unwrap()), "it is no socket: remove it, and start the daemon again"),
            (refusal(|path| drop(net::UnixListener::bind(path).unwrap())), "the daemon was killed: start it again"),
            (refusal(answers(Vec::new())), "took the question and ended without an answer; ask again"),
            (refusal(answers(b"{\"version\": \"0.1".to_vec())), "ends after 16 bytes, in the middle; ask again"),
            (refusal(answers(b"{}".to_vec())), "is no edgewarden of this version: missing field `version`"),
            (refusal(answers(vec![0xff, 0, 7])), "is no edgewarden of this version: expected value"),
            (refusal(answers(hostile)), "it is not edgewarden that listens"),
        ] {
            assert!(said.contains("STATE/status.sock") && said.contains(expected), "{said}");
        }
    }
}
