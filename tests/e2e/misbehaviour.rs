//! Brokers that do what no broker should.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::agent::{Agent, connection};
use crate::arrivals::{assert_each_once, wait_ports};
use crate::fake_broker::{Acks, Conduct, FakeBroker, Greeting, Received, puback, publish};
use crate::wait;

/// What a debug build may have in memory at most, whatever a broker sends it: about twice what it has when nothing
/// goes wrong.
const MAX_RESIDENT_KIB: u64 = 64 * 1024;

fn collecting(device: &str, broker: &FakeBroker) -> Agent {
    let mut agent = Agent::new(device, connection(broker.port));
    agent.set("maxMessageSizeInBytes", json!(8192));
    agent.start();
    agent.wait_collecting();
    agent
}

/// What holds at the end of every story: each line is one event, its second delivery is the same bytes, nothing was
/// counted as lost, the spool is acknowledged to its end, and the agent is the process it was and no larger.
fn assert_unharmed(agent: &mut Agent, broker: &FakeBroker, ports: std::ops::Range<u16>) {
    wait_ports("every line acknowledged", ports.clone(), || broker.acknowledged());
    assert_each_once(ports, &broker.arrivals());
    assert_same_bytes(&broker.received());
    agent.wait_status("everything acknowledged and nothing lost", |status| {
        status["spool"]["acknowledged"] == status["spool"]["recorded"] && status["events"]["lost"] == 0
    });
    let peak = agent.peak_resident_kib();
    assert!(peak < MAX_RESIDENT_KIB, "the agent had {peak} KiB in memory");
}

fn assert_same_bytes(received: &[Received]) {
    let mut first: BTreeMap<String, &str> = BTreeMap::new();
    for event in received.iter().flat_map(|message| events(&message.text)) {
        let before = first.entry(id(event)).or_insert(event);
        assert_eq!(*before, event, "a second delivery differs from the first");
    }
}

fn id(event: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    event["Id"].as_str().expect("an event has an Id").to_owned()
}

/// The events of a message as the bytes that were sent: the objects directly in the array `Events`.
fn events(message: &str) -> Vec<&str> {
    let from = message.find("\"Events\":[").expect("a message has Events") + "\"Events\":[".len();
    let (mut depth, mut start, mut in_text, mut escaped, mut found) = (0, 0, false, false, Vec::new());
    for (at, byte) in message.bytes().enumerate().skip(from) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' => {
                start = if depth == 0 { at } else { start };
                depth += 1;
            }
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    found.push(&message[start..=at]);
                }
            }
            b']' if depth == 0 => break,
            _ => {}
        }
    }
    found
}

#[test]
fn a_refusal_is_named_in_words_and_the_next_welcome_is_taken() {
    let words = [
        (1, "mqtt 3.1.1"),
        (2, "client id"),
        (3, "unavailable"),
        (4, "user name or password"),
        (5, "does not authorise"),
        // A code that MQTT 3.1.1 keeps for later.
        (200, "200"),
    ];
    // Side by side, because each has its pauses.
    let mut stories: Vec<_> = words
        .into_iter()
        .map(|(code, word)| {
            let broker = FakeBroker::start(Conduct::greeting(Greeting::Refuse(code)));
            let agent = collecting(&format!("press-60-{code}"), &broker);
            agent.fail_logins(30_000..30_020);
            (code, word, broker, agent)
        })
        .collect();
    for (code, word, broker, agent) in &mut stories {
        let status = agent.wait_status("the refusal", |status| status["trouble"].is_string());
        let trouble = status["trouble"].as_str().unwrap().to_lowercase();
        assert!(trouble.contains(*word), "code {code} is told as: {trouble}");
        assert_eq!(status["connected"], false);
        assert_eq!(status["events"]["acknowledged"], 0);
        broker.set_habit(Conduct::good());
    }
    for (code, _, broker, agent) in &mut stories {
        assert_unharmed(agent, broker, 30_000..30_020);
        let status = agent.status().unwrap();
        assert_eq!((&status["connected"], &status["trouble"]), (&json!(true), &json!(null)), "code {code}");
    }
}

