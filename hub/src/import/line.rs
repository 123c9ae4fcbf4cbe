//! What a line is: a message, a row, or the `EventDetails` of a row.
//!
//! A message is checked against the schema, as if it had come over MQTT. A row was one in some store already, perhaps of
//! an agent that is gone: its columns are checked, and its `EventDetails` must be a JSON object and stay as they are.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Settings;
use crate::ingest::usable_device;
use crate::schema::{self, Message, table};
use crate::store::alert::Alert;
use crate::store::moment;
use crate::store::read::Row;

/// A line that can be stored.
pub enum Line {
    /// A message of a device, to the hub of the settings.
    Message {
        /// Whose.
        device: String,
        /// What.
        message: Message,
    },
    /// A row.
    Row {
        /// With an empty id when the line has none.
        row: Box<Row>,
        /// Whether the line says which item of its event it is.
        has_index: bool,
    },
}

/// Reads a line of events.
///
/// # Errors
///
/// A sentence that starts with the place.
pub fn read(bytes: &[u8], settings: &Settings) -> Result<Line, String> {
    let text = text(bytes)?;
    let object = object(text)?;
    if object.contains_key("Events") {
        let message = schema::parse(bytes)?;
        let device = or_option(None, settings.device.as_ref(), "a message does not name its device: say --device")?;
        usable_device(&device)?;
        hub(None, settings)?;
        return Ok(Line::Message { device, message });
    }
    if object.contains_key("EventDetails") { row(object, settings) } else { details(text.trim(), &object, settings) }
}

/// Reads a line of alerts.
///
/// # Errors
///
/// A sentence that starts with the place.
pub fn alert(bytes: &[u8], settings: &Settings) -> Result<Alert, String> {
    let mut alert = object(text(bytes)?)?;
    if alert.get("ResourceId").is_none_or(|id| id == "" || id.is_null()) {
        let id = settings.resource_id().ok_or("ResourceId: missing, and there is no --hub")?;
        alert.insert("ResourceId".to_owned(), Value::String(id));
    }
    if let Some(device) = settings.device.as_ref().filter(|_| !alert.contains_key("CompromisedEntity")) {
        alert.insert("CompromisedEntity".to_owned(), Value::String(device.clone()));
    }
    Ok(alert)
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| format!("line: not UTF-8 from byte {} on", error.valid_up_to()))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("line: expected an object".to_owned()),
        Err(error) => Err(format!("line: not JSON: {error}")),
    }
}

fn row(mut columns: Map<String, Value>, settings: &Settings) -> Result<Line, String> {
    let (event_details, details) = match columns.remove("EventDetails") {
        Some(Value::String(text)) => {
            let details = object(&text).map_err(|reason| format!("EventDetails: {reason}"))?;
            (text, details)
        }
        Some(Value::Object(details)) => (Value::Object(details.clone()).to_string(), details),
        _ => return Err("EventDetails: expected an object, or one as text".to_owned()),
    };
    let is_empty = match columns.remove("IsEmpty") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(is_empty)) => is_empty,
        Some(_) => return Err("IsEmpty: expected true or false".to_owned()),
    };
    let index = match columns.remove("PayloadIndex") {
        None | Some(Value::Null) => None,
        Some(index) => {
            let index = index.as_i64().filter(|index| *index >= 0);
            Some(index.ok_or("PayloadIndex: expected a whole number, not negative")?)
        }
    };
    let mut text = |column: &str| match columns.remove(column) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("{column}: expected a string")),
    };
    if let Some(table) = text("Type")?.filter(|table| table != "SecurityIoTRawEvent") {
        return Err(format!("Type: {table:?} is not SecurityIoTRawEvent; see --table"));
    }
    let facts = Facts {
        id: text("IoTRawEventId")?,
        device: text("DeviceId")?,
        name: text("RawEventName")?,
        category: text("RawEventCategory")?,
        event_type: text("RawEventType")?,
        hub: text("AssociatedResourceId")?,
        time_stamp: text("TimeStamp")?.or(text("TimeGenerated")?),
        agent_version: text("AgentVersion")?.unwrap_or_default(),
        subscription: text("AzureSubscriptionId")?.unwrap_or_default(),
        event_details,
        is_empty,
        index,
    };
    facts.into_row(&details, settings)
}

