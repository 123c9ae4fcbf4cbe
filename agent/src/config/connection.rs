//! The object `connection`: how to reach the hub. It is local and never comes from the hub.
//!
//! No value of this object is ever shown in a problem, because somebody may have written a password into it.

use std::time::Duration;

use super::document::{Entry, Reader, is_null, kind_of, string};
use super::origin::Origins;
use crate::credential::Source;
use values::{address, alpn, fingerprint, hub_identity, profile, sas_lifetime, topic};

mod values;

/// How to reach the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which kind of hub.
    pub profile: Profile,
    /// Where it is; `None` only when `connection_string_file` says it.
    pub server: Option<Server>,
    /// Where messages are published, with `{deviceId}` and `{moduleId}` to be filled in by [`Connection::topic`]. Azure
    /// IoT Hub has topics of its own.
    pub topic_template: String,
    /// The authorities that may have signed the hub's certificate, PEM.
    pub ca_file: Option<Source>,
    /// SHA-256 of the only certificate the hub may have, instead of `ca_file`.
    pub pinned_certificate: Option<[u8; 32]>,
    /// Our certificate chain, PEM; there exactly when `key_file` is.
    pub cert_file: Option<Source>,
    /// Its private key, PEM.
    pub key_file: Option<Source>,
    /// The application protocol to name in the TLS handshake, instead of the profile's own.
    pub alpn: Option<String>,
    /// MQTT user name.
    pub username: Option<String>,
    /// A file whose content is the MQTT password; only together with `username`.
    pub password_file: Option<Source>,
    /// A file with the connection string of Azure IoT Hub.
    pub connection_string_file: Option<Source>,
    /// A file with the shared access key of Azure IoT Hub.
    pub sas_key_file: Option<Source>,
    /// How long a token is made for.
    pub sas_lifetime: Duration,
    /// Whose identity at Azure IoT Hub is used, unless the connection string says it.
    pub hub_identity: HubIdentity,
    /// Whether messages are marked as Defender for IoT's.
    pub interface_id: bool,
    /// Whether the hub's desired properties are asked for and obeyed.
    pub twin: bool,
}

/// A place on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// TLS (`mqtts://`) or plain TCP (`mqtt://`).
    pub tls: bool,
    /// Host name or address, an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Which kind of hub is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Any MQTT 3.1.1 broker.
    Mqtt,
    /// Azure IoT Hub.
    IotHub,
    /// AWS IoT Core.
    Aws,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 3] = [Profile::Mqtt, Profile::IotHub, Profile::Aws];

    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Mqtt => "mqtt",
            Profile::IotHub => "iothub",
            Profile::Aws => "aws",
        }
    }
}

/// Whose identity at Azure IoT Hub is used. The hub takes one connection of each, so an application that uses the
/// device's leaves the module's for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubIdentity {
    /// The device's.
    Device,
    /// The module's.
    Module,
}

impl HubIdentity {
    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            HubIdentity::Device => "device",
            HubIdentity::Module => "module",
        }
    }
}

impl Server {
    /// The address as it is written in the file.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{scheme}://{open}{}{close}:{}", self.host, self.port)
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

    /// The address for people.
    pub fn url(&self) -> String {
        match (&self.server, &self.connection_string_file) {
            (Some(server), _) => server.url(),
            (None, Some(file)) => format!("the hub named in {file}"),
            (None, None) => "no hub".to_owned(),
        }
    }

    /// Whether the connection is protected.
    pub fn is_tls(&self) -> bool {
        self.server.as_ref().is_none_or(|server| server.tls)
    }
}

const KEYS: [&str; 16] = [
    "profile",
    "url",
    "topic",
    "caFile",
    "pinnedCertificate",
    "certFile",
    "keyFile",
    "alpn",
    "username",
    "passwordFile",
    "connectionStringFile",
    "sasKeyFile",
    "sasLifetime",
    "identity",
    "interfaceId",
    "twin",
];
const DEFAULT_TOPIC: &str = "edgewarden/{deviceId}/security";
const DEFAULT_SAS_LIFETIME: Duration = Duration::from_secs(3600);

/// Keys that mean something with some profiles only.
const ONLY_WITH: [(&str, &[Profile]); 8] = [
    ("topic", &[Profile::Mqtt, Profile::Aws]),
    ("username", &[Profile::Mqtt]),
    ("passwordFile", &[Profile::Mqtt]),
    ("connectionStringFile", &[Profile::IotHub]),
    ("sasKeyFile", &[Profile::IotHub]),
    ("sasLifetime", &[Profile::IotHub]),
    ("identity", &[Profile::IotHub]),
    ("interfaceId", &[Profile::IotHub]),
];

/// Reads the object. `None` when it is null or when something in it was refused.
pub fn read<'a>(reader: &mut Reader<'a>, value: &'a str, origins: &mut Origins) -> Option<Connection> {
    if is_null(value) {
        return None;
    }
    let refused_before = reader.refused.len();
    let mut connection = Connection {
        profile: Profile::Mqtt,
        server: None,
        topic_template: DEFAULT_TOPIC.to_owned(),
        ca_file: None,
        pinned_certificate: None,
        cert_file: None,
        key_file: None,
        alpn: None,
        username: None,
        password_file: None,
        connection_string_file: None,
        sas_key_file: None,
        sas_lifetime: DEFAULT_SAS_LIFETIME,
        hub_identity: HubIdentity::Module,
        interface_id: false,
        twin: false,
    };
    let mut fields = reader.closed("connection", value, &KEYS);
    fields.retain(|entry| !is_null(entry.value));
    for entry in &fields {
        let key = format!("connection.{}", entry.key);
        if let Err((expected, found)) = connection.take(&entry.key, entry.value) {
            reader.refuse(entry.value, &key, &expected, found);
        }
        origins.insert(key, reader.origin(entry.key_text));
    }
    // Azure IoT Hub lets nobody but the service write there; at any other broker that is the operator's to see to.
    if !fields.iter().any(|entry| entry.key == "twin") {
        connection.twin = connection.profile == Profile::IotHub;
    }
    if reader.refused.len() == refused_before {
        connection.check_together(reader, value, &fields);
    }
    warn_of_plain_text(reader, value, &connection);
    (reader.refused.len() == refused_before).then_some(connection)
}

