//! The strict broker itself, met by a plain client: it takes what is right, and nothing that is one byte off.

use std::sync::Arc;
use std::time::Duration;

use edgewarden::profile::sas;
use rumqttc::{Client, Connection, Event, LastWill, MqttOptions, Packet, QoS, RecvTimeoutError, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;

const MESSAGE: &str = r#"{"Events":[]}"#;
const LATER: i64 = 4_000_000_000;

/// What a device does: CONNECT, then one PUBLISH.
#[derive(Clone)]
struct Device {
    id: String,
    keep_alive_s: u64,
    username: String,
    token: String,
    will: Option<(String, QoS)>,
    topic: String,
    qos: QoS,
    retain: bool,
    message: String,
}

fn token(resource: &str, expiry: i64) -> String {
    sas::token(KEY, resource, expiry).unwrap()
}

impl Device {
    fn right(rules: &Rules) -> Device {
        Device {
            id: rules.client_id.clone(),
            keep_alive_s: 1177,
            username: rules.username.clone().unwrap(),
            token: token(&rules.resource, LATER),
            will: None,
            topic: rules.topic.clone(),
            qos: QoS::AtLeastOnce,
            retain: false,
            message: MESSAGE.to_owned(),
        }
    }

    fn connect(&self, hub: &IotHub, authority: &Authority) -> (Client, Connection) {
        let mut options = MqttOptions::new(&self.id, "localhost", hub.port);
        options.set_keep_alive(Duration::from_secs(self.keep_alive_s));
        options.set_credentials(&self.username, &self.token).set_max_packet_size(1 << 20, 1 << 20);
        if let Some((topic, qos)) = &self.will {
            options.set_last_will(LastWill::new(topic, r#"{"Message":"connectionLost"}"#, *qos, false));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        options.set_transport(Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(Arc::new(config))));
        Client::new(options, 10)
    }

    /// Connects and publishes; whether the message was acknowledged before the connection ended.
    fn publish(&self, hub: &IotHub, authority: &Authority) -> bool {
        let (client, mut connection) = self.connect(hub, authority);
        client.publish(&self.topic, self.qos, self.retain, self.message.clone()).unwrap();
        next(&mut connection, |packet| matches!(packet, Packet::PubAck(_))).is_some()
    }
}

/// The first packet that answers the question; `None` when the connection ends before.
fn next(connection: &mut Connection, ask: impl Fn(&Packet) -> bool) -> Option<Packet> {
    loop {
        match connection.recv_timeout(wait::LIMIT) {
            Ok(Ok(Event::Incoming(packet))) if ask(&packet) => return Some(packet),
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => panic!("neither an answer nor an end"),
        }
    }
}

#[test]
fn one_wrong_byte_is_a_fault() {
    let authority = Authority::new();
    let rules = module_rules("press-80", HUB, Proof::Key(KEY.to_owned()));
    let hub = IotHub::start(&authority, rules.clone());
    let right = Device::right(&rules);
    assert!(right.publish(&hub, &authority), "{:?}", hub.faults());
    let with_will = Device { will: Some((rules.topic.clone(), QoS::AtLeastOnce)), ..right.clone() };
    assert!(with_will.publish(&hub, &authority), "{:?}", hub.faults());
    assert_eq!(hub.faults(), [""; 0]);

    let wrong_key = sas::token("d3Jvbmc=", &rules.resource, LATER).unwrap();
    let of_the_device = token(&format!("{HUB}/devices/press-80"), LATER);
    let username = |text: &str| Device { username: text.to_owned(), ..right.clone() };
    let with_token = |token: String| Device { token, ..right.clone() };
    let topic = |from: &str, to: &str| Device { topic: rules.topic.replace(from, to), ..right.clone() };
    let will = |topic: &str, qos| Device { will: Some((topic.to_owned(), qos)), ..right.clone() };
    let cases = [
        ("client id", Device { id: "press-80/azureiotsecuritY".to_owned(), ..right.clone() }),
        ("client id", Device { id: "press-80".to_owned(), ..right.clone() }),
        ("client id", username(&right.username.replace("/?", "?"))),
        ("client id", username(&right.username.replace("2021-04-12", "2021-04-13"))),
        ("keep-alive", Device { keep_alive_s: 1178, ..right.clone() }),
        ("another resource", with_token(of_the_device)),
        ("a wrong signature", with_token(wrong_key)),
        ("a wrong signature", with_token(right.token.replace("se=4", "se=5"))),
        ("other fields", with_token(format!("{}&skn=device", right.token))),
        ("no prefix", with_token(right.token.replace("Signature ", "Signature  ").replacen('S', "s", 1))),
        ("a time that is over", with_token(token(&rules.resource, 1_700_000_000))),
        ("will to", will("devices/press-80/messages/events/", QoS::AtLeastOnce)),
        ("will to", will(&rules.topic, QoS::ExactlyOnce)),
        ("topic", topic("press-80", "press-81")),
        ("topic", topic("utf-8", "utf-16")),
        ("topic", topic("%2F", "%2f")),
        ("topic", topic("messageSource=security-agent", "messageSource=security-agent/")),
        ("PUBLISH", Device { qos: QoS::AtMostOnce, ..right.clone() }),
        ("PUBLISH", Device { qos: QoS::ExactlyOnce, ..right.clone() }),
        ("PUBLISH", Device { retain: true, ..right.clone() }),
        ("a message of", Device { message: "x".repeat(256 * 1024), ..right.clone() }),
        ("EOF", Device { message: "{".to_owned(), ..right.clone() }),
    ];
    for (number, (words, device)) in cases.into_iter().enumerate() {
        assert!(!device.publish(&hub, &authority), "case {number} was taken: {words}");
        wait::until_true("the fault", || hub.faults().len() == number + 1);
        let faults = hub.faults();
        assert!(faults[number].contains(words), "case {number} should be {words}: {}", faults[number]);
    }
}

#[test]
fn the_newer_connection_of_an_identity_ends_the_older_and_a_token_ends_its_own() {
    let authority = Authority::new();
    let rules = device_rules("press-81", HUB, Proof::Key(KEY.to_owned()));
    let hub = IotHub::start(&authority, rules.clone());
    let device = Device::right(&rules);
    let is_welcome = |packet: &Packet| matches!(packet, Packet::ConnAck(_));
    let (_first, mut first) = device.connect(&hub, &authority);
    assert!(next(&mut first, is_welcome).is_some());
    let soon = jiff::Timestamp::now().as_second() + 8;
    let short = Device { token: token(&rules.resource, soon), ..device };
    let (_second, mut second) = short.connect(&hub, &authority);
    assert!(next(&mut second, is_welcome).is_some());
    assert!(next(&mut first, |_| false).is_none());
    assert!(next(&mut second, |_| false).is_none());
    wait::until_true("both ends", || (hub.displaced(), hub.expired()) == (1, 1));
    assert_eq!(hub.faults(), [""; 0]);
}

#[test]
fn a_twin_is_read_reported_to_and_told_of() {
    let authority = Authority::new();
    let rules = module_rules("press-82", HUB, Proof::Key(KEY.to_owned()));
    let hub = IotHub::start(&authority, rules.clone());
    hub.change_desired(&json!({ "agent": { "a": 1, "b": 2 } }));
    let (client, mut connection) = Device::right(&rules).connect(&hub, &authority);
    client.subscribe("$iothub/twin/res/#", QoS::AtMostOnce).unwrap();
    client.subscribe("$iothub/twin/PATCH/properties/desired/#", QoS::AtLeastOnce).unwrap();
    let mut told = |what: &str| {
        let packet = next(&mut connection, |packet| matches!(packet, Packet::Publish(_)));
        let Some(Packet::Publish(publish)) = packet else { panic!("{what}: {packet:?}, {:?}", hub.faults()) };
        (publish.topic, String::from_utf8(publish.payload.to_vec()).unwrap())
    };
    let ask = |topic: &str, payload: &str| client.publish(topic, QoS::AtMostOnce, false, payload).unwrap();

    ask("$iothub/twin/GET/?$rid=1", "");
    let (topic, twin) = told("the twin");
    assert_eq!(topic, "$iothub/twin/res/200/?$rid=1");
    let expected = r#"{"desired":{"$version":2,"agent":{"a":1,"b":2}},"reported":{"$version":1}}"#;
    assert_eq!(serde_json::from_str::<Value>(&twin).unwrap(), serde_json::from_str::<Value>(expected).unwrap());

    hub.change_desired(&json!({ "agent": { "a": null, "c": 3 } }));
    let change = told("the change");
    assert_eq!(change.0, "$iothub/twin/PATCH/properties/desired/?$version=3");
    assert_eq!(
        serde_json::from_str::<Value>(&change.1).unwrap(),
        json!({ "agent": { "a": null, "c": 3 }, "$version": 3 })
    );

    ask("$iothub/twin/PATCH/properties/reported/?$rid=a-2", r#"{"agent":{"a":1,"b":2}}"#);
    assert_eq!(told("the receipt").0, "$iothub/twin/res/204/?$rid=a-2&$version=2");
    ask("$iothub/twin/PATCH/properties/reported/?$rid=3", r#"{"agent":{"b":null}}"#);
    assert_eq!(told("the second receipt").0, "$iothub/twin/res/204/?$rid=3&$version=3");
    assert_eq!(hub.reported(), (json!({ "agent": { "a": 1 } }), 3));
    ask("$iothub/twin/GET/?$rid=4", "");
    let twin: Value = serde_json::from_str(&told("the twin again").1).unwrap();
    let reported = json!({ "agent": { "a": 1 }, "$version": 3 });
    assert_eq!((&twin["desired"]["agent"], &twin["reported"]), (&json!({ "b": 2, "c": 3 }), &reported));
    assert_eq!(hub.faults(), [""; 0]);
}

#[test]
fn a_wrong_use_of_the_twin_is_a_fault() {
    let authority = Authority::new();
    let rules = module_rules("press-83", HUB, Proof::Key(KEY.to_owned()));
    let hub = IotHub::start(&authority, rules.clone());
    const REPORT: &str = "$iothub/twin/PATCH/properties/reported/?$rid=1";
    let deep = "{\"a\":".repeat(12) + "1" + &"}".repeat(12);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(4097));
    for (number, (words, subscribed, topic, payload)) in [
        ("without a subscription", "", "$iothub/twin/GET/?$rid=1", ""),
        ("a subscription to", "$iothub/twin/res/+", "", ""),
        ("a subscription to", "$iothub/twin/PATCH/properties/desired", "", ""),
        ("with a body", "$iothub/twin/res/#", "$iothub/twin/GET/?$rid=1", "{}"),
        ("request id", "$iothub/twin/res/#", "$iothub/twin/GET/?$rid=", ""),
        ("topic", "$iothub/twin/res/#", "$iothub/twin/GET?$rid=1", ""),
        ("no JSON", "$iothub/twin/res/#", REPORT, "{"),
        ("no object", "$iothub/twin/res/#", REPORT, "[]"),
        ("with the name", "$iothub/twin/res/#", REPORT, r#"{"a.b":1}"#),
        ("with the name", "$iothub/twin/res/#", REPORT, r#"{"$version":1}"#),
        ("too deep", "$iothub/twin/res/#", REPORT, deep.as_str()),
        ("a property of", "$iothub/twin/res/#", REPORT, large.as_str()),
    ]
    .into_iter()
    .enumerate()
    {
        let (client, mut connection) = Device::right(&rules).connect(&hub, &authority);
        if !subscribed.is_empty() {
            client.subscribe(subscribed, QoS::AtMostOnce).unwrap();
        }
        if !topic.is_empty() {
            client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
        }
        let answer = next(&mut connection, |packet| matches!(packet, Packet::PubAck(_) | Packet::Publish(_)));
        assert!(answer.is_none(), "case {number} was taken: {words}");
        wait::until_true("the fault", || hub.faults().len() == number + 1);
        let faults = hub.faults();
        assert!(faults[number].contains(words), "case {number} should be {words}: {}", faults[number]);
    }
}
