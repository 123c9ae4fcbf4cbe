//! Messages that are none.

use super::{login, message};

/// Each with the beginning of the reason it is kept for.
pub fn all() -> Vec<(Vec<u8>, &'static str)> {
    let good = login(0);
    let with = |old: &str, new: &str| {
        assert!(good.contains(old), "{old}");
        good.replacen(old, new, 1).into_bytes()
    };
    let id = r#""ProcessId":0"#;
    vec![
        (b"".to_vec(), "message: not JSON"),
        (b"junk".to_vec(), "message: not JSON"),
        (vec![0; 3], "message: not JSON"),
        (vec![b'x'; 250 * 1024], "message: not JSON"),
        (good.as_bytes()[..good.len() - 1].to_vec(), "message: not JSON"),
        (format!("{good}{good}").into_bytes(), "message: not JSON"),
        (b"[".repeat(100_000), "message: not JSON: recursion limit"),
        (br#"{"Events":"#.repeat(20_000), "message: not JSON: recursion limit"),
        (with(id, r#""ProcessId":1e999"#), "message: not JSON: number out of range"),
        (vec![0xff, 0xfe], "message: not UTF-8 from byte 0"),
        ([b"{\"AgentVersion\":\"".as_slice(), &[0xe9], b"\"}"].concat(), "message: not UTF-8 from byte 17"),
        (b"null".to_vec(), "message: expected an object"),
        (format!("[{good}]").into_bytes(), "message: expected an object"),
        (b"{}".to_vec(), "AgentVersion: missing"),
        (with("0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001", "me"), "AgentId: expected a GUID"),
        (with(r#""MessageSchemaVersion":"1.0""#, r#""MessageSchemaVersion":1.0"#), "MessageSchemaVersion: expected a string"),
        (br#"{"AgentVersion":"0.1.0","AgentId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001","MessageSchemaVersion":"1.0","Events":[]}"#.to_vec(), "Events: expected at least one"),
        (with(r#""AgentVersion""#, r#""DeviceId":"press-18","AgentVersion""#), "message.DeviceId: the schema knows no such key"),
        (with(r#""Category""#, r#""DeviceId":"press-18","Category""#), "Events[0].DeviceId: the schema knows no such key"),
        (with(id, r#""ProcessId":0,"DeviceId":"press-18""#), "Events[0].Payload[0].DeviceId: no such key in Login"),
        (with(r#""Login","EventType""#, r#""Logins","EventType""#), "Events[0].Name: no event type has this name"),
        (with(r#""Triggered""#, r#""Periodic""#), "Events[0].Category: expected Triggered"),
        (with("2026-11-24T05:12:01.123Z", "2026-13-24T05:12:01.123Z"), "Events[0].TimestampLocal: expected a date and time"),
        (with(r#""IsEmpty":false"#, r#""IsEmpty":"false""#), "Events[0].IsEmpty: expected true or false"),
        (message(0, "Triggered", "Login", "2026-11-24T05:12:01Z", "").into_bytes(), "Events[0].Payload: IsEmpty is false, but there are 0 items"),
        (message(0, "Triggered", "Login", "2026-11-24T05:12:01Z", "null").into_bytes(), "Events[0].Payload[0]: expected an object"),
        (with(id, r#""ProcessId":"0""#), "Events[0].Payload[0].ProcessId: expected a whole number"),
        (with(id, r#""ProcessId":0.5"#), "Events[0].Payload[0].ProcessId: expected a whole number"),
        (with(id, r#""ProcessId":99999999999999999999"#), "Events[0].Payload[0].ProcessId: expected a whole number"),
        (with("192.0.2.9", "192.0.2.999"), "Events[0].Payload[0].RemoteAddress: expected an IP address"),
        (with(r#""UserName":"root""#, r#""UserName":["root"]"#), "Events[0].Payload[0].UserName: expected a string"),
    ]
}
