//! A broker that is as strict as Azure IoT Hub: TLS only, the exact client id, user name, topic and properties, a token
//! with a right signature that has not expired, and one connection of each identity. What is not as it must be is noted
//! as a fault and closes the connection, so that one wrong byte fails a test.
//!
//! It reads MQTT 3.1.1 itself, so that the client's own codec is not its judge. `wire` says what a client may send,
//! `twin` keeps the twin of the identity.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ALL_VERSIONS, RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use serde_json::Value;

use crate::arrivals::{Arrival, of_message};
use crate::mosquitto::Authority;
use twin::{Session, Twin};
use wire::{check_connect, check_publish, packet};

#[path = "iothub/twin.rs"]
mod twin;
#[path = "iothub/wire.rs"]
mod wire;

/// The hub's name, which is in user names and tokens.
pub const HUB: &str = "test-hub.azure-devices.net";

/// How an identity proves itself.
#[derive(Clone)]
pub enum Proof {
    /// With a token made with this key, base64.
    Key(String),
    /// With a certificate of the hub's authority.
    Certificate,
    /// With this password.
    Password(String),
}

/// What the broker asks for.
#[derive(Clone)]
pub struct Rules {
    /// The exact client id.
    pub client_id: String,
    /// The exact user name; `None` for none.
    pub username: Option<String>,
    /// The resource the token must be for.
    pub resource: String,
    /// The proof.
    pub proof: Proof,
    /// The exact topic.
    pub topic: String,
    /// The largest message, topic included: bytes.
    pub max_bytes: usize,
    /// The application protocol the client must name.
    pub alpn: Option<String>,
    /// The versions of TLS it speaks.
    pub tls: &'static [&'static SupportedProtocolVersion],
    /// How far its clock is ahead of the device's: seconds.
    pub ahead_s: u64,
}

impl Rules {
    /// A device of Azure IoT Hub that publishes to `topic`.
    pub fn of(client_id: &str, username: Option<String>, resource: String, proof: Proof, topic: String) -> Rules {
        let (client_id, max_bytes) = (client_id.to_owned(), 256 * 1024);
        Rules { client_id, username, resource, proof, topic, max_bytes, alpn: None, tls: ALL_VERSIONS, ahead_s: 0 }
    }
}

/// What was seen.
#[derive(Default)]
struct Seen {
    /// Connections taken in.
    accepted: u64,
    /// Connections that were closed because their token had expired.
    expired: u64,
    /// Connections that were closed because a newer one came.
    displaced: u64,
    faults: Vec<String>,
    /// The largest message: bytes.
    largest: usize,
    messages: Vec<Value>,
    twin: Twin,
}

/// A running broker.
pub struct IotHub {
    /// Where it listens.
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl IotHub {
    /// Starts one whose certificate `authority` vouches for.
    pub fn start(authority: &Authority, rules: Rules) -> IotHub {
        IotHub::start_on(0, authority, rules)
    }

    /// Starts one on this port; 0 is any free one.
    pub fn start_on(port: u16, authority: &Authority, rules: Rules) -> IotHub {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (tls, into) = (Arc::new(tls(authority, &rules)), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tls, seen, rules) = (Arc::clone(&tls), Arc::clone(&into), rules.clone());
                std::thread::spawn(move || {
                    if let Err(fault) = serve(stream, tls, &rules, &seen) {
                        seen.lock().unwrap().faults.push(fault);
                    }
                });
            }
        });
        IotHub { port, seen }
    }

    /// Connections taken in so far.
    pub fn accepted(&self) -> u64 {
        self.seen.lock().unwrap().accepted
    }

    /// Connections whose token expired.
    pub fn expired(&self) -> u64 {
        self.seen.lock().unwrap().expired
    }

    /// Connections that a newer one of the same identity ended.
    pub fn displaced(&self) -> u64 {
        self.seen.lock().unwrap().displaced
    }

    /// Changes the desired properties, as the service does it: null takes a property away.
    pub fn change_desired(&self, patch: &Value) {
        self.seen.lock().unwrap().twin.change_desired(patch);
    }

    /// What the device has reported, and its version.
    pub fn reported(&self) -> (Value, u64) {
        self.seen.lock().unwrap().twin.reported()
    }

    /// What was not as the rules say.
    pub fn faults(&self) -> Vec<String> {
        self.seen.lock().unwrap().faults.clone()
    }

    /// The largest message: bytes.
    pub fn largest(&self) -> usize {
        self.seen.lock().unwrap().largest
    }

    /// The events that arrived, whole.
    pub fn events(&self) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        seen.messages.iter().flat_map(|message| message["Events"].as_array().expect("it has Events").clone()).collect()
    }

    /// What arrived.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.seen.lock().unwrap().messages.iter().flat_map(of_message).collect()
    }
}

