//! What `edgewarden check` prints: the values in force, what each collector will use, and what is wrong.

use collector_common::clock::Clock;
use collector_common::collector::Collector;
use collector_common::root::Root;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::connection::Connection;
use crate::config::layers::Layers;
use crate::config::origin::Words;
use crate::config::problem::Problem;
use crate::config::settings::{Priority, Settings};
use crate::config::{Config, EX_CONFIG, Effective};
use crate::credential::Source;
use crate::expiry;
use crate::identity::{self, NoIdentity};
use crate::mqtt::Endpoint;
use crate::privileges;
use crate::tls;
use crate::twin::keeper;

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
    let has_text = |text: &[u8]| text.first().is_some_and(|byte| !matches!(byte, b'\n' | b'\r'));
    let public = |source: &Source| source.read("the file", root);
    let secret = |source: &Source| source.read_secret("the secret", root);
    let lacks: Vec<_> = [
        lack("caFile", &connection.ca_file, public, "certificate in PEM form", is_certificate),
        lack("certFile", &connection.cert_file, public, "certificate in PEM form", is_certificate),
        lack("keyFile", &connection.key_file, secret, "private key in PEM form", is_key),
        lack("passwordFile", &connection.password_file, secret, "password in its first line", has_text),
        lack("connectionStringFile", &connection.connection_string_file, secret, "connection string", has_text),
        lack("sasKeyFile", &connection.sas_key_file, secret, "shared access key", has_text),
    ]
    .into_iter()
    .flatten()
    .collect();
    if lacks.is_empty() && connection.is_tls() {
        return tls::client_config(connection, None, root).err().into_iter().collect();
    }
    lacks
}

fn usable(config: &Config, root: &Root, collectors: &[&dyn Collector]) -> (String, u8) {
    let mut layers = Layers::new(config.clone());
    let mut of_the_hub = Vec::new();
    if config.takes_twin() {
        match keeper::stored(&config.local.state_directory) {
            Ok(Some(desired)) => {
                let problems = layers.desired(&[desired]).problems;
                of_the_hub.extend(problems.iter().map(ToString::to_string));
            }
            Ok(None) => {}
            Err(why) => of_the_hub.push(format!("{why}; the settings above are without what the hub desires")),
        }
    }
    let mut text = settings(&layers.effective(), &config.file);
    text += &section("collectors", surveys(layers.settings(), root, collectors));
    let needed = privileges::names(privileges::needed_by(&config.settings, config.takes_twin())).join(" ");
    text += &section("capabilities", [format!("`run` gives back all but {needed}")]);
    let mut exit_code = 0;
    if let Some(connection) = &config.local.connection {
        let mut degraded = lacks(connection, root);
        match identity::device_id(&config.local, root) {
            Ok(id) => {
                let mut rows = vec![format!("device id: {id}")];
                let (connection, module_id) = (connection.clone(), config.local.module_id.clone());
                let endpoint = Endpoint { connection, device_id: id, module_id };
                match endpoint.plan(root) {
                    Ok(plan) => rows.push(format!("topic: {}", plan.topic)),
                    Err(reason) if degraded.is_empty() => degraded.push(reason),
                    Err(_) => {}
                }
                text += &section(&format!("connection to {}", endpoint.address()), rows);
            }
            Err(NoIdentity::Unavailable(reason)) => degraded.push(reason),
            Err(NoIdentity::NotConfigured(reason)) => {
                let rows = [format!("{}: deviceId: {reason}", config.file)];
                text += &section("errors: the agent does not start with this configuration", rows);
                exit_code = EX_CONFIG;
            }
        }
        let wall_us = Clock::new(root).now().wall_us;
        text += &section("certificates that expire soon", expiry::expiring(connection, root, wall_us));
        text += &section("degraded: collects and spools, cannot connect", degraded);
    }
    text += &section("warnings", config.warnings.iter().map(ToString::to_string).chain(of_the_hub));
    (text, exit_code)
}

/// One value a line, the origins in one column.
fn settings(rows: &[Effective], file: &str) -> String {
    let width = rows.iter().map(|row| row.key.chars().count() + 3 + row.value.chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |text, row| {
        let setting = format!("{} = {}", row.key, row.value);
        text + &format!("{setting:width$}   # {}\n", Words(&row.origin, file), width = width.min(70))
    })
}

fn surveys(settings: &Settings, root: &Root, collectors: &[&dyn Collector]) -> Vec<String> {
    let mut rows = Vec::new();
    for collector in collectors {
        let kind = collector.kind();
        if settings.priority(kind) == Priority::Off {
            rows.push(format!("{}: off", kind.name()));
            continue;
        }
        let survey = collector.survey(root, &settings.collectors);
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

fn lack(
    key: &str,
    source: &Option<Source>,
    read: impl Fn(&Source) -> Result<Vec<u8>, String>,
    what: &str,
    is_good: impl Fn(&[u8]) -> bool,
) -> Option<String> {
    let source = source.as_ref()?;
    match read(source) {
        Ok(bytes) if is_good(&bytes) => None,
        Ok(_) => Some(format!("connection.{key}: {source} holds no {what}")),
        Err(why) => Some(format!("connection.{key}: {why}")),
    }
}

#[cfg(test)]
mod tests;
