//! The members of the file that are ours: the top level, and the object `edgewarden` under `properties.desired`.
//!
//! They are closed: a key that is misspelt here would silently do nothing, so it is refused. The top level also holds
//! what an exported twin brings with it, which is nobody's setting and is not looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use collector_common::collector::{LoginSource, ProcessBackend};
use collector_common::redact::Redaction;

use super::connection::{self, Connection};
use super::document::{Entry, Reader, is_null, kind_of, members, shown, string};
use super::duration;
use super::lowering;
use super::micro;
use super::origin::{Layer, Origins};
use super::published;
use super::settings::{ProcessRule, Settings};
use crate::identity;

/// What is said about this device and this machine; it never comes from the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The device id or its template, as it is written; see [`crate::identity`].
    pub device_id: Option<String>,
    /// The module's name at the hub.
    pub module_id: String,
    /// Where the spool and everything else durable lives.
    pub state_directory: PathBuf,
    /// How to reach the hub; without one events are only kept.
    pub connection: Option<Connection>,
}

/// The key of our own object under `properties.desired`.
pub const OWN_OBJECT: &str = "edgewarden";

const DEFAULT_MODULE: &str = "azureiotsecurity";
const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/edgewarden";

const LOCAL_KEYS: [&str; 5] = ["deviceId", "moduleId", "stateDirectory", "connection", "properties"];

/// What an exported twin has at its top besides `deviceId`, `moduleId` and `properties`: the members of `Twin` in the
/// service's REST API and what `az iot hub` adds.
const TWIN_KEYS: [&str; 24] = [
    "$schema",
    "$metadata",
    "$version",
    "authenticationType",
    "capabilities",
    "cloudToDeviceMessageCount",
    "configurations",
    "connectionState",
    "connectionStateUpdatedTime",
    "deviceEtag",
    "deviceScope",
    "etag",
    "generationId",
    "lastActivityTime",
    "managedBy",
    "modelId",
    "moduleEtag",
    "parentScopes",
    "status",
    "statusReason",
    "statusUpdateTime",
    "tags",
    "version",
    "x509Thumbprint",
];

pub(super) const OWN_KEYS: [&str; 15] = [
    "floor",
    "foldFailedLogins",
    "loginSource",
    "maxBytesPerDay",
    "processBackend",
    "processExclude",
    "processFloodRate",
    "processHash",
    "processInclude",
    "processSnapshot",
    "redactAlso",
    "redactSecrets",
    "spoolSyncHigh",
    "spoolSyncLow",
    "usersFromNss",
];

/// Less than this a day would not carry one message of each lane.
const MIN_BYTES_PER_DAY: u64 = 64 * 1024;

impl Local {
    /// What holds when the file says nothing. `state_directory` is what the environment says.
    pub fn new(state_directory: Option<&Path>) -> Local {
        Local {
            device_id: None,
            module_id: DEFAULT_MODULE.to_owned(),
            state_directory: state_directory.unwrap_or(Path::new(DEFAULT_STATE_DIRECTORY)).to_owned(),
            connection: None,
        }
    }

    /// Reads the whole file into itself and the settings.
    pub fn read(&mut self, reader: &mut Reader, settings: &mut Settings, origins: &mut Origins) {
        let Some(top) = reader.top() else { return };
        let known: Vec<&str> = LOCAL_KEYS.into_iter().chain(TWIN_KEYS).collect();
        let (twin, ours): (Vec<_>, Vec<_>) = top.into_iter().partition(|entry| TWIN_KEYS.contains(&entry.key.as_str()));
        drop(twin);
        for entry in reader.only_known("", ours, &known) {
            if is_null(entry.value) {
                continue;
            }
            if reader.layer() == Layer::DropIn && entry.key != "properties" {
                reader.refuse(entry.key_text, &entry.key, "it in the file beside this directory", "it in a drop-in");
                continue;
            }
            let line = reader.origin(entry.key_text);
            let taken = match entry.key.as_str() {
                "deviceId" => text(entry.value)
                    .and_then(|id| identity::check_template(&id).map(|()| id).map_err(refused_text(entry.value)))
                    .map(|id| self.device_id = Some(id)),
                "moduleId" => text(entry.value)
                    .and_then(|id| identity::check_id(&id).map(|()| id).map_err(refused_text(entry.value)))
                    .map(|id| self.module_id = id),
                "stateDirectory" => {
                    text(entry.value).and_then(|path| absolute(&path)).map(|path| self.state_directory = path)
                }
                "connection" => {
                    self.connection = connection::read(reader, entry.value, origins);
                    continue;
                }
                _ => {
                    properties(reader, entry.value, settings, origins);
                    continue;
                }
            };
            match taken {
                Ok(()) => drop(origins.insert(entry.key, line)),
                Err((expected, found)) => reader.refuse(entry.value, &entry.key, &expected, found),
            }
        }
    }
}

