//! What the running daemon says of itself, over a socket that only writes.
//!
//! ```text
//! <state directory>/status.sock    connect, read one JSON object, end of file
//! ```
//!
//! Nothing is ever read from a connection, so there is nothing to parse and nothing to attack.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use collector_common::clock::{Clock, Reading};
use collector_common::collector::{State, StateSlot};
use collector_common::event::kind::{Kind, Lane};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tracing::warn;

use crate::recorder::counts::Counts;
use crate::recorder::progress::Progress;
use crate::spool::Spool;
use crate::uplink::LinkStatus;

/// A reader that does not read is let go after this time.
const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

/// Where the socket is.
pub fn socket_path(state_directory: &Path) -> PathBuf {
    state_directory.join("status.sock")
}

/// The whole status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// The device id, when a connection is configured and the id is known.
    pub device: Option<String>,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
    /// Whether a hub has taken us in.
    pub connected: bool,
    /// The hub's address.
    pub hub: Option<String>,
    /// Why there is no connection.
    pub trouble: Option<String>,
    /// Why events wait although there is one.
    pub waiting: Option<String>,
    /// Certificates of the connection that expire within 30 days or have expired.
    #[serde(default)]
    pub expiring: Vec<String>,
    /// Connections made, messages acknowledged and failed, bytes sent.
    pub link: LinkCounts,
    /// The spool.
    pub spool: SpoolFacts,
    /// Events since the start.
    pub events: EventCounts,
    /// Losses since the start, as `Kind.cause`.
    pub lost: BTreeMap<String, u64>,
    /// The collectors.
    pub collectors: BTreeMap<String, CollectorFacts>,
}

/// Counters of the connection since the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkCounts {
    /// Connections made.
    pub connections: u64,
    /// Messages acknowledged.
    pub acknowledged_messages: u64,
    /// Messages under way when a connection broke; they are sent again.
    pub failed_messages: u64,
    /// Payload bytes sent, second deliveries included.
    pub sent_bytes: u64,
    /// Bytes published today, as `maxBytesPerDay` counts them.
    pub sent_today_bytes: u64,
}

/// What is on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolFacts {
    /// Bytes.
    pub bytes: u64,
    /// The file system is so full that the spool does not grow, whatever its quota.
    #[serde(default)]
    pub disk_short: bool,
    /// The recorder has waited for the disk for so long: seconds.
    #[serde(default)]
    pub disk_wait_seconds: u64,
    /// Age of the oldest event that was not acknowledged: seconds.
    pub oldest_age_seconds: Option<u64>,
    /// Recorded up to this number, by lane.
    pub recorded: BTreeMap<String, u64>,
    /// Acknowledged up to this number, by lane.
    pub acknowledged: BTreeMap<String, u64>,
}

/// Counters of events since the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventCounts {
    /// Handed over by collectors, lost ones included.
    pub collected: u64,
    /// Acknowledged by the hub.
    pub acknowledged: u64,
    /// Lost.
    pub lost: u64,
    /// Collected, by kind.
    pub by_kind: BTreeMap<String, u64>,
}

/// One collector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectorFacts {
    /// `starting`, `running`, `degraded` or `off`.
    pub state: String,
    /// What it uses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backend: Option<String>,
    /// What it does not see.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gap: Option<String>,
    /// Why it does not run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
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
    /// Certificates that expire soon.
    pub expiring: watch::Receiver<Vec<String>>,
    /// Each collector's state.
    pub collectors: Vec<(Kind, StateSlot)>,
}

