use serde_json::json;

use super::*;

fn good() -> Value {
    json!({
        "AgentVersion": "0.1.0",
        "AgentId": "0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001",
        "MessageSchemaVersion": "1.0",
        "Events": [
            {
                "Id": "0b7c5a52-57a0-4c89-9a53-0f3cf1b0a002",
                "TimestampLocal": "2026-11-24T06:12:01.123+01:00",
                "TimestampUTC": "2026-11-24T05:12:01.123Z",
                "Category": "Periodic", "Name": "ListeningPorts", "EventType": "Security", "IsEmpty": false,
                "PayloadSchemaVersion": "1.0",
                "Payload": [
                    {"Protocol": "TCP", "LocalAddress": "0.0.0.0", "LocalPort": "22", "RemoteAddress": "0.0.0.0", "RemotePort": "*"},
                    {"Protocol": "UDP", "LocalPort": "53", "ExtraDetails": {"State": "open", "Path": "/a \"b\""}}
                ]
            },
            {
                "Id": "0b7c5a52-57a0-4c89-9a53-0f3cf1b0a003",
                "TimestampLocal": "2026-11-24 05:12:01Z",
                "TimestampUTC": "2026-11-24 05:12:01Z",
                "Category": "Triggered", "Name": "Login", "EventType": "Security", "IsEmpty": false,
                "PayloadSchemaVersion": "1.0",
                "Payload": [{"ProcessId": 17, "UserName": "root", "Operation": "Login", "Executable": "/usr/sbin/sshd",
                             "RemoteAddress": "2001:db8::1", "Result": "Success"}]
            },
            {
                "Id": "0b7c5a52-57a0-4c89-9a53-0f3cf1b0a004",
                "TimestampLocal": "2026-11-24T05:12:01Z",
                "TimestampUTC": "2026-11-24T05:12:01Z",
                "Category": "Periodic", "Name": "LocalUsers", "EventType": "Security", "IsEmpty": true,
                "PayloadSchemaVersion": "1.0", "Payload": []
            }
        ]
    })
}

/// The sample with one place changed; `null` takes the key away.
fn changed(pointer: &str, value: Value) -> Vec<u8> {
    let mut message = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = message.pointer_mut(parent).unwrap();
    match parent {
        Value::Object(keys) if value.is_null() => {
            assert!(keys.remove(key).is_some(), "{pointer} is not in the sample");
        }
        Value::Object(keys) => {
            keys.insert(key.to_owned(), value);
        }
        _ => parent[key.parse::<usize>().unwrap()] = value,
    }
    message.to_string().into_bytes()
}

#[test]
fn a_good_message_keeps_order_and_becomes_compact() {
    let pretty = serde_json::to_vec_pretty(&good()).unwrap();
    let message = parse(&pretty).unwrap();
    assert_eq!(message.agent_version, "0.1.0");
    assert_eq!(message.events.len(), 3);
    assert_eq!(
        message.events[0].items[1],
        r#"{"Protocol":"UDP","LocalPort":"53","ExtraDetails":{"State":"open","Path":"/a \"b\""}}"#
    );
    assert_eq!(message.events[0].at.to_string(), "2026-11-24T05:12:01.123Z");
    assert_eq!(message.events[1].at.to_string(), "2026-11-24T05:12:01Z");
    assert!(message.events[2].items.is_empty());
}

