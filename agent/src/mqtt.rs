//! One connection to a broker: with `words`, the only place that knows rumqttc.
//!
//! rumqttc is never the queue. Every connection gets a client and an event loop of its own and a clean session; the
//! loop is polled in a task of its own, because `poll` does not survive being cancelled; on any error both are thrown
//! away and the spool is read again. `publish` only puts a message into the client's channel: its packet id is told by
//! `Outgoing::Publish`, in the order of the publishes, and a message counts as delivered with the PUBACK of that id
//! (MQTT 3.1.1, section 4.3.2).

mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use collector_common::clock::Clock;
use collector_common::root::Root;
use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Outgoing, Packet, QoS, SubscribeFilter,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::connection::Connection;
use crate::profile::twin::TwinTopics;
use crate::profile::{self, Plan, Secret};
use crate::tls;
use crate::twin::mailbox::Mailbox;
use words::{in_words, is_refusal, is_unreadable};

/// A connection that says nothing for this long is asked whether it lives; after twice as long it is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How long a connection may take to be made, TLS included: a slow mobile link needs some seconds.
const CONNECT_SECONDS: u64 = 20;

/// How long the files of a connection may take to be read: one may be a pipe, or on a server that is gone.
const READ_FILES: Duration = Duration::from_secs(30);

/// What a message costs beyond its text: fixed header, topic, packet id.
const PACKET_OVERHEAD_BYTES: usize = 1024;

/// The largest message any hub takes.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// How long a clean goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// Where to connect, and as whom. Files are read anew for every connection, so that a renewed certificate is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// How to reach the hub.
    pub connection: Connection,
    /// The device's id at the hub.
    pub device_id: String,
    /// The module's name at the hub.
    pub module_id: String,
}

/// What a connection tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Signal {
    /// The broker took us in.
    Up,
    /// The next message in order was written under this packet id.
    Handed(u16),
    /// The broker has the message with this packet id.
    Acknowledged(u16),
    /// The connection is gone, and why.
    Down(String),
    /// It is gone because of a message that cannot be read. Only a message on the twin's topics can be one.
    Unreadable(String),
}

/// A connection, or the attempt at one.
#[derive(Debug)]
pub struct Link {
    client: AsyncClient,
    signals: mpsc::Receiver<Signal>,
    poll: JoinHandle<()>,
    topic: String,
    twin: Option<TwinTopics>,
    /// The number of the last question about the twin.
    request: u32,
    address: String,
    /// Who we are to the broker.
    pub client_id: String,
    /// The largest payload that gets through: bytes.
    pub max_message_bytes: usize,
    /// When to connect anew, before the hub ends the connection because what let us in has expired.
    pub renew_at: Option<Instant>,
    /// When to connect anew, because this connection has to do without the twin until then.
    twin_at: Option<Instant>,
    /// Whether [`Signal::Up`] was seen.
    pub is_up: bool,
}

impl Endpoint {
    /// The address as an operator writes it.
    pub fn address(&self) -> String {
        self.connection.url()
    }

    /// Reads the secret and decides what this hub gets to see.
    ///
    /// # Errors
    /// Which file, and what is wrong with it; or why this hub cannot be reached with it now.
    pub fn plan(&self, root: &Root) -> Result<Plan, String> {
        let connection = &self.connection;
        let secret = if let Some(file) = &connection.connection_string_file {
            Secret::ConnectionString(file.read_secret_text("the connection string", root)?)
        } else if let Some(file) = &connection.sas_key_file {
            Secret::SharedAccessKey(file.read_secret_text("the shared access key", root)?)
        } else if let Some(file) = &connection.password_file {
            Secret::Password(file.read_secret_text("the password", root)?)
        } else {
            Secret::None
        };
        profile::plan(connection, &self.device_id, &self.module_id, secret, Clock::new(root).now().wall_us)
    }
}

