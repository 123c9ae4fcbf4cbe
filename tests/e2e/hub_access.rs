//! Our own hub on a network: who gets in, and who can write as whom.

use std::fs::Permissions;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::arrivals::{assert_each_once, wait_ports};
use crate::hub::{self, Hub};
use crate::mosquitto::{Authority, command};
use crate::wait;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A hub with TLS that has not started yet.
fn hub(authority: &Authority, more: &[(&str, &Path)]) -> Hub {
    let mut hub = Hub::stopped();
    let (cert, key) = (authority.path("server.pem"), authority.path("server.key"));
    for (flag, file) in [("--tls-cert", cert.as_path()), ("--tls-key", key.as_path())].iter().chain(more) {
        hub.arguments.extend([(*flag).to_owned(), text(file)]);
    }
    hub
}

fn device(file: &Path, arguments: &[&str]) -> String {
    let out = std::process::Command::new(hub::binary())
        .arg("device")
        .args(arguments)
        .arg("--devices")
        .arg(file)
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}

fn secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// An agent that logs in with a password.
fn agent(name: &str, hub: &Hub, authority: &Authority, password: &str) -> Agent {
    let mut agent = Agent::new(name, json!({}));
    secret(&agent.path("password"), password);
    agent.twin["connection"] = json!({
        "url": format!("mqtts://127.0.0.1:{}", hub.port),
        "caFile": authority.path("ca.pem"),
        "username": name,
        "passwordFile": agent.path("password"),
    });
    agent
}

/// Debian's client publishes one message: not our code on the other side.
fn publish(hub: &Hub, authority: &Authority, topic: &str, message: &str, more: &[&str]) -> Output {
    let port = hub.port.to_string();
    let mut publish = command("mosquitto_pub");
    publish.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-m", message, "--cafile"]);
    publish.arg(authority.path("ca.pem")).args(more).stdin(Stdio::null()).output().unwrap()
}

/// A right message whose event names another device wherever it can.
fn forged(device: &str) -> String {
    json!({
        "AgentVersion": "0.1.0", "AgentId": "0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001", "MessageSchemaVersion": "1.0",
        "Events": [{
            "Id": "0b7c5a52-57a0-4c89-9a53-0f3cf1b0a0ff", "TimestampLocal": "2026-11-24T06:12:01.123+01:00",
            "TimestampUTC": "2026-11-24T05:12:01.123Z", "Category": "Triggered", "Name": "ProcessCreate",
            "EventType": "Security", "IsEmpty": false, "PayloadSchemaVersion": "1.0",
            "Payload": [{ "Executable": "/bin/true", "ProcessId": 1, "ParentProcessId": 0, "UserId": "0",
                          "CommandLine": "true", "ExtraDetails": { "DeviceId": device } }],
        }],
    })
    .to_string()
}

fn devices_of(hub: &Hub) -> Vec<String> {
    let mut devices: Vec<_> = hub.rows().iter().map(|row| row["DeviceId"].as_str().unwrap().to_owned()).collect();
    devices.sort_unstable();
    devices.dedup();
    devices
}

fn trouble(words: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["trouble"].as_str().is_some_and(|trouble| trouble.contains(words))
}

