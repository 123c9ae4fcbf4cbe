//! A socket on which the kernel tells of every exec (`netlink(7)`, `NETLINK_CONNECTOR`, group `CN_IDX_PROC`).
//!
//! ```text
//! socket(AF_NETLINK, SOCK_DGRAM, 11)   bind(group 1)   send(LISTEN) --> ack   filters on   recv, recv, ...
//! ```
//!
//! Two filters keep forks and exits from waking the agent: the kernel's own (Linux 6.6), which saves the work of
//! sending them, and a classic BPF program on the socket (`socket(7)`, `SO_ATTACH_FILTER`), which every kernel has.
//! The messages are read by [`crate::parse::cn_proc`].

use std::fmt;
use std::io::{self, PipeReader};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::parse::cn_proc::{self, CN_PROC, Message, Operation, PROC_EVENT_EXEC, WHAT_OFFSET};

/// What the kernel may keep for us while we are busy, in bytes as `SO_RCVBUF` counts them. A message costs it about
/// 800 bytes with its bookkeeping, so this is some thousand execs.
const RECEIVE_BUFFER_BYTES: libc::c_int = 2 << 20;

/// The kernel raises it to the least it allows.
const SMALLEST_BUFFER_BYTES: libc::c_int = 1;

const ON: libc::c_int = 1;

/// No message of the process connector is longer.
pub const DATAGRAM_BYTES: usize = 256;

/// Kernels before 6.2 lose count of their listeners when one dies without saying so; a count below zero is only
/// repaired by asking again.
const ATTEMPTS: u32 = 3;

/// A subscription to the execs of the machine.
#[derive(Debug)]
pub struct Connector {
    fd: OwnedFd,
    /// Held, never read: see [`hold_open`].
    _anchor: OwnedFd,
    /// The kernel counts us among its listeners.
    counted: bool,
}

/// What one look at the socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message, whole or cut at the end of the buffer: that many bytes of the buffer.
    Datagram(usize),
    /// A message that was not the kernel's.
    Foreign,
    /// The kernel had no room and dropped messages; how many, nobody knows.
    Dropped,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// There may be something to receive.
    Ready,
    /// Nobody wants to know any more.
    Stop,
}

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

impl Connector {
    /// Opens a socket, subscribes and makes sure that the kernel agreed.
    pub fn subscribe() -> Result<Connector, SubscribeError> {
        for _ in 1..ATTEMPTS {
            match Connector::attempt() {
                Err(SubscribeError::NoAnswer) => {}
                result => return result,
            }
        }
        Connector::attempt()
    }

