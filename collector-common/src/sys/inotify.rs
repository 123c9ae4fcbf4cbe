//! Waiting for `inotify(7)` events without a thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, Inotify, InotifyEvent};
use tokio::io::unix::AsyncFd;

/// An inotify instance a task can wait for.
#[derive(Debug)]
pub struct EventQueue(AsyncFd<Owned>);

#[derive(Debug)]
struct Owned(Inotify);

impl AsRawFd for Owned {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl EventQueue {
    /// Takes an instance that was made with `IN_NONBLOCK`; a blocking one would stop the whole runtime.
    ///
    /// Fails when the system is out of epoll watches.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn new(inotify: Inotify) -> io::Result<EventQueue> {
        // SAFETY: `Owned` is private and its only field owns the open descriptor, never gives it away and never
        // replaces it, so that `as_raw_fd` names the same open file until the `AsyncFd` has dropped it.
        let queue = unsafe { AsyncFd::register(Owned(inotify)) }?;
        Ok(EventQueue(queue))
    }

    /// Watches one more path. A path that is watched already gets these events instead of the ones before; a file that
    /// was renamed stays watched beside the one that has its name now.
    ///
    /// Fails when the path does not exist or cannot be read, or the user has no watch left
    /// (`fs.inotify.max_user_watches`).
    pub fn add_watch(&self, path: &Path, events: AddWatchFlags) -> io::Result<()> {
        self.0.get_ref().0.add_watch(path, events)?;
        Ok(())
    }

    /// Waits until there are events and takes them. No event is lost when the future is dropped.
    pub async fn next(&self) -> io::Result<Vec<InotifyEvent>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.get_inner().0.read_events() {
                Ok(events) => return Ok(events),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use nix::sys::inotify::InitFlags;

    use super::*;

    #[tokio::test]
    async fn a_file_made_in_the_directory_is_told_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        inotify.add_watch(directory.path(), AddWatchFlags::IN_CREATE).unwrap();
        let queue = EventQueue::new(inotify).unwrap();
        std::fs::write(directory.path().join("passwd"), "x").unwrap();
        let events = queue.next().await.unwrap();
        assert_eq!(events[0].name.as_deref(), Some(OsStr::new("passwd")));
    }
}
