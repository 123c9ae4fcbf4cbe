//! The configuration: one file in the form of a device twin, read once into values that are all valid.
//!
//! ```text
//! { "deviceId", "moduleId", "stateDirectory", "connection": {...},              ours, local: closed to typos
//!   "properties": { "desired": { "ms_iotn:...": { KEY: {"value": X}, ... },     published: a bad key warns
//!                                "edgewarden": { KEY: X, ... } } },             ours: closed to typos
//!   "etag", "tags", "$metadata", "properties.reported", ... }                   an exported twin's: not looked at
//! ```
//!
//! [`load`] is pure: text in, configuration or problems out. [`load_file`] adds the file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use collector_common::collector::{LoginSource, ProcessBackend};
use collector_common::event::payload::ConfigurationError;
use nix::unistd::Uid;

use connection::{Profile, Server};
use document::Reader;
use local::Local;
use origin::{Layer, Origin, Origins};
use problem::{Position, Problem};
use settings::{ProcessRule, Settings};

use crate::credential::Source;

pub mod connection;
pub mod document;
pub mod duration;
pub mod layers;
pub mod local;
pub mod lowering;
pub mod micro;
pub mod nearest;
pub mod origin;
pub mod problem;
pub mod process_rule;
pub mod published;
pub mod settings;

/// The exit code for a configuration that cannot be used, `EX_CONFIG` of `sysexits.h`.
pub const EX_CONFIG: u8 = 78;

/// Where the file is when nobody names another.
pub const DEFAULT_FILE: &str = "/etc/edgewarden/twin.json";

/// A twin is at most 32 KiB at the old service; what is larger than this is some other file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, as it was named.
    pub file: String,
    /// What is said about this device and this machine.
    pub local: Local,
    /// What the agent is asked to do.
    pub settings: Arc<Settings>,
    /// What was wrong and does not stop the agent, in the order of the file.
    pub warnings: Vec<Problem>,
    origins: Origins,
    /// What is wrong in the files, contradictions aside, which the hub may settle.
    file_warnings: Vec<Problem>,
    base: Base,
}

/// The local layers before they are settled, for the hub's to be laid over.
#[derive(Clone, Debug, Default)]
struct Base {
    settings: Settings,
    origins: Origins,
    written: BTreeMap<&'static str, Problem>,
}

/// One value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The key, as it is written in the file; own keys with their object.
    pub key: String,
    /// The value as JSON text.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Reads a configuration from its text. `file` is its name in messages, `state_directory` what the environment says.
///
/// # Errors
/// Everything that stops the agent, in the order of the file.
pub fn load(file: &str, text: &str, state_directory: Option<&Path>) -> Result<Config, Vec<Problem>> {
    load_layers(file, text, &[], state_directory)
}

