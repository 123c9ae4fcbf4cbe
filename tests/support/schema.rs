//! The rules of the published message schema (Azure-IoT-Security, `security_message/schemas/*_v1_0.json`, draft 7) for
//! the kinds this agent sends, as a checker without an interpreter for JSON Schema.
//!
//! Every object is closed: a key too many is as wrong as one missing.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// What a member of an item may hold.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Text,
    Integer,
    Address,
    OneOf(&'static [&'static str]),
    Texts,
}

/// The rules for one kind's items.
struct Rule {
    name: &'static str,
    category: &'static str,
    event_type: &'static str,
    required: &'static [(&'static str, Shape)],
    optional: &'static [(&'static str, Shape)],
}

const EXTRA: (&str, Shape) = ("ExtraDetails", Shape::Texts);

const RULES: [Rule; 8] = [
    Rule {
        name: "LocalUsers",
        category: "Periodic",
        event_type: "Security",
        required: &[
            ("GroupIds", Shape::Text),
            ("GroupNames", Shape::Text),
            ("UserId", Shape::Text),
            ("UserName", Shape::Text),
        ],
        optional: &[EXTRA],
    },
    Rule {
        name: "ListeningPorts",
        category: "Periodic",
        event_type: "Security",
        required: &[("LocalPort", Shape::Text), ("Protocol", Shape::Text)],
        optional: &[
            ("RemoteAddress", Shape::Address),
            ("RemotePort", Shape::Text),
            ("LocalAddress", Shape::Address),
            EXTRA,
        ],
    },
    Rule {
        name: "Login",
        category: "Triggered",
        event_type: "Security",
        required: &[
            ("ProcessId", Shape::Integer),
            ("Operation", Shape::Text),
            ("Executable", Shape::Text),
            ("Result", Shape::OneOf(&["Fail", "Success"])),
        ],
        optional: &[
            ("UserId", Shape::Text),
            ("UserName", Shape::Text),
            ("RemoteAddress", Shape::Address),
            ("RemotePort", Shape::Text),
            ("LocalPort", Shape::Text),
            EXTRA,
        ],
    },
    Rule {
        name: "ProcessCreate",
        category: "Triggered",
        event_type: "Security",
        required: &[
            ("Executable", Shape::Text),
            ("ProcessId", Shape::Integer),
            ("ParentProcessId", Shape::Integer),
            ("UserId", Shape::Text),
            ("CommandLine", Shape::Text),
        ],
        optional: &[("UserName", Shape::Text), EXTRA],
    },
    Rule {
        name: "Diagnostic",
        category: "Triggered",
        event_type: "Diagnostic",
        required: &[
            ("Severity", Shape::OneOf(&["Fatal", "Error", "Warning", "Information", "Debug"])),
            ("Message", Shape::Text),
            ("ProcessId", Shape::Integer),
            ("ThreadId", Shape::Integer),
        ],
        optional: &[("CorrelationId", Shape::Text), EXTRA],
    },
    Rule {
        name: "ConfigurationError",
        category: "Triggered",
        event_type: "Operational",
        required: &[
            ("ConfigurationName", Shape::Text),
            ("ErrorType", Shape::OneOf(&["TypeMismatch", "NotOptimal", "Conflict"])),
            ("UsedConfiguration", Shape::Text),
            ("Message", Shape::Text),
        ],
        optional: &[EXTRA],
    },
    Rule {
        name: "DroppedEventsStatistics",
        category: "Periodic",
        event_type: "Operational",
        required: &[
            ("Queue", Shape::OneOf(&["High", "Low"])),
            ("CollectedEvents", Shape::Integer),
            ("DroppedEvents", Shape::Integer),
        ],
        optional: &[EXTRA],
    },
    Rule {
        name: "MessageStatistics",
        category: "Periodic",
        event_type: "Operational",
        required: &[
            ("MessagesSent", Shape::Integer),
            ("MessagesUnder4KB", Shape::Integer),
            ("TotalFailed", Shape::Integer),
        ],
        optional: &[EXTRA],
    },
];

const EVENT_KEYS: [&str; 9] = [
    "Category",
    "EventType",
    "Id",
    "IsEmpty",
    "Name",
    "Payload",
    "PayloadSchemaVersion",
    "TimestampLocal",
    "TimestampUTC",
];

/// Everything in a message that the published schema forbids; empty when the message is right.
pub fn faults(message: &Value) -> Vec<String> {
    let mut out = Vec::new();
    check_message(message, &mut out).unwrap_or_else(|fault| out.push(fault));
    out
}

fn check_message(message: &Value, out: &mut Vec<String>) -> Result<(), String> {
    let root = message.as_object().ok_or("the message is no object")?;
    keys(root, &["AgentId", "AgentVersion", "Events", "MessageSchemaVersion"], "message", out);
    if message["MessageSchemaVersion"] != "1.0" || !message["AgentVersion"].is_string() {
        out.push(format!("versions: {} {}", message["MessageSchemaVersion"], message["AgentVersion"]));
    }
    if message["AgentId"].as_str().is_none_or(|id| id.len() != 36) {
        out.push(format!("AgentId: {}", message["AgentId"]));
    }
    let events = message["Events"].as_array().ok_or("Events is no array")?;
    if events.is_empty() {
        out.push("a message without events".to_owned());
    }
    for event in events {
        check_event(event, out).unwrap_or_else(|fault| out.push(fault));
    }
    Ok(())
}

