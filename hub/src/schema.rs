//! A message from a device, checked against the published schema before anything of it is kept.
//!
//! The message is an object of four keys, `AgentVersion`, `AgentId`, `MessageSchemaVersion` (`"1.0"`) and `Events`, and
//! an event one of nine (Azure-IoT-Security `security_message/schemas/message_v1_0.json`). Whatever a hostile device
//! sends, the answer is a message or a sentence that names the place; nesting is limited by the JSON parser (128) and
//! the size by the broker.

pub mod table;

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use table::{EXTRA_DETAILS, Field, Rule, Shape};

/// A message that obeys the schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// As the device wrote it.
    pub agent_version: String,
    /// At least one.
    pub events: Vec<Event>,
}

/// An event that obeys the schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// One id for life.
    pub id: Uuid,
    /// As the device wrote it; only characters of a date and time.
    pub timestamp_local: String,
    /// As the device wrote it; only characters of a date and time.
    pub timestamp_utc: String,
    /// The moment of `timestamp_utc`.
    pub at: Timestamp,
    /// `Name`, one of the published ones.
    pub name: &'static str,
    /// `Category`.
    pub category: &'static str,
    /// `EventType`.
    pub event_type: &'static str,
    /// Compact JSON objects, keys in the device's order; none when the event is empty.
    pub items: Vec<String>,
}

/// Reads a payload.
///
/// # Errors
///
/// A sentence that starts with the place, for example `Events[0].Payload[2].RemotePort: expected a string`.
pub fn parse(payload: &[u8]) -> Result<Message, String> {
    let text = std::str::from_utf8(payload)
        .map_err(|error| format!("message: not UTF-8 from byte {} on", error.valid_up_to()))?;
    let value: Value = serde_json::from_str(text).map_err(|error| format!("message: not JSON: {error}"))?;
    let keys = object(&value, "message")?;
    only(keys, &["AgentVersion", "AgentId", "MessageSchemaVersion", "Events"], "message")?;
    let agent_version = string(keys, "AgentVersion", "")?.to_owned();
    guid(string(keys, "AgentId", "")?, "AgentId")?;
    one_of(string(keys, "MessageSchemaVersion", "")?, &["1.0"], "MessageSchemaVersion")?;
    let events = array(keys, "Events", "")?;
    if events.is_empty() {
        return Err("Events: expected at least one event".to_owned());
    }
    let events = events.iter().enumerate().map(|(n, value)| event(value, &format!("Events[{n}]")));
    Ok(Message { agent_version, events: events.collect::<Result<_, _>>()? })
}

const EVENT_KEYS: [&str; 9] = [
    "Id",
    "TimestampLocal",
    "TimestampUTC",
    "Category",
    "Name",
    "EventType",
    "IsEmpty",
    "PayloadSchemaVersion",
    "Payload",
];

fn event(value: &Value, place: &str) -> Result<Event, String> {
    let keys = object(value, place)?;
    only(keys, &EVENT_KEYS, place)?;
    let name = string(keys, "Name", place)?;
    let rule = table::rule(name).ok_or_else(|| format!("{}: no event type has this name", under(place, "Name")))?;
    one_of(string(keys, "Category", place)?, &[rule.category], &under(place, "Category"))?;
    one_of(string(keys, "EventType", place)?, &[rule.event_type], &under(place, "EventType"))?;
    one_of(string(keys, "PayloadSchemaVersion", place)?, &["1.0"], &under(place, "PayloadSchemaVersion"))?;
    let timestamp_local = string(keys, "TimestampLocal", place)?;
    moment(timestamp_local, &under(place, "TimestampLocal"))?;
    let timestamp_utc = string(keys, "TimestampUTC", place)?;
    Ok(Event {
        id: guid(string(keys, "Id", place)?, &under(place, "Id"))?,
        timestamp_local: timestamp_local.to_owned(),
        timestamp_utc: timestamp_utc.to_owned(),
        at: moment(timestamp_utc, &under(place, "TimestampUTC"))?,
        name: rule.name,
        category: rule.category,
        event_type: rule.event_type,
        items: items(keys, rule, place)?,
    })
}

/// The payload, which has to agree with `IsEmpty`; only a periodic event may be empty.
fn items(keys: &Map<String, Value>, rule: &Rule, place: &str) -> Result<Vec<String>, String> {
    let is_empty = get(keys, "IsEmpty", place)?;
    let is_empty = is_empty.as_bool().ok_or_else(|| format!("{}: expected true or false", under(place, "IsEmpty")))?;
    let payload = array(keys, "Payload", place)?;
    if is_empty && rule.category != "Periodic" {
        return Err(format!("{}: a {} event is never empty", under(place, "IsEmpty"), rule.category));
    }
    if is_empty != payload.is_empty() {
        return Err(format!(
            "{}: IsEmpty is {is_empty}, but there are {} items",
            under(place, "Payload"),
            payload.len()
        ));
    }
    let mut items = Vec::with_capacity(payload.len());
    for (n, value) in payload.iter().enumerate() {
        let place = format!("{}[{n}]", under(place, "Payload"));
        item(value, rule, &place)?;
        items.push(serde_json::to_string(value).map_err(|error| format!("{place}: {error}"))?);
    }
    Ok(items)
}

