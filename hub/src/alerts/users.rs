//! Decisions about accounts: two snapshots that follow each other, compared.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;

use super::{Finding, shown};

/// The accounts of a device at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When.
    pub at: Timestamp,
    /// By name.
    pub accounts: BTreeMap<String, Account>,
}

/// What an account may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Uid.
    pub user_id: String,
    /// Names of its groups.
    pub groups: BTreeSet<String>,
}

/// The keys of a `LocalUsers` item that matter here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UserItem {
    /// Account name; `None` in the row of an empty snapshot.
    pub user_name: Option<String>,
    /// Uid.
    pub user_id: String,
    /// Joined by `;`.
    pub group_names: String,
}

impl Snapshot {
    /// Puts the rows of a snapshot together. Two accounts of one name count as one with the groups of both.
    pub fn new(at: Timestamp, items: impl IntoIterator<Item = UserItem>) -> Snapshot {
        let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
        for item in items {
            let Some(name) = item.user_name else { continue };
            let account = accounts.entry(name).or_default();
            account.user_id = item.user_id;
            account.groups.extend(item.group_names.split(';').filter(|name| !name.is_empty()).map(str::to_owned));
        }
        Snapshot { at, accounts }
    }
}

/// Who has more groups, or is new.
pub fn added_to_group(before: &Snapshot, after: &Snapshot) -> Vec<Finding> {
    let nobody = Account::default();
    let changes = after.accounts.iter().map(|(name, account)| {
        let old = before.accounts.get(name);
        let groups = difference(account, old.unwrap_or(&nobody));
        let new = if old.is_none() { "the new user " } else { "" };
        (name, account, groups, new)
    });
    changes
        .filter(|(_, _, groups, _)| !groups.is_empty())
        .map(|(name, account, groups, new)| {
            let sentence = format!("Now {new}{} is in {}.", shown(name), shown(&groups));
            finding(before, after, name, account, groups, sentence)
        })
        .collect()
}

/// Who has fewer groups and is still there.
pub fn deleted_from_group(before: &Snapshot, after: &Snapshot) -> Vec<Finding> {
    let pairs = before.accounts.iter().filter_map(|(name, old)| Some((name, old, after.accounts.get(name)?)));
    let losses = pairs.map(|(name, old, new)| (name, new, difference(old, new)));
    losses
        .filter(|(_, _, groups)| !groups.is_empty())
        .map(|(name, account, groups)| {
            let sentence = format!("{} is no longer in {}.", shown(name), shown(&groups));
            finding(before, after, name, account, groups, sentence)
        })
        .collect()
}

/// Who is gone.
pub fn deleted(before: &Snapshot, after: &Snapshot) -> Vec<Finding> {
    let gone = before.accounts.iter().filter(|(name, _)| !after.accounts.contains_key(*name));
    gone.map(|(name, account)| {
        let groups = difference(account, &Account::default());
        let sentence = format!("{} with uid {} is gone.", shown(name), shown(&account.user_id));
        finding(before, after, name, account, groups, sentence)
    })
    .collect()
}

fn difference(account: &Account, without: &Account) -> String {
    account.groups.difference(&without.groups).map(String::as_str).collect::<Vec<_>>().join(";")
}

/// The two moments say between when and when it happened.
fn finding(
    before: &Snapshot,
    after: &Snapshot,
    name: &str,
    account: &Account,
    groups: String,
    sentence: String,
) -> Finding {
    Finding {
        facts: vec![name.to_owned(), after.at.to_string()],
        from: before.at,
        to: after.at,
        sentence,
        properties: vec![("User Name", name.to_owned()), ("User Id", account.user_id.clone()), ("Groups", groups)],
    }
}
