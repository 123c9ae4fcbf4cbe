//! Notices that an account file may have changed.
//!
//! `inotify(7)` on the directory costs nothing while nothing happens. Where it is not to be had, or where an account
//! file is a symbolic link and so changes in another directory, each file's `stat(2)` is compared once a minute.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use collector_common::root::Root;
use collector_common::sys::inotify::EventQueue;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::time::{Instant, timeout};

const NAMES: [&str; 4] = ["passwd", "group", "shadow", "gshadow"];
const BACKEND_INOTIFY: &str = "/etc/passwd, group and shadow, watched by inotify";
const BACKEND_POLL: &str = "/etc/passwd, group and shadow, compared once a minute";
const POLL: Duration = Duration::from_secs(60);
/// One tool rewrites several files in a row; a second without news means that it is done.
const QUIET: Duration = Duration::from_secs(1);
/// Somebody who touches a file all the time does not get to hide what else he does to it.
const QUIET_AT_LATEST: Duration = Duration::from_secs(5);

/// A watch over the account files.
pub(super) struct Watch {
    root: Root,
    how: How,
}

enum How {
    Inotify(EventQueue),
    Poll { why: String, seen: [Option<Stamp>; NAMES.len()] },
}

/// Inode, size and modification time in nanoseconds.
type Stamp = (u64, u64, i64, i64);

/// What a watch would use on this machine, and what it would miss. Needs no runtime.
pub(super) fn survey(root: &Root) -> (&'static str, Option<String>) {
    match open_inotify(root) {
        Ok(_) => (BACKEND_INOTIFY, None),
        Err(why) => (BACKEND_POLL, Some(poll_gap(&why))),
    }
}

fn poll_gap(why: &str) -> String {
    format!("a change is noticed within a minute and one that was undone by then is not, because {why}")
}

impl Watch {
    pub(super) fn open(root: &Root) -> Watch {
        let queue = open_inotify(root).and_then(|inotify| {
            EventQueue::new(inotify).map_err(|error| format!("waiting for inotify failed: {error}"))
        });
        let how = match queue {
            Ok(queue) => How::Inotify(queue),
            Err(why) => How::Poll { why, seen: stamps(root) },
        };
        Watch { root: root.clone(), how }
    }

    pub(super) fn backend(&self) -> &'static str {
        match self.how {
            How::Inotify(_) => BACKEND_INOTIFY,
            How::Poll { .. } => BACKEND_POLL,
        }
    }

    pub(super) fn gap(&self) -> Option<String> {
        match &self.how {
            How::Inotify(_) => None,
            How::Poll { why, .. } => Some(poll_gap(why)),
        }
    }

    /// Returns when a file may have changed and then was left alone for a moment. Can be dropped and called again.
    pub(super) async fn changed(&mut self) {
        loop {
            let broken = match &mut self.how {
                How::Inotify(queue) => match settled(queue).await {
                    Ok(()) => return,
                    Err(why) => why,
                },
                How::Poll { seen, .. } => {
                    crate::tick::wait(POLL).await;
                    let now = stamps(&self.root);
                    if *seen != now {
                        *seen = now;
                        return;
                    }
                    continue;
                }
            };
            // The directory was replaced under the watch: look at once, and compare from now on.
            self.how = How::Poll { why: broken, seen: stamps(&self.root) };
            return;
        }
    }
}

fn open_inotify(root: &Root) -> Result<Inotify, String> {
    for name in NAMES {
        let path = root.path(format!("/etc/{name}"));
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
            return Err(format!("/etc/{name} is a symbolic link"));
        }
    }
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
        .map_err(|errno| format!("inotify_init1() failed: {}", errno.desc()))?;
    let mask = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    inotify
        .add_watch(&root.path("/etc"), mask)
        .map_err(|errno| format!("inotify_add_watch(/etc) failed: {}", errno.desc()))?;
    Ok(inotify)
}

async fn settled(queue: &EventQueue) -> Result<(), String> {
    while !drain(queue).await? {}
    // Lock files and temporary files beside the account files are events too, and mean that a tool is still at work.
    let deadline = Instant::now() + QUIET_AT_LATEST;
    while Instant::now() < deadline {
        match timeout(QUIET, drain(queue)).await {
            Ok(outcome) => outcome?,
            Err(_) => break,
        };
    }
    Ok(())
}

/// Waits for events and takes them. Whether one of them is about an account file.
async fn drain(queue: &EventQueue) -> Result<bool, String> {
    let events = queue.next().await.map_err(|error| format!("reading inotify events failed: {error}"))?;
    let gone = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_UNMOUNT;
    if events.iter().any(|event| event.mask.intersects(gone)) {
        return Err("the directory /etc was replaced while it was watched".to_owned());
    }
    Ok(events.iter().any(is_ours))
}

/// An overflow of the queue may have hidden anything.
fn is_ours(event: &InotifyEvent) -> bool {
    let named = event.name.as_ref().is_some_and(|name| NAMES.iter().any(|ours| name == ours));
    named || event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
}

fn stamps(root: &Root) -> [Option<Stamp>; NAMES.len()] {
    NAMES.map(|name| {
        let meta = fs::metadata(root.path(format!("/etc/{name}"))).ok()?;
        Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    })
}
