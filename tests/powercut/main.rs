//! What a power cut leaves. `kill -9` leaves the page cache and proves nothing about syncs; here the agent runs under
//! a shim that journals its writes and syncs and what it says to a broker. For every place in the journal a disk is made
//! that a power cut there may leave, and looked at; on some of them the agent is started again.
//!
//! ```text
//! log file ─▶ agent + powercut.c ─▶ proxy ─▶ mosquitto           run.rs
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
use facts::Facts;
use found::{Log, check};
use journal::{Act, Op};
use restart::Cut;
use serde_json::Value;
use tempfile::TempDir;

/// The first port of the logins.
const FIRST_PORT: u16 = 20_000;

/// So small that segments of an eighth of it are full after seconds.
const QUOTA_BYTES: u64 = 128 * 1024;

/// What an event may wait for its sync: the settings of the run, and what a busy machine may add.
const AT_RISK_US: [u64; 2] = [1_000_000 + 5_000_000, 3_000_000 + 5_000_000];

/// A directory for disks that are thrown away: in memory where the machine has such a place.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn what_was_synced_before_a_power_cut_is_there_after_it() {
    let run = run::run();
    let ops = journal::read(&run.journal);
    let (root, log) = (run.agent.path("state"), run.agent.path("auth.log"));
    let lines = Log::read(&log);
    let mut pass = Pass::new(&root, &ops);
    for (place, op) in ops.iter().enumerate() {
        pass.step(place, op, &lines);
    }
    pass.disk.assert_complete();
    pass.print(&ops);
    let faults = &pass.faults;
    assert!(faults.is_empty(), "{} faults, the first:\n{}", faults.len(), faults[..faults.len().min(8)].join("\n"));
    assert!(ops.len() >= 200, "too little was done");
    let max = pass.at_risk_us;
    assert!(
        max[0] <= AT_RISK_US[0] && max[1] <= AT_RISK_US[1],
        "an event waited {max:?} us for its sync, High and Low"
    );
    assert!(pass.cuts.len() >= 12, "{} places to go on from", pass.cuts.len());
    restart::go_on(&mut pass.cuts, &log, &lines.ports());
}

/// What is found out on the way through the journal.
struct Pass<'a> {
    ops: &'a [Op],
    disk: Disk,
    facts: Facts,
    go_on: BTreeSet<usize>,
    cuts: Vec<Cut>,
    faults: Vec<String>,
    disks: usize,
    /// How old an event was at the most that was not synced yet, High and Low.
    at_risk_us: [u64; 2],
}

impl Pass<'_> {
    fn new<'a>(root: &Path, ops: &'a [Op]) -> Pass<'a> {
        Pass {
            ops,
            disk: Disk::new(root),
            facts: Facts::default(),
            go_on: restart::places(ops),
            cuts: Vec::new(),
            faults: Vec::new(),
            disks: 0,
            at_risk_us: [0; 2],
        }
    }

    /// Behind each record: the disk with nothing that was not synced, and with a part of it drawn from a seed.
    fn step(&mut self, place: usize, op: &Op, lines: &Log) {
        self.disk.step(&op.act);
        self.facts.step(op);
        if let Some(next) = self.ops.get(place + 1) {
            let waiting = self.facts.at_risk_us(next.at_us);
            self.at_risk_us = std::array::from_fn(|lane| self.at_risk_us[lane].max(waiting[lane]));
        }
        for seed in [None, Some(place as u64)] {
            let build = |to: &Path| self.disk.build(to, seed.map(fastrand::Rng::with_seed));
            let scratch = scratch();
            build(scratch.path());
            self.disks += 1;
            match check(scratch.path(), &self.facts, lines, seed.is_none()) {
                Err(fault) => self.faults.push(format!("cut {place} behind {op:?}, seed {seed:?}: {fault}")),
                // Without a cursor the agent begins at the end of the log, as at its first start.
                Ok(found)
                    if self.go_on.contains(&place)
                        && found.has_cursor
                        && seed.is_some() == (self.cuts.len() % 2 == 1) =>
                {
                    let agent = Agent::new("", Value::Null);
                    build(&agent.path("state"));
                    self.cuts.push(Cut { agent, place, facts: self.facts.clone(), found });
                    self.go_on.remove(&place);
                }
                Ok(_) => {}
            }
        }
    }

    fn print(&self, ops: &[Op]) {
        let count = |what: fn(&Act) -> bool| ops.iter().filter(|op| what(&op.act)).count();
        println!(
            "{} places, {} disks; {} events written, {} synced, {} sent, {} acknowledged; {} segments begun, {} forgotten; \
             state.json replaced {} times; an event waited {:?} us for its sync at the most, High and Low",
            ops.len(),
            self.disks,
            self.facts.written.len(),
            self.facts.safe.len(),
            self.facts.sent.len(),
            self.facts.acknowledged.len(),
            count(|act| matches!(act, Act::Rename { to, .. } if is_segment(to))),
            count(|act| matches!(act, Act::Remove { path } if is_segment(path))),
            count(|act| matches!(act, Act::Rename { to, .. } if to.ends_with("state.json"))),
            self.at_risk_us,
        );
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}
