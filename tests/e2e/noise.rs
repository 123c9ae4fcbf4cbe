//! Execs that are fewer events than execs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::agent::{Agent, connection};
use crate::mosquitto::Mosquitto;
use crate::{schema, wait};

/// How many different command lines a flood keeps.
const KEPT: usize = 4096;

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
    let excluded = |status: &serde_json::Value| status["excluded"].as_object().is_some_and(|rules| !rules.is_empty());
    let status = agent.wait_status("the count of what was excluded", excluded);
    let words = agent.status_in_words();
    let is_named = |path: &str| words.contains(&format!(" by executable={path}"));
    assert!(is_named("/usr/bin/sleep") || is_named("/bin/sleep"), "{status} {words}");
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

/// Builds one of the programs of `tests/support`.
fn build(dir: &Path, name: &str, options: &[&str]) -> String {
    let (source, program) = (format!("{}/../tests/support/{name}.c", env!("CARGO_MANIFEST_DIR")), dir.join(name));
    let cc = Command::new("cc").args(options).arg("-o").arg(&program).arg(source).status();
    assert!(cc.expect("a C compiler is needed: scripts/setup-test.sh installs it").success());
    program.display().to_string()
}

/// A number among the details of an event.
fn number(details: &serde_json::Value, key: &str) -> u64 {
    details["ExtraDetails"][key].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Two bombs in a row, the second of another thousand times the same line: each first line is an event, one that came
/// too late is counted, and both ends of the flood are told.
#[test]
fn in_a_flood_the_first_of_every_line_is_kept_and_the_rest_is_counted() {
    if !nix::unistd::Uid::effective().is_root() {
        return eprintln!("not run: without root only programs that stay for a while are seen");
    }
    let (broker, dir) = (Mosquitto::start(), TempDir::new().unwrap());
    let tiny = build(dir.path(), "tiny", &["-static", "-nostdlib"]);
    let burst = build(dir.path(), "burst", &["-O2"]);
    let mut agent = Agent::new("press-76", connection(broker.port));
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.own()["processBackend"] = "auto".into();
    agent.own()["processFloodRate"] = json!(20);
    // Of other tests that run at the same time nothing shall take room.
    agent.own()["processInclude"] = json!([format!("executable={tiny}")]);
    agent.start();
    agent.wait_status("execs to be seen", |status| status["collectors"]["ProcessCreate"]["state"] == "running");
    let bomb = |mark: &str, count: &str| {
        let burst = Command::new(&burst).args([&tiny, mark, count, "2"]).stdout(Stdio::null()).status();
        assert!(burst.unwrap().success());
    };
    bomb("bomb", "5000");
    for _ in 0..20 {
        bomb("same", "50");
    }
    agent.wait_status("the flood to be told", |status| status["flood"] == true);
    let words = agent.status_in_words();
    assert!(words.contains("more programs are started than processFloodRate allows"), "{words}");
    let told = |phase: &str| {
        let of_phase = |arrival: &crate::arrivals::Arrival| arrival.details["ExtraDetails"]["Flood"] == phase;
        broker.arrivals().into_iter().find(of_phase)
    };
    wait::until_true("the beginning", || told("begins").is_some());
    wait::until_true("the end, ten quiet seconds later", || told("ends").is_some());
    let not_kept = number(&told("ends").unwrap().details, "NotKept");
    let status = agent.wait_status("the flood to be over", |status| status["flood"] == false);
    assert_eq!(status["lost"]["ProcessCreate.flood"].as_u64().unwrap_or(0), not_kept, "{status}");

    let of_execs =
        |(cause, lost): (&String, &serde_json::Value)| cause.starts_with("ProcessCreate.").then(|| lost.as_u64());
    let all_lost: u64 = status["lost"].as_object().unwrap().iter().filter_map(of_execs).flatten().sum();
    let row = |arrival: &crate::arrivals::Arrival| {
        let line = arrival.text("CommandLine");
        let mark = line.strip_prefix(&format!("{tiny} "))?.to_owned();
        Some((mark, number(&arrival.details, "HitCount").max(1)))
    };
    wait::until("every kept line", || {
        let rows: Vec<_> = broker.arrivals().iter().filter_map(row).collect();
        let lines: BTreeSet<_> = rows.iter().map(|(line, _)| line).collect();
        let execs: u64 = rows.iter().map(|(_, hits)| hits).sum();
        // Without BPF a program of one instruction may be gone before its line is read: an event, but not a line.
        let enough = lines.len() >= KEPT && execs + all_lost >= 6000;
        let backend = status["collectors"]["ProcessCreate"]["backend"].as_str().expect("it runs");
        let without_bpf = !backend.starts_with("eBPF");
        if enough || without_bpf {
            Ok(())
        } else {
            Err(format!("{} lines, {execs} execs, {all_lost} lost", lines.len()))
        }
    });
    let excluded = status["excluded"]["not in processInclude"].as_u64();
    assert!(excluded.is_some_and(|execs| execs > 0), "{status}");
    agent.terminate();
}
