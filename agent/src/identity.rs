//! Who this device is at the hub, and which installation of the agent speaks.
//!
//! The device id is written down or made from something that differs from board to board: cloned images share one host
//! name, and two devices with one id push each other off the hub for ever.
//!
//! ```text
//! {machineId}  /etc/machine-id                                     machine-id(5)
//! {serial}     /sys/firmware/devicetree/base/serial-number         the board's, NUL at its end
//!              /sys/class/dmi/id/product_serial                    a PC's, for root only
//! {certCN}     common name of the subject of connection.certFile   RFC 5280
//! ```

use std::fs;

use collector_common::root::Root;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::config::local::Local;
use crate::credential::Source;
use crate::profile::sas::ConnectionString;

pub mod agent;

/// The longest id the Azure hub takes, and the longest we send anywhere.
pub const MAX_ID_BYTES: usize = 128;

const PLACEHOLDERS: [&str; 3] = ["{machineId}", "{serial}", "{certCN}"];
const MACHINE_ID: &str = "/etc/machine-id";
const DEVICE_TREE_SERIAL: &str = "/sys/firmware/devicetree/base/serial-number";
const DMI_SERIAL: &str = "/sys/class/dmi/id/product_serial";

/// Why there is no device id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoIdentity {
    /// Nobody said which: the configuration has to be changed.
    NotConfigured(String),
    /// The template names something this machine does not have now: the agent collects, and cannot connect.
    Unavailable(String),
}

impl NoIdentity {
    /// The sentence for an operator.
    pub fn reason(&self) -> &str {
        match self {
            NoIdentity::NotConfigured(reason) | NoIdentity::Unavailable(reason) => reason,
        }
    }
}

/// The id for a connection to the hub.
///
/// # Errors
/// No `deviceId` in the configuration, or a template that cannot be filled in on this machine.
pub fn device_id(local: &Local, root: &Root) -> Result<String, NoIdentity> {
    let string_file = local.connection.as_ref().and_then(|connection| connection.connection_string_file.as_ref());
    if let (None, Some(file)) = (&local.device_id, string_file) {
        return of_connection_string(file, root).map_err(NoIdentity::Unavailable);
    }
    let Some(template) = &local.device_id else {
        let known = PLACEHOLDERS.join(", ");
        return Err(NoIdentity::NotConfigured(format!(
            "a connection needs a deviceId, and none is configured: write this device's own id or a template ({known}). \
             The host name is not taken, because cloned images share it and devices with one id push each other off \
             the hub"
        )));
    };
    let cert_file = local.connection.as_ref().and_then(|connection| connection.cert_file.as_ref());
    resolve(template, cert_file, root).map_err(NoIdentity::Unavailable)
}

/// The device that a connection string is for.
fn of_connection_string(file: &Source, root: &Root) -> Result<String, String> {
    let text = file.read_secret_text("the connection string", root)?;
    let string =
        ConnectionString::parse(&text).map_err(|why| format!("the connection string {file} cannot be used: {why}"))?;
    let unusable = |expected| format!("the device in {file} cannot be used: it has to be {expected}");
    check_id(&string.device_id).map_err(unusable)?;
    Ok(string.device_id)
}

/// The host name, for `collect` and the demo, which speak to no hub that could confuse two devices.
///
/// # Errors
/// A sentence when there is none or when it cannot be an id.
pub fn host_name(root: &Root) -> Result<String, String> {
    let name = read(root, "/proc/sys/kernel/hostname")?;
    check_id(&name)
        .map_err(|expected| format!("the host name {name:?} cannot be a device id: it has to be {expected}"))?;
    Ok(name)
}

/// Whether a template can become an id at all.
///
/// # Errors
/// What was expected.
pub fn check_template(template: &str) -> Result<(), String> {
    let bare = PLACEHOLDERS.iter().fold(template.to_owned(), |text, placeholder| text.replace(placeholder, "x"));
    if bare.contains(['{', '}']) {
        return Err(format!("no braces but those of {}", PLACEHOLDERS.join(", ")));
    }
    check_id(&bare)
}

