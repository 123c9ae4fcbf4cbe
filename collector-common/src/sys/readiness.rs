//! Waiting for a descriptor that somebody else reads (`epoll(7)`).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells when the kernel wakes those who wait for a descriptor.
#[derive(Debug)]
pub struct Readiness(AsyncFd<OwnedFd>);

impl Readiness {
    /// Watches a descriptor of the same open file, which therefore may be closed meanwhile.
    pub fn of(fd: BorrowedFd) -> io::Result<Readiness> {
        let own = fd.try_clone_to_owned()?;
        // SAFETY: an OwnedFd owns its descriptor and names the same one until it is dropped, and nobody else has it:
        // it was made just now.
        let registered = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
        registered.map(Readiness).map_err(io::Error::from)
    }

    /// Returns when the kernel has woken those who wait since the last return, or when there was something to read
    /// from the beginning. What came without waking anybody does not count.
    pub async fn woken(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn each_wake_up_counts_once() {
        let (reader, mut writer) = io::pipe().unwrap();
        let readiness = Readiness::of(reader.as_fd()).unwrap();
        let short = Duration::from_millis(20);
        assert!(timeout(short, readiness.woken()).await.is_err());
        for _ in 0..2 {
            writer.write_all(b"x").unwrap();
            timeout(Duration::from_secs(20), readiness.woken()).await.unwrap().unwrap();
            assert!(timeout(short, readiness.woken()).await.is_err());
        }
    }
}
