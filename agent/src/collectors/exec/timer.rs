//! Short waits. The runtime's timers are for what is rare: it looks for one in steps, so that of a distance of
//! a quarter of a second each costs two wake-ups (`timerfd_create(2)` one).

use std::io;
use std::os::fd::AsFd;

use collector_common::sys::readiness::Readiness;
use nix::errno::Errno;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer of the kernel.
pub struct Timer {
    timer: TimerFd,
    readiness: Readiness,
}

impl Timer {
    /// One that is not set.
    pub fn new() -> io::Result<Timer> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let readiness = Readiness::of(timer.as_fd())?;
        Ok(Timer { timer, readiness })
    }

    /// Sets it, from now on, and forgets what it was set to before.
    pub fn set(&self, expiration: Expiration) -> io::Result<()> {
        Ok(self.timer.set(expiration, TimerSetTimeFlags::empty())?)
    }

    /// Waits until it expires.
    pub async fn expired(&self) -> io::Result<()> {
        loop {
            self.readiness.woken().await?;
            match self.timer.wait() {
                // It was set again since.
                Err(Errno::EAGAIN) => {}
                Ok(()) | Err(Errno::EINTR) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_timer_that_is_set_again_forgets_that_it_had_expired() {
        let timer = Timer::new().unwrap();
        let once = |ms| timer.set(Expiration::OneShot(Duration::from_millis(ms).into())).unwrap();
        once(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        once(3_600_000);
        assert!(timeout(Duration::from_millis(20), timer.expired()).await.is_err());
        once(1);
        timeout(Duration::from_secs(20), timer.expired()).await.unwrap().unwrap();
    }
}
