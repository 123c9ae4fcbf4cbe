//! Notices that a file changed that rows are made of.
//!
//! ```text
//! want("/home/pi/.ssh/authorized_keys")    the deepest folder that exists is watched for the name that comes next
//!    no .ssh yet: /home/pi  for ".ssh"     (inotify(7)); a symbolic link is watched, and what it points to
//!    else:   /home/pi/.ssh  for "authorized_keys"
//! ```
//!
//! Folders are watched and not files, because every tool replaces them by rename. Each look at the accounts begins a
//! watch of its own, before it reads, so that nothing can change unseen in between and no watch grows stale.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use collector_common::root::Root;
use collector_common::sys::inotify::EventQueue;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::time::{Instant, sleep, timeout_at};

/// A quarter of a second without news means that a tool is done.
const QUIET: Duration = Duration::from_millis(250);
/// Somebody who touches a file all the time does not get to hide what else he does to it.
const QUIET_AT_LATEST: Duration = Duration::from_secs(2);
/// The tools of shadow hold these while they replace one account file after the other; on slow flash that takes longer.
const LOCKS: [&str; 4] = ["/etc/passwd.lock", "/etc/group.lock", "/etc/shadow.lock", "/etc/gshadow.lock"];
const LOCKED: [&str; 3] = ["passwd", "group", "shadow"];
const LOCKED_AT_LATEST: Duration = Duration::from_secs(10);
/// Files nobody asked about can change a thousand times a second in a folder that is watched.
const BREATH: Duration = Duration::from_millis(100);
/// A user has 8192 watches on a small board, and is not alone.
const FOLDERS_AT_MOST: usize = 1024;
const LINKS_AT_MOST: usize = 8;
/// `IN_MASK_ADD` (inotify(7)): two paths may lead to one folder.
const MASK_ADD: AddWatchFlags = AddWatchFlags::from_bits_retain(0x2000_0000);

/// What is to be noticed.
pub(super) struct Interests {
    root: Root,
    inotify: Result<Inotify, String>,
    names: HashMap<WatchDescriptor, Names>,
    refused: Option<String>,
}

enum Names {
    All,
    Some(BTreeSet<OsString>),
}

impl Interests {
    pub(super) fn new(root: &Root) -> Interests {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(|errno| format!("inotify_init1() failed: {}", errno.desc()));
        Interests { root: root.clone(), inotify, names: HashMap::new(), refused: None }
    }

    /// Notices when what this path names becomes another, comes or goes.
    pub(super) fn want(&mut self, path: &Path) {
        let mut path = path.to_owned();
        for _ in 0..LINKS_AT_MOST {
            self.want_name(&path);
            let target = fs::read_link(self.root.path(&path));
            let (Ok(target), Some(folder)) = (target, path.parent()) else { return };
            path = folder.join(target);
        }
    }

    /// Notices every change of a name in this folder, and the folder itself.
    pub(super) fn want_all_in(&mut self, folder: &Path) {
        self.want(folder);
        if self.root.path(folder).is_dir() {
            self.watch(folder, None, true);
        }
    }

    fn want_name(&mut self, path: &Path) {
        // A folder that is made right now is met on the second try.
        for _ in 0..4 {
            let Some((mut folder, mut name)) = parts(path) else { return };
            while !self.root.path(folder).is_dir() {
                let Some(above) = parts(folder) else { return };
                (folder, name) = above;
            }
            let is_last = path.parent() == Some(folder);
            self.watch(folder, Some(name), is_last);
            if is_last || !self.root.path(folder.join(name)).is_dir() {
                return;
            }
        }
    }

    /// While a folder is waited for, it is nobody's business what is written beside it.
    fn watch(&mut self, folder: &Path, name: Option<&OsStr>, to_files: bool) {
        let Ok(inotify) = &self.inotify else { return };
        if self.names.len() >= FOLDERS_AT_MOST {
            self.refused = Some(format!("more than {FOLDERS_AT_MOST} folders would have to be watched"));
            return;
        }
        let names = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ONLYDIR
            | MASK_ADD;
        let content = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ATTRIB;
        let mask = if to_files { names | content } else { names };
        let watched = match inotify.add_watch(&self.root.path(folder), mask) {
            Ok(watched) => watched,
            // It went away; the folder above it is looked at by whoever asked.
            Err(Errno::ENOENT | Errno::ENOTDIR) => return,
            Err(errno) => {
                self.refused = Some(format!("inotify_add_watch({}) failed: {}", folder.display(), errno.desc()));
                return;
            }
        };
        match (self.names.entry(watched).or_insert_with(|| Names::Some(BTreeSet::new())), name) {
            (Names::Some(names), Some(name)) => drop(names.insert(name.to_owned())),
            (names, None) => *names = Names::All,
            (Names::All, Some(_)) => {}
        }
    }

