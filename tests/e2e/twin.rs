//! What a hub can change while the agent runs, by Azure IoT Hub's topics and by two retained ones, and what a hostile
//! one cannot.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Agent, DESIRED, cli, connection};
use crate::arrivals::{Arrival, assert_each_once, wait_ports};
use crate::hubs;
use crate::iothub::{IotHub, Proof};
use crate::mosquitto::{Authority, Keeps, Mosquitto, command};
use crate::schema;
use crate::wait;

/// Publishes to a topic, retained.
fn retain(port: u16, topic: &str, text: &[u8]) {
    retain_as("operator", port, topic, text);
}

fn retain_as(user: &str, port: u16, topic: &str, text: &[u8]) {
    let port = port.to_string();
    let mut publish = command("mosquitto_pub");
    publish.args(["-h", "127.0.0.1", "-p", &port, "-u", user, "-q", "1", "-r", "-t", topic, "-s"]);
    publish.stdin(Stdio::piped());
    let mut child = publish.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    assert!(wait::end("mosquitto_pub", &mut child).success());
}

/// What is retained at a topic.
fn retained(port: u16, topic: &str) -> Option<Value> {
    let port = port.to_string();
    let mut subscribe = command("mosquitto_sub");
    subscribe.args(["-h", "127.0.0.1", "-p", &port, "-u", "operator", "-t", topic, "-C", "1", "-W", "3"]);
    serde_json::from_slice(&wait::output("mosquitto_sub", &mut subscribe).stdout).ok()
}

/// A process with an argument of its own, which a look at /proc twice a second sees.
fn run(argument: &str) {
    assert!(Command::new("sleep").arg(argument).status().unwrap().success());
}

fn has_run(arrivals: &[Arrival], argument: &str) -> bool {
    arrivals.iter().any(|arrival| arrival.name == "ProcessCreate" && arrival.text("CommandLine").ends_with(argument))
}

fn collector_is(name: &'static str, state: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["collectors"][name]["state"] == state
}

fn has_told(arrivals: &[Arrival], name: &str, words: &str) -> usize {
    let told = arrivals.iter().filter(|arrival| arrival.name == name && arrival.text("Message").contains(words));
    // What was under way when a connection ended comes once more.
    told.map(|arrival| (&arrival.event, arrival.index)).collect::<BTreeSet<_>>().len()
}

/// What a fleet is told over a day, in a minute. `desire` replaces what is desired.
fn story(agent: &mut Agent, mark: &str, desire: impl Fn(Value), arrivals: impl Fn() -> Vec<Arrival>) {
    let published = |members: Value| json!({ DESIRED: members });
    // Of this story only: another one runs beside it.
    let [unseen, seen] = ["2.1", "2.2"].map(|seconds| format!("{seconds}{}", std::process::id()) + mark);
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.start();
    agent.wait_collecting();
    agent.wait_status("processes to be collected", collector_is("ProcessCreate", "running"));
    let status = agent.wait_status("the connection", |status| status["connected"] == true);
    let connections = status["link"]["connections"].clone();
    agent.fail_logins(30_000..30_010);

    // Nobody can turn off being told of it.
    let off = json!({ "eventPriorityProcessCreate": {"value": "Off"}, "eventPriorityDiagnostic": {"value": "Off"} });
    desire(published(off));
    agent.wait_status("processes to be off", collector_is("ProcessCreate", "off"));
    run(&unseen);
    agent.fail_logins(30_010..30_020);
    wait::until_true("the alarm", || {
        has_told(&arrivals(), "Diagnostic", "eventPriorityProcessCreate was lowered from \"High\" to \"Off\"") == 1
    });

    desire(published(json!({ "snapshotFrequency": {"value": "PT5S"} })));
    agent.wait_status("processes to be collected again", collector_is("ProcessCreate", "running"));
    run(&seen);
    agent.fail_logins(30_020..30_030);
    wait::until_true("the process", || has_run(&arrivals(), &seen));
    assert!(!has_run(&arrivals(), &unseen), "it ran while processes were off");
    wait::until_true("snapshots every five seconds", || {
        let arrivals = arrivals();
        let users = arrivals.iter().filter(|arrival| arrival.name == "LocalUsers").map(|arrival| &arrival.event);
        users.collect::<std::collections::BTreeSet<_>>().len() >= 3
    });
    assert_eq!(has_told(&arrivals(), "ConfigurationError", ""), 0, "all is well");

    desire(published(json!({
        "snapshotFrequency": {"value": "5s"}, "maxMessageSizeInBytes": {"value": 9000},
        "highPriorityMessageFrequency": {"value": "PT2H"}, "lowPriorityMessageFrequency": {"value": "PT1S"},
    })));
    for words in ["\"PT5S\" is in force", "expected a multiple of 4096", "expected no more than lowPriorityMessage"] {
        wait::until_true(words, || has_told(&arrivals(), "ConfigurationError", words) == 1);
    }
    wait_ports("every login", 30_000..30_030, &arrivals);
    assert_each_once(30_000..30_030, &arrivals());
    assert_eq!(agent.status().unwrap()["link"]["connections"], connections, "one connection did it all");
}

