//! What makes an account more than others: uid 0, groups that are as good as root, and the rules of sudo.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use collector_common::parse::sudoers::{Sudoers, Who};
use collector_common::root::Root;

use super::files::{Unread, names_in, read};
use super::watch::Interests;

/// Whoever is in one of these can become root: by sudo as Debian, Ubuntu and Fedora set it up, by a container that mounts
/// `/`, by writing to a disk or to the kernel's memory, or by the hashes of all passwords.
const POWERFUL: [&str; 13] = [
    "root",
    "sudo",
    "wheel",
    "admin",
    "docker",
    "podman",
    "lxd",
    "incus",
    "incus-admin",
    "libvirt",
    "disk",
    "kmem",
    "shadow",
];
const SUDOERS: &str = "/etc/sudoers";
const FILE_BYTES: u64 = 1 << 20;
const FILES_AT_MOST: usize = 256;
const INCLUDES_DEEP: usize = 16;

/// The rules of sudo, as far as they can be read.
#[derive(Debug, Default)]
pub(super) struct Rules {
    sudoers: Sudoers,
    /// Each begins with the file's path.
    pub(super) faults: Vec<String>,
    pub(super) gap: Option<String>,
    files_read: usize,
}

impl Rules {
    pub(super) fn of(root: &Root, interests: &mut Interests) -> Rules {
        let mut rules = Rules::default();
        rules.read(root, interests, Path::new(SUDOERS), 0);
        rules
    }

    fn read(&mut self, root: &Root, interests: &mut Interests, path: &Path, depth: usize) {
        if depth > INCLUDES_DEEP || self.files_read >= FILES_AT_MOST {
            self.gap = Some("sudoers includes more files than are read".to_owned());
            return;
        }
        self.files_read += 1;
        interests.want(path);
        let bytes = match read(&root.path(path), FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(Unread::Missing) => return,
            Err(why) => {
                self.gap = Some(format!("rules of sudo are missing, because reading {} failed: {why}", path.display()));
                return;
            }
        };
        let read = self.sudoers.read(&bytes);
        self.faults.extend(read.faults.iter().map(|fault| format!("{} {fault}", path.display())));
        for include in read.includes {
            let host = || std::fs::read_to_string(root.path("/etc/hostname")).unwrap_or_default();
            let named =
                if include.path.contains("%h") { include.path.replace("%h", host().trim()) } else { include.path };
            let target = path.parent().unwrap_or(Path::new("/")).join(named);
            let files = if include.is_folder { files_in(root, interests, &target) } else { vec![target] };
            for file in files {
                self.read(root, interests, &file, depth + 1);
            }
        }
    }

    /// What raises an account, joined by `;`. Empty when nothing does.
    pub(super) fn privileged(&self, who: Who) -> String {
        let root = (who.uid == 0).then(|| "uid0".to_owned());
        // What uid 0 may do besides says nothing.
        let is_root = who.uid == 0;
        let groups: BTreeSet<_> = who.groups.iter().filter(|group| POWERFUL.contains(group) && !is_root).collect();
        let groups = groups.into_iter().map(|group| format!("group:{group}"));
        let grants = if is_root { BTreeSet::new() } else { self.sudoers.grants(who) };
        let words = grants.into_iter().rev().map(|grant| grant.word().to_owned());
        root.into_iter().chain(groups).chain(words).collect::<Vec<_>>().join(";")
    }
}

/// sudo passes over names with a `.` or a `~` at the end: what editors and package managers leave behind.
fn files_in(root: &Root, interests: &mut Interests, folder: &Path) -> Vec<PathBuf> {
    interests.want_all_in(folder);
    let names = names_in(&root.path(folder), FILES_AT_MOST).unwrap_or_default();
    let names = names.into_iter().filter(|name| !name.contains('.') && !name.ends_with('~'));
    names.map(|name| folder.join(name)).collect()
}