fn options(plan: &Plan, tls: Option<ClientConfig>, window: u16) -> MqttOptions {
    let mut options = MqttOptions::new(&plan.client_id, &plan.server.host, plan.server.port);
    options.set_keep_alive(KEEP_ALIVE);
    options.set_clean_session(true);
    options.set_inflight(window * 2);
    let packet_bytes = MAX_MESSAGE_BYTES + PACKET_OVERHEAD_BYTES;
    options.set_max_packet_size(packet_bytes, packet_bytes);
    if let Some(username) = &plan.username {
        options.set_credentials(username, plan.password.as_deref().unwrap_or_default());
    }
    if let Some(config) = tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))));
    }
    options
}

impl Link {
    /// Begins to connect. The error is a file that cannot be used; a broker that cannot be reached is a
    /// [`Signal::Down`].
    ///
    /// What is told about the twin goes into the mailbox, which never makes the connection wait.
    pub async fn open(
        endpoint: &Endpoint,
        window: u16,
        will: Option<String>,
        mailbox: &Mailbox,
    ) -> Result<Link, String> {
        let endpoint = endpoint.clone();
        // Reading certificates is file I/O and parsing a key is work; neither belongs on the runtime's thread.
        let options = tokio::task::spawn_blocking(move || {
            let root = Root::host();
            let plan = endpoint.plan(&root)?;
            let is_tls = plan.server.tls;
            let tls =
                is_tls.then(|| tls::client_config(&endpoint.connection, plan.alpn.as_deref(), &root)).transpose()?;
            Ok::<_, String>((options(&plan, tls, window), plan))
        });
        let options = tokio::time::timeout(READ_FILES, options).await;
        let options = options.map_err(
            |_| "the certificates, the key or the password file cannot be read: the disk or a pipe does not answer",
        )?;
        let (mut options, mut plan) = options.map_err(|error| error.to_string())??;
        if let Some(will) = will {
            options.set_last_will(LastWill::new(&plan.topic, will, QoS::AtLeastOnce, false));
        }
        let (client, mut events) = AsyncClient::new(options, usize::from(window) * 2);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_SECONDS);
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        // The window bounds what can be under way; two signals a message and a few more always fit.
        let (sender, signals) = mpsc::channel(usize::from(window) * 2 + 8);
        let rests_until = mailbox.rests_until(Instant::now()).filter(|_| plan.twin.is_some());
        if rests_until.is_some() {
            plan.twin = None;
        }
        let told = plan.twin.clone().map(|topics| (topics, mailbox.clone()));
        let poll = tokio::spawn(poll(events, sender, plan.advice, told));
        Ok(Link {
            client,
            signals,
            poll,
            address: plan.server.url(),
            topic: plan.topic,
            twin: plan.twin,
            request: 0,
            client_id: plan.client_id,
            max_message_bytes: plan.max_message_bytes,
            renew_at: plan.renew_after.map(|after| Instant::now() + after),
            twin_at: rests_until,
            is_up: false,
        })
    }

    /// When this connection has to make room for another.
    pub fn reconnect_at(&self) -> Option<Instant> {
        self.renew_at.into_iter().chain(self.twin_at).min()
    }

    /// The address as an operator writes it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where messages are published.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The next thing the connection tells.
    pub async fn signal(&mut self) -> Signal {
        let gone = || Signal::Down("the connection task ended".to_owned());
        self.signals.recv().await.unwrap_or_else(gone)
    }

    /// Puts a message into the client's channel, which has room for the whole window.
    pub fn publish(&mut self, text: String) -> Result<(), String> {
        let result = self.client.try_publish(&self.topic, QoS::AtLeastOnce, false, text);
        result.map_err(|error| format!("the client does not take a message: {error}"))
    }

    /// The topics of the twin, if this connection has them.
    pub fn twin(&self) -> Option<&TwinTopics> {
        self.twin.as_ref()
    }

    /// Subscribes to them: once after every CONNACK, with one packet, while nothing else is under way.
    pub fn subscribe_twin(&mut self) -> Result<(), String> {
        let Some(twin) = &self.twin else { return Ok(()) };
        let filters = twin.filters().into_iter().map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
        let result = self.client.try_subscribe_many(filters);
        result.map_err(|error| format!("the client does not take a subscription: {error}"))
    }

    /// Asks for the twin, where it has to be asked for.
    pub fn ask_twin(&mut self) -> Result<(), String> {
        self.request += 1;
        let Some(topic) = self.twin.as_ref().and_then(|twin| twin.get(self.request)) else { return Ok(()) };
        self.tell(&topic, false, String::new())
    }

    /// Reports. What gets lost with the connection is reported anew on the next.
    pub fn report_twin(&mut self, text: String) -> Result<(), String> {
        self.request += 1;
        let Some(twin) = &self.twin else { return Ok(()) };
        let (topic, retain) = twin.report(self.request);
        self.tell(&topic, retain, text)
    }

    /// Without a packet id and an acknowledgement, so that the window holds events only.
    fn tell(&self, topic: &str, retain: bool, text: String) -> Result<(), String> {
        let result = self.client.try_publish(topic, QoS::AtMostOnce, retain, text);
        result.map_err(|error| format!("the client does not take a message about the twin: {error}"))
    }

    /// Says goodbye, so that the broker does not take us for dead.
    pub async fn close(mut self) {
        if self.client.try_disconnect().is_ok() {
            let goodbye = async { while !matches!(self.signal().await, Signal::Down(_) | Signal::Unreadable(_)) {} };
            // A broker that does not listen any more needs no goodbye.
            let _late = tokio::time::timeout(GOODBYE, goodbye).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.poll.abort();
    }
}

