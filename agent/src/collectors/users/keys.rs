//! Keys that let somebody in as an account, where sshd and dropbear look for them.

use std::fmt::Write;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64Unpadded, Encoding};
use collector_common::parse::authorized_keys::{self, Key};
use collector_common::parse::sshd_config::{Line, key_file, lines};
use collector_common::root::Root;
use ring::digest;

use super::files::{Unread, names_in, read, read_if};
use super::watch::Interests;

/// Where sshd looks when nobody tells it otherwise.
const DEFAULT_FILES: [&str; 2] = [".ssh/authorized_keys", ".ssh/authorized_keys2"];
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
const DROPBEAR_OF_ROOT: &str = "/etc/dropbear/authorized_keys";
const CONFIG_BYTES: u64 = 1 << 20;
const KEY_FILE_BYTES: u64 = 1 << 20;
const INCLUDES_DEEP: usize = 16;
const FILES_AT_MOST: usize = 256;
/// So many keys of one account are told apart; more are counted.
const KEYS_AT_MOST: usize = 1024;
/// So many fingerprints are sent.
const FINGERPRINTS_SENT: usize = 16;

/// What sshd is told about key files.
#[derive(Debug, Default)]
pub(super) struct Places {
    patterns: Vec<String>,
    /// Those of `Match` blocks, which may hold for an account or not.
    matched: Vec<String>,
    is_set: bool,
    /// Ways for keys that stand in no file, and what could not be read.
    pub(super) gaps: Vec<String>,
    files_read: usize,
}

/// Whose keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) name: &'a str,
    pub(super) uid: u32,
    pub(super) gids: &'a [u32],
    pub(super) home: &'a str,
}

/// The keys of an account.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) count: usize,
    fingerprints: Vec<String>,
    pub(super) files: Vec<String>,
    /// Files that are there and were not read, each with the reason.
    pub(super) unread: Vec<String>,
    /// A file is there, and the agent may not read it: nothing is known.
    pub(super) denied: Option<String>,
}

impl Places {
    /// Reads the configuration of sshd.
    pub(super) fn of(root: &Root, interests: &mut Interests) -> Places {
        let mut places = Places::default();
        places.read(root, interests, Path::new(SSHD_CONFIG), &mut false, 0);
        if !places.is_set {
            places.patterns = DEFAULT_FILES.map(str::to_owned).into();
        }
        places.patterns.append(&mut places.matched);
        places.gaps.sort();
        places.gaps.dedup();
        places
    }

    fn read(&mut self, root: &Root, interests: &mut Interests, path: &Path, is_matched: &mut bool, depth: usize) {
        if depth > INCLUDES_DEEP || self.files_read >= FILES_AT_MOST {
            self.gaps.push("the configuration of sshd includes too many files".to_owned());
            return;
        }
        self.files_read += 1;
        interests.want(path);
        let bytes = match read(&root.path(path), CONFIG_BYTES) {
            Ok(bytes) => bytes,
            Err(Unread::Missing) => return,
            Err(why) => {
                self.gaps.push(format!(
                    "keys in unusual places are not looked for, because reading {} failed: {why}",
                    path.display()
                ));
                return;
            }
        };
        let in_match_above = *is_matched;
        for line in lines(&bytes) {
            match line {
                Line::Match { is_all } => *is_matched = !is_all || in_match_above,
                Line::KeyFiles(patterns) if *is_matched => self.matched.extend(patterns),
                Line::KeyFiles(patterns) if !self.is_set => (self.patterns, self.is_set) = (patterns, true),
                Line::KeyFiles(_) => {}
                Line::Include(globs) => {
                    for glob in globs {
                        for file in matching(root, interests, &glob) {
                            self.read(root, interests, &file, &mut is_matched.clone(), depth + 1);
                        }
                    }
                }
                Line::Elsewhere(keyword) => self.gaps.push(format!("keys that {keyword} of sshd gives are not listed")),
            }
        }
    }

