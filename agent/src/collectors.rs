//! The collectors this agent has: one file each, one line in the table.

pub mod exec;
pub mod logins;
pub mod ports;
pub mod users;

use collector_common::collector::Collector;

/// Every collector, in the order `status` and `collect` show them.
pub const ALL: &[&dyn Collector] = &[&users::LocalUsers, &ports::ListeningPorts, &logins::Login, &exec::ProcessCreate];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::{Map, Value};

    use super::ALL;

    fn repository(path: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    fn text(path: &str) -> String {
        fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The part of a Markdown text below a heading, up to the next heading of the same level.
    fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        let (_, below) = text.split_once(&format!("\n## {name}\n"))?;
        Some(below.split("\n## ").next().unwrap_or(below))
    }

    fn keys(row: &Map<String, Value>) -> Vec<&str> {
        let extra = row.get("ExtraDetails").and_then(Value::as_object);
        row.keys().chain(extra.into_iter().flat_map(Map::keys)).map(String::as_str).collect()
    }

    /// An investigator meets a row long after it was made, and a key nobody wrote down means nothing then.
    #[test]
    fn every_collector_is_documented() {
        let events = text("docs/events.md");
        let man = text("packaging/man/edgewarden.8");
        let common = section(&events, "The way from event to row").unwrap();
        for collector in ALL {
            let name = collector.kind().name();
            let below = section(&events, name).unwrap_or_else(|| panic!("docs/events.md has no heading \"## {name}\""));
            assert!(man.lines().any(|line| line == format!(".Ss {name}")), "edgewarden.8 has no \".Ss {name}\"");

            let fixture = text(&format!("tests/fixtures/collectors/{name}.json"));
            assert!(below.contains(fixture.trim_end()), "docs/events.md does not show the row of {name}.json");
            let row: Value = serde_json::from_str(&fixture).unwrap_or_else(|error| panic!("{name}.json: {error}"));
            let row = row.as_object().unwrap_or_else(|| panic!("{name}.json is no object"));
            for key in ["EventId", "TimestampLocal", "TimestampUTC"] {
                assert!(row.contains_key(key), "{name}.json has no {key}");
            }
            for key in keys(row) {
                let is_told = [below, common].iter().any(|text| text.contains(&format!("`{key}`")));
                assert!(is_told, "docs/events.md does not say what {key} of {name} means");
            }
        }
    }
}
