//! The run whose journal is taken: logins in both lanes, a broker that acknowledges, and a line that breaks.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::FIRST_PORT;
use crate::agent::{Agent, connection};
use crate::mosquitto::{Mosquitto, free_port};
use crate::proxy::Proxy;

/// Lines are logged so often, and so many at a time.
const BURST: u16 = 7;
const PAUSE: Duration = Duration::from_millis(200);

/// So many times with a broker, and without one, which fills the spool several times over.
const CONNECTED_BURSTS: u16 = 60;
const FULL_BURSTS: u16 = 24;

/// So small that segments, an eighth of it, are full after seconds; and that without a broker events have to go.
const CONNECTED_QUOTA_BYTES: u64 = 128 * 1024;
const FULL_QUOTA_BYTES: u64 = 24 * 1024;

/// What is left of it.
pub struct Run {
    /// Killed; its directory holds the log.
    pub agent: Agent,
    /// Of the shim.
    pub journal: PathBuf,
}

/// Refused each time the twin is read, which makes as many Low events that move no cursor: so Low begins segments while
/// cursors in High wait for their sync.
const REFUSED: [&str; 6] = [
    "aggregationEnabledProcessCreate",
    "aggregationIntervalProcessCreate",
    "eventPriorityConfigurationError",
    "eventPriorityDroppedEventsStatistics",
    "eventPriorityMessageStatistics",
    "snapshotFrequency",
];

/// Runs the agent with a broker that acknowledges, over a line that breaks twice.
pub fn connected() -> Run {
    let broker = Mosquitto::start();
    let proxy = Proxy::start(broker.port);
    run(proxy.port, CONNECTED_QUOTA_BYTES, CONNECTED_BURSTS, &REFUSED, |burst| match burst {
        20 | 36 => proxy.lose_replies(),
        24 | 40 => proxy.cut(),
        _ => {}
    })
}

/// Runs it without one: events have to make room for others.
pub fn full() -> Run {
    run(free_port(), FULL_QUOTA_BYTES, FULL_BURSTS, &[], |_| ())
}

fn run(port: u16, quota_bytes: u64, bursts: u16, refused: &[&str], trouble: impl Fn(u16)) -> Run {
    let mut agent = Agent::new("press-80", connection(port));
    let (shim, journal, state) = (agent.path("powercut.so"), agent.path("journal"), agent.path("state"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/powercut.c");
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status();
    assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
    agent.set("maxLocalCacheSizeInBytes", json!(quota_bytes));
    agent.set("highPriorityMessageFrequency", json!("PT2S"));
    agent.set("lowPriorityMessageFrequency", json!("PT5S"));
    refused.iter().for_each(|key| agent.set(key, json!(["what nobody expects"])));
    agent.own()["spoolSyncHigh"] = json!("PT1S");
    agent.own()["spoolSyncLow"] = json!("PT3S");
    for (name, path) in [("LD_PRELOAD", &shim), ("POWERCUT_ROOT", &state), ("POWERCUT_JOURNAL", &journal)] {
        agent.environment.push((name.to_owned(), path.to_str().unwrap().to_owned()));
    }
    agent.start();
    agent.wait_collecting();
    for burst in 0..bursts {
        std::thread::sleep(PAUSE);
        agent.fail_logins(FIRST_PORT + burst * BURST..FIRST_PORT + (burst + 1) * BURST);
        trouble(burst);
        // In turn in both lanes.
        let (turn, next) = (burst * 4 / bursts, (burst + 1) * 4 / bursts);
        agent.set("eventPriorityLogin", json!(if next % 2 == 0 { "High" } else { "Low" }));
        if turn != next || !refused.is_empty() {
            agent.write_twin();
            agent.signal(Signal::SIGHUP);
        }
    }
    agent.kill_9();
    Run { agent, journal }
}
