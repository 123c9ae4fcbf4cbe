//! Decisions about logins.
//!
//! Password guessing is [`FAILURES`] failed logins from one address within [`WINDOW`]. Microsoft never published its
//! numbers; these are fail2ban's (`maxretry = 5`, `findtime = 10m` in its `jail.conf`), the ones most boards that
//! count at all count by. A person who forgot a password gets three prompts from one `ssh`.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Number;

use super::{Finding, hour, shown};

/// So many failures are an attack.
pub const FAILURES: usize = 5;

/// Within this time.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// A login, and what came before it.
#[derive(Clone, Debug)]
pub struct Login {
    /// When.
    pub at: Timestamp,
    /// What the row says.
    pub item: LoginItem,
    /// When logins from the same address failed, up to and with this one and not more than [`WINDOW`] before it: the
    /// latest [`FAILURES`], latest first.
    pub failures: Vec<Timestamp>,
}

/// The keys of a `Login` item that matter here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LoginItem {
    /// Account name.
    pub user_name: Option<String>,
    /// Uid.
    pub user_id: Option<String>,
    /// The handler.
    pub executable: String,
    /// Its process.
    pub process_id: Option<Number>,
    /// The peer.
    pub remote_address: Option<String>,
    /// The peer's port.
    pub remote_port: Option<String>,
    /// `Success` or `Fail`.
    pub result: String,
    /// Everything else.
    pub extra_details: ExtraDetails,
}

/// The keys of its `ExtraDetails` that matter here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExtraDetails {
    /// What stood in the place of an address.
    pub remote_host: Option<String>,
    /// `password`, `publickey` and the like.
    pub method: Option<String>,
    /// What was typed for a name.
    pub attempted_user_name: Option<String>,
    /// Console.
    pub terminal: Option<String>,
}

/// A success behind so many failures.
pub fn successful_brute_force(login: &Login) -> Option<Finding> {
    let address = login.item.remote_address.as_deref()?;
    let start = attack_start(login).filter(|_| login.item.succeeded())?;
    let facts = vec![address.to_owned(), login.item.user().to_owned(), hour(login.at)];
    let sentence = format!(
        "{} logged in from {} after {FAILURES} or more failed logins within {} minutes.",
        shown(login.item.user()),
        shown(address),
        WINDOW.as_mins()
    );
    Some(finding(login, facts, start, sentence))
}

/// One failure too many.
pub fn failed_brute_force(login: &Login) -> Option<Finding> {
    let address = login.item.remote_address.as_deref()?;
    let start = attack_start(login).filter(|_| !login.item.succeeded())?;
    let sentence = format!(
        "{FAILURES} or more logins from {} failed within {} minutes, the last as {}.",
        shown(address),
        WINDOW.as_mins(),
        shown(login.item.user())
    );
    Some(finding(login, vec![address.to_owned(), hour(login.at)], start, sentence))
}

/// Somebody is at the console.
pub fn successful_local_login(login: &Login) -> Option<Finding> {
    let item = &login.item;
    (item.succeeded() && item.is_local()).then(|| {
        let sentence = format!("{} logged in by {}.", shown(item.user()), shown(&item.executable));
        finding(login, local_facts(login), login.at, sentence)
    })
}

/// Somebody is at the console and does not get in.
pub fn failed_local_login(login: &Login) -> Option<Finding> {
    let item = &login.item;
    (!item.succeeded() && item.is_local()).then(|| {
        let sentence = format!("{} could not log in by {}.", shown(item.user()), shown(&item.executable));
        finding(login, local_facts(login), login.at, sentence)
    })
}

fn attack_start(login: &Login) -> Option<Timestamp> {
    let start = login.failures.get(FAILURES - 1)?;
    (login.at.duration_since(*start) <= WINDOW).then_some(*start)
}

fn local_facts(login: &Login) -> Vec<String> {
    vec![login.item.user().to_owned(), login.item.executable.clone(), hour(login.at)]
}

/// The keys are those of the published examples.
fn finding(login: &Login, facts: Vec<String>, from: Timestamp, sentence: String) -> Finding {
    let item = &login.item;
    let optional = [
        ("Remote Address", &item.remote_address),
        ("Remote Port", &item.remote_port),
        ("Login Method", &item.extra_details.method),
        ("Attempted User Name", &item.extra_details.attempted_user_name),
        ("Terminal", &item.extra_details.terminal),
    ];
    let mut properties = vec![("User Name", item.user().to_owned()), ("Login Handler", item.executable.clone())];
    properties.extend(item.process_id.as_ref().map(|id| ("Login Process Id", id.to_string())));
    properties.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
    Finding { facts, from, to: login.at, sentence, properties }
}

impl LoginItem {
    /// Whether somebody got in.
    pub fn succeeded(&self) -> bool {
        self.result == "Success"
    }

    /// The name, or the uid where there is no name.
    pub fn user(&self) -> &str {
        self.user_name.as_deref().or(self.user_id.as_deref()).unwrap_or_default()
    }

    /// Whether it came from no other machine. A host name in the place of an address is another machine.
    fn is_local(&self) -> bool {
        match &self.remote_address {
            None => self.extra_details.remote_host.is_none(),
            Some(address) => {
                address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
            }
        }
    }
}
