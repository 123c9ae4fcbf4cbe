//! The status as one JSON object. Keys are only ever added, so that whoever reads it may rely on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// How the run before this one ended: `first` when there was none, `stopped`, `killed` or `powerLost`.
    #[serde(default)]
    pub run_before: Option<String>,
    /// The wall clock.
    #[serde(default)]
    pub clock: ClockFacts,
    /// What the agent's process may do.
    #[serde(default)]
    pub privileges: PrivilegeFacts,
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
    /// Execs since the start that are no events, by the rule of the configuration that excluded them.
    #[serde(default)]
    pub excluded: BTreeMap<String, u64>,
    /// More is executed than `processFloodRate`, so execs of the same command line are one event.
    #[serde(default)]
    pub flood: bool,
    /// The collectors.
    pub collectors: BTreeMap<String, CollectorFacts>,
}

/// The wall clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockFacts {
    /// What it says, UTC.
    pub wall: String,
    /// It is before this agent was built, so it cannot be right.
    pub is_wrong: bool,
}

/// What the agent's process may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrivilegeFacts {
    /// The user it runs as.
    pub user: String,
    /// The capabilities it has.
    pub capabilities: Vec<String>,
    /// What it could not give up, one sentence each.
    pub troubles: Vec<String>,
}

/// The connection: counters since the start, and what it does now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
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
    /// `maxBytesPerDay`.
    pub day_limit_bytes: Option<u64>,
    /// Until that is counted anew.
    pub next_day_seconds: u64,
    /// Connected, or not connected, for so long.
    pub since_seconds: u64,
    /// Connections that failed since something got through.
    pub failures: u32,
    /// Until the next one; `None` when one is under way, or none is needed.
    pub next_try_seconds: Option<u64>,
    /// What the last trouble was, over or not.
    pub last_trouble: Option<String>,
    /// How long ago that was met.
    pub last_trouble_seconds: Option<u64>,
    /// How long ago the hub acknowledged something.
    pub last_acknowledged_seconds: Option<u64>,
    /// Messages that were sent and not acknowledged.
    pub under_way_messages: u64,
    /// How long ago the oldest of them was sent.
    pub oldest_under_way_seconds: Option<u64>,
    /// No more may be sent before the hub acknowledges one.
    pub window_full: bool,
    /// Events that are in no message yet, by lane; none without a connection.
    pub unsent: BTreeMap<String, u64>,
    /// Until a lane's interval ends, by lane.
    pub next_send_seconds: BTreeMap<String, u64>,
    /// Until the agent connects anew, because the token that let it in expires.
    pub renewal_seconds: Option<u64>,
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
    /// What it has too little of: `space` or `inodes`.
    #[serde(default)]
    pub disk_lacks: Option<String>,
    /// `maxLocalCacheSizeInBytes`.
    #[serde(default)]
    pub quota_bytes: u64,
    /// The quota is reached: older events make room for newer ones.
    #[serde(default)]
    pub full: bool,
    /// What may still be written before events have to make room.
    #[serde(default)]
    pub room_bytes: u64,
    /// Written since the start.
    #[serde(default)]
    pub written_bytes: u64,
    /// The lane and the kind that would make room first.
    #[serde(default)]
    pub next_to_go: Option<(String, String)>,
    /// What the disk refuses at present.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// What was found damaged since the start, one sentence each.
    #[serde(default)]
    pub damage: Vec<String>,
    /// So many more sentences there were.
    #[serde(default)]
    pub more_damage: u64,
    /// On the disk for good up to this number, by lane.
    #[serde(default)]
    pub synced: BTreeMap<String, u64>,
    /// Age of the oldest event that was not acknowledged: seconds.
    pub oldest_age_seconds: Option<u64>,
    /// Recorded up to this number, by lane.
    pub recorded: BTreeMap<String, u64>,
    /// Acknowledged up to this number, by lane.
    pub acknowledged: BTreeMap<String, u64>,
}

/// Something that does not work at present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// One sentence.
    pub what: String,
    /// For how long.
    pub seconds: u64,
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
    /// Observations that became several events to fit into messages.
    #[serde(default)]
    pub split: u64,
    /// Events in which a text was cut down to fit into a message.
    #[serde(default)]
    pub cut: u64,
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
