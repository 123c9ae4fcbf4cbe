//! Alerts: what stored rows mean, under the names the published service gave it.
//!
//! [`RULES`] is the whole list. A decision is a pure function of one row and what the store holds beside it; who asks
//! the store is `store::derive`. The id of an alert is made of the facts it states, so the same facts are one alert
//! however often, and in whatever order, their rows arrive.
//!
//! Names, severities and alert types are those of the published lists (Defender for IoT, "agent-based security alerts"
//! and "micro agent security alerts"; `IoT_Bruteforce_Fail` and `IoT_Bruteforce_Success` from its API reference). Types
//! that were never published are marked.

pub mod logins;
pub mod miners;
pub mod users;

use jiff::{SignedDuration, Timestamp};
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};
use uuid::Uuid;

use logins::Login;
use miners::Process;
use users::Snapshot;

/// One kind of alert.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// `AlertName` and `DisplayName`.
    pub name: &'static str,
    /// `AlertType`.
    pub alert_type: &'static str,
    /// Whether the service published this type, or it is our word.
    pub type_is_published: bool,
    /// `AlertSeverity`.
    pub severity: Severity,
    /// The first sentence of `Description`.
    pub description: &'static str,
    /// `RemediationSteps`.
    pub remediation: &'static str,
    /// `Tactics` (MITRE ATT&CK).
    pub tactics: &'static str,
    /// `Techniques` (MITRE ATT&CK).
    pub techniques: &'static str,
    /// When it is raised.
    pub decide: Decide,
}

/// `AlertSeverity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Look now.
    High,
    /// Look soon.
    Medium,
    /// Know it.
    Low,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub enum Decide {
    /// A `Login` row, and the failures from the same address before it.
    Login(fn(&Login) -> Option<Finding>),
    /// A `ProcessCreate` row.
    Process(fn(&Process) -> Option<Finding>),
    /// Two `LocalUsers` snapshots of one device that follow each other.
    Users(fn(&Snapshot, &Snapshot) -> Vec<Finding>),
    /// The moment of a device's last message, and now.
    Silence(fn(Timestamp, Timestamp) -> Option<Finding>),
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What makes it this alert and no other, besides device and rule.
    pub facts: Vec<String>,
    /// First moment it is about.
    pub from: Timestamp,
    /// Last moment it is about.
    pub to: Timestamp,
    /// The second sentence of `Description`. Device texts in it are [`shown`].
    pub sentence: String,
    /// `ExtendedProperties`, besides the device.
    pub properties: Vec<(&'static str, String)>,
}

/// Every rule.
pub const RULES: &[Rule] = &[
    Rule {
        name: "Successful Bruteforce attempt",
        alert_type: "IoT_Bruteforce_Success",
        type_is_published: true,
        severity: Severity::High,
        description: "A login succeeded right after many failed ones from the same address: a password may have been guessed.",
        remediation: "Ask the user whether the login was theirs. If not, change the password, look at what ran on the device since, and check it for malware.",
        tactics: "CredentialAccess",
        techniques: "T1110",
        decide: Decide::Login(logins::successful_brute_force),
    },
    Rule {
        name: "Failed Bruteforce attempt",
        alert_type: "IoT_Bruteforce_Fail",
        type_is_published: true,
        severity: Severity::Low,
        description: "Many logins from one address failed within a short time: somebody may be guessing passwords.",
        remediation: "Look whether a login from this address succeeded. Let the device be reached only from where it must be, and by keys only.",
        tactics: "CredentialAccess",
        techniques: "T1110",
        decide: Decide::Login(logins::failed_brute_force),
    },
    Rule {
        name: "Successful local login",
        alert_type: "IoT_SucessfulLocalLogin",
        type_is_published: true,
        severity: Severity::High,
        description: "Somebody logged in at the device itself.",
        remediation: "Make sure that this user was to be at the device at this time.",
        tactics: "InitialAccess",
        techniques: "T1078",
        decide: Decide::Login(logins::successful_local_login),
    },
    Rule {
        name: "Failed local login",
        alert_type: "IoT_FailedLocalLogin",
        type_is_published: true,
        severity: Severity::Medium,
        description: "Somebody tried to log in at the device itself and failed.",
        remediation: "Make sure that nobody gets to the device who should not.",
        tactics: "InitialAccess",
        techniques: "T1078",
        decide: Decide::Login(logins::failed_local_login),
    },
    Rule {
        name: "Crypto coin miner image",
        alert_type: "IoT_CryptoMiner",
        type_is_published: true,
        severity: Severity::High,
        description: "A program or command line that belongs to the mining of digital currency was executed.",
        remediation: "Ask the user who ran it. If nobody knows of it, treat the device as broken into: look how it got there before it is removed.",
        tactics: "Impact",
        techniques: "T1496",
        decide: Decide::Process(miners::crypto_miner),
    },
    Rule {
        name: "Local user added to one or more groups",
        alert_type: "IoT_LocalUserAddedToGroup",
        type_is_published: false,
        severity: Severity::Low,
        description: "A local user is in a group it was not in before, or is new.",
        remediation: "Check that the user needs what the group may do.",
        tactics: "Persistence,PrivilegeEscalation",
        techniques: "T1098,T1136",
        decide: Decide::Users(users::added_to_group),
    },
    Rule {
        name: "Local user deleted from one or more groups",
        alert_type: "IoT_LocalUserDeletedFromGroup",
        type_is_published: false,
        severity: Severity::Low,
        description: "A local user is no longer in a group it was in before.",
        remediation: "Check that this was meant, and that nobody is locked out who is needed.",
        tactics: "Impact",
        techniques: "T1531",
        decide: Decide::Users(users::deleted_from_group),
    },
    Rule {
        name: "Local user deletion detected",
        alert_type: "IoT_LocalUserDeletion",
        type_is_published: false,
        severity: Severity::Low,
        description: "A local user is gone.",
        remediation: "Check that this was meant. An intruder removes users to lock others out or to hide what was done.",
        tactics: "Impact",
        techniques: "T1531",
        decide: Decide::Users(users::deleted),
    },
    Rule {
        name: "Device silent",
        alert_type: "IoT_DeviceSilent",
        type_is_published: false,
        severity: Severity::Low,
        description: "The device has sent nothing in the last 72 hours.",
        remediation: "Check that the device is on and online, and that its agent runs.",
        tactics: "",
        techniques: "",
        decide: Decide::Silence(silent),
    },
];

/// How long a device may send nothing: the published 72 hours.
pub const SILENT_AFTER: SignedDuration = SignedDuration::from_hours(72);

fn silent(last_seen: Timestamp, now: Timestamp) -> Option<Finding> {
    (now.duration_since(last_seen) >= SILENT_AFTER).then(|| Finding {
        facts: vec![last_seen.to_string()],
        from: last_seen,
        to: now,
        sentence: format!("Its last message came at {last_seen:.0}."),
        properties: vec![("Last Message", last_seen.to_string())],
    })
}

impl Severity {
    /// The word in the table.
    pub fn name(self) -> &'static str {
        match self {
            Severity::High => "High",
            Severity::Medium => "Medium",
            Severity::Low => "Low",
        }
    }
}