/// The same with drop-ins, each with its name, in the order in which a later one wins.
///
/// # Errors
/// Everything that stops the agent, document by document.
pub fn load_layers(
    file: &str,
    text: &str,
    drop_ins: &[(String, String)],
    state_directory: Option<&Path>,
) -> Result<Config, Vec<Problem>> {
    let (mut local, mut base) = (Local::new(state_directory), Base::default());
    if state_directory.is_some() {
        base.origins.insert("stateDirectory".to_owned(), Origin::Environment);
    }
    let drop_ins = drop_ins.iter().map(|(name, text)| (Layer::DropIn, name.as_str(), text.as_str()));
    let (mut refused, mut warnings) = (Vec::new(), Vec::new());
    for (layer, name, text) in std::iter::once((Layer::File, file, text)).chain(drop_ins) {
        let mut reader = Reader::of_layer(layer, name, text);
        local.read(&mut reader, &mut base.settings, &mut base.origins);
        reader.refused.sort_by_key(|problem| problem.position);
        reader.warnings.sort_by_key(|problem| problem.position);
        refused.append(&mut reader.refused);
        warnings.append(&mut reader.warnings);
        base.written.extend(reader.written);
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let (mut settings, mut origins) = (base.settings.clone(), base.origins.clone());
    let contradictions = published::settle(file, &base.written, &mut settings, &mut origins);
    for warning in &mut warnings {
        warning.fill(&settings);
    }
    let file_warnings = warnings.clone();
    warnings.extend(contradictions);
    let (file, settings) = (file.to_owned(), Arc::new(settings));
    Ok(Config { file, local, settings, warnings, origins, file_warnings, base })
}

/// Reads the configuration from the file that was named, or from the usual one. Without a usual one the defaults hold,
/// with a warning: an agent that keeps what it sees is better than none.
///
/// # Errors
/// Everything that stops the agent: what [`load`] refuses, and a named file that cannot be read.
pub fn load_file(named: Option<&Path>) -> Result<Config, Vec<Problem>> {
    let directory = state_directory();
    load_from(named.unwrap_or(Path::new(DEFAULT_FILE)), named.is_some(), directory.as_deref())
}

impl Config {
    /// Whether the hub has a say.
    pub fn takes_twin(&self) -> bool {
        self.local.connection.as_ref().is_some_and(|connection| connection.twin)
    }

    /// What has to be told to the hub about published keys.
    pub fn configuration_errors(&self) -> Vec<ConfigurationError> {
        self.warnings.iter().filter_map(Problem::configuration_error).collect()
    }

    /// Every value in force and where it came from. No secret is among them: a password stands in a file of its own.
    pub fn effective(&self) -> Vec<Effective> {
        effective(&self.local, &self.settings, &self.origins)
    }
}

fn effective(local: &Local, settings: &Settings, origins: &Origins) -> Vec<Effective> {
    let mut rows = local_values(local);
    rows.extend(own_values(settings));
    rows.extend(published::effective(settings).into_iter().map(|(key, value)| (key.to_owned(), value)));
    let origin = |key: &str| origins.get(key).cloned().unwrap_or(Origin::Default);
    rows.into_iter().map(|(key, value)| Effective { origin: origin(&key), key, value }).collect()
}

fn load_from(path: &Path, is_named: bool, state_directory: Option<&Path>) -> Result<Config, Vec<Problem>> {
    let file = path.display().to_string();
    let (text, warning) = match read(path) {
        Ok(read) => read,
        Err(ReadFault::Content(problem)) => return Err(vec![*problem]),
        Err(ReadFault::System(error)) => {
            let mut problem = Problem::of_file(&file, "a configuration file", error.to_string());
            if is_named {
                return Err(vec![problem]);
            }
            problem.consequence = Some("the defaults are in force, without a connection".to_owned());
            ("{}".to_owned(), Some(problem))
        }
    };
    let mut warnings: Vec<_> = warning.into_iter().collect();
    let drop_ins = drop_ins(&path.with_extension("d"), &mut warnings)?;
    let mut config = load_layers(&file, &text, &drop_ins, state_directory)?;
    config.file_warnings.splice(0..0, warnings.iter().cloned());
    config.warnings.splice(0..0, warnings);
    Ok(config)
}

/// The files `*.json` of the directory beside the file, by name.
fn drop_ins(directory: &Path, warnings: &mut Vec<Problem>) -> Result<Vec<(String, String)>, Vec<Problem>> {
    let refuse = |path: &Path, error: io::Error| {
        vec![Problem::of_file(&path.display().to_string(), "a configuration file", error.to_string())]
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(refuse(directory, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| refuse(directory, error))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut texts = Vec::new();
    for path in paths {
        match read(&path) {
            Ok((text, warning)) => {
                warnings.extend(warning);
                texts.push((path.display().to_string(), text));
            }
            Err(ReadFault::Content(problem)) => return Err(vec![*problem]),
            Err(ReadFault::System(error)) => return Err(refuse(&path, error)),
        }
    }
    Ok(texts)
}

enum ReadFault {
    /// The system did not give us the file.
    System(io::Error),
    /// It did, and this is no configuration.
    Content(Box<Problem>),
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> ReadFault {
        ReadFault::System(error)
    }
}

/// The text of the file, and what is wrong with who may write it.
fn read(path: &Path) -> Result<(String, Option<Problem>), ReadFault> {
    let file = path.display().to_string();
    let content =
        |expected: &str, found: String| ReadFault::Content(Box::new(Problem::of_file(&file, expected, found)));
    // A pipe would be waited for and a directory cannot be read: both are looked at before they are opened.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("something that is no regular file").into());
    }
    let opened = File::open(path)?;
    let metadata = opened.metadata()?;
    let mut bytes = Vec::new();
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(content("at most 1 MiB of JSON", "more".to_owned()));
    }
    // Editors of other systems put a byte order mark in front; it means nothing in UTF-8.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let position = Some(Position::of(&valid, valid.len()));
            let problem = Problem { position, ..Problem::of_file(&file, "UTF-8", "bytes that are not") };
            return Err(ReadFault::Content(Box::new(problem)));
        }
    };
    Ok((text, exposed(&file, metadata.mode(), metadata.uid(), Uid::effective().as_raw())))
}

/// Whoever may write the file decides whether the agent sees anything, so it is said when that is anybody.
fn exposed(file: &str, mode: u32, owner: u32, we: u32) -> Option<Problem> {
    let found = if mode & 0o002 != 0 {
        format!("mode {:04o}, which lets everybody change it", mode & 0o7777)
    } else if owner != 0 && owner != we {
        format!("user {owner} as its owner")
    } else {
        return None;
    };
    let mut problem = Problem::of_file(file, "a file that only root can change", found);
    problem.consequence = Some("it is used all the same".to_owned());
    Some(problem)
}

