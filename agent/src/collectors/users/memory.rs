//! What accounts were like when they were last reported, so that a change is told once, also one from while the agent
//! did not run.
//!
//! ```text
//! STATE/users.json   {"key": hex, "looks": [{"id": ..., "accounts": {NAME: {...}}}, ...]}    at most two looks
//! spool              the frame of the last snapshot names the look it was made of (its cursor)
//! ```
//!
//! The file is replaced before a snapshot is handed over, and holds the look before it too: whichever of the two the
//! spool names after a crash is the one that was reported. Passwords are kept as a digest under a random key of this
//! file's own; neither they nor the digest are ever sent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64ct::{Base64Unpadded, Encoding};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::accounts::Account;
use crate::spool::state::replace_file;

/// The name of the cursor.
pub(super) const CURSOR: &str = "users";
const FILE: &str = "users.json";

/// What is compared of an account. What is `None` is not known, and not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    pub(super) uid: String,
    pub(super) groups: String,
    pub(super) gids: String,
    pub(super) shell: String,
    pub(super) home: String,
    pub(super) password: Option<String>,
    pub(super) keys: Option<String>,
    pub(super) privileged: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Look {
    id: String,
    accounts: BTreeMap<String, Facts>,
}

#[derive(Serialize, Deserialize)]
struct File {
    key: String,
    looks: Vec<Look>,
}

/// The key, and the looks.
type Stored = (Vec<u8>, Vec<Look>);

/// Makes digests that mean nothing without the key.
#[derive(Clone)]
pub(super) struct Secret(Arc<hmac::Key>);

/// The accounts as they were.
pub(super) struct Memory {
    path: Option<PathBuf>,
    key: Vec<u8>,
    /// The last one reported is the last.
    looks: Vec<Look>,
    /// Why what is reported is not kept for the next start.
    pub(super) gap: Option<String>,
}

/// What is different from before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// `Change` of each row, in their order; empty for none.
    pub(super) words: Vec<String>,
    pub(super) vanished: Vec<String>,
    /// Accounts that kept their name and changed their uid or groups, with what they had before.
    pub(super) changed: Vec<String>,
}

impl Secret {
    pub(super) fn digest(&self, text: &str) -> String {
        let tag = hmac::sign(&self.0, text.as_bytes());
        Base64Unpadded::encode_string(&tag.as_ref()[..16])
    }
}

impl Memory {
    /// Reads the file. `reported` is what the spool names. The second value is a remark for when what was reported
    /// cannot be found any more.
    pub(super) fn load(directory: Option<&Path>, reported: Option<&str>) -> (Memory, Option<String>) {
        let path = directory.map(|directory| directory.join(FILE));
        let read = path.as_ref().map(|path| read(path)).unwrap_or(Ok(None));
        let (file, why) = match read {
            Ok(file) => (file, "it is gone".to_owned()),
            Err(why) => (None, why),
        };
        let (mut key, mut looks) = file.unwrap_or_default();
        if let Some(at) = looks.iter().position(|look| Some(look.id.as_str()) == reported) {
            looks.truncate(at + 1);
        }
        let lost = path.as_ref().filter(|_| looks.is_empty() && (reported.is_some() || why != "it is gone"));
        let remark = lost.map(|path| {
            format!(
                "how accounts changed while the agent did not run is not known, because of {}: {why}",
                path.display()
            )
        });
        if key.len() != 32 {
            key = vec![0; 32];
            // Without random numbers digests are those of this key, and are as secret as the file.
            SystemRandom::new().fill(&mut key).unwrap_or_default();
            looks.clear();
        }
        (Memory { path, key, looks, gap: None }, remark)
    }

