//! The MQTT broker, and the promise behind its PUBACK.
//!
//! The `mqtt5` crate speaks MQTT on a connection; the way in is our own. Its `ClientHandler` awaits
//! `BrokerEventHandler::on_client_publish` in the connection's own task before it answers a PUBLISH
//! (`client_handler/publish.rs`: `fire_publish_event`, then `complete_qos_handshake`). That is where a message is
//! written to the store, so a PUBACK or PUBREC means that its rows are synced to disk, or that it is kept among the
//! refused ones with the reason. There is no window in which a crash of the hub loses an acknowledged message.
//!
//! When the store cannot write, or a device speaks for another, the answer must not come. `PublishAction` has no word
//! for that, but a message rewritten to QoS 0 gets no answer; the connection is then closed, so that the device tries
//! again later. MQTT 3.1.1 has no negative PUBACK ([MQTT-3.3.5-2]), and closing is its way.
//!
//! The crate's own listener makes the TLS handshake in its accept loop, where one silent stranger holds everybody up,
//! and does not tell whose certificate it was. So we accept: every connection gets a task, a time limit and a
//! `gate::Gate` of its own, which knows who speaks.
//!
//! The broker publishes a client's will past the gate, so the gate keeps the will itself: it takes it from the CONNECT,
//! and stores it like a message when the connection ends without a DISCONNECT (MQTT 3.1.1, 3.1.2.5).
//!
//! Nothing is passed on to subscribers: this is a sink, and one device must not read another's events.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::sys_topics::BrokerStats;
use mqtt5::broker::tls_acceptor::TlsStreamWrapper;
use mqtt5::broker::transport::BrokerTransport;
use mqtt5::broker::{BrokerConfig, ResourceLimits, ResourceMonitor};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::{JoinError, JoinSet};

use crate::devices::Devices;
use crate::ingest::{Ingest, Topic};
use access::Access;
use gate::{Gate, Shown};
use lobby::{Lobby, Seldom, Ticket};
use tls::Tls;

mod access;
mod gate;
mod lobby;
pub mod tls;

/// The largest MQTT packet that is read: 256 KiB, IoT Hub's limit for a message, and room for topic and header. A larger
/// one closes the connection before it is read into memory.
pub const MAX_PACKET_BYTES: usize = 256 * 1024 + 4096;

/// How long a TLS handshake may take: a slow mobile link needs some seconds. The CONNECT after it gets ten seconds more.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long connections may take to end when the broker stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait after a failed accept, which mostly means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Where to listen, and to whom.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// TLS instead of plain TCP.
    pub tls: Option<tls::Files>,
    /// The devices that log in with a password.
    pub devices: Option<PathBuf>,
    /// How many devices may be connected at once.
    pub max_connections: usize,
}

impl Listen {
    /// Whether devices are asked who they are.
    pub fn asks_for_credentials(&self) -> bool {
        self.devices.is_some() || self.takes_certificates()
    }

    fn takes_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// Whether this may be done at all.
    ///
    /// # Errors
    ///
    /// A sentence, when strangers could read or write: what has to be given.
    pub fn check(&self) -> Result<(), String> {
        let mut missing = Vec::new();
        if self.tls.is_none() {
            missing.push("--tls-cert FILE and --tls-key FILE, so that nobody on the way can read and change");
        }
        if !self.asks_for_credentials() {
            missing.push("--devices FILE or --client-ca FILE, so that no device can write as another");
        }
        if self.address.ip().is_loopback() || missing.is_empty() {
            return Ok(());
        }
        Err(format!("{} can be reached from other machines; this needs {}", self.address, missing.join("; and ")))
    }
}

/// A broker that has its socket and does not serve yet.
pub struct Broker {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: broadcast::Receiver<()>,
}

/// What all connections have in common.
struct Shared {
    ingest: Ingest,
    access: Access,
    tls: Option<Tls>,
    lobby: Lobby,
    router: Arc<MessageRouter>,
    config: BrokerConfig,
    stats: Arc<BrokerStats>,
    monitor: Arc<ResourceMonitor>,
    stopping: broadcast::Sender<()>,
    /// What is said of connections that are not let in, and of messages that are not taken.
    refused: Seldom,
    foreign: Seldom,
    broken: Seldom,
}

impl Shared {
    fn tell_broken(&self, peer: SocketAddr, why: &dyn std::fmt::Display) {
        if let Some(more) = self.broken.now() {
            tracing::warn!(%peer, more, "TLS handshake failed: {why}");
        }
    }
}

/// Steers a broker from outside.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Ends [`Broker::run`].
    pub fn stop(&self) {
        // Without a receiver it has ended.
        drop(self.0.stopping.send(()));
    }

    /// Reads the TLS files again, for the connections from now on. Who showed a certificate has to do so again: its
    /// connection ends with its next message.
    ///
    /// # Errors
    ///
    /// A sentence about the file that cannot be used. The ones of before stay in force.
    pub fn reload(&self) -> Result<(), String> {
        self.0.tls.as_ref().map_or(Ok(()), Tls::reload)
    }
}

