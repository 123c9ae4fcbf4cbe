//! `edgewarden collect`: one shot without a daemon, one JSON object a line on standard output.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use collector_common::clock::Clock;
use collector_common::collector::{Collector, Context, Draft, StateSlot, channel};
use collector_common::event::kind::{Category, Kind};
use collector_common::event::wire::{Event, Stamps, message};
use collector_common::root::Root;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};
use uuid::Uuid;

use crate::config::settings::Settings;
use crate::fit;

/// Triggered events are waited for this long unless told otherwise.
const DEFAULT_FOR: Duration = Duration::from_secs(10);

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

/// What to collect and how to print it.
pub struct Request {
    /// The collectors to run.
    pub collectors: Vec<&'static dyn Collector>,
    /// How long; `None` ends with the snapshots, or after ten seconds when something is waited for.
    pub duration: Option<Duration>,
    /// What a line holds.
    pub format: Format,
    /// What the configuration says.
    pub settings: Arc<Settings>,
    /// `DeviceId` of a row.
    pub device_id: String,
    /// `AgentId` of a message.
    pub agent_id: Uuid,
}

/// Collects and prints.
///
/// # Errors
/// A sentence when not one of the collectors could run, or standard output is closed.
pub async fn run(request: Request) -> Result<(), String> {
    let root = Root::host();
    let clock = Clock::new(&root);
    let (out, mut queue) = channel(BTreeMap::new());
    let waits = request.collectors.iter().any(|collector| collector.kind().category() == Category::Triggered);
    let limit = request.duration.or(waits.then_some(DEFAULT_FOR));
    let (_settings, settings) = watch::channel(Arc::new(request.settings.collectors.clone()));
    let mut tasks = JoinSet::new();
    for collector in &request.collectors {
        let context = Context {
            root: root.clone(),
            clock,
            settings: settings.clone(),
            out: out.clone(),
            state: StateSlot::new(),
            once: request.duration.is_none(),
        };
        let (kind, running) = (collector.kind(), collector.run(context));
        tasks.spawn(async move { (kind, running.await) });
    }
    let losses = out.losses();
    drop(out);
    let mut failed = 0;
    let mut deadline = std::pin::pin!(async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            draft = queue.recv() => match draft {
                Some(draft) => print(&request, draft)?,
                None => break,
            },
            Some(ended) = tasks.join_next() => if let Ok((kind, Err(failure))) = ended {
                warn!("{}: {failure}", kind.name());
                failed += 1;
            },
            () = &mut deadline => break,
        }
    }
    tasks.shutdown().await;
    while let Some(draft) = queue.recv().await {
        print(&request, draft)?;
    }
    for (kind, events) in losses.take() {
        warn!("{events} {} events were lost before they could be read", kind.name());
    }
    if failed == request.collectors.len() { Err("no collector could run".to_owned()) } else { Ok(()) }
}

/// Prints an event. What the agent has to say about itself goes to the log, unless messages are wanted.
fn print(request: &Request, draft: Draft) -> Result<(), String> {
    let Some(payload) = draft.payload else { return Ok(()) };
    let kind = payload.kind();
    let items = payload.to_items().map_err(|error| format!("cannot serialise a {} event: {error}", kind.name()))?;
    if kind == Kind::Diagnostic && request.format != Format::Envelope {
        info!("{}", items.concat());
        return Ok(());
    }
    let offset = jiff::tz::TimeZone::system()
        .to_offset(jiff::Timestamp::from_microsecond(draft.at.wall_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH));
    let stamps = Stamps::new(draft.at.wall_us, offset.seconds());
    let mut lines = String::new();
    let events = fit::into_events(items, request.settings.max_message_bytes);
    let given_id = draft.id.filter(|_| events.len() == 1);
    for items in events {
        let event = Event { id: given_id.unwrap_or_else(Uuid::now_v7), kind, stamps: &stamps, items: &items };
        match request.format {
            Format::Details => lines.extend(event.to_details().into_iter().map(|line| line + "\n")),
            Format::Envelope => {
                lines += &message(env!("CARGO_PKG_VERSION"), request.agent_id, &[event.to_envelope()]);
                lines.push('\n');
            }
            Format::Row => {
                for details in event.to_details() {
                    let row = Row::new(&request.device_id, &event, &details);
                    lines += &serde_json::to_string(&row).map_err(|error| error.to_string())?;
                    lines.push('\n');
                }
            }
        }
    }
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| format!("cannot write to standard output: {error}"))
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