    /// Looks at the files of an account.
    pub(super) fn look(&self, root: &Root, interests: &mut Interests, owner: Owner) -> Found {
        let mut found = Found::default();
        let uid = owner.uid.to_string();
        let mut paths: Vec<_> =
            self.patterns.iter().filter_map(|pattern| key_file(pattern, owner.name, &uid, owner.home)).collect();
        paths.extend((owner.uid == 0).then(|| DROPBEAR_OF_ROOT.to_owned()));
        paths.sort();
        paths.dedup();
        for path in paths.into_iter().filter(|path| path.starts_with('/') && !path.contains('\0')) {
            interests.want(Path::new(&path));
            match read_if(&root.path(&path), KEY_FILE_BYTES, |meta| may_read(meta, owner)) {
                Ok(bytes) => {
                    found.add(&authorized_keys::keys(&bytes, KEYS_AT_MOST));
                    found.files.push(path);
                }
                Err(Unread::Missing) => {}
                Err(Unread::Denied(error)) => found.denied = Some(format!("{path}: {error}")),
                Err(Unread::Refused(why)) => found.unread.push(format!("{path}: {why}")),
            }
        }
        found
    }
}

/// sshd reads with the rights of the account, so a file that the account may not read lets nobody in. And somebody who
/// links to what others keep secret does not get the agent to read it for him.
fn may_read(meta: &Metadata, owner: Owner) -> Result<(), String> {
    let mode = meta.permissions().mode();
    let may = owner.uid == 0
        || if meta.uid() == owner.uid {
            mode & 0o400 != 0
        } else if owner.gids.contains(&meta.gid()) {
            mode & 0o040 != 0
        } else {
            mode & 0o004 != 0
        };
    if may { Ok(()) } else { Err(format!("it belongs to uid {}, and the account may not read it", meta.uid())) }
}

impl Found {
    /// Adds keys of a file or a user record.
    pub(super) fn add(&mut self, keys: &authorized_keys::Keys) {
        self.count += keys.count;
        let room = KEYS_AT_MOST.saturating_sub(self.fingerprints.len());
        self.fingerprints.extend(keys.keys.iter().take(room).map(fingerprint));
    }

    /// What is sent of the fingerprints.
    pub(super) fn fingerprints(&self) -> String {
        let mut text = self.fingerprints[..self.fingerprints.len().min(FINGERPRINTS_SENT)].join(";");
        if self.count > FINGERPRINTS_SENT {
            // Writing to a String cannot fail.
            write!(text, ";and {} more", self.count - FINGERPRINTS_SENT).unwrap_or_default();
        }
        text
    }

    /// A text that is another when the keys are others.
    pub(super) fn identity(&self) -> String {
        let mut all: Vec<_> = self.fingerprints.iter().chain(&self.unread).map(String::as_str).collect();
        all.sort_unstable();
        format!("{} {}", self.count, all.join(" "))
    }
}

/// As `ssh-keygen -l` prints it, and as sshd logs it.
fn fingerprint(key: &Key) -> String {
    let hash = Base64Unpadded::encode_string(digest::digest(&digest::SHA256, &key.blob).as_ref());
    let authority = if key.is_authority { "cert-authority " } else { "" };
    format!("{authority}SHA256:{hash}")
}

/// The files an `Include` of sshd names, in its order. Wildcards are understood in the name of the file.
fn matching(root: &Root, interests: &mut Interests, glob: &str) -> Vec<PathBuf> {
    let glob = Path::new("/etc/ssh").join(glob);
    let (Some(folder), Some(pattern)) = (glob.parent(), glob.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    if !pattern.contains(['*', '?']) {
        return vec![glob];
    }
    interests.want_all_in(folder);
    let names = names_in(&root.path(folder), FILES_AT_MOST).unwrap_or_default();
    let fits = names.into_iter().filter(|name| !name.starts_with('.') && wildcard(pattern.as_bytes(), name.as_bytes()));
    fits.map(|name| folder.join(name)).collect()
}

/// Whether a name fits `*` and `?`.
fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name, mut star) = (0, 0, None);
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[in_name] => (at, in_name) = (at + 1, in_name + 1),
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (at, in_name) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, name, fits) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", true),
            ("*.conf", "a.conf~", false),
            ("a*b*c", "a-b-b-c", true),
            ("??", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(wildcard(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}
