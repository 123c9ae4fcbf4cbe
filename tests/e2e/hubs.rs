//! Hubs with rules of their own.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::arrivals::{Arrival, assert_each_once, wait_ports};
use crate::iothub::{HUB, IotHub, Proof, Rules};
use crate::mosquitto::{Authority, command};
use crate::wait;

mod clock;
mod files;
mod identity;
mod strict;
mod tls;

const KEY: &str = "c2VjcmV0LWtleS1vZi1wcmVzcy0xNy0wMTIzNDU2Nzg=";
const BAG: &str = "%24.ct=application%2Fjson&%24.ce=utf-8&messageSource=security-agent";

fn device_rules(device: &str, hub: &str, proof: Proof) -> Rules {
    let username = Some(format!("{hub}/{device}/?api-version=2021-04-12"));
    let resource = format!("{hub}/devices/{device}");
    Rules::of(device, username, resource, proof, format!("devices/{device}/messages/events/{BAG}"))
}

fn module_rules(device: &str, hub: &str, proof: Proof) -> Rules {
    Rules {
        client_id: format!("{device}/azureiotsecurity"),
        username: Some(format!("{hub}/{device}/azureiotsecurity/?api-version=2021-04-12")),
        resource: format!("{hub}/devices/{device}/modules/azureiotsecurity"),
        topic: format!("devices/{device}/modules/azureiotsecurity/messages/events/{BAG}"),
        ..device_rules(device, hub, proof)
    }
}

/// An agent on its way to a hub; `secret` is written to the file that `key` names.
fn agent(device: &str, hub: &IotHub, authority: &Authority, key: &str, secret: &str, more: Value) -> Agent {
    let mut agent = Agent::new(device, json!({}));
    let mut connection = json!({
        "profile": "iothub",
        "url": format!("mqtts://localhost:{}", hub.port),
        "caFile": authority.path("ca.pem"),
    });
    if !key.is_empty() {
        let file = agent.path("secret");
        std::fs::write(&file, secret).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        connection[key] = json!(file);
    }
    for (key, value) in more.as_object().unwrap() {
        connection[key] = value.clone();
    }
    agent.twin["connection"] = connection;
    agent
}

fn connection_string(device: &str, module: &str) -> String {
    format!("HostName={HUB};DeviceId={device};{module}SharedAccessKey={KEY}\n")
}

fn deliver(agent: &mut Agent, hub: &IotHub) {
    agent.start();
    agent.wait_collecting();
    agent.fail_logins(30_000..30_020);
    wait::until("twenty logins", || match hub.faults() {
        faults if !faults.is_empty() => panic!("the hub's rules were broken: {faults:?}"),
        _ if crate::arrivals::logins_by_port(&hub.arrivals()).len() == 20 => Ok(()),
        _ => Err(format!("{} connections", hub.accepted())),
    });
    assert_each_once(30_000..30_020, &hub.arrivals());
    assert_eq!(hub.faults(), [""; 0]);
}

fn has_trouble(words: &str) -> impl Fn(&Value) -> bool {
    move |status| status["trouble"].as_str().is_some_and(|trouble| trouble.contains(words))
}

/// The SHA-256 of the authority's server certificate, as openssl prints it.
fn fingerprint(authority: &Authority) -> String {
    let mut openssl = command("openssl");
    openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(authority.path("server.pem"));
    let told = String::from_utf8(openssl.output().unwrap().stdout).unwrap();
    told.trim().split_once('=').unwrap().1.to_owned()
}

#[test]
fn a_device_with_a_connection_string_is_taken_in_by_iot_hub() {
    let authority = Authority::new();
    let hub = IotHub::start(&authority, device_rules("press-50", HUB, Proof::Key(KEY.to_owned())));
    let string = connection_string("press-50", "");
    let mut agent = agent("press-50", &hub, &authority, "connectionStringFile", &string, json!({}));
    // The connection string says who the device is.
    agent.twin["deviceId"] = Value::Null;
    deliver(&mut agent, &hub);
}

#[test]
fn a_module_with_a_key_file_and_one_with_a_connection_string_are_taken_in_by_iot_hub() {
    let authority = Authority::new();
    let by_key = IotHub::start(&authority, module_rules("press-51", "localhost", Proof::Key(KEY.to_owned())));
    let mut first = agent("press-51", &by_key, &authority, "sasKeyFile", KEY, json!({}));
    deliver(&mut first, &by_key);
    let by_string = IotHub::start(&authority, module_rules("press-52", HUB, Proof::Key(KEY.to_owned())));
    let string = connection_string("press-52", "ModuleId=azureiotsecurity;");
    let mut second = agent("press-52", &by_string, &authority, "connectionStringFile", &string, json!({}));
    deliver(&mut second, &by_string);
}

