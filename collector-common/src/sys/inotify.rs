//! Waiting until files or directories change, `inotify(7)`, inside an event loop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Watches on files and directories.
#[derive(Debug)]
pub struct Watches(AsyncFd<Descriptor>);

#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watches {
    /// No watch yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the user has no inotify instance left (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Watches> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: the descriptor is owned by the value that is registered, is the same for its whole life, and nothing
        // else closes it.
        let descriptor = unsafe { AsyncFd::register(Descriptor(inotify)) };
        Ok(Watches(descriptor?))
    }

    /// Watches a path. A path that is watched already gets these events instead of the ones before; a file that was
    /// renamed stays watched beside the one that has its name now.
    ///
    /// # Errors
    /// When the path does not exist or cannot be read, or the user has no watch left (`fs.inotify.max_user_watches`).
    pub fn add(&self, path: &Path, events: AddWatchFlags) -> io::Result<()> {
        self.0.get_ref().0.add_watch(path, events)?;
        Ok(())
    }

    /// Waits until something changed.
    ///
    /// # Errors
    /// Only when the event loop is shutting down.
    pub async fn changed(&self) -> io::Result<()> {
        self.0.readable().await?.retain_ready();
        Ok(())
    }

    /// Forgets the changes so far, so that [`Watches::changed`] waits for another one.
    ///
    /// # Errors
    /// Only when the event loop is shutting down.
    pub async fn forget(&self) -> io::Result<()> {
        // First the mark, then the events: one that comes in between marks it again.
        self.0.readable().await?.clear_ready();
        while self.0.get_ref().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        Ok(())
    }
}
