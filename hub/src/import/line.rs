//! What a line is: a message, a row, or the `EventDetails` of a row.

use serde_json::{Map, Value, json};

use super::Settings;
use crate::ingest::usable_device;
use crate::schema::{self, Event, Message, table};
use crate::store::alert::Alert;

/// A line that obeys the schema.
pub struct Line {
    /// The hub's.
    pub resource_id: String,
    /// Whose it is.
    pub device: String,
    /// What it holds.
    pub said: Said,
}

/// What a line holds.
pub enum Said {
    /// A message with everything in it.
    Message(Message),
    /// One item of an event, or an empty event.
    Item {
        /// Of the agent, where the line says it.
        agent_version: String,
        /// With this one item.
        event: Event,
        /// Which item of the event it is, where the line says it.
        index: Option<usize>,
    },
}

/// Reads a line of events.
///
/// # Errors
///
/// A sentence that starts with the place.
pub fn read(bytes: &[u8], settings: &Settings) -> Result<Line, String> {
    let line = read_form(bytes, settings)?;
    usable_device(&line.device).map_err(|reason| format!("DeviceId: {reason}"))?;
    Ok(line)
}

fn read_form(bytes: &[u8], settings: &Settings) -> Result<Line, String> {
    let object = object(bytes)?;
    if object.contains_key("Events") {
        let message = schema::parse(bytes)?;
        let device = named(None, settings.device.as_ref(), "a message does not name its device: say --device")?;
        let resource_id = hub(None, settings)?;
        return Ok(Line { resource_id, device, said: Said::Message(message) });
    }
    if object.contains_key("EventDetails") { row(object, settings) } else { details(object, settings) }
}

/// Reads a line of alerts.
///
/// # Errors
///
/// A sentence that starts with the place.
pub fn alert(bytes: &[u8], settings: &Settings) -> Result<Alert, String> {
    let mut alert = object(bytes)?;
    if alert.get("ResourceId").is_none_or(|id| id == "") {
        let id = settings.resource_id().ok_or("ResourceId: missing, and there is no --hub")?;
        alert.insert("ResourceId".to_owned(), Value::String(id));
    }
    if let Some(device) = settings.device.as_ref().filter(|_| !alert.contains_key("CompromisedEntity")) {
        alert.insert("CompromisedEntity".to_owned(), Value::String(device.clone()));
    }
    Ok(alert)
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| format!("line: not UTF-8 from byte {} on", error.valid_up_to()))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("line: expected an object".to_owned()),
        Err(error) => Err(format!("line: not JSON: {error}")),
    }
}

fn row(mut row: Map<String, Value>, settings: &Settings) -> Result<Line, String> {
    let mut text = |column: &str| match row.remove(column) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("{column}: expected a string")),
    };
    if let Some(table) = text("Type")?.filter(|table| table != "SecurityIoTRawEvent") {
        return Err(format!("Type: {table:?} is not SecurityIoTRawEvent; see --table"));
    }
    let resource_id = hub(text("AssociatedResourceId")?, settings)?;
    let device = named(text("DeviceId")?, settings.device.as_ref(), "DeviceId: missing, and there is no --device")?;
    let name = named(text("RawEventName")?, None, "RawEventName: missing")?;
    let details = named(text("EventDetails")?, None, "EventDetails: missing")?;
    let mut facts = Facts { name, category: text("RawEventCategory")?, event_type: text("RawEventType")?, id: None };
    facts.id = text("IoTRawEventId")?;
    let agent_version = text("AgentVersion")?.unwrap_or_default();
    let details = object(details.as_bytes()).map_err(|reason| format!("EventDetails: {reason}"))?;
    let event = event(details, facts)?;
    match row.get("IsEmpty") {
        None | Some(Value::Null) => {}
        Some(Value::Bool(is_empty)) if *is_empty == event.items.is_empty() => {}
        Some(_) => return Err("IsEmpty: does not agree with EventDetails".to_owned()),
    }
    let index = match row.get("PayloadIndex") {
        None | Some(Value::Null) => None,
        Some(index) => {
            let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
            Some(index.ok_or("PayloadIndex: expected a whole number, not negative")?)
        }
    };
    Ok(Line { resource_id, device, said: Said::Item { agent_version, event, index } })
}

fn details(details: Map<String, Value>, settings: &Settings) -> Result<Line, String> {
    let (Some(name), Some(device), Some(_)) = (&settings.name, &settings.device, &settings.hub) else {
        let reason = "line: neither a message nor a row; for EventDetails objects say --name, --device and --hub";
        return Err(reason.to_owned());
    };
    let facts = Facts { name: name.clone(), category: None, event_type: None, id: None };
    let event = event(details, facts)?;
    let said = Said::Item { agent_version: String::new(), event, index: None };
    Ok(Line { resource_id: hub(None, settings)?, device: device.clone(), said })
}

/// What stands beside the `EventDetails`.
struct Facts {
    name: String,
    category: Option<String>,
    event_type: Option<String>,
    id: Option<String>,
}

/// `EventDetails` back into the event they were made of, which is then checked as any other.
fn event(mut details: Map<String, Value>, facts: Facts) -> Result<Event, String> {
    let mut take = |key: &str| match details.shift_remove(key) {
        Some(Value::String(text)) => Ok(Some(text)),
        None => Ok(None),
        Some(_) => Err(format!("EventDetails.{key}: expected a string")),
    };
    let missing = |key: &str| format!("EventDetails.{key}: missing");
    let local = take("TimestampLocal")?.ok_or_else(|| missing("TimestampLocal"))?;
    let utc = take("TimestampUTC")?.ok_or_else(|| missing("TimestampUTC"))?;
    let id = match (take("EventId")?, facts.id) {
        (Some(inner), Some(outer)) if !inner.eq_ignore_ascii_case(&outer) => {
            return Err("IoTRawEventId: differs from EventDetails.EventId".to_owned());
        }
        (inner, outer) => inner.or(outer).ok_or_else(|| missing("EventId"))?,
    };
    let rule = table::rule(&facts.name).ok_or_else(|| format!("{:?}: no event type has this name", facts.name))?;
    let items = if details.is_empty() && rule.category == "Periodic" { json!([]) } else { json!([details]) };
    let event = json!({
        "Id": id,
        "TimestampLocal": local,
        "TimestampUTC": utc,
        "Category": facts.category.as_deref().unwrap_or(rule.category),
        "Name": facts.name,
        "EventType": facts.event_type.as_deref().unwrap_or(rule.event_type),
        "IsEmpty": items == json!([]),
        "PayloadSchemaVersion": "1.0",
        "Payload": items,
    });
    schema::event(&event, "")
}

fn hub(in_line: Option<String>, settings: &Settings) -> Result<String, String> {
    let resource_id = in_line.or_else(|| settings.resource_id());
    resource_id.ok_or_else(|| "AssociatedResourceId: missing, and there is no --hub".to_owned())
}

fn named(in_line: Option<String>, by_option: Option<&String>, missing: &str) -> Result<String, String> {
    in_line.or_else(|| by_option.cloned()).ok_or_else(|| missing.to_owned())
}
