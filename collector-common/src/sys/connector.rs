//! A socket on which the kernel tells of every exec (`netlink(7)`, `NETLINK_CONNECTOR`, group `CN_IDX_PROC`).
//!
//! ```text
//! socket(AF_NETLINK, SOCK_DGRAM, 11)   bind(group 1)   send(LISTEN) --> ack   filters on   poll, recvmmsg, poll, ...
//! ```
//!
//! Two filters keep forks and exits from waking the agent: the kernel's own (Linux 6.6), which saves the work of
//! sending them, and a classic BPF program on the socket (`socket(7)`, `SO_ATTACH_FILTER`), which every kernel has.
//! The messages are read by [`crate::parse::cn_proc`].
//!
//! # What is lost
//!
//! A message that finds no room in the socket is lost. The number in `cn_msg.seq` does not tell: each processor counts
//! all messages it makes, also the forks and exits that no filter lets through. The socket itself counts what passed
//! both filters and found no room (`sk_drops` in `netlink_overrun`), and tells since Linux 4.12 (`SO_MEMINFO`): execs
//! exactly. The kernel may further fail to allocate a message, or to copy it for us; the first nobody counts, the
//! second is counted for forks and exits as well.
//!
//! Unless told otherwise (`NETLINK_NO_ENOBUFS`) a socket that was full once takes nothing more until it is empty, so
//! that one `ENOBUFS` stands for any number of losses. Kernels that do not tell the number keep that notice.

use std::io::{self, IoSliceMut, PipeReader};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, NetlinkAddr, recvmmsg};

use self::error::refused;
use crate::parse::cn_proc::{self, CN_PROC, Message, Operation, PROC_EVENT_EXEC, WHAT_OFFSET};

pub use self::error::SubscribeError;

mod error;

/// What the kernel may keep for us while we are busy, in bytes as `SO_RCVBUF` counts them. A message costs it about
/// 800 bytes with its bookkeeping, so this is some thousand execs.
const RECEIVE_BUFFER_BYTES: libc::c_int = 2 << 20;

/// The kernel raises it to the least it allows.
const SMALLEST_BUFFER_BYTES: libc::c_int = 1;

const ON: libc::c_int = 1;

/// No message of the process connector is longer.
const DATAGRAM_BYTES: usize = 256;

/// How many messages one call takes.
const BATCH: usize = 32;

/// Of the numbers `SO_MEMINFO` gives, `SK_MEMINFO_DROPS` is the last (`include/uapi/linux/sock_diag.h`).
const MEMINFO_NUMBERS: usize = libc::SK_MEMINFO_DROPS as usize + 1;

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
    losses: Losses,
}

/// How it is known that messages were lost.
#[derive(Debug)]
enum Losses {
    /// The socket counts them. What it said last; the count wraps.
    Counted(AtomicU32),
    /// The kernel gives notice. How often since that was asked.
    Noticed(AtomicU64),
}

impl Default for Losses {
    fn default() -> Self {
        Losses::Noticed(AtomicU64::new(0))
    }
}

/// Messages that were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub messages: u64,
    /// Whether it is the number, and not only the number of times.
    pub is_exact: bool,
}

/// Room for what one call receives.
#[derive(Debug)]
pub struct Inbox {
    headers: MultiHeaders<NetlinkAddr>,
    datagrams: Vec<[u8; DATAGRAM_BYTES]>,
}

impl Inbox {
    /// Room that is used again and again.
    pub fn new() -> Inbox {
        Inbox { headers: MultiHeaders::preallocate(BATCH, None), datagrams: vec![[0; DATAGRAM_BYTES]; BATCH] }
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox::new()
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// There may be something to receive.
    Ready,
    /// Nothing came in time.
    Late,
    /// Nobody wants to know any more.
    Stop,
}

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

    /// Waits until there is something to receive, until the other end of the pipe `stop` is closed, or so long.
    pub fn wait(&self, stop: &PipeReader, at_most: Option<Duration>) -> io::Result<Wake> {
        let wanted = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [wanted(self.fd.as_raw_fd()), wanted(stop.as_raw_fd())];
        // A part of a millisecond is waited for as a whole one, or the last one would be spent in looks.
        let ms = at_most.map_or(-1, |time| i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        // SAFETY: the array lives through the call and 2 is its length.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, ms) };
        match check(ready) {
            Ok(()) if fds[1].revents != 0 => Ok(Wake::Stop),
            Ok(()) if ready == 0 => Ok(Wake::Late),
            Ok(()) => Ok(Wake::Ready),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Wake::Ready),
            Err(error) => Err(error),
        }
    }

