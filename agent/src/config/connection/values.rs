//! What the texts of `connection` mean. An error is what was expected and what was found, which never shows the text.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::{HubIdentity, Profile, Server};
use crate::config::duration;

pub fn profile(text: &str) -> Result<Profile, (String, String)> {
    Profile::ALL.into_iter().find(|profile| profile.name() == text).ok_or_else(|| {
        let known: Vec<_> = Profile::ALL.iter().map(|profile| format!("\"{}\"", profile.name())).collect();
        (format!("one of {}", known.join(", ")), "another word".to_owned())
    })
}

/// `mqtt[s]://HOST[:PORT]` and nothing more.
pub fn address(text: &str) -> Result<Server, (String, String)> {
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
    Ok(Server { tls, host: host.to_owned(), port })
}

/// A topic that can be published to, with placeholders we know.
pub fn topic(text: String) -> Result<String, (String, String)> {
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

/// SHA-256 in hexadecimal, with the colons of `openssl x509 -fingerprint -sha256` or without.
pub fn fingerprint(text: &str) -> Result<[u8; 32], (String, String)> {
    let digits: Vec<u32> = text.chars().filter(|c| *c != ':').map_while(|c| c.to_digit(16)).collect();
    let is_whole = digits.len() == text.chars().filter(|c| *c != ':').count();
    let bytes: Vec<u8> =
        digits.chunks(2).filter_map(|pair| u8::try_from(pair.iter().fold(0, |n, d| n * 16 + d)).ok()).collect();
    let wrong = || ("a SHA-256 fingerprint: 64 hexadecimal digits".to_owned(), "something else".to_owned());
    if is_whole && digits.len() == 64 { bytes.try_into().map_err(|_| wrong()) } else { Err(wrong()) }
}

pub fn alpn(text: String) -> Result<String, (String, String)> {
    if text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(("the name of an application protocol".to_owned(), "something else".to_owned()))
    }
}

pub fn sas_lifetime(text: &str) -> Result<Duration, (String, String)> {
    let allowed = Duration::from_secs(10)..=Duration::from_secs(86_400);
    let wrong = || ("an ISO 8601 duration from \"PT10S\" to \"P1D\"".to_owned(), "something else".to_owned());
    duration::parse(text).filter(|lifetime| allowed.contains(lifetime)).ok_or_else(wrong)
}

pub fn hub_identity(text: &str) -> Result<HubIdentity, (String, String)> {
    let known = [HubIdentity::Device, HubIdentity::Module].into_iter().find(|identity| identity.name() == text);
    known.ok_or_else(|| ("\"device\" or \"module\"".to_owned(), "another word".to_owned()))
}
