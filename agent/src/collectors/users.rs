//! The accounts of the machine: who could log in.
//!
//! ```text
//! /etc/passwd ─┐                       inotify on /etc ──▶ quiet for a second ──▶ read again
//! /etc/group  ─┼─▶ accounts() ─▶ Vec<LocalUser> ─▶ differs from the last? ─▶ a full snapshot, and an alarm that names
//! /etc/shadow ─┘   (pure)                          compare() (pure)          the accounts that vanished or changed
//! ```
//!
//! The directory is watched and not the files, because every tool replaces them by rename. A directory service (NIS,
//! LDAP) is not asked: its accounts are not the machine's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use collector_common::collector::{Collector, Context, Draft, Failure, Running, Settings, Survey};
use collector_common::event::kind::Kind;
use collector_common::event::payload::{Diagnostic, ExtraDetails, LocalUser, Payload, Severity};
use collector_common::parse::passwd::{Group, Parsed, PasswordLogin, Shadow, User, groups, shadows, users};
use collector_common::root::Root;
use tokio::time::{Instant, sleep};

use self::watch::Watch;

mod watch;

/// Reports the local accounts at start, at each snapshot interval and after each change.
pub struct LocalUsers;

/// The files as they are now.
struct Files {
    accounts: Vec<LocalUser>,
    /// Each begins with the file's path.
    faults: BTreeSet<String>,
    /// What could not be read beside passwd, as sentences.
    gaps: Vec<String>,
}

/// What an alarm names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Differences {
    vanished: Vec<String>,
    /// Accounts that kept their name and changed their uid or groups, with what they had before.
    changed: Vec<String>,
}

/// How many names or faults one Diagnostic spells out.
const NAMED_AT_MOST: usize = 20;

impl Collector for LocalUsers {
    fn kind(&self) -> Kind {
        Kind::LocalUsers
    }

    fn survey(&self, root: &Root, _settings: &Settings) -> Survey {
        let (backend, gap) = watch::survey(root);
        let lacks = match read_files(root) {
            Ok(files) => files.gaps.into_iter().chain(gap).collect(),
            Err(failure) => vec![failure.0],
        };
        Survey { backend: backend.to_owned(), lacks }
    }

    fn run(&self, cx: Context) -> Running {
        Box::pin(observe(cx))
    }
}

async fn observe(mut cx: Context) -> Result<(), Failure> {
    // The watch comes before the first look, so that nothing can change unseen between the two.
    let mut watch = Watch::open(&cx.root);
    let mut sent: Option<(Instant, Vec<LocalUser>)> = None;
    let mut told_faults = BTreeSet::new();
    let mut settings_live = true;
    loop {
        let files = read_files(&cx.root)?;
        let gaps: Vec<_> = files.gaps.iter().cloned().chain(watch.gap()).collect();
        cx.state.running(watch.backend(), (!gaps.is_empty()).then(|| gaps.join("; ")));
        let interval = cx.settings.borrow_and_update().snapshot_interval;
        let due = sent.as_ref().is_none_or(|(at, _)| at.elapsed() >= interval);
        let differs = sent.as_ref().is_some_and(|(_, before)| *before != files.accounts);
        let mut drafts = Vec::new();
        if due || differs {
            let before = sent.replace((Instant::now(), files.accounts.clone())).map(|(_, accounts)| accounts);
            let differences = compare(before.as_deref().unwrap_or_default(), &files.accounts);
            drafts.push(Draft::new(cx.clock.now(), Payload::LocalUsers(files.accounts)));
            drafts.extend(alarm(&differences).map(|diagnostic| Draft::alarm(cx.clock.now(), diagnostic)));
        }
        if files.faults != told_faults {
            drafts.extend(remark(&files.faults).map(|it| Draft::new(cx.clock.now(), Payload::Diagnostic(it))));
            told_faults = files.faults;
        }
        for draft in drafts {
            if cx.out.send(draft).await.is_err() {
                return Ok(());
            }
        }
        if cx.once {
            return Ok(());
        }
        let left = sent.as_ref().map_or(interval, |(at, _)| interval.saturating_sub(at.elapsed()));
        tokio::select! {
            () = watch.changed() => {}
            () = sleep(left) => {}
            settings = cx.settings.changed(), if settings_live => settings_live = settings.is_ok(),
        }
    }
}

fn read_files(root: &Root) -> Result<Files, Failure> {
    let passwd = fs::read(root.path("/etc/passwd")).map_err(|error| {
        Failure(format!("reading /etc/passwd failed: {error}; without it no account is known: make it readable"))
    })?;
    let mut gaps = Vec::new();
    let mut optional = |path: &str, without: &str| match fs::read(root.path(path)) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            gaps.push(gap(path, &error, without));
            None
        }
    };
    let group = optional("/etc/group", "groups are numbers and only the primary one is known");
    let shadow = optional("/etc/shadow", "whether an account has a password is unknown");
    let passwd = users(&passwd);
    let group = groups(&group.unwrap_or_default());
    let shadow = shadow.map(|bytes| shadows(&bytes));
    gaps.extend(unasked(root));
    let faults = [("/etc/passwd", &passwd.faults), ("/etc/group", &group.faults)]
        .into_iter()
        .chain(shadow.iter().map(|shadow| ("/etc/shadow", &shadow.faults)))
        .flat_map(|(path, faults)| faults.iter().map(move |fault| format!("{path} {fault}")))
        .collect();
    let accounts = accounts(&passwd.entries, &group.entries, shadow.as_ref());
    Ok(Files { accounts, faults, gaps })
}