/// A path that means the same wherever the agent is started. An error is what was expected and what was found.
pub fn absolute(text: &str) -> Result<PathBuf, (String, String)> {
    let path = PathBuf::from(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path)
    } else {
        Err(("an absolute path".to_owned(), "one that is not".to_owned()))
    }
}

fn text(value: &str) -> Result<String, (String, String)> {
    string(value).filter(|text| !text.is_empty()).ok_or_else(|| ("a string that is not empty".to_owned(), shown(value)))
}

fn refused_text(value: &str) -> impl Fn(String) -> (String, String) {
    move |expected| (expected, shown(value))
}

fn properties<'a>(reader: &mut Reader<'a>, value: &'a str, settings: &mut Settings, origins: &mut Origins) {
    for entry in reader.closed("properties", value, &["desired", "reported"]) {
        if entry.key == "desired" && !is_null(entry.value) {
            desired(reader, entry.value, settings, origins);
        }
    }
}

/// Other modules' keys may stand here (the micro agent's are flat), so only what looks like ours is remarked on.
pub(super) fn desired<'a>(reader: &mut Reader<'a>, value: &'a str, settings: &mut Settings, origins: &mut Origins) {
    const KEY: &str = "properties.desired";
    let Some(members) = members(value) else {
        reader.refuse(value, KEY, "an object", kind_of(value));
        return;
    };
    let known = [published::OBJECT, OWN_OBJECT];
    micro::apply(reader, &members, settings, origins);
    let (ours, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|entry| known.contains(&entry.key.as_str()));
    for entry in reader.only_known(KEY, ours, &known) {
        match entry.key.as_str() {
            _ if is_null(entry.value) => {}
            OWN_OBJECT => own(reader, entry.value, settings, origins),
            _ => published::apply(reader, entry.value, settings, origins),
        }
    }
    for entry in others.iter().filter(|entry| !micro::is_key(&entry.key)) {
        if reader.layer() == Layer::Hub && LOCAL_KEYS.contains(&entry.key.as_str()) {
            let mut problem =
                reader.problem(entry.key_text, &entry.key, "it in the local file only", "it from the hub");
            problem.consequence = Some("it is ignored".to_owned());
            reader.warnings.push(problem);
        } else if let Some(meant) = reader.meant(&entry.key, known.into_iter().chain(micro::names())) {
            let key = format!("{KEY}.{}", entry.key);
            let expected = format!("\"{meant}\"");
            let mut problem = reader.problem(entry.key_text, &key, &expected, "a key that looks like it");
            problem.consequence = Some("it is ignored".to_owned());
            reader.warnings.push(problem);
        }
    }
}

/// The object `edgewarden`: plain values, without the wrapper of the published keys.
fn own<'a>(reader: &mut Reader<'a>, value: &'a str, settings: &mut Settings, origins: &mut Origins) {
    const PATH: &str = "properties.desired.edgewarden";
    for entry in reader.closed(PATH, value, &OWN_KEYS) {
        if is_null(entry.value) {
            continue;
        }
        match take_own(reader.layer(), &entry, settings) {
            Ok(()) => {
                let line = reader.origin(entry.key_text);
                origins.insert(format!("{OWN_OBJECT}.{}", entry.key), line);
            }
            Err(expected) => reader.refuse(entry.value, &format!("{PATH}.{}", entry.key), expected, shown(entry.value)),
        }
    }
}

