//! `edgewarden-hub query` as a user runs it.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use edgewarden_hub::schema;
use edgewarden_hub::store::{Entry, FILE_NAME, Store};
use jiff::Timestamp;

/// The investigation guide's question who has access, as it is.
const GUIDE: &str = "../tests/fixtures/kql/guide/2_users_with_access.kql";

fn store(dir: &Path) {
    let payload =
        br#"{"AgentVersion":"0.1.0","AgentId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001","MessageSchemaVersion":"1.0",
        "Events":[{"Id":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a002","TimestampLocal":"2026-11-24T06:12:01.123+01:00",
        "TimestampUTC":"2026-11-24T05:12:01.123Z","Category":"Periodic","Name":"LocalUsers","EventType":"Security",
        "IsEmpty":false,"PayloadSchemaVersion":"1.0","Payload":[{"UserName":"pi","UserId":"1000","GroupNames":"pi;sudo",
        "GroupIds":"1000;27"}]}]}"#;
    let message = schema::parse(payload).unwrap();
    let verdict = Ok(("YOUR_DEVICE_ID".to_owned(), message));
    let entry = Entry { topic: String::new(), payload: payload.to_vec(), speaker: None, verdict };
    Store::open(dir).unwrap().write("/edgewarden/hubs/your_hub_name", Timestamp::now(), &[entry]).unwrap();
}

fn query(arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgewarden-hub"))
        .arg("query")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

#[test]
fn a_question_comes_from_a_file_from_stdin_or_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let state = dir.path().to_str().unwrap();
    let guide = query(&[GUIDE, "--state", state], "");
    assert_eq!(
        text(&guide.stdout),
        "GroupNames  UserName  FirstObserved\npi;sudo     pi        2026-11-24T05:12:01.1230000Z\n",
        "{}",
        text(&guide.stderr)
    );
    let db = dir.path().join(FILE_NAME);
    let piped = query(&["-", "--db", db.to_str().unwrap(), "--format", "csv"], "SecurityIoTRawEvent | count");
    assert_eq!(text(&piped.stdout), "Count\r\n1\r\n");
    let typed = query(&["SecurityIoTRawEvent | project DeviceId", "--state", state, "--format", "json"], "");
    assert_eq!(text(&typed.stdout), "[\n{\"DeviceId\":\"YOUR_DEVICE_ID\"}\n]\n");
}

#[test]
fn what_cannot_be_answered_is_said_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let state = dir.path().to_str().unwrap();
    let wrong = query(&["SecurityIoTRawEvent | render timechart", "--state", state], "");
    assert!(!wrong.status.success() && wrong.stdout.is_empty());
    assert!(text(&wrong.stderr).contains("query: 1:23: render is not supported here"), "{}", text(&wrong.stderr));
    let none = query(&["print 1", "--db", "/nowhere/events.db"], "");
    assert!(!none.status.success());
    assert!(text(&none.stderr).contains("cannot open /nowhere/events.db"), "{}", text(&none.stderr));
}
