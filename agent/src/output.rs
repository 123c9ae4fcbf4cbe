//! Events as lines on standard output, for the commands that work without a hub.

use std::io::{self, Write};

use clap::ValueEnum;
use collector_common::collector::Draft;
use collector_common::event::kind::Kind;
use collector_common::event::wire::{Event, Stamps, message};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tracing::info;
use uuid::Uuid;

use crate::{fit, ids};

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The `EventDetails` object of one row.
    Details,
    /// One row with the columns of `SecurityIoTRawEvent`.
    Row,
    /// A message of the published schema.
    Envelope,
}

/// Makes lines of events.
#[derive(Clone, Debug)]
pub struct Printer {
    /// What a line holds.
    pub format: Format,
    /// `DeviceId` of a row.
    pub device_id: String,
    /// `AgentId` of a message.
    pub agent_id: Uuid,
    /// What a message may have.
    pub max_message_bytes: usize,
    /// The zone of local timestamps.
    pub zone: TimeZone,
}

impl Printer {
    /// Prints an event. What the agent has to say about itself goes to the log, unless messages are wanted.
    ///
    /// # Errors
    /// A sentence when standard output is closed.
    pub fn print(&self, draft: Draft) -> Result<(), String> {
        let mut stdout = io::stdout().lock();
        self.write(draft, None, &mut stdout)?;
        stdout.flush().map_err(|error| cannot_write(&error))
    }

    /// The same to any writer, which is not flushed. `offset_seconds` is the one from UTC that its source tells.
    ///
    /// # Errors
    /// A sentence when it cannot be written to.
    pub fn write(&self, draft: Draft, offset_seconds: Option<i32>, to: &mut impl Write) -> Result<(), String> {
        let Some(payload) = draft.payload else { return Ok(()) };
        let kind = payload.kind();
        let items = payload.to_items().map_err(|error| format!("cannot serialise a {} event: {error}", kind.name()))?;
        if kind == Kind::Diagnostic && self.format != Format::Envelope {
            info!("{}", items.concat());
            return Ok(());
        }
        let at = Timestamp::from_microsecond(draft.at.wall_us).unwrap_or(Timestamp::UNIX_EPOCH);
        let offset_seconds = offset_seconds.unwrap_or_else(|| self.zone.to_offset(at).seconds());
        let stamps = Stamps::new(draft.at.wall_us, offset_seconds);
        let events = fit::into_events(items, self.max_message_bytes);
        let is_one = events.len() == 1;
        for (part, items) in events.into_iter().enumerate() {
            let id = match draft.id {
                Some(id) if is_one => id,
                Some(id) => ids::derived(&[id.as_bytes(), &part.to_le_bytes()]),
                None => Uuid::now_v7(),
            };
            let lines = self.lines(&Event { id, kind, stamps: &stamps, items: &items })?;
            to.write_all(lines.as_bytes()).map_err(|error| cannot_write(&error))?;
        }
        Ok(())
    }

    fn lines(&self, event: &Event) -> Result<String, String> {
        let mut lines = String::new();
        match self.format {
            Format::Details => lines.extend(event.to_details().into_iter().map(|line| line + "\n")),
            Format::Envelope => {
                lines += &message(env!("CARGO_PKG_VERSION"), self.agent_id, &[event.to_envelope()]);
                lines.push('\n');
            }
            Format::Row => {
                for details in event.to_details() {
                    let row = Row::new(&self.device_id, event, &details);
                    lines += &serde_json::to_string(&row).map_err(|error| error.to_string())?;
                    lines.push('\n');
                }
            }
        }
        Ok(lines)
    }
}

fn cannot_write(error: &io::Error) -> String {
    format!("cannot write to standard output: {error}")
}

/// The columns of `SecurityIoTRawEvent` that a device knows (Azure Monitor reference); the hub adds the rest.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    time_generated: &'a str,
    agent_version: &'a str,
    device_id: &'a str,
    event_details: &'a str,
    #[serde(rename = "IoTRawEventId")]
    iot_raw_event_id: Uuid,
    is_empty: bool,
    raw_event_category: &'a str,
    raw_event_name: &'a str,
    raw_event_type: &'a str,
    time_stamp: &'a str,
    r#type: &'a str,
}

impl<'a> Row<'a> {
    fn new(device_id: &'a str, event: &Event<'a>, details: &'a str) -> Row<'a> {
        Row {
            time_generated: &event.stamps.utc,
            agent_version: env!("CARGO_PKG_VERSION"),
            device_id,
            event_details: details,
            iot_raw_event_id: event.id,
            is_empty: event.items.is_empty(),
            raw_event_category: event.kind.category().name(),
            raw_event_name: event.kind.name(),
            raw_event_type: event.kind.event_type().name(),
            time_stamp: &event.stamps.utc,
            r#type: "SecurityIoTRawEvent",
        }
    }
}
