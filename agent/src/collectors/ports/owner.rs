//! Which processes hold a socket.
//!
//! `/proc/PID/fd/N` of a socket is a link to `socket:[INODE]` (`proc_pid_fd(5)`), and there is no way from the socket
//! to the process. So who was found holding one is remembered: the next time that one link is looked at, and all files
//! only of processes that are new since. Only a socket that nobody is known to hold costs a walk over the files of all
//! processes.
//!
//! All files of one process are read through one handle of its directory, which dies with the process, so a pid that
//! is given to somebody else in the middle of it cannot mix two processes up.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use collector_common::parse::proc_pid;
use collector_common::root::Root;
use rustix::fs::{Mode, OFlags, RawDir, open, readlinkat_raw};

use crate::collectors::exec::image::start_ticks;

/// Enough for `status` up to its uids, and for all of `cgroup` but that of a very deep version 1 hierarchy.
const FILE_BYTES: usize = 4096;

/// More than `socket:[NUMBER]` has.
const LINK_BYTES: usize = 64;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Other holders of a socket that are named.
const OTHERS_NAMED: usize = 16;

/// Who a socket is attributed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: i32,
    /// What `/proc/PID/exe` names; the kernel adds ` (deleted)` to a binary that is gone.
    pub(super) executable: Option<String>,
    /// Real uid.
    pub(super) uid: Option<u32>,
    pub(super) container: Option<String>,
    /// Others that hold it too, the oldest first; not all of them when they are many.
    pub(super) others: Vec<i32>,
    /// How many processes hold it.
    pub(super) holders: usize,
    /// systemd opened it for a service.
    pub(super) activated: bool,
}

/// The owners of sockets by inode. A socket without one is held by no process.
pub(super) type Named = BTreeMap<u64, Option<Owner>>;

/// What is remembered of who holds what.
pub(super) struct Owners {
    root: Root,
    processes: BTreeSet<Process>,
    holds: Holds,
    places: BTreeMap<i32, Place>,
}

/// Where a process was found to run, and what it was executing then. It is hardly ever moved without executing
/// something.
#[derive(Clone)]
struct Place {
    executable: Option<String>,
    container: Option<String>,
}

/// A process, by its number and the number of its directory in `/proc`. The directory keeps that as long as the kernel
/// remembers it, at the most as long as the process lives, and it is told by the list of processes itself.
pub(super) type Process = (i32, u64);

/// Who holds a socket, by its inode.
pub(super) type Holds = BTreeMap<u64, Vec<Hold>>;

/// A process that holds a socket, and by which descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) pid: i32,
    pub(super) fd: u32,
}

impl Owners {
    pub(super) fn new(root: &Root) -> Owners {
        Owners { root: root.clone(), processes: BTreeSet::new(), holds: BTreeMap::new(), places: BTreeMap::new() }
    }

    /// Names the owners of these. Sockets that may be held by a process we cannot look into are left out.
    ///
    /// Of several holders the oldest is named, since the others have it from there; pid 1 only if there is no other,
    /// since it keeps the sockets it opened for a service.
    pub(super) fn name(&mut self, inodes: &BTreeSet<u64>) -> Named {
        if inodes.is_empty() {
            return Named::new();
        }
        self.update(inodes);
        self.describe_all(inodes)
    }

    /// The same, by what the kernel told of all processes just now.
    pub(super) fn name_by(&mut self, mut holds: Holds, inodes: &BTreeSet<u64>) -> Named {
        holds.retain(|inode, _| inodes.contains(inode));
        self.holds = holds;
        self.processes.clear();
        self.places.clear();
        self.describe_all(inodes)
    }

    /// Has it looked up again where each process runs.
    pub(super) fn forget_places(&mut self) {
        self.places.clear();
    }

    fn update(&mut self, inodes: &BTreeSet<u64>) {
        let root = &self.root;
        let running = running(root);
        let stayed: BTreeSet<i32> = running.intersection(&self.processes).map(|(pid, _)| *pid).collect();
        self.places.retain(|pid, _| stayed.contains(pid));
        let all_known = inodes.iter().all(|inode| self.holds.contains_key(inode));
        let known = if all_known { std::mem::take(&mut self.processes) } else { BTreeSet::new() };
        // Those that let go of one of these, or hold it by another number now.
        let mut moved = BTreeSet::new();
        self.holds.retain(|inode, holds| {
            holds.retain(|hold| {
                let is_wanted = all_known && inodes.contains(inode);
                let holds = is_wanted && still_holds(root, *inode, hold);
                if is_wanted && !holds {
                    moved.insert(hold.pid);
                }
                holds
            });
            !holds.is_empty()
        });
        let (asked, rest): (Vec<_>, Vec<_>) =
            running.iter().partition(|process| !known.contains(process) || moved.contains(&process.0));
        for (pid, _) in asked {
            self.note_sockets(pid, inodes);
        }
        if !inodes.iter().all(|inode| self.holds.contains_key(inode)) {
            for (pid, _) in rest {
                self.note_sockets(pid, inodes);
            }
        }
        self.processes = running;
    }

