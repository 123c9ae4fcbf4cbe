//! Rows made of the entries of all sources. Pure, but for the keys and shells that are looked up on the way.

use std::collections::{BTreeMap, BTreeSet};

use collector_common::event::payload::{ExtraDetails, LocalUser};
use collector_common::parse::passwd::{Group, Password, Shadow, User};
use collector_common::parse::sudoers::Who;
use jiff::civil::Date;
use jiff::{Span, ToSpan};

use super::keys::Found;
use super::memory::Facts;

/// Where an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// passwd.
    Files,
    /// A user record of systemd.
    Userdb,
    /// Made by systemd for a service, for as long as it runs.
    Dynamic,
    /// Somewhere `getent` knows of.
    Services,
}

/// An account of any source.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) user: User,
    pub(super) source: Source,
    /// Lines as of `authorized_keys`, of a user record.
    pub(super) keys: String,
    /// Groups a record puts it in, by name.
    pub(super) groups: Vec<String>,
}

/// A row, and what of it is compared with before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) row: LocalUser,
    pub(super) facts: Facts,
    /// It comes and goes with a service, which is no news.
    pub(super) is_passing: bool,
}

/// All there is to make rows of.
pub(super) struct Entries {
    pub(super) people: Vec<Person>,
    pub(super) groups: Vec<Group>,
    /// `None` when it could not be read.
    pub(super) shadow: Option<Vec<Shadow>>,
    /// Days since 1970; `None` while the clock cannot be right.
    pub(super) today: Option<i64>,
}

/// What is looked up for each account.
pub(super) trait Lookup {
    /// Its keys; `None` when they cannot be known.
    fn keys(&mut self, person: &Person, gids: &[u32]) -> Option<Found>;
    /// What raises it; `None` when not all of it can be known.
    fn privileged(&mut self, who: Who) -> (String, bool);
    /// Why its shell lets nobody in, or nobody who asks `/etc/shells`.
    fn shell_refuses(&mut self, shell: &str) -> Option<&'static str>;
    /// A digest nobody can undo.
    fn digest(&self, text: &str) -> String;
}

/// A row for each account, in the order of the sources.
pub(super) fn accounts(entries: &Entries, lookup: &mut dyn Lookup) -> Vec<Account> {
    let index = Index::of(entries);
    entries.people.iter().map(|person| account(person, entries, &index, lookup)).collect()
}

/// So that ten thousand accounts are no hundred million comparisons.
struct Index<'a> {
    group_names: BTreeMap<u32, &'a str>,
    gids: BTreeMap<&'a str, u32>,
    memberships: BTreeMap<&'a str, Vec<u32>>,
    names_of_uid: BTreeMap<u32, Vec<&'a str>>,
    shadow: BTreeMap<&'a str, &'a Shadow>,
}

impl Index<'_> {
    fn of(entries: &Entries) -> Index<'_> {
        let mut index = Index {
            group_names: BTreeMap::new(),
            gids: BTreeMap::new(),
            memberships: BTreeMap::new(),
            names_of_uid: BTreeMap::new(),
            shadow: BTreeMap::new(),
        };
        for group in &entries.groups {
            index.group_names.entry(group.gid).or_insert(&group.name);
            index.gids.entry(&group.name).or_insert(group.gid);
            for member in &group.members {
                index.memberships.entry(member).or_default().push(group.gid);
            }
        }
        for person in &entries.people {
            index.names_of_uid.entry(person.user.uid).or_default().push(&person.user.name);
        }
        // Lookups by name find the first line only.
        for entry in entries.shadow.iter().flatten() {
            index.shadow.entry(&entry.name).or_insert(entry);
        }
        index
    }
}