#[test]
fn a_device_with_a_certificate_is_taken_in_by_iot_hub() {
    let authority = Authority::new();
    authority.client("press");
    let hub = IotHub::start(&authority, device_rules("press-53", "localhost", Proof::Certificate));
    let files = json!({ "certFile": authority.path("press.pem"), "keyFile": authority.path("press.key"),
                        "identity": "device" });
    let mut agent = agent("press-53", &hub, &authority, "", "", files);
    deliver(&mut agent, &hub);
    // The certificates of these stories live for two days.
    agent.wait_status("their end", |status| {
        status["expiring"][0].as_str().is_some_and(|first| first.contains("CN=press expires in "))
    });
    let tells =
        |arrival: &Arrival| arrival.name == "Diagnostic" && arrival.text("Message").contains("CN=press expires");
    wait::until_true("the Diagnostic", || hub.arrivals().iter().any(tells));
}

#[test]
fn a_token_is_renewed_before_it_expires_and_nothing_is_lost() {
    let authority = Authority::new();
    let hub = IotHub::start(&authority, module_rules("press-54", "localhost", Proof::Key(KEY.to_owned())));
    let mut agent = agent("press-54", &hub, &authority, "sasKeyFile", KEY, json!({ "sasLifetime": "PT15S" }));
    deliver(&mut agent, &hub);
    wait::until_true("two more connections", || hub.accepted() >= 3);
    agent.fail_logins(30_020..30_040);
    wait_ports("every line", 30_000..30_040, || hub.arrivals());
    assert_each_once(30_000..30_040, &hub.arrivals());
    assert_eq!((hub.faults(), hub.expired()), (Vec::new(), 0));
}

#[test]
fn a_wrong_key_is_named_and_a_key_for_everybody_is_not_used() {
    let authority = Authority::new();
    let hub = IotHub::start(&authority, module_rules("press-55", "localhost", Proof::Key(KEY.to_owned())));
    let mut agent = agent("press-55", &hub, &authority, "sasKeyFile", "d3Jvbmc=", json!({}));
    agent.start();
    agent.wait_status("the key", has_trouble("is the shared access key that of press-55/azureiotsecurity"));
    assert!(hub.faults()[0].starts_with("a wrong signature"), "{:?}", hub.faults());
    let secret = agent.path("secret");
    std::fs::write(&secret, KEY).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    agent.wait_status("the mode", has_trouble("is open to everybody (mode 0644) and is not used"));
    assert_eq!(hub.accepted(), 0);
    // Files are read anew for each connection: a mended one needs no restart.
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    agent.wait_status("the connection", |status| status["connected"] == true);
}

#[test]
fn aws_is_told_the_protocol_and_gets_no_larger_message_than_it_takes() {
    let authority = Authority::new();
    authority.client("press");
    let rules = Rules {
        client_id: "press-56".to_owned(),
        username: None,
        topic: "edgewarden/press-56/security".to_owned(),
        max_bytes: 128 * 1024 + 64,
        alpn: Some("x-amzn-mqtt-ca".to_owned()),
        ..device_rules("press-56", "", Proof::Certificate)
    };
    let hub = IotHub::start(&authority, rules);
    let more = json!({ "profile": "aws", "alpn": "x-amzn-mqtt-ca", "certFile": authority.path("press.pem"),
                       "keyFile": authority.path("press.key") });
    let mut agent = agent("press-56", &hub, &authority, "", "", more);
    agent.set("maxMessageSizeInBytes", json!(262_144));
    agent.set("highPriorityMessageFrequency", json!("PT1H"));
    agent.start();
    agent.wait_collecting();
    agent.wait_status("the connection", |status| status["connected"] == true);
    agent.fail_logins(30_000..31_000);
    agent.wait_status("a thousand logins", |status| status["events"]["byKind"]["Login"] == 1000);
    agent.signal(Signal::SIGUSR1);
    wait_ports("every line", 30_000..31_000, || hub.arrivals());
    assert_eq!(hub.faults(), [""; 0]);
    // Messages were as large as they may be, or the story tested nothing.
    assert!(hub.largest() > 100 * 1024, "{}", hub.largest());
}

#[test]
fn a_pinned_certificate_is_trusted_and_another_is_not() {
    let authority = Authority::new();
    let hub = IotHub::start(&authority, module_rules("press-57", "localhost", Proof::Key(KEY.to_owned())));
    let mut agent = agent("press-57", &hub, &authority, "sasKeyFile", KEY, json!({ "caFile": null }));
    agent.twin["connection"]["pinnedCertificate"] = json!("00".repeat(32));
    agent.start();
    agent.wait_status("the refusal", has_trouble("certificate"));
    assert_eq!(hub.accepted(), 0);
    agent.kill_9();
    agent.twin["connection"]["pinnedCertificate"] = json!(fingerprint(&authority));
    deliver(&mut agent, &hub);
}
