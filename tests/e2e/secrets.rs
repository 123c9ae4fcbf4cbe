//! What people put into command lines and nobody else may read.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::agent::{Agent, cli, connection};
use crate::mosquitto::Mosquitto;
use crate::wait;

/// In no word of the agent, in whatever it is written.
const SECRET: &str = "Zx9-hunter2-Qw7";

/// Every byte the agent has on disk: spool, state, log.
fn kept(agent: &Agent) -> Vec<u8> {
    let spool = ["state/spool/high", "state/spool/low", "state"].into_iter().map(|name| agent.path(name));
    let files = spool.flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten());
    let mut bytes: Vec<u8> = files.filter_map(|file| std::fs::read(file.path()).ok()).flatten().collect();
    bytes.extend(agent.log().bytes());
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_secret_of_a_command_line_is_neither_on_disk_nor_on_the_wire() {
    let broker = Mosquitto::start();
    let mut agent = Agent::new("press-70", Value::Null);
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.set("eventPriorityDiagnostic", json!("High"));
    agent.own()["redactAlso"] = json!(["licence"]);
    agent.start();
    agent.wait_collecting();
    let script =
        format!("export DB_PASSWORD={SECRET}; read line; curl -u admin:{SECRET} https://u:{SECRET}@a.example/");
    let options = [format!("--licence={SECRET}"), "--token".to_owned(), SECRET.to_owned()];
    let mut shell =
        Command::new("/bin/sh").args(["-c", &script, "tool"]).args(&options).stdin(Stdio::piped()).spawn().unwrap();
    wait::until_true("the exec to be in the spool", || holds(&kept(&agent), "DB_PASSWORD=%REDACTED%"));
    let status = cli(&["status", "--json", "--config", agent.config().to_str().unwrap()]).stdout;
    assert!(!status.is_empty());
    assert!(!holds(&kept(&agent), SECRET) && !holds(&status, SECRET));

    agent.terminate();
    agent.twin["connection"] = connection(broker.port);
    agent.start();
    // A compiler's command line on the same machine may hold something that looks like a secret, too.
    let find = || broker.arrivals().into_iter().find(|arrival| arrival.details["ProcessId"] == shell.id());
    wait::until_true("the exec to arrive", || find().is_some());
    let details = find().unwrap().details;
    assert_eq!(details["ExtraDetails"]["Redacted"], "5", "{details}");
    let line = details["CommandLine"].as_str().unwrap();
    assert!(
        line.contains("export DB_PASSWORD=%REDACTED%; read line; curl -u admin:%REDACTED% https://u:%REDACTED%@a"),
        "{line}"
    );
    assert!(line.ends_with("tool --licence=%REDACTED% --token %REDACTED%"), "{line}");
    agent.terminate();
    let sent: String = broker.messages().into_iter().map(|(topic, message)| format!("{topic}{message}")).collect();
    assert!(!sent.contains(SECRET) && !holds(&kept(&agent), SECRET));
    shell.stdin.take();
    shell.kill().unwrap();
    shell.wait().unwrap();
}
