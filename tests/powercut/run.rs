//! The run whose journal is taken: logins in both lanes, a broker that acknowledges, and a line that breaks.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::{Agent, connection};
use crate::mosquitto::Mosquitto;
use crate::proxy::Proxy;
use crate::{FIRST_PORT, QUOTA_BYTES};

/// Lines are logged so often, and so many at a time.
const BURSTS: u16 = 40;
const BURST: u16 = 10;
const PAUSE: Duration = Duration::from_millis(300);

/// What is left of it.
pub struct Run {
    /// Killed; its directory holds the log.
    pub agent: Agent,
    /// Of the shim.
    pub journal: PathBuf,
}

/// Runs the agent under the shim.
pub fn run() -> Run {
    let broker = Mosquitto::start();
    let proxy = Proxy::start(broker.port);
    let mut agent = Agent::new("press-80", connection(proxy.port));
    let (shim, journal, state) = (agent.path("powercut.so"), agent.path("journal"), agent.path("state"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/powercut.c");
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status();
    assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
    agent.set("maxLocalCacheSizeInBytes", json!(QUOTA_BYTES));
    agent.set("highPriorityMessageFrequency", json!("PT2S"));
    agent.set("lowPriorityMessageFrequency", json!("PT5S"));
    agent.own()["spoolSyncHigh"] = json!("PT1S");
    agent.own()["spoolSyncLow"] = json!("PT3S");
    agent.start_with(&[("LD_PRELOAD", &shim), ("POWERCUT_ROOT", &state), ("POWERCUT_JOURNAL", &journal)]);
    agent.wait_collecting();
    for burst in 0..BURSTS {
        std::thread::sleep(PAUSE);
        agent.fail_logins(FIRST_PORT + burst * BURST..FIRST_PORT + (burst + 1) * BURST);
        match burst {
            9 | 29 => set_priority(&mut agent, "Low"),
            19 => set_priority(&mut agent, "High"),
            14 | 24 => proxy.lose_replies(),
            16 | 26 => proxy.cut(),
            _ => {}
        }
    }
    agent.kill_9();
    Run { agent, journal }
}

fn set_priority(agent: &mut Agent, priority: &str) {
    agent.set("eventPriorityLogin", json!(priority));
    agent.write_twin();
    agent.signal(Signal::SIGHUP);
}
