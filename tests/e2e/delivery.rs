//! From the board to the hub, over a link that works.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::agent::{Agent, connection};
use crate::arrivals::{Arrival, assert_each_once, wait_ports};
use crate::hub::{self, Hub, details};
use crate::mosquitto::{Authority, Mosquitto, free_port};
use crate::{schema, wait};

/// A process that can be told from every other by its argument, and is gone when the story is.
struct Sleeper(Child);

impl Sleeper {
    fn start(argument: &str) -> Sleeper {
        Sleeper(Command::new("sleep").arg(argument).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn all_four_kinds_reach_the_hub_and_become_rows() {
    let hub = Hub::start();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut agent = Agent::new("press-17", connection(hub.port));
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.start();
    agent.wait_status("processes to be watched", |status| status["collectors"]["ProcessCreate"]["state"] == "running");
    agent.wait_collecting();
    agent.fail_logins(40_001..40_002);
    let sleeper = Sleeper::start("86399.5");

    let is =
        |row: &Value, name: &str, key: &str, value: &str| row["RawEventName"] == name && details(row)[key] == value;
    let login = hub.wait_row("the failed login", |row| is(row, "Login", "RemotePort", "40001"));
    let user = hub.wait_row("root among the users", |row| is(row, "LocalUsers", "UserName", "root"));
    let listening = hub.wait_row("the listener", |row| is(row, "ListeningPorts", "LocalPort", &port));
    let process = hub.wait_row("the process", |row| {
        row["RawEventName"] == "ProcessCreate" && details(row)["ProcessId"] == sleeper.0.id()
    });

    let executable = std::fs::canonicalize("/bin/sleep").unwrap();
    let process = details(&process);
    assert_eq!(process["CommandLine"], "sleep 86399.5");
    assert_eq!(process["Executable"], executable.to_str().unwrap());
    assert_eq!(process["ParentProcessId"], std::process::id());
    assert_eq!(process["UserId"], nix::unistd::Uid::current().to_string());
    let listening = details(&listening);
    assert_eq!(
        [&listening["Protocol"], &listening["LocalAddress"], &listening["RemoteAddress"], &listening["RemotePort"]],
        ["TCP", "127.0.0.1", "0.0.0.0", "*"]
    );
    assert_eq!(listening["ExtraDetails"]["ProcessId"], std::process::id().to_string());
    let user = details(&user);
    assert_eq!(user["UserId"], "0");
    assert!(user["GroupIds"].as_str().unwrap().split(';').next() == Some("0"), "primary group first: {user}");
    assert_eq!(login["RawEventCategory"], "Triggered");
    assert_eq!(details(&login)["UserName"], "root");

    let rows = hub.rows();
    for row in &rows {
        assert_eq!(row["DeviceId"], "press-17", "{row}");
        assert!(row["AssociatedResourceId"].as_str().unwrap().to_lowercase().contains(hub::NAME), "{row}");
        let details = details(row);
        assert_eq!(details["EventId"], row["IoTRawEventId"], "{row}");
        assert!(details["TimestampLocal"].is_string() && details["TimestampUTC"].is_string(), "{row}");
    }
    let keys: BTreeSet<_> =
        rows.iter().map(|row| format!("{} {}", row["IoTRawEventId"], row["PayloadIndex"])).collect();
    assert_eq!(keys.len(), rows.len(), "an item is stored once");
    assert!(agent.terminate().success());
}

/// As root the kernel can tell of every exec, also of a process gone before anybody could look. Where the agent could
/// not have that, it must say so and use the other way, and this test then checks that way.
#[test]
fn a_process_is_seen_by_the_back_end_the_agent_says_it_uses() {
    let hub = Hub::start();
    let mut agent = Agent::new("press-18", connection(hub.port));
    agent.own().as_object_mut().unwrap().remove("processBackend");
    agent.set("eventPriorityProcessCreate", json!("High"));
    agent.start();
    let status = agent.wait_status("processes to be watched", |status| {
        let state = &status["collectors"]["ProcessCreate"]["state"];
        state == "running" || state == "degraded"
    });
    let backend = status["collectors"]["ProcessCreate"]["backend"].as_str().unwrap().to_owned();
    let is_polling = backend.contains("poll");
    let argument = if is_polling { "86398.25" } else { "0.0625" };
    let sleeper = Sleeper::start(argument);
    if is_polling {
        eprintln!("short-lived processes are not checked: the agent polls here ({status})");
    }
    let row = hub.wait_row("the process", |row| {
        row["RawEventName"] == "ProcessCreate" && details(row)["CommandLine"] == format!("sleep {argument}")
    });
    assert_eq!(details(&row)["ProcessId"], sleeper.0.id());
}

#[test]
fn messages_to_a_foreign_broker_keep_to_the_published_schema() {
    let broker = Mosquitto::start();
    let mut agent = Agent::new("press-19", connection(broker.port));
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(41_000..41_050);
    wait_ports("fifty failed logins", 41_000..41_050, || broker.arrivals());
    let has = |arrivals: &[Arrival], name: &str| arrivals.iter().any(|arrival| arrival.name == name);
    wait::until_true("users and ports", || {
        let arrivals = broker.arrivals();
        has(&arrivals, "LocalUsers") && has(&arrivals, "ListeningPorts")
    });
    assert_each_once(41_000..41_050, &broker.arrivals());
    for (topic, message) in broker.messages() {
        assert_eq!(topic, "edgewarden/press-19/security");
        assert_eq!(schema::faults(&message), Vec::<String>::new(), "{message}");
    }
    let status = agent.wait_status("everything acknowledged", |status| {
        status["events"]["acknowledged"].as_u64() >= Some(50) && status["connected"] == true
    });
    assert_eq!(status["device"], "press-19");
    assert_eq!(status["events"]["lost"], 0);
    assert!(agent.terminate().success());
}

#[test]
fn a_broker_with_a_certificate_from_the_configured_authority_is_trusted() {
    let authority = Authority::new();
    let broker = Mosquitto::start_tls(&authority);
    let mut agent = Agent::new(
        "press-20",
        json!({ "profile": "mqtt", "url": format!("mqtts://127.0.0.1:{}", broker.tls_port), "caFile": authority.path("ca.pem") }),
    );
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(42_000..42_010);
    wait_ports("ten failed logins", 42_000..42_010, || broker.arrivals());
    assert_each_once(42_000..42_010, &broker.arrivals());
}

#[test]
fn a_broker_with_a_certificate_from_elsewhere_gets_nothing_and_nothing_is_lost() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let broker = Mosquitto::start_tls(&authority);
    let url = format!("mqtts://127.0.0.1:{}", broker.tls_port);
    let mut agent = Agent::new("press-21", json!({ "profile": "mqtt", "url": url, "caFile": stranger.path("ca.pem") }));
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(43_000..43_010);
    let status = agent.wait_status("ten events collected and the reason named", |status| {
        status["events"]["byKind"]["Login"].as_u64() >= Some(10)
            && status.to_string().to_lowercase().contains("certificate")
    });
    assert_eq!(status["connected"], false);
    assert_eq!(status["events"]["acknowledged"], 0);
    assert_eq!(broker.messages().len(), 0);
    assert!(agent.terminate().success());

    agent.twin["connection"]["caFile"] = json!(authority.path("ca.pem"));
    agent.start();
    wait_ports("what was kept", 43_000..43_010, || broker.arrivals());
    assert_each_once(43_000..43_010, &broker.arrivals());
}

#[test]
fn a_hub_that_is_not_there_yet_gets_everything_when_it_comes() {
    let port = free_port();
    let mut agent = Agent::new("press-22", connection(port));
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(44_000..44_100);
    let status = agent.wait_status("a hundred events kept and the reason named", |status| {
        status["events"]["byKind"]["Login"].as_u64() >= Some(100)
            && status.to_string().to_lowercase().contains("refused")
    });
    assert_eq!(status["connected"], false);
    assert_eq!(status["events"]["acknowledged"], 0);

    let mut hub = Hub::stopped();
    hub.listen(port);
    wait_ports("what was kept", 44_000..44_100, || hub.arrivals());
    assert_each_once(44_000..44_100, &hub.arrivals());
    agent.wait_status("the connection", |status| status["connected"] == true);
}
