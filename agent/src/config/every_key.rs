//! Every key of a desired document with good, boundary, wrong and contradicting values: what is in force then, what an
//! operator reads and what the hub is told, word by word in `tests/fixtures/twins/keys.txt`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::layers::Layers;
use super::published::{KEYS, OBJECT};
use super::{load, local, micro};
use crate::status::words::tests::check_golden;
use crate::twin::Desired;

const INTERVALS: &str = r#"["PT7M", "PT1S", "P366D", "P1M", "P1W", "PT1.5S", "P0.5D", "PT0.9S", "P367D", "P1Y2D", "7m", "P", 7, 1e308, null]"#;
const PRIORITIES: &str = r#"["Off", "Low", "High", "high", "Medium", "", 1, true, null]"#;
const SWITCHES: &str = r#"[true, false, "true", 1, null]"#;
const WORDS: &str = r#"["x", 7, {}, null]"#;

/// The values a key is tried with.
fn values(key: &str) -> Value {
    let text = match key {
        "maxLocalCacheSizeInBytes" => {
            "[2560000, 8192, 1099511627776, 8191, 1099511627777, 8192.5, -1, 1e308, \"8192\"]"
        }
        "maxMessageSizeInBytes" => "[204800, 8192, 262144, 10000, 8191, 262145, -1, \"8192\", true]",
        "aggregationEnabledProcessCreate" => SWITCHES,
        "CollectorsCore_PriorityIntervals" => {
            r#"["30,120,1440", " 1, 1 ,1", "1,1,527040", "1,1,527041", "0,1,1", "30,120", "1440,120,30", 30]"#
        }
        "Process_Mode" => "[1, 2, 3, 0, 4, \"2\"]",
        "edgewarden.floor" => r#"[["eventPriorityLogin"], []]"#,
        "edgewarden.loginSource" => r#"["auto", "journal", "/etc/shadow", 7]"#,
        "edgewarden.maxBytesPerDay" => "[65536, 65535, -1, 1e308, \"65536\"]",
        "edgewarden.processBackend" => r#"["auto", "bpf", "audit", "connector", "poll", "auditd"]"#,
        "edgewarden.processSnapshot" => SWITCHES,
        "edgewarden.spoolSyncHigh" | "edgewarden.spoolSyncLow" => {
            r#"["PT1S", "PT0.01S", "PT1H", "PT0.009S", "PT1H1S", 1]"#
        }
        key if key.starts_with("eventPriority") => PRIORITIES,
        key if key.ends_with("_MessageFrequency") => r#"["High", "Medium", "Low", "high", 1]"#,
        key if key.ends_with("_Disabled") => SWITCHES,
        key if key.ends_with("Frequency") || key.starts_with("aggregationInterval") => INTERVALS,
        _ => WORDS,
    };
    serde_json::from_str(text).unwrap()
}

/// Documents whose values are each right and do not go together, or do not pay.
fn contradictions() -> [Value; 5] {
    let published = |members: Value| json!({ OBJECT: members });
    let high = |text: &str| json!({ "value": text });
    [
        published(json!({ "highPriorityMessageFrequency": high("PT10H") })),
        published(json!({ "highPriorityMessageFrequency": high("PT2H"), "lowPriorityMessageFrequency": high("PT1H") })),
        published(json!({ "maxLocalCacheSizeInBytes": {"value": 8192}, "maxMessageSizeInBytes": {"value": 204_800} })),
        published(json!({ "maxMessageSizeInBytes": {"value": 10_000}, "eventPriorityLogn": high("Off") })),
        json!({ "Login_Disable": true, "connection": {}, "edgewardn": {} }),
    ]
}

/// What a document comes to.
fn told(document: &Value) -> String {
    let mut layers = Layers::new(load("twin.json", "{}", None).unwrap());
    let before = layers.effective();
    let applied = layers.desired(&[Desired::Whole { bytes: document.to_string().into_bytes(), version: 4 }]);
    let mut text = String::new();
    for row in layers.effective().iter().filter(|row| !before.contains(row)) {
        writeln!(text, "    {} = {}", row.key, row.value).unwrap();
    }
    for lowered in &applied.lowered {
        writeln!(text, "    lowered: {} from {} to {}", lowered.key, lowered.from, lowered.to).unwrap();
    }
    applied.problems.iter().for_each(|problem| writeln!(text, "    {problem}").unwrap());
    for error in &applied.errors {
        let (name, used) = (&error.configuration_name, &error.used_configuration);
        writeln!(text, "    {:?} {name}, used {used}", error.error_type).unwrap();
        assert!(applied.problems.iter().any(|problem| problem.to_string() == error.message), "{error:?}");
    }
    text
}

#[test]
fn every_key_and_every_kind_of_value_is_answered_word_by_word() {
    let mut text = String::new();
    let published = KEYS.iter().map(|key| (key.name.to_owned(), true));
    let micro = micro::every_name().map(|name| (name, false));
    let own = local::OWN_KEYS.iter().map(|name| (format!("edgewarden.{name}"), false));
    for (key, is_wrapped) in published.chain(micro).chain(own) {
        for value in values(&key).as_array().unwrap() {
            let written = if is_wrapped { json!({ "value": value }) } else { value.clone() };
            let document = match (key.strip_prefix("edgewarden."), is_wrapped) {
                (Some(own), _) => json!({ "edgewarden": { own: written } }),
                (None, true) => json!({ OBJECT: { &key: written } }),
                (None, false) => json!({ &key: written }),
            };
            let told = told(&document);
            writeln!(text, "{key} {value}\n{told}").unwrap();
        }
    }
    contradictions().iter().for_each(|document| writeln!(text, "{document}\n{}", told(document)).unwrap());
    let text: String = text.lines().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    check_golden("../twins/keys.txt", &text);
}
