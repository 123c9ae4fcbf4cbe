//! A broker that is as strict as Azure IoT Hub: TLS only, the exact client id, user name, topic and properties, a token
//! with a right signature that has not expired, and one connection of each identity. What is not as it must be is noted
//! as a fault and closes the connection, so that one wrong byte fails a test.
//!
//! It reads MQTT 3.1.1 itself (OASIS standard, chapters 2 and 3), so that the client's own codec is not its judge.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64, Encoding};
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::arrivals::{Arrival, of_message};
use crate::mosquitto::Authority;

/// The hub's name, which is in user names and tokens.
pub const HUB: &str = "test-hub.azure-devices.net";

/// How an identity proves itself.
#[derive(Clone)]
pub enum Proof {
    /// With a token made with this key, base64.
    Key(String),
    /// With a certificate of the hub's authority.
    Certificate,
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
}

/// What was seen.
#[derive(Default)]
struct Seen {
    /// Connections taken in.
    accepted: u64,
    /// Connections that were closed because their token had expired.
    expired: u64,
    faults: Vec<String>,
    /// The largest message: bytes.
    largest: usize,
    messages: Vec<Value>,
    /// Which connection of an identity is the newest.
    newest: BTreeMap<String, u64>,
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
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

    /// What was not as the rules say.
    pub fn faults(&self) -> Vec<String> {
        self.seen.lock().unwrap().faults.clone()
    }

    /// The largest message: bytes.
    pub fn largest(&self) -> usize {
        self.seen.lock().unwrap().largest
    }

    /// What arrived.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.seen.lock().unwrap().messages.iter().flat_map(of_message).collect()
    }
}

fn tls(authority: &Authority, rules: &Rules) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = match rules.proof {
        Proof::Key(_) => builder.unwrap().with_no_client_auth(),
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
    let never = || false;
    // A client that goes away before it said anything, as one that does not trust us, broke no rule.
    let Some((kind, body)) = packet(&mut stream, &never) else { return Ok(()) };
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
        let newest = seen.newest.entry(rules.client_id.clone()).or_default();
        *newest += 1;
        *newest
    };
    stream.write_all(&[0x20, 2, 0, 0]).unwrap();
    let is_over =
        || now() >= expiry || seen.lock().unwrap().newest.get(&rules.client_id).is_none_or(|newest| *newest != number);
    while let Some((kind, body)) = packet(&mut stream, &is_over) {
        let answer = match kind {
            0x30..=0x3f => {
                let (id, message) = check_publish(kind, &body, rules)?;
                let mut seen = seen.lock().unwrap();
                seen.messages.push(message);
                seen.largest = seen.largest.max(body.len());
                vec![0x40, 2, id[0], id[1]]
            }
            0xc0 => vec![0xd0, 0],
            0xe0 => return Ok(()),
            other => return Err(format!("packet {other:#x} is not expected")),
        };
        if stream.write_all(&answer).and_then(|()| stream.flush()).is_err() {
            return Ok(());
        }
    }
    if now() >= expiry {
        seen.lock().unwrap().expired += 1;
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The next packet: its first byte and its body. `None` when the connection is over.
fn packet(stream: &mut impl Read, is_over: &dyn Fn() -> bool) -> Option<(u8, Vec<u8>)> {
    let mut read = |bytes: usize| -> Option<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        let mut filled = 0;
        while filled < bytes {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => return None,
                Ok(more) => filled += more,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_) => return None,
            }
            if is_over() {
                return None;
            }
        }
        Some(buffer)
    };
    let first = read(1)?[0];
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = read(1)?[0];
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((first, if length == 0 { Vec::new() } else { read(length)? }))
}

/// Takes a text with its length in front off the body.
fn text(body: &mut &[u8]) -> Result<String, String> {
    let (length, rest) = body.split_first_chunk::<2>().ok_or("a text is cut off")?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (text, rest) = rest.split_at_checked(length).ok_or("a text is cut off")?;
    *body = rest;
    String::from_utf8(text.to_vec()).map_err(|error| error.to_string())
}