#[test]
fn a_broker_that_never_answers_is_given_up_and_tried_again() {
    let broker = FakeBroker::start(Conduct::good());
    broker.plan(Conduct::greeting(Greeting::Silence));
    let mut agent = collecting("press-66", &broker);
    agent.fail_logins(30_000..30_020);
    let status =
        agent.wait_status("the silence", |status| status["trouble"].is_string() || status["connected"] == true);
    assert!(broker.connections() >= 1);
    assert_eq!(status["events"]["lost"], 0);
    assert_unharmed(&mut agent, &broker, 30_000..30_020);
    assert!(broker.connections() >= 2, "the silent connection was no connection");
}

#[test]
fn a_broker_that_closes_without_a_word_is_told_with_what_to_look_at() {
    let broker = FakeBroker::start(Conduct::greeting(Greeting::Close));
    let mut agent = collecting("press-68", &broker);
    agent.fail_logins(30_000..30_020);
    agent.wait_status("the advice", |status| {
        status["trouble"].as_str().is_some_and(|trouble| trouble.contains("are the user name and password"))
    });
    broker.set_habit(Conduct::good());
    assert_unharmed(&mut agent, &broker, 30_000..30_020);
}

#[test]
fn connections_that_end_at_once_raise_the_question_of_a_second_device() {
    let broker = FakeBroker::start(Conduct::greeting(Greeting::AcceptAndClose));
    let mut agent = collecting("press-67", &broker);
    agent.fail_logins(30_000..30_020);
    let status = agent.wait_status("the question", |status| {
        status["trouble"].as_str().is_some_and(|trouble| trouble.contains("another device"))
    });
    assert!(status["trouble"].as_str().unwrap().contains("press-67"), "{status}");
    broker.set_habit(Conduct::good());
    assert_unharmed(&mut agent, &broker, 30_000..30_020);
}

#[test]
fn acknowledgements_may_come_twice_late_and_in_any_order() {
    for (device, acks) in
        [("press-70", Acks::Twice), ("press-71", Acks::Reversed), ("press-72", Acks::After(Duration::from_millis(700)))]
    {
        let broker = FakeBroker::start(Conduct::good());
        // A few connections only: each that is acknowledged twice ends, as the client takes it for an error.
        (0..4).for_each(|_| broker.plan(Conduct::acks(acks)));
        let mut agent = collecting(device, &broker);
        // More than one window of messages.
        agent.fail_logins(30_000..30_600);
        assert_unharmed(&mut agent, &broker, 30_000..30_600);
    }
}

/// The third message is never acknowledged. Those behind it are, but the agent may not act on that: when the
/// connection is gone, everything from the third message on comes again, under its old ids.
#[test]
fn nothing_behind_a_message_that_was_not_acknowledged_is_forgotten() {
    let broker = FakeBroker::start(Conduct::good());
    broker.plan(Conduct::acks(Acks::AllBut(2)));
    broker.plan(Conduct::acks(Acks::AllBut(0)));
    let mut agent = collecting("press-73", &broker);
    agent.fail_logins(30_000..31_000);
    let of = |connection: usize| {
        let received = broker.received();
        received.into_iter().filter(move |message| message.connection == connection).collect::<Vec<_>>()
    };
    let count = |messages: &[Received]| messages.iter().map(|message| events(&message.text).len()).sum::<usize>();
    // The window is full: two that are done with, and sixteen behind them.
    wait::until_true("a full window", || of(0).len() == 18);
    let status = agent.wait_status("the first two messages to count", |status| {
        status["events"]["acknowledged"].as_u64() == Some(count(&of(0)[..2]) as u64)
    });
    assert_eq!(status["link"]["acknowledgedMessages"], 2, "{status}");

    broker.cut();
    wait::until_true("a full window again", || of(1).len() == 16);
    assert_comes_again(&of(0)[2..], &of(1));
    // The agent is killed with nothing but the first message of this connection missing.
    agent.kill_9();
    agent.start();
    wait_ports("every line", 30_000..31_000, || broker.acknowledged());
    wait::until_true("a third connection", || !of(2).is_empty());
    assert_comes_again(&of(1), &of(2));
    assert_unharmed(&mut agent, &broker, 30_000..31_000);
}