    fn note_sockets(&mut self, pid: i32, inodes: &BTreeSet<u64>) {
        for (inode, fd) in sockets_of(&self.root, pid).into_iter().filter(|(inode, _)| inodes.contains(inode)) {
            let holds = self.holds.entry(inode).or_default();
            holds.retain(|hold| hold.pid != pid);
            holds.push(Hold { pid, fd });
        }
    }

    fn describe_all(&mut self, inodes: &BTreeSet<u64>) -> Named {
        let mut processes: BTreeMap<i32, Owner> = BTreeMap::new();
        let mut starts: BTreeMap<i32, u64> = BTreeMap::new();
        let (root, places) = (&self.root, &mut self.places);
        let has_systemd = fs::read(root.path("/proc/1/comm")).is_ok_and(|name| name == b"systemd\n");
        let sees_all = hidden_owners().is_none();
        let mut named = Named::new();
        for inode in inodes {
            let Some(holds) = self.holds.get(inode).filter(|holds| !holds.is_empty()) else {
                if sees_all {
                    named.insert(*inode, None);
                }
                continue;
            };
            let mut holds = holds.clone();
            if holds.len() > 1 {
                // One that ended meanwhile is passed over below.
                let mut start = |pid| *starts.entry(pid).or_insert_with(|| start_ticks(root, pid).unwrap_or(0));
                holds.sort_by_cached_key(|hold| rank(hold.pid, start(hold.pid)));
            }
            let mut described = holds.iter().filter_map(|hold| {
                // One that has closed this socket meanwhile may still hold the next.
                match processes.entry(hold.pid) {
                    Entry::Occupied(known) => Some(known.get().clone()),
                    Entry::Vacant(new) => Some(new.insert(describe(root, *inode, hold, places)?).clone()),
                }
            });
            let Some(mut owner) = described.next() else { continue };
            owner.holders = holds.len();
            owner.activated = has_systemd && holds.iter().any(|hold| hold.pid == 1);
            let others = holds.iter().map(|hold| hold.pid).filter(|pid| *pid != owner.pid);
            owner.others = others.take(OTHERS_NAMED).collect();
            named.insert(*inode, Some(owner));
        }
        named
    }
}

/// What hides owners from us.
pub(super) fn gaps(root: &Root) -> Option<String> {
    root.is_host().then(hidden_owners).flatten()
}

fn hidden_owners() -> Option<String> {
    const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
    const CAP_SYS_PTRACE: u64 = 1 << 19;
    let remedy = "run as root or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";
    let needed = CAP_SYS_PTRACE | CAP_DAC_READ_SEARCH;
    match procfs::process::Process::myself().and_then(|process| process.status()) {
        Ok(status) if status.capeff & needed == needed => None,
        Ok(_) => Some(format!("which processes hold sockets of other users is unknown: {remedy}")),
        Err(error) => {
            Some(format!("which processes hold sockets is unknown, reading /proc/self/status failed: {error}"))
        }
    }
}

pub(super) fn running(root: &Root) -> BTreeSet<Process> {
    let entries = fs::read_dir(root.path("/proc")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.ino()))).collect()
}

/// The sockets a process holds. One that ends meanwhile, or may not be looked into, holds nothing we can name.
fn sockets_of(root: &Root, pid: i32) -> Vec<(u64, u32)> {
    let Ok(directory) = open(root.path(format!("/proc/{pid}/fd")), DIRECTORY, Mode::empty()) else {
        return Vec::new();
    };
    let mut sockets = Vec::new();
    let mut names = [MaybeUninit::uninit(); FILE_BYTES];
    let mut files = RawDir::new(&directory, &mut names);
    while let Some(Ok(file)) = files.next() {
        // Anything but `.` and `..`.
        let Some(fd) = file.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
        let mut target = [MaybeUninit::uninit(); LINK_BYTES];
        let target = readlinkat_raw(&directory, file.file_name(), &mut target);
        sockets.extend(target.ok().and_then(|(target, _)| Some((inode(target)?, fd))));
    }
    sockets
}

fn still_holds(root: &Root, wanted: u64, hold: &Hold) -> bool {
    let link = root.path(format!("/proc/{}/fd/{}", hold.pid, hold.fd));
    fs::read_link(link).is_ok_and(|target| inode(target.as_os_str().as_bytes()) == Some(wanted))
}