fn check_event(event: &Value, out: &mut Vec<String>) -> Result<(), String> {
    let members = event.as_object().ok_or("an event is no object")?;
    keys(members, &EVENT_KEYS, "event", out);
    let name = event["Name"].as_str().ok_or("an event without a Name")?;
    let rule = RULES.iter().find(|rule| rule.name == name).ok_or_else(|| format!("unknown event {name}"))?;
    for (key, expected) in
        [("Category", rule.category), ("EventType", rule.event_type), ("PayloadSchemaVersion", "1.0")]
    {
        if event[key] != expected {
            out.push(format!("{name}: {key} is {}, not {expected}", event[key]));
        }
    }
    if event["Id"].as_str().is_none_or(|id| id.len() != 36) {
        out.push(format!("{name}: Id {}", event["Id"]));
    }
    let instants = ["TimestampLocal", "TimestampUTC"]
        .map(|key| event[key].as_str().and_then(|text| text.parse::<Timestamp>().ok()));
    if instants[0].is_none() || instants[0] != instants[1] {
        out.push(format!("{name}: times {} {}", event["TimestampLocal"], event["TimestampUTC"]));
    }
    let payload = event["Payload"].as_array().ok_or_else(|| format!("{name}: Payload is no array"))?;
    if event["IsEmpty"] != payload.is_empty() || (payload.is_empty() && rule.category == "Triggered") {
        out.push(format!("{name}: IsEmpty {} with {} items", event["IsEmpty"], payload.len()));
    }
    for item in payload {
        check_item(item, rule, out).unwrap_or_else(|fault| out.push(fault));
    }
    Ok(())
}

fn check_item(item: &Value, rule: &Rule, out: &mut Vec<String>) -> Result<(), String> {
    let name = rule.name;
    let members = item.as_object().ok_or_else(|| format!("{name}: an item is no object"))?;
    for (key, _) in rule.required {
        if !members.contains_key(*key) {
            out.push(format!("{name}: {key} is missing in {item}"));
        }
    }
    for (key, value) in members {
        match rule.required.iter().chain(rule.optional).find(|(known, _)| known == key) {
            None => out.push(format!("{name}: unknown key {key}")),
            Some((_, shape)) if !fits(value, *shape) => out.push(format!("{name}: {key} is {value}, not {shape:?}")),
            Some(_) => {}
        }
    }
    if name == "Login" && !members.contains_key("UserId") && !members.contains_key("UserName") {
        out.push(format!("Login: neither UserId nor UserName in {item}"));
    }
    Ok(())
}

fn fits(value: &Value, shape: Shape) -> bool {
    match shape {
        Shape::Text => value.is_string(),
        Shape::Integer => value.is_i64() || value.is_u64(),
        Shape::Address => value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()),
        Shape::OneOf(words) => value.as_str().is_some_and(|text| words.contains(&text)),
        Shape::Texts => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
    }
}

fn keys(members: &Map<String, Value>, expected: &[&str], what: &str, out: &mut Vec<String>) {
    let mut found: Vec<_> = members.keys().map(String::as_str).collect();
    found.sort_unstable();
    if found != expected {
        out.push(format!("{what}: keys {found:?}, not {expected:?}"));
    }
}

/// The checker must be able to say no: each of these is one step away from a right message.
#[test]
fn the_checker_finds_what_the_published_schema_forbids() {
    let right = serde_json::json!({
        "AgentVersion": "1.0.0", "AgentId": "9c647395-b913-4997-a732-a7fe7303b649", "MessageSchemaVersion": "1.0",
        "Events": [{
            "Id": "9c647395-b913-4997-a732-a7fe7303b648", "TimestampLocal": "2026-11-24T06:00:00.000+01:00",
            "TimestampUTC": "2026-11-24T05:00:00.000Z", "Category": "Triggered", "Name": "Login",
            "EventType": "Security", "IsEmpty": false, "PayloadSchemaVersion": "1.0",
            "Payload": [{ "ProcessId": 1, "UserName": "root", "Operation": "Login", "Executable": "/usr/sbin/sshd",
                "RemoteAddress": "192.0.2.1", "Result": "Fail", "ExtraDetails": { "Method": "password" } }],
        }],
    });
    assert_eq!(faults(&right), Vec::<String>::new());
    for (pointer, wrong) in [
        ("/AgentId", serde_json::json!("short")),
        ("/Events", serde_json::json!([])),
        ("/Events/0/Category", serde_json::json!("Periodic")),
        ("/Events/0/Name", serde_json::json!("Logout")),
        ("/Events/0/IsEmpty", serde_json::json!(true)),
        ("/Events/0/Payload", serde_json::json!([])),
        ("/Events/0/TimestampUTC", serde_json::json!("2026-11-24T06:00:00.000Z")),
        ("/Events/0/Payload/0/ProcessId", serde_json::json!("1")),
        ("/Events/0/Payload/0/RemoteAddress", serde_json::json!("::ffff:192.0.2.1%lo")),
        ("/Events/0/Payload/0/Result", serde_json::json!("FAIL")),
        ("/Events/0/Payload/0/ExtraDetails/Method", serde_json::json!(1)),
    ] {
        let mut message = right.clone();
        *message.pointer_mut(pointer).unwrap() = wrong;
        assert_ne!(faults(&message), Vec::<String>::new(), "{pointer}");
    }
    let mut message = right.clone();
    message["Events"][0]["HubName"] = serde_json::json!("x");
    assert_ne!(faults(&message), Vec::<String>::new(), "a tenth key");
    let mut message = right;
    message["Events"][0]["Payload"][0].as_object_mut().unwrap().remove("UserName");
    assert_ne!(faults(&message), Vec::<String>::new(), "nobody logged in");
}
