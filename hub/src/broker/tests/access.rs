//! Whom the broker lets in, and what those who are in may do.

use rumqttc::{ConnectReturnCode, ConnectionError, LastWill, SubscribeReasonCode};
use tokio::io::AsyncReadExt;

use super::*;
use crate::devices;

/// A hub that knows press-17 and press-18, and their passwords.
async fn hub() -> (Hub, [String; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("devices");
    let passwords = ["press-17", "press-18"].map(|device| devices::add(&file, device).unwrap());
    let listen = Listen { devices: Some(file), ..local() };
    (Hub::start_with(dir, &listen).await, passwords)
}

fn options(hub: &Hub, client_id: &str, user: &str, password: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", hub.address.port());
    options.set_keep_alive(Duration::from_secs(60)).set_credentials(user, password);
    options
}

/// A connection, with the answer to its CONNECT.
async fn connect(options: MqttOptions) -> (AsyncClient, EventLoop, ConnectReturnCode) {
    let (client, mut events) = AsyncClient::new(options, 100);
    let code = match events.poll().await {
        Ok(Event::Incoming(Packet::ConnAck(answer))) => answer.code,
        Err(ConnectionError::ConnectionRefused(code)) => code,
        other => panic!("{other:?}"),
    };
    (client, events, code)
}

async fn answer(options: MqttOptions) -> ConnectReturnCode {
    connect(options).await.2
}

#[tokio::test]
async fn a_device_logs_in_with_its_own_name_and_password_and_no_other_way() {
    let (hub, [password, other]) = hub().await;
    let (client, mut events, code) = connect(options(&hub, "press-17", "press-17", &password)).await;
    assert_eq!(code, ConnectReturnCode::Success);
    publish(&client, TOPIC, message(1)).await;
    assert!(acknowledged(&mut events, 1).await);
    let wrong = ConnectReturnCode::BadUserNamePassword;
    assert_eq!(answer(options(&hub, "press-17", "press-17", "guess")).await, wrong);
    assert_eq!(answer(options(&hub, "press-17", "press-17", &other)).await, wrong);
    assert_eq!(answer(options(&hub, "press-17", "press-17", "")).await, wrong);
    assert_eq!(answer(options(&hub, "press-19", "press-19", &password)).await, wrong);
    let mut nobody = MqttOptions::new("press-17", "127.0.0.1", hub.address.port());
    assert_eq!(answer(nobody.clone()).await, wrong);
    nobody.set_credentials("press-17\n2026-11-24 forged line", "x");
    assert_eq!(answer(nobody).await, wrong);
    // None of these has touched the connection that was there.
    publish(&client, TOPIC, message(2)).await;
    assert!(acknowledged(&mut events, 1).await);
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn a_device_cannot_write_as_another_and_loses_nothing_of_its_own() {
    let (hub, [password, _]) = hub().await;
    let foreign = ["edgewarden/press-18/security", "edgewarden/press-17/other", "x", "$SYS/x"];
    for (n, topic) in (0..).zip(foreign) {
        for qos in [rumqttc::QoS::AtMostOnce, rumqttc::QoS::AtLeastOnce, rumqttc::QoS::ExactlyOnce] {
            let (client, mut events, _) = connect(options(&hub, "press-17", "press-17", &password)).await;
            client.publish(topic, qos, false, message(n)).await.unwrap();
            // A message that gets no answer when it is taken is followed by one that would.
            publish(&client, TOPIC, message(9)).await;
            assert!(!acknowledged(&mut events, 1).await, "{topic} {qos:?} was acknowledged");
        }
    }
    let (client, mut events, _) = connect(options(&hub, "press-17", "press-17", &password)).await;
    publish(&client, TOPIC, message(9)).await;
    assert!(acknowledged(&mut events, 1).await);
    let rows = hub.reader().rows(Filter::default()).unwrap();
    assert_eq!(rows.iter().map(|row| row.device_id.as_str()).collect::<Vec<_>>(), ["press-17"]);
    assert!(hub.reader().refused().unwrap().is_empty());
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn a_device_cannot_take_anothers_client_id_or_leave_a_will_for_it() {
    let (hub, [password, other]) = hub().await;
    let (victim, mut events, _) = connect(options(&hub, "press-18", "press-18", &other)).await;
    let as_other = options(&hub, "press-18", "press-17", &password);
    assert_eq!(answer(as_other).await, ConnectReturnCode::BadClientId);
    let mut bequest = options(&hub, "press-17", "press-17", &password);
    bequest.set_last_will(LastWill::new("edgewarden/press-18/security", message(1), rumqttc::QoS::AtLeastOnce, false));
    assert_eq!(answer(bequest).await, ConnectReturnCode::NotAuthorized);
    publish(&victim, "edgewarden/press-18/security", message(2)).await;
    assert!(acknowledged(&mut events, 1).await);
    assert_eq!(hub.reader().rows(Filter::default()).unwrap().len(), 1);
    drop((victim, events));
    hub.stop().await;
}

#[tokio::test]
async fn a_device_listens_to_its_own_topics_only() {
    let (hub, [password, _]) = hub().await;
    let (client, mut events, _) = connect(options(&hub, "press-17", "press-17", &password)).await;
    for (filter, is_own) in [
        ("#", false),
        ("edgewarden/+/twin/desired", false),
        ("edgewarden/press-18/twin/desired", false),
        ("$SYS/#", false),
        ("$share/x/edgewarden/press-17/twin", false),
        ("edgewarden/press-17/twin/desired", true),
    ] {
        client.subscribe(filter, rumqttc::QoS::AtLeastOnce).await.unwrap();
        let codes = loop {
            if let Event::Incoming(Packet::SubAck(answer)) = events.poll().await.unwrap() {
                break answer.return_codes;
            }
        };
        assert_eq!(codes != [SubscribeReasonCode::Failure], is_own, "{filter}");
    }
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn a_password_that_is_taken_back_ends_with_the_next_message() {
    let (hub, [password, _]) = hub().await;
    let file = hub.dir.path().join("devices");
    let (client, mut events, _) = connect(options(&hub, "press-17", "press-17", &password)).await;
    publish(&client, TOPIC, message(1)).await;
    assert!(acknowledged(&mut events, 1).await);
    devices::remove(&file, "press-17").unwrap();
    let renewed = devices::add(&file, "press-17").unwrap();
    publish(&client, TOPIC, message(2)).await;
    assert!(!acknowledged(&mut events, 1).await, "the old password still counts");
    assert_eq!(answer(options(&hub, "press-17", "press-17", &password)).await, ConnectReturnCode::BadUserNamePassword);
    // A garbled file takes nothing away and gives nothing.
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{good}press-19:hunter2\n")).unwrap();
    let (client, mut events, code) = connect(options(&hub, "press-17", "press-17", &renewed)).await;
    assert_eq!(code, ConnectReturnCode::Success);
    publish(&client, TOPIC, message(2)).await;
    assert!(acknowledged(&mut events, 1).await);
    assert_eq!(answer(options(&hub, "press-19", "press-19", "hunter2")).await, ConnectReturnCode::BadUserNamePassword);
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn a_full_house_says_so_and_lets_a_device_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start_with(dir, &Listen { max_connections: 1, ..local() }).await;
    let first = connect(options(&hub, "press-17", "u", "p")).await;
    assert_eq!(answer(options(&hub, "press-18", "u", "p")).await, ConnectReturnCode::ServiceUnavailable);
    assert_eq!(answer(options(&hub, "press-17", "u", "p")).await, ConnectReturnCode::Success);
    drop(first);
    hub.stop().await;
}

#[tokio::test]
async fn strangers_who_say_nothing_or_nonsense_keep_nobody_out() {
    let (hub, [password, _]) = hub().await;
    let mut silent = Vec::new();
    for n in 0..600_u16 {
        let mut stranger = TcpStream::connect(hub.address).await.unwrap();
        let noise: Vec<u8> =
            (0..n % 40).map(|at| (u32::from(n).wrapping_mul(2_654_435_761) >> (at % 24)).to_le_bytes()[0]).collect();
        tokio::io::AsyncWriteExt::write_all(&mut stranger, &noise).await.unwrap();
        silent.push(stranger);
    }
    let (client, mut events, code) = connect(options(&hub, "press-17", "press-17", &password)).await;
    assert_eq!(code, ConnectReturnCode::Success);
    // The oldest had to go, and more do while the device works.
    assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
    for n in 0..10 {
        silent.push(TcpStream::connect(hub.address).await.unwrap());
        publish(&client, TOPIC, message(n)).await;
        assert!(acknowledged(&mut events, 1).await);
    }
    assert_eq!(hub.reader().rows(Filter::default()).unwrap().len(), 10);
    drop((client, events, silent));
    hub.stop().await;
}

/// What a device says in one connection, in this version of the protocol.
fn conversation(version: u8) -> Vec<Vec<u8>> {
    let text = |text: &str| [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // MQTT 5 has properties in most packets; these have none.
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    let packet = |kind: u8, parts: &[&[u8]]| {
        let body = parts.concat();
        let length = if body.len() < 128 {
            vec![u8::try_from(body.len()).unwrap()]
        } else {
            vec![u8::try_from(body.len() % 128 + 128).unwrap(), u8::try_from(body.len() / 128).unwrap()]
        };
        [&[kind], &length[..], &body].concat()
    };
    let connect: &[&[u8]] = &[&text("MQTT"), &[version, 0x06, 0, 60], properties, &text("press-19"), properties];
    vec![
        packet(0x10, &[connect, &[&text(TOPIC), &text("will")]].concat()),
        packet(0x32, &[&text(TOPIC), &[0, 1], properties, message(77).as_bytes()]),
        packet(0x34, &[&text(TOPIC), &[0, 2], properties, b"{}"]),
        packet(0x62, &[&[0, 2]]),
        packet(0x82, &[&[0, 3], properties, &text("a/#"), &[1]]),
        packet(0xa2, &[&[0, 4], properties, &text("a/#")]),
        packet(0xc0, &[]),
        packet(0xe0, &[]),
    ]
}

#[tokio::test]
async fn mangled_packets_stop_nobody_else() {
    let hub = Hub::start().await;
    let (client, mut events) = hub.client();
    let mut random = fastrand::Rng::with_seed(20_261_124);
    let mut rows = 0;
    for n in 0..600 {
        let mut packets = conversation([4, 5][n % 2]);
        let first_mangled = random.usize(0..packets.len());
        let mut bytes: Vec<u8> = packets.drain(..first_mangled).flatten().collect();
        let mut rest: Vec<u8> = packets.into_iter().flatten().collect();
        for _ in 0..random.usize(0..4) {
            let at = random.usize(0..=rest.len().min(40));
            match random.u8(0..3) {
                0 if at < rest.len() => rest[at] = random.u8(..),
                1 if at < rest.len() => drop(rest.remove(at)),
                _ => rest.insert(at, random.u8(..)),
            }
        }
        bytes.extend(rest);
        let mut stranger = TcpStream::connect(hub.address).await.unwrap();
        // The hub may close before it has read everything.
        let _closed = tokio::io::AsyncWriteExt::write_all(&mut stranger, &bytes).await;
        let _closed = tokio::io::AsyncWriteExt::shutdown(&mut stranger).await;
        let _reset = stranger.read_to_end(&mut Vec::new()).await;
        if n % 100 == 0 {
            publish(&client, "edgewarden/press-18/security", message(rows)).await;
            assert!(acknowledged(&mut events, 1).await);
            rows += 1;
        }
    }
    let stored = hub.reader().rows(Filter { device: Some("press-18"), name: None }).unwrap();
    assert_eq!(stored.len(), usize::from(rows));
    // The conversation is right where it is not mangled, or nothing but the CONNECT was tested.
    assert_eq!(hub.reader().rows(Filter { device: Some("press-17"), name: None }).unwrap().len(), 1);
    drop((client, events));
    hub.stop().await;
}

#[test]
fn an_address_that_others_reach_needs_tls_and_credentials() {
    let files = |client_ca| tls::Files { cert: "c".into(), key: "k".into(), client_ca, client_crl: None };
    let open = |address: &str, tls, devices| Listen { address: address.parse().unwrap(), tls, devices, ..local() };
    for fine in [
        open("127.0.0.1:1883", None, None),
        open("[::1]:1883", None, Some("d".into())),
        open("0.0.0.0:8883", Some(files(None)), Some("d".into())),
        open("192.0.2.1:8883", Some(files(Some("ca".into()))), None),
    ] {
        assert_eq!(fine.check(), Ok(()), "{fine:?}");
    }
    for (bad, words) in [
        (open("0.0.0.0:1883", None, None), ["--tls-cert", "--devices FILE or --client-ca FILE"]),
        (open("[::]:1883", None, Some("d".into())), ["[::]:1883 can be reached", "--tls-cert"]),
        (open("192.0.2.1:8883", Some(files(None)), None), ["192.0.2.1:8883 can be reached", "--client-ca"]),
        (open("[::ffff:127.0.0.1]:1", None, None), ["[::ffff:127.0.0.1]:1 can be reached", "--tls-cert"]),
    ] {
        let error = bad.check().unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
