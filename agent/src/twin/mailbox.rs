//! What lies between the connection, which must never wait, and the daemon, which applies and reports.
//!
//! Both sides put in what is newest; a side that is slow finds fewer things, never more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::{Desired, Inbox};
use crate::profile::twin::{Told, TwinTopics};

/// How long the agent connects without the twin after a message on its topics that broke the connection. One that lies
/// retained would break every connection, and nothing would get through any more.
const REST: Duration = Duration::from_secs(3600);

/// Sentences that wait for the daemon.
const MAX_TROUBLES: usize = 4;

/// The mailbox.
#[derive(Clone, Debug, Default)]
pub struct Mailbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    boxes: Mutex<Boxes>,
    for_daemon: Notify,
    for_link: Notify,
}

#[derive(Debug, Default)]
struct Boxes {
    inbox: Inbox,
    link: Link,
    /// What the hub has of our report; `None` when that is not known.
    known: Option<Value>,
    is_asked: bool,
    report: Option<String>,
    troubles: Vec<String>,
    rest_until: Option<Instant>,
}

/// How a report travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Not at all: there is no connection, or none with a twin.
    #[default]
    Down,
    /// The hub merges it into what it has.
    Merges,
    /// The broker retains it whole.
    Retains,
}

/// The twin as a hub answers it.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    desired: &'a RawValue,
    #[serde(default)]
    reported: Value,
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "$version", default)]
    version: u64,
}

/// The version that is written in a document; 0 when there is none.
pub fn version_in(document: &[u8]) -> u64 {
    serde_json::from_slice(document).map_or(0, |Versioned { version }| version)
}

/// The connection's side.
impl Mailbox {
    /// The connection stands.
    pub fn up(&self, topics: &TwinTopics) {
        let mut boxes = self.boxes();
        boxes.inbox.connected();
        let is_retained = topics.get(0).is_none();
        if is_retained {
            boxes.inbox.take_ask();
        }
        boxes.link = if is_retained { Link::Retains } else { Link::Merges };
        (boxes.known, boxes.report, boxes.is_asked) = (None, None, false);
        self.0.for_daemon.notify_one();
    }

    /// It is gone.
    pub fn down(&self) {
        let mut boxes = self.boxes();
        boxes.link = Link::Down;
        (boxes.known, boxes.report, boxes.is_asked) = (None, None, false);
    }

    /// Something was told.
    pub fn told(&self, told: Told, payload: &[u8]) {
        let mut boxes = self.boxes();
        match told {
            Told::Change { version } => boxes.inbox.on_change(payload.to_vec(), version),
            // A retained message that was taken away arrives as an empty one: nothing is desired any more.
            Told::Whole if payload.is_empty() => boxes.inbox.on_retained(b"{}".to_vec(), 0),
            Told::Whole => boxes.inbox.on_retained(payload.to_vec(), version_in(payload)),
            Told::Answer { status: 200, .. } if !payload.is_empty() => {
                match serde_json::from_slice::<Answer>(payload) {
                    Ok(Answer { desired, reported }) => {
                        let desired = desired.get().as_bytes();
                        boxes.inbox.on_whole(desired.to_vec(), version_in(desired));
                        boxes.known = Some(reported);
                    }
                    Err(error) => boxes.trouble(format!("the hub's answer is no twin: {error}")),
                }
            }
            Told::Answer { status: 200..300, .. } => return,
            Told::Answer { status, .. } => {
                boxes.trouble(format!("the hub answers {status} to a question about the twin"));
                boxes.inbox.not_answered();
                // Whether it has what was reported last is not known any more.
                boxes.known = None;
            }
        }
        self.0.for_daemon.notify_one();
    }

    /// The twin cannot be had, and why.
    pub fn trouble(&self, sentence: String) {
        self.boxes().trouble(sentence);
        self.0.for_daemon.notify_one();
    }

    /// A message on its topics broke the connection.
    pub fn rest(&self, now: Instant) {
        self.boxes().rest_until = Some(now + REST);
    }

    /// Until when to connect without the twin.
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.boxes().rest_until.filter(|until| *until > now)
    }

    /// Whether to ask for the twin now.
    pub fn take_asked(&self) -> bool {
        std::mem::take(&mut self.boxes().is_asked)
    }

    /// What to report now.
    pub fn take_report(&self) -> Option<String> {
        self.boxes().report.take()
    }

    /// Until there is something to ask or to report.
    pub async fn for_link(&self) {
        self.0.for_link.notified().await;
    }

    fn boxes(&self) -> MutexGuard<'_, Boxes> {
        self.0.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The daemon's side.