impl Connection {
    /// Takes one key. An error is what was expected and what was found.
    fn take(&mut self, key: &str, value: &str) -> Result<(), (String, String)> {
        if key == "interfaceId" || key == "twin" {
            let wrong = |_| ("true or false".to_owned(), kind_of(value).to_owned());
            let switch = serde_json::from_str(value).map_err(wrong)?;
            *(if key == "twin" { &mut self.twin } else { &mut self.interface_id }) = switch;
            return Ok(());
        }
        let Some(text) = string(value).filter(|text| !text.is_empty()) else {
            let found = if value == "\"\"" { "an empty string" } else { kind_of(value) };
            return Err(("a string".to_owned(), found.to_owned()));
        };
        match key {
            "profile" => self.profile = profile(&text)?,
            "url" => self.server = Some(address(&text)?),
            "topic" => self.topic_template = topic(text)?,
            "caFile" => self.ca_file = Some(Source::parse(&text)?),
            "pinnedCertificate" => self.pinned_certificate = Some(fingerprint(&text)?),
            "certFile" => self.cert_file = Some(Source::parse(&text)?),
            "keyFile" => self.key_file = Some(Source::parse(&text)?),
            "alpn" => self.alpn = Some(alpn(text)?),
            "passwordFile" => self.password_file = Some(Source::parse(&text)?),
            "connectionStringFile" => self.connection_string_file = Some(Source::parse(&text)?),
            "sasKeyFile" => self.sas_key_file = Some(Source::parse(&text)?),
            "sasLifetime" => self.sas_lifetime = sas_lifetime(&text)?,
            "identity" => self.hub_identity = hub_identity(&text)?,
            _ => self.username = Some(text),
        }
        Ok(())
    }

    /// Refuses keys that need or exclude each other.
    fn check_together<'a>(&self, reader: &mut Reader<'a>, value: &'a str, fields: &[Entry<'a>]) {
        let find = |name: &str| fields.iter().find(|entry| entry.key == name);
        for entry in fields {
            let only = ONLY_WITH.iter().find(|(key, profiles)| *key == entry.key && !profiles.contains(&self.profile));
            if let Some((key, profiles)) = only {
                let names: Vec<_> = profiles.iter().map(|profile| format!("\"{}\"", profile.name())).collect();
                let expected = format!("it only with profile {}", names.join(" or "));
                let found = format!("profile \"{}\"", self.profile.name());
                reader.refuse(entry.key_text, &format!("connection.{key}"), &expected, found);
            }
        }
        for (one, other) in [("certFile", "keyFile"), ("keyFile", "certFile"), ("passwordFile", "username")] {
            if find(one).is_some() && find(other).is_none() {
                reader.refuse(value, &format!("connection.{other}"), &format!("it beside {one}"), "no such key");
            }
        }
        for (one, other) in [("pinnedCertificate", "caFile"), ("identity", "connectionStringFile")] {
            if let (Some(entry), Some(_)) = (find(one), find(other)) {
                reader.refuse(entry.key_text, &format!("connection.{one}"), &format!("it without {other}"), "both");
            }
        }
        if find("url").is_none() && find("connectionStringFile").is_none() {
            reader.refuse(value, "connection.url", "an address such as \"mqtts://hub.example:8883\"", "no such key");
        }
        if let Some(url) = find("url").filter(|_| self.profile != Profile::Mqtt && !self.is_tls()) {
            reader.refuse(url.value, "connection.url", "mqtts://, which this hub asks for", "mqtt://");
        }
        if self.profile == Profile::Aws && find("certFile").is_none() {
            reader.refuse(value, "connection.certFile", "it with profile \"aws\"", "no such key");
        }
        let proofs = ["connectionStringFile", "sasKeyFile", "certFile"];
        let count = proofs.iter().filter(|name| find(name).is_some()).count();
        if self.profile == Profile::IotHub && count != 1 {
            let expected = format!("exactly one of {}", proofs.join(", "));
            reader.refuse(value, "connection", &expected, format!("{count} of them"));
        }
    }
}

/// Plain TCP is for one's own machine and for a lab; anybody on the way reads what goes over it.
fn warn_of_plain_text(reader: &mut Reader, value: &str, connection: &Connection) {
    let exposed = match connection {
        _ if connection.is_tls() => return,
        Connection { password_file: Some(_), .. } => "a password",
        Connection { cert_file: Some(_), .. } => "a certificate, which is not used without TLS",
        _ => return,
    };
    let mut problem = reader.problem(value, "connection.url", "mqtts://", format!("mqtt:// with {exposed}"));
    problem.consequence = Some("everything goes over the network in plain text".to_owned());
    reader.warnings.push(problem);
}
