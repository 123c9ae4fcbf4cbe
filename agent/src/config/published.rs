//! The published object `ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration`, key for key
//! (`azureiotsecurity_schema.json`, and the three keys only the C agent knew).
//!
//! ```text
//! "properties": { "desired": { "ms_iotn:...": { "maxMessageSizeInBytes": { "value": 8192 }, ... } } }
//! ```
//!
//! Nothing in here stops the agent: a blind agent is worse than one with a default. A key that cannot be used warns,
//! keeps what it had and tells the hub with a ConfigurationError.

use std::collections::BTreeMap;
use std::time::Duration;

use collector_common::event::kind::Kind;
use collector_common::event::payload::ConfigurationFault;

use super::document::{Entry, Reader, is_null, kind_of, members, shown, string};
use super::duration;
use super::origin::{Origin, Origins};
use super::problem::{Problem, Report};
use super::settings::{Priority, Settings};

/// The key of the object under `properties.desired`.
pub const OBJECT: &str = "ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration";

/// What a message is billed in.
const BILLING_UNIT_BYTES: usize = 4096;
/// More than any resource of a hub is named with, and less than a hub takes in a report.
const MAX_TEXT_BYTES: usize = 1024;
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(366 * 86_400);

pub(super) const HIGH: &str = "highPriorityMessageFrequency";
pub(super) const LOW: &str = "lowPriorityMessageFrequency";
const CACHE: &str = "maxLocalCacheSizeInBytes";
const MESSAGE: &str = "maxMessageSizeInBytes";

/// One key of the published object.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    field: Field,
}

/// What a key holds, in which range, and which setting it is.
enum Field {
    Interval(fn(&mut Settings) -> &mut Duration),
    Size {
        min: u64,
        max: u64,
        get: fn(&Settings) -> u64,
        set: fn(&mut Settings, u64),
    },
    Priority(Kind),
    /// The C agent's one key for the three kinds of operational event.
    Operational,
    Switch(fn(&mut Settings) -> &mut bool),
    Text(fn(&mut Settings) -> &mut Option<String>),
    /// Published, and about something this agent does not do.
    Unused,
}

/// Every key. A later row wins over an earlier one, so that a kind's own key wins over `eventPriorityOperational`.
pub const KEYS: [Key; 30] = [
    key(HIGH, Field::Interval(|settings| &mut settings.high_interval)),
    key(LOW, Field::Interval(|settings| &mut settings.low_interval)),
    key("snapshotFrequency", Field::Interval(|settings| &mut settings.collectors.snapshot_interval)),
    key(
        CACHE,
        Field::Size {
            min: 8192,
            max: 1 << 40,
            get: |settings| settings.max_cache_bytes,
            set: |settings, bytes| settings.max_cache_bytes = bytes,
        },
    ),
    key(
        MESSAGE,
        Field::Size {
            min: 8192,
            max: 262_144,
            get: |settings| u64::try_from(settings.max_message_bytes).unwrap_or(u64::MAX),
            set: |settings, bytes| settings.max_message_bytes = usize::try_from(bytes).unwrap_or(usize::MAX),
        },
    ),
    key("eventPriorityListeningPorts", Field::Priority(Kind::ListeningPorts)),
    key("eventPriorityLocalUsers", Field::Priority(Kind::LocalUsers)),
    key("eventPriorityLogin", Field::Priority(Kind::Login)),
    key("eventPriorityProcessCreate", Field::Priority(Kind::ProcessCreate)),
    key("eventPriorityProcessTerminate", Field::Unused),
    key("eventPriorityConnectionCreate", Field::Unused),
    key("eventPrioritySystemInformation", Field::Unused),
    key("eventPriorityFirewallConfiguration", Field::Unused),
    key("eventPriorityOSBaseline", Field::Unused),
    key("eventPriorityConnectedHardware", Field::Unused),
    key("eventPriorityDiagnostic", Field::Priority(Kind::Diagnostic)),
    key("eventPriorityOperational", Field::Operational),
    key("eventPriorityConfigurationError", Field::Priority(Kind::ConfigurationError)),
    key("eventPriorityDroppedEventsStatistics", Field::Priority(Kind::DroppedEventsStatistics)),
    key("eventPriorityMessageStatistics", Field::Priority(Kind::MessageStatistics)),
    key("aggregationEnabledProcessCreate", Field::Switch(|settings| &mut settings.aggregate_process_create)),
    key("aggregationIntervalProcessCreate", Field::Interval(|settings| &mut settings.aggregation_interval)),
    key("aggregationEnabledConnectionCreate", Field::Unused),
    key("aggregationIntervalConnectionCreate", Field::Unused),
    key("aggregationEnabledProcessTerminate", Field::Unused),
    key("aggregationIntervalProcessTerminate", Field::Unused),
    key("baselineCustomChecksEnabled", Field::Unused),
    key("baselineCustomChecksFilePath", Field::Unused),
    key("baselineCustomChecksFileHash", Field::Unused),
    key("hubResourceId", Field::Text(|settings| &mut settings.hub_resource_id)),
];

