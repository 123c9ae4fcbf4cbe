//! The words of sock_diag about internet sockets: the question, and datagrams of answers.
//!
//! Layouts of `include/uapi/linux/netlink.h` and `include/uapi/linux/inet_diag.h`. Integers are in the machine's byte
//! order, ports and addresses in network order. Everything is aligned to 4 bytes.
//!
//! ```text
//! nlmsghdr           0 length u32 | 4 type u16 | 6 flags u16 | 8 sequence u32 | 12 port id u32
//! inet_diag_req_v2   16 family u8 | 17 protocol u8 | 18 extensions u8 | 19 raw protocol u8 | 20 states u32 (a bit each)
//!                    24 inet_diag_sockid (48 bytes, zero in a dump)
//!
//! inet_diag_msg      0 family u8 | 1 state u8 | 2 timer u8 | 3 retransmits u8
//! inet_diag_sockid   4 local port be16 | 6 peer port be16 | 8 local address 16 | 24 peer address 16
//!                    40 interface u32 | 44 cookie 2 * u32
//!                    52 expires u32 | 56 receive queue u32 | 60 send queue u32 | 64 uid u32 | 68 inode u32
//! attributes         72 length u16 | type u16 | value, padded to 4 ...
//!                    type 11, INET_DIAG_SKV6ONLY: u8
//!                    type 12, INET_DIAG_LOCALS, of SCTP: all addresses, a sockaddr_storage of 128 bytes each:
//!                    family u16 | port be16 | IPv4 at 4, IPv6 at 8
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::inet_socket::{Family, InetSocket, Protocol};

const NLMSG_HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = NLMSG_HEADER_BYTES + 56;
const ANSWER_BYTES: usize = 72;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_LOCALS: u16 = 12;
const SOCKADDR_STORAGE_BYTES: usize = 128;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Sockets of this protocol.
    pub protocol: Protocol,
    /// Sockets of this family.
    pub family: Family,
    /// Sockets in these states: bit `1 << state` each.
    pub states: u32,
}

/// What one datagram held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The sockets told.
    pub sockets: Vec<InetSocket>,
    /// The dump is complete, or failed with this errno.
    pub end: Option<Result<(), i32>>,
    /// The tables changed while they were read: the dump must be asked for again.
    pub interrupted: bool,
}

/// A datagram that breaks the layout, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Bytes before the message that cannot be read.
    pub offset: usize,
}