impl Broker {
    /// Takes the socket.
    ///
    /// # Errors
    ///
    /// A sentence, when the address is taken, must not be used like this, or a file is no good.
    pub async fn bind(listen: &Listen, topic: Topic, ingest: Ingest) -> Result<Broker, String> {
        listen.check()?;
        let wrong = |error: std::io::Error| format!("cannot listen on {}: {error}", listen.address);
        let must_have_certificate = listen.takes_certificates() && listen.devices.is_none();
        let tls = listen.tls.as_ref().map(|files| Tls::load(files, must_have_certificate)).transpose()?;
        let devices = listen.devices.as_deref().map(Devices::open).transpose()?;
        let listener = TcpListener::bind(listen.address).await.map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        let (stopping, stop) = broadcast::channel(1);
        let access = Access { topic, devices: devices.map(Mutex::new), certificates: listen.takes_certificates() };
        let shared = Shared {
            ingest,
            access,
            tls,
            lobby: Lobby::new(listen.max_connections),
            router: Arc::new(MessageRouter::new()),
            config: config(),
            stats: Arc::new(BrokerStats::new()),
            monitor: Arc::new(ResourceMonitor::new(no_limits())),
            stopping,
            refused: Seldom::default(),
            foreign: Seldom::default(),
            broken: Seldom::default(),
        };
        Ok(Broker { listener, address, shared: Arc::new(shared), stop })
    }

    /// The address, with the port that was taken. Devices can connect from now on and are served by [`Broker::run`].
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// To steer it while it runs.
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    /// Serves until the handle stops it.
    pub async fn run(mut self) {
        let mut connections = JoinSet::new();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        loop {
            tokio::select! {
                _ = self.stop.recv() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, peer)) => {
                        let ticket = self.shared.lobby.enter();
                        connections.spawn(serve(self.shared.clone(), ticket, socket, peer));
                    }
                    Err(error) => {
                        if let Some(more) = self.shared.broken.now() {
                            tracing::error!(more, "cannot accept a connection: {error}");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => look_at(ended),
                _ = housekeeping.tick() => {
                    self.shared.router.sweep_sessions().await;
                    self.shared.monitor.cleanup_expired_windows().await;
                }
            }
        }
        drop(self.listener);
        self.shared.lobby.clear();
        let ended = async { while connections.join_next().await.is_some() {} };
        // Those that do not listen are cut off when the set is dropped.
        let _late = tokio::time::timeout(STOP_TIMEOUT, ended).await;
    }
}

/// A connection whose task panicked ends a release build at once. A debug build must not hide that from a test.
fn look_at(ended: Result<(), JoinError>) {
    if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
        std::panic::resume_unwind(panic);
    }
}

/// One connection from the first byte to the last.
async fn serve(shared: Arc<Shared>, ticket: Ticket, socket: TcpStream, peer: SocketAddr) {
    let number = ticket.number;
    tokio::select! {
        () = speak(&shared, number, socket, peer) => {}
        // When the connection gets in, nobody can push it out any more.
        Ok(()) = ticket.pushed_out => {}
    }
    shared.lobby.leave(number);
}

async fn speak(shared: &Arc<Shared>, number: u64, socket: TcpStream, peer: SocketAddr) {
    // Without it answers are slower, and nothing else is wrong.
    drop(socket.set_nodelay(true));
    let (transport, certificate) = match &shared.tls {
        None => (BrokerTransport::tcp(socket), None),
        Some(tls) => {
            // Counted before the handshake, so that files read again in the middle of it count as newer.
            let reloads = tls.reloads();
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
                Ok(Ok(stream)) => {
                    let certificate = tls::common_name(&stream).map(|name| Shown { name, reloads });
                    (BrokerTransport::tls(TlsStreamWrapper::new(stream)), certificate)
                }
                Ok(Err(error)) => return shared.tell_broken(peer, &error),
                Err(_) => return shared.tell_broken(peer, &"it took too long"),
            }
        }
    };
    let gate = Arc::new(Gate::new(shared.clone(), number, certificate));
    let config = BrokerConfig { event_handler: Some(gate.clone()), ..shared.config.clone() };
    let (router, stats, monitor) = (shared.router.clone(), shared.stats.clone(), shared.monitor.clone());
    let stopping = shared.stopping.subscribe();
    let handler = ClientHandler::new(transport, peer, Arc::new(config), router, gate, None, stats, monitor, stopping);
    if let Err(error) = handler.run().await {
        tracing::debug!(%peer, "connection ended: {error}");
    }
}

/// Bounds everything a stranger could make grow. There are no sessions: the devices keep what is not acknowledged. No
/// bound on retained messages may be set here: to one that is too large, mqtt5 answers with a PUBACK.
fn config() -> BrokerConfig {
    BrokerConfig {
        bind_addresses: Vec::new(),
        session_expiry_interval: Duration::ZERO,
        max_packet_size: MAX_PACKET_BYTES,
        topic_alias_maximum: 16,
        retain_available: false,
        shared_subscription_available: false,
        max_subscriptions_per_client: 16,
        client_channel_capacity: 64,
        server_receive_maximum: Some(64),
        sys_topics_enabled: false,
        ..BrokerConfig::default()
    }
}

/// The monitor's limits end in a PUBACK for what was dropped, so it only counts; the lobby limits.
fn no_limits() -> ResourceLimits {
    ResourceLimits { max_message_rate_per_client: 0, max_bandwidth_per_client: 0, ..ResourceLimits::default() }
}

#[cfg(test)]
mod tests;
