//! Processes that die in the middle of their work.

use std::time::Duration;

use serde_json::json;

use crate::agent::{Agent, connection};
use crate::arrivals::{Arrival, assert_each_once, logins_by_port, wait_ports};
use crate::hub::Hub;
use crate::mosquitto::Mosquitto;
use crate::proxy::Proxy;
use crate::wait;

/// A syslog daemon goes on writing while the agent is killed again and again, at times that fall differently each
/// round: during start, in the middle of a batch, before and after an acknowledgement. A log that existed before the
/// agent was ever there is followed from its end, so the first line is written when the agent reads.
fn kill_while_logging(agent: &mut Agent, from: u16, arrivals: &dyn Fn() -> Vec<Arrival>) -> u16 {
    let mut next = from;
    agent.start();
    agent.wait_collecting();
    for round in 0..6_u64 {
        for _ in 0..12 {
            agent.fail_logins(next..next + 5);
            next += 5;
            std::thread::sleep(Duration::from_millis(20 + 35 * round));
        }
        agent.kill_9();
        // Lines that are written while nobody reads.
        agent.fail_logins(next..next + 5);
        next += 5;
        agent.start();
    }
    wait_ports("every line", from..next, arrivals);
    // What comes behind everything else: an event made twice would have been sent before it.
    agent.fail_logins(next..next + 1);
    wait_ports("the last line", from..next + 1, arrivals);
    next + 1
}

#[test]
fn an_agent_killed_while_logging_delivers_every_line_once_to_our_hub() {
    let hub = Hub::start();
    let mut agent = Agent::new("press-30", connection(hub.port));
    let end = kill_while_logging(&mut agent, 10_000, &|| hub.arrivals());
    assert_each_once(10_000..end, &hub.arrivals());
}

#[test]
fn an_agent_killed_while_logging_delivers_every_line_once_to_mosquitto() {
    let broker = Mosquitto::start();
    let mut agent = Agent::new("press-31", connection(broker.port));
    let end = kill_while_logging(&mut agent, 10_000, &|| broker.arrivals());
    assert_each_once(10_000..end, &broker.arrivals());
}

#[test]
fn a_line_written_between_the_first_start_and_a_kill_is_not_skipped() {
    let hub = Hub::start();
    let mut agent = Agent::new("press-32", connection(hub.port));
    agent.start();
    // The place from which lines count is on its way to the recorder for a moment after the start.
    let spool = agent.path("state/spool/low");
    wait::until_true("the first place in the log to be in the spool", || {
        let segments = std::fs::read_dir(&spool).into_iter().flatten().flatten();
        let holds_place = |bytes: Vec<u8>| bytes.windows(8).any(|window| window == b"auth.log");
        segments.filter_map(|segment| std::fs::read(segment.path()).ok()).any(holds_place)
    });
    agent.kill_9();
    agent.fail_logins(11_000..11_003);
    agent.start();
    wait_ports("the three lines", 11_000..11_003, || hub.arrivals());
    assert_each_once(11_000..11_003, &hub.arrivals());
}

/// The hub dies the moment its first acknowledgement has gone out, with more messages under way: one that answers
/// before it has stored loses what it acknowledged, and an agent that does not wait for the answer loses the rest.
#[test]
fn a_hub_killed_in_the_middle_has_kept_everything_it_acknowledged() {
    let mut hub = Hub::start();
    let proxy = Proxy::start(hub.port);
    let mut agent = Agent::new("press-33", connection(proxy.port));
    agent.set("maxMessageSizeInBytes", json!(8192));
    agent.start();
    agent.wait_collecting();
    let mut next = 12_000;
    for _ in 0..4 {
        agent.wait_status("the connection with nothing under way", |status| {
            status["connected"] == true && status["spool"]["acknowledged"] == status["spool"]["recorded"]
        });
        let replies = proxy.replies();
        agent.fail_logins(next..next + 300);
        next += 300;
        wait::until_true("an acknowledgement", || {
            (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                proxy.replies() > replies
            })
        });
        hub.kill_9();
        hub.listen(0);
        proxy.redirect(hub.port);
        wait_ports("every line", 12_000..next, || hub.arrivals());
    }
    assert_each_once(12_000..next, &hub.arrivals());
}

#[test]
fn sigterm_ends_the_agent_cleanly_and_nothing_is_lost_over_the_restart() {
    let hub = Hub::start();
    let mut agent = Agent::new("press-34", connection(hub.port));
    let mut next = 13_000;
    for _ in 0..3 {
        agent.start();
        agent.wait_collecting();
        agent.fail_logins(next..next + 100);
        next += 100;
        let status = agent.terminate();
        assert_eq!(status.code(), Some(0), "{status}");
    }
    agent.start();
    wait_ports("every line", 13_000..next, || hub.arrivals());
    agent.fail_logins(next..next + 1);
    wait_ports("the last line", 13_000..next + 1, || hub.arrivals());
    assert_each_once(13_000..next + 1, &hub.arrivals());
}

#[test]
fn sigterm_ends_the_agent_also_when_the_hub_is_silent() {
    let hub = Hub::start();
    let proxy = Proxy::start(hub.port);
    let mut agent = Agent::new("press-35", connection(proxy.port));
    agent.start();
    agent.wait_status("the connection", |status| status["connected"] == true);
    agent.wait_collecting();
    proxy.stall();
    agent.fail_logins(14_000..14_020);
    agent.wait_status("the lines to be collected", |status| status["events"]["byKind"]["Login"].as_u64() >= Some(20));
    assert_eq!(agent.terminate().code(), Some(0));
    assert!(logins_by_port(&hub.arrivals()).is_empty());

    proxy.relay();
    agent.start();
    wait_ports("every line", 14_000..14_020, || hub.arrivals());
    assert_each_once(14_000..14_020, &hub.arrivals());
}
