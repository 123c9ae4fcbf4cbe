//! The payload items, one struct per kind, fields in the order they are written.
//!
//! Ports, ids of users and groups and every value of `ExtraDetails` are strings; ids of processes are integers
//! (`messageEventTypeDefinitions_v1_0.json`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::kind::Kind;

/// The free part of an item. All values are strings, as the schema demands.
pub type ExtraDetails = BTreeMap<&'static str, String>;

/// The content of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// All accounts.
    LocalUsers(Vec<LocalUser>),
    /// All listeners and their peers.
    ListeningPorts(Vec<ListeningPort>),
    /// One login attempt, or the several that one line of a log stands for.
    Login(Vec<Login>),
    /// One exec.
    ProcessCreate(ProcessCreate),
    /// One remark of the agent.
    Diagnostic(Diagnostic),
    /// One setting that was refused.
    ConfigurationError(ConfigurationError),
    /// One item per queue that lost something.
    DroppedEventsStatistics(Vec<DroppedEvents>),
    /// Counters since the last one.
    MessageStatistics(MessageStatistics),
}

/// One account. `GroupIds` and `GroupNames` run index for index, the primary group first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LocalUser {
    /// Login name.
    pub user_name: String,
    /// Decimal uid.
    pub user_id: String,
    /// Names joined by `;`; a gid without a name is its number.
    pub group_names: String,
    /// Decimal gids joined by `;`.
    pub group_ids: String,
    /// Shell, home, password state and the like.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_details: ExtraDetails,
}

/// One listening socket, or one peer connected to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListeningPort {
    /// `TCP`, `UDP`, `UDPLITE` or `RAW`.
    pub protocol: &'static str,
    /// The address it is bound to.
    pub local_address: IpAddr,
    /// Decimal port; for a raw socket the IP protocol number.
    pub local_port: String,
    /// The peer, or the unspecified address of the family for a listener.
    pub remote_address: IpAddr,
    /// The peer's port, or `*` for a listener.
    pub remote_port: String,
    /// State, owner, network namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_details: ExtraDetails,
}

/// How an attempt to log in ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum LoginResult {
    /// Somebody is in.
    Success,
    /// Somebody is not.
    Fail,
}

impl LoginResult {
    /// The `Operation` that goes with the result, as consumers of the successor schema read it.
    pub fn operation(self) -> &'static str {
        match self {
            LoginResult::Success => "Login",
            LoginResult::Fail => "LoginFailed",
        }
    }
}

/// One attempt to log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Login {
    /// The process that handled the attempt; 0 when the source does not name it.
    pub process_id: i64,
    /// Decimal uid, when the account exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The account, `(invalid user)` or `(unknown user)`.
    pub user_name: String,
    /// [`LoginResult::operation`].
    pub operation: &'static str,
    /// The handler's canonical full path.
    pub executable: String,
    /// Where from; absent for a login from nowhere, because the guide searches for the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_address: Option<IpAddr>,
    /// Decimal port of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<String>,
    /// Decimal port that was logged into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<String>,
    /// How it ended.
    pub result: LoginResult,
    /// Method, source, attempted name and the like.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_details: ExtraDetails,
}

/// One exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessCreate {
    /// Full path of the binary image that runs.
    pub executable: String,
    /// The arguments, joined so that a POSIX shell would take them apart the same way.
    pub command_line: String,
    /// Decimal real uid.
    pub user_id: String,
    /// The process.
    pub process_id: i64,
    /// Its parent; 0 when it was gone before it could be asked.
    pub parent_process_id: i64,
    /// Effective uid, script, container and the like.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_details: ExtraDetails,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Severity {
    /// Evidence is lost or forged.
    Error,
    /// Something an operator should look at.
    Warning,
    /// For the record.
    Information,
}

/// One remark of the agent about itself or its sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A sentence for an operator.
    pub message: String,
    /// The agent's own process.
    pub process_id: i64,
    /// The agent's own thread; the process id for the main thread.
    pub thread_id: i64,
    /// Facts for a machine to group by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_details: ExtraDetails,
}

impl Diagnostic {
    /// A remark of this process. The main thread's id stands for all of them: a reader cannot use more.
    pub fn new(severity: Severity, message: impl Into<String>) -> Diagnostic {
        let pid = i64::from(std::process::id());
        Diagnostic {
            severity,
            message: message.into(),
            process_id: pid,
            thread_id: pid,
            extra_details: ExtraDetails::new(),
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Diagnostic {
        self.extra_details.insert(key, value.to_string());
        self
    }
}

/// What was wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ConfigurationFault {
    /// The value cannot be read as what the key holds.
    TypeMismatch,
    /// The value works and wastes something.
    NotOptimal,
    /// Two values contradict each other.
    Conflict,
}

/// One setting that was refused or is unwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigurationError {
    /// The twin key.
    pub configuration_name: String,
    /// What was wrong.
    pub error_type: ConfigurationFault,
    /// The value in force, as JSON text.
    pub used_configuration: String,
    /// A sentence for an operator.
    pub message: String,
}