    /// Takes what has arrived, without waiting and up to some number, and adds what is a message of the kernel to
    /// `messages`. Says whether there may be more. An error is the socket's end.
    pub fn receive(&self, inbox: &mut Inbox, messages: &mut Vec<Message>) -> io::Result<bool> {
        let mut slices: Vec<_> = inbox.datagrams.iter_mut().map(|datagram| [IoSliceMut::new(datagram)]).collect();
        let received =
            recvmmsg(self.fd.as_raw_fd(), &mut inbox.headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None);
        match received {
            Ok(received) => {
                let mut taken = 0;
                for datagram in received {
                    taken += 1;
                    // Any process may send to our port.
                    let is_from_kernel = datagram.address.is_some_and(|from| from.pid() == 0);
                    let message = datagram.iovs().next().map(cn_proc::decode);
                    messages.extend(message.and_then(Result::ok).filter(|_| is_from_kernel));
                }
                Ok(taken == BATCH)
            }
            Err(Errno::EAGAIN) => Ok(false),
            Err(Errno::EINTR) => Ok(true),
            Err(Errno::ENOBUFS) => {
                if let Losses::Noticed(times) = &self.losses {
                    times.fetch_add(1, Ordering::Relaxed);
                }
                Ok(true)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// What was lost since the last call.
    pub fn take_lost(&self) -> io::Result<Lost> {
        match &self.losses {
            Losses::Counted(before) => {
                let now = drops(&self.fd)?;
                let messages = now.wrapping_sub(before.swap(now, Ordering::Relaxed)).into();
                Ok(Lost { messages, is_exact: true })
            }
            Losses::Noticed(times) => Ok(Lost { messages: times.swap(0, Ordering::Relaxed), is_exact: false }),
        }
    }

    fn attempt() -> Result<Connector, SubscribeError> {
        let mut connector = open()?;
        connector.widen_buffer();
        connector.listen()?;
        connector.filter_in_socket().map_err(|error| SubscribeError::Failed("SO_ATTACH_FILTER", error))?;
        connector.want_execs_only()?;
        connector.count_losses();
        Ok(connector)
    }

    /// Subscribes to everything, because only that is answered by every kernel.
    fn listen(&mut self) -> Result<(), SubscribeError> {
        // The number is the socket's port, which the kernel chose for this socket alone.
        let number = self.port().map_err(|error| SubscribeError::Failed("getsockname", error))?;
        self.send(&cn_proc::request(Operation::Listen, number, None)).map_err(refused)?;
        self.await_ack(number.wrapping_add(1))?;
        self.counted = true;
        Ok(())
    }

    /// Asks the kernel to make nothing else for this socket. Before Linux 6.6 it does not heed that.
    fn want_execs_only(&self) -> Result<(), SubscribeError> {
        self.send(&cn_proc::request(Operation::Listen, 0, Some(PROC_EVENT_EXEC)))
            .map_err(|error| SubscribeError::Failed("the exec-only request", error))
    }

    /// From here on, because what was dropped before the filters were on need not have been execs.
    fn count_losses(&mut self) {
        let counted = drops(&self.fd).and_then(|drops| {
            set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS, &ON)?;
            Ok(drops)
        });
        self.losses = counted.map_or_else(|_| Losses::default(), |drops| Losses::Counted(drops.into()));
    }

    /// The kernel answers inside the call that sent the request, so the answer is already there, behind events that
    /// came in since the socket was bound.
    fn await_ack(&self, expected: u32) -> Result<(), SubscribeError> {
        let (mut inbox, mut messages) = (Inbox::new(), Vec::new());
        loop {
            let more = self.receive(&mut inbox, &mut messages);
            let more = more.map_err(|error| SubscribeError::Failed("reading the answer", error))?;
            for message in messages.drain(..) {
                match message {
                    Message::Ack { ack, errno: 0 } if ack == expected => return Ok(()),
                    Message::Ack { ack, errno } if ack == expected => {
                        let error = io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(libc::EINVAL));
                        return Err(refused(error));
                    }
                    _ => {}
                }
            }
            if !more {
                return Err(SubscribeError::NoAnswer);
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
    Ok(Connector { fd, _anchor: anchor, counted: false, losses: Losses::default() })
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

/// How many messages found no room in a socket since it was made.
fn drops(socket: &OwnedFd) -> io::Result<u32> {
    let mut numbers = [0_u32; MEMINFO_NUMBERS];
    let mut bytes = socklen::<[u32; MEMINFO_NUMBERS]>();
    let to = numbers.as_mut_ptr().cast();
    // SAFETY: the numbers live through the call and the length is theirs.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, to, &raw mut bytes) })?;
    // Kernels that tell fewer numbers do not tell this one.
    let is_told = bytes == socklen::<[u32; MEMINFO_NUMBERS]>();
    if is_told { Ok(numbers[MEMINFO_NUMBERS - 1]) } else { Err(Errno::ENOPROTOOPT.into()) }
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
    use std::time::Instant;

    /// Everything that arrives until the process `until` was seen to execute.
    fn messages_until(connector: &Connector, until: u32) -> Vec<Message> {
        let (mut inbox, mut seen) = (Inbox::new(), Vec::new());
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if !connector.receive(&mut inbox, &mut seen).unwrap() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let found =
                |message: &Message| matches!(message, Message::Exec { pid, .. } if u32::try_from(*pid) == Ok(until));
            if seen.iter().any(found) {
                return seen;
            }
        }
        panic!("no exec of {until} among {seen:?}");
    }

    fn run(program: &str) -> u32 {
        let mut child = Command::new(program).spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        pid
    }

    fn subscribed() -> Option<Connector> {
        match Connector::subscribe() {
            Ok(connector) => Some(connector),
            Err(SubscribeError::Failed(tried, error)) => panic!("{tried}: {error}"),
            Err(error) => {
                eprintln!("not run: {error}");
                None
            }
        }
    }

    #[test]
    fn execs_arrive_and_nothing_else_does() {
        let Some(connector) = subscribed() else { return };
        for _ in 0..3 {
            let pid = run("true");
            let seen = messages_until(&connector, pid);
            assert!(seen.iter().all(|message| matches!(message, Message::Exec { .. })), "{seen:?}");
        }
        assert_eq!(connector.take_lost().unwrap().messages, 0);
    }

    /// Without the filter in the socket, which hides whether the kernel heeds the other one.
    #[test]
    fn a_kernel_that_can_makes_no_messages_of_forks() {
        let release = nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned();
        let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
        if (numbers.next(), numbers.next()) < (Some(6), Some(6)) {
            return eprintln!("not run: Linux {release} has no such filter, which came with 6.6");
        }
        if subscribed().is_none() {
            return;
        }
        let mut connector = open().unwrap();
        connector.listen().unwrap();
        let pid = run("true");
        let seen = messages_until(&connector, pid);
        assert!(seen.contains(&Message::Other), "a fork came before the exec: {seen:?}");
        connector.want_execs_only().unwrap();
        // What was under way before is not counted.
        let pid = run("true");
        messages_until(&connector, pid);
        for _ in 0..3 {
            let pid = run("true");
            let seen = messages_until(&connector, pid);
            let of_others = |message: &&Message| !matches!(message, Message::Exec { .. });
            assert_eq!(seen.iter().find(of_others), None);
        }
    }

    #[test]
    fn a_wait_ends_when_nobody_wants_to_know_any_more() {
        let Some(connector) = subscribed() else { return };
        let (stop, held) = io::pipe().unwrap();
        let waiting = std::thread::spawn(move || {
            let (mut inbox, mut messages) = (Inbox::new(), Vec::new());
            while connector.wait(&stop, None).unwrap() != Wake::Stop {
                while connector.receive(&mut inbox, &mut messages).unwrap() {}
            }
        });
        drop(held);
        waiting.join().unwrap();
    }

    #[test]
    fn a_wait_ends_in_time() {
        let (stop, _held) = io::pipe().unwrap();
        let Some(connector) = subscribed() else { return };
        let (mut inbox, mut messages) = (Inbox::new(), Vec::new());
        while connector.wait(&stop, Some(Duration::from_millis(1))).unwrap() != Wake::Late {
            while connector.receive(&mut inbox, &mut messages).unwrap() {}
        }
    }

    #[test]
    fn what_the_kernel_had_no_room_for_is_counted() {
        let Some(connector) = subscribed() else { return };
        assert!(matches!(connector.losses, Losses::Counted(_)), "Linux 4.12 and later tell the number");
        set_option(&connector.fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &SMALLEST_BUFFER_BYTES).unwrap();
        const EXECS: usize = 40;
        let ours: Vec<u32> = (0..EXECS).map(|_| run("true")).collect();
        let (mut inbox, mut seen) = (Inbox::new(), Vec::new());
        while connector.receive(&mut inbox, &mut seen).unwrap() {}
        let is_ours =
            |message: &&Message| matches!(message, Message::Exec { pid, .. } if ours.contains(&pid.unsigned_abs()));
        let had_room = seen.iter().filter(is_ours).count();
        let Lost { messages, is_exact } = connector.take_lost().unwrap();
        // Others may execute at the same time, and theirs are lost as well.
        assert!(is_exact && had_room > 0 && had_room < EXECS, "{had_room} had room");
        assert!(messages >= (EXECS - had_room) as u64, "{had_room} had room, {messages} had not");
        assert_eq!(connector.take_lost().unwrap(), Lost { messages: 0, is_exact });
    }

    #[test]
    fn a_kernel_that_does_not_count_gives_notice() {
        let Some(mut connector) = subscribed() else { return };
        connector.losses = Losses::default();
        const OFF: libc::c_int = 0;
        set_option(&connector.fd, libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS, &OFF).unwrap();
        set_option(&connector.fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &SMALLEST_BUFFER_BYTES).unwrap();
        for _ in 0..20 {
            run("true");
        }
        let (mut inbox, mut seen) = (Inbox::new(), Vec::new());
        while connector.receive(&mut inbox, &mut seen).unwrap() {}
        assert_eq!(connector.take_lost().unwrap(), Lost { messages: 1, is_exact: false });
        assert!(!seen.is_empty(), "what had room is still there");
    }
}
