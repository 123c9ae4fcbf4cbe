//! The clock that the rigs step, by itself: the agent has it, and what it sent keeps its date.

use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::agent::{self, Agent};
use crate::cause::Causes;
use crate::clock::{Clock, Setting};
use crate::hub::Hub;
use crate::oracle::check_redeliveries;
use crate::proxy::Proxy;
use crate::{wait, wire};

/// A shim that the agent does not notice would prove nothing.
#[test]
fn the_agent_has_the_clock_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::new(directory.path());
    let dated = || {
        let mut collect = Command::new(agent::binary());
        collect.args(["collect", "LocalUsers", "--format", "envelope"]).envs(clock.environment());
        let out = wait::output("a one-shot run", &mut collect);
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
    let hub = Hub::start();
    let proxy = Proxy::start(hub.port);
    proxy.record();
    proxy.refuse();
    let mut agent = Agent::new("clock", agent::connection(proxy.port));
    let clock = Clock::new(&agent.path(""));
    agent.environment = clock.environment();
    agent.start();
    agent.wait_status("something to be recorded", |status| {
        status["spool"]["recorded"] != status["spool"]["acknowledged"]
    });
    let before = agent.wait_collecting();
    clock.set(Setting::Epoch);
    Causes::new(&agent.path("auth.log"), clock.clone()).burst(1);
    agent.wait_status("a login of 1970", |status| status["spool"]["recorded"] != before["spool"]["recorded"]);
    // Longer than it takes to kill the agent before the first acknowledgement.
    proxy.delay_replies(Duration::from_millis(1500));
    proxy.relay();
    let sent = || wire::sent(&proxy.tapes());
    wait::until_true("the first message", || !sent().is_empty());
    agent.kill_9();
    clock.set(Setting::Off(3600));
    proxy.delay_replies(Duration::ZERO);
    agent.start();
    agent.wait_status("everything to be acknowledged", |status| {
        status["connected"] == true && status["spool"]["recorded"] == status["spool"]["acknowledged"]
    });
    let messages: Vec<Value> = sent().iter().map(|sent| serde_json::from_slice(&sent.message).unwrap()).collect();
    let mut wrongs = Vec::new();
    assert_ne!(check_redeliveries(&messages, &mut wrongs), 0);
    assert!(wrongs.is_empty(), "{wrongs:#?}");
    assert!(messages.iter().any(|message| message.to_string().contains("ClockCorrected")), "the login of 1970");
    assert!(!messages.iter().any(|message| message.to_string().contains("ClockSuspect")));
}