/// Polls until the connection ends, and tells what the window needs to know.
async fn poll(
    mut events: EventLoop,
    signals: mpsc::Sender<Signal>,
    advice: String,
    twin: Option<(TwinTopics, Mailbox)>,
) {
    let mut was_up = false;
    loop {
        let signal = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => Signal::Up,
            Ok(Event::Incoming(Packet::PubAck(ack))) => Signal::Acknowledged(ack.pkid),
            Ok(Event::Incoming(Packet::Publish(message))) => {
                if let Some((topics, mailbox)) = &twin
                    && let Some(told) = topics.told(&message.topic)
                {
                    mailbox.told(told, &message.payload);
                }
                continue;
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                if let Some((_, mailbox)) = &twin
                    && ack.return_codes.contains(&SubscribeReasonCode::Failure)
                {
                    mailbox.trouble("the hub does not let this device subscribe to its twin; may it?".to_owned());
                }
                continue;
            }
            // What goes without a packet id is no event.
            Ok(Event::Outgoing(Outgoing::Publish(0))) => continue,
            Ok(Event::Outgoing(Outgoing::Publish(pkid))) => Signal::Handed(pkid),
            Ok(Event::Outgoing(Outgoing::AwaitAck(pkid))) => Signal::Down(format!("packet id {pkid} is still in use")),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => Signal::Down("we said goodbye".to_owned()),
            Ok(_) => continue,
            Err(error) if !was_up && is_refusal(&error) => Signal::Down(format!("{}; {advice}", in_words(&error))),
            Err(error) if was_up && twin.is_some() && is_unreadable(&error) => Signal::Unreadable(in_words(&error)),
            Err(error) => Signal::Down(doubt_the_clock(in_words(&error))),
        };
        was_up |= signal == Signal::Up;
        let is_down = matches!(signal, Signal::Down(_) | Signal::Unreadable(_));
        if signals.send(signal).await.is_err() || is_down {
            return;
        }
    }
}

/// Certificates are dated, and many boards begin in 1970.
fn doubt_the_clock(why: String) -> String {
    if ["certificate not valid yet", "certificate expired"].iter().any(|words| why.contains(words)) {
        let now_us = Clock::new(&Root::host()).now().wall_us;
        return format!("{why}; is the clock right (it says {})?", profile::date(now_us));
    }
    why
}