fn take_own(layer: Layer, entry: &Entry, settings: &mut Settings) -> Result<(), &'static str> {
    let word = string(entry.value);
    match entry.key.as_str() {
        "foldFailedLogins" => {
            settings.collectors.fold_failed_logins = serde_json::from_str(entry.value).map_err(|_| "true or false")?;
        }
        "floor" if layer == Layer::Hub => return Err("it in the local file only"),
        "floor" => {
            let keys = serde_json::from_str::<Vec<String>>(entry.value).ok();
            let mut keys = keys.filter(|keys| keys.iter().all(|key| lowering::is_key(key)));
            if let Some(keys) = &mut keys {
                let mut seen = BTreeSet::new();
                keys.retain(|key| seen.insert(key.clone()));
            }
            settings.floor = keys.ok_or("a list of keys that can be lowered, such as [\"eventPriorityLogin\"]")?;
        }
        "loginSource" => {
            settings.collectors.login_source = match word.as_deref() {
                Some("auto") => LoginSource::Auto,
                Some("journal") => LoginSource::Journal,
                // The hub must not make the agent read, and send, a file of its choice.
                Some(path) if layer != Layer::Hub && path.starts_with('/') && !path.contains('\0') => {
                    LoginSource::File(path.into())
                }
                _ if layer == Layer::Hub => {
                    return Err("\"auto\" or \"journal\"; only the local file may name a log file");
                }
                _ => return Err("\"auto\", \"journal\" or the absolute path of a log file"),
            };
        }
        "maxBytesPerDay" => {
            let bytes = serde_json::from_str(entry.value).ok().filter(|bytes| *bytes >= MIN_BYTES_PER_DAY);
            settings.max_bytes_per_day = Some(bytes.ok_or("a whole number of bytes, at least 65536")?);
        }
        "processBackend" => {
            settings.collectors.process_backend = match word.as_deref() {
                Some("auto") => ProcessBackend::Auto,
                Some("bpf") => ProcessBackend::Bpf,
                Some("bpfNoBtf") => ProcessBackend::BpfNoBtf,
                Some("audit") => ProcessBackend::Audit,
                Some("connector") => ProcessBackend::Connector,
                Some("poll") => ProcessBackend::Poll,
                _ => return Err("\"auto\", \"bpf\", \"bpfNoBtf\", \"audit\", \"connector\" or \"poll\""),
            };
        }
        "processExclude" => settings.process_exclude = process_rules(entry.value)?,
        "processFloodRate" => {
            let rate = serde_json::from_str(entry.value).ok().filter(|rate| *rate > 0);
            settings.process_flood_rate = Some(rate.ok_or("a whole number of programs a second, at least 1")?);
        }
        "processHash" => {
            settings.collectors.process_hash = serde_json::from_str(entry.value).map_err(|_| "true or false")?;
        }
        "processInclude" => settings.process_include = process_rules(entry.value)?,
        "processSnapshot" => {
            settings.collectors.process_snapshot = serde_json::from_str(entry.value).map_err(|_| "true or false")?;
        }
        "redactAlso" => {
            const EXPECTED: &str = "at most 64 strings, each a \"NAME\" or a \"PROGRAM OPTION\" of 2 to 64 characters";
            let own: Vec<String> = serde_json::from_str(entry.value).map_err(|_| EXPECTED)?;
            let is_on = settings.collectors.redaction.is_on;
            settings.collectors.redaction = Arc::new(Redaction::new(is_on, &own).map_err(|_| EXPECTED)?);
        }
        // Secrets stay on the device whoever holds the hub.
        "redactSecrets" if layer == Layer::Hub => return Err("it in the local file only"),
        "redactSecrets" => {
            let is_on = serde_json::from_str(entry.value).map_err(|_| "true or false")?;
            Arc::make_mut(&mut settings.collectors.redaction).is_on = is_on;
        }
        "spoolSyncHigh" => settings.spool_sync_high = sync_interval(word.as_deref())?,
        "spoolSyncLow" => settings.spool_sync_low = sync_interval(word.as_deref())?,
        // The hub must not make the agent run a program.
        "usersFromNss" if layer == Layer::Hub => return Err("it in the local file only"),
        "usersFromNss" => {
            settings.collectors.users_from_nss = serde_json::from_str(entry.value).map_err(|_| "true or false")?;
        }
        _ => {}
    }
    Ok(())
}

fn process_rules(value: &str) -> Result<Vec<ProcessRule>, &'static str> {
    let texts: Option<Vec<String>> = serde_json::from_str(value).ok();
    let rules = texts
        .filter(|texts| texts.len() <= 64)
        .map(|texts| texts.iter().map(|text| ProcessRule::parse(text)).collect());
    rules.flatten().ok_or(
        "at most 64 strings, each \"executable=PATH\", \"user=UID\" or \"container=ID\"; a * may end a path or an id",
    )
}

fn sync_interval(text: Option<&str>) -> Result<Duration, &'static str> {
    text.and_then(duration::parse)
        .filter(|interval| (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(interval))
        .ok_or("an ISO 8601 duration from \"PT0.01S\" to \"PT1H\"")
}
