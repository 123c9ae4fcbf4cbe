//! The tables `/proc/net/{tcp,udp,udplite,raw}{,6}`, for kernels that do not answer sock_diag.
//!
//! One heading, then a socket a line (`net/ipv4/tcp_ipv4.c` `get_tcp4_sock`, `net/ipv6/tcp_ipv6.c`, `proc_net_tcp`):
//!
//! ```text
//!   sl  local_address rem_address   st tx_queue:rx_queue tr:tm->when retrnsmt   uid  timeout inode ...
//!    0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 482 ...
//! ```
//!
//! An address is one hexadecimal word for IPv4 and four for IPv6. Each word was printed as a number from memory that
//! holds network order, so it goes back to memory in the machine's own order. A port is an ordinary number.
//!
//! How many there are of each is in `/proc/net/sockstat` and `sockstat6` (`net/ipv4/proc.c`), without a walk:
//!
//! ```text
//! UDPLITE: inuse 0        UDPLITE6: inuse 0
//! ```
//!
//! SCTP has a table of its own, `/proc/net/sctp/eps` (`net/sctp/proc.c`), with all addresses of an endpoint, written as
//! people do:
//!
//! ```text
//!  ENDPT     SOCK   STY SSK HBKT LPORT   UID INODE LADDRS
//! 00000000 00000000 2   10  48   5000      0 20519 10.0.0.1 0000:0000:0000:0000:0000:0000:0000:0001
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::inet_socket::{InetSocket, LISTEN, Protocol};

/// A table and what of it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The sockets. Interface and `IPV6_V6ONLY` are not in the table.
    pub sockets: Vec<InetSocket>,
    /// Lines that do not have the layout above.
    pub bad_lines: usize,
}

/// Reads a whole table.
pub fn read(text: &str) -> Table {
    let mut table = Table::default();
    for line in text.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        match socket(line) {
            Some(socket) => table.sockets.push(socket),
            None => table.bad_lines += 1,
        }
    }
    table
}

/// Of such a text what counts the sockets of this network namespace; those of all kinds together only `with_all`. The
/// rest is of the whole machine, and never rests.
pub fn counts(text: &str, with_all: bool) -> String {
    let mut counts = String::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        counts.extend(words.next());
        while let (Some(what), Some(number)) = (words.next(), words.next()) {
            if ["inuse", "tw"].contains(&what) || with_all && what == "used" {
                counts.extend([" ", number]);
            }
        }
        counts.push('\n');
    }
    counts
}

/// How many sockets of each protocol there are, by what `sockstat` or `sockstat6` says: of TCP those that listen or are
/// connected.
pub fn in_use(text: &str) -> impl Iterator<Item = (Protocol, usize)> + '_ {
    text.lines().filter_map(|line| {
        let (name, counts) = line.split_once(": inuse ")?;
        let named = |it: &Protocol| it.name() == name.strip_suffix('6').unwrap_or(name);
        let count = counts.split_ascii_whitespace().next()?.parse().ok()?;
        Some((Protocol::ALL.into_iter().find(named)?, count))
    })
}

/// Reads the table of SCTP, of which only endpoints that listen are taken.
pub fn read_sctp(text: &str) -> Table {
    let mut table = Table::default();
    for line in text.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        match endpoint_sockets(line) {
            Some(sockets) => table.sockets.extend(sockets),
            None => table.bad_lines += 1,
        }
    }
    table
}

fn endpoint_sockets(line: &str) -> Option<Vec<InetSocket>> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let state: u8 = fields.next()?.parse().ok()?;
    let local_port = fields.nth(1)?.parse().ok()?;
    let uid = fields.next()?.parse().ok()?;
    let inode = fields.next()?.parse().ok()?;
    let addresses: Option<Vec<IpAddr>> = fields.map(|field| field.parse().ok()).collect();
    let socket = |local: IpAddr| {
        let peer = if local.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        InetSocket { local, local_port, peer, peer_port: 0, state, interface: 0, uid, inode, v6_only: None }
    };
    Some(addresses?.into_iter().filter(|_| state == LISTEN).map(socket).collect())
}

fn socket(line: &str) -> Option<InetSocket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, local_port) = endpoint(fields.next()?)?;
    let (peer, peer_port) = endpoint(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let mut fields = fields.skip(3);
    let uid = fields.next()?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(InetSocket { local, local_port, peer, peer_port, state, interface: 0, uid, inode, v6_only: None })
}

