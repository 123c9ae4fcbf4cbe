//! The twin of an identity as Azure IoT Hub keeps it, and the topics by which its device reads, reports and hears of it.
//!
//! ```text
//! subscribed  $iothub/twin/res/#                        what is asked is answered there
//!             $iothub/twin/PATCH/properties/desired/#   changes are told there
//! asked       $iothub/twin/GET/?$rid=R                          nothing
//!          -> $iothub/twin/res/200/?$rid=R                      {"desired": {.., "$version": N}, "reported": {..}}
//! reported    $iothub/twin/PATCH/properties/reported/?$rid=R    {..}, where null takes a property away
//!          -> $iothub/twin/res/204/?$rid=R&$version=N
//! told        $iothub/twin/PATCH/properties/desired/?$version=N {what changed, "$version": N}
//! ```
//!
//! Changes made while the device was away are not told later: it has to ask. Sources: "Communicate with an IoT hub by
//! using MQTT" and "Understand and use device twins in IoT Hub", Azure documentation.

use serde_json::{Map, Value, json};

use super::wire::text;
use crate::fake_broker::{puback, publish};

const ANSWERS: &str = "$iothub/twin/res/#";
const CHANGES: &str = "$iothub/twin/PATCH/properties/desired/#";
const GET: &str = "$iothub/twin/GET/?$rid=";
const REPORT: &str = "$iothub/twin/PATCH/properties/reported/?$rid=";

/// The limit for each of desired and reported: bytes.
const MAX_BYTES: usize = 32 * 1024;

/// The limit for a key, and for a value that is a text: bytes.
const MAX_KEY_BYTES: usize = 1024;
const MAX_TEXT_BYTES: usize = 4096;

/// How deep objects may lie in each other.
const MAX_DEPTH: usize = 10;

/// What the hub keeps.
#[derive(Default)]
pub struct Twin {
    desired: Part,
    reported: Part,
    /// What was changed in `desired`, with its version.
    changes: Vec<(u64, Value)>,
}

struct Part {
    properties: Map<String, Value>,
    version: u64,
}

impl Default for Part {
    /// A twin that nobody has touched has version 1.
    fn default() -> Part {
        Part { properties: Map::new(), version: 1 }
    }
}

impl Part {
    fn change(&mut self, patch: &Map<String, Value>) {
        merge(&mut self.properties, patch);
        self.version += 1;
    }

    fn shown(&self) -> Value {
        let mut shown = self.properties.clone();
        shown.insert("$version".to_owned(), json!(self.version));
        Value::Object(shown)
    }
}