const fn key(name: &'static str, field: Field) -> Key {
    Key { name, field }
}

/// Applies the object as it stands in the file.
pub fn apply<'a>(reader: &mut Reader<'a>, object: &'a str, settings: &mut Settings, origins: &mut Origins) {
    let Some(members) = members(object) else {
        let problem = reader.problem(object, OBJECT, "an object with the published keys", kind_of(object));
        let report = Report { fault: ConfigurationFault::TypeMismatch, in_force: "{}".to_owned() };
        warn(reader, problem, "every default is in force", Some(report));
        return;
    };
    let mut refused = Vec::new();
    for key in &KEYS {
        let mut written = members.iter().filter(|entry| entry.key == key.name);
        let Some(entry) = written.next() else { continue };
        if let Some(again) = written.next_back() {
            refused.push((key, again.key_text, "each key once".to_owned(), "it again".to_owned()));
            continue;
        }
        match value_of(entry).and_then(|value| key.take(value, settings)) {
            Ok(true) => {
                origins.insert(key.name.to_owned(), reader.origin(entry.key_text));
                reader.written.push((key.name, reader.problem(entry.value, key.name, "", shown(entry.value))));
            }
            Ok(false) => {}
            Err(expected) => refused.push((key, entry.value, expected, shown(entry.value))),
        }
    }
    for (key, part, expected, found) in refused {
        // What is in force is known only when every layer was read and settled: see `Problem::fill`.
        let report = Report { fault: ConfigurationFault::TypeMismatch, in_force: String::new() };
        let problem = reader.problem(part, key.name, &expected, found);
        reader.warnings.push(Problem { report: Some(report), ..problem });
    }
    warn_of_unknown(reader, &members);
}

/// The keys that are in force here, each with its value as JSON text.
pub fn effective(settings: &Settings) -> Vec<(&'static str, String)> {
    let used = KEYS.iter().filter(|key| !matches!(key.field, Field::Unused | Field::Operational));
    used.map(|key| (key.name, key.in_force(settings))).collect()
}

impl Key {
    /// Puts a value into the settings. `Ok(false)` when it is null, which means absent; else what was expected.
    fn take(&self, value: &str, settings: &mut Settings) -> Result<bool, String> {
        if is_null(value) || matches!(self.field, Field::Unused) {
            return Ok(false);
        }
        let taken = match &self.field {
            Field::Interval(field) => string(value)
                .and_then(|text| duration::parse(&text))
                .filter(|interval| (MIN_INTERVAL..=MAX_INTERVAL).contains(interval))
                .map(|interval| *field(settings) = interval),
            Field::Size { min, max, set, .. } => serde_json::from_str::<u64>(value)
                .ok()
                .filter(|bytes| (min..=max).contains(&bytes))
                .map(|bytes| set(settings, bytes)),
            Field::Priority(kind) => priority(value).map(|priority| settings.set_priority(*kind, priority)),
            Field::Operational => priority(value).map(|priority| {
                for kind in [Kind::ConfigurationError, Kind::DroppedEventsStatistics, Kind::MessageStatistics] {
                    settings.set_priority(kind, priority);
                }
            }),
            Field::Switch(field) => serde_json::from_str(value).ok().map(|switch| *field(settings) = switch),
            Field::Text(field) => {
                string(value).filter(|text| text.len() <= MAX_TEXT_BYTES).map(|text| *field(settings) = Some(text))
            }
            Field::Unused => Some(()),
        };
        taken.map(|()| true).ok_or_else(|| self.expected())
    }

