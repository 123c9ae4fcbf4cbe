//! Sockets of the kernel's audit (`netlink(7)`, `NETLINK_AUDIT`, `kernel/audit.c`).
//!
//! ```text
//! question   socket ─▶ AUDIT_GET, AUDIT_LIST_RULES, ... to port 0 ─▶ answer    a socket for each question
//! records    bind(group 1)            a copy of every record, beside whoever owns audit; dropped when there is no room
//!            or AUDIT_SET pid         every record, as the owner; the kernel keeps them while there is no room
//! ```
//!
//! What is said is read by [`crate::parse::audit_control`] and [`crate::parse::audit_record`]. The kernel answers only
//! in the initial user namespace, and only the initial pid namespace.

use std::fmt;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, sendto, setsockopt, socket,
};
use nix::sys::time::TimeVal;
use nix::sys::utsname::uname;

use crate::parse::audit_control::{Abi, Change, Rule, Status, abis};

const GET: u16 = 1000;
const SET: u16 = 1001;
const ADD_RULE: u16 = 1011;
const DELETE_RULE: u16 = 1012;
const LIST_RULES: u16 = 1013;
/// Somebody changed how audit is set.
pub const CONFIG_CHANGE: u16 = 1305;
/// Sent to the owner when somebody else wants to be it.
pub const REPLACE: u16 = 1329;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const HEADER_BYTES: usize = 16;
const SEQUENCE: u32 = 1;

/// `AUDIT_NLGRP_READLOG`, as a bit.
const READERS: u32 = 1;

/// The kernel makes no longer record (`MAX_AUDIT_MESSAGE_LENGTH`, 8970 bytes).
pub const DATAGRAM_BYTES: usize = 16 * 1024;

/// As `SO_RCVBUF` counts them: some thousand records.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// The kernel answers at once; only a stuck one takes this long.
const ANSWER_SECONDS: i32 = 5;

/// What was tried, and what the system said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditError {
    /// What was tried.
    pub tried: &'static str,
    /// What the system said.
    pub errno: Errno,
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AuditError { tried, errno } = self;
        match errno {
            Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => {
                f.write_str("the kernel has no audit: it needs CONFIG_AUDIT=y, and must not be started with audit=0")
            }
            Errno::ECONNREFUSED => f.write_str("audit answers only in the host's user namespace"),
            _ => write!(f, "{tried} failed: {}", errno.desc()),
        }
    }
}

impl std::error::Error for AuditError {}

/// How audit is set. For who has CAP_AUDIT_CONTROL, as all that follows but [`Records::listen`].
pub fn status() -> Result<Status, AuditError> {
    let tried = "asking how audit is set";
    let answers = ask(tried, GET, &[])?;
    answers.iter().find_map(|answer| Status::parse(answer)).ok_or(AuditError { tried, errno: Errno::EBADMSG })
}

/// Its rules, in their order.
pub fn rules() -> Result<Vec<Rule>, AuditError> {
    let tried = "asking for the rules of audit";
    ask(tried, LIST_RULES, &[])?
        .iter()
        .map(|answer| Rule::parse(answer).ok_or(AuditError { tried, errno: Errno::EBADMSG }))
        .collect()
}

/// Sets one thing.
pub fn set(change: Change) -> Result<(), AuditError> {
    ask("setting audit", SET, &change.to_bytes()).map(drop)
}

/// Adds a rule before all others. One that is there already is well.
pub fn add(rule: &Rule) -> Result<(), AuditError> {
    match ask("adding a rule to audit", ADD_RULE, &rule.raw_first()) {
        Err(AuditError { errno: Errno::EEXIST, .. }) => Ok(()),
        added => added.map(drop),
    }
}

/// Removes a rule. One that is gone already is well.
pub fn remove(rule: &Rule) -> Result<(), AuditError> {
    match ask("removing a rule from audit", DELETE_RULE, rule.raw()) {
        Err(AuditError { errno: Errno::ENOENT, .. }) => Ok(()),
        removed => removed.map(drop),
    }
}

/// The architectures whose programs this kernel runs.
pub fn abis_here() -> &'static [Abi] {
    uname().ok().and_then(|names| names.machine().to_str().map(abis)).unwrap_or(&[])
}

/// A socket on which records come.
#[derive(Debug)]
pub struct Records {
    fd: OwnedFd,
}

/// What one look at the socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A record or message of the kernel: its type, and what it says.
    Record(u16, &'a [u8]),
    /// A message that was not the kernel's.
    Foreign,
    /// The kernel had no room and dropped records; how many, nobody knows.
    Dropped,
    /// There is nothing more at present.
    Nothing,
}