/// `$STATE_DIRECTORY`, of which systemd may give several, colon-separated (systemd.exec(5)); the first is ours.
fn state_directory() -> Option<PathBuf> {
    let value = std::env::var("STATE_DIRECTORY").ok()?;
    value.split(':').next().map(PathBuf::from).filter(|path| path.is_absolute())
}

fn local_values(local: &Local) -> Vec<(String, String)> {
    let file = |file: &Option<Source>| text(file.as_ref().map(ToString::to_string));
    let hex = |bytes: &[u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut rows = vec![
        ("deviceId".to_owned(), text(local.device_id.as_ref())),
        ("moduleId".to_owned(), text(Some(&local.module_id))),
        ("stateDirectory".to_owned(), text(Some(local.state_directory.to_string_lossy()))),
    ];
    match &local.connection {
        None => rows.push(("connection".to_owned(), "null".to_owned())),
        Some(connection) => rows.extend(
            [
                ("profile", text(Some(connection.profile.name()))),
                ("url", text(connection.server.as_ref().map(Server::url))),
                ("topic", text(Some(&connection.topic_template).filter(|_| connection.profile != Profile::IotHub))),
                ("caFile", file(&connection.ca_file)),
                ("pinnedCertificate", text(connection.pinned_certificate.as_ref().map(hex))),
                ("certFile", file(&connection.cert_file)),
                ("keyFile", file(&connection.key_file)),
                ("alpn", text(connection.alpn.as_ref())),
                ("username", text(connection.username.as_ref())),
                ("passwordFile", file(&connection.password_file)),
                ("connectionStringFile", file(&connection.connection_string_file)),
                ("sasKeyFile", file(&connection.sas_key_file)),
                ("sasLifetime", text(Some(duration::format(connection.sas_lifetime)))),
                ("identity", text(Some(connection.hub_identity.name()))),
                ("interfaceId", connection.interface_id.to_string()),
                ("twin", connection.twin.to_string()),
            ]
            .map(|(key, value)| (format!("connection.{key}"), value)),
        ),
    }
    rows
}

fn own_values(settings: &Settings) -> Vec<(String, String)> {
    let login_source = match &settings.collectors.login_source {
        LoginSource::Auto => "auto".into(),
        LoginSource::Journal => "journal".into(),
        LoginSource::File(path) => path.to_string_lossy(),
    };
    let process_backend = match settings.collectors.process_backend {
        ProcessBackend::Auto => "auto",
        ProcessBackend::Bpf => "bpf",
        ProcessBackend::BpfNoBtf => "bpfNoBtf",
        ProcessBackend::Audit => "audit",
        ProcessBackend::Connector => "connector",
        ProcessBackend::Poll => "poll",
    };
    [
        ("floor", serde_json::json!(settings.floor).to_string()),
        ("foldFailedLogins", settings.collectors.fold_failed_logins.to_string()),
        ("loginSource", text(Some(login_source))),
        ("maxBytesPerDay", settings.max_bytes_per_day.map_or("null".to_owned(), |bytes| bytes.to_string())),
        ("processBackend", text(Some(process_backend))),
        ("processExclude", rules(&settings.process_exclude)),
        ("processFloodRate", settings.process_flood_rate.map_or("null".to_owned(), |rate| rate.to_string())),
        ("processHash", settings.collectors.process_hash.to_string()),
        ("processInclude", rules(&settings.process_include)),
        ("processSnapshot", settings.collectors.process_snapshot.to_string()),
        ("redactAlso", serde_json::json!(settings.collectors.redaction.own()).to_string()),
        ("redactSecrets", settings.collectors.redaction.is_on.to_string()),
        ("spoolSyncHigh", text(Some(duration::format(settings.spool_sync_high)))),
        ("spoolSyncLow", text(Some(duration::format(settings.spool_sync_low)))),
        ("usersFromNss", settings.collectors.users_from_nss.to_string()),
    ]
    .map(|(key, value)| (format!("{}.{key}", local::OWN_OBJECT), value))
    .into()
}

fn rules(rules: &[ProcessRule]) -> String {
    serde_json::json!(rules.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string()
}

/// A text, or nothing, as JSON.
fn text(text: Option<impl AsRef<str>>) -> String {
    text.map_or(serde_json::Value::Null, |text| text.as_ref().into()).to_string()
}

#[cfg(test)]
mod every_key;
#[cfg(test)]
mod tests;
