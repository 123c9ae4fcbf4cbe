//! Repeated failures of one address as one row a minute, for boards whose link a flood of attempts would fill.
//!
//! Off unless `edgewarden.foldFailedLogins` says otherwise, because the investigation guide counts rows. The first
//! failure goes out at once and whole; those that follow within a minute wait, and one row stands for them with
//! `HitCount`. Nothing else waits, and whoever gets in comes after the failures of his address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use collector_common::clock::Reading;
use collector_common::collector::Draft;
use collector_common::event::payload::{Login, LoginResult, Payload};

/// How long failures wait for more of them, microseconds.
const WINDOW_US: u64 = 60_000_000;

/// The most that are told apart at a time, at less than 1 KiB each. When there are more, the one whose row is due first
/// makes room.
const MAX_GROUPS: usize = 1024;

/// Whose failures are one: those of an address, an account and a program.
type Key = (IpAddr, String, String);

/// The failures that wait.
#[derive(Debug, Default)]
pub struct Folder {
    groups: BTreeMap<Key, Group>,
}

/// What came after a failure that went out.
#[derive(Debug)]
struct Group {
    /// When the row is due, since boot.
    due_us: u64,
    hits: u64,
    /// The last of them.
    last: Option<(Reading, Login)>,
}

impl Folder {
    /// Takes in drafts and gives what goes out now.
    pub fn fold(&mut self, drafts: Vec<Draft>, now: Reading) -> Vec<Draft> {
        let mut out = Vec::new();
        for draft in drafts {
            match key(&draft) {
                Some(key) => self.take(key, draft, now, &mut out),
                None => {
                    let from = address(&draft);
                    let before = self.groups.iter_mut().filter(|((of, _, _), _)| Some(*of) == from);
                    out.extend(before.filter_map(|(_, group)| group.row()));
                    out.push(draft);
                }
            }
        }
        out
    }

    fn take(&mut self, key: Key, draft: Draft, now: Reading, out: &mut Vec<Draft>) {
        if let Some(group) = self.groups.get_mut(&key) {
            if now.boottime_us < group.due_us {
                group.hold(draft);
                return;
            }
            out.extend(group.row());
        } else if self.groups.len() >= MAX_GROUPS {
            let first = self.groups.iter().min_by_key(|(_, group)| group.due_us).map(|(key, _)| key.clone());
            out.extend(first.and_then(|first| self.groups.remove(&first)).and_then(|mut group| group.row()));
        }
        let due_us = now.boottime_us.saturating_add(WINDOW_US);
        self.groups.insert(key, Group { due_us, hits: 0, last: None });
        out.push(draft);
    }

    /// The rows that are due. A flood that goes on has one each minute.
    pub fn overdue(&mut self, now: Reading) -> Vec<Draft> {
        let mut rows = Vec::new();
        self.groups.retain(|_, group| {
            if now.boottime_us < group.due_us {
                return true;
            }
            group.due_us = now.boottime_us.saturating_add(WINDOW_US);
            let row = group.row();
            let goes_on = row.is_some();
            rows.extend(row);
            goes_on
        });
        rows
    }

    /// All that waits, because nothing will follow.
    pub fn flush(&mut self) -> Vec<Draft> {
        std::mem::take(&mut self.groups).into_values().filter_map(|mut group| group.row()).collect()
    }

    /// Whether anything waits.
    pub fn is_waiting(&self) -> bool {
        self.groups.values().any(|group| group.hits > 0)
    }
}

impl Group {
    fn hold(&mut self, draft: Draft) {
        if let Some(Payload::Login(rows)) = draft.payload {
            self.hits += rows.len() as u64;
            self.last = rows.into_iter().next_back().map(|row| (draft.at, row)).or(self.last.take());
        }
    }

    /// The row that stands for what waits.
    fn row(&mut self) -> Option<Draft> {
        let (at, mut row) = self.last.take()?;
        // The counts of its own line are in the sum.
        row.extra_details.remove("Repeat");
        row.extra_details.insert("HitCount", std::mem::take(&mut self.hits).to_string());
        Some(Draft::new(at, Payload::Login(vec![row])))
    }
}

/// The key of a draft that may wait: failures from an address.
fn key(draft: &Draft) -> Option<Key> {
    let Some(Payload::Login(rows)) = &draft.payload else { return None };
    let row = rows.first().filter(|row| row.result == LoginResult::Fail)?;
    Some((row.remote_address?, row.user_name.clone(), row.executable.clone()))
}