fn endpoint(field: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.len() {
        8 => Ipv4Addr::from(word(address)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (index, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(address.get(index * 8..index * 8 + 8)?)?);
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some((address, port))
}

fn word(digits: &str) -> Option<[u8; 4]> {
    u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::inet_socket::{ESTABLISHED, LISTEN};

    /// What the kernel prints for these octets on this machine.
    fn hex(octets: &[u8]) -> String {
        octets.chunks_exact(4).map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap()))).collect()
    }

    fn text() -> String {
        let v4 = hex(&[127, 0, 0, 1]);
        let v6 = hex(&"2001:db8::17".parse::<Ipv6Addr>().unwrap().octets());
        let none = hex(&[0; 16]);
        format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             {:4}: {v4}:0016 {v4}:D431 01 00000000:00000000 02:000A7F5B 00000000  1000        0 21093 2 0000000000000000\n\
             {:4}: {v6}:01BB {none}:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4294967295 1\n\
             nonsense\n",
            0, 1
        )
    }

    #[test]
    fn lines_of_both_families_are_read_and_bad_ones_counted() {
        let table = read(&text());
        assert_eq!(table.bad_lines, 1);
        let [v4, v6] = table.sockets.as_slice() else { panic!("{table:?}") };
        assert_eq!((v4.local.to_string().as_str(), v4.local_port), ("127.0.0.1", 22));
        assert_eq!((v4.peer.to_string().as_str(), v4.peer_port, v4.state), ("127.0.0.1", 54321, ESTABLISHED));
        assert_eq!((v4.uid, v4.inode), (1000, 21093));
        assert_eq!((v6.local.to_string().as_str(), v6.local_port, v6.state), ("2001:db8::17", 443, LISTEN));
        assert_eq!(v6.inode, 4_294_967_295);
    }

    #[test]
    fn how_many_there_are_is_told_by_the_counts() {
        let text = "sockets: used 17\nTCP: inuse 1 orphan 0 tw 100 alloc 1 mem 214\nUDP: inuse 0 mem 0\n\
                    UDPLITE: inuse 0\nRAW: inuse 10\nFRAG: inuse 0 memory 0\n";
        let expected = [(Protocol::Tcp, 1), (Protocol::Udp, 0), (Protocol::UdpLite, 0), (Protocol::Raw, 10)];
        assert_eq!(in_use(text).collect::<Vec<_>>(), expected);
        assert_eq!(counts(text, false), "sockets:\nTCP: 1 100\nUDP: 0\nUDPLITE: 0\nRAW: 10\nFRAG: 0\n");
        assert_eq!(counts(text, true), "sockets: 17\nTCP: 1 100\nUDP: 0\nUDPLITE: 0\nRAW: 10\nFRAG: 0\n");
        let text = "TCP6: inuse 0\nUDP6: inuse 3\nRAW6: inuse 0\n";
        assert_eq!(in_use(text).collect::<Vec<_>>(), [(Protocol::Tcp, 0), (Protocol::Udp, 3), (Protocol::Raw, 0)]);
        assert_eq!(in_use("").count(), 0);
    }

    #[test]
    fn an_sctp_endpoint_is_a_socket_for_each_of_its_addresses() {
        let text = " ENDPT     SOCK   STY SSK HBKT LPORT   UID INODE LADDRS\n\
            0 0 2   10  48   5000      0 20519 10.0.0.1 0000:0000:0000:0000:0000:0000:0000:0001 \n\
            0 0 2   7   48   5001      0 20520 10.0.0.1 \n\
            0 0 2   10  48   what\n";
        let table = read_sctp(text);
        assert_eq!(table.bad_lines, 1);
        let found: Vec<_> = table.sockets.iter().map(|it| (it.local.to_string(), it.local_port, it.inode)).collect();
        assert_eq!(found, [("10.0.0.1".to_owned(), 5000, 20519), ("::1".to_owned(), 5000, 20519)]);
    }

    #[test]
    fn no_text_makes_it_panic() {
        let text = text().replace("D431", "D\u{e9}31");
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5_000 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..4 {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            assert!(read(&String::from_utf8_lossy(&bytes)).sockets.len() <= bytes.len());
            read_sctp(&String::from_utf8_lossy(&bytes));
        }
        assert_eq!(read(""), Table::default());
    }
}
