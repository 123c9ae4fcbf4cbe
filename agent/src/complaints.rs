//! What the log complains of, told to the hub: this program's warnings and errors as Diagnostics, for who reads the
//! hub and not the journals of ten thousand boards.
//!
//! Of each place in the code at most one goes out in an hour, because a link that is down for months complains all the
//! time. What has a Diagnostic of its own already does not get a second one.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::time::Duration;

use collector_common::clock::Clock;
use collector_common::collector::{Draft, Emitter};
use collector_common::event::payload::{Diagnostic, Payload, Severity};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// One place in the code is heard once in this time.
const AGAIN: Duration = Duration::from_secs(3600);

/// Complaints that wait. Beyond them the log alone has them.
const WAITING: usize = 32;

/// Modules that send what they log, and the recorder, whose own trouble must not make it work more.
const TELL_THEMSELVES: [&str; 4] =
    ["edgewarden::remarks", "edgewarden::supervisor", "edgewarden::expiry", "edgewarden::recorder"];

/// One line of the log.
#[derive(Debug)]
pub struct Complaint {
    severity: Severity,
    message: String,
    /// File and line of the code.
    place: (&'static str, u32),
}

/// Listens to the log.
pub struct Listener(mpsc::Sender<Complaint>);

/// A listener, and what it hears.
pub fn listen() -> (Listener, mpsc::Receiver<Complaint>) {
    let (sender, heard) = mpsc::channel(WAITING);
    (Listener(sender), heard)
}

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let severity = match *metadata.level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            _ => return,
        };
        let target = metadata.target();
        if !target.starts_with("edgewarden") || TELL_THEMSELVES.iter().any(|module| target.starts_with(module)) {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let place = (metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
        // Nobody listens in a command that is no daemon.
        let _nobody = self.0.try_send(Complaint { severity, message: words.message + &words.fields, place });
    }
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _always_ok = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Tells until the recorder is gone.
pub async fn tell(mut heard: mpsc::Receiver<Complaint>, out: Emitter, clock: Clock) {
    let mut told: BTreeMap<(&str, u32), Instant> = BTreeMap::new();
    while let Some(Complaint { severity, message, place }) = heard.recv().await {
        if told.get(&place).is_some_and(|at| at.elapsed() < AGAIN) {
            continue;
        }
        told.insert(place, Instant::now());
        let payload = Payload::Diagnostic(Diagnostic::new(severity, message));
        if out.send(Draft::new(clock.now(), payload)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use collector_common::collector::channel;
    use collector_common::root::Root;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn warnings_are_told_once_an_hour_and_only_ours() {
        let (listener, heard) = listen();
        let (out, mut queue) = channel(BTreeMap::new());
        let telling = tokio::spawn(tell(heard, out, Clock::new(&Root::host())));
        let complain = |number: u32| tracing::warn!(number, "the disk is slow");
        let log = tracing::subscriber::set_default(tracing_subscriber::registry().with(listener));
        complain(1);
        complain(2);
        tracing::info!("all is well");
        tracing::error!(target: "rumqttc", "of somebody else");
        tracing::error!(target: "edgewarden::recorder", "would go round in circles");
        tokio::time::sleep(AGAIN).await;
        complain(3);
        drop(log);
        telling.await.unwrap();
        let mut told = Vec::new();
        while let Some(draft) = queue.recv().await {
            assert!(!draft.security_relevant, "its priority decides");
            told.push(draft.payload.unwrap().to_items().unwrap().concat());
        }
        assert_eq!(told.len(), 2, "{told:?}");
        for (told, number) in told.iter().zip([1, 3]) {
            let message = format!(r#""Severity":"Warning","Message":"the disk is slow number={number}""#);
            assert!(told.contains(&message), "{told}");
        }
    }
}
