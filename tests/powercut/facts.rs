//! What is known at a place in the journal: which events were written, synced, sent and acknowledged by then.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use collector_common::event::kind::{Kind, Lane};
use edgewarden::spool::record::{Record, StoredEvent};
use serde_json::Value;

use crate::journal::{Act, Op};
use crate::wire::{PUBACK, PUBLISH, take_packet, u16_at};

/// Everything up to a place.
#[derive(Clone, Default)]
pub struct Facts {
    /// Id, and the remote port of a login: of events that were ever written to a segment.
    pub written: BTreeMap<String, Option<u16>>,
    /// Ids of events that are on the disk for good.
    pub safe: BTreeSet<String>,
    /// Ids and texts of events that went to the broker. Those it has acknowledged, and the ports in them.
    pub sent: BTreeMap<String, Value>,
    pub acknowledged: BTreeSet<String>,
    pub acknowledged_ports: BTreeSet<u16>,
    /// Written to an inode since its last sync, and when; and the lane it belongs to.
    unsynced: HashMap<u64, BTreeMap<String, u64>>,
    lanes: HashMap<u64, Lane>,
    connections: HashMap<u64, Connection>,
}

/// What is not taken apart yet, and what is not acknowledged yet.
#[derive(Clone, Default)]
struct Connection {
    up: Vec<u8>,
    down: Vec<u8>,
    under_way: HashMap<u16, Vec<String>>,
}

impl Facts {
    /// Takes note of a record.
    pub fn step(&mut self, op: &Op) {
        match &op.act {
            Act::Create { path, inode } => {
                self.unsynced.remove(inode);
                let lane = if path.parent().unwrap().ends_with("high") { Lane::High } else { Lane::Low };
                self.lanes.insert(*inode, lane);
            }
            Act::Write { inode, data, .. } => {
                for event in events(data) {
                    let id = event.id.to_string();
                    self.unsynced.entry(*inode).or_default().entry(id.clone()).or_insert(op.at_us);
                    self.written.insert(id, port(&event));
                }
            }
            Act::Sync { inode } => self.safe.extend(self.unsynced.remove(inode).unwrap_or_default().into_keys()),
            Act::Connect { socket } => drop(self.connections.insert(*socket, Connection::default())),
            Act::Sent { socket, data } => self.on_sent(*socket, data),
            Act::Received { socket, data } => self.on_received(*socket, data),
            _ => {}
        }
    }

    fn on_sent(&mut self, socket: u64, data: &[u8]) {
        let connection = self.connections.get_mut(&socket).expect("sent after it was opened");
        connection.up.extend_from_slice(data);
        while let Some((kind, _, rest)) = take_packet(&mut connection.up) {
            if kind != PUBLISH {
                continue;
            }
            let topic = usize::from(u16_at(&rest, 0));
            let message: Value = serde_json::from_slice(&rest[topic + 4..]).unwrap();
            let mut ids = Vec::new();
            for event in message["Events"].as_array().unwrap() {
                let id = event["Id"].as_str().unwrap().to_owned();
                assert!(self.safe.contains(&id), "sent before it was synced: {event}");
                let before = self.sent.entry(id.clone()).or_insert_with(|| event.clone());
                assert_eq!(before, event, "a second delivery is the same word for word");
                ids.push(id);
            }
            connection.under_way.insert(u16_at(&rest, topic + 2), ids);
        }
    }

    fn on_received(&mut self, socket: u64, data: &[u8]) {
        let connection = self.connections.get_mut(&socket).expect("received after it was opened");
        connection.down.extend_from_slice(data);
        while let Some((kind, _, rest)) = take_packet(&mut connection.down) {
            if kind == PUBACK {
                let ids =
                    connection.under_way.remove(&u16_at(&rest, 0)).expect("the broker acknowledges what was sent");
                self.acknowledged_ports.extend(ids.iter().filter_map(|id| self.written[id]));
                self.acknowledged.extend(ids);
            }
        }
    }

    /// How old the oldest event is that a power cut at this moment would cost: microseconds, High and Low.
    pub fn at_risk_us(&self, now_us: u64) -> [u64; 2] {
        let mut oldest = [0; 2];
        for (inode, waiting) in &self.unsynced {
            let oldest = &mut oldest[self.lanes[inode].index()];
            let of_file = waiting.iter().filter(|(id, _)| !self.safe.contains(*id)).map(|(_, since)| now_us - since);
            *oldest = of_file.fold(*oldest, u64::max);
        }
        oldest
    }
}

/// The events in what was written.
fn events(data: &[u8]) -> Vec<StoredEvent> {
    let starts = data.windows(4).enumerate().filter(|(_, magic)| magic == b"EWfr");
    let body = |(at, _): (usize, &[u8])| {
        let length = u32::from_le_bytes(data.get(at + 4..at + 8)?.try_into().ok()?);
        match Record::decode(data.get(at + 12..at + 12 + length as usize)?) {
            Ok(Record::Event(event) | Record::FirstRow(event)) => Some(event),
            _ => None,
        }
    };
    starts.filter_map(body).collect()
}

/// The remote port of a login, which tells its line in the log.
pub fn port(event: &StoredEvent) -> Option<u16> {
    let item: Value = serde_json::from_str(event.items.first()?).unwrap();
    (event.kind() == Some(Kind::Login)).then(|| item["RemotePort"].as_str().unwrap().parse().unwrap())
}
