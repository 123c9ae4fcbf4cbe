//! Network namespaces in which processes run: containers, sandboxed services, and what an intruder made to hide in.
//!
//! ```text
//! /proc/PID/ns/net ─▶ net:[NUMBER], of each process ─▶ one process for each number
//!   with CAP_SYS_ADMIN:  setns(2) ─▶ ask as at home ─▶ setns(2) back; by a thread that serves nobody else
//!   without:             /proc/PID/net of that process
//! ```
//!
//! Nothing of a namespace is kept open between two looks: it would live on when its last process has ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use collector_common::collector::Failure;
use collector_common::parse::proc_pid;
use collector_common::root::Root;
use nix::sched::{CloneFlags, setns};

use super::owner::{Process, running};
use super::pace::{self, Stopwatch};
use super::source::{Kept, Reader, Source};

/// So many are looked into; what is beyond is said. Any user may make some thousand.
pub(super) const LOOKED_INTO: usize = 128;

/// A process may move into a new namespace without being a new one, which nothing tells. Those that do, do it at their
/// beginning.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
const BEGINNING: Duration = Duration::from_secs(2);

/// The namespaces beside the agent's own.
pub(super) struct Namespaces {
    root: Root,
    own: Option<u32>,
    door: Door,
    /// By number, a process in each.
    found: BTreeMap<u32, i32>,
    /// How many more there are than are looked into.
    beyond: usize,
    searched: Option<Search>,
    /// In which namespace each process was seen, and when first.
    seen: BTreeMap<Process, (Option<u32>, Instant)>,
    /// Of `/proc/loadavg`.
    load: Kept,
    newest: Option<u64>,
    /// When all processes were asked.
    asked_all: Instant,
}

/// The last search.
struct Search {
    at: Instant,
    /// The number the newest process had then.
    newest: Option<u64>,
    cost: Duration,
}

/// How a namespace is looked into.
enum Door {
    /// By entering it; this is the way back.
    Open(File),
    /// By the tables of a process in it; why one may not enter.
    Ajar(String),
}

impl Namespaces {
    /// Of this machine; of a directory that looks like one there are none.
    pub(super) fn open(root: &Root) -> Namespaces {
        Namespaces::by(root, Door::open())
    }

    /// As for an agent that may not enter them.
    #[cfg(test)]
    pub(super) fn without_entering(root: &Root) -> Namespaces {
        Namespaces::by(root, Door::Ajar("not allowed".to_owned()))
    }

    fn by(root: &Root, door: Door) -> Namespaces {
        let (found, beyond) = (BTreeMap::new(), 0);
        Namespaces {
            root: root.clone(),
            own: number(root, "self"),
            door,
            found,
            beyond,
            searched: None,
            seen: BTreeMap::new(),
            load: Kept::open(&root.path("/proc/loadavg")),
            newest: None,
            asked_all: Instant::now(),
        }
    }

    /// Their numbers, by what was found last.
    pub(super) fn numbers(&self) -> Vec<u32> {
        self.found.keys().copied().collect()
    }

    /// The number the newest process had when processes were looked at last.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// A process in one.
    pub(super) fn process(&self, namespace: u32) -> Option<i32> {
        self.found.get(&namespace).copied()
    }

    /// Whether a number is one of those that are looked at.
    pub(super) fn knows(&self, namespace: u32) -> bool {
        self.own == Some(namespace) || self.found.contains_key(&namespace)
    }

    /// The number, unless it is the agent's own.
    pub(super) fn foreign(&self, namespace: u32) -> Option<u32> {
        (self.own != Some(namespace)).then_some(namespace)
    }

    /// Looks for them, if a process was started since the last time, or a while has passed. More rarely where that is
    /// dear: on some machines a process is started all the time.
    pub(super) fn refresh(&mut self) {
        if !self.root.is_host() {
            return;
        }
        self.newest = self.newest_pid();
        let newest = self.newest;
        let is_old = self.asked_all.elapsed() >= REFRESH_EVERY;
        let is_fresh = self
            .searched
            .as_ref()
            .is_some_and(|last| last.newest == newest || last.at.elapsed() < pace::until_look(last.cost) / 2);
        if is_old || !is_fresh {
            let search = Stopwatch::start();
            self.find(is_old);
            self.searched = Some(Search { at: Instant::now(), newest, cost: search.cost() });
        }
    }

