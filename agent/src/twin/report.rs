//! What the hub is told is in force, and how the agent is. Pure.
//!
//! ```text
//! "ms_iotn:...": {KEY: {"value": X}, ...}    every published key in force
//! "edgewarden": {KEY: X, ...}                our own
//! "latest_state", "latest_invalid_fields"    as the micro agent said it
//! "edgewardenStatus": {"agentVersion", "collectors": {NAME: {"state", "backend", "gap", "reason"}},
//!                      "lost": {KIND: {CAUSE: N}}, "spool": {..}, "figures": {..}}
//! ```
//!
//! Azure IoT Hub takes 32 KiB, texts of 4 KiB, and no key with a dot in it.

use serde_json::{Map, Value, json};

use crate::config::layers::Layers;
use crate::status::Status;

/// The object of what is no setting.
pub const STATUS_OBJECT: &str = "edgewardenStatus";

/// What changes all the time, and is no reason for a report of its own.
const FIGURES: &str = "figures";

/// The longest text about the agent's state, and the longest of all, such as a path: bytes.
const MAX_STATE_BYTES: usize = 1000;
const MAX_TEXT_BYTES: usize = 4000;

/// Everything to report. What is null is left out: a report cannot hold it.
pub fn reported(layers: &Layers, status: &Status) -> Value {
    let mut report = layers.reported_settings();
    let collectors: Map<_, _> = status
        .collectors
        .iter()
        .map(|(name, facts)| {
            let text = |text: &Option<String>| text.as_deref().map(|text| cut(text, MAX_STATE_BYTES).to_owned());
            let (backend, gap, reason) = (text(&facts.backend), text(&facts.gap), text(&facts.reason));
            (name.clone(), json!({ "state": facts.state, "backend": backend, "gap": gap, "reason": reason }))
        })
        .collect();
    let mut lost = json!({});
    for (name, events) in &status.lost {
        let (kind, cause) = name.split_once('.').unwrap_or((name, "unknown"));
        lost[kind][cause] = json!(events);
    }
    let spool = &status.spool;
    report[STATUS_OBJECT] = json!({
        "agentVersion": status.version,
        "desiredVersion": layers.version(),
        "collectors": collectors,
        "lost": lost,
        "spool": { "isFull": spool.full, "isDiskShort": spool.disk_short, "damages": spool.damage.len() },
        FIGURES: {
            "spoolBytes": spool.bytes,
            "oldestAgeSeconds": spool.oldest_age_seconds,
            "collectedEvents": status.events.collected,
            "acknowledgedEvents": status.events.acknowledged,
            "sentBytes": status.link.sent_bytes,
        },
    });
    tidy(&mut report);
    report
}

/// Whether something is new that is more than a figure.
pub fn is_news(known: &Value, report: &Value) -> bool {
    let [known, report] = [known, report].map(|value| {
        let mut value = value.clone();
        if let Some(status) = value.get_mut(STATUS_OBJECT).and_then(Value::as_object_mut) {
            status.remove(FIGURES);
        }
        value
    });
    !is_empty(&change(&known, &report))
}

/// What turns the first into the second (RFC 7396). What is not ours at the top is left alone: an application may share
/// the identity.
pub fn change(known: &Value, report: &Value) -> Value {
    let (Value::Object(known), Value::Object(report)) = (known, report) else { return report.clone() };
    let changed = report.iter().filter_map(|(key, value)| {
        let change = known.get(key).map_or_else(|| value.clone(), |known| difference(known, value));
        (!known.contains_key(key) || !is_empty(&change)).then(|| (key.clone(), change))
    });
    Value::Object(changed.filter(|(key, _)| known.get(key) != report.get(key)).collect())
}

fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (from, to) else { return to.clone() };
    let Value::Object(mut changed) = change(from, to) else { return to.clone() };
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    changed.extend(gone.map(|key| (key.clone(), Value::Null)));
    Value::Object(changed)
}

fn is_empty(change: &Value) -> bool {
    change.as_object().is_some_and(Map::is_empty)
}

fn tidy(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(tidy);
        }
        Value::String(text) => text.truncate(cut(text, MAX_TEXT_BYTES).len()),
        _ => {}
    }
}

fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::ALL;
    use crate::config::load;
    use crate::config::published::{KEYS, OBJECT};
    use crate::status::CollectorFacts;
    use crate::status::words::tests::well;
    use crate::twin::Desired;

    /// The rules of Azure IoT Hub for reported properties.
    fn check(value: &Value) {
        match value {
            Value::String(text) => assert!(text.len() <= 4096, "{text}"),
            Value::Object(members) => members.iter().for_each(|(key, value)| {
                assert!(!key.is_empty() && !key.contains(['.', '$', ' ']), "{key:?}");
                check(value);
            }),
            Value::Null => panic!("null takes away"),
            _ => {}
        }
    }

    #[test]
    fn the_largest_report_is_one_that_azure_iot_hub_takes() {
        let long = "ü".repeat(100_000);
        let floor: Vec<_> =
            KEYS.iter().map(|key| key.name).filter(|key| crate::config::lowering::is_key(key)).collect();
        let floor = floor.repeat(100);
        let file =
            json!({"properties": {"desired": {"edgewarden": {"floor": floor, "loginSource": format!("/{long}")}}}});
        let mut layers = Layers::new(load("twin.json", &file.to_string(), None).unwrap());
        let mut document = json!({OBJECT: {"hubResourceId": {"value": "r".repeat(1024)}}});
        for number in 0..1000 {
            document["edgewarden"][format!("{number}{}", &long[..20])] = json!(1);
        }
        let applied = layers.desired(&[Desired::Whole { bytes: document.to_string().into_bytes(), version: u64::MAX }]);
        assert!(!applied.is_refused);
        let mut status = well();
        let [backend, gap, reason] = [0; 3].map(|_| Some(long.clone()));
        let facts = CollectorFacts { state: "degraded".to_owned(), backend, gap, reason };
        status.collectors = ALL.iter().map(|all| (all.kind().name().to_owned(), facts.clone())).collect();
        status.lost = ["Login.overrun", "Login.spoolFull", "Unknown.damaged"].map(|n| (n.to_owned(), u64::MAX)).into();
        let report = reported(&layers, &status);
        check(&report);
        let bytes = report.to_string().len();
        assert!((16 * 1024..32 * 1024).contains(&bytes), "{bytes}");
        assert_eq!(report[STATUS_OBJECT]["lost"]["Login"]["spoolFull"], u64::MAX);
    }

    #[test]
    fn a_change_says_what_is_new_and_what_is_gone_and_leaves_others_alone() {
        let known = json!({"a": {"x": 1, "y": {"z": 2}}, "b": 3, "$version": 7, "theirs": true, "e": {"f": 1}});
        let report = json!({"a": {"x": 1, "y": {"w": 4}}, "b": 3, "c": {}, "e": {}});
        assert_eq!(change(&known, &report), json!({"a": {"y": {"w": 4, "z": null}}, "c": {}, "e": {"f": null}}));
        assert!(is_empty(&change(&report, &report)));
        assert_eq!(change(&json!({"a": 1}), &json!({"a": {"b": 1}})), json!({"a": {"b": 1}}));
    }

    #[test]
    fn figures_alone_are_no_news() {
        let report = |bytes: u64, state: &str| json!({STATUS_OBJECT: {"figures": {"spoolBytes": bytes}, "collectors": {"Login": {"state": state}}}});
        assert!(!is_news(&report(1, "running"), &report(2, "running")));
        assert!(is_news(&report(1, "running"), &report(1, "off")));
    }
}