/// Whether a text can be an id: it becomes a level of MQTT topics and part of client ids.
///
/// # Errors
/// What was expected.
pub fn check_id(id: &str) -> Result<(), String> {
    let is_bad = |c: char| matches!(c, '/' | '+' | '#') || c.is_control();
    if id.is_empty() || id.trim() != id {
        Err("a text that is not empty and has no blanks around it".to_owned())
    } else if id.len() > MAX_ID_BYTES {
        Err(format!("at most {MAX_ID_BYTES} bytes"))
    } else if id.contains(is_bad) {
        Err("a text without / + # and control characters, which mean something in an MQTT topic".to_owned())
    } else {
        Ok(())
    }
}

/// Fills a template in.
///
/// # Errors
/// A sentence about the source that is missing or that gives no id.
fn resolve(template: &str, cert_file: Option<&Source>, root: &Root) -> Result<String, String> {
    let mut id = String::new();
    let mut rest = template;
    while !rest.is_empty() {
        let Some(placeholder) = PLACEHOLDERS.into_iter().find(|placeholder| rest.starts_with(placeholder)) else {
            let end = rest.char_indices().skip(1).find(|(_, c)| *c == '{').map_or(rest.len(), |(end, _)| end);
            id += &rest[..end];
            rest = &rest[end..];
            continue;
        };
        id += &match placeholder {
            "{machineId}" => machine_id(root)?,
            "{serial}" => serial(root)?,
            _ => common_name(cert_file, root)?,
        };
        rest = &rest[placeholder.len()..];
    }
    check_id(&id).map_err(|expected| {
        format!("deviceId \"{template}\" gives {id:?} on this machine, which cannot be used: it has to be {expected}")
    })?;
    Ok(id)
}

/// The machine id, 32 hexadecimal digits (machine-id(5)).
///
/// # Errors
/// A sentence when there is none yet.
pub fn machine_id(root: &Root) -> Result<String, String> {
    let id = read(root, MACHINE_ID)?;
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && id.bytes().any(|byte| byte != b'0') {
        Ok(id.to_ascii_lowercase())
    } else {
        Err(format!("{MACHINE_ID} holds no machine id: run systemd-machine-id-setup, or write deviceId out"))
    }
}

fn serial(root: &Root) -> Result<String, String> {
    let mut tried = Vec::new();
    for path in [DEVICE_TREE_SERIAL, DMI_SERIAL] {
        match read(root, path) {
            // What vendors leave in boards they did not number is the same on all of them.
            Ok(serial) if is_no_serial(&serial) => tried.push(format!("{path} holds {serial:?}, which is no number")),
            Ok(serial) => return Ok(serial),
            Err(error) => tried.push(error),
        }
    }
    Err(format!("this machine tells no serial number: {}; write deviceId out, or use {{machineId}}", tried.join(", ")))
}

fn is_no_serial(serial: &str) -> bool {
    let known = ["none", "not specified", "to be filled by o.e.m.", "default string", "system serial number", "n/a"];
    known.contains(&serial.to_ascii_lowercase().as_str()) || serial.bytes().all(|byte| byte == b'0')
}

fn common_name(cert_file: Option<&Source>, root: &Root) -> Result<String, String> {
    let Some(shown) = cert_file else {
        return Err("deviceId asks for {certCN}, and connection.certFile names no certificate".to_owned());
    };
    let pem = shown.read("the certificate", root)?;
    let first = CertificateDer::pem_slice_iter(&pem).next();
    let der = first.and_then(Result::ok).ok_or_else(|| format!("{shown} holds no certificate in PEM form"))?;
    let certificate = Certificate::from_der(&der)
        .map_err(|error| format!("the first certificate in {shown} cannot be read: {error}"))?;
    match certificate.tbs_certificate().subject().common_name() {
        Ok(Some(name)) => Ok(name.value().into_owned()),
        Ok(None) => Err(format!("the first certificate in {shown} has no common name for {{certCN}}")),
        Err(error) => Err(format!("the common name of the first certificate in {shown} cannot be read: {error}")),
    }
}

/// A small file of the system without the NUL and the blanks at its ends.
fn read(root: &Root, path: &str) -> Result<String, String> {
    let bytes = fs::read(root.path(path)).map_err(|error| format!("cannot read {path}: {error}"))?;
    let text = String::from_utf8_lossy(&bytes).trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned();
    if text.is_empty() { Err(format!("{path} is empty")) } else { Ok(text) }
}

#[cfg(test)]
mod tests;
