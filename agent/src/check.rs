//! What `edgewarden check` prints: the values in force, what each collector will use, and what is wrong.

use std::fs;
use std::path::Path;

use collector_common::collector::Collector;
use collector_common::root::Root;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::connection::Connection;
use crate::config::origin::Words;
use crate::config::problem::Problem;
use crate::config::settings::Priority;
use crate::config::{Config, EX_CONFIG};
use crate::identity::{self, NoIdentity};

/// The text to print, and the exit code: 0 when `run` would run, [`EX_CONFIG`] when it would not.
pub fn report(loaded: &Result<Config, Vec<Problem>>, root: &Root, collectors: &[&dyn Collector]) -> (String, u8) {
    match loaded {
        Err(problems) => (section("errors: the agent does not start with this configuration", problems), EX_CONFIG),
        Ok(config) => usable(config, root, collectors),
    }
}

/// What `run` would find missing of the files of a connection, one sentence each. The agent then collects and keeps
/// events, and cannot connect.
pub fn lacks(connection: &Connection, root: &Root) -> Vec<String> {
    let is_certificate = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).next().is_some_and(|first| first.is_ok());
    let is_key = |pem: &[u8]| PrivateKeyDer::from_pem_slice(pem).is_ok();
    let is_password = |text: &[u8]| text.first().is_some_and(|byte| !matches!(byte, b'\n' | b'\r'));
    [
        lack("caFile", connection.ca_file.as_deref(), root, "certificate in PEM form", is_certificate),
        lack("certFile", connection.cert_file.as_deref(), root, "certificate in PEM form", is_certificate),
        lack("keyFile", connection.key_file.as_deref(), root, "private key in PEM form", is_key),
        lack("passwordFile", connection.password_file.as_deref(), root, "password in its first line", is_password),
    ]
    .into_iter()
    .flatten()
    .chain(no_authority(connection))
    .collect()
}

fn no_authority(connection: &Connection) -> Option<String> {
    let is_missing = connection.tls && connection.ca_file.is_none();
    is_missing
        .then(|| "mqtts:// needs connection.caFile: the authorities the hub's certificate may be signed by".to_owned())
}

fn usable(config: &Config, root: &Root, collectors: &[&dyn Collector]) -> (String, u8) {
    let mut text = settings(config);
    text += &section("collectors", surveys(config, root, collectors));
    let mut exit_code = 0;
    if let Some(connection) = &config.local.connection {
        let mut degraded = lacks(connection, root);
        match identity::device_id(&config.local, root) {
            Ok(id) => {
                let topic = connection.topic(&id, &config.local.module_id);
                let rows = [format!("device id: {id}"), format!("topic: {topic}")];
                text += &section(&format!("connection to {}", connection.url()), rows);
            }
            Err(NoIdentity::Unavailable(reason)) => degraded.push(reason),
            Err(NoIdentity::NotConfigured(reason)) => {
                let rows = [format!("{}: deviceId: {reason}", config.file)];
                text += &section("errors: the agent does not start with this configuration", rows);
                exit_code = EX_CONFIG;
            }
        }
        text += &section("degraded: collects and spools, cannot connect", degraded);
    }
    text += &section("warnings", &config.warnings);
    (text, exit_code)
}

/// One value a line, the origins in one column.
fn settings(config: &Config) -> String {
    let rows = config.effective();
    let width = rows.iter().map(|row| row.key.chars().count() + 3 + row.value.chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |text, row| {
        let setting = format!("{} = {}", row.key, row.value);
        text + &format!("{setting:width$}   # {}\n", Words(&row.origin, &config.file), width = width.min(70))
    })
}

fn surveys(config: &Config, root: &Root, collectors: &[&dyn Collector]) -> Vec<String> {
    let mut rows = Vec::new();
    for collector in collectors {
        let kind = collector.kind();
        if config.settings.priority(kind) == Priority::Off {
            rows.push(format!("{}: off", kind.name()));
            continue;
        }
        let survey = collector.survey(root, &config.settings.collectors);
        rows.push(format!("{}: {}", kind.name(), survey.backend));
        rows.extend(survey.lacks.iter().map(|lack| format!("{}: lacks: {lack}", kind.name())));
    }
    rows
}

/// A heading and its rows; nothing when there are none.
fn section(heading: &str, rows: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let rows = rows.into_iter().fold(String::new(), |text, row| text + &format!("  {row}\n"));
    if rows.is_empty() { rows } else { format!("\n{heading}\n{rows}") }
}

fn lack(key: &str, path: Option<&Path>, root: &Root, what: &str, is_good: impl Fn(&[u8]) -> bool) -> Option<String> {
    let path = path?;
    let shown = path.display();
    match fs::read(root.path(path)) {
        Ok(bytes) if is_good(&bytes) => None,
        Ok(_) => Some(format!("connection.{key}: {shown} holds no {what}")),
        Err(error) => Some(format!("connection.{key}: cannot read {shown}: {error}")),
    }
}

#[cfg(test)]
mod tests;
