//! One connection to a broker: the only file that knows rumqttc and rustls.
//!
//! rumqttc is never the queue. Every connection gets a client and an event loop of its own and a clean session; the
//! loop is polled in a task of its own, because `poll` does not survive being cancelled; on any error both are thrown
//! away and the spool is read again. `publish` only puts a message into the client's channel: its packet id is told by
//! `Outgoing::Publish`, in the order of the publishes, and a message counts as delivered with the PUBACK of that id
//! (MQTT 3.1.1, section 4.3.2).

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet,
    QoS, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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
    /// Host name or address of the broker; the name its certificate must have.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `mqtts`.
    pub is_tls: bool,
    /// The MQTT client id.
    pub client_id: String,
    /// Where messages are published.
    pub topic: String,
    /// Authorities the broker's certificate may be signed by.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// User name.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
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
}

/// A connection, or the attempt at one.
#[derive(Debug)]
pub struct Link {
    client: AsyncClient,
    signals: mpsc::Receiver<Signal>,
    poll: JoinHandle<()>,
    topic: String,
    address: String,
    /// Whether [`Signal::Up`] was seen.
    pub is_up: bool,
}

impl Endpoint {
    /// The address as an operator writes it.
    pub fn address(&self) -> String {
        format!("{}://{}:{}", if self.is_tls { "mqtts" } else { "mqtt" }, self.host, self.port)
    }

    /// Reads the files. An error says which file and what is wrong with it.
    fn options(&self, window: u16) -> Result<MqttOptions, String> {
        let mut options = MqttOptions::new(&self.client_id, &self.host, self.port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_inflight(window * 2);
        let packet_bytes = MAX_MESSAGE_BYTES + PACKET_OVERHEAD_BYTES;
        options.set_max_packet_size(packet_bytes, packet_bytes);
        if let Some(username) = &self.username {
            let password = match &self.password_file {
                Some(path) => read_text(path, "the password")?.trim_end_matches(['\r', '\n']).to_owned(),
                None => String::new(),
            };
            options.set_credentials(username, password);
        }
        if self.is_tls {
            let config = Arc::new(self.tls()?);
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        Ok(options)
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let path = self.ca_file.as_ref().ok_or("mqtts:// needs connection.caFile: the authorities to trust")?;
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(path, "the CA file")? {
            let added = roots.add(certificate);
            added.map_err(|error| format!("a certificate in {} is not an authority: {error}", path.display()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots);
        let Some((cert_file, key_file)) = &self.identity_files else { return Ok(builder.with_no_client_auth()) };
        let chain = read_certificates(cert_file, "the certificate")?;
        let key = PrivateKeyDer::from_pem_file(key_file)
            .map_err(|error| format!("cannot read the private key {}: {error}", key_file.display()))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| {
            format!("{} and {} do not make an identity: {error}", cert_file.display(), key_file.display())
        })
    }
}

fn read_text(path: &Path, what: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {what} {}: {error}", path.display()))
}

fn read_certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let fault = |error| format!("cannot read {what} {}: {error}", path.display());
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(fault)?.collect::<Result<Vec<_>, _>>().map_err(fault)?;
    if certificates.is_empty() {
        Err(format!("{what} {} holds no certificate", path.display()))
    } else {
        Ok(certificates)
    }
}

impl Link {
    /// Begins to connect. The error is a file that cannot be used; a broker that cannot be reached is a
    /// [`Signal::Down`].
    pub async fn open(endpoint: &Endpoint, window: u16) -> Result<Link, String> {
        let endpoint_ = endpoint.clone();
        // Reading certificates is file I/O and parsing a key is work; neither belongs on the runtime's thread.
        let options = tokio::task::spawn_blocking(move || endpoint_.options(window));
        let options = tokio::time::timeout(READ_FILES, options).await;
        let options = options.map_err(|_| {
            "the certificates, the key or the password file cannot be read: the disk or a \
                                           pipe does not answer"
        })?;
        let options = options.map_err(|error| error.to_string())??;
        let (client, mut events) = AsyncClient::new(options, usize::from(window) * 2);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_SECONDS);
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        // The window bounds what can be under way; two signals a message and a few more always fit.
        let (sender, signals) = mpsc::channel(usize::from(window) * 2 + 8);
        let poll = tokio::spawn(poll(events, sender));
        Ok(Link { client, signals, poll, topic: endpoint.topic.clone(), address: endpoint.address(), is_up: false })
    }

    /// The address as an operator writes it.
    pub fn address(&self) -> &str {
        &self.address
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

    /// Says goodbye, so that the broker does not take us for dead.
    pub async fn close(mut self) {
        if self.client.try_disconnect().is_ok() {
            let goodbye = async { while !matches!(self.signal().await, Signal::Down(_)) {} };
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
async fn poll(mut events: EventLoop, signals: mpsc::Sender<Signal>) {
    loop {
        let signal = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => Signal::Up,
            Ok(Event::Incoming(Packet::PubAck(ack))) => Signal::Acknowledged(ack.pkid),
            Ok(Event::Outgoing(Outgoing::Publish(pkid))) => Signal::Handed(pkid),
            Ok(Event::Outgoing(Outgoing::AwaitAck(pkid))) => Signal::Down(format!("packet id {pkid} is still in use")),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => Signal::Down("we said goodbye".to_owned()),
            Ok(_) => continue,
            Err(error) => Signal::Down(in_words(&error)),
        };
        let is_down = matches!(signal, Signal::Down(_));
        if signals.send(signal).await.is_err() || is_down {
            return;
        }
    }
}

/// An error with its causes, and with what to do where that is known.
fn in_words(error: &ConnectionError) -> String {
    if let ConnectionError::ConnectionRefused(code) = error {
        return match code {
            ConnectReturnCode::RefusedProtocolVersion => "the hub does not speak MQTT 3.1.1".to_owned(),
            ConnectReturnCode::BadUserNamePassword => "the hub refused the user name or password".to_owned(),
            ConnectReturnCode::NotAuthorized => "the hub does not authorise this device".to_owned(),
            ConnectReturnCode::BadClientId => "the hub refused the client id".to_owned(),
            ConnectReturnCode::ServiceUnavailable => "the hub says it is unavailable".to_owned(),
            code => format!("the hub refused the connection: {code:?}"),
        };
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            // Writing to a String cannot fail.
            let _always_ok = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}