#[test]
fn a_device_with_a_password_writes_as_itself_only() {
    let authority = Authority::new();
    let devices = authority.path("devices");
    let password = device(&devices, &["add", "press-60"]);
    device(&devices, &["add", "press-61"]);
    assert_eq!(device(&devices, &["list"]), "press-60\npress-61");
    let mut hub = hub(&authority, &[("--devices", &devices)]);
    hub.listen(0);
    // Strangers who begin a handshake and say nothing hold nobody up.
    let _silent: Vec<_> = (0..5).map(|_| TcpStream::connect(("127.0.0.1", hub.port)).unwrap()).collect();
    let mut agent = agent("press-60", &hub, &authority, "a guess");
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(30_000..30_005);
    agent.wait_status("the refusal", trouble("the hub refused the user name or password"));
    secret(&agent.path("password"), &password);
    wait_ports("the logins", 30_000..30_005, || hub.arrivals());

    let login = ["-u", "press-60", "-P", &password];
    let own = "edgewarden/press-60/security";
    let foreign = publish(
        &hub,
        &authority,
        "edgewarden/press-61/security",
        &forged("press-61"),
        &[&login[..], &["-i", "press-60"]].concat(),
    );
    assert!(!foreign.status.success(), "{foreign:?}");
    let client_id = publish(&hub, &authority, own, &forged("press-61"), &[&login[..], &["-i", "press-61"]].concat());
    assert!(!client_id.status.success(), "{client_id:?}");
    let will = ["-i", "press-60", "--will-topic", "edgewarden/press-61/security", "--will-payload", "x"];
    assert!(!publish(&hub, &authority, own, &forged("press-61"), &[&login[..], &will].concat()).status.success());
    let anonymous = publish(&hub, &authority, own, &forged("press-61"), &["-i", "press-60"]);
    assert!(!anonymous.status.success(), "{anonymous:?}");
    let payload = publish(&hub, &authority, own, &forged("press-61"), &[&login[..], &["-i", "press-60"]].concat());
    assert!(payload.status.success(), "{payload:?}");
    // The one that got through is the device's own, whatever it says; the agent comes back and loses nothing.
    assert_eq!(devices_of(&hub), ["press-60"]);
    agent.fail_logins(30_005..30_010);
    wait_ports("the logins after it", 30_000..30_010, || hub.arrivals());
    assert_each_once(30_000..30_010, &hub.arrivals());
    assert!(!hub.log().contains(&password) && !agent.log().contains(&password));
}

#[test]
fn the_devices_file_counts_as_it_is_now() {
    let authority = Authority::new();
    let devices = authority.path("devices");
    let password = device(&devices, &["add", "press-62"]);
    let mut hub = hub(&authority, &[("--devices", &devices)]);
    hub.listen(0);
    let mut agent = agent("press-62", &hub, &authority, &password);
    agent.start();
    agent.wait_collecting();
    agent.wait_status("the connection", |status| status["connected"] == true);
    device(&devices, &["remove", "press-62"]);
    agent.fail_logins(30_000..30_005);
    agent.wait_status("the refusal", trouble("the hub refused the user name or password"));
    // A file that nobody can make sense of is named with its line, and changes nothing.
    secret(&devices, "# hall 3\npress-62:hunter2\n");
    wait::until_true("the line to be named", || hub.log().contains("devices:2: expected DEVICE:$7$"));
    agent.wait_status("still refused", trouble("the hub refused the user name or password"));
    assert!(hub.arrivals().iter().all(|arrival| arrival.name != "Login"));
    std::fs::remove_file(&devices).unwrap();
    secret(&agent.path("password"), &device(&devices, &["add", "press-62"]));
    wait_ports("the logins", 30_000..30_005, || hub.arrivals());
    assert_each_once(30_000..30_005, &hub.arrivals());
}

#[test]
fn a_client_certificate_says_who_the_device_is() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for name in ["press-63", "press-64"] {
        authority.client(name);
    }
    stranger.client("press-63");
    let mut hub = hub(&authority, &[("--client-ca", &authority.path("ca.pem"))]);
    hub.listen(0);
    let mut agent = Agent::new("{certCN}", json!({}));
    agent.twin["connection"] = json!({
        "url": format!("mqtts://127.0.0.1:{}", hub.port),
        "caFile": authority.path("ca.pem"),
        "certFile": authority.path("press-63.pem"),
        "keyFile": authority.path("press-63.key"),
    });
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(30_000..30_005);
    wait_ports("the logins", 30_000..30_005, || hub.arrivals());

    let certificate = |authority: &Authority, name: &str| {
        let file = |end: &str| text(&authority.path(&format!("{name}.{end}")));
        ["--cert".to_owned(), file("pem"), "--key".to_owned(), file("key"), "-i".to_owned(), "press-64".to_owned()]
    };
    let send = |topic: &str, more: &[String]| {
        let more: Vec<_> = more.iter().map(String::as_str).collect();
        publish(&hub, &authority, topic, &forged("press-63"), &more).status.success()
    };
    let good = certificate(&authority, "press-64");
    assert!(!send("edgewarden/press-63/security", &good));
    assert!(!send("edgewarden/press-64/security", &["-i".to_owned(), "press-64".to_owned()]));
    assert!(!send("edgewarden/press-64/security", &certificate(&stranger, "press-63")));
    assert!(!send("edgewarden/press-64/security", &certificate(&authority, "press-63")));
    assert_eq!(devices_of(&hub), ["press-63"]);
    assert!(send("edgewarden/press-64/security", &good));
    assert_eq!(devices_of(&hub), ["press-63", "press-64"]);
}

