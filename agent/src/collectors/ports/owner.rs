//! Which process holds a socket.
//!
//! `/proc/PID/fd/N` of a socket is a link to `socket:[INODE]` (`proc_pid_fd(5)`). All files of one process are read
//! through one handle of its directory, which dies with the process, so a pid that is given to somebody else in the
//! middle of it cannot mix two processes up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use collector_common::root::Root;
use procfs::process::{FDTarget, Process, all_processes_with_root};

/// The process a socket is attributed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: i32,
    /// Clock ticks after boot, `/proc/PID/stat` field 22.
    pub(super) started: u64,
    /// What `/proc/PID/exe` names; the kernel adds ` (deleted)` to a binary that is gone.
    pub(super) executable: Option<String>,
    /// Real uid.
    pub(super) uid: Option<u32>,
}

const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// Walks over the open files of all processes once. A socket nobody visible holds is not in the result.
///
/// Of several holders the oldest is named, since the others have it from there; pid 1 only if there is no other, since
/// it keeps the sockets it opened for a service.
pub(super) fn owners(root: &Root, inodes: &BTreeSet<u64>) -> BTreeMap<u64, Owner> {
    let mut owners: BTreeMap<u64, Owner> = BTreeMap::new();
    if inodes.is_empty() {
        return owners;
    }
    // A process that ends during the walk, or may not be looked into, holds nothing we can name.
    for process in all_processes_with_root(root.path("/proc")).into_iter().flatten().flatten() {
        let Ok(files) = process.fd() else { continue };
        let held: BTreeSet<u64> = files
            .flatten()
            .filter_map(|file| match file.target {
                FDTarget::Socket(inode) if inodes.contains(&inode) => Some(inode),
                _ => None,
            })
            .collect();
        if held.is_empty() {
            continue;
        }
        let Some(owner) = describe(&process) else { continue };
        for inode in held {
            let known = owners.entry(inode).or_insert_with(|| owner.clone());
            if rank(&owner) < rank(known) {
                *known = owner.clone();
            }
        }
    }
    owners
}

/// What hides owners and sockets from us, a sentence each.
pub(super) fn gaps(root: &Root) -> Vec<String> {
    if !root.is_host() {
        return Vec::new();
    }
    let namespaces = match other_namespaces(root) {
        0 => None,
        1 => {
            Some("sockets in 1 other network namespace (a container or a sandboxed service) are not listed".to_owned())
        }
        many => {
            Some(format!("sockets in {many} other network namespaces (containers, sandboxed services) are not listed"))
        }
    };
    hidden_owners().into_iter().chain(namespaces).collect()
}

fn hidden_owners() -> Option<String> {
    let remedy = "run as root or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";
    let needed = CAP_SYS_PTRACE | CAP_DAC_READ_SEARCH;
    match Process::myself().and_then(|process| process.status()) {
        Ok(status) if status.capeff & needed == needed => None,
        Ok(_) => Some(format!("which processes hold sockets of other users is unknown: {remedy}")),
        Err(error) => {
            Some(format!("which processes hold sockets is unknown, reading /proc/self/status failed: {error}"))
        }
    }
}

/// How many network namespaces beside our own hold a process.
fn other_namespaces(root: &Root) -> usize {
    let namespace = |pid: &str| fs::read_link(root.path(format!("/proc/{pid}/ns/net"))).ok();
    let processes = all_processes_with_root(root.path("/proc")).into_iter().flatten().flatten();
    let mut namespaces: BTreeSet<_> = processes.filter_map(|process| namespace(&process.pid().to_string())).collect();
    if let Some(own) = namespace("self") {
        namespaces.remove(&own);
    }
    namespaces.len()
}

fn describe(process: &Process) -> Option<Owner> {
    Some(Owner {
        pid: process.pid(),
        started: process.stat().ok()?.starttime,
        executable: process.exe().ok().map(|path| path.to_string_lossy().into_owned()),
        uid: process.status().ok().map(|status| status.ruid),
    })
}

fn rank(owner: &Owner) -> (bool, u64, i32) {
    (owner.pid == 1, owner.started, owner.pid)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn our_own_listener_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let link = link.to_str().unwrap();
        let inode = link.strip_prefix("socket:[").and_then(|it| it.strip_suffix(']')).unwrap().parse().unwrap();
        let owners = owners(&Root::host(), &BTreeSet::from([inode, u64::MAX]));
        assert_eq!(owners.len(), 1);
        let owner = &owners[&inode];
        assert_eq!(owner.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(owner.executable.as_deref(), std::env::current_exe().unwrap().to_str());
        assert_eq!(owner.uid, Some(nix::unistd::getuid().as_raw()));
    }

    #[test]
    fn the_oldest_holder_is_named_and_init_last() {
        let owner = |pid, started| Owner { pid, started, executable: None, uid: None };
        let mut holders = [owner(1, 0), owner(900, 50), owner(300, 40), owner(301, 40)];
        holders.sort_by_key(rank);
        assert_eq!(holders.map(|holder| holder.pid), [300, 301, 900, 1]);
    }
}