#[test]
fn a_refusal_names_the_place() {
    let cases = [
        ("/AgentId", json!(null), "AgentId: missing"),
        ("/AgentId", json!("7"), "AgentId: expected a GUID of 36 characters"),
        ("/AgentVersion", json!(1), "AgentVersion: expected a string"),
        ("/MessageSchemaVersion", json!("2.0"), "MessageSchemaVersion: expected 1.0"),
        ("/DeviceId", json!("other"), "message.DeviceId: the schema knows no such key"),
        ("/Events", json!([]), "Events: expected at least one event"),
        ("/Events", json!({}), "Events: expected an array"),
        ("/Events/0", json!(7), "Events[0]: expected an object"),
        ("/Events/0/Id", json!(null), "Events[0].Id: missing"),
        ("/Events/0/IsOperational", json!(true), "Events[0].IsOperational: the schema knows no such key"),
        ("/Events/1/Category", json!("Periodic"), "Events[1].Category: expected Triggered"),
        ("/Events/1/Name", json!("Log\u{202e}in"), "Events[1].Name: no event type has this name"),
        ("/Events/1/EventType", json!("Operational"), "Events[1].EventType: expected Security"),
        ("/Events/1/PayloadSchemaVersion", json!("1.1"), "Events[1].PayloadSchemaVersion: expected 1.0"),
        ("/Events/1/Payload", json!([]), "Events[1].Payload: IsEmpty is false, but there are 0 items"),
        ("/Events/1/IsEmpty", json!(true), "Events[1].IsEmpty: a Triggered event is never empty"),
        ("/Events/2/IsEmpty", json!(false), "Events[2].Payload: IsEmpty is false, but there are 0 items"),
        ("/Events/2/IsEmpty", json!("no"), "Events[2].IsEmpty: expected true or false"),
        ("/Events/0/IsEmpty", json!(true), "Events[0].Payload: IsEmpty is true, but there are 2 items"),
        ("/Events/0/Payload/0/RemotePort", json!(22), "Events[0].Payload[0].RemotePort: expected a string"),
        ("/Events/0/Payload/1/Protocol", json!(null), "Events[0].Payload[1].Protocol: missing"),
        ("/Events/0/Payload/1/Extra", json!("x"), "Events[0].Payload[1].Extra: no such key in ListeningPorts"),
        ("/Events/0/Payload/1/a b", json!("x"), "Events[0].Payload[1].\"a b\": no such key in ListeningPorts"),
        (
            "/Events/0/Payload/0/TimestampLocal",
            json!("x"),
            "Events[0].Payload[0].TimestampLocal: no such key in ListeningPorts",
        ),
        (
            "/Events/0/Payload/1/ExtraDetails/State",
            json!(1),
            "Events[0].Payload[1].ExtraDetails.State: expected a string",
        ),
        (
            "/Events/0/Payload/0/LocalAddress",
            json!("fe80::1%eth0"),
            "Events[0].Payload[0].LocalAddress: expected an IP address",
        ),
        ("/Events/1/Payload/0/RemoteAddress", json!("?"), "Events[1].Payload[0].RemoteAddress: expected an IP address"),
        ("/Events/1/Payload/0/ProcessId", json!("17"), "Events[1].Payload[0].ProcessId: expected a whole number"),
        ("/Events/1/Payload/0/ProcessId", json!(1.5), "Events[1].Payload[0].ProcessId: expected a whole number"),
        ("/Events/1/Payload/0/Result", json!("Failed"), "Events[1].Payload[0].Result: expected Fail or Success"),
        (
            "/Events/1/Payload/0/UserName",
            json!(null),
            "Events[1].Payload[0]: expected at least one of UserId, UserName",
        ),
        (
            "/Events/1/TimestampUTC",
            json!("2026-11-24T05:12:01"),
            "Events[1].TimestampUTC: expected a date and time with an offset (RFC 3339)",
        ),
        (
            "/Events/1/TimestampLocal",
            json!("2026-11-24T05:12:01Z\",\"UserName\":\"x"),
            "Events[1].TimestampLocal: expected a date and time with an offset (RFC 3339)",
        ),
    ];
    for (pointer, value, reason) in cases {
        assert_eq!(parse(&changed(pointer, value)).unwrap_err(), reason, "{pointer}");
    }
}

#[test]
fn what_is_no_message_at_all_is_refused_with_a_reason() {
    let cases: [(&[u8], &str); 6] = [
        (b"", "message: not JSON"),
        (b"\"\"", "message: expected an object"),
        (b"[]", "message: expected an object"),
        (b"{}", "AgentVersion: missing"),
        (b"{\"AgentVersion\":\"\xff\"}", "message: not UTF-8 from byte 17 on"),
        (b"{} {}", "message: not JSON"),
    ];
    for (payload, reason) in cases {
        let refused = parse(payload).unwrap_err();
        assert!(refused.starts_with(reason), "{refused}");
    }
}

#[test]
fn deep_and_huge_messages_are_refused_without_a_panic() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert!(parse(deep.as_bytes()).unwrap_err().contains("recursion limit"));
    let deep_inside =
        changed("/Events/0/Payload/0", serde_json::from_str(&format!("{}{}", "[".repeat(90), "]".repeat(90))).unwrap());
    assert_eq!(parse(&deep_inside).unwrap_err(), "Events[0].Payload[0]: expected an object");
    let wide = changed("/Events/0/Payload", json!(vec![0; 100_000]));
    assert_eq!(parse(&wide).unwrap_err(), "Events[0].Payload[0]: expected an object");
}

#[test]
fn mangled_messages_never_panic() {
    let good = good().to_string().into_bytes();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=next() % 4 {
            let at = usize::try_from(next() % bytes.len() as u64).unwrap();
            match next() % 3 {
                0 => bytes[at] = next().to_le_bytes()[0],
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b"\"{}[],:0\\"[usize::try_from(next() % 9).unwrap()]),
            }
        }
        if let Err(reason) = parse(&bytes) {
            assert!(reason.contains(": "), "{reason}");
        }
    }
}
