//! Why the process connector does not tell us anything, in words for operators.

use std::fmt;
use std::io;

/// Why there is no subscription.
#[derive(Debug)]
pub enum SubscribeError {
    /// The kernel has no process connector, or not in this network namespace.
    Absent(io::Error),
    /// The process may not listen.
    NotPermitted(io::Error),
    /// The kernel took the request and did not answer: it only talks to the initial pid and user namespace.
    NoAnswer,
    /// Anything else, with what was tried.
    Failed(&'static str, io::Error),
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubscribeError::Absent(error) => write!(
                f,
                "the kernel offers no netlink process connector here ({error}): it needs CONFIG_PROC_EVENTS=y and the \
                 host's network namespace"
            ),
            SubscribeError::NotPermitted(error) => write!(
                f,
                "the netlink process connector refused to be listened to ({error}): give the agent CAP_NET_ADMIN in \
                 the host's namespaces"
            ),
            SubscribeError::NoAnswer => f.write_str(
                "the netlink process connector did not answer: it only tells the host's pid and user namespaces, and \
                 before Linux 6.6 only CAP_NET_ADMIN",
            ),
            SubscribeError::Failed(tried, error) => write!(f, "netlink process connector: {tried} failed: {error}"),
        }
    }
}

impl std::error::Error for SubscribeError {}

/// What a refused request means.
pub(super) fn refused(error: io::Error) -> SubscribeError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => SubscribeError::NotPermitted(error),
        Some(libc::ECONNREFUSED | libc::ENOENT) => SubscribeError::Absent(error),
        _ => SubscribeError::Failed("the request to listen", error),
    }
}
