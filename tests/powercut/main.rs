//! What a power cut leaves. `kill -9` leaves the page cache and proves nothing about syncs; here the agent runs under
//! a shim that journals its writes and syncs and what it says to a broker. For every place in the journal a disk is made
//! that a power cut there may leave, and looked at; on some of them the agent is started again.
//!
//! ```text
//! log file ─▶ agent + powercut.c ─▶ proxy ─▶ mosquitto           run.rs; once more without a broker, the quota full
//!                  │ writes, syncs, names, bytes sent and received, in order
//!                  ▼
//!              journal.rs ─ each record ─┬▶ disk.rs   what is safe, what is on its way ─┬ nothing of it
//!                                        └▶ facts.rs  written, synced, sent, PUBACKed   └ a seeded part
//!                                                                       │ a disk at each place
//!                           found.rs   the spool opens it, all is there ◀┤
//!                           restart.rs the agent goes on from it         ◀┘ a few places
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the helpers of tests are tests too"
)]
#![allow(dead_code, reason = "each test uses its part of what tests share")]

#[path = "../support/agent.rs"]
mod agent;
#[path = "../support/arrivals.rs"]
mod arrivals;
#[path = "../support/mosquitto.rs"]
mod mosquitto;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/wait.rs"]
mod wait;
#[path = "../support/wire.rs"]
mod wire;

mod disk;
mod facts;
mod found;
mod journal;
mod restart;
mod run;

use std::collections::BTreeSet;
use std::path::Path;

use agent::Agent;
use disk::Disk;
use facts::{Facts, events};
use found::{Found, Log, check};
use journal::{Act, Op};
use restart::Cut;
use run::Run;
use serde_json::Value;
use tempfile::TempDir;

/// The first port of the logins.
const FIRST_PORT: u16 = 20_000;

/// What an event may wait for its sync: the settings of the run, and what a busy machine may add.
const AT_RISK_US: [u64; 2] = [1_000_000 + 5_000_000, 3_000_000 + 5_000_000];

/// A directory for disks that are thrown away: in memory where the machine has such a place.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn what_was_synced_before_a_power_cut_is_there_after_it() {
    let run = run::connected();
    let ops = journal::read(&run.journal);
    let mut pass = Pass::new(&ops, &run, restart::places(&ops));
    pass.all();
    assert!(pass.facts.acknowledged.len() > 200, "too little was acknowledged");
    pass.go_on(&run, 12);
}

#[test]
fn what_a_full_spool_kept_before_a_power_cut_is_there_after_it() {
    let run = run::full();
    let ops = journal::read(&run.journal);
    let mut pass = Pass::new(&ops, &run, restart::places(&ops));
    pass.gives_up = true;
    pass.all();
    assert!(pass.given_up().len() > 50, "too little was given up");
    pass.go_on(&run, 6);
}

/// What is found out on the way through the journal.
struct Pass<'a> {
    ops: &'a [Op],
    lines: Log,
    disk: Disk,
    facts: Facts,
    /// Whether events have to make room: then what is in no file of the agent any more may be gone.
    gives_up: bool,
    go_on: BTreeSet<usize>,
    cuts: Vec<Cut>,
    faults: Vec<String>,
    disks: usize,
    /// How old an event was at the most that was not synced yet, High and Low.
    at_risk_us: [u64; 2],
    /// Since when events are gone whose count is not safe yet, and the longest such time.
    untold_since: Option<u64>,
    untold_us: u64,
}