    /// Waits until there is something to receive, or until the other end of the pipe `stop` is closed.
    pub fn wait(&self, stop: &PipeReader) -> io::Result<Wake> {
        let wanted = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [wanted(self.fd.as_raw_fd()), wanted(stop.as_raw_fd())];
        // SAFETY: the array lives through the call and 2 is its length.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        match check(ready) {
            Ok(()) if fds[1].revents != 0 => Ok(Wake::Stop),
            Ok(()) => Ok(Wake::Ready),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Wake::Ready),
            Err(error) => Err(error),
        }
    }

    /// Takes one message without waiting. `WouldBlock` when there is none; other errors are the socket's end.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        // SAFETY: an all-zero sockaddr_nl is a valid value of that plain structure.
        let mut from: libc::sockaddr_nl = unsafe { mem::zeroed() };
        let mut from_bytes = socklen::<libc::sockaddr_nl>();
        // SAFETY: the buffer and the address live through the call and their lengths are theirs.
        let got = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                (&raw mut from).cast(),
                &raw mut from_bytes,
            )
        };
        match usize::try_from(got) {
            Ok(_) if from.nl_pid != 0 => Ok(Received::Foreign),
            Ok(bytes) => Ok(Received::Datagram(bytes)),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Received::Dropped),
                error => Err(error),
            },
        }
    }

    fn attempt() -> Result<Connector, SubscribeError> {
        let mut connector = open()?;
        connector.widen_buffer();
        // The number is the socket's port, which the kernel chose for this socket alone.
        let number = connector.port().map_err(|error| SubscribeError::Failed("getsockname", error))?;
        connector.send(&cn_proc::request(Operation::Listen, number, None)).map_err(refused)?;
        connector.await_ack(number.wrapping_add(1))?;
        connector.counted = true;
        connector.filter_in_socket().map_err(|error| SubscribeError::Failed("SO_ATTACH_FILTER", error))?;
        connector
            .send(&cn_proc::request(Operation::Listen, number, Some(PROC_EVENT_EXEC)))
            .map_err(|error| SubscribeError::Failed("the exec-only request", error))?;
        Ok(connector)
    }

    /// The kernel answers inside the call that sent the request, so the answer is already there, behind events that
    /// came in since the socket was bound.
    fn await_ack(&self, expected: u32) -> Result<(), SubscribeError> {
        let mut buffer = [0; DATAGRAM_BYTES];
        loop {
            match self.receive(&mut buffer) {
                Ok(Received::Datagram(bytes)) => match cn_proc::decode(&buffer[..bytes]) {
                    Ok(Message::Ack { ack, errno: 0 }) if ack == expected => return Ok(()),
                    Ok(Message::Ack { ack, errno }) if ack == expected => {
                        let error = io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(libc::EINVAL));
                        return Err(refused(error));
                    }
                    _ => {}
                },
                Ok(Received::Foreign | Received::Dropped) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(SubscribeError::NoAnswer),
                Err(error) => return Err(SubscribeError::Failed("reading the answer", error)),
            }
        }
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        let kernel = address(0);
        // SAFETY: the request and the address live through the call and their lengths are theirs.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                request.as_ptr().cast(),
                request.len(),
                0,
                (&raw const kernel).cast(),
                socklen::<libc::sockaddr_nl>(),
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn port(&self) -> io::Result<u32> {
        let mut own = address(0);
        let mut bytes = socklen::<libc::sockaddr_nl>();
        // SAFETY: the address and its length live through the call.
        check(unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut own).cast(), &raw mut bytes) })?;
        Ok(own.nl_pid)
    }

    /// A privileged process may go beyond `net.core.rmem_max`. A smaller buffer still works, so that no failure here
    /// is worth more than the drops it may cause, which are counted.
    fn widen_buffer(&self) {
        if set_option(&self.fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER_BYTES).is_err() {
            drop(set_option(&self.fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &RECEIVE_BUFFER_BYTES));
        }
    }

    /// Loads the word at `what`, lets the message through if it is an exec, and drops it if not. The program loads
    /// words in network order, so the constant is turned the same way.
    fn filter_in_socket(&self) -> io::Result<()> {
        let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
            code: u16::try_from(code).unwrap_or_default(),
            jt,
            jf,
            k,
        };
        let mut program = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, WHAT_OFFSET),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, PROC_EVENT_EXEC.to_be()),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        ];
        let length = u16::try_from(program.len()).unwrap_or_default();
        set_option(
            &self.fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            &libc::sock_fprog { len: length, filter: program.as_mut_ptr() },
        )
    }
}

impl Drop for Connector {
    /// Kernels before 6.2 go on making messages for a listener that left without a word. Nothing can be done when
    /// they do not take it. Who was never answered says nothing, or the count would stay where it was wrong.
    fn drop(&mut self) {
        if self.counted {
            drop(self.send(&cn_proc::request(Operation::Ignore, 0, None)));
        }
    }
}

fn open() -> Result<Connector, SubscribeError> {
    let (fd, anchor) = (member()?, member()?);
    hold_open(&anchor).map_err(|error| SubscribeError::Failed("setsockopt", error))?;
    Ok(Connector { fd, _anchor: anchor, counted: false })
}

/// Since Linux 6.2 a message that reaches nobody makes the kernel forget that anybody listens, and a message that our
/// filters turned away counts as one. So a second socket without filters is in the group: while it has room it is
/// reached, and when it is full, which it soon is and stays, `NETLINK_BROADCAST_ERROR` makes the kernel see a lack of
/// room instead of a lack of listeners (`netlink_broadcast_filtered` in `net/netlink/af_netlink.c`).
fn hold_open(anchor: &OwnedFd) -> io::Result<()> {
    set_option(anchor, libc::SOL_NETLINK, libc::NETLINK_BROADCAST_ERROR, &ON)?;
    set_option(anchor, libc::SOL_SOCKET, libc::SO_RCVBUF, &SMALLEST_BUFFER_BYTES)
}

