use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet};
use rusqlite::Connection;

use super::*;
use crate::ingest;
use crate::store::read::Filter;
use crate::store::{FILE_NAME, Store};

mod access;

const TOPIC: &str = "edgewarden/press-17/security";

fn message(id: u8) -> String {
    format!(
        r#"{{"AgentVersion":"0.1.0","AgentId":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a001","MessageSchemaVersion":"1.0","Events":[{{"Id":"0b7c5a52-57a0-4c89-9a53-0f3cf1b0a0{id:02x}","TimestampLocal":"2026-11-24T06:12:01.123+01:00","TimestampUTC":"2026-11-24T05:12:01.123Z","Category":"Triggered","Name":"ProcessCreate","EventType":"Security","IsEmpty":false,"PayloadSchemaVersion":"1.0","Payload":[{{"Executable":"/bin/true","ProcessId":1,"ParentProcessId":0,"UserId":"0","CommandLine":"true"}}]}}]}}"#
    )
}

struct Hub {
    address: SocketAddr,
    handle: Handle,
    serving: tokio::task::JoinHandle<()>,
    closed: ingest::Closed,
    dir: tempfile::TempDir,
}

fn local() -> Listen {
    Listen { address: "127.0.0.1:0".parse().unwrap(), tls: None, devices: None, max_connections: 10 }
}

impl Hub {
    async fn start() -> Hub {
        Hub::start_with(tempfile::tempdir().unwrap(), &local()).await
    }

    async fn start_with(dir: tempfile::TempDir, listen: &Listen) -> Hub {
        let store = Store::open(dir.path()).unwrap();
        let topic = Topic::new("edgewarden/{deviceId}/security").unwrap();
        let (ingest, closed) = ingest::start(store, "Plant", topic.clone()).unwrap();
        let broker = Broker::bind(listen, topic, ingest).await.unwrap();
        let (address, handle) = (broker.address(), broker.handle());
        Hub { address, handle, serving: tokio::spawn(broker.run()), closed, dir }
    }

    fn reader(&self) -> Store {
        Store::open_to_read(self.dir.path()).unwrap()
    }

    fn client(&self) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new("press-17", "127.0.0.1", self.address.port());
        options.set_keep_alive(Duration::from_secs(60)).set_max_packet_size(1 << 20, 1 << 20);
        AsyncClient::new(options, 100)
    }

    async fn stop(self) -> tempfile::TempDir {
        self.handle.stop();
        drop(self.handle);
        self.serving.await.unwrap();
        // The writer ends and closes the store by itself once nobody can deliver.
        assert!(self.closed.await.is_err());
        self.dir
    }
}

/// Polls until so many publishes are answered; `false` when the connection broke first.
async fn acknowledged(events: &mut EventLoop, count: usize) -> bool {
    let mut acks = 0;
    while acks < count {
        match events.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubRec(_))) => acks += 1,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    true
}

async fn publish(client: &AsyncClient, topic: &str, payload: impl Into<Vec<u8>>) {
    client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).await.unwrap();
}