    fn expected(&self) -> String {
        match &self.field {
            Field::Interval(_) => {
                let (min, max) = (duration::format(MIN_INTERVAL), duration::format(MAX_INTERVAL));
                format!(r#"{{"value": an ISO 8601 duration from "{min}" to "{max}", such as "PT7M"}}"#)
            }
            Field::Size { min, max, .. } => format!(r#"{{"value": a whole number from {min} to {max}}}"#),
            Field::Priority(_) | Field::Operational => r#"{"value": "Off", "Low" or "High"}"#.to_owned(),
            Field::Switch(_) => r#"{"value": true or false}"#.to_owned(),
            Field::Text(_) | Field::Unused => format!(r#"{{"value": a string of at most {MAX_TEXT_BYTES} bytes}}"#),
        }
    }

    /// The value in force as JSON text. Text is the only value that could need escapes, and serde_json writes it.
    fn in_force(&self, settings: &Settings) -> String {
        let mut copy = settings.clone();
        match &self.field {
            Field::Interval(field) => format!("\"{}\"", duration::format(*field(&mut copy))),
            Field::Size { get, .. } => get(settings).to_string(),
            Field::Priority(kind) => format!("\"{}\"", settings.priority(*kind).name()),
            Field::Operational => format!("\"{}\"", settings.priority(Kind::ConfigurationError).name()),
            Field::Switch(field) => field(&mut copy).to_string(),
            Field::Text(field) => serde_json::json!(field(&mut copy)).to_string(),
            Field::Unused => "null".to_owned(),
        }
    }
}

fn priority(value: &str) -> Option<Priority> {
    string(value).and_then(|name| Priority::from_name(&name))
}

/// What stands in the wrapper `{"value": X}`; a key that is null itself is absent too.
fn value_of<'a>(entry: &Entry<'a>) -> Result<&'a str, String> {
    if is_null(entry.value) {
        return Ok(entry.value);
    }
    let wrapped = members(entry.value).and_then(|members| members.into_iter().rfind(|member| member.key == "value"));
    wrapped.map(|member| member.value).ok_or_else(|| r#"an object {"value": ...}"#.to_owned())
}

fn warn_of_unknown(reader: &mut Reader, members: &[Entry]) {
    for entry in members.iter().filter(|entry| KEYS.iter().all(|key| key.name != entry.key)) {
        let expected = match reader.meant(&entry.key, KEYS.iter().map(|key| key.name)) {
            Some(meant) => format!("a published key (did you mean \"{meant}\"?)"),
            None => "a published key".to_owned(),
        };
        let problem = reader.problem(entry.key_text, &entry.key, &expected, "an unknown key");
        warn(reader, problem, "it is ignored", None);
    }
}

/// Settles values that are each right and do not go together, when all layers are read. `written` says where each
/// published key was written last.
pub fn settle(
    file: &str,
    written: &BTreeMap<&'static str, Problem>,
    settings: &mut Settings,
    origins: &mut Origins,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut note = |name: &'static str, fault, expected: String, settings: &Settings| {
        let in_force = KEYS.iter().find(|key| key.name == name).map_or_else(String::new, |key| key.in_force(settings));
        let unwritten = || Problem { key: name.to_owned(), ..Problem::of_file(file, "", "the default") };
        problems.push(Problem {
            expected,
            consequence: Some(format!("{in_force} is in force")),
            report: Some(Report { fault, in_force }),
            ..written.get(name).cloned().unwrap_or_else(unwritten)
        });
    };
    let low = duration::format(settings.low_interval);
    // What somebody wrote wins over a default. Of two that were written the shorter wins: news of a break-in must not
    // wait longer than news of the everyday.
    if settings.high_interval > settings.low_interval {
        // A floor names the one as somebody's will, even where its value is the default.
        if origins.contains_key(LOW) || settings.floor.iter().any(|key| key == LOW) {
            settings.high_interval = settings.low_interval;
            origins.insert(HIGH.to_owned(), Origin::Lowered(LOW));
        } else {
            settings.low_interval = settings.high_interval;
            origins.insert(LOW.to_owned(), Origin::Raised(HIGH));
        }
        note(HIGH, ConfigurationFault::Conflict, format!("no more than {LOW}, which is {low}"), settings);
    }
    let cache = usize::try_from(settings.max_cache_bytes).unwrap_or(usize::MAX);
    if cache < settings.max_message_bytes {
        settings.max_message_bytes = cache - cache % BILLING_UNIT_BYTES;
        origins.insert(MESSAGE.to_owned(), Origin::Lowered(CACHE));
        note(CACHE, ConfigurationFault::Conflict, format!("no less than {MESSAGE}"), settings);
    } else if !settings.max_message_bytes.is_multiple_of(BILLING_UNIT_BYTES) {
        let expected = format!("a multiple of {BILLING_UNIT_BYTES}, the unit messages are billed in");
        note(MESSAGE, ConfigurationFault::NotOptimal, expected, settings);
    }
    problems
}

impl Key {
    /// Whether the second value shows the hub less, or later, than the first.
    pub fn is_lowered(&self, from: &Settings, to: &Settings) -> bool {
        let (mut before, mut after) = (from.clone(), to.clone());
        match &self.field {
            Field::Interval(field) => *field(&mut after) > *field(&mut before),
            // A smaller message delays nothing; only a smaller cache forgets.
            Field::Size { get, .. } => self.name == CACHE && get(to) < get(from),
            Field::Priority(kind) => to.priority(*kind) < from.priority(*kind),
            Field::Switch(field) => *field(&mut after) && !*field(&mut before),
            Field::Operational | Field::Text(_) | Field::Unused => false,
        }
    }

