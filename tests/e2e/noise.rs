//! Execs that are fewer events than execs.

use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::agent::{Agent, connection};
use crate::mosquitto::Mosquitto;
use crate::{schema, wait};

fn shells(line: &str, count: usize) -> Vec<Child> {
    let shell = |_| Command::new("/bin/sh").args(["-c", line]).stdin(Stdio::piped()).spawn().unwrap();
    (0..count).map(shell).collect()
}

#[test]
fn aggregated_execs_survive_a_stop_and_excluded_ones_are_counted() {
    let broker = Mosquitto::start();
    let mut agent = Agent::new("press-71", connection(broker.port));
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.set("eventPriorityDiagnostic", json!("High"));
    agent.set("aggregationEnabledProcessCreate", json!(true));
    agent.own()["processExclude"] = json!(["executable=/usr/bin/sleep", "executable=/bin/sleep"]);
    agent.start();
    agent.wait_collecting();
    let mut children = shells("read edgewarden_aggregated", 7);
    children.push(Command::new("sleep").arg("1000").spawn().unwrap());
    // Looks at /proc are half a second apart, and on a busy machine not all have been seen when the agent is stopped.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let find = || broker.arrivals().into_iter().find(|arrival| arrival.text("CommandLine").contains("edgewarden_agg"));
    assert!(find().is_none(), "the interval is an hour");
    agent.terminate();
    // What the stop wrote down goes out at the latest with the next start.
    agent.start();
    wait::until_true("the aggregated event", || find().is_some());
    let details = find().unwrap().details;
    let hits: u64 = details["ExtraDetails"]["HitCount"].as_str().unwrap().parse().unwrap();
    assert!(details["ProcessId"] == 0 && (2..=7).contains(&hits), "{details}");
    let excluded = |arrival: &crate::arrivals::Arrival| arrival.details["ExtraDetails"]["Excluded"].is_string();
    wait::until_true("the count of what was excluded", || broker.arrivals().iter().any(excluded));
    assert!(broker.arrivals().iter().all(|arrival| arrival.text("CommandLine") != "sleep 1000"));
    for (_, message) in broker.messages() {
        assert_eq!(schema::faults(&message), Vec::<String>::new(), "{message}");
    }
    agent.terminate();
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