/// The number in `socket:[NUMBER]`.
fn inode(target: &[u8]) -> Option<u64> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// `None` when the process ended, and what was read may be another's that has its number now.
fn describe(root: &Root, inode: u64, hold: &Hold, places: &mut BTreeMap<i32, Place>) -> Option<Owner> {
    let process = root.path(format!("/proc/{}", hold.pid));
    let executable = executable(&process);
    let place = places.get(&hold.pid).filter(|place| place.executable == executable).cloned();
    let place = place.unwrap_or_else(|| Place {
        container: beginning(&process.join("cgroup")).and_then(|text| proc_pid::container_id(&text)),
        executable,
    });
    let owner = Owner {
        pid: hold.pid,
        executable: place.executable.clone(),
        uid: beginning(&process.join("status"))
            .and_then(|text| proc_pid::Status::parse(&text))
            .map(|status| status.uids.real),
        container: place.container.clone(),
        others: Vec::new(),
        holders: 1,
        activated: false,
    };
    still_holds(root, inode, hold).then(|| {
        places.insert(hold.pid, place);
        owner
    })
}

/// Of a small file of `/proc`, by one call: each makes the kernel write it anew.
fn beginning(path: &Path) -> Option<Vec<u8>> {
    let mut buffer = [0; FILE_BYTES];
    let bytes = File::open(path).ok()?.read(&mut buffer).ok()?;
    Some(buffer[..bytes].to_vec())
}

pub(super) fn executable(process: &Path) -> Option<String> {
    fs::read_link(process.join("exe")).ok().map(PathBuf::into_os_string).map(|it| it.to_string_lossy().into_owned())
}

fn rank(pid: i32, started: u64) -> (bool, u64, i32) {
    (pid == 1, started, pid)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    use super::*;

    fn inode_of(listener: &TcpListener) -> u64 {
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        inode(link.as_os_str().as_bytes()).unwrap()
    }

    fn me() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn our_own_listener_is_ours_and_remembered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = inode_of(&listener);
        let mut owners = Owners::new(&Root::host());
        for _ in 0..2 {
            let named = owners.name(&BTreeSet::from([inode]));
            let owner = named[&inode].as_ref().unwrap();
            assert_eq!(owner.pid, me());
            assert_eq!(owner.executable.as_deref(), std::env::current_exe().unwrap().to_str());
            assert_eq!(owner.uid, Some(nix::unistd::getuid().as_raw()));
        }
        drop(listener);
        let expected = hidden_owners().is_none().then_some(None);
        // Other tests start programs meanwhile, and each holds all of our files for a moment.
        let found = (0..1000).find(|_| owners.name(&BTreeSet::from([inode])).get(&inode).cloned() == expected);
        assert!(found.is_some(), "a socket that nobody holds any more has an owner");
    }

    #[test]
    fn a_child_that_inherits_the_socket_is_named_beside_the_parent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = inode_of(&listener);
        let mut owners = Owners::new(&Root::host());
        assert_eq!(owners.name(&BTreeSet::from([inode]))[&inode].as_ref().unwrap().pid, me());
        let inherited = Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));
        let mut child = Command::new("sleep").arg("1000").stdin(inherited).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let named = owners.name(&BTreeSet::from([inode]));
        child.kill().unwrap();
        child.wait().unwrap();
        let owner = named[&inode].as_ref().unwrap();
        assert!(owner.pid == me() && owner.others.contains(&pid) && owner.holders > 1, "{owner:?}");
        let after = owners.name(&BTreeSet::from([inode]));
        assert!(!after[&inode].as_ref().unwrap().others.contains(&pid), "{after:?}");
    }

    #[test]
    fn a_socket_that_moved_to_another_descriptor_keeps_its_owner() {
        let (stays, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let inodes = BTreeSet::from([inode_of(&stays), inode_of(&other)]);
        let mut owners = Owners::new(&Root::host());
        assert_eq!(owners.name(&inodes).len(), 2);
        let inode = inode_of(&stays);
        let moved = stays.try_clone().unwrap();
        drop(stays);
        let named = owners.name(&BTreeSet::from([inode]));
        assert_eq!(named[&inode].as_ref().map(|owner| owner.pid), Some(me()), "{named:?}");
        drop(moved);
    }

    #[test]
    fn the_oldest_holder_is_named_and_init_last() {
        let mut holders = [(1, 0), (900, 50), (300, 40), (301, 40)];
        holders.sort_by_key(|(pid, started)| rank(*pid, *started));
        assert_eq!(holders.map(|(pid, _)| pid), [300, 301, 900, 1]);
    }
}
