//! From a delivery to the store: whose it is, whether it obeys the schema, and the one thread that writes.
//!
//! The topic says which device speaks, never the payload: a broker can check a topic against a login, and nobody can
//! check a payload.

use std::future::Future;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::devices::MAX_DEVICE_BYTES;
use crate::schema;
use crate::store::{Entry, Outcome, Store, StoreError};
use crate::upkeep::Upkeep;

/// The level of a topic template that stands for the device.
pub const DEVICE_LEVEL: &str = "{deviceId}";

/// A topic with the device as one of its levels.
#[derive(Clone, Debug)]
pub struct Topic {
    levels: Vec<String>,
    device_at: usize,
}

impl Topic {
    /// Reads a template such as `edgewarden/{deviceId}/security`.
    ///
    /// # Errors
    ///
    /// When the device is not exactly one whole level, or a level is a wildcard.
    pub fn new(template: &str) -> Result<Topic, String> {
        let wrong = |why: &str| Err(format!("topic {template:?}: {why}"));
        let levels: Vec<String> = template.split('/').map(str::to_owned).collect();
        if template.contains(['+', '#', '\0']) {
            return wrong("a device publishes to it, so it cannot hold + or #");
        }
        let mut places = levels.iter().enumerate().filter(|(_, level)| level.contains(DEVICE_LEVEL));
        match (places.next(), places.next()) {
            (Some((device_at, level)), None) if level == DEVICE_LEVEL => {
                Ok(Topic { device_at, levels: levels.clone() })
            }
            _ => wrong("expected {deviceId} as one level of its own, for example edgewarden/{deviceId}/security"),
        }
    }

    /// The device a topic belongs to.
    ///
    /// # Errors
    ///
    /// A sentence, when the topic is not of this form or the device's level is no usable id.
    pub fn device<'a>(&self, topic: &'a str) -> Result<&'a str, String> {
        let levels: Vec<&str> = topic.split('/').collect();
        let fits = levels.len() == self.levels.len()
            && (0..levels.len()).all(|n| n == self.device_at || levels[n] == self.levels[n]);
        if !fits {
            return Err(format!("topic: expected {}", self.levels.join("/")));
        }
        let device = levels[self.device_at];
        usable_device(device).map_err(|reason| format!("topic: {reason}"))?;
        Ok(device)
    }

    /// Whether every topic a filter can match is one of this device's: the same up to the device's level.
    pub fn is_below(&self, device: &str, filter: &str) -> bool {
        let mut levels = filter.split('/');
        let mut own = self.levels[..self.device_at].iter().map(String::as_str).chain([device]);
        own.all(|level| levels.next() == Some(level)) && levels.next().is_some()
    }
}

/// Whether a device id can be stored and shown.
///
/// # Errors
///
/// A sentence that says what an id is.
pub fn usable_device(device: &str) -> Result<(), String> {
    if device.is_empty() || device.len() > MAX_DEVICE_BYTES || device.chars().any(char::is_control) {
        return Err(format!("a device id has 1 to {MAX_DEVICE_BYTES} bytes and no control characters"));
    }
    Ok(())
}

/// What the store has to keep of a delivery.
pub fn judge(template: &Topic, topic: String, payload: Vec<u8>) -> Entry {
    let device = template.device(&topic).map(str::to_owned);
    let speaker = device.clone().ok();
    let verdict = device.and_then(|device| schema::parse(&payload).map(|message| (device, message)));
    Entry { topic, payload, speaker, verdict }
}

/// The way to the writer thread.
#[derive(Clone, Debug)]
pub struct Ingest {
    to_writer: mpsc::Sender<Task>,
}

/// Ends when the writer has closed the store, which it does when the last [`Ingest`] is gone.
pub type Closed = oneshot::Receiver<()>;

/// What the writer is asked for.
#[derive(Debug)]
enum Task {
    Store(Delivery),
    /// A second went by; see [`Upkeep`].
    Tick,
}

#[derive(Debug)]
struct Delivery {
    topic: String,
    payload: Vec<u8>,
    reply: oneshot::Sender<Result<Outcome, String>>,
}

/// How many deliveries wait for the writer; a publisher beyond that waits, and its broker connection with it.
const QUEUE_LENGTH: usize = 64;

/// Starts the writer thread.
///
/// # Errors
///
/// When the system gives no thread.
pub fn start(store: Store, hub: &str, template: Topic) -> std::io::Result<(Ingest, Closed)> {
    let (to_writer, tasks) = mpsc::channel(QUEUE_LENGTH);
    let (closing, closed) = oneshot::channel();
    let mut writer = Writer { store, resource_id: resource_id(hub), template, upkeep: Upkeep::new() };
    thread::Builder::new().name("store".to_owned()).spawn(move || {
        writer.write_all(tasks);
        drop(writer);
        drop(closing);
    })?;
    Ok((Ingest { to_writer }, closed))
}

/// `AssociatedResourceId` of a hub's rows.
pub fn resource_id(hub: &str) -> String {
    format!("/edgewarden/hubs/{}", hub.to_lowercase())
}

impl Ingest {
    /// Hands a delivery over and waits until it is on disk.
    ///
    /// # Errors
    ///
    /// A sentence, when it is not on disk. It must not be acknowledged then.
    pub async fn deliver(&self, topic: String, payload: Vec<u8>) -> Result<Outcome, String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "the store is closed".to_owned();
        self.to_writer.send(Task::Store(Delivery { topic, payload, reply })).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Ingest {
    /// Lets the writer look every second for what time alone makes due, as long as anybody else holds the way to it.
    pub fn tick(&self) -> impl Future<Output = ()> + Send + 'static {
        let to_writer = self.to_writer.downgrade();
        async move {
            let mut seconds = tokio::time::interval(Duration::from_secs(1));
            seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                seconds.tick().await;
                let Some(to_writer) = to_writer.upgrade() else { return };
                if to_writer.send(Task::Tick).await.is_err() {
                    return;
                }
            }
        }
    }
}

