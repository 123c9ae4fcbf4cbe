//! What ends the pause between two looks.

use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use collector_common::collector::Failure;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

/// Rings when there is news, and when it is time to end. By `epoll(7)`, which asks no descriptor when only the time is
/// up, as `poll(2)` does: in a look that sees nothing new that was the dearest call.
pub(super) struct Bell<'a> {
    queue: Epoll,
    stop: &'a PipeReader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    TimeIsUp,
    News,
    Stop,
}

impl Bell<'_> {
    /// The other end of `stop` is closed when it is time to end; `news` becomes readable.
    pub(super) fn of<'a>(stop: &'a PipeReader, news: Option<BorrowedFd<'_>>) -> Result<Bell<'a>, Failure> {
        let add = |queue: &Epoll, fd: BorrowedFd<'_>, ring: Ring| {
            queue.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, ring as u64))
        };
        let queue = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        add(&queue, stop.as_fd(), Ring::Stop).map_err(failed)?;
        news.map_or(Ok(()), |news| add(&queue, news, Ring::News)).map_err(failed)?;
        Ok(Bell { queue, stop })
    }

    pub(super) fn wait(&self, within: Duration) -> Result<Ring, Failure> {
        let mut events = [EpollEvent::empty(); 2];
        let count = match self.queue.wait(&mut events, timeout(within)) {
            Err(Errno::EINTR) => 0,
            outcome => outcome.map_err(failed)?,
        };
        let rung = &events[..count];
        Ok(match rung {
            [] => Ring::TimeIsUp,
            rung if rung.iter().any(|event| event.data() == Ring::Stop as u64) => Ring::Stop,
            _ => Ring::News,
        })
    }

    /// Waits without minding news.
    pub(super) fn wait_deaf(&self, within: Duration) -> Result<Ring, Failure> {
        match poll(&mut [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)], timeout(within)) {
            Ok(0) | Err(Errno::EINTR) => Ok(Ring::TimeIsUp),
            Ok(_) => Ok(Ring::Stop),
            Err(errno) => Err(failed(errno)),
        }
    }
}

fn timeout(within: Duration) -> PollTimeout {
    PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX)
}

fn failed(errno: Errno) -> Failure {
    Failure(format!("waiting for the next look at sockets failed: {}", errno.desc()))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    #[test]
    fn news_rings_until_it_is_taken_and_the_end_is_heard_before_it() {
        let (stop, end) = io::pipe().unwrap();
        let (news, mut teller) = io::pipe().unwrap();
        let bell = Bell::of(&stop, Some(news.as_fd())).unwrap();
        let short = Duration::from_millis(20);
        assert_eq!(bell.wait(short).unwrap(), Ring::TimeIsUp);
        teller.write_all(b"x").unwrap();
        assert_eq!(bell.wait(Duration::MAX).unwrap(), Ring::News);
        assert_eq!(bell.wait(Duration::MAX).unwrap(), Ring::News);
        assert_eq!(bell.wait_deaf(short).unwrap(), Ring::TimeIsUp);
        drop(end);
        assert_eq!(bell.wait(Duration::MAX).unwrap(), Ring::Stop);
        assert_eq!(bell.wait_deaf(Duration::MAX).unwrap(), Ring::Stop);
    }
}
