//! The MQTT broker, and the promise behind its PUBACK.
//!
//! The `mqtt5` broker awaits `BrokerEventHandler::on_client_publish` in the connection's own task before it answers a
//! PUBLISH (`client_handler/publish.rs`: `fire_publish_event`, then `complete_qos_handshake`). That is where a message is
//! written to the store, so a PUBACK or PUBREC means that its rows are synced to disk, or that it is kept among the
//! refused ones with the reason. There is no window in which a crash of the hub loses an acknowledged message.
//!
//! When the store cannot write, the answer must not come. `PublishAction` has no word for that, but a message rewritten
//! to QoS 0 gets no answer; the connection is then closed, so that the device tries again later. MQTT 3.1.1 has no
//! negative PUBACK ([MQTT-3.3.5-2]), and closing is its way.
//!
//! The broker publishes a client's will past that place, so the gate keeps the wills itself: it takes one when a client
//! connects, and stores it like a message when the connection ends without a DISCONNECT (MQTT 3.1.1, 3.1.2.5).
//!
//! Nothing is passed on to subscribers: this is a sink, and one device must not read another's events.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use mqtt5::QoS;
use mqtt5::broker::config::{StorageConfig, TlsConfig};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::{
    BrokerConfig, BrokerEventHandler, BrokerShutdownHandle, ClientConnectEvent, ClientDisconnectEvent,
    ClientPublishEvent, MqttBroker, PublishAction,
};
use mqtt5::packet::publish::PublishPacket;
use tokio::sync::watch;

use crate::ingest::Ingest;

/// The largest MQTT packet that is read: 256 KiB, IoT Hub's limit for a message, and room for topic and header. A larger
/// one closes the connection before it is read into memory.
pub const MAX_PACKET_BYTES: usize = 256 * 1024 + 4096;

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// PEM files of the certificate chain and its key, for TLS instead of plain TCP.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A broker that has its socket and does not serve yet.
pub struct Broker {
    inner: MqttBroker,
    address: SocketAddr,
}

impl Broker {
    /// Takes the socket.
    ///
    /// # Errors
    ///
    /// A sentence, when the address is taken or the TLS files are no good.
    pub async fn bind(listen: &Listen, ingest: Ingest) -> Result<Broker, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("cannot listen on {}: {error}", listen.address);
        for file in listen.tls.iter().flat_map(|(cert, key)| [cert, key]) {
            std::fs::File::open(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        }
        let gate = Arc::new(Gate { ingest, router: OnceLock::new(), wills: Mutex::default() });
        let inner = MqttBroker::with_config(config(listen, gate.clone())).await.map_err(|error| wrong(&error))?;
        gate.router.get_or_init(|| Arc::downgrade(&inner.router()));
        let address = if listen.tls.is_some() { inner.tls_local_addr() } else { inner.local_addr() };
        let address = address.ok_or_else(|| wrong(&"the broker has no socket"))?;
        Ok(Broker { inner, address })
    }

    /// The address, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Becomes `true` when connections are accepted.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.inner.ready_receiver()
    }

    /// Ends [`Broker::run`].
    pub fn stopper(&self) -> BrokerShutdownHandle {
        self.inner.shutdown_handle()
    }

    /// Serves until the stopper is used.
    ///
    /// # Errors
    ///
    /// A sentence, when the broker gives up.
    pub async fn run(mut self) -> Result<(), String> {
        self.inner.run().await.map_err(|error| format!("the broker stopped: {error}"))
    }
}

/// Bounds everything a stranger could make grow. Sessions live in memory: the devices keep what is not acknowledged.
fn config(listen: &Listen, gate: Arc<Gate>) -> BrokerConfig {
    let mut config = BrokerConfig {
        bind_addresses: vec![listen.address],
        max_clients: 1024,
        session_expiry_interval: Duration::from_secs(3600),
        max_packet_size: MAX_PACKET_BYTES,
        topic_alias_maximum: 16,
        retain_available: false,
        max_subscriptions_per_client: 16,
        max_retained_messages: 1,
        max_retained_message_size: 1024,
        client_channel_capacity: 64,
        server_receive_maximum: Some(64),
        storage_config: StorageConfig::new()
            .with_persistence(false)
            .with_max_queued_messages_per_client(64)
            .with_max_queued_bytes_per_client(MAX_PACKET_BYTES),
        sys_topics_enabled: false,
        event_handler: Some(gate),
        ..BrokerConfig::default()
    };
    if let Some((cert_file, key_file)) = &listen.tls {
        config.bind_addresses.clear();
        config.tls_config = Some(TlsConfig::new(cert_file.clone(), key_file.clone()).with_bind_address(listen.address));
    }
    config
}

/// What a PUBLISH has to pass before it is answered. The router is weak because it holds the gate itself.
struct Gate {
    ingest: Ingest,
    router: OnceLock<Weak<MessageRouter>>,
    wills: Mutex<Wills>,
}

/// The wills of each client's connections, the oldest first: one that is taken over ends after the new one began.
type Wills = HashMap<Arc<str>, VecDeque<Option<Will>>>;

/// The largest will that is kept.
const MAX_WILL_BYTES: usize = 16 * 1024;

/// More connections of one client than this do not overlap.
const WILLS_OF_ONE_CLIENT: usize = 4;

struct Will {
    topic: String,
    payload: Vec<u8>,
}

impl BrokerEventHandler for Gate {
    fn on_client_connect<'a>(&'a self, event: ClientConnectEvent) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let will = event.will_topic.zip(event.will_payload);
        // Kept for as long as the connection stands, so it must be small; an agent's has a few hundred bytes.
        let will = will.filter(|(_, payload)| payload.len() <= MAX_WILL_BYTES);
        let will = will.map(|(topic, payload)| Will { topic: topic.to_string(), payload: payload.to_vec() });
        let mut wills = self.wills.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = wills.entry(event.client_id).or_default();
        of_client.push_back(will);
        if of_client.len() > WILLS_OF_ONE_CLIENT {
            of_client.pop_front();
        }
        Box::pin(std::future::ready(()))
    }

    fn on_client_disconnect<'a>(
        &'a self,
        event: ClientDisconnectEvent,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let will = self.take_will(&event.client_id).filter(|_| event.unexpected);
        Box::pin(async move {
            let Some(Will { topic, payload }) = will else { return };
            if let Err(error) = self.ingest.deliver(topic, payload).await {
                tracing::error!("the will of {} is not stored: {error}", event.client_id);
            }
        })
    }

    fn on_client_publish<'a>(
        &'a self,
        event: ClientPublishEvent,
    ) -> Pin<Box<dyn Future<Output = PublishAction> + Send + 'a>> {
        Box::pin(async move {
            match self.ingest.deliver(event.topic.to_string(), event.payload.to_vec()).await {
                Ok(_) => PublishAction::Handled,
                Err(_) => self.leave_unanswered(&event.client_id).await,
            }
        })
    }
}

impl Gate {
    fn take_will(&self, client_id: &str) -> Option<Will> {
        let mut wills = self.wills.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = wills.get_mut(client_id)?;
        let will = of_client.pop_front();
        if of_client.is_empty() {
            wills.remove(client_id);
        }
        will.flatten()
    }

    async fn leave_unanswered(&self, client_id: &str) -> PublishAction {
        if let Some(router) = self.router.get().and_then(Weak::upgrade) {
            router.disconnect_client(client_id).await;
        }
        PublishAction::Transform(PublishPacket::new("edgewarden-hub/not-stored", Vec::new(), QoS::AtMostOnce))
    }
}

#[cfg(test)]
mod tests;
