//! Execs as they show in a repeated look at `/proc`, for where the kernel does not announce them.
//!
//! ```text
//! look N    getdents of /proc: 812 (inode 5001), 900 (inode 7310)
//! look N+1  812 (5001), 900 (9944), 901 (9950)    900 is another process than before, 901 is new
//! ```
//!
//! `/proc/PID` gets its inode when it is first looked up and keeps it while the process lives and memory is not
//! short, so one system call for hundreds of processes tells who is new; only for those `stat` is read. A new process
//! may not have executed yet, so it is looked at again, a few times.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::time::Duration;

use collector_common::collector::{Closed, Context, Failure};
use collector_common::parse::proc_pid::Stat;
use collector_common::root::Root;
use tokio::time::{MissedTickBehavior, interval};

use super::event::process_create;
use super::image::{Image, start_ticks};
use super::{draft, report_running};

/// The words for `status` and `check`.
pub const NAME: &str = "/proc, looked at twice a second";

/// What this back end does not see.
pub const GAP: &str = "sees only programs that run for longer than half a second";

const INTERVAL: Duration = Duration::from_millis(500);

/// How often a new process is looked at again, to see what it executes after the fork.
const FURTHER_LOOKS: u8 = 2;

/// A process as a directory of `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub pid: i32,
    /// The inode of its directory.
    pub inode: u64,
}

/// The processes of a machine, in no order.
pub fn pids(root: &Root) -> io::Result<Vec<Entry>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(root.path("/proc"))? {
        let entry = entry?;
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            out.push(Entry { pid, inode: entry.ino() });
        }
    }
    Ok(out)
}

/// Reports execs until the recorder is gone.
pub async fn observe(cx: &Context) -> Result<(), Failure> {
    let mut seen = Seen::default();
    seen.baseline(&cx.root, &list(&cx.root)?);
    if cx.settings.borrow().process_snapshot && report_running(cx).await.is_err() {
        return Ok(());
    }
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (pid, image) in seen.look(&cx.root, &list(&cx.root)?) {
            if let Err(Closed) = cx.out.offer(draft(cx, process_create(pid, &image))) {
                return Ok(());
            }
        }
    }
}

fn list(root: &Root) -> Result<Vec<Entry>, Failure> {
    pids(root).map_err(|error| {
        let path = root.path("/proc");
        Failure(format!("cannot list the processes in {}: {error}; is it mounted?", path.display()))
    })
}

/// What was seen in the last look.
#[derive(Debug, Default)]
struct Seen {
    processes: HashMap<i32, Known>,
}

#[derive(Debug)]
struct Known {
    inode: u64,
    start_ticks: u64,
    looks_left: u8,
    reported: Option<Image>,
}

impl Seen {
    /// Takes the processes that already run for granted.
    fn baseline(&mut self, root: &Root, entries: &[Entry]) {
        for entry in entries {
            if let Some(start_ticks) = start_ticks(root, entry.pid) {
                let known = Known { inode: entry.inode, start_ticks, looks_left: 0, reported: None };
                self.processes.insert(entry.pid, known);
            }
        }
    }

    /// What executed since the last look.
    fn look(&mut self, root: &Root, entries: &[Entry]) -> Vec<(i32, Image)> {
        let mut next = HashMap::with_capacity(entries.len());
        let mut executed = Vec::new();
        for entry in entries {
            let before = self.processes.remove(&entry.pid).and_then(|known| known.still(root, *entry));
            let mut known = match before {
                Some(known) => known,
                None => match start_ticks(root, entry.pid) {
                    Some(start_ticks) => Known::new(entry.inode, start_ticks),
                    None => continue,
                },
            };
            if let Some(image) = known.look_again(root, entry.pid) {
                executed.push((entry.pid, image));
            }
            next.insert(entry.pid, known);
        }
        self.processes = next;
        executed
    }
}

impl Known {
    fn new(inode: u64, start_ticks: u64) -> Known {
        Known { inode, start_ticks, looks_left: 1 + FURTHER_LOOKS, reported: None }
    }

    /// Whether the entry is still this process. A new inode alone may only mean that the kernel was short of memory.
    fn still(mut self, root: &Root, entry: Entry) -> Option<Known> {
        if self.inode == entry.inode {
            return Some(self);
        }
        self.inode = entry.inode;
        (start_ticks(root, entry.pid) == Some(self.start_ticks)).then_some(self)
    }

    /// What it executed since it was last looked at.
    fn look_again(&mut self, root: &Root, pid: i32) -> Option<Image> {
        self.looks_left = self.looks_left.checked_sub(1)?;
        let image = Image::read(root, pid);
        let has_executed = !image.stat.as_ref().is_some_and(Stat::has_not_executed);
        let report =
            has_executed && image.is_program() && self.reported.as_ref().is_none_or(|old| differs(old, &image));
        if report {
            self.reported = Some(image.clone());
        }
        if self.looks_left == 0 {
            self.reported = None;
        }
        report.then_some(image)
    }
}

fn differs(old: &Image, new: &Image) -> bool {
    (&old.executable, &old.arguments) != (&new.executable, &new.arguments)
}