fn tls(authority: &Authority, rules: &Rules) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(rules.tls);
    let builder = match rules.proof {
        Proof::Key(_) | Proof::Password(_) => builder.unwrap().with_no_client_auth(),
        Proof::Certificate => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.unwrap().with_client_cert_verifier(verifier)
        }
    };
    let chain = vec![CertificateDer::from_pem_file(authority.path("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(authority.path("server.key")).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = rules.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// One connection. An error is a fault of the client's.
fn serve(stream: TcpStream, tls: Arc<ServerConfig>, rules: &Rules, seen: &Mutex<Seen>) -> Result<(), String> {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    // A client that goes away before it said anything, as one that does not trust us, broke no rule.
    let Some((kind, body)) = packet(&mut stream, |_| false) else { return Ok(()) };
    if kind != 0x10 {
        return Err(format!("the first packet is {kind:#x}, no CONNECT"));
    }
    let named = stream.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    let expiry = match (named == rules.alpn).then(|| check_connect(&body, rules)) {
        Some(Ok(expiry)) => expiry,
        refused => {
            // 5: not authorized (3.2.2.3).
            stream.write_all(&[0x20, 2, 0, 5]).ok();
            stream.flush().ok();
            return Err(refused.and_then(Result::err).unwrap_or_else(|| format!("ALPN is {named:?}")));
        }
    };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.accepted += 1;
        seen.accepted
    };
    stream.write_all(&[0x20, 2, 0, 0]).unwrap();
    let mut session = Session::default();
    loop {
        let next = packet(&mut stream, |stream| {
            let seen = seen.lock().unwrap();
            let changes = session.changes(&seen.twin);
            let is_gone = stream.write_all(&changes).and_then(|()| stream.flush()).is_err();
            is_gone || now(rules) >= expiry || seen.accepted != number
        });
        let Some((kind, body)) = next else { break };
        let answer = match kind {
            0xe0 => return Ok(()),
            _ => answer(kind, &body, rules, &mut seen.lock().unwrap(), &mut session)?,
        };
        if stream.write_all(&answer).and_then(|()| stream.flush()).is_err() {
            return Ok(());
        }
    }
    let mut seen = seen.lock().unwrap();
    seen.expired += u64::from(now(rules) >= expiry);
    seen.displaced += u64::from(seen.accepted != number);
    Ok(())
}

/// What is said to a packet. An error is a fault of the client's.
fn answer(kind: u8, body: &[u8], rules: &Rules, seen: &mut Seen, session: &mut Session) -> Result<Vec<u8>, String> {
    match kind {
        0x30..=0x3f => {
            if let Some(answer) = session.on_publish(kind, body, &mut seen.twin) {
                return answer;
            }
            let (id, message) = check_publish(kind, body, rules)?;
            seen.messages.push(message);
            seen.largest = seen.largest.max(body.len());
            Ok(vec![0x40, 2, id[0], id[1]])
        }
        0x80..=0x8f => session.subscribe(kind, body, &seen.twin),
        0xc0 => Ok(vec![0xd0, 0]),
        other => Err(format!("packet {other:#x} is not expected")),
    }
}

/// The hub's clock: seconds since the Unix epoch.
fn now(rules: &Rules) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + rules.ahead_s
}
