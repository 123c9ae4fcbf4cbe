//! The spool against a plain list of what it should hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::event;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(Lane, Kind, usize)>),
    Sync,
    Read,
    Acknowledge { part: u64 },
    Rewind,
    Reopen,
    Remove,
    DistrustedSync,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(Kind::Login), Just(Kind::ProcessCreate), Just(Kind::Diagnostic)];
    let one = (prop_oneof![Just(Lane::High), Just(Lane::Low)], kind, 1..900_usize);
    let append = prop_oneof![8 => proptest::collection::vec(one.clone(), 1), 1 => proptest::collection::vec(one, 2..9)];
    prop_oneof![
        40 => append.prop_map(Step::Append),
        6 => Just(Step::Sync),
        6 => Just(Step::Read),
        3 => (0..=100_u64).prop_map(|part| Step::Acknowledge { part }),
        3 => Just(Step::Rewind),
        2 => Just(Step::Reopen),
        1 => Just(Step::Remove),
        2 => Just(Step::DistrustedSync),
    ]
}

/// What the spool should hold.
#[derive(Default)]
struct Model {
    events: [BTreeMap<u64, StoredEvent>; 2],
    given: [u64; 2],
    acked: [u64; 2],
    read: [u64; 2],
    lost: [u64; 2],
    dropped: [BTreeMap<u8, u64>; 2],
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_spool_is_a_list_that_forgets_and_counts(steps in proptest::collection::vec(step(), 1..250)) {
        check(&steps);
    }
}

fn check(steps: &[Step]) {
    let directory = tempfile::tempdir().unwrap();
    let quota = 24 * 1024;
    let (mut spool, _) = Spool::open(directory.path(), quota).unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append(events) => {
                let entry = |(lane, kind, bytes): &(Lane, Kind, usize)| {
                    let event = StoredEvent { kind: *kind as u8, ..event(&"x".repeat(*bytes)) };
                    Entry { lane: *lane, record: Record::Event(event) }
                };
                model.append(&spool, &mut events.iter().map(entry).collect::<Vec<_>>());
            }
            Step::Sync => Lane::ALL.into_iter().for_each(|lane| spool.sync(lane).unwrap()),
            Step::Read => model.read_some(&spool, 5),
            Step::Acknowledge { part } => {
                for lane in Lane::ALL {
                    let index = lane.index();
                    model.acked[index] += model.read[index].saturating_sub(model.acked[index]) * part / 100;
                    spool.acknowledge(lane, model.acked[index]).unwrap();
                }
            }
            Step::Rewind => {
                spool.rewind();
                model.read = model.acked;
            }
            Step::Reopen => {
                spool.store_acknowledged().unwrap();
                model.note_damage(&spool);
                drop(spool);
                let (again, opened) = Spool::open(directory.path(), quota).unwrap();
                assert_eq!(opened.damage, [] as [String; 0]);
                spool = again;
                model.read = model.acked;
            }
            Step::Remove => {
                std::fs::remove_dir_all(directory.path().join("spool/low")).unwrap();
                spool.restore_if_gone().unwrap();
            }
            Step::DistrustedSync => {
                spool.lock().lanes[1].distrust(&std::io::Error::other("a test"));
                spool.sync(Lane::Low).unwrap();
            }
        }
        assert!(spool.stats().bytes <= quota + 4096, "{:?}", spool.stats());
    }
    // In the end each event was acknowledged, can be read, or was counted once.
    let had_removal = steps.iter().any(|step| matches!(step, Step::Remove));
    let before = model.acked;
    spool.rewind();
    model.read = model.acked;
    Lane::ALL.into_iter().for_each(|lane| spool.sync(lane).unwrap());
    let mut found = [0, 0];
    for lane in Lane::ALL {
        while let Some(event) = model.read_one(&spool, lane) {
            found[lane.index()] += u64::from(event > before[lane.index()]);
        }
    }
    model.note_damage(&spool);
    for lane in Lane::ALL {
        let index = lane.index();
        let dropped: u64 = model.dropped[index].values().sum();
        let known = before[index] + found[index] + dropped + model.lost[index];
        // An event that was dropped or lost below a number acknowledged later is in both.
        assert!(known >= model.given[index], "{}: {known} of {}", lane.name(), model.given[index]);
        if before[index] == 0 && !(had_removal && lane == Lane::Low) {
            assert_eq!(known, model.given[index], "{}", lane.name());
        }
        assert!(had_removal && lane == Lane::Low || model.lost[index] == 0, "nothing was damaged");
    }
}

impl Model {
    fn append(&mut self, spool: &Spool, mut rest: &mut [Entry]) {
        while !rest.is_empty() {
            let Appended { stored, dropped, refused } = spool.append_all(rest);
            assert!(refused.is_none() && stored > 0, "{refused:?}");
            for entry in &rest[..stored] {
                let (event, _) = entry.record.event().unwrap();
                self.given[entry.lane.index()] += 1;
                assert_eq!(event.seq, self.given[entry.lane.index()], "numbers have no gaps");
                self.events[entry.lane.index()].insert(event.seq, event.clone());
            }
            for (lane, kind, events) in dropped.events {
                *self.dropped[lane.index()].entry(kind as u8).or_default() += events;
            }
            for lane in Lane::ALL {
                self.lost[lane.index()] += dropped.damaged[lane.index()];
            }
            rest = &mut rest[stored..];
        }
        assert_eq!(spool.stats().recorded, self.given);
    }

    fn read_some(&mut self, spool: &Spool, count: usize) {
        for lane in Lane::ALL {
            for _ in 0..count {
                if self.read_one(spool, lane).is_none() {
                    break;
                }
            }
        }
    }

    /// What is read is what was recorded, in order.
    fn read_one(&mut self, spool: &Spool, lane: Lane) -> Option<u64> {
        let event = spool.read(lane).unwrap()?;
        let read = &mut self.read[lane.index()];
        assert!(event.seq > *read && event.seq <= spool.watch_synced().borrow()[lane.index()]);
        *read = event.seq;
        assert_eq!(Some(&event), self.events[lane.index()].get(&event.seq));
        Some(event.seq)
    }

    fn note_damage(&mut self, spool: &Spool) {
        for (lost, damage) in self.lost.iter_mut().zip(spool.take_damage()) {
            *lost += damage.lost;
        }
    }
}