    /// Gives the second settings the value of the first.
    pub fn keep(&self, from: &Settings, to: &mut Settings) {
        let mut before = from.clone();
        match &self.field {
            Field::Interval(field) => *field(to) = *field(&mut before),
            Field::Size { get, set, .. } => set(to, get(from)),
            Field::Priority(kind) => to.set_priority(*kind, from.priority(*kind)),
            Field::Switch(field) => *field(to) = *field(&mut before),
            Field::Operational | Field::Text(_) | Field::Unused => {}
        }
    }
}

fn warn(reader: &mut Reader, problem: Problem, consequence: &str, report: Option<Report>) {
    reader.warnings.push(Problem { consequence: Some(consequence.to_owned()), report, ..problem });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies an object of one key to the defaults; how many warnings there are, and the settings.
    fn applied(name: &str, value: &str) -> (usize, Settings) {
        let text = format!("{{\"{name}\": {value}}}");
        let mut reader = Reader::new("twin.json", &text);
        let mut settings = Settings::default();
        apply(&mut reader, &text, &mut settings, &mut Origins::new());
        (reader.warnings.len(), settings)
    }

    #[test]
    fn every_key_is_known_and_refuses_what_it_cannot_hold() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.name != key.name), "{} is there twice", key.name);
            let warnings = usize::from(!matches!(key.field, Field::Unused));
            for wrong in [r#"{"value": []}"#, r#"{"value": -1}"#, r#"{"value": 1.5}"#] {
                assert_eq!(applied(key.name, wrong), (warnings, Settings::default()), "{}: {wrong}", key.name);
            }
        }
    }

    #[test]
    fn every_key_is_in_the_man_page() {
        let man = include_str!("../../../packaging/man/edgewarden-twin.5");
        for key in &KEYS {
            assert!(man.split_whitespace().any(|word| word == key.name), "{}", key.name);
        }
    }

    #[test]
    fn what_is_in_force_can_be_written_back() {
        let settings = Settings::default();
        for (name, value) in effective(&settings) {
            assert_eq!(applied(name, &format!("{{\"value\": {value}}}")), (0, settings.clone()), "{name}");
        }
    }

    #[test]
    fn every_key_changes_a_setting_of_its_own() {
        let mut seen = vec![Settings::default()];
        for key in KEYS.iter().filter(|key| !matches!(key.field, Field::Unused | Field::Operational)) {
            let value = match key.field {
                Field::Interval(_) => "\"PT10M\"",
                Field::Size { .. } => "16384",
                Field::Priority(_) | Field::Operational => "\"Off\"",
                Field::Switch(_) => "true",
                Field::Text(_) | Field::Unused => "\"x\"",
            };
            let (warnings, settings) = applied(key.name, &format!("{{\"value\": {value}}}"));
            assert_eq!(warnings, 0, "{}", key.name);
            assert!(!seen.contains(&settings), "{} changes nothing, or what another key changes", key.name);
            seen.push(settings);
        }
    }
}