/// Checks a CONNECT (3.1) and gives the time the connection ends: seconds since the Unix epoch.
fn check_connect(mut body: &[u8], rules: &Rules) -> Result<u64, String> {
    let protocol = text(&mut body)?;
    let ([level, flags, _, _], rest) = body.split_first_chunk::<4>().ok_or("CONNECT is cut off")?;
    body = rest;
    if (protocol.as_str(), *level) != ("MQTT", 4) {
        return Err(format!("the protocol is {protocol} {level}"));
    }
    let client_id = text(&mut body)?;
    check_will(*flags, &mut body, rules)?;
    let username = if flags & 0x80 != 0 { Some(text(&mut body)?) } else { None };
    let password = if flags & 0x40 != 0 { Some(text(&mut body)?) } else { None };
    if flags & 0x01 != 0 || !body.is_empty() {
        return Err(format!("connect flags {flags:#x} or bytes behind: {body:?}"));
    }
    if client_id != rules.client_id || username != rules.username {
        return Err(format!("client id {client_id:?}, user name {username:?}"));
    }
    match (&rules.proof, password) {
        (Proof::Certificate, None) => Ok(u64::MAX),
        (Proof::Key(key), Some(token)) => check_token(&token, key, &rules.resource),
        (_, password) => Err(format!("password {password:?}")),
    }
}

/// A will goes to the telemetry topic (3.1.2.5; IoT Hub adds the property `iothub-MessageType:Will`).
fn check_will(flags: u8, body: &mut &[u8], rules: &Rules) -> Result<(), String> {
    if flags & 0x04 == 0 {
        return if flags & 0x38 == 0 { Ok(()) } else { Err(format!("connect flags {flags:#x} without a will")) };
    }
    let (topic, message) = (text(body)?, text(body)?);
    if flags & 0x30 > 1 << 4 || topic != rules.topic || !message.contains("connectionLost") {
        return Err(format!("will to {topic:?} with flags {flags:#x}: {message}"));
    }
    Ok(())
}

fn check_token(token: &str, key: &str, resource: &str) -> Result<u64, String> {
    let fault = |what: &str| format!("{what} in token {token}");
    let fields = token.strip_prefix("SharedAccessSignature ").ok_or_else(|| fault("no prefix"))?;
    let parts: Vec<_> = fields.split('&').map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    let [("sr", sr), ("sig", sig), ("se", se)] = parts[..] else { return Err(fault("other fields")) };
    if decoded(sr) != resource || sr.contains('/') {
        return Err(fault("another resource"));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &Base64::decode_vec(key).unwrap());
    let signature = Base64::decode_vec(&decoded(sig)).map_err(|_| fault("no base64"))?;
    hmac::verify(&key, format!("{sr}\n{se}").as_bytes(), &signature).map_err(|_| fault("a wrong signature"))?;
    se.parse().ok().filter(|expiry| *expiry > now()).ok_or_else(|| fault("a time that is over"))
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
        out += &part[2..];
    }
    out
}

/// Checks a PUBLISH (3.3) and gives its packet id and its message.
fn check_publish(kind: u8, mut body: &[u8], rules: &Rules) -> Result<([u8; 2], Value), String> {
    if kind & 0x07 != 0x02 {
        return Err(format!("PUBLISH {kind:#x} is not QoS 1 without retain"));
    }
    if body.len() > rules.max_bytes {
        return Err(format!("a message of {} bytes", body.len()));
    }
    let topic = text(&mut body)?;
    if topic != rules.topic {
        return Err(format!("topic {topic}"));
    }
    let (id, payload) = body.split_first_chunk::<2>().ok_or("PUBLISH has no packet id")?;
    Ok((*id, serde_json::from_slice(payload).map_err(|error| error.to_string())?))
}
