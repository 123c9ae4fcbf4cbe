//! The layers of the configuration, and what holds when they are laid over each other.
//!
//! ```text
//! built in  <  twin.json  <  twin.d/*.json by name  <  desired by the hub       a later one wins, key by key;
//!                                                                               null goes back to the one below
//! ```
//!
//! Pure: bytes in, [`Applied`] out. Whoever owns the connection calls
//!
//! - [`Layers::new`] and, at `SIGHUP`, [`Layers::reload`] with what [`super::load_file`] gave;
//! - [`Layers::desired`] with what a hub told, whole documents and changes of them (RFC 7396), in its order;
//! - [`Layers::good_desired`] for what to keep on disk, to be handed to `desired` at the next start;
//! - [`Layers::reported_settings`] for what to report.
//!
//! [`Applied::settings`] goes to everybody who reads settings, each of [`Applied::lowered`] is an alarm, and each of
//! [`Applied::errors`] an event. A desired document that is partly wrong applies in part: a key that cannot be used
//! keeps its last good value. The published agents refused the whole update, or started anew with every default.

use std::sync::Arc;

use collector_common::event::payload::{ConfigurationError, ConfigurationFault};
use serde_json::{Map, Value, json};

use super::document::{Reader, members, shown};
use super::local::{self, OWN_OBJECT};
use super::lowering::{self, Lowered};
use super::origin::{Layer, Origin, Origins};
use super::problem::{Problem, Report};
use super::published;
use super::settings::Settings;
use super::{Base, Config, Effective};
use crate::twin::Desired;

/// A twin is at most 32 KiB at Azure IoT Hub; more than this is not looked into, nor kept when it comes in pieces.
pub const MAX_DESIRED_BYTES: usize = 64 * 1024;

/// What is wrong beyond this is counted only: somebody writes nonsense to fill the log and the spool.
const MAX_PROBLEMS: usize = 32;

/// The names of what is wrong, in a report: Azure IoT Hub takes texts of 4 KiB.
const MAX_NAMES_BYTES: usize = 4000;

/// The layers as they are now.
#[derive(Clone, Debug)]
pub struct Layers {
    config: Config,
    /// What the hub said, and the same with each key that cannot be used at its last good value.
    desired: Value,
    good: Value,
    version: Option<u64>,
    settings: Arc<Settings>,
    origins: Origins,
    problems: Vec<Problem>,
}

/// What a change came to.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What is in force now.
    pub settings: Arc<Settings>,
    /// Everything that is wrong, for the log.
    pub problems: Vec<Problem>,
    /// What shows less than before the change.
    pub lowered: Vec<Lowered>,
    /// What the hub is told about keys.
    pub errors: Vec<ConfigurationError>,
    /// Whether a document was not taken at all, so that what the hub has and what is here differ.
    pub is_refused: bool,
}

impl Layers {
    /// The local layers alone.
    pub fn new(config: Config) -> Layers {
        let (settings, origins) = (Arc::clone(&config.settings), config.origins.clone());
        let problems = config.warnings.clone();
        Layers { config, desired: json!({}), good: json!({}), version: None, settings, origins, problems }
    }

    /// The local layers; its settings are not what is in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is in force.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The version of the desired document.
    pub fn version(&self) -> Option<u64> {
        self.version
    }

    /// The desired document with each key that cannot be used at its last good value, to be kept on disk.
    pub fn good_desired(&self) -> &Value {
        &self.good
    }

    /// Takes new local layers under what the hub desires.
    pub fn reload(&mut self, config: Config) -> Applied {
        self.config = config;
        self.apply()
    }

    /// Takes what the hub told, in its order, as one change of what is in force. A document that is none changes
    /// nothing, nor does a change behind it: together they would be what the hub never had. What was told before is not
    /// told again: a hub is asked for the whole after every connection.
    pub fn desired(&mut self, told: &[Desired]) -> Applied {
        let (mut refused, known) = (None, self.problems.clone());
        for desired in told {
            let (Desired::Whole { version, .. } | Desired::Change { version, .. }) = desired;
            match self.laid_over(desired) {
                Ok(document) => (self.desired, self.version) = (document, Some(*version)),
                Err(problem) => {
                    refused = Some(*problem);
                    break;
                }
            }
        }
        let mut applied = self.apply();
        applied.is_refused = refused.is_some();
        applied.problems.retain(|problem| !known.iter().any(|known| known.says_the_same(problem)));
        applied.problems.splice(0..0, refused);
        applied.errors = applied.problems.iter().filter_map(Problem::configuration_error).collect();
        applied
    }