    /// What is not noticed at once, as a sentence.
    pub(super) fn gap(&self) -> Option<String> {
        let (what, why) = match (&self.inotify, &self.refused) {
            (Err(why), _) => ("a change", why),
            (Ok(_), Some(why)) => ("a change of some files", why),
            (Ok(_), None) => return None,
        };
        Some(format!("{what} is noticed within a minute and one that was undone by then is not, because {why}"))
    }

    /// Nothing is noticed.
    pub(super) fn is_blind(&self) -> bool {
        self.inotify.is_err()
    }
}

fn parts(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

/// What events are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    Other,
    /// A file that tools lock.
    Accounts,
}

/// Waits for changes.
pub(super) struct Watch {
    queue: EventQueue,
    names: HashMap<WatchDescriptor, Names>,
    root: Root,
}

impl Watch {
    /// An error is why nothing is noticed. Needs a runtime.
    pub(super) fn over(interests: Interests) -> Result<Watch, String> {
        let queue = EventQueue::new(interests.inotify?);
        let queue = queue.map_err(|error| format!("waiting for inotify failed: {error}"))?;
        Ok(Watch { queue, names: interests.names, root: interests.root })
    }

    /// Returns when something changed, and whoever did it is done. An error is why nothing more will be noticed.
    pub(super) async fn changed(&self) -> Result<(), String> {
        let mut news = self.drain().await?;
        while news == News::None {
            sleep(BREATH).await;
            news = self.drain().await?;
        }
        let first = Instant::now();
        let (mut quiet, mut is_of_a_tool) = (first + QUIET, news == News::Accounts);
        loop {
            match timeout_at(quiet.min(first + QUIET_AT_LATEST), self.drain()).await {
                Ok(news) => {
                    let news = news?;
                    is_of_a_tool |= news == News::Accounts;
                    quiet = if news == News::None { quiet } else { Instant::now() + QUIET };
                    sleep(BREATH / 4).await;
                }
                Err(_) if is_of_a_tool && is_locked(&self.root) && first.elapsed() < LOCKED_AT_LATEST => {
                    sleep(BREATH).await
                }
                Err(_) => return Ok(()),
            }
        }
    }

    /// Waits for events and takes them.
    async fn drain(&self) -> Result<News, String> {
        let events = self.queue.next().await.map_err(|error| format!("reading inotify events failed: {error}"))?;
        Ok(events.iter().map(|event| self.news(event)).max().unwrap_or(News::None))
    }

    /// A folder that is gone or another one, and an overflow of the queue, may have hidden anything.
    fn news(&self, event: &InotifyEvent) -> News {
        let blind = AddWatchFlags::IN_IGNORED
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_UNMOUNT
            | AddWatchFlags::IN_Q_OVERFLOW;
        let is_ours = match (self.names.get(&event.wd), &event.name) {
            (Some(Names::Some(names)), Some(name)) => names.contains(name),
            (Some(Names::All), Some(_)) => true,
            _ => event.mask.intersects(blind),
        };
        let is_account_file = || event.name.as_ref().is_some_and(|name| LOCKED.iter().any(|locked| name == locked));
        match is_ours {
            true if is_account_file() => News::Accounts,
            true => News::Other,
            false => News::None,
        }
    }
}

/// Whether a tool is at work. A lock of one that was killed stays until the next tool takes it away: it names the process.
fn is_locked(root: &Root) -> bool {
    let is_held = |lock: &str| match fs::read_to_string(root.path(lock)) {
        Ok(holder) => {
            let holder: Result<u32, _> = holder.trim_end_matches(['\0', '\n']).parse();
            holder.is_ok_and(|pid| root.path(format!("/proc/{pid}")).exists())
        }
        Err(error) => error.kind() != ErrorKind::NotFound,
    };
    LOCKS.into_iter().any(is_held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_counts_while_its_holder_lives() {
        let machine = tempfile::tempdir().unwrap();
        let root = Root::at(machine.path());
        for folder in ["etc", "proc/4242"] {
            fs::create_dir_all(machine.path().join(folder)).unwrap();
        }
        assert!(!is_locked(&root));
        for (holder, held) in [("4242\0", true), ("4243\0", false), ("4242\n", true), ("", false)] {
            fs::write(machine.path().join("etc/shadow.lock"), holder).unwrap();
            assert_eq!(is_locked(&root), held, "{holder:?}");
        }
    }
}
