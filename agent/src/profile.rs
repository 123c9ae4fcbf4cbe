//! What each kind of hub wants to see, byte by byte: (connection, ids, secret, time) in, a [`Plan`] out, no I/O.
//!
//! ```text
//!          client id      user name                               password      topic
//! mqtt     deviceId       username                                passwordFile  topic
//! aws      deviceId       -                                       -             topic
//! iothub   D or D/M       H/D[/M]/?api-version=2021-04-12         SAS token     devices/D[/modules/M]/messages/events/BAG
//! ```
//!
//! Sources: "Communicate with an IoT hub by using MQTT" (Azure documentation); "MQTT" and "Device communication
//! protocols" (AWS IoT Core developer guide).

use std::time::Duration;

use collector_common::clock::is_plausible;
use jiff::Timestamp;

use crate::config::connection::{Connection, HubIdentity, Profile, Server};
use sas::ConnectionString;
use twin::TwinTopics;

pub mod sas;
pub mod twin;

/// How large a message a broker takes when nobody says: bytes.
const BROKER_MESSAGE_BYTES: usize = 256 * 1024;

/// The limit of Azure IoT Hub for a message with its properties: bytes.
const IOT_HUB_MESSAGE_BYTES: usize = 256 * 1024;

/// The limit of AWS IoT Core: bytes.
const AWS_MESSAGE_BYTES: usize = 128 * 1024;

/// The port on which AWS IoT Core tells protocols apart by ALPN, and the name of MQTT with a client certificate there.
const AWS_ALPN: (u16, &str) = (443, "x-amzn-mqtt-ca");

const API_VERSION: &str = "2021-04-12";

/// What the messages are, for the hub's routes to look into them, and a property to route on.
const BAG: &str = "%24.ct=application%2Fjson&%24.ce=utf-8&messageSource=security-agent";

/// What marks a message of Defender for IoT's agents; the hub then keeps it from the customer's own routes.
const INTERFACE_ID: &str = "&%24.ifid=urn%3Aazureiot%3ASecurity%3ASecurityAgent%3A1";

/// A token is replaced when this part of its life is over: percent.
const RENEWAL_PERCENT: u32 = 80;

/// What was read from the file with the secret, if the connection has one.
pub enum Secret {
    /// There is none, or it is a certificate's key and goes to TLS.
    None,
    /// Of `passwordFile`.
    Password(String),
    /// Of `sasKeyFile`.
    SharedAccessKey(String),
    /// Of `connectionStringFile`.
    ConnectionString(String),
}

/// One connection, decided. It has no `Debug`, because it holds a password.
pub struct Plan {
    /// Where to connect.
    pub server: Server,
    /// The application protocol named in the TLS handshake.
    pub alpn: Option<String>,
    /// The MQTT client id.
    pub client_id: String,
    /// MQTT user name.
    pub username: Option<String>,
    /// MQTT password.
    pub password: Option<String>,
    /// Where messages are published.
    pub topic: String,
    /// The largest payload that gets through: bytes.
    pub max_message_bytes: usize,
    /// When to connect again with a new token.
    pub renew_after: Option<Duration>,
    /// What to look at when the hub does not take us in.
    pub advice: String,
    /// By which topics the hub tells what it desires, if it may.
    pub twin: Option<TwinTopics>,
}

/// Decides. `wall_us` is the time: microseconds since the Unix epoch.
///
/// # Errors
/// A sentence: a secret that cannot be used, an id the hub does not know, or a clock that cannot be right.
pub fn plan(
    connection: &Connection,
    device_id: &str,
    module_id: &str,
    secret: Secret,
    wall_us: i64,
) -> Result<Plan, String> {
    if connection.profile == Profile::IotHub {
        return iot_hub(connection, device_id, module_id, secret, wall_us);
    }
    let is_aws = connection.profile == Profile::Aws;
    let server = connection.server.clone().ok_or("connection.url does not say where the hub is")?;
    let by_port = (is_aws && server.port == AWS_ALPN.0).then(|| AWS_ALPN.1.to_owned());
    let advice = if is_aws {
        "is the certificate active, and does its policy let this client id connect and publish?"
    } else {
        "are the user name and password or the certificate right, and may this device connect?"
    };
    Ok(Plan {
        alpn: connection.alpn.clone().or(by_port),
        server,
        client_id: device_id.to_owned(),
        username: connection.username.clone(),
        password: match secret {
            Secret::Password(password) => Some(password),
            _ => None,
        },
        topic: connection.topic(device_id, module_id),
        max_message_bytes: if is_aws { AWS_MESSAGE_BYTES } else { BROKER_MESSAGE_BYTES },
        renew_after: None,
        advice: advice.to_owned(),
        twin: connection.twin.then(|| TwinTopics::Retained { device_id: device_id.to_owned() }),
    })
}