    pub(super) fn secret(&self) -> Secret {
        Secret(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.key)))
    }

    /// Compares with what was reported last; nothing is different from nothing.
    pub(super) fn compare(&self, now: &[Account]) -> Differences {
        let Some(before) = self.looks.last().map(|look| &look.accounts) else {
            return Differences { words: vec![String::new(); now.len()], ..Differences::default() };
        };
        let mut differences = Differences::default();
        let named = named(now);
        for (name, account) in &named {
            let old = before.get(name);
            let word = if account.is_passing {
                String::new()
            } else {
                old.map_or("Added".to_owned(), |old| change(old, &account.facts))
            };
            differences.words.push(word);
            if let Some(old) = old.filter(|old| (&old.uid, &old.groups, &old.gids) != ids(&account.facts)) {
                let was = format!("{} (was uid {}, groups {})", account.row.user_name, old.uid, old.groups);
                differences.changed.push(was);
            }
        }
        let present: std::collections::BTreeSet<_> = now.iter().map(|account| account.row.user_name.as_str()).collect();
        let gone = before.keys().filter(|name| !name.contains(':') && !present.contains(name.as_str()));
        differences.vanished = gone.cloned().collect();
        differences
    }

    /// Takes what is reported now for what was reported last, and gives its cursor.
    pub(super) fn remember(&mut self, now: &[Account]) -> Option<String> {
        let kept = named(now).into_iter().filter(|(_, account)| !account.is_passing);
        let before = self.looks.last();
        let accounts: BTreeMap<_, _> = kept
            .map(|(name, account)| {
                let old = before.and_then(|look| look.accounts.get(&name));
                (name, account.facts.clone().or_as_before(old))
            })
            .collect();
        if before.is_none_or(|look| look.accounts != accounts) {
            self.looks.push(Look { id: Uuid::now_v7().to_string(), accounts });
            self.looks.drain(..self.looks.len().saturating_sub(2));
            self.gap = self.store().err();
        }
        let is_kept = self.path.is_some() && self.gap.is_none();
        self.looks.last().filter(|_| is_kept).map(|look| look.id.clone())
    }

    fn store(&self) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = File { key: Base64Unpadded::encode_string(&self.key), looks: self.looks.clone() };
        let bytes = serde_json::to_vec(&file).map_err(io::Error::from);
        bytes.and_then(|bytes| replace_file(path, &bytes)).map_err(|error| {
            format!(
                "a change while the agent does not run will not be told, because writing {} failed: {error}",
                path.display()
            )
        })
    }
}

impl Differences {
    pub(super) fn are_none(&self) -> bool {
        self.vanished.is_empty() && self.words.iter().all(String::is_empty)
    }
}

impl Facts {
    /// What cannot be known now is taken to be as it was.
    fn or_as_before(mut self, old: Option<&Facts>) -> Facts {
        if let Some(old) = old {
            self.password = self.password.or_else(|| old.password.clone());
            self.keys = self.keys.or_else(|| old.keys.clone());
            self.privileged = self.privileged.or_else(|| old.privileged.clone());
        }
        self
    }
}

fn read(path: &Path) -> Result<Option<Stored>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let file: File = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let key = Base64Unpadded::decode_vec(&file.key).map_err(|_| "its key is damaged".to_owned())?;
    Ok(Some((key, file.looks)))
}

fn ids(facts: &Facts) -> (&String, &String, &String) {
    (&facts.uid, &facts.groups, &facts.gids)
}

/// Accounts by name. A second one of a name, which no lookup by name finds, is told from the first by a `:`.
fn named(accounts: &[Account]) -> Vec<(String, &Account)> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let name = |account: &'_ Account, before: usize| match before {
        0 => account.row.user_name.clone(),
        before => format!("{}:{before}", account.row.user_name),
    };
    let with_name = accounts.iter().map(|account| {
        let count = seen.entry(&account.row.user_name).or_default();
        *count += 1;
        (name(account, *count - 1), account)
    });
    with_name.collect()
}

fn change(old: &Facts, new: &Facts) -> String {
    let differs = |old: &Option<String>, new: &Option<String>| old.is_some() && new.is_some() && old != new;
    let words = [
        ("UserId", old.uid != new.uid),
        ("Groups", (&old.groups, &old.gids) != (&new.groups, &new.gids)),
        ("Password", differs(&old.password, &new.password)),
        ("Shell", old.shell != new.shell),
        ("Home", old.home != new.home),
        ("Keys", differs(&old.keys, &new.keys)),
        ("Privileged", differs(&old.privileged, &new.privileged)),
    ];
    words.into_iter().filter(|(_, is)| *is).map(|(word, _)| word).collect::<Vec<_>>().join(";")
}
