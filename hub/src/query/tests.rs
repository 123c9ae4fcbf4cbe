use super::*;
use crate::schema;
use crate::store::Entry;

/// A store with two logins of two devices; one name tries to speak to the terminal.
fn store(dir: &Path) -> Store {
    let mut store = Store::open(dir).unwrap();
    for (number, device, name) in [(1, "press-17", "pi"), (2, "press-18", "a,\\u001b[2J\\u009b\\\"b")] {
        let payload = format!(
            r#"{{"AgentVersion":"0.1.0","AgentId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001","MessageSchemaVersion":"1.0","Events":[
            {{"Id":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a00{number}","TimestampLocal":"2026-11-24T06:12:01.123+01:00",
            "TimestampUTC":"2026-11-24T05:12:0{number}.123Z","Category":"Triggered","Name":"Login","EventType":"Security",
            "IsEmpty":false,"PayloadSchemaVersion":"1.0","Payload":[{{"ProcessId":7,"UserName":"{name}","UserId":"1000",
            "Executable":"/usr/sbin/sshd","Operation":"Login","Result":"Success","RemoteAddress":"192.0.2.7"}}]}}]}}"#
        )
        .into_bytes();
        let verdict = schema::parse(&payload).map(|message| (device.to_owned(), message));
        assert_eq!(verdict.as_ref().err(), None);
        let entry = Entry { topic: String::new(), payload, speaker: None, verdict };
        let at = Timestamp::UNIX_EPOCH;
        assert_eq!(store.write("/edgewarden/hubs/plant", at, &[entry]).unwrap()[0].stored, 1);
    }
    store
}

fn ask(query: &str, format: Format) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut out = Vec::new();
    print(query, &store, format, &mut out).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

const NAMES: &str = "SecurityIoTRawEvent | project DeviceId, Name = tostring(parse_json(EventDetails).UserName), N = 1";

#[test]
fn rows_are_written_in_each_form_and_cannot_speak_to_a_terminal() {
    assert_eq!(
        ask(NAMES, Format::Table).unwrap(),
        "DeviceId  Name                 N\n\
         press-17  pi                   1\n\
         press-18  a,\\u001b[2J\\u009b\"b  1\n"
    );
    assert_eq!(
        ask(NAMES, Format::Csv).unwrap(),
        "DeviceId,Name,N\r\npress-17,pi,1\r\npress-18,\"a,\\u001b[2J\\u009b\"\"b\",1\r\n"
    );
    let json = ask(NAMES, Format::Json).unwrap();
    assert!(!json.contains(|char: char| char.is_control() && char != '\n'));
    let rows: Json = serde_json::from_str(&json).unwrap();
    assert_eq!(rows[1], serde_json::json!({"DeviceId": "press-18", "Name": "a,\u{1b}[2J\u{9b}\"b", "N": 1}));
    assert_eq!(ask("SecurityAlert", Format::Json).unwrap(), "[\n]\n");
}

/// What the store is asked for by its indexes is what the query means, to the tick.
#[test]
fn filters_that_the_store_answers_give_what_the_query_says() {
    let count = |predicate: &str| {
        let answer = ask(&format!("SecurityIoTRawEvent | where {predicate} | count"), Format::Csv).unwrap();
        answer.lines().last().unwrap().to_owned()
    };
    for (predicate, expected) in [
        ("DeviceId == 'press-17'", "1"),
        ("DeviceId == 'Press-17'", "0"),
        ("'press-17' == DeviceId and RawEventName == 'Login'", "1"),
        ("RawEventName == 'Login' and IsEmpty == false", "2"),
        ("TimeStamp > datetime(2026-11-24T05:12:01.123Z)", "1"),
        ("TimeStamp >= datetime(2026-11-24T05:12:01.123Z)", "2"),
        ("TimeStamp >= datetime(2026-11-24T05:12:01.1230001Z)", "1"),
        ("TimeStamp < datetime(2026-11-24T05:12:02.123Z)", "1"),
        ("TimeStamp < datetime(2026-11-24T05:12:02.1230001Z)", "2"),
        ("TimeStamp <= datetime(2026-11-24T05:12:02.123Z)", "2"),
        ("TimeStamp == datetime(2026-11-24T05:12:02.123Z)", "1"),
        ("TimeStamp == datetime(2026-11-24T05:12:02.1230001Z)", "0"),
        ("TimeStamp between (datetime(2026-11-24T05:12:02Z) .. 1s)", "1"),
        ("datetime(2026-11-24T05:12:02Z) < TimeStamp", "1"),
        ("not(DeviceId == 'press-17')", "1"),
        ("DeviceId == 'press-17' or DeviceId == 'press-18'", "2"),
        ("TimeGenerated < ago(1d)", "2"),
        ("DeviceId in ('press-17', 'x')", "1"),
        ("DeviceId in (dynamic(['press-17', 'press-18'])) and RawEventName in ('Login')", "2"),
        ("DeviceId in ('')", "0"),
        ("DeviceId !in ('press-17')", "1"),
        (&["DeviceId == 'press-17'"; 1200].join(" and "), "1"),
    ] {
        assert_eq!(count(predicate), expected, "{predicate}");
    }
}

#[test]
fn what_is_wrong_with_a_query_is_said_with_its_place() {
    let wrong = ask("SecurityIoTRawEvent\n| where DeviceId = 'a'", Format::Table).unwrap_err();
    assert_eq!(wrong, "query: 2:18: `=` where `|` or the end of the query is expected");
}
