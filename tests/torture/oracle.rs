//! Whether every cause is where it must be. No I/O, and nothing the agent says of itself is believed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::arrivals::{Arrival, of_message};
use crate::cause::{self, Cause};
use crate::wire::Sent;

/// 2015. What a line says of an earlier time the agent does not believe.
const FIRST_POSSIBLE: Timestamp = Timestamp::constant(1_420_070_400, 0);

/// What is compared.
pub struct Evidence {
    /// Causes are numbered from 1.
    pub causes: Vec<Cause>,
    /// Between the first cause and the comparison, by every clock the agent ever had that could be right.
    pub spans: Vec<(Timestamp, Timestamp)>,
    /// Whether there were times without room for all.
    pub may_drop: bool,
    /// Everything at the far end.
    pub arrivals: Vec<Arrival>,
    /// Whether those are in the order of arrival; a store sorts them by another clock.
    pub is_in_order: bool,
    /// Everything that went up to the broker.
    pub sent: Vec<Sent>,
    /// Connections before this one were made to a broker that was killed later and is not ours.
    pub killed_links: usize,
}

/// What became of the causes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    pub caused: u64,
    pub delivered: u64,
    /// Events that were sent again.
    pub redelivered: u64,
    /// What the delivered reports of losses count.
    pub dropped: u64,
    /// Not at the far end, but acknowledged by a foreign broker that was killed later.
    pub left_to_killed: u64,
    /// Neither delivered nor counted nor left to a killed broker.
    pub lost: u64,
    /// Causes that became more than one event.
    pub duplicates: u64,
    /// Everything else that is wrong, in words.
    pub wrongs: Vec<String>,
    /// The causes that are nowhere.
    pub missing: Vec<u32>,
}

impl Score {
    /// Whether the agent kept its promise.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.duplicates == 0 && self.wrongs.is_empty()
    }
}

/// Compares.
pub fn score(evidence: &Evidence) -> Score {
    let mut wrongs = Vec::new();
    let caused = u32::try_from(evidence.causes.len()).expect("there are few");
    let events = events_by_cause(&evidence.arrivals, caused, &mut wrongs);
    if evidence.is_in_order {
        check_order("arrived", numbers(&evidence.arrivals), &mut wrongs);
    }
    let messages: Vec<Value> =
        evidence.sent.iter().map(|sent| serde_json::from_slice(&sent.message).expect("a message is JSON")).collect();
    let redelivered = check_redeliveries(&messages, &mut wrongs);
    check_times(&messages, evidence, &mut wrongs);
    let sent: Vec<(usize, bool, Vec<Arrival>)> = evidence
        .sent
        .iter()
        .zip(&messages)
        .map(|(sent, message)| (sent.link, sent.is_acknowledged, of_message(message)))
        .collect();
    check_order("was sent", sent.iter().flat_map(|(.., arrivals)| numbers(arrivals)), &mut wrongs);
    let mut left: BTreeSet<u32> = sent
        .iter()
        .filter(|(link, is_acknowledged, _)| *is_acknowledged && *link < evidence.killed_links)
        .flat_map(|(.., arrivals)| numbers(arrivals))
        .collect();
    left.retain(|number| !events.contains_key(number));

    let missing: Vec<u32> =
        (1..=caused).filter(|number| !events.contains_key(number) && !left.contains(number)).collect();
    let dropped = dropped(&evidence.arrivals);
    if dropped > 0 && !evidence.may_drop {
        wrongs.push(format!("{dropped} logins were dropped although there was room for all"));
    }
    Score {
        caused: u64::from(caused),
        delivered: events.len() as u64,
        redelivered,
        dropped,
        left_to_killed: left.len() as u64,
        lost: (missing.len() as u64).saturating_sub(dropped),
        duplicates: events.values().filter(|ids| ids.len() > 1).count() as u64,
        wrongs,
        missing,
    }
}