fn details(text: &str, details: &Map<String, Value>, settings: &Settings) -> Result<Line, String> {
    if settings.name.is_none() || settings.device.is_none() || settings.hub.is_none() {
        let reason = "line: neither a message nor a row; for EventDetails objects say --name, --device and --hub";
        return Err(reason.to_owned());
    }
    let event_details = text.to_owned();
    Facts { event_details, ..Facts::default() }.into_row(details, settings)
}

/// What stands beside the `EventDetails`.
#[derive(Default)]
struct Facts {
    id: Option<String>,
    device: Option<String>,
    name: Option<String>,
    category: Option<String>,
    event_type: Option<String>,
    hub: Option<String>,
    time_stamp: Option<String>,
    agent_version: String,
    subscription: String,
    event_details: String,
    is_empty: bool,
    index: Option<i64>,
}

impl Facts {
    /// What the columns do not say the `EventDetails` may: the event's id and moment.
    fn into_row(self, details: &Map<String, Value>, settings: &Settings) -> Result<Line, String> {
        let inner = |key: &str| details.get(key).and_then(Value::as_str).map(str::to_owned);
        let device_id =
            or_option(self.device, settings.device.as_ref(), "DeviceId: missing, and there is no --device")?;
        usable_device(&device_id).map_err(|reason| format!("DeviceId: {reason}"))?;
        let name = or_option(self.name, settings.name.as_ref(), "RawEventName: missing, and there is no --name")?;
        let id = match (self.id, inner("EventId")) {
            (Some(outer), Some(inner)) if !inner.eq_ignore_ascii_case(&outer) => {
                return Err("IoTRawEventId: differs from EventDetails.EventId".to_owned());
            }
            (outer, inner) => outer.or(inner).unwrap_or_default(),
        };
        let at = inner("TimestampUTC").or(self.time_stamp).or_else(|| inner("TimestampLocal"));
        let at = at.ok_or("TimeStamp: missing, and EventDetails have no TimestampUTC")?;
        let time_stamp = at.parse::<Timestamp>().map(moment);
        let time_stamp = time_stamp.map_err(|_| "TimeStamp: expected a date and time with an offset (RFC 3339)")?;
        let rule = table::rule(&name);
        let known = |word: fn(&table::Rule) -> &'static str| rule.map(word).unwrap_or_default().to_owned();
        let has_key = |key: &&String| !["TimestampLocal", "TimestampUTC", "EventId"].contains(&key.as_str());
        let row = Row {
            time_generated: String::new(),
            agent_version: self.agent_version,
            associated_resource_id: hub(self.hub, settings)?,
            azure_subscription_id: self.subscription,
            device_id,
            event_details: self.event_details,
            iot_raw_event_id: id,
            is_empty: self.is_empty || details.keys().find(has_key).is_none(),
            raw_event_category: self.category.unwrap_or_else(|| known(|rule| rule.category)),
            raw_event_name: name,
            raw_event_type: self.event_type.unwrap_or_else(|| known(|rule| rule.event_type)),
            time_stamp,
            table: String::new(),
            payload_index: self.index.unwrap_or_default(),
        };
        Ok(Line::Row { row: Box::new(row), has_index: self.index.is_some() })
    }
}

fn hub(in_line: Option<String>, settings: &Settings) -> Result<String, String> {
    let resource_id = in_line.or_else(|| settings.resource_id());
    resource_id.ok_or_else(|| "AssociatedResourceId: missing, and there is no --hub".to_owned())
}

fn or_option(in_line: Option<String>, by_option: Option<&String>, missing: &str) -> Result<String, String> {
    in_line.or_else(|| by_option.cloned()).ok_or_else(|| missing.to_owned())
}
