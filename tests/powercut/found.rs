//! What the agent's spool makes of a disk as it is found, held against what is known of that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use collector_common::event::kind::{Kind, Lane};
use edgewarden::render::envelope;
use edgewarden::spool::Spool;
use edgewarden::spool::record::StoredEvent;
use serde_json::Value;

use crate::facts::{Facts, port};

/// The lines of the log: the port in each, and where the line ends.
pub struct Log(Vec<(u16, u64)>);

impl Log {
    /// Reads it.
    pub fn read(path: &Path) -> Log {
        let (text, mut end) = (std::fs::read_to_string(path).unwrap(), 0);
        let line = |line: &str| {
            end += line.len() as u64;
            (line.split_once(" port ").unwrap().1.split(' ').next().unwrap().parse().unwrap(), end)
        };
        Log(text.split_inclusive('\n').map(line).collect())
    }

    /// All ports.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.0.iter().map(|(port, _)| *port).collect()
    }

    fn before(&self, offset: u64) -> BTreeSet<u16> {
        self.0.iter().filter(|(_, end)| *end <= offset).map(|(port, _)| *port).collect()
    }
}

/// What was found.
pub struct Found {
    /// Lines that will never be an event: a cursor behind them was on the disk, and they were not. Each is counted.
    pub missing: BTreeSet<u16>,
    /// Whether a source's cursor was there.
    pub has_cursor: bool,
    /// Events that had been synced and are gone, and how many losses are told of in the events that are there.
    pub gone: u64,
    pub told: u64,
}

/// Opens the spool and checks, or says what is wrong. Of a disk without anything unsynced nothing may be missing.
///
/// * Each event that was synced is there, unless it may be gone: acknowledged, or given up; none is there twice.
/// * One that was sent would be sent again with the same bytes: by the mark that was kept before.
/// * A line behind the cursor will be read again, as a new event: so it is none yet, neither here nor at the broker.
/// * A line before the cursor is an event here, or one that may be gone. On a disk that kept some of what was not synced, a
///   later frame may have survived an earlier one. Then so many events at least are counted as lost.
pub fn check(
    directory: &Path,
    facts: &Facts,
    may_be_gone: &BTreeSet<String>,
    log: &Log,
    is_strict: bool,
) -> Result<Found, String> {
    let (spool, opened) = Spool::open(directory, 1 << 20).map_err(|error| error.to_string())?;
    // On a disk that kept some of what was not synced there may be half a frame, but never half of another file.
    if let Some(damage) = opened.damage.iter().find(|damage| is_strict || !damage.contains(".seg")) {
        return Err(damage.clone());
    }
    let (mut here, mut told) = (BTreeMap::new(), 0);
    for lane in Lane::ALL {
        while let Some(event) = spool.read(lane).map_err(|error| error.to_string())? {
            let id = event.id.to_string();
            told += losses(&event);
            if let Some(sent) = facts.sent.get(&id) {
                let mark = spool.mark(lane, event.at.boot, event.seq).ok_or(format!("sent without a mark: {id}"))?;
                let text = envelope(&event, mark.offset_us).unwrap();
                if serde_json::from_str::<Value>(&text).unwrap() != *sent {
                    return Err(format!("it would be sent again as {text}, and was {sent}"));
                }
            }
            if here.insert(id.clone(), port(&event)).is_some() || !facts.written.contains_key(&id) {
                return Err(format!("there twice, or never written: {event:?}"));
            }
        }
    }
    let lost: u64 = spool.take_damage().iter().map(|damage| damage.lost).sum();
    let (gone, may_not) =
        facts.safe.iter().filter(|id| !here.contains_key(*id)).partition::<Vec<_>, _>(|id| may_be_gone.contains(*id));
    if !may_not.is_empty() {
        return Err(format!("{} of {} synced events are gone, {lost} counted", may_not.len(), facts.safe.len()));
    }
    let place = opened.cursors.values().find_map(|cursor| cursor.split_once("offset="));
    let offset = place.map_or(0, |(_, rest)| rest.split(' ').next().unwrap().parse().unwrap());
    let before = log.before(offset);
    let here: BTreeSet<u16> = here.into_values().flatten().collect();
    let events: BTreeSet<u16> = here.union(&facts.ports(facts.sent.keys())).copied().collect();
    let again: Vec<_> = events.difference(&before).collect();
    if !again.is_empty() {
        return Err(format!("{} lines would be read a second time: {again:?}", again.len()));
    }
    let known: BTreeSet<u16> = here.union(&facts.ports(may_be_gone)).copied().collect();
    let missing: BTreeSet<u16> = before.difference(&known).copied().collect();
    let may_miss = if is_strict { 0 } else { lost };
    if missing.len() as u64 > may_miss || (is_strict && lost > 0) {
        return Err(format!("{} lines are lost, {lost} counted: {missing:?}", missing.len()));
    }
    Ok(Found { missing, has_cursor: place.is_some(), gone: gone.len() as u64, told })
}

/// What a report of losses counts.
fn losses(event: &StoredEvent) -> u64 {
    let count = |item: &String| serde_json::from_str::<Value>(item).unwrap()["DroppedEvents"].as_u64();
    event.items.iter().filter(|_| event.kind() == Some(Kind::DroppedEventsStatistics)).filter_map(count).sum()
}