/// Null takes away, objects go into each other, everything else replaces (RFC 7396).
fn merge(into: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match (into.get_mut(key), value) {
            (_, Value::Null) => drop(into.remove(key)),
            (Some(Value::Object(inner)), Value::Object(patch)) => merge(inner, patch),
            (_, Value::Object(patch)) => {
                let mut fresh = Map::new();
                merge(&mut fresh, patch);
                into.insert(key.clone(), Value::Object(fresh));
            }
            (_, value) => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

impl Twin {
    /// What the service does to the desired properties.
    pub fn change_desired(&mut self, patch: &Value) {
        self.desired.change(patch.as_object().expect("a patch is an object"));
        assert!(self.desired.shown().to_string().len() <= MAX_BYTES, "the service takes no more");
        let mut change = patch.clone();
        change["$version"] = json!(self.desired.version);
        self.changes.push((self.desired.version, change));
    }

    /// What the device has reported, and its version.
    pub fn reported(&self) -> (Value, u64) {
        (Value::Object(self.reported.properties.clone()), self.reported.version)
    }
}

/// What one connection has subscribed to.
#[derive(Default)]
pub struct Session {
    has_answers: bool,
    has_changes: bool,
    /// Changes up to this version were told, or were made before somebody listened.
    told: u64,
}

impl Session {
    /// SUBSCRIBE (3.8) and its answer. Only the topics of the twin are there.
    pub fn subscribe(&mut self, kind: u8, mut body: &[u8], twin: &Twin) -> Result<Vec<u8>, String> {
        let (id, rest) = body.split_first_chunk::<2>().ok_or("SUBSCRIBE has no packet id")?;
        body = rest;
        if kind != 0x82 || body.is_empty() {
            return Err(format!("SUBSCRIBE {kind:#x} without a topic or with other flags"));
        }
        let mut granted = Vec::new();
        while !body.is_empty() {
            let filter = text(&mut body)?;
            let (qos, rest) = body.split_first().ok_or("SUBSCRIBE is cut off")?;
            body = rest;
            match filter.as_str() {
                ANSWERS => self.has_answers = true,
                CHANGES => (self.has_changes, self.told) = (true, twin.desired.version),
                other => return Err(format!("a subscription to {other:?}")),
            }
            if *qos > 1 {
                return Err(format!("a subscription with QoS {qos}"));
            }
            granted.push(*qos);
        }
        Ok([&[0x90, u8::try_from(2 + granted.len()).unwrap()], &id[..], &granted].concat())
    }

    /// A PUBLISH to a topic of the twin, and what is answered; `None` when it is to another topic.
    pub fn on_publish(&mut self, kind: u8, mut body: &[u8], twin: &mut Twin) -> Option<Result<Vec<u8>, String>> {
        let topic = text(&mut body).ok()?;
        topic.starts_with("$iothub/").then(|| self.on_request(kind, &topic, body, twin))
    }

    fn on_request(&self, kind: u8, topic: &str, body: &[u8], twin: &mut Twin) -> Result<Vec<u8>, String> {
        let (mut answer, payload) = match (kind & 0x0f, body.split_first_chunk::<2>()) {
            (0x00, _) => (Vec::new(), body),
            (0x02, Some((id, payload))) => (puback(u16::from_be_bytes(*id)), payload),
            _ => return Err(format!("PUBLISH {kind:#x} to {topic:?} is not QoS 0 or 1, or is repeated or retained")),
        };
        if !self.has_answers {
            return Err(format!("{topic:?} without a subscription to the answer"));
        }
        let (id, (status, more, body)) = if let Some(id) = topic.strip_prefix(GET) {
            if !payload.is_empty() {
                return Err(format!("{topic:?} with a body"));
            }
            let both = json!({ "desired": twin.desired.shown(), "reported": twin.reported.shown() });
            (id, (200, String::new(), both.to_string()))
        } else if let Some(id) = topic.strip_prefix(REPORT) {
            twin.reported.change(&patch(payload)?);
            if Value::Object(twin.reported.properties.clone()).to_string().len() > MAX_BYTES {
                return Err("reported properties are too large".to_owned());
            }
            (id, (204, format!("&$version={}", twin.reported.version), String::new()))
        } else {
            return Err(format!("topic {topic:?}"));
        };
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(format!("request id {id:?}"));
        }
        let topic = format!("$iothub/twin/res/{status}/?$rid={id}{more}");
        answer.extend(publish(0, topic.as_bytes(), body.as_bytes()));
        Ok(answer)
    }

    /// Changes that this connection was not told yet.
    pub fn changes(&mut self, twin: &Twin) -> Vec<u8> {
        if !self.has_changes {
            return Vec::new();
        }
        let told = std::mem::replace(&mut self.told, twin.desired.version);
        let fresh = twin.changes.iter().filter(|(version, _)| *version > told);
        fresh
            .flat_map(|(version, change)| {
                let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
                publish(0, topic.as_bytes(), change.to_string().as_bytes())
            })
            .collect()
    }
}

/// What is reported, when it is as the hub takes it; the real one answers 400 to the rest.
fn patch(payload: &[u8]) -> Result<Map<String, Value>, String> {
    let patch = serde_json::from_slice(payload).map_err(|error| format!("reported properties are no JSON: {error}"))?;
    check(&patch, 0)?;
    match patch {
        Value::Object(patch) => Ok(patch),
        _ => Err("reported properties are no object".to_owned()),
    }
}

fn check(value: &Value, depth: usize) -> Result<(), String> {
    match value {
        _ if depth > MAX_DEPTH => Err("reported properties lie too deep".to_owned()),
        Value::String(text) if text.len() > MAX_TEXT_BYTES => Err(format!("a property of {} bytes", text.len())),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, depth + 1)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            let is_key = !key.is_empty() && key.len() <= MAX_KEY_BYTES;
            if is_key && !key.contains(|letter: char| letter.is_control() || ".$ ".contains(letter)) {
                check(value, depth + 1)
            } else {
                Err(format!("a property with the name {key:?}"))
            }
        }),
        _ => Ok(()),
    }
}
