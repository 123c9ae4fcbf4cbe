//! How a hub tells silence from death, and what a metered link may cost.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::{Agent, connection};
use crate::arrivals::{Arrival, wait_ports};
use crate::hub::Hub;
use crate::mosquitto::Mosquitto;
use crate::wait;

fn is_lifecycle(arrival: &Arrival, word: &str) -> bool {
    arrival.name == "Diagnostic" && arrival.details["ExtraDetails"]["Lifecycle"] == word
}

fn wait_lifecycle(word: &str, arrivals: impl Fn() -> Vec<Arrival>, fits: impl Fn(&Value) -> bool) -> Value {
    wait::until(word, || {
        let all = arrivals();
        let found = all.iter().find(|arrival| is_lifecycle(arrival, word) && fits(&arrival.details["ExtraDetails"]));
        found.map(|arrival| arrival.details.clone()).ok_or_else(|| format!("not among {} arrivals", all.len()))
    })
}

/// Killed, back, stopped, back: each is told by an event of its own, the first by the broker.
fn live_and_die(agent: &mut Agent, arrivals: &dyn Fn() -> Vec<Arrival>) {
    agent.start();
    agent.wait_collecting();
    wait_lifecycle("started", arrivals, |extra| extra["Before"] == "first");
    agent.kill_9();
    wait_lifecycle("connectionLost", arrivals, |_| true);
    agent.start();
    wait_lifecycle("started", arrivals, |extra| extra["Before"] == "killed");
    agent.wait_words("how the run before ended", &["; the run before was killed or crashed\n"]);
    assert!(agent.terminate().success());
    wait_lifecycle("stopping", arrivals, |_| true);
    agent.start();
    wait_lifecycle("started", arrivals, |extra| extra["Before"] == "stopped");
    let statistics = wait::until("statistics of the run that was stopped", || {
        let all = arrivals();
        let found = all.iter().find(|arrival| arrival.name == "MessageStatistics");
        found.map(|arrival| arrival.details.clone()).ok_or_else(|| format!("not among {} arrivals", all.len()))
    });
    assert!(statistics["MessagesSent"].as_u64().unwrap() > 0, "{statistics}");
    assert!(statistics["ExtraDetails"]["BootId"].is_string(), "{statistics}");
    for key in ["HighFirstSequence", "HighLastSequence", "LowFirstSequence", "LowLastSequence"] {
        assert!(statistics["ExtraDetails"][key].as_str().unwrap().parse::<u64>().is_ok(), "{key} in {statistics}");
    }
}

#[test]
fn our_hub_can_tell_silence_from_death() {
    let hub = Hub::start();
    let mut agent = Agent::new("press-60", connection(hub.port));
    live_and_die(&mut agent, &|| hub.arrivals());
}

#[test]
fn behind_mosquitto_silence_can_be_told_from_death() {
    let broker = Mosquitto::start();
    let mut agent = Agent::new("press-61", connection(broker.port));
    live_and_die(&mut agent, &|| broker.arrivals());
}

#[test]
fn a_days_budget_holds_low_events_back_and_lets_high_ones_through() {
    let hub = Hub::start();
    let mut agent = Agent::new("press-62", connection(hub.port));
    agent.own()["maxBytesPerDay"] = json!(65_536);
    agent.own()["spoolSyncLow"] = json!("PT1S");
    agent.set("eventPriorityLogin", json!("Low"));
    // Listeners come and go with every test beside this one, and as High events they may use the half that Low ones
    // may not.
    agent.set("eventPriorityListeningPorts", json!("Off"));
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(10_000..10_200);
    let status = agent.wait_status("the budget to be used up", |status| {
        status["waiting"].as_str().is_some_and(|words| words.contains("maxBytesPerDay"))
    });
    assert!(status["waiting"].as_str().unwrap().contains("Low events wait"), "{status}");
    assert!(status["link"]["sentTodayBytes"].as_u64().unwrap() <= 65_536 / 2 + 8192, "{status}");
    assert!(status["connected"].as_bool().unwrap());
    agent.wait_words(
        "the budget",
        &["half of the day's 64 KiB (maxBytesPerDay) is used up", "High events still go\n", " today of 64 KiB a day, "],
    );
    // A restart is no new day.
    assert!(agent.terminate().success());
    agent.start();
    wait_lifecycle("started", || hub.arrivals(), |extra| extra["Before"] == "stopped");
    let status = agent.wait_status("the budget to be used up still", |status| status["waiting"].is_string());
    assert!(status["link"]["sentTodayBytes"].as_u64().unwrap() <= 65_536, "{status}");
    // Once the limit is lifted everything that waited arrives.
    agent.own()["maxBytesPerDay"] = Value::Null;
    agent.write_twin();
    agent.signal(Signal::SIGHUP);
    wait_ports("what waited", 10_000..10_200, || hub.arrivals());
}

#[test]
fn sigusr1_sends_what_would_wait_for_hours() {
    let hub = Hub::start();
    let mut agent = Agent::new("press-63", connection(hub.port));
    agent.set("highPriorityMessageFrequency", json!("PT4H"));
    agent.set("lowPriorityMessageFrequency", json!("PT5H"));
    agent.start();
    agent.wait_collecting();
    agent.wait_status("a connection", |status| status["connected"] == true);
    agent.fail_logins(10_000..10_003);
    let status = agent.wait_status("the lines to be recorded", |status| status["events"]["byKind"]["Login"] == 3);
    assert!(status["events"]["acknowledged"].as_u64() < status["events"]["collected"].as_u64(), "{status}");
    agent.wait_words("when they are sent", &["connected, ", " to be sent within 3 h 5"]);
    agent.signal(Signal::SIGUSR1);
    wait_ports("the lines", 10_000..10_003, || hub.arrivals());
}