struct Writer {
    store: Store,
    resource_id: String,
    template: Topic,
    upkeep: Upkeep,
}

impl Writer {
    /// Takes what has gathered while the last batch was synced, so that many devices share one sync.
    fn write_all(&mut self, mut tasks: mpsc::Receiver<Task>) {
        while let Some(first) = tasks.blocking_recv() {
            let mut entries = Vec::new();
            let mut replies = Vec::new();
            let mut ticked = false;
            let mut next = Some(first);
            while let Some(task) = next {
                match task {
                    Task::Store(Delivery { topic, payload, reply }) => {
                        entries.push(judge(&self.template, topic, payload));
                        replies.push(reply);
                    }
                    Task::Tick => ticked = true,
                }
                next = if entries.len() < QUEUE_LENGTH { tasks.try_recv().ok() } else { None };
            }
            let results = write_batch(&mut self.store, &self.resource_id, &entries);
            for ((result, entry), reply) in results.into_iter().zip(&entries).zip(replies) {
                log_result(entry, &result);
                // A publisher that has gone meanwhile does not want the answer; its message is stored all the same.
                drop(reply.send(result.map_err(|error| error.to_string())));
            }
            self.upkeep.look(&mut self.store, ticked);
        }
    }
}

/// All together, or each alone when that failed: one entry that SQLite will not take must not hold up the others.
fn write_batch(store: &mut Store, resource_id: &str, entries: &[Entry]) -> Vec<Result<Outcome, StoreError>> {
    if entries.is_empty() {
        return Vec::new();
    }
    if let Ok(outcomes) = store.write(resource_id, Timestamp::now(), entries) {
        return outcomes.into_iter().map(Ok).collect();
    }
    let alone = |entry| {
        let outcomes = store.write(resource_id, Timestamp::now(), std::slice::from_ref(entry))?;
        Ok(outcomes.into_iter().next().unwrap_or_default())
    };
    entries.iter().map(alone).collect()
}

fn log_result(entry: &Entry, result: &Result<Outcome, StoreError>) {
    let topic = entry.topic.as_str();
    match (result, &entry.verdict) {
        (Err(error), _) => tracing::error!(topic, "{error}; the message is not acknowledged"),
        (Ok(_), Err(reason)) => tracing::warn!(topic, reason, "message refused"),
        (Ok(outcome), Ok(_)) if outcome.conflicts > 0 => tracing::warn!(topic, ?outcome, "message conflicts"),
        (Ok(outcome), Ok((device, _))) if outcome.alerts > 0 => {
            tracing::warn!(device, alerts = outcome.alerts, "alerts raised");
        }
        (Ok(outcome), Ok(_)) => tracing::debug!(topic, ?outcome, "message stored"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_names_the_device_and_nothing_else_does() {
        let topic = Topic::new("edgewarden/{deviceId}/security").unwrap();
        assert_eq!(topic.device("edgewarden/press-17/security").unwrap(), "press-17");
        assert_eq!(topic.device("edgewarden/a b$ü/security").unwrap(), "a b$ü");
        for wrong in [
            "edgewarden/a/b/security",
            "edgewarden//security",
            "edgewarden/a/other",
            "edgewarden/a",
            "/edgewarden/a/security",
            "edgewarden/a\u{7}/security",
            "",
        ] {
            assert!(topic.device(wrong).unwrap_err().starts_with("topic: "), "{wrong:?}");
        }
        assert!(topic.device(&format!("edgewarden/{}/security", "x".repeat(129))).is_err());
    }

    #[test]
    fn a_filter_is_a_devices_own_when_it_can_match_no_other() {
        let topic = Topic::new("edgewarden/{deviceId}/security").unwrap();
        for own in ["edgewarden/a/twin/desired", "edgewarden/a/#", "edgewarden/a/+/x"] {
            assert!(topic.is_below("a", own), "{own}");
        }
        for foreign in ["#", "+/a/#", "edgewarden/+/twin", "edgewarden/b/twin", "edgewarden/a", "edgewarden/ab/x"] {
            assert!(!topic.is_below("a", foreign), "{foreign}");
        }
        for foreign in ["$SYS/#", "$share/g/edgewarden/a/twin", "", "/edgewarden/a/twin"] {
            assert!(!topic.is_below("a", foreign), "{foreign}");
        }
    }

    #[test]
    fn a_template_needs_the_device_as_one_level() {
        assert!(Topic::new("{deviceId}").is_ok());
        for wrong in ["edgewarden/security", "x-{deviceId}/security", "{deviceId}/{deviceId}", "+/{deviceId}", "#", ""]
        {
            assert!(Topic::new(wrong).unwrap_err().contains("topic "), "{wrong:?}");
        }
    }

    #[test]
    fn a_message_on_a_strange_topic_is_refused_even_when_it_is_good() {
        let topic = Topic::new("edgewarden/{deviceId}/security").unwrap();
        let entry = judge(&topic, "other/press-17".to_owned(), b"{}".to_vec());
        assert_eq!(entry.verdict.unwrap_err(), "topic: expected edgewarden/{deviceId}/security");
    }
}