/// A socket that is a member of the process connector's group.
fn member() -> Result<OwnedFd, SubscribeError> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_CONNECTOR) };
    check(fd).map_err(|error| match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => SubscribeError::Absent(error),
        _ => SubscribeError::Failed("socket", error),
    })?;
    // SAFETY: the descriptor was opened just now and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let group = address(1 << (CN_PROC - 1));
    // SAFETY: the address lives through the call and its length is its own.
    let bound = unsafe { libc::bind(fd, (&raw const group).cast(), socklen::<libc::sockaddr_nl>()) };
    check(bound).map_err(refused)?;
    Ok(socket)
}

fn set_option<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value lives through the call and its length is its own; what it points to lives in the caller.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), socklen::<T>()) })
}

fn refused(error: io::Error) -> SubscribeError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => SubscribeError::NotPermitted(error),
        Some(libc::ECONNREFUSED | libc::ENOENT) => SubscribeError::Absent(error),
        _ => SubscribeError::Failed("the request to listen", error),
    }
}

fn address(groups: u32) -> libc::sockaddr_nl {
    // SAFETY: an all-zero sockaddr_nl is a valid value of that plain structure.
    let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
    address.nl_groups = groups;
    address
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).unwrap_or_default()
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// Everything that arrives until the process `until` was seen to execute.
    fn messages_until(connector: &Connector, until: u32) -> Vec<Message> {
        let mut buffer = [0; DATAGRAM_BYTES];
        let mut seen = Vec::new();
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            match connector.receive(&mut buffer) {
                Ok(Received::Datagram(bytes)) => seen.push(cn_proc::decode(&buffer[..bytes]).unwrap()),
                Ok(other) => panic!("{other:?}"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
            let found =
                |message: &Message| matches!(message, Message::Exec { pid, .. } if u32::try_from(*pid) == Ok(until));
            if seen.iter().any(found) {
                return seen;
            }
        }
        panic!("no exec of {until} among {seen:?}");
    }

    #[test]
    fn execs_arrive_and_nothing_else_does() {
        let connector = match Connector::subscribe() {
            Ok(connector) => connector,
            Err(SubscribeError::Failed(tried, error)) => panic!("{tried}: {error}"),
            Err(error) => {
                eprintln!("not run: {error}");
                return;
            }
        };
        for _ in 0..3 {
            let mut child = Command::new("true").spawn().unwrap();
            let pid = child.id();
            child.wait().unwrap();
            let seen = messages_until(&connector, pid);
            assert!(seen.iter().all(|message| matches!(message, Message::Exec { .. })), "{seen:?}");
        }
    }

    #[test]
    fn a_wait_ends_when_nobody_wants_to_know_any_more() {
        let Ok(connector) = Connector::subscribe() else {
            eprintln!("not run: see the first test for why");
            return;
        };
        let (stop, held) = io::pipe().unwrap();
        let waiting = std::thread::spawn(move || {
            let mut buffer = [0; DATAGRAM_BYTES];
            while connector.wait(&stop).unwrap() == Wake::Ready {
                while connector.receive(&mut buffer).is_ok() {}
            }
        });
        drop(held);
        waiting.join().unwrap();
    }

    #[test]
    fn what_the_kernel_had_no_room_for_is_told() {
        let Ok(connector) = Connector::subscribe() else {
            eprintln!("not run: see the first test for why");
            return;
        };
        set_option(&connector.fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &SMALLEST_BUFFER_BYTES).unwrap();
        for _ in 0..20 {
            Command::new("true").status().unwrap();
        }
        let mut buffer = [0; DATAGRAM_BYTES];
        assert_eq!(connector.receive(&mut buffer).unwrap(), Received::Dropped);
        assert!(matches!(connector.receive(&mut buffer), Ok(Received::Datagram(_))), "what had room is still there");
    }
}