fn address(draft: &Draft) -> Option<IpAddr> {
    match &draft.payload {
        Some(Payload::Login(rows)) => rows.first()?.remote_address,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use collector_common::clock::Clock;
    use collector_common::event::payload::ExtraDetails;
    use collector_common::root::Root;

    use super::*;

    fn now(seconds: u64) -> Reading {
        Reading { boottime_us: seconds * 1_000_000, ..Clock::new(&Root::host()).from_source(1_795_500_000_000_000) }
    }

    fn attempt(address: &str, user: &str, result: LoginResult, times: usize) -> Draft {
        let row = Login {
            process_id: 7,
            user_id: None,
            user_name: user.to_owned(),
            operation: result.operation(),
            executable: "/usr/sbin/sshd".to_owned(),
            remote_address: address.parse().ok(),
            remote_port: None,
            local_port: None,
            result,
            extra_details: ExtraDetails::from([("Repeat", "1/1".to_owned())]),
        };
        Draft::new(now(0), Payload::Login(vec![row; times]))
    }

    /// User and `HitCount` of each row.
    fn told(drafts: Vec<Draft>) -> Vec<(String, Option<String>)> {
        let rows = drafts.into_iter().flat_map(|draft| match draft.payload {
            Some(Payload::Login(rows)) => rows,
            other => panic!("{other:?}"),
        });
        rows.map(|row| (row.user_name, row.extra_details.get("HitCount").cloned())).collect()
    }

    fn row(user: &str, hits: Option<&str>) -> (String, Option<String>) {
        (user.to_owned(), hits.map(str::to_owned))
    }

    #[test]
    fn the_first_failure_goes_at_once_and_a_minute_of_more_is_one_row() {
        let mut folder = Folder::default();
        let fail = |user| attempt("192.0.2.7", user, LoginResult::Fail, 1);
        assert_eq!(told(folder.fold(vec![fail("root")], now(1))), [row("root", None)]);
        for second in 2..32 {
            assert_eq!(told(folder.fold(vec![fail("root")], now(second))), []);
        }
        assert_eq!(told(folder.fold(vec![fail("bob")], now(33))), [row("bob", None)]);
        assert_eq!(told(folder.fold(vec![attempt("192.0.2.7", "root", LoginResult::Fail, 5)], now(40))), []);
        assert!(folder.is_waiting() && folder.overdue(now(60)).is_empty());
        assert_eq!(told(folder.overdue(now(61))), [row("root", Some("35"))]);
        // It goes on for a minute more, and then there is nothing to tell: the next one is a first again.
        assert_eq!(told(folder.fold(vec![fail("root")], now(62))), []);
        assert_eq!(told(folder.overdue(now(121))), [row("root", Some("1"))]);
        assert_eq!((told(folder.overdue(now(181))), folder.is_waiting()), (vec![], false));
        assert_eq!(told(folder.fold(vec![fail("root")], now(182))), [row("root", None)]);
    }

    #[test]
    fn who_gets_in_comes_after_the_failures_of_his_address_and_consoles_never_wait() {
        let mut folder = Folder::default();
        let fail = attempt("192.0.2.7", "root", LoginResult::Fail, 1);
        let other = attempt("192.0.2.8", "root", LoginResult::Fail, 1);
        let console = attempt("", "root", LoginResult::Fail, 1);
        folder.fold(vec![fail.clone(), other.clone()], now(1));
        assert_eq!(told(folder.fold(vec![fail.clone(), fail, other], now(2))), []);
        let enters = attempt("192.0.2.7", "root", LoginResult::Success, 1);
        assert_eq!(told(folder.fold(vec![enters], now(3))), [row("root", Some("2")), row("root", None)]);
        assert_eq!(told(folder.fold(vec![console.clone(), console], now(4))).len(), 2);
        assert_eq!(told(folder.flush()), [row("root", Some("1"))]);
    }

    #[test]
    fn a_flood_from_many_addresses_is_bounded_and_loses_nothing() {
        let mut folder = Folder::default();
        let mut count = 0;
        let mut rows = |drafts: Vec<Draft>| {
            for (_, hits) in told(drafts) {
                count += hits.map_or(1, |hits| hits.parse::<u32>().unwrap());
            }
        };
        for number in 0..3 * MAX_GROUPS {
            let address = format!("10.0.{}.{}", number / 256, number % 256);
            for second in [number, number] {
                rows(folder.fold(vec![attempt(&address, "root", LoginResult::Fail, 1)], now(second as u64 / 100)));
            }
            assert!(folder.groups.len() <= MAX_GROUPS);
        }
        rows(folder.flush());
        assert_eq!(count, 6 * MAX_GROUPS as u32);
    }
}