impl Sources {
    /// The status as it is.
    pub fn status(&self) -> Status {
        let (link, spool, now) = (self.link.get(), self.spool.stats(), self.clock.now());
        let mut lost_by_cause = BTreeMap::new();
        for loss in self.counts.lost() {
            *lost_by_cause.entry(loss.name()).or_default() += loss.events;
        }
        let seconds_since = |then: &Reading| {
            (then.boot == now.boot && then.boottime_us > 0)
                .then(|| now.boottime_us.saturating_sub(then.boottime_us) / 1_000_000)
                .or_else(|| u64::try_from(now.wall_us.saturating_sub(then.wall_us) / 1_000_000).ok())
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.device.clone(),
            uptime_seconds: seconds_since(&self.started).unwrap_or(0),
            connected: link.is_connected,
            hub: self.hub.clone(),
            trouble: link.trouble,
            waiting: link.waiting,
            expiring: self.expiring.borrow().clone(),
            link: LinkCounts {
                connections: link.connections,
                acknowledged_messages: link.acknowledged_messages,
                failed_messages: link.failed_messages,
                sent_bytes: link.sent_bytes,
                sent_today_bytes: link.sent_today_bytes,
            },
            spool: SpoolFacts {
                bytes: spool.bytes,
                disk_short: spool.is_disk_short,
                disk_wait_seconds: self.progress.busy_for(Instant::now()).as_secs(),
                oldest_age_seconds: self.spool.oldest_unacknowledged().as_ref().and_then(seconds_since),
                recorded: by_lane(spool.recorded),
                acknowledged: by_lane(spool.acked),
            },
            events: event_counts(&self.counts, &self.link),
            lost: lost_by_cause,
            collectors: self.collectors.iter().map(|(kind, slot)| (kind.name().to_owned(), facts(slot))).collect(),
        }
    }
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
/// A sentence: no daemon, no permission, or an answer of another version.
pub fn ask(state_directory: &Path) -> Result<Status, String> {
    let path = socket_path(state_directory);
    let fault = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "; is edgewarden running?",
            io::ErrorKind::PermissionDenied => "; ask as root or as a member of the agent's group",
            _ => "",
        };
        format!("cannot ask the daemon at {}: {error}{hint}", path.display())
    };
    let mut stream = UnixStream::connect(&path).map_err(fault)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(fault)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(fault)?;
    serde_json::from_str(&text).map_err(|error| format!("the daemon's answer cannot be read: {error}"))
}

/// The status for people.
pub fn in_words(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a String cannot fail.
        let _always_ok = writeln!(text, "{label:<14} {value}");
    };
    line("edgewarden", format!("{}, up {} s", status.version, status.uptime_seconds));
    line("device", status.device.clone().unwrap_or_else(|| "none configured".to_owned()));
    line(
        "hub",
        match (&status.hub, status.connected, &status.trouble) {
            (None, ..) => "none configured".to_owned(),
            (Some(hub), true, _) => format!("{hub}, connected"),
            (Some(hub), false, Some(trouble)) => format!("{hub}, NOT connected: {trouble}"),
            (Some(hub), false, None) => format!("{hub}, not connected yet"),
        },
    );
    if let Some(waiting) = &status.waiting {
        line("waiting", waiting.clone());
    }
    line("sent", format!("{} bytes today, {} since the start", status.link.sent_today_bytes, status.link.sent_bytes));
    for sentence in &status.expiring {
        line("expiring", sentence.clone());
    }
    for lane in Lane::ALL.map(Lane::name) {
        let (recorded, acknowledged) = (status.spool.recorded.get(lane), status.spool.acknowledged.get(lane));
        let (recorded, acknowledged) = (recorded.copied().unwrap_or(0), acknowledged.copied().unwrap_or(0));
        line(
            &format!("lane {lane}"),
            format!(
                "recorded {recorded}, acknowledged {acknowledged}, waiting {}",
                recorded.saturating_sub(acknowledged)
            ),
        );
    }
    let oldest = status.spool.oldest_age_seconds.map(|age| format!(", oldest waits {age} s")).unwrap_or_default();
    let short = if status.spool.disk_short { "; the file system is nearly full, older events make room" } else { "" };
    line("spool", format!("{} bytes{oldest}{short}", status.spool.bytes));
    if status.spool.disk_wait_seconds > 0 {
        line("disk", format!("has not answered for {} s; events wait in memory", status.spool.disk_wait_seconds));
    }
    let events = &status.events;
    line(
        "events",
        format!("{} collected, {} acknowledged, {} lost", events.collected, events.acknowledged, events.lost),
    );
    for (what, events) in &status.lost {
        line("lost", format!("{events} {what}"));
    }
    for (name, facts) in &status.collectors {
        let detail = [&facts.backend, &facts.gap, &facts.reason].into_iter().flatten().cloned().collect::<Vec<_>>();
        line(name, format!("{}: {}", facts.state, detail.join("; ")).trim_end_matches(": ").to_owned());
    }
    text
}
