//! The micro agent's flat keys directly under `properties.desired`, without a wrapper. They mean the same settings as
//! the published object, which wins over them where both say something.
//!
//! ```text
//! "CollectorsCore_PriorityIntervals": "30,120,1440"      minutes: High, Medium, Low; we have no Medium
//! "Login_Disabled": false, "Login_MessageFrequency": "High", "Process_Mode": 2
//! ```

use std::time::Duration;

use collector_common::collector::ProcessBackend;
use collector_common::event::kind::Kind;
use collector_common::event::payload::ConfigurationFault;

use super::document::{Entry, Reader, is_null, shown, string};
use super::origin::Origins;
use super::problem::{Problem, Report};
use super::published::{HIGH, LOW};
use super::settings::{Priority, Settings};

const INTERVALS: &str = "CollectorsCore_PriorityIntervals";
const MODE: &str = "Process_Mode";

/// The micro agent's collectors, and the kind of event each is here.
const COLLECTORS: [(&str, Option<Kind>); 11] = [
    ("Baseline", None),
    ("FileSystem", None),
    ("Heartbeat", None),
    ("LogCollector", None),
    ("Login", Some(Kind::Login)),
    ("NetworkActivity", None),
    ("Peripheral", None),
    ("Process", Some(Kind::ProcessCreate)),
    ("SBoM", None),
    ("Statistics", Some(Kind::MessageStatistics)),
    ("SystemInformation", None),
];

/// Keys that are about what this agent does not do; accepted, whatever their value.
const UNUSED: [&str; 13] = [
    "Baseline_ChecksDisabled",
    "Baseline_GroupsDisabled",
    "FileSystem_Paths",
    "FileSystem_Recursive",
    "IothubModule_MessageTimeout",
    "Login_UsePAM",
    "NetworkActivity_Devices",
    "NetworkActivity_PacketBufferSize",
    "Process_PollingInterval",
    "SystemInformation_FirmwareVendor",
    "SystemInformation_FirmwareVersion",
    "SystemInformation_HardwareModel",
    "SystemInformation_HardwareVendor",
];

/// The keys that set something here; for the nearest known one.
pub fn names() -> impl Iterator<Item = &'static str> {
    [
        INTERVALS,
        MODE,
        "Login_Disabled",
        "Login_MessageFrequency",
        "Process_Disabled",
        "Process_MessageFrequency",
        "Statistics_Disabled",
        "Statistics_MessageFrequency",
    ]
    .into_iter()
}

/// Every key the micro agent knew.
#[cfg(test)]
pub fn every_name() -> impl Iterator<Item = String> {
    let of_collectors = COLLECTORS.iter().flat_map(|(collector, _)| {
        ["Disabled", "MessageFrequency", "CacheSize"].map(|rest| format!("{collector}_{rest}"))
    });
    [INTERVALS, MODE].into_iter().chain(UNUSED).map(str::to_owned).chain(of_collectors)
}

/// Whether the micro agent knew this key.
pub fn is_key(name: &str) -> bool {
    let of_collector = name.split_once('_').is_some_and(|(collector, rest)| {
        COLLECTORS.iter().any(|(known, _)| *known == collector)
            && matches!(rest, "Disabled" | "MessageFrequency" | "CacheSize")
    });
    of_collector || name == INTERVALS || name == MODE || UNUSED.contains(&name)
}

/// Applies those of the members that set something here. The order in the file means nothing: what is off stays off.
pub fn apply<'a>(reader: &mut Reader<'a>, members: &[Entry<'a>], settings: &mut Settings, origins: &mut Origins) {
    let (off, others): (Vec<_>, Vec<_>) = members
        .iter()
        .filter(|entry| is_key(&entry.key) && !is_null(entry.value))
        .partition(|entry| entry.key.ends_with("_Disabled"));
    for entry in others.into_iter().chain(off) {
        match take(&entry.key, entry.value, settings) {
            Ok(touched) => {
                for key in touched {
                    origins.insert(key, reader.origin(entry.key_text));
                }
                if entry.key == INTERVALS {
                    reader.written.push((HIGH, reader.problem(entry.value, HIGH, "", shown(entry.value))));
                }
            }
            Err(expected) => {
                let problem = reader.problem(entry.value, &entry.key, expected, shown(entry.value));
                let report = Report { fault: ConfigurationFault::TypeMismatch, in_force: String::new() };
                reader.warnings.push(Problem { report: Some(report), ..problem });
            }
        }
    }
}

/// The published keys that were set; an error is what was expected.
fn take(key: &str, value: &str, settings: &mut Settings) -> Result<Vec<String>, &'static str> {
    if key == INTERVALS {
        let [high, _, low] = string(value)
            .and_then(|text| minutes(&text))
            .ok_or("the minutes of High, Medium and Low from 1 to 527040, such as \"30,120,1440\"")?;
        (settings.high_interval, settings.low_interval) = (high, low);
        return Ok(vec![HIGH.to_owned(), LOW.to_owned()]);
    }
    if key == MODE {
        settings.collectors.process_backend = match value {
            "1" => ProcessBackend::Auto,
            "2" => ProcessBackend::Connector,
            "3" => ProcessBackend::Poll,
            _ => return Err("1 (auto), 2 (netlink) or 3 (polling)"),
        };
        return Ok(vec!["edgewarden.processBackend".to_owned()]);
    }
    let found = key.split_once('_').and_then(|(collector, rest)| {
        COLLECTORS.iter().find(|(known, _)| *known == collector).and_then(|(_, kind)| kind.map(|kind| (kind, rest)))
    });
    let Some((kind, rest)) = found else { return Ok(Vec::new()) };
    let priority = match rest {
        "Disabled" => match serde_json::from_str(value).map_err(|_| "true or false")? {
            true => Priority::Off,
            false if settings.priority(kind) == Priority::Off => Settings::default().priority(kind),
            false => return Ok(Vec::new()),
        },
        "MessageFrequency" => match string(value).as_deref() {
            Some("High") => Priority::High,
            Some("Medium" | "Low") => Priority::Low,
            _ => return Err("\"High\", \"Medium\" or \"Low\""),
        },
        _ => return Ok(Vec::new()),
    };
    settings.set_priority(kind, priority);
    Ok(vec![format!("eventPriority{}", kind.name())])
}

fn minutes(text: &str) -> Option<[Duration; 3]> {
    let parts: Option<Vec<_>> = text.split(',').map(|part| part.trim().parse::<u64>().ok()).collect();
    let parts: [u64; 3] = parts?.try_into().ok()?;
    parts.iter().all(|minutes| (1..=527_040).contains(minutes)).then(|| parts.map(|m| Duration::from_secs(m * 60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_man_page() {
        let man = include_str!("../../../packaging/man/edgewarden-twin.5");
        for key in names().chain(UNUSED).chain(COLLECTORS.map(|(collector, _)| collector)) {
            let is_named = |word: &str| word.trim_end_matches(',') == key || word.starts_with(&format!("{key}_"));
            assert!(man.split_whitespace().any(is_named), "{key}");
            assert!(COLLECTORS.iter().any(|(collector, _)| *collector == key) || is_key(key), "{key}");
        }
    }
}