fn account(person: &Person, entries: &Entries, index: &Index, lookup: &mut dyn Lookup) -> Account {
    let user = &person.user;
    let mut gids = vec![user.gid];
    let by_name = person.groups.iter().filter_map(|name| index.gids.get(name.as_str()));
    let mut seen = BTreeSet::from([user.gid]);
    for gid in index.memberships.get(user.name.as_str()).into_iter().flatten().chain(by_name) {
        if seen.insert(*gid) {
            gids.push(*gid);
        }
    }
    let group_names: Vec<_> = gids.iter().filter_map(|gid| index.group_names.get(gid).copied()).collect();
    let who = Who { name: &user.name, uid: user.uid, groups: &group_names, gids: &gids };
    let (privileged, is_complete) = lookup.privileged(who);
    let found = lookup.keys(person, &gids);
    let (password, shadow) = password(person, entries, index);
    let mut details = details(user, person.source);
    if let Some(password) = &password {
        details.insert("PasswordLogin", password.login.word().to_owned());
    }
    add_dates(&mut details, shadow, entries.today);
    let mut add = |key, value: String| (!value.is_empty()).then(|| details.insert(key, value));
    let others = index.names_of_uid.get(&user.uid).into_iter().flatten().filter(|name| **name != user.name);
    add("SharedUserId", join(others.map(|name| name.replace(';', "_"))));
    add("Privileged", privileged.clone());
    add("ShellRefuses", lookup.shell_refuses(&user.shell).unwrap_or_default().to_owned());
    if let Some(found) = &found {
        add("AuthorizedKeys", if found.count > 0 { found.count.to_string() } else { String::new() });
        add("KeyFingerprints", found.fingerprints());
        add("KeyFiles", join(found.files.iter().map(|file| file.replace(';', "_"))));
        add("KeysUnread", join(found.unread.iter().map(|file| file.replace(';', "_"))));
    }
    let names =
        gids.iter().map(|gid| index.group_names.get(gid).map_or(gid.to_string(), |name| name.replace(';', "_")));
    let row = LocalUser {
        user_name: user.name.clone(),
        user_id: user.uid.to_string(),
        group_names: join(names),
        group_ids: join(gids.iter().map(u32::to_string)),
        extra_details: details,
    };
    let facts = Facts {
        uid: row.user_id.clone(),
        groups: row.group_names.clone(),
        gids: row.group_ids.clone(),
        shell: user.shell.clone(),
        home: user.home.clone(),
        password: password.map(|password| password_facts(&password, shadow)),
        keys: found.map(|found| lookup.digest(&found.identity())),
        privileged: is_complete.then_some(privileged),
    };
    Account { row, facts, is_passing: person.source == Source::Dynamic }
}

fn password<'a>(person: &Person, entries: &Entries, index: &Index<'a>) -> (Option<Password>, Option<&'a Shadow>) {
    use collector_common::parse::passwd::PasswordLogin;
    if person.source != Source::Files {
        return (person.user.password.clone(), None);
    }
    let shadow = index.shadow.get(person.user.name.as_str()).copied();
    // An account that points to shadow and is not in it has no password that could match.
    let none = || entries.shadow.as_ref().map(|_| Password { login: PasswordLogin::No, digest: String::new() });
    (person.user.password.clone().or_else(|| shadow.map(|entry| entry.password.clone())).or_else(none), shadow)
}

/// The days count too: `chage` and `passwd -e` change nothing else.
fn password_facts(password: &Password, shadow: Option<&Shadow>) -> String {
    let days = shadow.map(|entry| (entry.changed, entry.max_days, entry.inactive_days, entry.expires));
    let days = days.map(|(one, two, three, four)| {
        [one, two, three, four].map(|day| day.map_or(String::new(), |day| day.to_string())).join(":")
    });
    format!("{}:{}", password.digest, days.unwrap_or_default())
}

fn details(user: &User, source: Source) -> ExtraDetails {
    let mut details = ExtraDetails::from([("Shell", user.shell.clone()), ("Home", user.home.clone())]);
    let source = match source {
        Source::Files => None,
        Source::Userdb => Some("userdb"),
        Source::Dynamic => Some("dynamic"),
        Source::Services => Some("services"),
    };
    if let Some(source) = source {
        details.insert("Source", source.to_owned());
    }
    if user.uid == 0 && user.name != "root" {
        details.insert("RootEquivalent", "true".to_owned());
    }
    details
}

fn add_dates(details: &mut ExtraDetails, shadow: Option<&Shadow>, today: Option<i64>) {
    let Some(shadow) = shadow else { return };
    if let Some(expired) = today.and_then(|today| shadow.expired(today)) {
        details.insert("Expired", expired.to_owned());
    }
    // Day 0 means "at the next login", which `Expired` says.
    for (key, day) in [("PasswordChanged", shadow.changed.filter(|day| *day > 0)), ("AccountExpires", shadow.expires)] {
        if let Some(date) = day.and_then(date) {
            details.insert(key, date.to_string());
        }
    }
}

fn date(days_since_1970: i64) -> Option<Date> {
    let span: Span = 0.days().try_days(days_since_1970).ok()?;
    jiff::civil::date(1970, 1, 1).checked_add(span).ok()
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(";")
}