/// The causes that have a row, and under which ids.
fn events_by_cause(arrivals: &[Arrival], caused: u32, wrongs: &mut Vec<String>) -> BTreeMap<u32, BTreeSet<String>> {
    let mut events: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for arrival in logins(arrivals) {
        match cause::number(arrival) {
            Ok(number) if (1..=caused).contains(&number) => {
                events.entry(number).or_default().insert(arrival.event.clone());
            }
            Ok(number) => wrongs.push(format!("cause {number} never was: {arrival:?}")),
            Err(wrong) => wrongs.push(wrong),
        }
    }
    events
}

/// A redelivery must be the same event word for word, times included. Gives how many there were.
pub fn check_redeliveries(messages: &[Value], wrongs: &mut Vec<String>) -> u64 {
    let mut first: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut redelivered = 0;
    for event in messages.iter().flat_map(|message| message["Events"].as_array().expect("a message has Events")) {
        match first.entry(event["Id"].as_str().expect("an event has an Id")) {
            Entry::Vacant(place) => {
                place.insert(event);
            }
            Entry::Occupied(before) => {
                redelivered += 1;
                if *before.get() != event {
                    wrongs.push(format!("an event was sent first as {} and then as {event}", before.get()));
                }
            }
        }
    }
    redelivered
}

/// The time of a login is what its line says, whatever the agent's clock says. A line that says what cannot be true is
/// dated by the agent, and so is everything else: once the clock is right, it was right.
fn check_times(messages: &[Value], evidence: &Evidence, wrongs: &mut Vec<String>) {
    for event in messages.iter().flat_map(|message| message["Events"].as_array().expect("a message has Events")) {
        let time: Timestamp = event["TimestampUTC"].as_str().and_then(|time| time.parse().ok()).unwrap_or_default();
        let number = numbers(&of_message(&json!({ "Events": [event] }))).first().copied();
        let cause = number.and_then(|number| evidence.causes.get((number as usize).checked_sub(1)?));
        let stamp = cause.map(|cause| cause.stamp).filter(|stamp| *stamp > FIRST_POSSIBLE);
        let is_right = match stamp {
            Some(stamp) => time.as_millisecond() == stamp.as_millisecond(),
            None => evidence.spans.iter().any(|(begin, end)| (*begin..=*end).contains(&time)),
        };
        if !is_right {
            wrongs.push(format!("the time of {event} is not the one of {cause:?}"));
        }
    }
}

/// What comes for the first time comes in the order in which it was caused.
fn check_order(what: &str, numbers: impl IntoIterator<Item = u32>, wrongs: &mut Vec<String>) {
    let (mut seen, mut highest) = (BTreeSet::new(), 0);
    for number in numbers {
        if seen.insert(number) && number < highest {
            wrongs.push(format!("cause {number} {what} for the first time after cause {highest}"));
        }
        highest = highest.max(number);
    }
}

/// All logins that the reports of losses count. A report delivered twice counts once.
fn dropped(arrivals: &[Arrival]) -> u64 {
    let reports: BTreeMap<(&str, u64), &Arrival> = arrivals
        .iter()
        .filter(|arrival| arrival.name == "DroppedEventsStatistics")
        .map(|arrival| ((arrival.event.as_str(), arrival.index), arrival))
        .collect();
    let details = reports.values().filter_map(|report| report.details["ExtraDetails"].as_object());
    let logins = details.flatten().filter(|(key, _)| key.starts_with("Login."));
    logins.map(|(_, events)| events.as_str().and_then(|events| events.parse::<u64>().ok()).unwrap_or(0)).sum()
}

fn logins(arrivals: &[Arrival]) -> impl Iterator<Item = &Arrival> {
    arrivals.iter().filter(|arrival| arrival.name == "Login")
}

fn numbers(arrivals: &[Arrival]) -> Vec<u32> {
    logins(arrivals).filter_map(|arrival| cause::number(arrival).ok()).collect()
}