impl Mailbox {
    /// Until there is something new.
    pub async fn for_daemon(&self) {
        self.0.for_daemon.notified().await;
    }

    /// What went wrong since the last time.
    pub fn take_troubles(&self) -> Vec<String> {
        std::mem::take(&mut self.boxes().troubles)
    }

    /// Whether something waits to be applied, or asked.
    pub fn is_waiting(&self) -> bool {
        self.boxes().inbox.is_waiting()
    }

    /// Everything to be applied now. When the whole has to be asked for, that is passed on.
    pub fn take(&self) -> Vec<Desired> {
        let mut boxes = self.boxes();
        if boxes.inbox.take_ask() {
            boxes.is_asked = true;
            self.0.for_link.notify_one();
        }
        boxes.inbox.take()
    }

    /// Of what was taken something could not be applied.
    pub fn lost(&self, taken: &[Desired]) {
        self.boxes().inbox.lost(taken);
        self.0.for_daemon.notify_one();
    }

    /// How a report travels now, and what the hub has; none while one is on its way.
    pub fn known(&self) -> Option<(Link, Option<Value>)> {
        let boxes = self.boxes();
        (boxes.link != Link::Down && boxes.report.is_none()).then(|| (boxes.link, boxes.known.clone()))
    }

    /// Reports. `known` is what the hub has then.
    pub fn report(&self, text: String, known: Value) {
        let mut boxes = self.boxes();
        (boxes.report, boxes.known) = (Some(text), Some(known));
        self.0.for_link.notify_one();
    }
}

impl Boxes {
    fn trouble(&mut self, sentence: String) {
        if self.troubles.len() < MAX_TROUBLES && !self.troubles.contains(&sentence) {
            self.troubles.push(sentence);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told_of(mailbox: &Mailbox) -> Vec<(String, u64)> {
        let text = |desired: Desired| {
            let (Desired::Whole { bytes, version } | Desired::Change { bytes, version }) = desired;
            (String::from_utf8(bytes).unwrap(), version)
        };
        mailbox.take().into_iter().map(text).collect()
    }

    #[test]
    fn an_answer_holds_what_is_desired_and_what_was_reported() {
        let mailbox = Mailbox::default();
        mailbox.up(&TwinTopics::IotHub);
        assert_eq!(told_of(&mailbox), []);
        assert!(mailbox.take_asked() && !mailbox.take_asked());
        let answer = br#"{"desired":{"a":1,"$version":7},"reported":{"b":2,"$version":3}}"#;
        mailbox.told(Told::Answer { status: 200, request: 1 }, answer);
        mailbox.told(Told::Change { version: 8 }, br#"{"a":null,"$version":8}"#);
        mailbox.told(Told::Answer { status: 204, request: 2 }, b"");
        let whole = (r#"{"a":1,"$version":7}"#.to_owned(), 7);
        assert_eq!(told_of(&mailbox), [whole, (r#"{"a":null,"$version":8}"#.to_owned(), 8)]);
        assert_eq!(mailbox.known(), Some((Link::Merges, Some(json!({"b": 2, "$version": 3})))));
        mailbox.told(Told::Answer { status: 429, request: 3 }, b"");
        assert_eq!(mailbox.take_troubles(), ["the hub answers 429 to a question about the twin"]);
        assert_eq!(mailbox.known(), Some((Link::Merges, None)));
        mailbox.down();
        assert_eq!(mailbox.known(), None);
    }

    #[test]
    fn the_last_retained_message_wins_and_none_is_nothing() {
        let mailbox = Mailbox::default();
        mailbox.up(&TwinTopics::Retained { device_id: "press-17".to_owned() });
        for payload in ["{\"$version\":9}", "{\"$version\":3}", "nonsense"] {
            mailbox.told(Told::Whole, payload.as_bytes());
        }
        assert_eq!(told_of(&mailbox), [("nonsense".to_owned(), 0)]);
        assert!(!mailbox.take_asked(), "the subscription asks");
        mailbox.told(Told::Whole, b"");
        assert_eq!(told_of(&mailbox), [("{}".to_owned(), 0)]);
    }

    #[test]
    fn one_report_is_on_its_way() {
        let mailbox = Mailbox::default();
        mailbox.up(&TwinTopics::IotHub);
        mailbox.report("{}".to_owned(), json!({}));
        assert_eq!(mailbox.known(), None);
        assert_eq!(mailbox.take_report().as_deref(), Some("{}"));
        assert_eq!(mailbox.known(), Some((Link::Merges, Some(json!({})))));
    }
}