/// What one queue took and lost since the last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DroppedEvents {
    /// `High` or `Low`.
    pub queue: &'static str,
    /// Events that were meant for the queue.
    pub collected_events: u64,
    /// Events of those that are lost.
    pub dropped_events: u64,
    /// Lost events per kind and cause.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_details: BTreeMap<String, String>,
}

/// Messages since the last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MessageStatistics {
    /// Acknowledged by the hub.
    pub messages_sent: u64,
    /// Of those, the ones that would cost a whole 4 KiB unit without filling it.
    #[serde(rename = "MessagesUnder4KB")]
    pub messages_under_4kb: u64,
    /// Sent and not acknowledged before the connection broke.
    pub total_failed: u64,
    /// Boot id and sequence numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_details: BTreeMap<String, String>,
}

impl Payload {
    /// The kind this payload belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            Payload::LocalUsers(_) => Kind::LocalUsers,
            Payload::ListeningPorts(_) => Kind::ListeningPorts,
            Payload::Login(_) => Kind::Login,
            Payload::ProcessCreate(_) => Kind::ProcessCreate,
            Payload::Diagnostic(_) => Kind::Diagnostic,
            Payload::ConfigurationError(_) => Kind::ConfigurationError,
            Payload::DroppedEventsStatistics(_) => Kind::DroppedEventsStatistics,
            Payload::MessageStatistics(_) => Kind::MessageStatistics,
        }
    }

    /// Every item as compact JSON, in order. This is the only time an event is serialised.
    pub fn to_items(&self) -> Result<Vec<String>, serde_json::Error> {
        fn all<T: Serialize>(items: &[T]) -> Result<Vec<String>, serde_json::Error> {
            items.iter().map(serde_json::to_string).collect()
        }
        match self {
            Payload::LocalUsers(items) => all(items),
            Payload::ListeningPorts(items) => all(items),
            Payload::Login(items) => items.iter().map(login_item).collect(),
            Payload::ProcessCreate(item) => all(std::slice::from_ref(item)),
            Payload::Diagnostic(item) => all(std::slice::from_ref(item)),
            Payload::ConfigurationError(item) => all(std::slice::from_ref(item)),
            Payload::DroppedEventsStatistics(items) => all(items),
            Payload::MessageStatistics(item) => all(std::slice::from_ref(item)),
        }
    }
}

/// A login from nowhere must not hold the text `RemoteAddress` in any case: the guide takes a row for remote when it
/// finds that text, and a user name is an attacker's to choose. Such text is broken by a hyphen.
fn login_item(item: &Login) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(item)?;
    if item.remote_address.is_some() {
        return Ok(text);
    }
    Ok(break_word(&text, "remoteaddress", "remote".len()))
}

/// Puts a hyphen into every occurrence of an ASCII word, whatever its case.
fn break_word(text: &str, word: &str, at: usize) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(found) = lower[done..].find(word) {
        let cut = done + found + at;
        out.push_str(&text[done..cut]);
        out.push('-');
        done = cut;
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console_login(user: &str) -> Payload {
        Payload::Login(vec![Login {
            process_id: 7,
            user_id: None,
            user_name: user.to_owned(),
            operation: LoginResult::Fail.operation(),
            executable: "/bin/login".to_owned(),
            remote_address: None,
            remote_port: None,
            local_port: None,
            result: LoginResult::Fail,
            extra_details: ExtraDetails::new(),
        }])
    }

    #[test]
    fn a_local_login_never_holds_the_word_the_guide_searches_for() {
        let items = console_login("xRemoteADDRESSremoteaddress").to_items().unwrap();
        assert!(!items[0].to_lowercase().contains("remoteaddress"), "{}", items[0]);
        assert!(items[0].contains("xRemote-ADDRESSremote-address"), "{}", items[0]);
    }

    #[test]
    fn slashes_are_not_escaped_and_the_json_is_compact() {
        let items = console_login("root").to_items().unwrap();
        assert_eq!(
            items[0],
            r#"{"ProcessId":7,"UserName":"root","Operation":"LoginFailed","Executable":"/bin/login","Result":"Fail"}"#
        );
    }
}
