//! The messages of the process connector: what the kernel says when a process is made, executes or ends.
//!
//! One datagram holds one message, every number in the byte order of the machine (`include/uapi/linux/netlink.h`,
//! `connector.h`, `cn_proc.h`; sent by `drivers/connector/cn_proc.c`). The event's 64-bit time is aligned to eight
//! bytes in the kernel's structure by its declaration, so the layout is the same on 32-bit machines:
//!
//! ```text
//!  0  nlmsghdr    len:u32  type:u16  flags:u16  seq:u32  port:u32
//! 16  cn_msg      idx:u32  val:u32  seq:u32  ack:u32  len:u16  flags:u16
//! 36  proc_event  what:u32  cpu:u32
//! 44              timestamp_ns:u64          ktime_get_ns, that is CLOCK_MONOTONIC: suspend is not in it
//! 52              exec: thread:i32 process:i32     none: errno:u32     (other events: longer)
//! ```

/// Index and value of the process connector, `CN_IDX_PROC` and `CN_VAL_PROC`.
pub const CN_PROC: u32 = 1;

/// Where `proc_event.what` stands in a datagram, for a filter that runs in the kernel.
pub const WHAT_OFFSET: u32 = 36;

/// `PROC_EVENT_EXEC`, as `what` and as a bit of the kernel's own event filter.
pub const PROC_EVENT_EXEC: u32 = 0x2;

const PROC_EVENT_NONE: u32 = 0;
const NLMSG_DONE: u16 = 3;
const CN_MSG: usize = 16;
const EVENT: usize = WHAT_OFFSET as usize;
const EVENT_DATA: usize = EVENT + 16;

/// One message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A process began to run another program.
    Exec {
        /// The process, as the initial pid namespace numbers it.
        pid: i32,
        /// Nanoseconds of `CLOCK_MONOTONIC`.
        monotonic_ns: u64,
    },
    /// The answer to a request of [`request`], multicast to everybody who listens.
    Ack {
        /// The number of the request plus one.
        ack: u32,
        /// 0, or why the request was refused.
        errno: u32,
    },
    /// Anything else that happens to a process.
    Other,
}

/// Bytes that are no message of the process connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a request asks of the kernel, `enum proc_cn_mcast_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Begin to send events.
    Listen,
    /// Stop.
    Ignore,
}

/// Reads one datagram.
pub fn decode(datagram: &[u8]) -> Result<Message, Malformed> {
    let claimed = usize::try_from(word(datagram, 0)?).map_err(|_| Malformed)?;
    let message = datagram.get(..claimed).ok_or(Malformed)?;
    if (word(message, CN_MSG)?, word(message, CN_MSG + 4)?) != (CN_PROC, CN_PROC) {
        return Err(Malformed);
    }
    match word(message, EVENT)? {
        PROC_EVENT_EXEC => Ok(Message::Exec {
            pid: i32::from_ne_bytes(bytes(message, EVENT_DATA + 4)?),
            monotonic_ns: u64::from_ne_bytes(bytes(message, EVENT + 8)?),
        }),
        PROC_EVENT_NONE => Ok(Message::Ack { ack: word(message, CN_MSG + 12)?, errno: word(message, EVENT_DATA)? }),
        _ => Ok(Message::Other),
    }
}

/// Writes a request. `number` comes back in [`Message::Ack`], plus one.
///
/// With `events`, a set of `PROC_EVENT_` bits, the request is Linux 6.6's `struct proc_input`, which limits what is
/// sent to this socket. Older kernels ignore a request of that length, and newer ones do not acknowledge it, because
/// the limit holds for the acknowledgement too: the plain request has to go first.
pub fn request(operation: Operation, number: u32, events: Option<u32>) -> Vec<u8> {
    let operation: u32 = match operation {
        Operation::Listen => 1,
        Operation::Ignore => 2,
    };
    let data: u16 = if events.is_some() { 8 } else { 4 };
    let mut out = Vec::with_capacity(44);
    out.extend((u32::from(data) + WHAT_OFFSET).to_ne_bytes());
    out.extend(NLMSG_DONE.to_ne_bytes());
    out.extend([0; 10]);
    for value in [CN_PROC, CN_PROC, 0, number] {
        out.extend(value.to_ne_bytes());
    }
    out.extend(data.to_ne_bytes());
    out.extend([0; 2]);
    out.extend(operation.to_ne_bytes());
    out.extend(events.into_iter().flat_map(u32::to_ne_bytes));
    out
}

fn word(message: &[u8], at: usize) -> Result<u32, Malformed> {
    bytes(message, at).map(u32::from_ne_bytes)
}

fn bytes<const N: usize>(message: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    message.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as a kernel of today writes it: 40 bytes of event, zeros behind what the event fills.
    fn message(what: u32, ack: u32, data: [u32; 2]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(76_u32.to_ne_bytes());
        out.extend(NLMSG_DONE.to_ne_bytes());
        out.extend([0; 10]);
        for value in [CN_PROC, CN_PROC, 9, ack] {
            out.extend(value.to_ne_bytes());
        }
        out.extend(40_u16.to_ne_bytes());
        out.extend([0; 2]);
        out.extend(what.to_ne_bytes());
        out.extend(1_u32.to_ne_bytes());
        out.extend(5_000_000_000_u64.to_ne_bytes());
        for value in data {
            out.extend(value.to_ne_bytes());
        }
        out.resize(76, 0);
        out
    }

    #[test]
    fn messages_are_told_apart() {
        let exec = Message::Exec { pid: 71, monotonic_ns: 5_000_000_000 };
        assert_eq!(decode(&message(PROC_EVENT_EXEC, 0, [70, 71])), Ok(exec));
        assert_eq!(decode(&message(PROC_EVENT_NONE, 8, [1, 0])), Ok(Message::Ack { ack: 8, errno: 1 }));
        assert_eq!(decode(&message(0x8000_0000, 0, [0, 0])), Ok(Message::Other));
    }

    #[test]
    fn another_connector_is_refused() {
        let mut foreign = message(PROC_EVENT_EXEC, 0, [70, 71]);
        foreign[16..20].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(decode(&foreign), Err(Malformed));
    }

    #[test]
    fn requests_have_the_two_lengths_the_kernel_knows() {
        let plain = request(Operation::Listen, 7, None);
        assert_eq!((plain.len(), word(&plain, 0), word(&plain, EVENT)), (40, Ok(40), Ok(1)));
        let limited = request(Operation::Listen, 7, Some(PROC_EVENT_EXEC));
        assert_eq!((limited.len(), word(&limited, 0), word(&limited, EVENT + 4)), (44, Ok(44), Ok(2)));
        assert_eq!(word(&limited, CN_MSG + 12), Ok(7));
    }

    #[test]
    fn cut_and_random_bytes_never_panic() {
        let whole = message(PROC_EVENT_EXEC, 0, [70, 71]);
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), Err(Malformed), "of {length} bytes");
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut mangled = whole.clone();
            let at = random.usize(..mangled.len());
            mangled[at] = random.u8(..);
            mangled.truncate(random.usize(..=mangled.len()));
            if let Ok(Message::Exec { .. }) = decode(&mangled) {
                assert!(mangled.len() >= EVENT_DATA + 8);
            }
        }
    }
}
