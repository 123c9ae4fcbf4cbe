//! The object `connection`: how to reach the hub. It is local and never comes from the hub.
//!
//! No value of this object is ever shown in a problem, because somebody may have written a password into it.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::document::{Reader, is_null, kind_of, string};
use super::local;
use super::origin::{Origin, Origins};

/// How to reach the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which kind of hub.
    pub profile: Profile,
    /// TLS (`mqtts://`) or plain TCP (`mqtt://`).
    pub tls: bool,
    /// Host name or address, an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Where messages are published, with `{deviceId}` and `{moduleId}` to be filled in by [`Connection::topic`].
    pub topic_template: String,
    /// The authorities that may have signed the hub's certificate, PEM; `None` for those of the system.
    pub ca_file: Option<PathBuf>,
    /// Our certificate chain, PEM; there exactly when `key_file` is.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// MQTT user name.
    pub username: Option<String>,
    /// A file whose first line is the MQTT password; only together with `username`.
    pub password_file: Option<PathBuf>,
}

/// Which kind of hub is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Any MQTT 3.1.1 broker.
    Mqtt,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 1] = [Profile::Mqtt];

    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Mqtt => "mqtt",
        }
    }
}

impl Connection {
    /// Where messages of this device are published.
    pub fn topic(&self, device_id: &str, module_id: &str) -> String {
        // One pass, so that an id that looks like a placeholder stays what it is.
        let (mut topic, mut rest) = (String::new(), self.topic_template.as_str());
        while let Some(start) = rest.find('{') {
            topic += &rest[..start];
            rest = &rest[start..];
            let filled = [("{deviceId}", device_id), ("{moduleId}", module_id)];
            let (text, after) = filled
                .iter()
                .find_map(|(name, id)| rest.strip_prefix(name).map(|after| (*id, after)))
                .unwrap_or(("{", &rest[1..]));
            topic += text;
            rest = after;
        }
        topic + rest
    }

    /// The address as it is written in the file.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

const KEYS: [&str; 8] = ["profile", "url", "topic", "caFile", "certFile", "keyFile", "username", "passwordFile"];
const DEFAULT_TOPIC: &str = "edgewarden/{deviceId}/security";

/// Reads the object. `None` when it is null or when something in it was refused.
pub fn read<'a>(reader: &mut Reader<'a>, value: &'a str, origins: &mut Origins) -> Option<Connection> {
    if is_null(value) {
        return None;
    }
    let refused_before = reader.refused.len();
    let mut connection = Connection {
        profile: Profile::Mqtt,
        tls: false,
        host: String::new(),
        port: 0,
        topic_template: DEFAULT_TOPIC.to_owned(),
        ca_file: None,
        cert_file: None,
        key_file: None,
        username: None,
        password_file: None,
    };
    let fields = reader.closed("connection", value, &KEYS);
    for entry in fields.iter().filter(|entry| !is_null(entry.value)) {
        let key = format!("connection.{}", entry.key);
        if let Err((expected, found)) = connection.take(&entry.key, entry.value) {
            reader.refuse(entry.value, &key, &expected, found);
        }
        origins.insert(key, Origin::Line(reader.position(entry.key_text).line));
    }
    let is_there = |name: &str| fields.iter().any(|entry| entry.key == name && !is_null(entry.value));
    if reader.refused.len() == refused_before {
        if !is_there("url") {
            reader.refuse(value, "connection.url", "an address such as \"mqtts://hub.example:8883\"", "no such key");
        }
        for (one, other) in [("certFile", "keyFile"), ("keyFile", "certFile"), ("passwordFile", "username")] {
            if is_there(one) && !is_there(other) {
                reader.refuse(value, &format!("connection.{other}"), &format!("it beside {one}"), "no such key");
            }
        }
    }
    warn_of_plain_text(reader, value, &connection);
    (reader.refused.len() == refused_before).then_some(connection)
}

