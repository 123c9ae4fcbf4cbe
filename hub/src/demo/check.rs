//! What the demo caused, and whether the store has it.

use serde_json::Value;

use crate::store::read::Row;

/// One thing the demo did, and the rows it must lead to.
#[derive(Clone, Debug)]
pub struct Cause {
    /// For the screen.
    pub what: String,
    /// The `RawEventName` of the rows.
    pub kind: &'static str,
    /// Each needs a row of its own kind that matches.
    pub rows: Vec<Pattern>,
}

/// Top-level keys of `EventDetails` with what they have to hold.
pub type Pattern = Vec<(&'static str, Want)>;

/// What a value has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// This string.
    Text(String),
    /// This number.
    Number(i64),
    /// A string with this in it.
    Part(String),
}

/// A row with its details taken apart.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The row.
    pub row: Row,
    /// Its `EventDetails`.
    pub details: Value,
}

impl Seen {
    /// Takes the details apart. The store only has details that are JSON.
    pub fn new(row: Row) -> Seen {
        let details = serde_json::from_str(&row.event_details).unwrap_or_default();
        Seen { row, details }
    }

    /// A string of the details, or of their `ExtraDetails`; empty when there is none.
    pub fn text(&self, key: &str) -> &str {
        let value = self.details.get(key).or_else(|| self.details.get("ExtraDetails")?.get(key));
        value.and_then(Value::as_str).unwrap_or_default()
    }
}

impl Cause {
    /// The patterns no row matches.
    pub fn missing(&self, seen: &[Seen]) -> Vec<&Pattern> {
        let found =
            |pattern: &&Pattern| seen.iter().any(|seen| seen.row.raw_event_name == self.kind && fits(pattern, seen));
        self.rows.iter().filter(|pattern| !found(pattern)).collect()
    }

    /// Whether a row is one of those this caused.
    pub fn explains(&self, seen: &Seen) -> bool {
        seen.row.raw_event_name == self.kind && self.rows.iter().any(|pattern| fits(pattern, seen))
    }
}

/// A pattern in words, for a row that is missing.
pub fn in_words(pattern: &Pattern) -> String {
    let words = pattern.iter().map(|(key, want)| match want {
        Want::Text(text) => format!("{key} {text:?}"),
        Want::Number(number) => format!("{key} {number}"),
        Want::Part(part) => format!("{key} with {part:?}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn fits(pattern: &Pattern, seen: &Seen) -> bool {
    pattern.iter().all(|(key, want)| {
        let value = seen.details.get(key);
        match want {
            Want::Text(text) => value.and_then(Value::as_str) == Some(text),
            Want::Number(number) => value.and_then(Value::as_i64) == Some(*number),
            Want::Part(part) => value.and_then(Value::as_str).is_some_and(|text| text.contains(part)),
        }
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row as the store gives it.
    pub fn seen(kind: &str, details: &str) -> Seen {
        Seen::new(Row {
            time_generated: String::new(),
            agent_version: String::new(),
            associated_resource_id: String::new(),
            azure_subscription_id: String::new(),
            device_id: "d".to_owned(),
            event_details: details.to_owned(),
            iot_raw_event_id: "1".to_owned(),
            is_empty: false,
            raw_event_category: String::new(),
            raw_event_name: kind.to_owned(),
            raw_event_type: String::new(),
            time_stamp: String::new(),
            table: String::new(),
            payload_index: 0,
        })
    }

    #[test]
    fn a_cause_is_satisfied_by_values_of_its_own_kind_only() {
        let cause = Cause {
            what: String::new(),
            kind: "ProcessCreate",
            rows: vec![vec![("CommandLine", Want::Part("cpuminer".to_owned())), ("ProcessId", Want::Number(7))]],
        };
        let wrong = [
            seen("ProcessCreate", r#"{"CommandLine":"cpuminer","ProcessId":8}"#),
            seen("ProcessCreate", r#"{"CommandLine":"cpuminer","ProcessId":"7"}"#),
            seen("ProcessCreate", r#"{"ExtraDetails":{"CommandLine":"cpuminer"},"ProcessId":7}"#),
            seen("Login", r#"{"CommandLine":"cpuminer","ProcessId":7}"#),
            seen("ProcessCreate", "not JSON"),
        ];
        assert_eq!(cause.missing(&wrong).len(), 1);
        assert_eq!(in_words(cause.missing(&[])[0]), r#"CommandLine with "cpuminer", ProcessId 7"#);
        let right = seen("ProcessCreate", r#"{"CommandLine":"echo cpuminer-multi","ProcessId":7}"#);
        assert!(cause.explains(&right) && !cause.explains(&wrong[0]));
        assert!(cause.missing(&[right]).is_empty());
    }
}