fn iot_hub(
    connection: &Connection,
    device_id: &str,
    module_id: &str,
    secret: Secret,
    wall_us: i64,
) -> Result<Plan, String> {
    let mut module = (connection.hub_identity == HubIdentity::Module).then(|| module_id.to_owned());
    let (mut hub, mut server, mut key) = (None, connection.server.clone(), None);
    match secret {
        Secret::SharedAccessKey(text) => key = Some(text),
        Secret::ConnectionString(text) => {
            let string =
                ConnectionString::parse(&text).map_err(|why| format!("the connection string cannot be used: {why}"))?;
            if string.device_id != device_id {
                return Err(format!(
                    "the connection string is that of another device than {device_id}: change deviceId or the file, \
                     and reload"
                ));
            }
            let host = string.gateway.unwrap_or_else(|| string.host.clone());
            server = server.or(Some(Server { tls: true, host, port: 8883 }));
            (hub, module, key) = (Some(string.host), string.module_id, Some(string.key));
        }
        Secret::None | Secret::Password(_) => {}
    }
    let server = server.ok_or("neither connection.url nor a connection string says where the hub is")?;
    let hub = hub.unwrap_or_else(|| server.host.clone());
    for id in [Some(device_id), module.as_deref()].into_iter().flatten() {
        check_id(id)?;
    }
    let (principal, path) = match &module {
        Some(module) => (format!("{device_id}/{module}"), format!("devices/{device_id}/modules/{module}")),
        None => (device_id.to_owned(), format!("devices/{device_id}")),
    };
    let password = match &key {
        Some(key) => Some(sas::token(key, &format!("{hub}/{path}"), expiry(wall_us, connection.sas_lifetime)?)?),
        None => None,
    };
    let interface_id = if connection.interface_id { INTERFACE_ID } else { "" };
    let topic = format!("{path}/messages/events/{BAG}{interface_id}");
    Ok(Plan {
        alpn: connection.alpn.clone(),
        server,
        username: Some(format!("{hub}/{principal}/?api-version={API_VERSION}")),
        max_message_bytes: IOT_HUB_MESSAGE_BYTES - topic.len(),
        topic,
        renew_after: key.is_some().then(|| connection.sas_lifetime * RENEWAL_PERCENT / 100),
        advice: iot_hub_advice(key.is_some(), &principal, wall_us),
        password,
        client_id: principal,
        twin: connection.twin.then_some(TwinTopics::IotHub),
    })
}

/// When a token that is made now expires: seconds since the Unix epoch.
fn expiry(wall_us: i64, lifetime: Duration) -> Result<i64, String> {
    if is_plausible(wall_us) {
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        return Ok((wall_us / 1_000_000).saturating_add(seconds));
    }
    Err(format!("no token can be made for the hub while the clock is wrong: it says {}", date(wall_us)))
}

/// The letters the hub has in ids; other letters could mean something in a topic or a user name.
fn check_id(id: &str) -> Result<(), String> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-.%_*?!(),:=@$'".contains(&byte);
    if id.bytes().all(is_letter) {
        Ok(())
    } else {
        Err(format!("Azure IoT Hub knows no id {id:?}: only letters, digits and - . % _ * ? ! ( ) , : = @ $ '"))
    }
}

fn iot_hub_advice(has_key: bool, principal: &str, wall_us: i64) -> String {
    if has_key {
        format!(
            "is the shared access key that of {principal}, is it registered and enabled, and is the clock right (it \
             says {})?",
            date(wall_us)
        )
    } else {
        format!("is the certificate that of {principal}, and is it registered and enabled?")
    }
}

/// A time for people: microseconds since the Unix epoch.
pub fn date(wall_us: i64) -> String {
    Timestamp::from_microsecond(wall_us).map_or_else(|_| "no date".to_owned(), |now| format!("{now:.0}"))
}

#[cfg(test)]
mod tests;