/// Directory services that `nsswitch.conf(5)` names for accounts: whoever they know can log in and is not in a file.
fn unasked(root: &Root) -> Option<String> {
    let text = fs::read(root.path("/etc/nsswitch.conf")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("passwd:"))?;
    let services = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
    let services: Vec<_> = services
        .filter(|service| !matches!(*service, "files" | "compat" | "systemd") && !service.contains(['[', ']', '=']))
        .collect();
    let names = services.join(", ");
    (!services.is_empty()).then(|| format!("accounts that only {names} (/etc/nsswitch.conf) knows are not listed"))
}

fn gap(path: &str, error: &io::Error, without: &str) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => ": run as root or with CAP_DAC_READ_SEARCH",
        _ => "",
    };
    format!("{without}, because reading {path} failed: {error}{remedy}")
}

fn accounts(users: &[User], groups: &[Group], shadow: Option<&Parsed<Shadow>>) -> Vec<LocalUser> {
    let mut group_names: BTreeMap<u32, &str> = BTreeMap::new();
    let mut memberships: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for group in groups {
        group_names.entry(group.gid).or_insert(&group.name);
        for member in &group.members {
            memberships.entry(member).or_default().push(group.gid);
        }
    }
    let mut names_of_uid: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for user in users {
        names_of_uid.entry(user.uid).or_default().push(&user.name);
    }
    let mut passwords: BTreeMap<&str, PasswordLogin> = BTreeMap::new();
    for entry in shadow.into_iter().flat_map(|shadow| &shadow.entries) {
        passwords.entry(&entry.name).or_insert(entry.password);
    }
    let account = |user: &User| {
        let mut gids = vec![user.gid];
        for gid in memberships.get(user.name.as_str()).into_iter().flatten() {
            if !gids.contains(gid) {
                gids.push(*gid);
            }
        }
        let names = gids.iter().map(|gid| group_names.get(gid).map_or(gid.to_string(), |name| name.replace(';', "_")));
        // An account that points to shadow and is not in it has no password that could match.
        let from_shadow = || shadow.map(|_| passwords.get(user.name.as_str()).copied().unwrap_or(PasswordLogin::No));
        LocalUser {
            user_name: user.name.clone(),
            user_id: user.uid.to_string(),
            group_names: join(names),
            group_ids: join(gids.iter().map(u32::to_string)),
            extra_details: details(user, user.password.or_else(from_shadow), &names_of_uid),
        }
    };
    users.iter().map(account).collect()
}

fn details(user: &User, password: Option<PasswordLogin>, names_of_uid: &BTreeMap<u32, Vec<&str>>) -> ExtraDetails {
    let mut details = ExtraDetails::from([("Shell", user.shell.clone()), ("Home", user.home.clone())]);
    if let Some(password) = password {
        details.insert("PasswordLogin", password.word().to_owned());
    }
    let others = names_of_uid.get(&user.uid).into_iter().flatten().filter(|name| **name != user.name);
    let others = join(others.map(|name| name.replace(';', "_")));
    if !others.is_empty() {
        details.insert("SharedUserId", others);
    }
    if user.uid == 0 && user.name != "root" {
        details.insert("RootEquivalent", "true".to_owned());
    }
    details
}

fn compare(before: &[LocalUser], now: &[LocalUser]) -> Differences {
    let mut differences = Differences::default();
    for old in before {
        let mut same_name = now.iter().filter(|new| new.user_name == old.user_name).peekable();
        if same_name.peek().is_none() {
            differences.vanished.push(old.user_name.clone());
        } else if !same_name.any(|new| (&new.user_id, &new.group_ids) == (&old.user_id, &old.group_ids)) {
            let was = format!("{} (was uid {}, groups {})", old.user_name, old.user_id, old.group_names);
            differences.changed.push(was);
        }
    }
    differences
}

fn alarm(differences: &Differences) -> Option<Diagnostic> {
    let told = [("vanished", &differences.vanished), ("changed uid or groups", &differences.changed)];
    let told: Vec<_> = told.into_iter().filter(|(_, accounts)| !accounts.is_empty()).collect();
    if told.is_empty() {
        return None;
    }
    let sentence = told.iter().map(|(what, accounts)| format!("{what}: {}", shorten(accounts, ", ")));
    let message = format!("local accounts {}", sentence.collect::<Vec<_>>().join("; "));
    let mut diagnostic = Diagnostic::new(Severity::Warning, message);
    if !differences.vanished.is_empty() {
        diagnostic = diagnostic.with("VanishedUsers", shorten(&differences.vanished, ";"));
    }
    if !differences.changed.is_empty() {
        diagnostic = diagnostic.with("ChangedUsers", shorten(&differences.changed, ";"));
    }
    Some(diagnostic)
}

fn remark(faults: &BTreeSet<String>) -> Option<Diagnostic> {
    let all: Vec<_> = faults.iter().cloned().collect();
    let message = || format!("account files have lines that cannot be taken as they are: {}", shorten(&all, "; "));
    (!all.is_empty()).then(|| Diagnostic::new(Severity::Warning, message()).with("Faults", all.len()))
}

fn shorten(names: &[String], separator: &str) -> String {
    let shown = names[..names.len().min(NAMED_AT_MOST)].join(separator);
    match names.len().saturating_sub(NAMED_AT_MOST) {
        0 => shown,
        more => format!("{shown}{separator}and {more} more"),
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests;
