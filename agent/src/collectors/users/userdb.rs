//! Accounts that stand in no line of passwd: user records of systemd, and users it makes for services.
//!
//! ```text
//! /etc/userdb, /run/userdb, /run/host/userdb, /usr/lib/userdb    NAME.user, NAME.user-privileged,
//!                                                                NAME.group, USER:GROUP.membership
//! /run/systemd/dynamic-uid                                       direct:NAME ─▶ UID, a symbolic link
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use collector_common::parse::passwd::{Digest, Group, Password, PasswordLogin, User};
use collector_common::parse::userdb::{Record, group, membership, record, secrets};
use collector_common::root::Root;

use super::accounts::{Person, Source};
use super::files::{Unread, names_in, read};
use super::watch::Interests;

const FOLDERS: [&str; 4] = ["/etc/userdb", "/run/userdb", "/run/host/userdb", "/usr/lib/userdb"];
const DYNAMIC: &str = "/run/systemd/dynamic-uid";
const NAMES_AT_MOST: usize = 20_000;
const RECORD_BYTES: u64 = 64 * 1024;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Userdb {
    pub(super) people: Vec<Person>,
    pub(super) groups: Vec<Group>,
    /// User and group, by name.
    pub(super) memberships: Vec<(String, String)>,
    /// Each begins with the file's path.
    pub(super) faults: Vec<String>,
    pub(super) gap: Option<String>,
}

/// Reads everything. `known` are the names that passwd has, which comes first.
pub(super) fn look(root: &Root, interests: &mut Interests, known: &BTreeSet<String>, digest: Digest) -> Userdb {
    let mut found = Userdb::default();
    let mut taken = known.clone();
    for folder in FOLDERS.map(Path::new) {
        interests.want_all_in(folder);
        for name in names_in(&root.path(folder), NAMES_AT_MOST).unwrap_or_default() {
            let path = folder.join(&name);
            if let Some((user, group)) = membership(&name) {
                found.memberships.push((user.to_owned(), group.to_owned()));
            }
            // A record has a second name, its number, which is a symbolic link.
            let is_record = !root.path(&path).is_symlink();
            if is_record && name.ends_with(".group") {
                let read = read(&root.path(&path), RECORD_BYTES).map_err(|why| why.to_string());
                match read.and_then(|bytes| group(&bytes)) {
                    Ok(group) => found.groups.push(group),
                    Err(why) => found.faults.push(format!("{}: {why}", path.display())),
                }
            }
            if is_record && name.ends_with(".user") {
                found.take(read_record(root, &path, digest), &path, &mut taken);
            }
        }
    }
    found.people.extend(dynamic(root, &taken));
    found.groups.extend(found.people.iter().filter(|person| person.source == Source::Dynamic).map(own_group));
    found
}

impl Userdb {
    fn take(&mut self, read: Result<(Person, Option<String>), String>, path: &Path, taken: &mut BTreeSet<String>) {
        match read {
            Ok((person, gap)) if taken.insert(person.user.name.clone()) => {
                self.people.push(person);
                self.gap = self.gap.take().or(gap);
            }
            Ok((person, _)) => {
                let fault = format!("{}: {:?} is an account already, which counts", path.display(), person.user.name);
                self.faults.push(fault);
            }
            Err(why) => self.faults.push(format!("{}: {why}", path.display())),
        }
    }
}

/// Every user that systemd makes has a group of the same name and number.
fn own_group(person: &Person) -> Group {
    Group { name: person.user.name.clone(), gid: person.user.gid, members: Vec::new() }
}

/// A record, and what of it could not be read.
fn read_record(root: &Root, path: &Path, digest: Digest) -> Result<(Person, Option<String>), String> {
    let bytes = read(&root.path(path), RECORD_BYTES).map_err(|why| why.to_string())?;
    let Record { name, uid, gid, home, shell, groups, is_locked } = record(&bytes)?;
    let mut secret = secrets(&bytes, digest)?;
    let privileged = path.with_extension("user-privileged");
    let mut gap = None;
    match read(&root.path(&privileged), RECORD_BYTES) {
        Ok(bytes) => {
            let more = secrets(&bytes, digest)?;
            secret.password = secret.password.or(more.password);
            secret.keys = secret.keys + "\n" + &more.keys;
        }
        Err(Unread::Missing) => {}
        Err(why) => {
            let what = "passwords and keys of user records are unknown";
            gap = Some(format!("{what}, because reading {} failed: {why}", privileged.display()));
        }
    }
    let none = || gap.is_none().then(|| Password { login: PasswordLogin::No, digest: String::new() });
    let mut password = secret.password.or_else(none);
    if let Some(password) = password.as_mut().filter(|_| is_locked) {
        password.login = PasswordLogin::Locked;
    }
    let user = User { name, uid, gid, home, shell: shell.unwrap_or_default(), password };
    Ok((Person { user, source: Source::Userdb, keys: secret.keys, groups }, gap))
}

fn dynamic(root: &Root, taken: &BTreeSet<String>) -> Vec<Person> {
    let names = names_in(&root.path(DYNAMIC), NAMES_AT_MOST).unwrap_or_default();
    let person = |file: String| {
        let name = file.strip_prefix("direct:")?;
        let uid: u32 = fs::read_link(root.path(Path::new(DYNAMIC).join(&file))).ok()?.to_str()?.parse().ok()?;
        // The other link leads from the number to the name.
        if name.parse::<u32>().is_ok() || taken.contains(name) {
            return None;
        }
        let password = Some(Password { login: PasswordLogin::No, digest: String::new() });
        let (home, shell) = ("/".to_owned(), "/usr/sbin/nologin".to_owned());
        let user = User { name: name.to_owned(), uid, gid: uid, home, shell, password };
        Some(Person { user, source: Source::Dynamic, keys: String::new(), groups: Vec::new() })
    };
    names.into_iter().filter_map(person).collect()
}
