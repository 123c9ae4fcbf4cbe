//! The wall clock of one agent and of the daemons whose log it reads, which a test can set: a shim between the agent and
//! the C library (`clock.c`) adds the seconds that stand in a file. The machine's own clock stays as it is.
//!
//! Debian's libfaketime can do this too, but leaves a semaphore and a piece of shared memory behind with each process
//! that is killed, and here that is each.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// A shared clock.
#[derive(Clone)]
pub struct Clock {
    shim: PathBuf,
    path: PathBuf,
    file: Arc<File>,
    shift_s: Arc<AtomicI64>,
    shown: Arc<Mutex<Vec<i64>>>,
}

/// What a clock can be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The truth.
    Right,
    /// So many seconds beside it.
    Off(i64),
    /// The first minutes of 1970.
    Epoch,
}

impl Clock {
    /// A clock that is right, with its files in a directory.
    pub fn new(directory: &Path) -> Clock {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/torture/clock.c");
        let (shim, path) = (directory.join("clock.so"), directory.join("clock"));
        let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status();
        assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
        let file = Arc::new(File::options().create_new(true).write(true).open(&path).unwrap());
        let clock = Clock { shim, path, file, shift_s: Arc::default(), shown: Arc::default() };
        clock.set(Setting::Right);
        clock
    }

    /// What a process needs to have this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let of = |name: &str, path: &Path| (name.to_owned(), path.display().to_string());
        vec![of("LD_PRELOAD", &self.shim), of("CLOCK_SHIFT", &self.path)]
    }

    /// Sets it, for everybody at once.
    pub fn set(&self, setting: Setting) {
        let shift_s = match setting {
            Setting::Right => 0,
            Setting::Off(seconds) => seconds,
            Setting::Epoch => -Timestamp::now().as_second(),
        };
        self.file.write_all_at(&shift_s.to_ne_bytes(), 0).unwrap();
        self.shift_s.store(shift_s, Ordering::SeqCst);
        if setting != Setting::Epoch {
            self.shown.lock().unwrap().push(shift_s);
        }
    }

    /// What it shows when it truly is `now`.
    pub fn shows(&self, now: Timestamp) -> Timestamp {
        now + SignedDuration::from_secs(self.shift_s.load(Ordering::SeqCst))
    }

    /// By how many seconds it was ever beside the truth, those times left out at which it could not be right.
    pub fn shifts_s(&self) -> Vec<i64> {
        self.shown.lock().unwrap().clone()
    }
}

/// A shim that the agent does not notice would prove nothing.
#[test]
fn the_agent_has_the_clock_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::new(directory.path());
    let dated = || {
        let mut collect = Command::new(crate::agent::binary());
        collect.args(["collect", "LocalUsers", "--format", "envelope"]).envs(clock.environment());
        let out = crate::wait::output("a one-shot run", &mut collect);
        let text = String::from_utf8(out.stdout).unwrap();
        let message: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap();
        let events = message["Events"].as_array().unwrap_or_else(|| panic!("no Events in {message}"));
        let date: Timestamp = events[0]["TimestampUTC"].as_str().unwrap().parse().unwrap();
        (date.as_second() - Timestamp::now().as_second()).div_euclid(3600)
    };
    assert!((-1..=0).contains(&dated()));
    clock.set(Setting::Off(25 * 3600));
    assert!((24..=25).contains(&dated()));
}

/// What was sent keeps its date, though it has a better one after the next start; what waited for the clock gets that.
#[test]
fn what_was_sent_while_the_clock_was_wrong_is_sent_again_the_same() {
    let hub = crate::hub::Hub::start();
    let proxy = crate::proxy::Proxy::start(hub.port);
    proxy.record();
    proxy.refuse();
    let mut agent = crate::agent::Agent::new("clock", crate::agent::connection(proxy.port));
    let clock = Clock::new(&agent.path(""));
    agent.environment = clock.environment();
    agent.start();
    agent.wait_status("something to be recorded", |status| {
        status["spool"]["recorded"] != status["spool"]["acknowledged"]
    });
    let before = agent.wait_collecting();
    clock.set(Setting::Epoch);
    crate::cause::Causes::new(&agent.path("auth.log"), clock.clone()).burst(1);
    agent.wait_status("a login of 1970", |status| status["spool"]["recorded"] != before["spool"]["recorded"]);
    // Longer than it takes to kill the agent before the first acknowledgement.
    proxy.delay_replies(std::time::Duration::from_millis(1500));
    proxy.relay();
    let sent = || crate::wire::sent(&proxy.tapes());
    crate::wait::until_true("the first message", || !sent().is_empty());
    agent.kill_9();
    clock.set(Setting::Off(3600));
    proxy.delay_replies(std::time::Duration::ZERO);
    agent.start();
    agent.wait_status("everything to be acknowledged", |status| {
        status["connected"] == true && status["spool"]["recorded"] == status["spool"]["acknowledged"]
    });
    let messages: Vec<Value> = sent().iter().map(|sent| serde_json::from_slice(&sent.message).unwrap()).collect();
    let mut wrongs = Vec::new();
    assert_ne!(crate::oracle::check_redeliveries(&messages, &mut wrongs), 0);
    assert!(wrongs.is_empty(), "{wrongs:#?}");
    assert!(messages.iter().any(|message| message.to_string().contains("ClockCorrected")), "the login of 1970");
    assert!(!messages.iter().any(|message| message.to_string().contains("ClockSuspect")));
}