    /// Forgets what the hub desired.
    pub fn forget_desired(&mut self) {
        (self.desired, self.good, self.version) = (json!({}), json!({}), None);
    }

    fn laid_over(&self, desired: &Desired) -> Result<Value, Box<Problem>> {
        let (patch, version) = match desired {
            Desired::Whole { bytes, version } => return document(bytes, *version),
            Desired::Change { bytes, version } => (document(bytes, *version)?, *version),
        };
        let mut whole = self.desired.clone();
        merge(&mut whole, patch);
        match whole.to_string().len() {
            bytes if bytes > MAX_DESIRED_BYTES => {
                Err(refused(version, "at most 64 KiB", format!("{bytes} bytes with this change")))
            }
            _ => Ok(whole),
        }
    }

    /// Every value in force and where it came from.
    pub fn effective(&self) -> Vec<Effective> {
        super::effective(&self.config.local, &self.settings, &self.origins)
    }

    /// Every setting in the published form, our own beside it, and the keys that could not be used.
    pub fn reported_settings(&self) -> Value {
        let value = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        let published: Map<_, _> = published::effective(&self.settings)
            .into_iter()
            .map(|(key, text)| (key.to_owned(), json!({ "value": value(&text) })))
            .collect();
        let own: Map<_, _> = super::own_values(&self.settings)
            .into_iter()
            .filter_map(|(key, text)| Some((key.strip_prefix("edgewarden.")?.to_owned(), value(&text))))
            .collect();
        let is_invalid = |problem: &&Problem| problem.report.as_ref().is_some_and(Report::is_mismatch);
        let mut invalid = String::new();
        for problem in self.problems.iter().filter(is_invalid) {
            if invalid.len() + problem.key.len() < MAX_NAMES_BYTES {
                invalid += if invalid.is_empty() { "" } else { "," };
                invalid += &problem.key;
            }
        }
        json!({
            published::OBJECT: published,
            OWN_OBJECT: own,
            "latest_state": if invalid.is_empty() { "success" } else { "failed" },
            "latest_invalid_fields": invalid,
        })
    }

    fn apply(&mut self) -> Applied {
        let file = self.version.map_or_else(|| self.config.file.clone(), name);
        let (_, mut problems) = lay(&file, &self.config.base, &self.desired);
        self.good = repaired(&self.desired, &self.good, &problems);
        let (mut base, _) = lay(&file, &self.config.base, &self.good);
        problems.extend(keep_floor(&file, &self.config.settings, &mut base));
        problems.extend(published::settle(&file, &base.written, &mut base.settings, &mut base.origins));
        for problem in &mut problems {
            problem.fill(&base.settings);
        }
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        if more > 0 {
            problems.truncate(MAX_PROBLEMS);
            problems.push(Problem::of_file(&file, "keys that can be used", format!("{more} more that cannot")));
        }
        problems.splice(0..0, self.config.file_warnings.iter().cloned());
        let errors = problems.iter().filter_map(Problem::configuration_error).collect();
        let settings = Arc::new(base.settings);
        let lowered = lowering::lowered(&self.settings, &settings);
        (self.settings, self.origins, self.problems) = (Arc::clone(&settings), base.origins, problems.clone());
        Applied { settings, problems, lowered, errors, is_refused: false }
    }
}

/// The desired document in messages. One that lies retained need not have a version.
fn name(version: u64) -> String {
    if version == 0 { "desired twin".to_owned() } else { format!("desired twin, version {version}") }
}

fn refused(version: u64, expected: &str, found: String) -> Box<Problem> {
    Box::new(Problem {
        key: "properties.desired".to_owned(),
        consequence: Some("nothing of it is used, and what was in force stays".to_owned()),
        report: Some(Report { fault: ConfigurationFault::TypeMismatch, in_force: "{}".to_owned() }),
        ..Problem::of_file(&name(version), expected, found)
    })
}

