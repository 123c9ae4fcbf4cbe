//! Shared access signatures of Azure IoT Hub.
//!
//! ```text
//! HostName=H;DeviceId=D[;ModuleId=M][;GatewayHostName=G];SharedAccessKey=BASE64       the connection string
//! SharedAccessSignature sr=R&sig=S&se=E                                               the token, an MQTT password
//!     R  the resource H/devices/D[/modules/M], percent-encoded
//!     E  when it expires, seconds since the Unix epoch
//!     S  base64 of HMAC-SHA256 with the decoded key over R, a line feed and E, percent-encoded
//! ```
//!
//! Source: "Control access to IoT Hub with shared access signatures", Azure documentation. No error shows a value of a
//! connection string, because one of them is the key.

use base64ct::{Base64, Encoding};
use ring::hmac;

/// What a connection string says.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// The hub's name.
    pub host: String,
    /// The device.
    pub device_id: String,
    /// The module, for the identity of a module.
    pub module_id: Option<String>,
    /// A gateway to connect to instead of the hub.
    pub gateway: Option<String>,
    /// The key in base64.
    pub key: String,
}

impl ConnectionString {
    /// Takes it apart.
    ///
    /// # Errors
    /// What is wrong with it, without its values.
    pub fn parse(text: &str) -> Result<ConnectionString, String> {
        let mut values = [const { None }; 5];
        const NAMES: [&str; 5] = ["HostName", "DeviceId", "ModuleId", "GatewayHostName", "SharedAccessKey"];
        for part in text.trim().split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or("it has a part without =")?;
            let known = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
            let Some(index) = known.filter(|_| !value.is_empty()) else {
                return Err(match name.to_ascii_lowercase().as_str() {
                    "sharedaccesskeyname" => {
                        "it is that of a service; the agent needs a device's or a module's".to_owned()
                    }
                    "x509" => "it asks for a certificate: use certFile and keyFile with url instead".to_owned(),
                    _ => format!("it has an empty value, or a part other than {}", NAMES.join(", ")),
                });
            };
            if values[index].replace(value.to_owned()).is_some() {
                return Err(format!("it has {} twice", NAMES[index]));
            }
        }
        let lacks = |name: &str| format!("it has no {name}");
        let [host, device_id, module_id, gateway, key] = values;
        Ok(ConnectionString {
            host: host.ok_or_else(|| lacks("HostName"))?,
            device_id: device_id.ok_or_else(|| lacks("DeviceId"))?,
            module_id,
            gateway,
            key: key.ok_or_else(|| lacks("SharedAccessKey"))?,
        })
    }
}

/// A token for a resource that holds until `expiry`: seconds since the Unix epoch.
///
/// # Errors
/// The key is no base64.
pub fn token(key: &str, resource: &str, expiry: i64) -> Result<String, String> {
    let key = Base64::decode_vec(key.trim()).map_err(|_| "the shared access key is no base64".to_owned())?;
    let resource = percent_encoded(resource);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), format!("{resource}\n{expiry}").as_bytes());
    let signature = percent_encoded(&Base64::encode_string(signature.as_ref()));
    Ok(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"))
}

/// Everything but the unreserved letters of RFC 3986 (section 2.3) as `%XX`.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0LWtleS1vZi1wcmVzcy0xNy0wMTIzNDU2Nzg=";

    /// The tokens were computed with the hmac and urllib modules of Python.
    #[test]
    fn tokens_have_the_bytes_another_implementation_gives() {
        for (resource, expected) in [
            (
                "hub.azure-devices.net/devices/press-17",
                "SharedAccessSignature sr=hub.azure-devices.net%2Fdevices%2Fpress-17&sig=le8bBbtTAxfCPojTciUgfDDu9s2f3uL\
                 %2Bk%2Blv0uZ%2BUFw%3D&se=1795000000",
            ),
            (
                "hub.azure-devices.net/devices/press-17/modules/azureiotsecurity",
                "SharedAccessSignature sr=hub.azure-devices.net%2Fdevices%2Fpress-17%2Fmodules%2Fazureiotsecurity&sig=\
                 xLhc%2FFkPHSCrkFnu2zCKsUMs7w7SeXrozO6Wn80VOjE%3D&se=1795000000",
            ),
        ] {
            assert_eq!(token(KEY, resource, 1_795_000_000).as_deref(), Ok(expected));
        }
        assert_eq!(token("not base64!", "r", 1), Err("the shared access key is no base64".to_owned()));
    }

    #[test]
    fn a_connection_string_is_read_or_refused_without_its_values() {
        let text = format!("HostName=h.azure-devices.net;DeviceId=d;ModuleId=m;SharedAccessKey={KEY}\n");
        let read = ConnectionString::parse(&text).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((read.host.as_str(), read.device_id.as_str()), ("h.azure-devices.net", "d"));
        assert_eq!((read.module_id.as_deref(), read.gateway, read.key.as_str()), (Some("m"), None, KEY));
        for (text, why) in [
            ("", "it has no HostName"),
            ("HostName=h", "it has no DeviceId"),
            ("HostName=h;DeviceId=d", "it has no SharedAccessKey"),
            ("HostName=h;HostName=h", "it has HostName twice"),
            ("secret", "it has a part without ="),
            ("secret=secret", "it has an empty value, or a part other than HostName, DeviceId, ModuleId, "),
            ("HostName=h;SharedAccessKeyName=secret;SharedAccessKey=secret", "it is that of a service"),
            ("HostName=h;DeviceId=d;x509=true", "it asks for a certificate"),
        ] {
            let refused = ConnectionString::parse(text).err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(refused.starts_with(why) && !refused.contains("secret"), "{text}: {refused}");
        }
    }

    #[test]
    fn mangled_connection_strings_never_panic() {
        let whole = format!("HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey={KEY}");
        let mut random = fastrand::Rng::with_seed(17);
        for _ in 0..20_000 {
            let mut bytes = whole.clone().into_bytes();
            bytes.truncate(random.usize(0..=bytes.len()));
            for _ in 0..random.usize(0..4) {
                if !bytes.is_empty() {
                    let at = random.usize(0..bytes.len());
                    bytes[at] = random.u8(..);
                }
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Ok(read) = ConnectionString::parse(&text) {
                drop(token(&read.key, &read.host, random.i64(..)));
            }
        }
    }
}
