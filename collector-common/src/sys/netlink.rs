//! Dumps of sockets through `NETLINK_SOCK_DIAG` (`sock_diag(7)`, `netlink(7)`).
//!
//! ```text
//! socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG) ─▶ send the question to port 0, the kernel
//!                                                 ◀─ datagrams of messages, the last one NLMSG_DONE or NLMSG_ERROR
//! ```
//!
//! Each answer carries the number of its question, so that what is left of one that was given up can never be taken for
//! the next.
//!
//! A socket belongs to the network namespace its thread was in when it was made, and keeps that namespace alive. So one
//! is made for a look, and not kept.

use std::fmt;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, sendto, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use crate::parse::inet_diag::{Query, read, request};
use crate::parse::inet_socket::InetSocket;

/// The kernel never makes a dump datagram larger than this (`netlink_dump` in `net/netlink/af_netlink.c`).
const DATAGRAM_BYTES: usize = 32 * 1024;
/// The kernel answers at once; only a stuck one takes this long.
const ANSWER_SECONDS: i32 = 5;
const ATTEMPTS: u32 = 3;

/// Why a dump failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpError {
    /// A system call failed: what was tried, and what the system said.
    System(&'static str, Errno),
    /// The kernel refused the question. `ENOENT` and `EINVAL` mean that it has no sock_diag for the protocol.
    Refused(Errno),
    /// The kernel did not finish its answer in time.
    Silent,
    /// An answer did not fit into the largest datagram the kernel makes, or breaks the layout.
    Malformed,
    /// The tables changed during each of several attempts, or the answers overran the socket's queue.
    Unsteady,
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DumpError::System(what, errno) => write!(f, "{what} for NETLINK_SOCK_DIAG failed: {}", errno.desc()),
            DumpError::Refused(errno) => write!(f, "the kernel refused a NETLINK_SOCK_DIAG dump: {}", errno.desc()),
            DumpError::Silent => {
                write!(f, "the kernel did not finish a NETLINK_SOCK_DIAG dump within {ANSWER_SECONDS} s")
            }
            DumpError::Malformed => f.write_str("a NETLINK_SOCK_DIAG answer was cut or breaks the kernel's layout"),
            DumpError::Unsteady => {
                write!(f, "sockets changed during each of {ATTEMPTS} NETLINK_SOCK_DIAG dumps in a row")
            }
        }
    }
}

impl std::error::Error for DumpError {}

/// A way to ask the kernel about the sockets of one network namespace.
#[derive(Debug)]
pub struct SockDiag {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl SockDiag {
    /// For the network namespace the calling thread is in.
    pub fn open() -> Result<SockDiag, DumpError> {
        Ok(SockDiag { fd: connect()?, sequence: 0, buffer: vec![0; DATAGRAM_BYTES] })
    }

    /// All sockets that the query names. Takes some ten microseconds, plus the walk over the table of connections if a
    /// connected state is asked for.
    pub fn dump(&mut self, query: Query) -> Result<Vec<InetSocket>, DumpError> {
        for _ in 0..ATTEMPTS {
            match self.attempt(query) {
                Ok(Some(sockets)) => return Ok(sockets),
                Ok(None) => {}
                // The kernel may be in the middle of its answer, and takes no other question before its end.
                Err(error) => {
                    self.fd = connect()?;
                    return Err(error);
                }
            }
        }
        Err(DumpError::Unsteady)
    }

    /// `None` when the dump has to be asked for again.
    fn attempt(&mut self, query: Query) -> Result<Option<Vec<InetSocket>>, DumpError> {
        self.sequence = self.sequence.wrapping_add(1);
        let fd = self.fd.as_raw_fd();
        sendto(fd, &request(query, self.sequence), &NetlinkAddr::new(0, 0), MsgFlags::empty())
            .map_err(|errno| DumpError::System("sendto()", errno))?;
        let (mut sockets, mut interrupted) = (Vec::new(), false);
        loop {
            let length = match receive(fd, &mut self.buffer) {
                Ok(Some(length)) => length,
                Ok(None) | Err(DumpError::System(_, Errno::EINTR)) => continue,
                Err(DumpError::System(_, Errno::ENOBUFS)) => {
                    self.fd = connect()?;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let answers = read(&self.buffer[..length], self.sequence).map_err(|_| DumpError::Malformed)?;
            sockets.extend(answers.sockets);
            interrupted |= answers.interrupted;
            match answers.end {
                None => {}
                Some(Ok(())) => return Ok((!interrupted).then_some(sockets)),
                Some(Err(errno)) => return Err(DumpError::Refused(Errno::from_raw(errno))),
            }
        }
    }
}

fn connect() -> Result<OwnedFd, DumpError> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
        .map_err(|errno| DumpError::System("socket()", errno))?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS.into(), 0))
        .map_err(|errno| DumpError::System("setsockopt(SO_RCVTIMEO)", errno))?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(|errno| DumpError::System("bind()", errno))?;
    Ok(fd)
}

/// The length of the next datagram, `None` for one that is not the kernel's: any process may send to our port id.
fn receive(fd: RawFd, buffer: &mut [u8]) -> Result<Option<usize>, DumpError> {
    let mut parts = [IoSliceMut::new(buffer)];
    match recvmsg::<NetlinkAddr>(fd, &mut parts, None, MsgFlags::empty()) {
        Ok(message) if message.address.is_none_or(|from| from.pid() != 0) => Ok(None),
        Ok(message) if message.flags.contains(MsgFlags::MSG_TRUNC) => Err(DumpError::Malformed),
        Ok(message) => Ok(Some(message.bytes)),
        Err(Errno::EAGAIN) => Err(DumpError::Silent),
        Err(errno) => Err(DumpError::System("recvmsg()", errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::parse::inet_socket::{ESTABLISHED, Family, LISTEN, Protocol};

    #[test]
    fn the_kernel_tells_of_a_listener_and_filters_by_state() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let query = Query { protocol: Protocol::Tcp, family: Family::V4, states: 1 << LISTEN };
        let mut diag = SockDiag::open().unwrap();
        let found = diag.dump(query).unwrap();
        let ours: Vec<_> = found.iter().filter(|socket| socket.local_port == port).collect();
        assert_eq!(ours.len(), 1, "{found:?}");
        assert_eq!((ours[0].local, ours[0].state), (Ipv4Addr::LOCALHOST.into(), LISTEN));
        assert!(ours[0].inode != 0);
        let connected = diag.dump(Query { states: 1 << ESTABLISHED, ..query }).unwrap();
        assert!(connected.iter().all(|socket| socket.state == ESTABLISHED));
    }
}
