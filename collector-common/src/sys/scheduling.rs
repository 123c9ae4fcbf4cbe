//! When a thread gets the processor (`sched(7)`).

use std::io;

/// Puts the calling thread before every ordinary one, at the lowest real-time priority (`SCHED_FIFO` 1), so that it
/// never delays a real-time task of the machine. Threads and processes it starts are ordinary again.
///
/// For threads that do little and must do it at once. `EPERM` without CAP_SYS_NICE or where real time is forbidden.
pub fn run_before_ordinary_threads() -> io::Result<()> {
    // The kernel's structure is this one number. musl answers ENOSYS for its wrapper, because POSIX means processes.
    let priority: libc::c_int = 1;
    let policy: libc::c_int = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the number lives through the call, and 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0 as libc::pid_t, policy, &raw const priority) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_put_forward() {
        let class = || {
            // SAFETY: the call takes no pointers.
            let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0 as libc::pid_t) };
            policy & !libc::c_long::from(libc::SCHED_RESET_ON_FORK)
        };
        let inside = std::thread::spawn(move || (run_before_ordinary_threads(), class())).join().unwrap();
        match inside {
            (Ok(()), class) => assert_eq!(class, libc::c_long::from(libc::SCHED_FIFO)),
            (Err(error), class) => {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                assert_eq!(class, libc::c_long::from(libc::SCHED_OTHER));
            }
        }
        assert_eq!(class(), libc::c_long::from(libc::SCHED_OTHER));
    }
}