#[test]
fn iot_hub_changes_what_is_collected_while_the_agent_runs() {
    let authority = Authority::new();
    let rules = hubs::module_rules("press-90", "localhost", Proof::Key(hubs::KEY.to_owned()));
    let hub = IotHub::start(&authority, rules);
    hub.change_desired(&json!({ "tags": "of somebody else" }));
    let mut agent = hubs::agent("press-90", &hub, &authority, "sasKeyFile", hubs::KEY, json!({}));
    let last = std::cell::RefCell::new(json!({}));
    // The service sends what changed, with a null for what was taken away.
    let desire = |whole: Value| {
        let before = last.replace(whole.clone());
        let mut patch = whole;
        for key in before[DESIRED].as_object().into_iter().flat_map(|members| members.keys()) {
            if patch[DESIRED].get(key).is_none() {
                patch[DESIRED][key] = Value::Null;
            }
        }
        hub.change_desired(&patch);
    };
    story(&mut agent, "1", desire, || hub.arrivals());
    let version = wait::until("the report of it all", || {
        let (reported, version) = hub.reported();
        let is_there = reported[DESIRED]["snapshotFrequency"]["value"] == "PT5S"
            && reported["latest_state"] == "failed"
            && reported["latest_invalid_fields"] == "snapshotFrequency"
            && reported["edgewardenStatus"]["collectors"]["ProcessCreate"]["state"] == "running"
            && reported["edgewardenStatus"]["agentVersion"].is_string()
            && reported["edgewarden"]["processBackend"] == "poll";
        // One at the connection and one a minute later, not one for each change.
        if is_there { Ok(version) } else { Err(reported.to_string()) }
    });
    assert!(version <= 4, "{version} reports");
    assert_eq!((hub.faults(), hub.displaced()), (Vec::new(), 0));
    for event in hub.events() {
        let message = json!({ "AgentVersion": "0.0.1", "AgentId": "00000000-0000-0000-0000-000000000000",
                              "MessageSchemaVersion": "1.0", "Events": [event] });
        assert_eq!(schema::faults(&message), [""; 0], "{message}");
    }

    // Changes made while the device was away are asked for.
    agent.kill_9();
    hub.change_desired(&json!({ DESIRED: { "eventPriorityLogin": {"value": "Off"} } }));
    agent.start();
    agent.wait_status("logins to be off", collector_is("Login", "off"));
}