/// Lays the desired document over the local layers; what was wrong in it.
fn lay(file: &str, base: &Base, desired: &Value) -> (Base, Vec<Problem>) {
    let (mut base, text) = (base.clone(), desired.to_string());
    let mut reader = Reader::of_layer(Layer::Hub, file, &text);
    local::desired(&mut reader, &text, &mut base.settings, &mut base.origins);
    let Reader { refused, warnings, written, .. } = reader;
    base.written.extend(written);
    // Nothing the hub says stops the agent, not even in our own object.
    let report = Report { fault: ConfigurationFault::TypeMismatch, in_force: String::new() };
    let mut problems: Vec<_> =
        refused.into_iter().map(|problem| Problem { report: Some(report.clone()), ..problem }).collect();
    problems.extend(warnings);
    (base, problems)
}

/// The desired document with each key that cannot be used as it was in the last good one.
fn repaired(desired: &Value, good: &Value, problems: &[Problem]) -> Value {
    let mut repaired = desired.clone();
    for problem in problems.iter().filter(|problem| problem.report.is_some()) {
        let key = problem.key.strip_prefix("properties.desired.").unwrap_or(&problem.key);
        let (object, key) = match key.strip_prefix("edgewarden.") {
            Some(key) => (Some(OWN_OBJECT), key),
            None if published::KEYS.iter().any(|published| published.name == key) => (Some(published::OBJECT), key),
            None => (None, key),
        };
        let last = object.map_or(Some(good), |object| good.get(object)).and_then(|object| object.get(key)).cloned();
        let place = match object {
            Some(object) => repaired.get_mut(object),
            None => Some(&mut repaired),
        };
        if let Some(Value::Object(members)) = place {
            match last {
                Some(last) => drop(members.insert(key.to_owned(), last)),
                None => drop(members.remove(key)),
            }
        }
    }
    repaired
}

/// Gives every key of the floor that the hub would lower its local value.
fn keep_floor(file: &str, local: &Settings, base: &mut Base) -> Vec<Problem> {
    let lowered = lowering::lowered(local, &base.settings);
    let kept = lowered.into_iter().filter(|lowered| local.floor.contains(&lowered.key));
    kept.map(|lowered| {
        lowering::keep(&lowered.key, local, &mut base.settings);
        base.origins.insert(lowered.key.clone(), Origin::Floor);
        let report = Report { fault: ConfigurationFault::Conflict, in_force: lowered.from.clone() };
        Problem {
            key: lowered.key,
            consequence: Some(format!("{} is in force", lowered.from)),
            report: Some(report),
            ..Problem::of_file(file, "nothing lower than the local edgewarden.floor allows", lowered.to)
        }
    })
    .collect()
}

/// One JSON object with each key once where keys are read, of a size worth looking into.
fn document(bytes: &[u8], version: u64) -> Result<Value, Box<Problem>> {
    let refuse = |expected: &str, found: String| refused(version, expected, found);
    if bytes.len() > MAX_DESIRED_BYTES {
        return Err(refuse("at most 64 KiB", format!("{} bytes", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| refuse("UTF-8", error.to_string()))?;
    let value: Value = serde_json::from_str(text).map_err(|error| refuse("JSON", error.to_string()))?;
    if !value.is_object() {
        return Err(refuse("an object", shown(text.trim())));
    }
    match repeated(text.trim(), 3) {
        Some(key) => Err(refuse("each key once", format!("{} again", shown(&key)))),
        None => Ok(value),
    }
}

/// A key that is there twice, as deep as keys are read.
fn repeated(object: &str, depth: usize) -> Option<String> {
    let members = members(object).filter(|_| depth > 0)?;
    let mut seen = std::collections::BTreeSet::new();
    members.iter().find_map(|entry| {
        if seen.insert(&entry.key) { repeated(entry.value, depth - 1) } else { Some(entry.key.clone()) }
    })
}

/// JSON merge patch (RFC 7396). Both are at most as deep as serde_json reads, 128 levels.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(members) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            members.remove(&key);
        } else {
            merge(members.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests;
