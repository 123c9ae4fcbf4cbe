//! Packs events into messages: High first, filled up with Low, each message within the limit.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use collector_common::clock::Reading;
use collector_common::event::kind::Lane;
use collector_common::event::wire::{MESSAGE_END, message_start};
use uuid::Uuid;

use crate::render::{Renderer, envelope};
use crate::spool::Spool;
use crate::spool::record::StoredEvent;
use crate::{fit, ids};

/// How long events of a boot whose clock was never set wait, once connected, for the clock to be set.
pub const CLOCK_GRACE: Duration = Duration::from_secs(600);

/// What the next message may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The whole message: bytes.
    pub max_bytes: usize,
    /// Whether events that a right clock would date better wait.
    pub hold_suspect: bool,
    /// Whether Low events may go too.
    pub with_low: bool,
}

/// A message ready to be sent.
#[derive(Debug)]
pub struct Message {
    /// The JSON text.
    pub text: String,
    /// The last event of each lane that is in it to its end.
    pub through: [Option<u64>; 2],
    /// How many events end in it.
    pub events: u64,
}

/// Reads the spool and makes messages.
#[derive(Debug)]
pub struct Batcher {
    spool: Spool,
    renderer: Renderer,
    start: String,
    /// Read and not yet in a message.
    parts: [VecDeque<Part>; 2],
    /// Read, and waiting for the clock to be set.
    held: [Option<StoredEvent>; 2],
    next_seq: [u64; 2],
}

/// An event object, or a part of one that was recorded when messages could be larger.
#[derive(Debug)]
struct Part {
    text: String,
    seq: u64,
    is_last: bool,
}

impl Batcher {
    /// A reader that begins at the first unacknowledged event.
    pub fn new(spool: Spool, renderer: Renderer, agent_id: Uuid) -> Batcher {
        let start = message_start(env!("CARGO_PKG_VERSION"), agent_id);
        let mut batcher =
            Batcher { spool, renderer, start, parts: Default::default(), held: [None, None], next_seq: [0; 2] };
        batcher.rewind();
        batcher
    }

    /// Goes back to the first unacknowledged event of both lanes.
    pub fn rewind(&mut self) {
        self.spool.rewind();
        self.parts = Default::default();
        self.held = [None, None];
        self.next_seq = self.spool.stats().acked.map(|acked| acked + 1);
    }

    /// The next event of each lane that is not in a message to its end.
    pub fn next_seq(&self) -> [u64; 2] {
        self.next_seq
    }

    /// Whether an event waits for the clock to be set.
    pub fn is_holding(&self) -> bool {
        self.held.iter().any(Option::is_some)
    }

    /// [`Renderer::keep_offset_of_boot`].
    pub fn keep_offset_of_boot(&self, first: &Reading) -> io::Result<()> {
        self.renderer.keep_offset_of_boot(first)
    }

    /// The next message. `None` when there is nothing that may be sent: what is not synced waits.
    pub fn next(&mut self, limits: Limits) -> io::Result<Option<Message>> {
        let mut message = Message { text: self.start.clone(), through: [None, None], events: 0 };
        let mut is_empty = true;
        for lane in Lane::ALL {
            if lane == Lane::Low && !limits.with_low {
                break;
            }
            while self.has_part(lane, limits)? {
                let length = self.parts[lane.index()].front().map_or(0, |part| part.text.len());
                let is_full = message.text.len() + 1 + length + MESSAGE_END.len() > limits.max_bytes;
                if is_full && !is_empty {
                    break;
                }
                let Some(part) = self.parts[lane.index()].pop_front() else { break };
                if !is_empty {
                    message.text.push(',');
                }
                message.text.push_str(&part.text);
                is_empty = false;
                if part.is_last {
                    message.events += 1;
                    message.through[lane.index()] = Some(part.seq);
                    self.next_seq[lane.index()] = part.seq + 1;
                }
            }
        }
        message.text.push_str(MESSAGE_END);
        Ok((!is_empty).then_some(message))
    }

    /// Whether there is a part that may be sent; reads and renders the next event when needed.
    fn has_part(&mut self, lane: Lane, limits: Limits) -> io::Result<bool> {
        while self.parts[lane.index()].is_empty() {
            let event = match self.held[lane.index()].take() {
                Some(event) => event,
                None => match self.spool.read(lane)? {
                    Some(event) => event,
                    None => {
                        // Numbers of events that are gone are passed over: they would be due for ever.
                        let next_seq = &mut self.next_seq[lane.index()];
                        *next_seq = self.spool.next_to_read(lane).max(*next_seq);
                        return Ok(false);
                    }
                },
            };
            if limits.hold_suspect && self.renderer.may_be_corrected(&event) {
                self.held[lane.index()] = Some(event);
                return Ok(false);
            }
            let offset_us = self.renderer.offset_us(lane, &event)?;
            self.parts[lane.index()] = parts(event, offset_us, limits.max_bytes);
        }
        Ok(true)
    }
}

