//! What the agent is asked to do: no options, every value valid, the defaults in one place.

use std::sync::Arc;
use std::time::Duration;

use collector_common::collector::{self, LoginSource, ProcessBackend};
use collector_common::event::kind::{Kind, Lane};

pub use super::process_rule::ProcessRule;

/// The effective settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `highPriorityMessageFrequency`: the longest an event of the High lane waits for company.
    pub high_interval: Duration,
    /// `lowPriorityMessageFrequency`; never shorter than `high_interval`.
    pub low_interval: Duration,
    /// `maxLocalCacheSizeInBytes`: how much disk the spool may take.
    pub max_cache_bytes: u64,
    /// `maxMessageSizeInBytes`: the largest message; never above `max_cache_bytes`.
    pub max_message_bytes: usize,
    /// `aggregationEnabledProcessCreate`.
    pub aggregate_process_create: bool,
    /// `aggregationIntervalProcessCreate`.
    pub aggregation_interval: Duration,
    /// `hubResourceId`, which Azure wants to see again on every message.
    pub hub_resource_id: Option<String>,
    /// `edgewarden.spoolSyncHigh`: the longest a High event is in memory only.
    pub spool_sync_high: Duration,
    /// `edgewarden.spoolSyncLow`: the same for Low events.
    pub spool_sync_low: Duration,
    /// `edgewarden.maxBytesPerDay`: what may be published in a day; `None` is no limit.
    pub max_bytes_per_day: Option<u64>,
    /// `edgewarden.floor`: keys that the hub cannot lower.
    pub floor: Vec<String>,
    /// `edgewarden.processInclude`: if there are any, only execs that meet one are events.
    pub process_include: Vec<ProcessRule>,
    /// `edgewarden.processExclude`: execs that meet one are counted and no events.
    pub process_exclude: Vec<ProcessRule>,
    /// `edgewarden.processFloodRate`: above so many execs a second they are aggregated.
    pub process_flood_rate: Option<u64>,
    /// What the collectors read.
    pub collectors: collector::Settings,
    priorities: [Priority; Kind::ALL.len()],
}

/// The twin's `eventPriority*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Not collected.
    Off,
    /// Collected, sent at the low frequency.
    Low,
    /// Collected, sent at the high frequency.
    High,
}

impl Settings {
    /// What a kind of event is worth.
    pub fn priority(&self, kind: Kind) -> Priority {
        self.priorities[kind.index()]
    }

    /// Changes what a kind of event is worth.
    pub fn set_priority(&mut self, kind: Kind, priority: Priority) {
        self.priorities[kind.index()] = priority;
    }
}

impl Default for Settings {
    /// The published defaults, except three. A message is 8 KiB instead of 200 KB, because a metered link resends the
    /// whole of what it cut. The cache is 64 MiB instead of 2.5 MB, because the link may be down for months. And
    /// aggregation is off, because the investigation guide counts rows.
    fn default() -> Settings {
        let mut settings = Settings {
            high_interval: Duration::from_secs(7 * 60),
            low_interval: Duration::from_secs(5 * 3600),
            max_cache_bytes: 64 * 1024 * 1024,
            max_message_bytes: 8192,
            aggregate_process_create: false,
            aggregation_interval: Duration::from_secs(3600),
            hub_resource_id: None,
            spool_sync_high: Duration::from_millis(500),
            spool_sync_low: Duration::from_secs(30),
            max_bytes_per_day: None,
            floor: Vec::new(),
            process_include: Vec::new(),
            process_exclude: Vec::new(),
            process_flood_rate: None,
            collectors: collector::Settings {
                snapshot_interval: Duration::from_secs(13 * 3600),
                login_source: LoginSource::Auto,
                fold_failed_logins: false,
                process_backend: ProcessBackend::Auto,
                process_snapshot: false,
                process_hash: false,
                users_from_nss: false,
                redaction: Arc::default(),
            },
            priorities: [Priority::Low; Kind::ALL.len()],
        };
        for kind in [Kind::LocalUsers, Kind::ListeningPorts, Kind::Login] {
            settings.set_priority(kind, Priority::High);
        }
        settings
    }
}

impl Priority {
    /// Every priority.
    pub const ALL: [Priority; 3] = [Priority::Off, Priority::Low, Priority::High];

    /// The twin's word.
    pub fn name(self) -> &'static str {
        match self {
            Priority::Off => "Off",
            Priority::Low => "Low",
            Priority::High => "High",
        }
    }

    /// The priority with this name. The case is not looked at: the old C agent wrote its report in small letters.
    pub fn from_name(name: &str) -> Option<Priority> {
        Priority::ALL.into_iter().find(|priority| priority.name().eq_ignore_ascii_case(name))
    }

    /// The queue such events wait in; `None` when they are not collected.
    pub fn lane(self) -> Option<Lane> {
        match self {
            Priority::Off => None,
            Priority::Low => Some(Lane::Low),
            Priority::High => Some(Lane::High),
        }
    }
}
