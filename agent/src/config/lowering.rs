//! What shows the hub less, or later: by key, one rule for each kind of field.
//!
//! ```text
//! interval longer · priority lower · cache smaller · aggregation on · less a day · sync later · snapshot off
//! processExclude, processInclude and redactAlso hide more · processFloodRate lower · processHash off
//! foldFailedLogins on · processBackend to "poll" · loginSource to any other
//! ```

use collector_common::collector::ProcessBackend;

use super::own_values;
use super::published::{self, KEYS};
use super::settings::Settings;

/// A key whose value shows less than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// The key, own ones with their object.
    pub key: String,
    /// What was in force, as JSON text.
    pub from: String,
    /// What is.
    pub to: String,
}

/// One of our own keys: its name, when the second value is lower than the first, and how the first is kept.
struct Own {
    name: &'static str,
    is_lowered: fn(&Settings, &Settings) -> bool,
    keep: fn(&Settings, &mut Settings),
}

const OWN: [Own; 12] = [
    Own {
        name: "edgewarden.foldFailedLogins",
        is_lowered: |from, to| !from.collectors.fold_failed_logins && to.collectors.fold_failed_logins,
        keep: |from, to| to.collectors.fold_failed_logins = from.collectors.fold_failed_logins,
    },
    Own {
        name: "edgewarden.loginSource",
        // No order is known among sources: the other one may be empty.
        is_lowered: |from, to| from.collectors.login_source != to.collectors.login_source,
        keep: |from, to| to.collectors.login_source = from.collectors.login_source.clone(),
    },
    Own {
        name: "edgewarden.maxBytesPerDay",
        is_lowered: |from, to| to.max_bytes_per_day.unwrap_or(u64::MAX) < from.max_bytes_per_day.unwrap_or(u64::MAX),
        keep: |from, to| to.max_bytes_per_day = from.max_bytes_per_day,
    },
    Own {
        name: "edgewarden.processBackend",
        is_lowered: |from, to| {
            let is_poll = |settings: &Settings| settings.collectors.process_backend == ProcessBackend::Poll;
            is_poll(to) && !is_poll(from)
        },
        keep: |from, to| to.collectors.process_backend = from.collectors.process_backend,
    },
    Own {
        name: "edgewarden.processExclude",
        is_lowered: |from, to| to.process_exclude.iter().any(|rule| !from.process_exclude.contains(rule)),
        keep: |from, to| to.process_exclude = from.process_exclude.clone(),
    },
    Own {
        name: "edgewarden.processFloodRate",
        is_lowered: |from, to| to.process_flood_rate.unwrap_or(u64::MAX) < from.process_flood_rate.unwrap_or(u64::MAX),
        keep: |from, to| to.process_flood_rate = from.process_flood_rate,
    },
    Own {
        name: "edgewarden.processHash",
        is_lowered: |from, to| from.collectors.process_hash && !to.collectors.process_hash,
        keep: |from, to| to.collectors.process_hash = from.collectors.process_hash,
    },
    Own {
        name: "edgewarden.processInclude",
        // Without any rule everything is included.
        is_lowered: |from, to| {
            let (from, to) = (&from.process_include, &to.process_include);
            !to.is_empty() && (from.is_empty() || from.iter().any(|rule| !to.contains(rule)))
        },
        keep: |from, to| to.process_include = from.process_include.clone(),
    },
    Own {
        name: "edgewarden.processSnapshot",
        is_lowered: |from, to| from.collectors.process_snapshot && !to.collectors.process_snapshot,
        keep: |from, to| to.collectors.process_snapshot = from.collectors.process_snapshot,
    },
    Own {
        name: "edgewarden.redactAlso",
        is_lowered: |from, to| {
            let (from, to) = (&from.collectors.redaction, &to.collectors.redaction);
            to.own().iter().any(|word| !from.own().contains(word))
        },
        keep: |from, to| to.collectors.redaction = from.collectors.redaction.clone(),
    },
    Own {
        name: "edgewarden.spoolSyncHigh",
        is_lowered: |from, to| to.spool_sync_high > from.spool_sync_high,
        keep: |from, to| to.spool_sync_high = from.spool_sync_high,
    },
    Own {
        name: "edgewarden.spoolSyncLow",
        is_lowered: |from, to| to.spool_sync_low > from.spool_sync_low,
        keep: |from, to| to.spool_sync_low = from.spool_sync_low,
    },
];

/// Whether `edgewarden.floor` may name this key.
pub fn is_key(name: &str) -> bool {
    OWN.iter().any(|own| own.name == name)
        || published::effective(&Settings::default()).iter().any(|(key, _)| *key == name)
}

/// Every key that is lower in the second settings.
pub fn lowered(from: &Settings, to: &Settings) -> Vec<Lowered> {
    let own = OWN.iter().filter(|own| (own.is_lowered)(from, to)).map(|own| own.name);
    let published = KEYS.iter().filter(|key| key.is_lowered(from, to)).map(|key| key.name);
    own.chain(published)
        .map(|key| Lowered { key: key.to_owned(), from: value(from, key), to: value(to, key) })
        .collect()
}

/// Gives the second settings the value of the first.
pub fn keep(key: &str, from: &Settings, to: &mut Settings) {
    if let Some(own) = OWN.iter().find(|own| own.name == key) {
        (own.keep)(from, to);
    }
    if let Some(published) = KEYS.iter().find(|published| published.name == key) {
        published.keep(from, to);
    }
}

/// The value in force as JSON text; `null` for a key that is not known.
pub fn value(settings: &Settings, key: &str) -> String {
    let own = own_values(settings).into_iter().find(|(name, _)| name == key).map(|(_, value)| value);
    let published =
        || published::effective(settings).into_iter().find(|(name, _)| *name == key).map(|(_, value)| value);
    own.or_else(published).unwrap_or_else(|| "null".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::local::OWN_KEYS;

    #[test]
    fn every_key_of_our_own_that_the_hub_may_set_has_a_rule() {
        let ruled: Vec<_> = OWN.iter().map(|own| own.name.trim_start_matches("edgewarden.")).collect();
        let keys: Vec<_> =
            OWN_KEYS.into_iter().filter(|key| !["floor", "redactSecrets", "usersFromNss"].contains(key)).collect();
        assert_eq!(ruled, keys);
    }
}
