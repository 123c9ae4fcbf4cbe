//! Execs as they show in a repeated look at `/proc`, for where the kernel does not announce them.
//!
//! ```text
//! loadavg   0.02 0.04 0.01 2/133 901              the last field is the number that was given away last
//! look N    getdents of /proc: 812 (inode 5001), 900 (inode 7310)
//! look N+1  812 (5001), 900 (9944), 901 (9950)    900 is another process than before, 901 is new
//! ```
//!
//! While no number was given away there is no new process, and the look is spared. `/proc/PID` gets its inode when it
//! is first looked up and keeps it while the process lives and memory is not short, so one system call for hundreds of
//! processes tells who is new; only for those `stat` is read. A new process may not have executed yet, so it is looked
//! at again, a few times.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::sync::Arc;
use std::time::Duration;

use collector_common::collector::{Closed, Context, Failure};
use collector_common::parse::proc_pid::Stat;
use collector_common::root::Root;
use nix::sys::timerfd::Expiration;

use super::apart::{self, Undone};
use super::connector::STACK_BYTES;
use super::event::process_create;
use super::image::{Image, start_ticks};
use super::timer::Timer;
use super::{HELD_UP, draft, report_running};

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
    let mut seen = Seen { newest: newest(&cx.root), ..Seen::default() };
    seen.baseline(&cx.root, &list(&cx.root)?);
    if cx.settings.borrow().process_snapshot && report_running(cx).await.is_err() {
        return Ok(());
    }
    let looks = Timer::new().and_then(|timer| timer.set(Expiration::Interval(INTERVAL.into())).map(|()| timer));
    let looks = looks.map_err(|error| Failure(format!("no timer for looks at /proc could be set: {error}")))?;
    loop {
        looks
            .expired()
            .await
            .map_err(|error| Failure(format!("waiting for the next look at /proc failed: {error}")))?;
        if seen.is_current(newest(&cx.root)) {
            continue;
        }
        let executed;
        (seen, executed) = look_apart(&cx.root, seen).await?;
        let redaction = Arc::clone(&cx.settings.borrow().redaction);
        for (pid, image) in executed {
            if let Err(Closed) = cx.out.offer(draft(cx, process_create(pid, &image, &redaction))) {
                return Ok(());
            }
        }
    }
}

/// Looks in a thread of its own, which is left behind when a process holds it up: the arguments of one may lie on
/// a file system that answers when it likes, and the runtime must not wait for it.
async fn look_apart(root: &Root, mut seen: Seen) -> Result<(Seen, Vec<(i32, Image)>), Failure> {
    let root = root.clone();
    let look = move || {
        // Here, because this thread has a number too, which must not be the reason for the next look.
        seen.newest = newest(&root);
        let executed = list(&root).map(|entries| seen.look(&root, &entries));
        (seen, executed)
    };
    match apart::done("exec-look", STACK_BYTES, HELD_UP, look).await {
        Ok((seen, executed)) => Ok((seen, executed?)),
        Err(Undone::HeldUp) => Err(Failure(
            "a process holds up whoever reads its files in /proc, which hides what others execute: find and end it"
                .to_owned(),
        )),
        Err(Undone::Failed(why)) => Err(Failure(format!("looking at /proc failed: {why}"))),
    }
}

fn list(root: &Root) -> Result<Vec<Entry>, Failure> {
    pids(root).map_err(|error| {
        let path = root.path("/proc");
        Failure(format!("cannot list the processes in {}: {error}; is it mounted?", path.display()))
    })
}

/// The number that was given to a process or thread last. `None` where it is not that of the machine we look at: the
/// kernel tells the one of our own pid namespace, whatever `/proc` shows.
fn newest(root: &Root) -> Option<i32> {
    let shown = fs::read_link(root.path("/proc/self")).ok()?;
    if shown.to_str()?.parse() != Ok(std::process::id()) {
        return None;
    }
    fs::read_to_string(root.path("/proc/loadavg")).ok()?.split_ascii_whitespace().next_back()?.parse().ok()
}

/// What was seen in the last look.
#[derive(Debug, Default)]
struct Seen {
    /// [`newest`] before that look.
    newest: Option<i32>,
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