fn item(value: &Value, rule: &Rule, place: &str) -> Result<(), String> {
    let keys = object(value, place)?;
    for (key, value) in keys {
        let field = rule.fields.iter().chain([&EXTRA_DETAILS]).find(|field| field.name == key);
        let field = field.ok_or_else(|| format!("{}: no such key in {}", under(place, key), rule.name))?;
        has_shape(value, field, &under(place, key))?;
    }
    if let Some(field) = rule.fields.iter().find(|field| field.required && !keys.contains_key(field.name)) {
        return Err(format!("{}: missing", under(place, field.name)));
    }
    if !rule.any_of.is_empty() && !rule.any_of.iter().any(|key| keys.contains_key(*key)) {
        return Err(format!("{place}: expected at least one of {}", rule.any_of.join(", ")));
    }
    Ok(())
}

fn has_shape(value: &Value, field: &Field, place: &str) -> Result<(), String> {
    let text = || value.as_str().ok_or_else(|| format!("{place}: expected a string"));
    match field.shape {
        Shape::Text => text().map(drop),
        Shape::Integer if value.is_i64() || value.is_u64() => Ok(()),
        Shape::Integer => Err(format!("{place}: expected a whole number")),
        Shape::Boolean if value.is_boolean() => Ok(()),
        Shape::Boolean => Err(format!("{place}: expected true or false")),
        Shape::Address => text()?.parse::<IpAddr>().map(drop).map_err(|_| format!("{place}: expected an IP address")),
        Shape::Guid => guid(text()?, place).map(drop),
        Shape::OneOf(words) => one_of(text()?, words, place),
        Shape::TextMap => {
            let map = object(value, place)?;
            match map.iter().find(|(_, value)| !value.is_string()) {
                Some((key, _)) => Err(format!("{}: expected a string", under(place, key))),
                None => Ok(()),
            }
        }
    }
}

/// A key below a place. A key is a stranger's text, so it is quoted and cut.
fn under(place: &str, key: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    let plain = key.len() <= SHOWN_CHARS && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let key = if plain { key.to_owned() } else { format!("{:?}", key.chars().take(SHOWN_CHARS).collect::<String>()) };
    if place.is_empty() { key } else { format!("{place}.{key}") }
}

fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{place}: expected an object"))
}

fn only(keys: &Map<String, Value>, known: &[&str], place: &str) -> Result<(), String> {
    match keys.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{}: the schema knows no such key", under(place, key))),
        None => Ok(()),
    }
}

fn get<'a>(keys: &'a Map<String, Value>, key: &str, place: &str) -> Result<&'a Value, String> {
    keys.get(key).ok_or_else(|| format!("{}: missing", under(place, key)))
}

fn string<'a>(keys: &'a Map<String, Value>, key: &str, place: &str) -> Result<&'a str, String> {
    get(keys, key, place)?.as_str().ok_or_else(|| format!("{}: expected a string", under(place, key)))
}

fn array<'a>(keys: &'a Map<String, Value>, key: &str, place: &str) -> Result<&'a Vec<Value>, String> {
    get(keys, key, place)?.as_array().ok_or_else(|| format!("{}: expected an array", under(place, key)))
}

fn one_of(text: &str, words: &[&str], place: &str) -> Result<(), String> {
    if words.contains(&text) { Ok(()) } else { Err(format!("{place}: expected {}", words.join(" or "))) }
}

fn guid(text: &str, place: &str) -> Result<Uuid, String> {
    const HYPHENATED: usize = 36;
    let parsed = Uuid::try_parse(text).ok().filter(|_| text.len() == HYPHENATED);
    parsed.ok_or_else(|| format!("{place}: expected a GUID of 36 characters"))
}

/// RFC 3339, and with a space for the `T` as the published samples have it. The text later stands between quotes
/// unescaped, so nothing but the characters of a date passes.
fn moment(text: &str, place: &str) -> Result<Timestamp, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b"-+:.TtZz ".contains(&b));
    let parsed = text.parse::<Timestamp>().ok().filter(|_| plain);
    parsed.ok_or_else(|| format!("{place}: expected a date and time with an offset (RFC 3339)"))
}

#[cfg(test)]
mod tests;