/// The id of an alert, made of what it states.
pub fn id(rule: &Rule, device: &str, finding: &Finding) -> Uuid {
    let facts = finding.facts.iter().map(String::as_str);
    content_id(&[rule.alert_type, device].into_iter().chain(facts).collect::<Vec<_>>())
}

/// A UUID of version 8 (RFC 9562) from a SHA-256 of texts. Each is preceded by its length, so that no two lists of texts
/// read the same.
pub fn content_id(texts: &[&str]) -> Uuid {
    let mut digest = Context::new(&SHA256);
    for text in texts {
        digest.update(&(text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    }
    let mut id = [0; 16];
    id.copy_from_slice(&digest.finish().as_ref()[..16]);
    Uuid::new_v8(id)
}

/// `ExtendedProperties`: JSON text with the device in it, where the investigation guide searches for it.
pub fn properties(device: &str, finding: &Finding) -> String {
    let mut map = Map::new();
    for (key, value) in &finding.properties {
        map.insert((*key).to_owned(), Value::String(cut(value, 512)));
    }
    map.insert("DeviceId".to_owned(), Value::String(device.to_owned()));
    Value::Object(map).to_string()
}

/// A device's text in a sentence: quoted, nothing a terminal would obey, and not longer than a sentence bears.
pub fn shown(text: &str) -> String {
    format!("{:?}", cut(text, 96))
}

fn cut(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}[...]", &text[..end]),
        None => text.to_owned(),
    }
}

/// The hour of a moment. What goes on for hours is one alert an hour, so that a flood of rows is no flood of alerts.
fn hour(at: Timestamp) -> String {
    at.as_second().div_euclid(3600).to_string()
}

#[cfg(test)]
mod tests;
