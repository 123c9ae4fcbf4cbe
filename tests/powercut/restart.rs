//! The agent goes on from a disk as it was found, with the same log and a broker, and everything is counted at the far
//! end: what was there before the cut together with what comes after it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::agent::{Agent, connection};
use crate::arrivals::{Arrival, logins_by_port, of_message};
use crate::facts::Facts;
use crate::found::Found;
use crate::is_segment;
use crate::journal::{Act, Op};
use crate::mosquitto::Mosquitto;
use crate::wait;

/// So many of each sort of place.
const EACH: usize = 4;

/// So many agents at a time.
const AT_A_TIME: usize = 4;

/// A place where the power went, and an agent with the disk that was left.
pub struct Cut {
    pub agent: Agent,
    pub place: usize,
    pub facts: Facts,
    pub found: Found,
}

/// Places to go on from: behind a PUBACK, while a segment is begun, when segments are forgotten, while state.json is
/// replaced, and wherever.
pub fn places(ops: &[Op]) -> BTreeSet<usize> {
    let sorts: [fn(&Act) -> bool; 5] = [
        |act| matches!(act, Act::Received { data, .. } if data[0] >> 4 == crate::wire::PUBACK),
        |act| matches!(act, Act::Rename { to, .. } if is_segment(to)),
        |act| matches!(act, Act::Remove { path } if is_segment(path)),
        |act| matches!(act, Act::Rename { to, .. } if to.ends_with("state.json")),
        |_| true,
    ];
    let mut chosen = BTreeSet::new();
    for sort in sorts {
        let all: Vec<usize> = (0..ops.len()).filter(|place| sort(&ops[*place].act)).collect();
        assert!(all.len() >= EACH, "too little was done: a sort of place is there {} times only", all.len());
        chosen.extend((1..=EACH).map(|part| all[all.len() * part / (EACH + 1)]));
    }
    chosen
}

/// Goes on from each, until every line of the log has arrived or is known to be lost.
pub fn go_on(cuts: &mut [Cut], log: &Path, lines: &BTreeSet<u16>) {
    for cuts in cuts.chunks_mut(AT_A_TIME) {
        let mut broker = Mosquitto::start();
        for cut in cuts.iter_mut() {
            cut.agent.twin["deviceId"] = json!(cut.device());
            cut.agent.twin["connection"] = connection(broker.port);
            cut.agent.own()["loginSource"] = json!(log);
            cut.agent.start();
        }
        wait::until("all lines", || {
            let arrived = by_device(&broker);
            match cuts.iter().find_map(|cut| cut.waits_for(&arrived, lines)) {
                Some(missing) => Err(missing),
                None => Ok(()),
            }
        });
        for cut in cuts.iter_mut() {
            let place = cut.place;
            assert!(cut.agent.terminate().success(), "cut {place}: the agent did not stop well");
        }
        broker.catch_up();
        let arrived = by_device(&broker);
        cuts.iter().for_each(|cut| cut.assert_each_once(&arrived[&cut.device()], lines));
    }
}

/// Events in the order of their arrival.
fn by_device(broker: &Mosquitto) -> BTreeMap<String, Vec<Value>> {
    let mut arrived: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (topic, mut message) in broker.messages() {
        let device = topic.split('/').nth(1).unwrap().to_owned();
        // What the broker says in the agent's name after a broken connection is no event of the spool.
        if let Some(events) = message["Events"].as_array_mut() {
            arrived.entry(device).or_default().append(events);
        }
    }
    arrived
}

fn arrivals(events: &[Value]) -> Vec<Arrival> {
    of_message(&json!({ "Events": events }))
}

impl Cut {
    fn device(&self) -> String {
        format!("press-{}", self.place)
    }

    fn waits_for(&self, arrived: &BTreeMap<String, Vec<Value>>, lines: &BTreeSet<u16>) -> Option<String> {
        let events = arrived.get(&self.device()).map_or(&[][..], Vec::as_slice);
        let after = logins_by_port(&arrivals(events));
        let is_known = |port: &u16| {
            after.contains_key(port)
                || self.facts.acknowledged_ports.contains(port)
                || self.found.missing.contains(port)
        };
        let missing: Vec<_> = lines.iter().filter(|port| !is_known(port)).collect();
        (!missing.is_empty()).then(|| format!("cut {}: {missing:?}; log:\n{}", self.place, self.agent.log()))
    }

    fn assert_each_once(&self, after: &[Value], lines: &BTreeSet<u16>) {
        let (place, before) = (self.place, &self.facts.sent);
        let mut all: BTreeMap<&str, &Value> = before.iter().map(|(id, event)| (id.as_str(), event)).collect();
        for event in after {
            let id = event["Id"].as_str().unwrap();
            let first = all.entry(id).or_insert(event);
            assert_eq!(*first, event, "cut {place}: a second delivery is the same word for word");
        }
        let arrived: BTreeSet<&str> = after.iter().map(|event| event["Id"].as_str().unwrap()).collect();
        let due = |id: &&String| !self.facts.acknowledged.contains(*id) && !arrived.contains(id.as_str());
        let gone: Vec<_> = self.facts.safe.iter().filter(due).collect();
        assert!(gone.is_empty(), "cut {place}: synced, and never acknowledged: {gone:?}");

        let events: Vec<Value> = all.into_values().cloned().collect();
        let by_port = logins_by_port(&arrivals(&events));
        let twice: Vec<_> = by_port.iter().filter(|(_, ids)| ids.len() != 1).collect();
        assert!(twice.is_empty(), "cut {place}: a line became more than one event: {twice:?}");
        let ports: BTreeSet<u16> = by_port.into_keys().collect();
        assert!(ports.is_subset(lines) && lines.is_subset(&ports.union(&self.found.missing).copied().collect()));
        if !self.found.missing.is_empty() {
            let told: u64 = after.iter().map(damaged).sum();
            assert!(told >= self.found.missing.len() as u64, "cut {place}: {told} of {:?} told", self.found.missing);
        }
    }
}

/// What an event counts as damaged.
fn damaged(event: &Value) -> u64 {
    let items = event["Payload"].as_array().unwrap();
    items.iter().filter_map(|item| item["ExtraDetails"]["Unknown.damaged"].as_str()?.parse::<u64>().ok()).sum()
}