impl Records {
    /// Gets a copy of every record. Needs CAP_AUDIT_READ; tells something in the host's network namespace only.
    pub fn listen() -> Result<Records, AuditError> {
        let tried = "listening to audit beside its owner";
        let fd = open(tried, SockFlag::SOCK_NONBLOCK, READERS)?;
        Ok(Records { fd })
    }

    /// Becomes the owner of audit. `EEXIST` when there is one.
    pub fn own() -> Result<Records, AuditError> {
        let tried = "becoming the owner of audit";
        let fd = open(tried, SockFlag::empty(), 0)?;
        send(&fd, tried, SET, &Change::Owner(std::process::id()).to_bytes())?;
        answers(&fd, tried, SET)?;
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(flags)).map_err(|errno| AuditError { tried, errno })?;
        Ok(Records { fd })
    }

    /// Gives audit back. Only who owns it can.
    pub fn disown(&self) -> Result<(), AuditError> {
        set(Change::Owner(0))
    }

    /// For waiting.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes one message without waiting. The length in its header does not count: the kernel makes it sixteen bytes too
    /// short for the owner (`kauditd_send_multicast_skb` in `kernel/audit.c` tells why).
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Received<'a>, AuditError> {
        match read(&self.fd, buffer) {
            Ok(Some(bytes)) => {
                let message = &buffer[..bytes];
                let Some((kind, payload)) = parts(message) else { return Ok(Received::Foreign) };
                Ok(Received::Record(kind, payload))
            }
            Ok(None) | Err(Errno::EINTR) => Ok(Received::Foreign),
            Err(Errno::EAGAIN) => Ok(Received::Nothing),
            Err(Errno::ENOBUFS) => Ok(Received::Dropped),
            Err(errno) => Err(AuditError { tried: "reading records of audit", errno }),
        }
    }
}

fn ask(tried: &'static str, kind: u16, payload: &[u8]) -> Result<Vec<Vec<u8>>, AuditError> {
    let fd = open(tried, SockFlag::empty(), 0)?;
    send(&fd, tried, kind, payload)?;
    answers(&fd, tried, kind)
}

fn open(tried: &'static str, flags: SockFlag, groups: u32) -> Result<OwnedFd, AuditError> {
    let failed = |errno| AuditError { tried, errno };
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkAudit).map_err(failed)?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS.into(), 0)).map_err(failed)?;
    // Without CAP_NET_ADMIN it stays small, and what does not fit is counted.
    if let Err(error) = setsockopt(&fd, RcvBufForce, &RECEIVE_BUFFER_BYTES) {
        tracing::debug!("cannot widen the buffer of audit: {error}");
    }
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(failed)?;
    Ok(fd)
}

fn send(fd: &OwnedFd, tried: &'static str, kind: u16, payload: &[u8]) -> Result<(), AuditError> {
    // Questions that are answered by more than a yes get no acknowledgement, so that the answer is the first that comes.
    let flags = if matches!(kind, GET | LIST_RULES) { NLM_F_REQUEST } else { NLM_F_REQUEST | NLM_F_ACK };
    let length = u32::try_from(HEADER_BYTES + payload.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_BYTES + payload.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(SEQUENCE.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(payload);
    let sent = sendto(fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty());
    sent.map(drop).map_err(|errno| AuditError { tried, errno })
}

/// Everything the kernel answers to a question. Records that come meanwhile are none of it.
fn answers(fd: &OwnedFd, tried: &'static str, kind: u16) -> Result<Vec<Vec<u8>>, AuditError> {
    let failed = |errno| AuditError { tried, errno };
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut out = Vec::new();
    loop {
        let bytes = match read(fd, &mut buffer) {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(errno) => return Err(failed(errno)),
        };
        match parts(&buffer[..bytes]) {
            Some((NLMSG_ERROR, error)) => {
                let code =
                    error.get(..4).and_then(|code| code.try_into().ok()).map_or(-libc::EBADMSG, i32::from_ne_bytes);
                return if code == 0 { Ok(out) } else { Err(failed(Errno::from_raw(code.saturating_neg()))) };
            }
            Some((NLMSG_DONE, _)) => return Ok(out),
            Some((GET, status)) if kind == GET => return Ok(vec![status.to_vec()]),
            Some((LIST_RULES, rule)) if kind == LIST_RULES => out.push(rule.to_vec()),
            _ => {}
        }
    }
}

/// Type and payload of a message.
fn parts(message: &[u8]) -> Option<(u16, &[u8])> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    Some((kind, message.get(HEADER_BYTES..)?))
}

/// The length of the next datagram, `None` for one that is not the kernel's: any process may send to our port.
fn read(fd: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    let mut room = [IoSliceMut::new(buffer)];
    let message = recvmsg::<NetlinkAddr>(fd.as_raw_fd(), &mut room, None, MsgFlags::empty())?;
    Ok(message.address.is_some_and(|from| from.pid() == 0).then_some(message.bytes))
}
