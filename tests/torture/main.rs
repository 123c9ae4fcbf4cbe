//! Everything that can break breaks again and again, in an order drawn from a seed, while logins go on; then each of
//! them must be at the far end once, or be counted as lost in a report that arrived.
//!
//! ```text
//! cause.rs ─ log file ─▶ agent ─▶ proxy ─▶ edgewarden-hub, or mosquitto with a witness     four such rigs at a time
//!    │                     ▲        ▲  │ tape           ▲           │
//!    │                     └────────┴──┼─ rig.rs ───────┘           │
//!    └──────────────────────────────▶ oracle.rs ◀───────────────────┘
//! ```
//!
//! `TORTURE_SEED`, `TORTURE_EVENTS` and `TORTURE_FAULTS` choose; `make torture` is the long form. A seed gives the same
//! faults with the same parameters again, but not the same races. What is done is printed as it is done, and every wait
//! is bounded and says what it waited for.
//!
//! The oracle is the test's own list of what it caused and when, never what the agent says. Each cause is at the far end
//! once, under one id and with the time its line says, or within a count of losses that arrived (only where the disk was
//! filled), or was acknowledged by a foreign broker that was killed later (scored apart). Nothing else is forgiven: not the
//! time the agent was down, because the log keeps it; not what was not synced at a kill, because the log is read again
//! from the last frame; not a killed hub of ours, which has stored what it acknowledged. What is sent again is the same
//! event word for word, also when the clock was set in between.
//!
//! The agent's clock is set by hours and to 1970 and back (`clock.rs`), and so is the one that stamps every other line.
//!
//! Not here: a power cut, which a killed process is not; `tests/powercut` is. A half-open link is cut in the end, because
//! noticing one takes the agent longer than all the rest here; `tests/e2e/link.rs` lets it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the helpers of tests are tests too"
)]
#![allow(dead_code, reason = "each test uses its part of what tests share")]

#[path = "../support/agent.rs"]
mod agent;
#[path = "../support/arrivals.rs"]
mod arrivals;
#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/hub.rs"]
mod hub;
#[path = "../support/mosquitto.rs"]
mod mosquitto;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/wait.rs"]
mod wait;
#[path = "../support/wire.rs"]
mod wire;

mod cause;
mod dates;
mod disk;
mod oracle;
mod rig;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Instant;

use rig::{Outcome, Plan};

/// The form that fits into `make test`.
const SHORT: (u32, u32) = (2_000, 16);

/// Breaks disks, links, clocks, agents and both kinds of broker within the few faults of the short form.
const SHORT_FORM_SEED: u64 = 14_586;

#[test]
fn whatever_breaks_each_login_is_delivered_once_or_counted_as_lost() {
    let events = variable("TORTURE_EVENTS").unwrap_or(SHORT.0);
    let faults = variable("TORTURE_FAULTS").unwrap_or(SHORT.1);
    // The short form is the same every time, so that a failure is the change's; the long form looks for new ones.
    let any =
        || if variable::<u32>("TORTURE_EVENTS").is_some() { u64::from(fastrand::u32(..)) } else { SHORT_FORM_SEED };
    let seed = variable("TORTURE_SEED").unwrap_or_else(any);
    println!("TORTURE_SEED={seed} TORTURE_EVENTS={events} TORTURE_FAULTS={faults}");
    let is_root = nix::unistd::Uid::effective().is_root();
    if !is_root {
        eprintln!("full disks are left out: mounting a small file system needs root");
    }
    let begin = Instant::now();
    let rigs = [
        ("hub-high", true, "High"),
        ("hub-disk", true, "High"),
        ("mqtt-high", false, "High"),
        ("mqtt-low", false, "Low"),
    ];
    let running: Vec<_> = rigs
        .into_iter()
        .zip(0..)
        .map(|((name, is_ours, priority), index)| {
            let has_disk = name == "hub-disk" && is_root;
            let (events, faults) = (events.div_ceil(4), faults.div_ceil(4));
            let plan = Plan { name, is_ours, priority, has_disk, events, faults, seed: seed.wrapping_add(index << 32) };
            std::thread::Builder::new().name(name.to_owned()).spawn(move || rig::run(plan)).unwrap()
        })
        .collect();
    let ended: Vec<_> = running.into_iter().map(|rig| rig.join()).collect();
    let outcomes: Vec<Outcome> = ended.into_iter().flatten().collect();
    println!("{}", table(&outcomes));
    println!("seed {seed}, {:.0} s", begin.elapsed().as_secs_f64());
    let mut bad: Vec<&str> = outcomes.iter().filter(|outcome| !outcome.score.is_good()).map(explain).collect();
    if outcomes.len() < rigs.len() {
        bad.push("a rig that did not come to its end, see above");
    }
    assert!(bad.is_empty(), "TORTURE_SEED={seed}: {}", bad.join(", "));
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// One column for each rig, and one for all.
fn table(outcomes: &[Outcome]) -> String {
    let mut rows: Vec<(String, Vec<u64>)> = vec![
        ("events caused".to_owned(), outcomes.iter().map(|outcome| outcome.score.caused).collect()),
        (
            "faults".to_owned(),
            outcomes.iter().map(|outcome| outcome.faults.values().copied().map(u64::from).sum()).collect(),
        ),
    ];
    let kinds: BTreeMap<_, _> = outcomes.iter().flat_map(|outcome| &outcome.faults).collect();
    for kind in kinds.keys() {
        let count = |outcome: &Outcome| u64::from(outcome.faults.get(kind).copied().unwrap_or(0));
        rows.push((format!("  {kind:?}"), outcomes.iter().map(count).collect()));
    }
    let column = |of: fn(&oracle::Score) -> u64| outcomes.iter().map(|outcome| of(&outcome.score)).collect();
    rows.extend([
        ("delivered".to_owned(), column(|score| score.delivered)),
        ("redelivered".to_owned(), column(|score| score.redelivered)),
        ("in dropped counts".to_owned(), column(|score| score.dropped)),
        ("left to killed broker".to_owned(), column(|score| score.left_to_killed)),
        ("lost".to_owned(), column(|score| score.lost)),
        ("duplicates".to_owned(), column(|score| score.duplicates)),
        ("wrong otherwise".to_owned(), column(|score| score.wrongs.len() as u64)),
    ]);
    let names = outcomes.iter().map(|outcome| format!("{:>10}", outcome.name)).collect::<String>();
    let mut out = format!("\n{:<22}{names}{:>10}\n", "", "all");
    for (name, values) in rows {
        let each = values.iter().map(|value| format!("{value:>10}")).collect::<String>();
        out += &format!("{name:<22}{each}{:>10}\n", values.iter().sum::<u64>());
    }
    out
}

/// Says what somebody needs who looks for the cause, and gives the rig's name.
fn explain(outcome: &Outcome) -> &'static str {
    let mut timeline = outcome.timeline.clone();
    timeline.sort();
    eprintln!("--- {}: what was done\n{}", outcome.name, timeline.join("\n"));
    for wrong in outcome.score.wrongs.iter().take(20) {
        eprintln!("--- {}: {wrong}", outcome.name);
    }
    let log = std::env::temp_dir().join(format!("torture-{}.log", outcome.name));
    std::fs::write(&log, &outcome.log).unwrap();
    eprintln!("--- {}: the agent's log is in {}", outcome.name, log.display());
    outcome.name
}