impl Pass<'_> {
    fn new<'a>(ops: &'a [Op], run: &Run, go_on: BTreeSet<usize>) -> Pass<'a> {
        Pass {
            ops,
            lines: Log::read(&run.agent.path("auth.log")),
            disk: Disk::new(&run.agent.path("state")),
            facts: Facts::default(),
            gives_up: false,
            go_on,
            cuts: Vec::new(),
            faults: Vec::new(),
            disks: 0,
            at_risk_us: [0; 2],
            untold_since: None,
            untold_us: 0,
        }
    }

    fn all(&mut self) {
        for (place, op) in self.ops.iter().enumerate() {
            self.step(place, op);
        }
        self.disk.assert_complete();
        self.print();
        let (faults, first) = (self.faults.len(), &self.faults[..self.faults.len().min(8)]);
        assert!(faults == 0, "{faults} faults, the first:\n{}", first.join("\n"));
        assert!(self.ops.len() >= 200, "too little was done");
        // A count of losses is an event of the High lane.
        let waited = [self.at_risk_us[0].max(self.untold_us), self.at_risk_us[1]];
        assert!(
            waited[0] <= AT_RISK_US[0] && waited[1] <= AT_RISK_US[1],
            "an event waited {waited:?} us for its sync, High and Low"
        );
    }

    fn go_on(&mut self, run: &Run, at_least: usize) {
        assert!(self.cuts.len() >= at_least, "{} places to go on from", self.cuts.len());
        restart::go_on(&mut self.cuts, &run.agent.path("auth.log"), &self.lines.ports());
    }

    /// Behind each record: the disk with nothing that was not synced, and with a part of it drawn from a seed.
    fn step(&mut self, place: usize, op: &Op) {
        self.disk.step(&op.act);
        self.facts.step(op);
        if let Some(next) = self.ops.get(place + 1) {
            let waiting = self.facts.at_risk_us(next.at_us);
            self.at_risk_us = std::array::from_fn(|lane| self.at_risk_us[lane].max(waiting[lane]));
        }
        let mut may_be_gone = self.facts.acknowledged.clone();
        if self.gives_up {
            may_be_gone.extend(self.given_up());
        }
        for seed in [None, Some(place as u64)] {
            let random = || seed.map(fastrand::Rng::with_seed);
            let scratch = scratch();
            self.disk.build(scratch.path(), random());
            self.disks += 1;
            let found = check(scratch.path(), &self.facts, &may_be_gone, &self.lines, seed.is_none());
            if let (true, None, Ok(found)) = (self.gives_up, seed, &found) {
                self.time_untold(place, found);
            }
            match found {
                Err(fault) => self.faults.push(format!("cut {place} behind {op:?}, seed {seed:?}: {fault}")),
                // Without a cursor the agent begins at the end of the log, as at its first start.
                Ok(found)
                    if self.go_on.contains(&place)
                        && found.has_cursor
                        && seed.is_some() == (self.cuts.len() % 2 == 1) =>
                {
                    let agent = Agent::new("", Value::Null);
                    self.disk.build(&agent.path("state"), random());
                    let (facts, may_be_gone) = (self.facts.clone(), may_be_gone.clone());
                    self.cuts.push(Cut { agent, place, facts, may_be_gone, found });
                    self.go_on.remove(&place);
                }
                Ok(_) => {}
            }
        }
    }

    fn time_untold(&mut self, place: usize, found: &Found) {
        if found.gone <= found.told {
            self.untold_since = None;
        } else if let Some(next) = self.ops.get(place + 1) {
            let since = *self.untold_since.get_or_insert(self.ops[place].at_us);
            self.untold_us = self.untold_us.max(next.at_us - since);
        }
    }

    /// Events that are in no segment any more.
    fn given_up(&self) -> BTreeSet<String> {
        let segments = self.disk.now().filter(|(path, _)| is_segment(path));
        let kept: BTreeSet<String> =
            segments.flat_map(|(_, content)| events(content)).map(|event| event.id.to_string()).collect();
        self.facts.written.keys().filter(|id| !kept.contains(*id)).cloned().collect()
    }

    fn print(&self) {
        let count = |what: fn(&Act) -> bool| self.ops.iter().filter(|op| what(&op.act)).count();
        println!(
            "{} places, {} disks; {} events written, {} synced, {} sent, {} acknowledged; {} segments begun, {} forgotten; \
             state.json replaced {} times; an event waited {:?} us for its sync at the most, High and Low, and the count of what was given up {} us",
            self.ops.len(),
            self.disks,
            self.facts.written.len(),
            self.facts.safe.len(),
            self.facts.sent.len(),
            self.facts.acknowledged.len(),
            count(|act| matches!(act, Act::Rename { to, .. } if is_segment(to))),
            count(|act| matches!(act, Act::Remove { path } if is_segment(path))),
            count(|act| matches!(act, Act::Rename { to, .. } if to.ends_with("state.json"))),
            self.at_risk_us,
            self.untold_us,
        );
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}