#[tokio::test]
async fn an_acknowledged_message_is_in_the_store() {
    let hub = Hub::start().await;
    let (client, mut events) = hub.client();
    let reader = hub.reader();
    for n in 1..=5 {
        publish(&client, TOPIC, message(n)).await;
        assert!(acknowledged(&mut events, 1).await);
        assert_eq!(reader.rows(Filter::default()).unwrap().len(), usize::from(n));
    }
    publish(&client, TOPIC, message(1)).await;
    assert!(acknowledged(&mut events, 1).await);
    let rows = reader.rows(Filter { device: Some("press-17"), name: Some("ProcessCreate") }).unwrap();
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[0].associated_resource_id, "/edgewarden/hubs/plant");
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_stored_is_not_acknowledged_and_can_be_sent_again() {
    let hub = Hub::start().await;
    let saboteur = Connection::open(hub.dir.path().join(FILE_NAME)).unwrap();
    saboteur.execute_batch("ALTER TABLE SecurityIoTRawEvent RENAME TO Gone").unwrap();
    let (client, mut events) = hub.client();
    publish(&client, TOPIC, message(1)).await;
    assert!(!acknowledged(&mut events, 1).await, "acknowledged what is nowhere");
    saboteur.execute_batch("ALTER TABLE Gone RENAME TO SecurityIoTRawEvent").unwrap();
    assert!(hub.reader().rows(Filter::default()).unwrap().is_empty());
    // A new connection and the same message, as a device does that got no answer.
    let (client, mut events) = hub.client();
    publish(&client, TOPIC, message(1)).await;
    assert!(acknowledged(&mut events, 1).await);
    assert_eq!(hub.reader().rows(Filter::default()).unwrap().len(), 1);
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn refused_messages_are_acknowledged_and_kept_with_their_reason() {
    let hub = Hub::start().await;
    let (client, mut events) = hub.client();
    publish(&client, TOPIC, "{}").await;
    publish(&client, TOPIC, "[".repeat(100_000)).await;
    publish(&client, TOPIC, vec![0xff; 8]).await;
    publish(&client, "edgewarden/press-17/other", message(1)).await;
    client.publish(TOPIC, rumqttc::QoS::ExactlyOnce, false, Vec::new()).await.unwrap();
    assert!(acknowledged(&mut events, 5).await);
    let reasons: Vec<_> = hub.reader().refused().unwrap().into_iter().map(|refused| refused.reason).collect();
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    assert_eq!(reasons[0], "AgentVersion: missing");
    assert!(reasons[1].contains("recursion limit"), "{reasons:?}");
    assert_eq!(reasons[2], "message: not UTF-8 from byte 0 on");
    assert_eq!(reasons[3], "topic: expected edgewarden/{deviceId}/security");
    assert!(reasons[4].starts_with("message: not JSON"), "{reasons:?}");
    assert!(hub.reader().rows(Filter::default()).unwrap().is_empty());
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn an_oversize_packet_costs_its_sender_the_connection_and_nobody_else() {
    let hub = Hub::start().await;
    let (client, mut events) = hub.client();
    publish(&client, TOPIC, vec![b'x'; MAX_PACKET_BYTES + 1]).await;
    assert!(!acknowledged(&mut events, 1).await);
    let (client, mut events) = hub.client();
    publish(&client, TOPIC, message(1)).await;
    assert!(acknowledged(&mut events, 1).await);
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn a_retained_message_is_stored_like_any_other() {
    let hub = Hub::start().await;
    let (client, mut events) = hub.client();
    client.publish(TOPIC, rumqttc::QoS::AtLeastOnce, true, message(1) + &" ".repeat(2000)).await.unwrap();
    assert!(acknowledged(&mut events, 1).await);
    assert_eq!(hub.reader().rows(Filter::default()).unwrap().len(), 1);
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn nobody_can_listen_in() {
    let hub = Hub::start().await;
    let (client, mut events) = hub.client();
    client.subscribe("#", rumqttc::QoS::AtLeastOnce).await.unwrap();
    let wanted = 20;
    for n in 0..wanted {
        publish(&client, TOPIC, message(n)).await;
    }
    let mut acks = 0;
    while acks < wanted {
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::Publish(seen)) => panic!("passed on: {seen:?}"),
            Event::Incoming(Packet::PubAck(_)) => acks += 1,
            _ => {}
        }
    }
    drop((client, events));
    hub.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_with_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let topic = Topic::new("{deviceId}").unwrap();
    let (ingest, _closed) = ingest::start(Store::open(dir.path()).unwrap(), "h", topic.clone()).unwrap();
    let listen = Listen { address: taken.local_addr().unwrap(), ..local() };
    let error = Broker::bind(&listen, topic, ingest).await.err().unwrap();
    assert!(error.contains(&listen.address.to_string()), "{error}");
}
