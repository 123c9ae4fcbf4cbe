//! The real binary: what it says when it is ready, how it stops, and what a crash of it costs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes the helpers of an integration test for production code"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

const HUB: &str = env!("CARGO_BIN_EXE_edgewarden-hub");

struct Hub {
    child: Child,
    port: u16,
}

impl Hub {
    fn start(state: &Path) -> Hub {
        Hub::start_on(state, "127.0.0.1:0")
    }

    fn start_on(state: &Path, listen: &str) -> Hub {
        let mut child = Command::new(HUB)
            .args(["serve", "--hub", "Plant", "--listen", listen, "--state"])
            .arg(state)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.strip_prefix("listening mqtt://127.0.0.1:").unwrap_or_else(|| panic!("said {line:?}"));
        Hub { port: port.trim_end().parse().unwrap(), child }
    }

    /// Publishes login events with these ids and returns when each is acknowledged.
    fn publish(&self, device: &str, ids: std::ops::Range<u32>) {
        self.publish_all(device, ids.map(login).collect());
    }

    fn publish_all(&self, device: &str, messages: Vec<String>) {
        let (client, mut connection) = Client::new(MqttOptions::new(device, "127.0.0.1", self.port), messages.len());
        let wanted = messages.len();
        for message in messages {
            let topic = format!("edgewarden/{device}/security");
            client.publish(topic, QoS::AtLeastOnce, false, message).unwrap();
        }
        let acks = connection.iter().map(|event| event.unwrap());
        assert_eq!(
            acks.filter(|event| matches!(event, Event::Incoming(Packet::PubAck(_)))).take(wanted).count(),
            wanted
        );
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn login(id: u32) -> String {
    let item = format!(
        r#"{{"ProcessId":{id},"UserName":"root","Operation":"Login","Executable":"/usr/sbin/sshd","RemoteAddress":"192.0.2.9","Result":"Success"}}"#
    );
    message(id, "Triggered", "Login", "2026-11-24T05:12:01.123Z", &item)
}

fn message(id: u32, category: &str, name: &str, at: &str, items: &str) -> String {
    format!(
        r#"{{"AgentVersion":"0.1.0","AgentId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001","MessageSchemaVersion":"1.0","Events":[{{"Id":"0b7c5a52-57a0-4c89-9a53-0f3c{id:08x}","TimestampLocal":"{at}","TimestampUTC":"{at}","Category":"{category}","Name":"{name}","EventType":"Security","IsEmpty":false,"PayloadSchemaVersion":"1.0","Payload":[{items}]}}]}}"#
    )
}

fn rows(state: &Path, arguments: &[&str]) -> Output {
    Command::new(HUB).args(["rows", "--state"]).arg(state).args(arguments).output().unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let state = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(state.path());
    hub.publish("press-17", 0..40);
    hub.child.kill().unwrap();
    hub.child.wait().unwrap();
    assert_eq!(lines(&rows(state.path(), &["--json"])).len(), 40);

    // The next life of the hub takes the second delivery of half of them for what it is.
    let hub = Hub::start(state.path());
    hub.publish("press-17", 20..60);
    hub.publish("press-18", 0..1);
    assert_eq!(lines(&rows(state.path(), &["--device", "press-17", "--name", "Login"])).len(), 60);
    assert!(lines(&rows(state.path(), &["--name", "LocalUsers"])).is_empty());
    let row: serde_json::Value =
        serde_json::from_str(&lines(&rows(state.path(), &["--device", "press-18", "--json"]))[0]).unwrap();
    assert_eq!(row["AssociatedResourceId"], "/edgewarden/hubs/plant");
    assert!(row["EventDetails"].as_str().unwrap().contains(r#""RemoteAddress":"192.0.2.9""#));
}

#[test]
fn kill_9_in_the_middle_costs_nothing_that_was_acknowledged() {
    let state = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(state.path());
    let (client, mut connection) = Client::new(MqttOptions::new("press-17", "127.0.0.1", hub.port), 200);
    for id in 0..200 {
        client.publish("edgewarden/press-17/security", QoS::AtLeastOnce, false, login(id)).unwrap();
    }
    let mut acks = 0;
    for event in connection.iter() {
        match event {
            Ok(Event::Incoming(Packet::PubAck(_))) => acks += 1,
            Ok(_) => {}
            Err(_) => break,
        }
        if acks == 50 {
            hub.child.kill().unwrap();
        }
    }
    assert!(acks >= 50);
    // The broker answers in the order of the publishes, so these are the acknowledged ones.
    let stored = lines(&rows(state.path(), &["--json"]));
    for id in 0..acks {
        let id = format!("0b7c5a52-57a0-4c89-9a53-0f3c{id:08x}");
        assert!(stored.iter().any(|row| row.contains(&id)), "{id} was acknowledged and is gone");
    }
    // The next hub takes the port and the store over.
    let listen = format!("127.0.0.1:{}", hub.port);
    hub.child.wait().unwrap();
    let hub = Hub::start_on(state.path(), &listen);
    hub.publish("press-17", 0..60);
    assert!(lines(&rows(state.path(), &[])).len() >= 60);
}

#[test]
fn kill_9_while_alerts_are_raised_leaves_a_whole_store_with_each_alert_once() {
    let state = tempfile::tempdir().unwrap();
    let failure = |id: u32| {
        let item = format!(
            r#"{{"ProcessId":{id},"UserName":"root","Operation":"LoginFailed","Executable":"/usr/sbin/sshd","RemoteAddress":"192.0.2.{}","Result":"Fail"}}"#,
            id / 5
        );
        message(id, "Triggered", "Login", "2026-11-24T05:12:01.123Z", &item)
    };
    for (round, kill_at) in [3, 9, 27, 64].into_iter().enumerate() {
        let mut hub = Hub::start(state.path());
        let (client, mut connection) = Client::new(MqttOptions::new("press-17", "127.0.0.1", hub.port), 200);
        // What the last life may not have acknowledged comes again.
        for id in 0..100 * (u32::try_from(round).unwrap() + 1) {
            if id >= 100 * u32::try_from(round).unwrap().saturating_sub(1) {
                client.try_publish("edgewarden/press-17/security", QoS::AtLeastOnce, false, failure(id)).unwrap();
            }
        }
        let acks = connection.iter().map_while(Result::ok);
        acks.filter(|event| matches!(event, Event::Incoming(Packet::PubAck(_)))).take(kill_at).for_each(drop);
        hub.child.kill().unwrap();
        hub.child.wait().unwrap();
        let db = rusqlite::Connection::open(state.path().join("events.db")).unwrap();
        let said: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(said, "ok");
        let lonely = "SELECT COUNT(*) FROM SecurityAlert WHERE NOT EXISTS (SELECT 1 FROM SecurityIoTRawEvent)";
        assert_eq!(db.query_row(lonely, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }
    let hub = Hub::start(state.path());
    hub.publish_all("press-17", (0..400).map(failure).collect());
    assert_eq!(lines(&rows(state.path(), &[])).len(), 400);
    let alerts = lines(&rows(state.path(), &["--table", "SecurityAlert"]));
    assert_eq!(alerts.len(), 80, "one for each of 80 addresses");
    assert!(alerts.iter().all(|alert| alert.contains("Low press-17 Failed Bruteforce attempt: ")), "{alerts:?}");
}

#[test]
fn a_user_who_is_gone_is_named_when_the_list_is_whole() {
    let state = tempfile::tempdir().unwrap();
    let hub = Hub::start(state.path());
    let user = |name: &&str| format!(r#"{{"UserName":"{name}","UserId":"1","GroupIds":"1","GroupNames":"{name}"}}"#);
    let list = |id, at, users: &[&str]| {
        let items: Vec<String> = users.iter().map(user).collect();
        message(id, "Periodic", "LocalUsers", at, &items.join(","))
    };
    hub.publish_all(
        "press-17",
        vec![
            list(1, "2026-11-24T05:00:00Z", &["root", "pi"]),
            // The second list comes in two parts; neither alone has everybody.
            list(2, "2026-11-24T06:00:00Z", &["root"]),
            list(3, "2026-11-24T06:00:00Z", &["eve"]),
        ],
    );
    let alerts = || lines(&rows(state.path(), &["--table", "SecurityAlert", "--json"]));
    let told = (0..300).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        alerts().len() == 2
    });
    assert!(told, "{:?}", alerts());
    let alerts: Vec<serde_json::Value> = alerts().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut names: Vec<&str> = alerts.iter().map(|alert| alert["AlertName"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Local user added to one or more groups", "Local user deletion detected"]);
    assert!(alerts.iter().all(|alert| alert["ResourceId"] == "/edgewarden/hubs/plant"));
}

#[test]
fn import_names_what_it_refuses_and_takes_a_store_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("case.db");
    let import = |input: &str| {
        let mut child = Command::new(HUB)
            .args(["import", "--hub", "Case", "--device", "press-17", "--db"])
            .arg(&db)
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = import(&format!("{}\njunk\n{}", login(1), login(2)));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("-:2: line: not JSON"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "-: 2 stored, 0 known, 0 alerts, 1 refused\n");
    let again = import(&login(2));
    assert_eq!(lines(&again), ["-: 0 stored, 1 known, 0 alerts, 0 refused"]);
    let printed = Command::new(HUB).args(["rows", "--json", "--db"]).arg(&db).output().unwrap();
    assert_eq!(lines(&printed).len(), 2);
    let rights = std::os::unix::fs::PermissionsExt::mode(&db.metadata().unwrap().permissions());
    assert_eq!(rights & 0o777, 0o600);
}

#[test]
fn a_signal_ends_it_with_0() {
    for signal in ["-TERM", "-INT"] {
        let state = tempfile::tempdir().unwrap();
        let mut hub = Hub::start(state.path());
        hub.publish("press-17", 0..1);
        let pid = hub.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        assert_eq!(hub.child.wait().unwrap().code(), Some(0), "{signal}");
        assert_eq!(lines(&rows(state.path(), &[])).len(), 1);
    }
}

#[test]
fn what_cannot_start_says_why() {
    let state = tempfile::tempdir().unwrap();
    let serve = |arguments: &[&str]| {
        let output =
            Command::new(HUB).args(["serve", "--hub", "x", "--state"]).arg(state.path()).args(arguments).output();
        let output = output.unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(serve(&["--topic", "a/b"]).contains("expected {deviceId}"));
    assert!(serve(&["--keep-bytes", "1000"]).contains("at least 67108864"));
    assert!(serve(&["--db", "/nowhere/case.db"]).contains("--state"), "one of the two names the store");
    assert!(serve(&["--tls-cert", "/nowhere.pem"]).contains("--tls-key"));
    let tls = ["--listen", "127.0.0.1:0", "--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.key"];
    assert!(serve(&tls).contains("/nowhere.pem"));
    let missing = rows(&state.path().join("none"), &[]);
    assert!(!missing.status.success());
    assert!(String::from_utf8(missing.stderr).unwrap().contains("none/events.db"));
}