#[test]
fn retained_topics_do_the_same_and_an_offline_boot_goes_by_what_was_told() {
    let broker = Mosquitto::start();
    let (port, topic) = (broker.port, "edgewarden/press-91/twin/desired");
    let mut agent = Agent::new("press-91", connection(port));
    agent.twin["connection"]["twin"] = json!(true);
    story(&mut agent, "2", |whole| retain(port, topic, whole.to_string().as_bytes()), || broker.arrivals());
    let reported = retained(port, "edgewarden/press-91/twin/reported").expect("it is retained");
    assert_eq!(reported[DESIRED]["eventPriorityLogin"]["value"], "High", "{reported}");

    retain(port, topic, json!({ DESIRED: { "eventPriorityLogin": {"value": "Off"} } }).to_string().as_bytes());
    agent.wait_status("logins to be off", collector_is("Login", "off"));
    agent.kill_9();
    agent.twin["connection"]["url"] = json!("mqtt://127.0.0.1:1");
    agent.start();
    agent.wait_status("logins to be off without a hub", collector_is("Login", "off"));
    let checked = check(&agent);
    assert!(checked.contains("eventPriorityLogin = \"Off\"") && checked.contains("# desired by the hub"), "{checked}");

    // Only where it is enabled here.
    agent.kill_9();
    agent.twin["connection"] = connection(port);
    agent.start();
    agent.wait_collecting();
    agent.wait_status("the connection", |status| status["connected"] == true);
    agent.fail_logins(31_000..31_003);
    wait_ports("logins whatever is retained", 31_000..31_003, || broker.arrivals());
    assert!(!check(&agent).contains("# desired by the hub"));
}

fn check(agent: &Agent) -> String {
    let out = cli(&["check", "--config", agent.config().to_str().unwrap()]);
    String::from_utf8(out.stdout).unwrap()
}

/// The value of an own key that `check` shows.
fn shown<'a>(checked: &'a str, key: &str) -> &'a str {
    let line = checked.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key} in {checked}"));
    line.split('"').nth(1).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_kill_while_the_hub_changes_its_mind_leaves_one_of_its_minds() {
    let broker = Mosquitto::start();
    let (port, topic) = (broker.port, "edgewarden/press-92/twin/desired");
    let mut agent = Agent::new("press-92", connection(port));
    agent.twin["connection"]["twin"] = json!(true);
    let mut random = fastrand::Rng::with_seed(92);
    for round in 0..6 {
        agent.start();
        agent.wait_status("the connection", |status| status["connected"] == true);
        let flips = std::thread::spawn(move || {
            for flip in 0..6 {
                let seconds = 10 + round * 6 + flip;
                let own = json!({ "spoolSyncLow": format!("PT{seconds}S"), "spoolSyncHigh": format!("PT{seconds}S") });
                retain(port, topic, json!({ "edgewarden": own }).to_string().as_bytes());
            }
        });
        std::thread::sleep(Duration::from_millis(random.u64(0..60)));
        agent.kill_9();
        flips.join().unwrap();
        let checked = check(&agent);
        let [high, low] = ["edgewarden.spoolSyncHigh", "edgewarden.spoolSyncLow"].map(|key| shown(&checked, key));
        assert!(high == low || (high, low) == ("PT0.5S", "PT30S"), "{high} {low}");
        assert!(!checked.contains("warnings"), "{checked}");
    }
    agent.start();
    wait::until("its last mind", || match check(&agent) {
        checked if shown(&checked, "edgewarden.spoolSyncLow") == "PT45S" => Ok(()),
        checked => Err(checked),
    });
}