/// An event as text. One that was recorded under a larger limit than today's is taken apart by its items, and an item
/// that is too large alone is cut down with a mark, so that nothing is ever stuck. The parts' ids are made of the
/// event's, so that a second delivery is recognised.
fn parts(event: StoredEvent, offset_us: Option<i64>, max_bytes: usize) -> VecDeque<Part> {
    let seq = event.seq;
    // A kind this version does not know makes no text.
    let Some(text) = envelope(&event, offset_us) else { return VecDeque::new() };
    if text.len() + fit::AROUND_EVENT_BYTES <= max_bytes {
        return VecDeque::from([Part { text, seq, is_last: true }]);
    }
    let groups = fit::into_events(event.items.clone(), max_bytes);
    let last = groups.len() - 1;
    let part = |(number, items): (usize, Vec<String>)| {
        let id = match number {
            0 => event.id,
            _ => ids::derived(&[event.id.as_bytes(), &number.to_be_bytes()]),
        };
        let text = envelope(&StoredEvent { id, items, ..event.clone() }, offset_us)?;
        Some(Part { text, seq, is_last: number == last })
    };
    groups.into_iter().enumerate().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::clock::Clock;
    use collector_common::event::kind::Kind;
    use collector_common::root::Root;
    use serde_json::Value;

    fn limits(max_bytes: usize) -> Limits {
        Limits { max_bytes, hold_suspect: false, with_low: true }
    }

    fn spool_with(events: &[(Lane, &[usize])]) -> (tempfile::TempDir, Spool, Batcher) {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(directory.path(), 1 << 24).unwrap();
        let clock = Clock::new(&Root::host());
        for (lane, items) in events {
            let event = StoredEvent {
                seq: 0,
                id: Uuid::now_v7(),
                kind: Kind::Login as u8,
                at: clock.now(),
                utc_offset_seconds: 0,
                items: items.iter().map(|bytes| format!(r#"{{"Result":"{}"}}"#, "x".repeat(*bytes))).collect(),
                cursor: None,
            };
            spool.append(*lane, event, None).unwrap();
        }
        Lane::ALL.into_iter().for_each(|lane| spool.sync(lane).unwrap());
        let batcher = Batcher::new(spool.clone(), Renderer::new(spool.clone(), clock), Uuid::nil());
        (directory, spool, batcher)
    }

    #[test]
    fn high_goes_first_and_low_fills_the_message_up() {
        let (_directory, _spool, mut batcher) =
            spool_with(&[(Lane::Low, &[10]), (Lane::Low, &[1000]), (Lane::High, &[10]), (Lane::High, &[10])]);
        let message = batcher.next(limits(1800)).unwrap().unwrap();
        assert_eq!((message.through, message.events), ([Some(2), Some(1)], 3));
        assert!(message.text.len() <= 1800);
        let parsed: Value = serde_json::from_str(&message.text).unwrap();
        assert_eq!(parsed["Events"].as_array().unwrap().len(), 3);
        let message = batcher.next(limits(1800)).unwrap().unwrap();
        assert_eq!((message.through, message.events), ([None, Some(2)], 1));
        assert!(batcher.next(limits(1800)).unwrap().is_none());
    }

    #[test]
    fn low_stays_where_it_is_while_it_may_not_go() {
        let (_directory, _spool, mut batcher) = spool_with(&[(Lane::Low, &[10]), (Lane::High, &[10])]);
        let without_low = Limits { with_low: false, ..limits(8192) };
        assert_eq!(batcher.next(without_low).unwrap().unwrap().through, [Some(1), None]);
        assert!(batcher.next(without_low).unwrap().is_none());
        assert_eq!(batcher.next(limits(8192)).unwrap().unwrap().through, [None, Some(1)]);
    }

    #[test]
    fn an_event_larger_than_the_limit_goes_in_parts_and_is_not_stuck() {
        let (_directory, _spool, mut batcher) = spool_with(&[(Lane::High, &[3000, 3000, 20_000]), (Lane::High, &[1])]);
        let mut messages = Vec::new();
        while let Some(message) = batcher.next(limits(8192)).unwrap() {
            assert!(message.text.len() <= 8192, "{}", message.text.len());
            messages.push(message);
        }
        let through: Vec<_> = messages.iter().filter_map(|message| message.through[0]).collect();
        assert_eq!(through.last(), Some(&2));
        assert_eq!(messages.iter().map(|message| message.events).sum::<u64>(), 2);
        let texts: Vec<Value> = messages.iter().map(|message| serde_json::from_str(&message.text).unwrap()).collect();
        let events: Vec<&Value> = texts.iter().flat_map(|message| message["Events"].as_array().unwrap()).collect();
        let items: usize = events.iter().map(|event| event["Payload"].as_array().unwrap().len()).sum();
        assert_eq!(items, 4);
        assert!(messages.iter().any(|message| message.text.contains("Truncated")));
        let mut event_ids: Vec<_> = events.iter().map(|event| event["Id"].to_string()).collect();
        event_ids.sort();
        event_ids.dedup();
        assert_eq!(event_ids.len(), events.len());
        batcher.rewind();
        let again = batcher.next(limits(8192)).unwrap().unwrap();
        assert_eq!(again.text, messages[0].text);
    }

    #[test]
    fn what_is_gone_is_not_due() {
        let (directory, spool, mut batcher) = spool_with(&[(Lane::Low, &[10]), (Lane::Low, &[10])]);
        assert_eq!(batcher.next_seq(), [1, 1]);
        let path = directory.path().join("spool/low/00000000000000000001.seg");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(batcher.next(limits(8192)).unwrap().unwrap().through, [None, Some(1)]);
        assert!(batcher.next(limits(8192)).unwrap().is_none());
        assert_eq!(batcher.next_seq(), [1, spool.stats().recorded[1] + 1]);
    }

    #[test]
    fn what_is_sent_again_is_the_same_bytes() {
        let (_directory, spool, mut batcher) =
            spool_with(&[(Lane::High, &[10]), (Lane::Low, &[10]), (Lane::High, &[10])]);
        let first = batcher.next(limits(8192)).unwrap().unwrap();
        batcher.rewind();
        assert_eq!(batcher.next(limits(8192)).unwrap().unwrap().text, first.text);
        spool.acknowledge(Lane::High, 2).unwrap();
        batcher.rewind();
        let rest = batcher.next(limits(8192)).unwrap().unwrap();
        assert_eq!((rest.through, rest.events), ([None, Some(1)], 1));
    }
}