/// An oracle that cannot say no proves nothing.
#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::new(1_795_478_400 + second, 123_456_789).unwrap()
    }

    fn login(event: &str, number: u32) -> Arrival {
        let details = json!({
            "ProcessId": number, "RemotePort": (1024 + number % 60_000).to_string(), "UserName": "root",
            "RemoteAddress": "198.51.100.7", "Result": "Fail", "Operation": "LoginFailed",
            "Executable": "/usr/sbin/sshd",
        });
        Arrival { event: event.to_owned(), index: 0, name: "Login".to_owned(), details }
    }

    /// The first three causes.
    fn all() -> Vec<Arrival> {
        (1..=3).map(|number| login(&number.to_string(), number)).collect()
    }

    fn evidence(caused: i64, arrivals: Vec<Arrival>, sent: Vec<Sent>) -> Evidence {
        Evidence {
            causes: (1..=caused).map(|number| Cause { at: second(number), stamp: second(number) }).collect(),
            spans: vec![(second(1), second(9))],
            may_drop: true,
            arrivals,
            is_in_order: true,
            sent,
            killed_links: 1,
        }
    }

    /// What the line of the fourth cause says.
    const FOURTH: &str = "2026-11-24T00:00:04.123Z";

    /// A message with the fourth cause.
    fn sent(link: usize, is_acknowledged: bool, time: &str) -> Sent {
        let event = json!({
            "Id": "4", "Name": "Login", "TimestampUTC": time, "Payload": [login("4", 4).details]
        });
        Sent { link, message: json!({ "Events": [event] }).to_string().into_bytes(), is_acknowledged }
    }

    #[test]
    fn losses_duplicates_inventions_and_disorder_are_found() {
        let report = |event: &str, lost: &str| Arrival {
            event: event.to_owned(),
            index: 0,
            name: "DroppedEventsStatistics".to_owned(),
            details: json!({ "ExtraDetails": { "Login.diskError": lost, "LocalUsers.spoolFull": "7" } }),
        };
        let told = |caused: i64, arrivals: Vec<Arrival>| score(&evidence(caused, arrivals, Vec::new()));
        assert!(told(3, all()).is_good());
        assert!(told(3, [all(), all()].concat()).is_good(), "a redelivery under the same id is none of two");
        assert_eq!(told(4, all()).lost, 1);
        let twice_reported = || [all(), vec![report("a", "1"), report("a", "1")]].concat();
        assert!(told(4, twice_reported()).is_good());
        assert_eq!(told(5, twice_reported()).lost, 1, "one report counts once");
        let strict = Evidence { may_drop: false, ..evidence(4, twice_reported(), Vec::new()) };
        assert_eq!(score(&strict).wrongs.len(), 1, "nothing had to be dropped");
        assert_eq!(told(3, [all(), vec![login("other", 2)]].concat()).duplicates, 1);
        assert_eq!(told(2, all()).wrongs.len(), 1, "an invented event");
        assert_eq!(told(3, all().into_iter().rev().collect()).wrongs.len(), 2, "the wrong order");
    }

    #[test]
    fn what_a_killed_broker_acknowledged_is_apart_and_another_text_is_found() {
        let told = |sent: Vec<Sent>| score(&evidence(4, all(), sent));
        let left = told(vec![sent(0, true, FOURTH), sent(1, false, FOURTH)]);
        assert_eq!((left.left_to_killed, left.redelivered, left.is_good()), (1, 1, true));
        assert_eq!(told(vec![sent(0, false, FOURTH)]).lost, 1, "the killed broker had not acknowledged it");
        assert_eq!(told(vec![sent(1, true, FOURTH)]).lost, 1, "that broker was not killed");
        let mut changed = sent(1, true, FOURTH);
        changed.message = String::from_utf8(changed.message).unwrap().replace("root", "toor").into_bytes();
        assert_eq!(told(vec![sent(0, true, FOURTH), changed]).wrongs.len(), 1, "another text under the same id");
    }

    #[test]
    fn wrong_dates_are_found() {
        let told = |stamp: Timestamp, time: &str| {
            let mut evidence = evidence(4, all(), vec![sent(0, false, time)]);
            evidence.causes[3].stamp = stamp;
            score(&evidence).wrongs.len()
        };
        assert_eq!(told(second(4), FOURTH), 0);
        assert_eq!(told(second(4), "2026-11-24T00:00:04.124Z"), 1, "not the time its line says");
        assert_eq!(told(Timestamp::UNIX_EPOCH, FOURTH), 0, "a line of 1970 is dated by the agent");
        assert_eq!(told(Timestamp::UNIX_EPOCH, "1970-01-01T00:00:00.000Z"), 1);
    }
}