#[test]
fn a_hostile_hub_neither_stops_nor_blinds_the_agent() {
    let mut broker = Mosquitto::start_with(Keeps::Nothing);
    let (port, topic) = (broker.port, "edgewarden/press-93/twin/desired");
    let mut agent = Agent::new("press-93", connection(port));
    agent.twin["connection"]["twin"] = json!(true);
    agent.own()["floor"] = json!(["eventPriorityLogin"]);
    agent.start();
    agent.wait_collecting();
    agent.wait_status("the connection", |status| status["connected"] == true);
    let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    let local = json!({ "connection": {"url": "mqtt://evil:1"}, "stateDirectory": "/tmp", "deviceId": "x",
                        "edgewarden": {"loginSource": "/etc/shadow", "floor": []},
                        DESIRED: {"eventPriorityLogin": {"value": "Off"}} });
    for (document, words) in [
        (deep.into_bytes(), "recursion limit exceeded"),
        (b"{\"a\": \"\xff\"}".to_vec(), "expected UTF-8"),
        (
            format!("{{\"{DESIRED}\": {{\"snapshotFrequency\": {{\"value\": 1e308}}}}}}").into_bytes(),
            "found {\"value\":1e+308}",
        ),
        (b"{\"edgewarden\": {\"floor\": 1, \"floor\": 2}}".to_vec(), "expected each key once"),
        (local.to_string().into_bytes(), "only the local file may name a log file"),
    ] {
        retain(port, topic, &document);
        wait::until(words, || if agent.log().contains(words) { Ok(()) } else { Err(agent.log()) });
    }
    // A thousand updates in a second, and then one more.
    let mut flood = command("mosquitto_pub");
    flood.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", topic, "-l"]).stdin(Stdio::piped());
    let mut flood = flood.spawn().unwrap();
    let mut lines = flood.stdin.take().unwrap();
    for number in 0..1000 {
        writeln!(lines, "{{\"edgewarden\": {{\"maxBytesPerDay\": {}}}}}", 70_000_000 + number).unwrap();
    }
    drop(lines);
    wait::end("the flood", &mut flood);
    retain(port, topic, b"{\"edgewarden\": {\"spoolSyncLow\": \"PT11S\"}}");
    agent.fail_logins(30_000..30_010);
    wait_ports("logins in a flood", 30_000..30_010, || broker.arrivals());
    wait::until("the last to win", || match check(&agent) {
        checked if shown(&checked, "edgewarden.spoolSyncLow") == "PT11S" => Ok(()),
        checked => Err(checked),
    });

    // It lies retained, so it would break every connection.
    retain(port, topic, &vec![b' '; 64 << 20]);
    wait::until("the way out", || match agent.log() {
        log if log.contains("connects without the twin for an hour") => Ok(()),
        log => Err(log),
    });
    agent.wait_status("the connection again", |status| status["connected"] == true);
    agent.fail_logins(30_010..30_020);
    wait_ports("logins behind it", 30_000..30_020, || broker.arrivals());
    assert_each_once(30_000..30_020, &broker.arrivals());
    assert_eq!(shown(&check(&agent), "edgewarden.spoolSyncLow"), "PT11S");
    assert!(agent.peak_resident_kib() < 60 * 1024, "{} KiB", agent.peak_resident_kib());
    let arrivals = broker.arrivals();
    assert_eq!(has_told(&arrivals, "Diagnostic", "connects without the twin for an hour"), 1);
    broker.terminate();
}

/// The access list of the threat model, as it stands there.
#[test]
fn the_brokers_access_list_keeps_devices_out_of_each_others_twin() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/threat-model.md")).unwrap();
    let list = document.split_once("```text\nuser operator\n").unwrap().1.split("```").next().unwrap();
    // The witness of these stories has no name.
    let witness = "topic read edgewarden/#\ntopic readwrite probe\n";
    let broker = Mosquitto::start_guarded(&format!("{witness}\nuser operator\n{list}"));
    let (port, topic) = (broker.port, "edgewarden/press-94/twin/desired");
    let mut agent = Agent::new("press-94", connection(port));
    agent.twin["connection"]["twin"] = json!(true);
    agent.twin["connection"]["username"] = json!("press-94");
    agent.start();
    agent.wait_collecting();
    agent.wait_status("the connection", |status| status["connected"] == true);
    let off = json!({ DESIRED: { "eventPriorityLogin": {"value": "Off"} } }).to_string();
    for user in ["press-95", "press-94"] {
        retain_as(user, port, topic, off.as_bytes());
    }
    assert_eq!(retained(port, topic), None);
    agent.fail_logins(30_000..30_003);
    wait_ports("logins", 30_000..30_003, || broker.arrivals());
    wait::until_true("the report", || retained(port, "edgewarden/press-94/twin/reported").is_some());
    retain(port, topic, off.as_bytes());
    agent.wait_status("logins to be off", collector_is("Login", "off"));
}