    /// Whether a process was started since they were looked for.
    pub(super) fn is_behind(&self) -> bool {
        self.searched.as_ref().is_some_and(|last| last.newest != self.newest)
    }

    /// Looks for them anew.
    pub(super) fn search(&mut self) {
        self.find(true);
    }

    /// Looks for them, and asks again of processes that were there before only if `all` are asked.
    fn find(&mut self, all: bool) {
        let now = Instant::now();
        if all {
            self.asked_all = now;
        }
        self.found.clear();
        let before = std::mem::take(&mut self.seen);
        for process in running(&self.root) {
            let (namespace, since) = match before.get(&process) {
                Some((namespace, since)) if !all && since.elapsed() > BEGINNING => (*namespace, *since),
                old => (number(&self.root, &process.0.to_string()), old.map_or(now, |(_, since)| *since)),
            };
            self.seen.insert(process, (namespace, since));
            let pid = process.0;
            if let Some(namespace) = namespace.filter(|it| Some(*it) != self.own) {
                let known = self.found.entry(namespace).or_insert(pid);
                *known = pid.min(*known);
            }
        }
        self.beyond = self.found.len().saturating_sub(LOOKED_INTO);
        while self.found.len() > LOOKED_INTO {
            self.found.pop_last();
        }
    }

    /// What is not seen, a sentence each.
    pub(super) fn gaps(&self) -> Vec<String> {
        let beyond = (self.beyond > 0)
            .then(|| format!("sockets in {} network namespaces beyond {LOOKED_INTO} are not listed", self.beyond));
        let tables = match &self.door {
            Door::Ajar(why) if !self.found.is_empty() => Some(format!(
                "interfaces and dual-stack sockets of {} other network namespaces are not told by /proc/PID/net: {why}",
                self.found.len()
            )),
            _ => None,
        };
        beyond.into_iter().chain(tables).collect()
    }

    /// Reads one. `None` when it is no longer there. An error means that this thread may not go on: it is lost in
    /// another namespace than its own.
    pub(super) fn visit<T>(
        &self,
        namespace: u32,
        source: &Source,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let Some(pid) = self.found.get(&namespace) else { return Ok(None) };
        let Door::Open(home) = &self.door else {
            let seen = read(&mut source.beside(*pid));
            // Meanwhile the number may have become another process's.
            let is_same = number(&self.root, &pid.to_string()) == Some(namespace);
            return Ok(seen.ok().filter(|_| is_same));
        };
        let Ok(there) = File::open(self.root.path(format!("/proc/{pid}/ns/net"))) else { return Ok(None) };
        if there.metadata().is_ok_and(|it| it.ino() != u64::from(namespace)) {
            return Ok(None);
        }
        if setns(&there, CloneFlags::CLONE_NEWNET).is_err() {
            return Ok(None);
        }
        drop(there);
        let seen = source.there().and_then(|mut reader| read(&mut reader));
        setns(home, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            Failure(format!("coming back from network namespace {namespace} failed: setns: {}", errno.desc()))
        })?;
        Ok(seen.ok())
    }

    /// The number the kernel gave last, which grows with each process and thread (`proc_loadavg(5)`).
    fn newest_pid(&self) -> Option<u64> {
        self.load.text()?.split_ascii_whitespace().last()?.parse().ok()
    }
}

impl Door {
    /// To go where one is needs what to go elsewhere needs.
    fn open() -> Door {
        let here = "/proc/thread-self/ns/net";
        let home = match File::open(here) {
            Ok(home) => home,
            Err(error) => return Door::Ajar(format!("opening {here} failed: {error}")),
        };
        match setns(&home, CloneFlags::CLONE_NEWNET) {
            Ok(()) => Door::Open(home),
            Err(errno) => Door::Ajar(format!(
                "setns: {}; to enter them needs CAP_SYS_ADMIN, and in the unit setns and RestrictNamespaces=net",
                errno.desc()
            )),
        }
    }
}

fn number(root: &Root, process: &str) -> Option<u32> {
    let link = fs::read_link(root.path(format!("/proc/{process}/ns/net"))).ok()?;
    proc_pid::namespace(link.as_os_str().as_bytes())
}