    /// Whether a look would find what the last one found: no process is new, and none is waited for.
    fn is_current(&self, newest: Option<i32>) -> bool {
        newest.is_some() && newest == self.newest && self.processes.values().all(|known| known.looks_left == 0)
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
        // A look in the middle of an exec finds the program without its arguments; the next look finds both.
        let half_done = self.looks_left > 0 && image.arguments.as_ref().is_some_and(|area| area.head.is_empty());
        let is_new = self.reported.as_ref().is_none_or(|old| differs(old, &image));
        let report = has_executed && !half_done && image.is_program() && is_new;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like a machine with this process.
    fn machine(pid: i32, start_ticks: u64, flags: u64, cmdline: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        write(&root, pid, start_ticks, flags, cmdline);
        (directory, root)
    }

    fn write(root: &Root, pid: i32, start_ticks: u64, flags: u64, cmdline: &str) {
        let process = root.path(format!("/proc/{pid}"));
        fs::create_dir_all(&process).unwrap();
        let stat = format!("{pid} (x) S 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 {start_ticks} 0 0");
        fs::write(process.join("stat"), stat).unwrap();
        fs::write(process.join("cmdline"), cmdline).unwrap();
        drop(fs::remove_file(process.join("exe")));
        std::os::unix::fs::symlink(format!("/bin/{}", cmdline.split('\0').next().unwrap()), process.join("exe"))
            .unwrap();
    }

    fn names(found: Vec<(i32, Image)>) -> Vec<String> {
        found.into_iter().map(|(_, image)| String::from_utf8(image.executable.unwrap()).unwrap()).collect()
    }

    /// Others start processes at the same time, but not between any two looks.
    #[tokio::test]
    async fn a_look_is_no_reason_for_the_next() {
        let root = Root::host();
        let mut seen = Seen::default();
        seen.baseline(&root, &list(&root).unwrap());
        for _ in 0..500 {
            (seen, _) = look_apart(&root, seen).await.unwrap();
            if seen.newest.is_some() && seen.newest == newest(&root) {
                return;
            }
        }
        panic!("something was new after each of many looks");
    }

    #[test]
    fn a_fork_is_no_exec_until_it_executes_and_each_exec_is_found_once() {
        let (_directory, root) = machine(7, 100, 0x40, "sh\0");
        let entries = [Entry { pid: 7, inode: 1 }];
        let mut seen = Seen::default();
        assert_eq!(names(seen.look(&root, &entries)), [""; 0]);
        write(&root, 7, 100, 0, "env\0x\0");
        assert_eq!(names(seen.look(&root, &entries)), ["/bin/env"]);
        write(&root, 7, 100, 0, "x\0");
        assert_eq!(names(seen.look(&root, &entries)), ["/bin/x"]);
        assert_eq!(names(seen.look(&root, &entries)), [""; 0]);
    }

    #[test]
    fn a_number_given_away_again_is_a_new_process_and_a_new_inode_alone_is_not() {
        let (_directory, root) = machine(7, 100, 0, "a\0");
        let mut seen = Seen::default();
        seen.baseline(&root, &[Entry { pid: 7, inode: 1 }]);
        assert_eq!(names(seen.look(&root, &[Entry { pid: 7, inode: 2 }])), [""; 0]);
        write(&root, 7, 200, 0, "b\0");
        assert_eq!(names(seen.look(&root, &[Entry { pid: 7, inode: 3 }])), ["/bin/b"]);
        // It is gone in between.
        assert_eq!(names(seen.look(&root, &[])), [""; 0]);
        assert_eq!(names(seen.look(&root, &[Entry { pid: 7, inode: 3 }])), ["/bin/b"]);
    }

    #[test]
    fn a_program_whose_arguments_are_not_there_yet_waits_for_the_next_look() {
        let (_directory, root) = machine(7, 100, 0, "");
        let entries = [Entry { pid: 7, inode: 1 }];
        let mut seen = Seen::default();
        assert_eq!(seen.look(&root, &entries), []);
        write(&root, 7, 100, 0, "x\0");
        assert_eq!(names(seen.look(&root, &entries)), ["/bin/x"]);
        // One that was started without any argument is believed in the end.
        write(&root, 8, 100, 0, "");
        let entries = [Entry { pid: 7, inode: 1 }, Entry { pid: 8, inode: 2 }];
        let found: Vec<usize> = (0..4).map(|_| seen.look(&root, &entries).len()).collect();
        assert_eq!(found, [0, 0, 1, 0]);
    }

    #[test]
    fn a_look_is_spared_only_while_nothing_can_be_new() {
        let (_directory, root) = machine(7, 100, 0, "a\0");
        let mut seen = Seen { newest: Some(900), ..Seen::default() };
        assert!(seen.is_current(Some(900)) && !seen.is_current(Some(901)) && !seen.is_current(None));
        seen.look(&root, &[Entry { pid: 7, inode: 1 }]);
        assert!(!seen.is_current(Some(900)), "the new process may execute once more");

        let before = newest(&Root::host()).unwrap();
        std::process::Command::new("true").status().unwrap();
        assert_ne!(newest(&Root::host()).unwrap(), before);
    }
}