fn assert_comes_again(before: &[Received], after: &[Received]) {
    let list = |messages: &[Received]| {
        messages.iter().flat_map(|message| events(&message.text)).map(str::to_owned).collect::<Vec<_>>()
    };
    let after = list(after);
    for event in list(before) {
        assert!(after.contains(&event), "an event that was not acknowledged did not come again: {event}");
    }
}

#[test]
fn packets_that_make_no_sense_cost_a_connection_at_most() {
    let intrusions: [(&str, Vec<u8>); 14] = [
        ("an acknowledgement of nothing", puback(31)),
        ("an acknowledgement of packet 0", puback(0)),
        ("an acknowledgement of the largest packet id", puback(u16::MAX)),
        ("a packet of 256 MB, announced", vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("a packet larger than the agent takes, sent whole", publish(0, b"a", &vec![b'x'; 512 * 1024])),
        ("a length without an end", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("garbage", (0..=255).rev().collect()),
        ("a packet of the reserved type 0", vec![0, 0]),
        ("a second welcome", vec![0x20, 2, 1, 0]),
        ("the receipt of QoS 2 for QoS 1", vec![0x50, 2, 0, 2]),
        ("an answer to no subscription", vec![0x90, 3, 0, 1, 0x80]),
        ("a topic that is no text", publish(0, b"\xff\xfe", b"x")),
        ("a message nobody subscribed to", publish(1, b"$iothub/methods/POST/reboot/", b"{}")),
        ("a CONNECT", vec![0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 0]),
    ];
    // Side by side, because an agent that is pushed off again and again takes its time.
    std::thread::scope(|scope| {
        for (number, intrusions) in intrusions.chunks(3).enumerate() {
            scope.spawn(move || intrude(&format!("press-74-{number}"), intrusions));
        }
    });
}

fn intrude(device: &str, intrusions: &[(&str, Vec<u8>)]) {
    let broker = FakeBroker::start(Conduct::good());
    let mut agent = collecting(device, &broker);
    let mut next = 30_000;
    let log_and_wait = |agent: &Agent, next: &mut u16| {
        agent.fail_logins(*next..*next + 60);
        *next += 60;
        wait_ports("every line", 30_000..*next, || broker.acknowledged());
    };
    log_and_wait(&agent, &mut next);
    for (what, bytes) in intrusions {
        eprintln!("{device}: {what}");
        let connections = broker.connections();
        broker.plan(Conduct::intrusion(bytes));
        broker.cut();
        wait::until_true("the connection", || broker.connections() > connections);
        log_and_wait(&agent, &mut next);
        // What comes after the trouble shows that it is over.
        log_and_wait(&agent, &mut next);
    }
    assert_unharmed(&mut agent, &broker, 30_000..next);
}

#[test]
fn a_flood_of_messages_nobody_subscribed_to_fills_no_memory() {
    let broker = FakeBroker::start(Conduct::good());
    let mut agent = collecting("press-75", &broker);
    agent.fail_logins(30_000..30_020);
    wait_ports("the first lines", 30_000..30_020, || broker.acknowledged());
    let connections = broker.connections();
    // 84 MB, in nearly the largest packets the agent takes and in the smallest, which cost the most each.
    let large = publish(0, b"a/b", &vec![b'x'; 128 * 1024]).repeat(512);
    let small = publish(0, b"a", b"x").repeat(3_000_000);
    broker.plan(Conduct::intrusion(&[large, small].concat()));
    broker.cut();
    wait::until_true("the connection", || broker.connections() > connections);
    agent.fail_logins(30_020..30_600);
    assert_unharmed(&mut agent, &broker, 30_000..30_600);
    assert_eq!(broker.connections(), connections + 1, "the flood was not swallowed to its end");
}