impl Connection {
    /// Takes one key. An error is what was expected and what was found.
    fn take(&mut self, key: &str, value: &str) -> Result<(), (String, String)> {
        let Some(text) = string(value).filter(|text| !text.is_empty()) else {
            let found = if value == "\"\"" { "an empty string" } else { kind_of(value) };
            return Err(("a string".to_owned(), found.to_owned()));
        };
        match key {
            "profile" => self.profile = profile(&text)?,
            "url" => (self.tls, self.host, self.port) = address(&text)?,
            "topic" => self.topic_template = topic(text)?,
            "caFile" => self.ca_file = Some(local::absolute(&text)?),
            "certFile" => self.cert_file = Some(local::absolute(&text)?),
            "keyFile" => self.key_file = Some(local::absolute(&text)?),
            "passwordFile" => self.password_file = Some(local::absolute(&text)?),
            _ => self.username = Some(text),
        }
        Ok(())
    }
}

fn profile(text: &str) -> Result<Profile, (String, String)> {
    Profile::ALL.into_iter().find(|profile| profile.name() == text).ok_or_else(|| {
        let known: Vec<_> = Profile::ALL.iter().map(|profile| format!("\"{}\"", profile.name())).collect();
        (format!("one of {}", known.join(", ")), "another word".to_owned())
    })
}

/// `mqtt[s]://HOST[:PORT]` and nothing more.
fn address(text: &str) -> Result<(bool, String, u16), (String, String)> {
    let fault = |found: &str| ("an address such as \"mqtts://hub.example:8883\"".to_owned(), found.to_owned());
    let (tls, rest) = match text.split_once("://") {
        Some(("mqtts", rest)) => (true, rest),
        Some(("mqtt", rest)) => (false, rest),
        Some(_) => return Err(("mqtt:// or mqtts://".to_owned(), "another scheme".to_owned())),
        None => return Err(fault("no scheme")),
    };
    if rest.contains('@') {
        let expected = "an address without user information (username and passwordFile are for that)";
        return Err((expected.to_owned(), "some, which is not shown here".to_owned()));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(fault("a path or a query behind the host"));
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(|| fault("a bracket that is not closed"))?;
            host.parse::<Ipv6Addr>().map_err(|_| fault("brackets around something that is no IPv6 address"))?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or_else(|| fault("text behind the bracket"))?),
            };
            (host, port)
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let is_host_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(is_host_letter) {
        return Err(fault("a host that is empty or has letters no host name has"));
    }
    let port = match port {
        None => {
            if tls {
                8883
            } else {
                1883
            }
        }
        Some(text) => text
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(|| ("a port from 1 to 65535 behind the host".to_owned(), "something else".to_owned()))?,
    };
    Ok((tls, host.to_owned(), port))
}

/// A topic that can be published to, with placeholders we know.
fn topic(text: String) -> Result<String, (String, String)> {
    if let Some(bad) = text.chars().find(|c| matches!(c, '+' | '#') || c.is_control()) {
        let expected = "a topic without +, # and control characters, which no message can be published to";
        return Err((expected.to_owned(), format!("{bad:?}")));
    }
    if text.len() > 1024 {
        return Err(("a topic of at most 1024 bytes".to_owned(), format!("{} bytes", text.len())));
    }
    let bare = text.replace("{deviceId}", "").replace("{moduleId}", "");
    if bare.contains(['{', '}']) {
        let expected = "no braces but {deviceId} and {moduleId}";
        return Err((expected.to_owned(), "others".to_owned()));
    }
    Ok(text)
}

/// Plain TCP is for one's own machine and for a lab; anybody on the way reads what goes over it.
fn warn_of_plain_text(reader: &mut Reader, value: &str, connection: &Connection) {
    let exposed = match connection {
        Connection { tls: true, .. } => return,
        Connection { password_file: Some(_), .. } => "a password",
        Connection { cert_file: Some(_), .. } => "a certificate, which is not used without TLS",
        _ => return,
    };
    let mut problem = reader.problem(value, "connection.url", "mqtts://", format!("mqtt:// with {exposed}"));
    problem.consequence = Some("everything goes over the network in plain text".to_owned());
    reader.warnings.push(problem);
}
