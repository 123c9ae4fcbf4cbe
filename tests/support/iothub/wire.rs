//! What a client may send, byte by byte (MQTT 3.1.1, OASIS, chapters 2 and 3), and what it must say in it.

use std::io::{self, Read};

use base64ct::{Base64, Encoding};
use ring::hmac;
use serde_json::Value;

use super::{Proof, Rules, now};

/// IoT Hub waits one and a half times as long as the client says, and no longer than 1767 s.
const MAX_KEEP_ALIVE_S: u16 = 1177;

/// The next packet: its first byte and its body. `None` when the connection is over, which `is_over` is asked again and
/// again.
pub fn packet<S: Read>(stream: &mut S, mut is_over: impl FnMut(&mut S) -> bool) -> Option<(u8, Vec<u8>)> {
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
            if is_over(stream) {
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
pub fn text(body: &mut &[u8]) -> Result<String, String> {
    let (length, rest) = body.split_first_chunk::<2>().ok_or("a text is cut off")?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (text, rest) = rest.split_at_checked(length).ok_or("a text is cut off")?;
    *body = rest;
    String::from_utf8(text.to_vec()).map_err(|error| error.to_string())
}

/// Checks a CONNECT (3.1) and gives the time the connection ends: seconds since the Unix epoch.
pub fn check_connect(mut body: &[u8], rules: &Rules) -> Result<u64, String> {
    let protocol = text(&mut body)?;
    let ([level, flags, keep_alive @ ..], rest) = body.split_first_chunk::<4>().ok_or("CONNECT is cut off")?;
    body = rest;
    if (protocol.as_str(), *level) != ("MQTT", 4) {
        return Err(format!("the protocol is {protocol} {level}"));
    }
    let keep_alive_s = u16::from_be_bytes(*keep_alive);
    if !(1..=MAX_KEEP_ALIVE_S).contains(&keep_alive_s) {
        return Err(format!("keep-alive is {keep_alive_s} s"));
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
        (Proof::Key(key), Some(token)) => check_token(&token, key, rules),
        (Proof::Password(right), Some(password)) if password == *right => Ok(u64::MAX),
        (_, password) => Err(format!("password {password:?}")),
    }
}

/// A will goes to the telemetry topic with QoS 1 (3.1.2.5; IoT Hub adds the property `iothub-MessageType:Will`).
fn check_will(flags: u8, body: &mut &[u8], rules: &Rules) -> Result<(), String> {
    if flags & 0x04 == 0 {
        return if flags & 0x38 == 0 { Ok(()) } else { Err(format!("connect flags {flags:#x} without a will")) };
    }
    let (topic, message) = (text(body)?, text(body)?);
    if flags & 0x38 != 0x08 || topic != rules.topic || !message.contains("connectionLost") {
        return Err(format!("will to {topic:?} with flags {flags:#x}: {message}"));
    }
    Ok(())
}

fn check_token(token: &str, key: &str, rules: &Rules) -> Result<u64, String> {
    let fault = |what: &str| format!("{what} in token {token}");
    let fields = token.strip_prefix("SharedAccessSignature ").ok_or_else(|| fault("no prefix"))?;
    let parts: Vec<_> = fields.split('&').map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    let [("sr", sr), ("sig", sig), ("se", se)] = parts[..] else { return Err(fault("other fields")) };
    if decoded(sr) != rules.resource || sr.contains('/') {
        return Err(fault("another resource"));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &Base64::decode_vec(key).unwrap());
    let signature = Base64::decode_vec(&decoded(sig)).map_err(|_| fault("no base64"))?;
    hmac::verify(&key, format!("{sr}\n{se}").as_bytes(), &signature).map_err(|_| fault("a wrong signature"))?;
    se.parse().ok().filter(|expiry| *expiry > now(rules)).ok_or_else(|| fault("a time that is over"))
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
pub fn check_publish(kind: u8, mut body: &[u8], rules: &Rules) -> Result<([u8; 2], Value), String> {
    if kind & 0x07 != 0x02 {
        return Err(format!("PUBLISH {kind:#x} is not QoS 1 without retain"));
    }
    if body.len() > rules.max_bytes {
        return Err(format!("a message of {} bytes", body.len()));
    }
    let topic = text(&mut body)?;
    if topic != rules.topic {
        return Err(format!("topic {topic:?}"));
    }
    let (id, payload) = body.split_first_chunk::<2>().ok_or("PUBLISH has no packet id")?;
    Ok((*id, serde_json::from_slice(payload).map_err(|error| error.to_string())?))
}
