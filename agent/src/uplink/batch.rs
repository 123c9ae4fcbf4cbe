//! Packs events into messages: High first, filled up with Low, each message within the limit.

use std::io;
use std::time::Duration;

use collector_common::clock::Reading;
use collector_common::event::kind::Lane;
use collector_common::event::wire::{MESSAGE_END, message_start};
use uuid::Uuid;

use crate::render::{Renderer, envelope};
use crate::spool::Spool;
use crate::spool::record::StoredEvent;

/// How long events of a boot whose clock was never set wait, once connected, for the clock to be set.
pub const CLOCK_GRACE: Duration = Duration::from_secs(600);

/// A message ready to be sent.
#[derive(Debug)]
pub struct Message {
    /// The JSON text.
    pub text: String,
    /// The last event of each lane in it.
    pub through: [Option<u64>; 2],
    /// How many events are in it.
    pub events: u64,
}

/// Reads the spool and makes messages.
#[derive(Debug)]
pub struct Batcher {
    spool: Spool,
    renderer: Renderer,
    start: String,
    /// The next event of each lane: read and not yet in a message.
    peeked: [Option<StoredEvent>; 2],
    next_seq: [u64; 2],
}

impl Batcher {
    /// A reader that begins at the first unacknowledged event.
    pub fn new(spool: Spool, renderer: Renderer, agent_id: Uuid) -> Batcher {
        let start = message_start(env!("CARGO_PKG_VERSION"), agent_id);
        let mut batcher = Batcher { spool, renderer, start, peeked: [None, None], next_seq: [0; 2] };
        batcher.rewind();
        batcher
    }

    /// Goes back to the first unacknowledged event of both lanes.
    pub fn rewind(&mut self) {
        self.spool.rewind();
        self.peeked = [None, None];
        self.next_seq = self.spool.stats().acked.map(|acked| acked + 1);
    }

    /// The next event of each lane that is in no message yet.
    pub fn next_seq(&self) -> [u64; 2] {
        self.next_seq
    }

    /// [`Renderer::keep_offset_of_boot`].
    pub fn keep_offset_of_boot(&self, first: &Reading) -> io::Result<()> {
        self.renderer.keep_offset_of_boot(first)
    }

    /// The next message of at most `max_bytes`, or of one event that is larger alone. `None` when there is nothing that
    /// may be sent: what is not synced waits, and with `hold_suspect` so does what a right clock would date better.
    pub fn next(&mut self, max_bytes: usize, hold_suspect: bool) -> io::Result<Option<Message>> {
        let mut message = Message { text: self.start.clone(), through: [None, None], events: 0 };
        for lane in Lane::ALL {
            while let Some(event) = self.peek(lane)? {
                if hold_suspect && self.renderer.may_be_corrected(&event) {
                    self.peeked[lane.index()] = Some(event);
                    break;
                }
                let offset_us = self.renderer.offset_us(lane, &event)?;
                if let Some(text) = envelope(&event, offset_us) {
                    let length = message.text.len() + 1 + text.len() + MESSAGE_END.len();
                    if length > max_bytes && message.events > 0 {
                        self.peeked[lane.index()] = Some(event);
                        break;
                    }
                    if message.events > 0 {
                        message.text.push(',');
                    }
                    message.text.push_str(&text);
                    message.events += 1;
                }
                message.through[lane.index()] = Some(event.seq);
                self.next_seq[lane.index()] = event.seq + 1;
            }
        }
        message.text.push_str(MESSAGE_END);
        Ok((message.events > 0).then_some(message))
    }

    fn peek(&mut self, lane: Lane) -> io::Result<Option<StoredEvent>> {
        if let Some(event) = self.peeked[lane.index()].take() {
            return Ok(Some(event));
        }
        self.spool.read(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_common::clock::Clock;
    use collector_common::event::kind::Kind;
    use collector_common::root::Root;

    fn spool_with(events: &[(Lane, usize)]) -> (tempfile::TempDir, Spool, Batcher) {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(directory.path(), 1 << 24).unwrap();
        let clock = Clock::new(&Root::host());
        for (lane, bytes) in events {
            let event = StoredEvent {
                seq: 0,
                id: Uuid::now_v7(),
                kind: Kind::Login as u8,
                at: clock.now(),
                utc_offset_seconds: 0,
                items: vec![format!(r#"{{"Result":"{}"}}"#, "x".repeat(*bytes))],
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
            spool_with(&[(Lane::Low, 10), (Lane::Low, 1000), (Lane::High, 10), (Lane::High, 10)]);
        let message = batcher.next(1500, false).unwrap().unwrap();
        assert_eq!((message.through, message.events), ([Some(2), Some(1)], 3));
        assert!(message.text.len() <= 1500);
        let parsed: serde_json::Value = serde_json::from_str(&message.text).unwrap();
        assert_eq!(parsed["Events"].as_array().unwrap().len(), 3);
        let message = batcher.next(1500, false).unwrap().unwrap();
        assert_eq!((message.through, message.events), ([None, Some(2)], 1));
        assert!(batcher.next(1500, false).unwrap().is_none());
    }

    #[test]
    fn an_event_larger_than_the_limit_goes_alone_and_is_not_stuck() {
        let (_directory, _spool, mut batcher) = spool_with(&[(Lane::High, 5000), (Lane::High, 1)]);
        assert_eq!(batcher.next(1000, false).unwrap().unwrap().through, [Some(1), None]);
        assert_eq!(batcher.next(1000, false).unwrap().unwrap().through, [Some(2), None]);
    }

    #[test]
    fn what_is_sent_again_is_the_same_bytes() {
        let (_directory, spool, mut batcher) = spool_with(&[(Lane::High, 10), (Lane::Low, 10), (Lane::High, 10)]);
        let first = batcher.next(8192, false).unwrap().unwrap();
        batcher.rewind();
        assert_eq!(batcher.next(8192, false).unwrap().unwrap().text, first.text);
        spool.acknowledge(Lane::High, 2).unwrap();
        batcher.rewind();
        let rest = batcher.next(8192, false).unwrap().unwrap();
        assert_eq!((rest.through, rest.events), ([None, Some(1)], 1));
    }
}