/// The datagram that asks for a dump of all sockets the query names.
pub fn request(query: Query, sequence: u32) -> Vec<u8> {
    let family = match query.family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    let mut bytes = Vec::with_capacity(REQUEST_BYTES);
    bytes.extend((REQUEST_BYTES as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    // A raw dump with raw protocol 0 gives the raw sockets of all IP protocols.
    bytes.extend([family, query.protocol.number(), 0, 0]);
    bytes.extend(query.states.to_ne_bytes());
    bytes.resize(REQUEST_BYTES, 0);
    bytes
}

/// Reads one datagram. Messages of another sequence number belong to another question and are passed over.
pub fn read(datagram: &[u8], sequence: u32) -> Result<Answers, Malformed> {
    let mut answers = Answers::default();
    let mut offset = 0;
    while offset < datagram.len() && answers.end.is_none() {
        let malformed = Malformed { offset };
        let rest = &datagram[offset..];
        let length = u32_at(rest, 0).and_then(|length| usize::try_from(length).ok()).ok_or(malformed)?;
        if length < NLMSG_HEADER_BYTES || length > rest.len() {
            return Err(malformed);
        }
        let message = &rest[..length];
        offset = offset.saturating_add(length.next_multiple_of(4));
        if u32_at(message, 8) != Some(sequence) {
            continue;
        }
        let flags = u16_at(message, 6).ok_or(malformed)?;
        answers.interrupted |= flags & NLM_F_DUMP_INTR != 0;
        let body = &message[NLMSG_HEADER_BYTES..];
        match u16_at(message, 4).ok_or(malformed)? {
            SOCK_DIAG_BY_FAMILY => answers.sockets.extend(sockets(body).ok_or(malformed)?),
            NLMSG_ERROR => answers.end = Some(errno(body).ok_or(malformed)?),
            // An old kernel gives no number here; no number is no error.
            NLMSG_DONE => answers.end = Some(errno(body).unwrap_or(Ok(()))),
            _ => {}
        }
    }
    Ok(answers)
}

/// Both kinds of end begin with a negative errno or 0.
fn errno(body: &[u8]) -> Option<Result<(), i32>> {
    let number = i32::from_ne_bytes(body.first_chunk().copied()?);
    Some(if number < 0 { Err(number.saturating_neg()) } else { Ok(()) })
}

/// One answer: a socket, or one for each address of an SCTP endpoint.
fn sockets(body: &[u8]) -> Option<Vec<InetSocket>> {
    let first = socket(body)?;
    let Some(all) = attribute(&body[ANSWER_BYTES..], INET_DIAG_LOCALS) else { return Some(vec![first]) };
    let addresses: Vec<IpAddr> = all.chunks_exact(SOCKADDR_STORAGE_BYTES).filter_map(stored_address).collect();
    if addresses.is_empty() {
        return Some(vec![first]);
    }
    Some(addresses.into_iter().map(|local| InetSocket { local, ..first.clone() }).collect())
}

fn stored_address(bytes: &[u8]) -> Option<IpAddr> {
    match u16_at(bytes, 0)?.try_into() {
        Ok(AF_INET) => address(Family::V4, bytes, 4),
        Ok(AF_INET6) => address(Family::V6, bytes, 8),
        _ => None,
    }
}

fn socket(body: &[u8]) -> Option<InetSocket> {
    let fixed = body.first_chunk::<ANSWER_BYTES>()?;
    let family = match fixed[0] {
        AF_INET => Family::V4,
        AF_INET6 => Family::V6,
        _ => return None,
    };
    let v6_only = match family {
        Family::V4 => None,
        Family::V6 => attribute(&body[ANSWER_BYTES..], INET_DIAG_SKV6ONLY),
    };
    Some(InetSocket {
        local: address(family, fixed, 8)?,
        local_port: u16::from_be_bytes([fixed[4], fixed[5]]),
        peer: address(family, fixed, 24)?,
        peer_port: u16::from_be_bytes([fixed[6], fixed[7]]),
        state: fixed[1],
        interface: u32_at(fixed, 40)?,
        uid: u32_at(fixed, 64)?,
        inode: u64::from(u32_at(fixed, 68)?),
        v6_only: v6_only.and_then(|value| value.first()).map(|flag| *flag != 0),
    })
}

fn address(family: Family, bytes: &[u8], offset: usize) -> Option<IpAddr> {
    let bytes = bytes.get(offset..)?;
    match family {
        Family::V4 => bytes.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()),
        Family::V6 => bytes.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
    }
}

/// The value of the first attribute of this type. A broken attribute ends the search: what was told before it holds.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..length)?;
        if u16_at(bytes, 2)? == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::inet_socket::{CLOSE, LISTEN};

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(4711_u32.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(family: u8, state: u8, local: &[u8], port: u16, inode: u32) -> Vec<u8> {
        let mut bytes = vec![family, state, 0, 0];
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(local);
        bytes.resize(40, 0);
        bytes.extend(2_u32.to_ne_bytes());
        bytes.resize(64, 0);
        bytes.extend(1000_u32.to_ne_bytes());
        bytes.extend(inode.to_ne_bytes());
        bytes
    }

    /// An attribute of one byte, padded.
    fn flag(kind: u16, value: u8) -> Vec<u8> {
        [5_u16.to_ne_bytes(), kind.to_ne_bytes(), [value, 0], [0, 0]].concat()
    }

    fn datagram() -> Vec<u8> {
        let v6 = [answer(AF_INET6, CLOSE, &[0; 16], 53, 8), flag(8, 3), flag(INET_DIAG_SKV6ONLY, 0)].concat();
        [
            message(SOCK_DIAG_BY_FAMILY, 2, 9, &answer(AF_INET, LISTEN, &[127, 0, 0, 1], 8080, 7)),
            message(SOCK_DIAG_BY_FAMILY, 2, 8, &answer(AF_INET, LISTEN, &[1, 1, 1, 1], 1, 1)),
            message(SOCK_DIAG_BY_FAMILY, 2, 9, &v6),
        ]
        .concat()
    }

    #[test]
    fn a_datagram_gives_the_sockets_of_its_sequence() {
        let answers = read(&datagram(), 9).unwrap();
        assert_eq!((answers.end, answers.interrupted), (None, false));
        let [tcp, udp] = answers.sockets.as_slice() else { panic!("{answers:?}") };
        assert_eq!((tcp.local.to_string().as_str(), tcp.local_port, tcp.state), ("127.0.0.1", 8080, LISTEN));
        assert_eq!((tcp.interface, tcp.uid, tcp.inode, tcp.v6_only), (2, 1000, 7, None));
        assert_eq!((udp.local.to_string().as_str(), udp.local_port, udp.v6_only), ("::", 53, Some(false)));
        assert_eq!(udp.is_dual_stack(Protocol::Udp), Some(true));
    }

    #[test]
    fn an_sctp_endpoint_is_a_socket_for_each_of_its_addresses() {
        let stored = |family: u8, at: usize, octets: &[u8]| {
            let mut bytes = u16::from(family).to_ne_bytes().to_vec();
            bytes.resize(at, 0);
            bytes.extend(octets);
            bytes.resize(SOCKADDR_STORAGE_BYTES, 0);
            bytes
        };
        let all = [stored(AF_INET, 4, &[10, 0, 0, 1]), stored(AF_INET6, 8, &[1; 16]), stored(9, 8, &[1; 16])].concat();
        let head = [u16::try_from(4 + all.len()).unwrap().to_ne_bytes(), INET_DIAG_LOCALS.to_ne_bytes()].concat();
        let body = [answer(AF_INET, LISTEN, &[10, 0, 0, 1], 5000, 7), head, all].concat();
        let answers = read(&message(SOCK_DIAG_BY_FAMILY, 2, 9, &body), 9).unwrap();
        let found: Vec<_> = answers.sockets.iter().map(|it| (it.local.to_string(), it.local_port, it.inode)).collect();
        assert_eq!(found, [("10.0.0.1".to_owned(), 5000, 7), ("101:101:101:101:101:101:101:101".to_owned(), 5000, 7)]);
    }

    #[test]
    fn ends_errors_and_interruptions_are_told_apart() {
        let done = message(NLMSG_DONE, 2, 9, &0_i32.to_ne_bytes());
        assert_eq!(read(&done, 9).unwrap().end, Some(Ok(())));
        let done_with_errno = message(NLMSG_DONE, 2, 9, &(-2_i32).to_ne_bytes());
        assert_eq!(read(&done_with_errno, 9).unwrap().end, Some(Err(2)));
        let error = message(NLMSG_ERROR, 0, 9, &[(-22_i32).to_ne_bytes().to_vec(), vec![0; 16]].concat());
        assert_eq!(read(&error, 9).unwrap().end, Some(Err(22)));
        let interrupted = message(NLMSG_DONE, 2 | NLM_F_DUMP_INTR, 9, &0_i32.to_ne_bytes());
        assert!(read(&interrupted, 9).unwrap().interrupted);
        let of_another = message(NLMSG_DONE, 2, 8, &0_i32.to_ne_bytes());
        assert_eq!(read(&of_another, 9).unwrap(), Answers::default());
        assert_eq!(errno(&i32::MIN.to_ne_bytes()), Some(Err(i32::MAX)));
    }

    #[test]
    fn a_cut_datagram_is_malformed_where_it_was_cut() {
        let whole = datagram();
        let second = NLMSG_HEADER_BYTES + ANSWER_BYTES;
        assert_eq!(read(&whole[..second + 20], 9), Err(Malformed { offset: second }));
        assert_eq!(read(&whole[..3], 9), Err(Malformed { offset: 0 }));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = datagram();
        let mut random = fastrand::Rng::with_seed(17);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            if let Ok(answers) = read(&bytes, 9) {
                assert!(answers.sockets.len() <= 3);
            }
        }
    }

    #[test]
    fn a_request_has_the_kernels_layout() {
        let bytes = request(Query { protocol: Protocol::Raw, family: Family::V6, states: 1 << CLOSE }, 5);
        assert_eq!(bytes.len(), 72);
        assert_eq!(u32_at(&bytes, 0), Some(72));
        assert_eq!((u16_at(&bytes, 4), u16_at(&bytes, 6)), (Some(20), Some(0x301)));
        assert_eq!((u32_at(&bytes, 8), &bytes[16..20], u32_at(&bytes, 20)), (Some(5), &[10, 255, 0, 0][..], Some(128)));
        assert!(bytes[24..].iter().all(|byte| *byte == 0));
    }
}