#[test]
fn a_certificate_that_is_taken_back_is_of_no_more_use() {
    let authority = Authority::new();
    authority.client("press-67");
    authority.revoke(None);
    let files = [("--client-ca", authority.path("ca.pem")), ("--client-crl", authority.path("crl.pem"))];
    let mut hub = hub(&authority, &files.each_ref().map(|(flag, file)| (*flag, file.as_path())));
    hub.listen(0);
    let mut agent = Agent::new("press-67", json!({}));
    agent.twin["connection"] = json!({
        "url": format!("mqtts://127.0.0.1:{}", hub.port),
        "caFile": authority.path("ca.pem"),
        "certFile": authority.path("press-67.pem"),
        "keyFile": authority.path("press-67.key"),
    });
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(30_000..30_005);
    wait_ports("the logins", 30_000..30_005, || hub.arrivals());
    // Files read again cost a device with a good certificate no more than a new connection.
    hub.signal(Signal::SIGHUP);
    wait::until_true("the files to be read", || hub.log().contains("the TLS files are read again"));
    agent.fail_logins(30_005..30_010);
    wait_ports("the logins after it", 30_000..30_010, || hub.arrivals());
    authority.revoke(Some("press-67"));
    hub.signal(Signal::SIGHUP);
    wait::until_true("the files to be read", || hub.log().matches("the TLS files are read again").count() == 2);
    agent.fail_logins(30_010..30_015);
    agent.wait_status("the refusal", trouble("ertificate"));
    assert_each_once(30_000..30_010, &hub.arrivals());
}

#[test]
fn sighup_takes_a_new_certificate_and_a_broken_one_changes_nothing() {
    let (authority, next) = (Authority::new(), Authority::new());
    let devices = authority.path("devices");
    let password = device(&devices, &["add", "press-65"]);
    let mut hub = hub(&authority, &[("--devices", &devices)]);
    hub.listen(0);
    let login = ["-u", "press-65", "-P", &password, "-i", "press-65"];
    let send = |trusted: &Authority| {
        publish(&hub, trusted, "edgewarden/press-65/security", &forged("press-65"), &login).status.success()
    };
    assert!(send(&authority) && !send(&next));
    secret(&authority.path("server.key"), "no key");
    hub.signal(Signal::SIGHUP);
    wait::until_true("the key to be named", || hub.log().contains("server.key holds no private key"));
    assert!(send(&authority));
    for file in ["server.pem", "server.key"] {
        std::fs::copy(next.path(file), authority.path(file)).unwrap();
    }
    hub.signal(Signal::SIGHUP);
    wait::until_true("the files to be read", || hub.log().contains("the TLS files are read again"));
    assert!(send(&next) && !send(&authority));
}

#[test]
fn what_would_let_strangers_in_does_not_start() {
    let authority = Authority::new();
    let devices = authority.path("devices");
    device(&devices, &["add", "press-66"]);
    let state = authority.path("state");
    let serve = |arguments: &[&str]| {
        let out = std::process::Command::new(hub::binary())
            .args(["serve", "--hub", "x", "--state"])
            .arg(&state)
            .args(arguments)
            .output()
            .unwrap();
        assert!(!out.status.success() && out.stdout.is_empty(), "{out:?}");
        String::from_utf8(out.stderr).unwrap()
    };
    let (cert, key) = (text(&authority.path("server.pem")), text(&authority.path("server.key")));
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let devices = text(&devices);
    let open = ["--listen", "0.0.0.0:0"];
    assert!(serve(&open).contains("this needs --tls-cert FILE and --tls-key FILE"));
    assert!(serve(&[&open[..], &["--devices", &devices]].concat()).contains("this needs --tls-cert FILE"));
    assert!(serve(&[&open[..], &tls].concat()).contains("this needs --devices FILE or --client-ca FILE"));
    assert!(!state.exists(), "a hub that may not start made a store");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let local = [&["--listen", "127.0.0.1:0"], &tls[..]].concat();
    assert!(serve(&local).contains("server.key is open to everybody (mode 0644) and is not used: chmod o= "));
}
