//! What `bpf/listen.bpf.c` writes, in the machine's byte order.
//!
//! ```text
//! listens or not  0 time since boot u64 | 8 start of the process u64, both ns | 16 pid u32 | 20 uid u32
//!                 24 network namespace u32 | 28 interface u32 | 32 protocol u16 | 34 family u16 | 36 port u16
//!                 38 begins u16 | 40 address 16 | 56 name of the process 16, with NUL
//! holder          0 inode u64 | 8 pid u32 | 12 descriptor u32
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::inet_socket::Protocol;

/// Of one record that tells a holder.
pub const HOLDER_BYTES: usize = 16;
const RECORD_BYTES: usize = 72;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A socket that began or ceased to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenRecord {
    /// When.
    pub boottime_ns: u64,
    /// When the process was made.
    pub start_boottime_ns: u64,
    /// The process that made it so.
    pub pid: u32,
    /// Its real uid.
    pub uid: u32,
    /// The number of the socket's network namespace.
    pub net_namespace: u32,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it listens.
    pub local: IpAddr,
    /// The port; 0 when the kernel had not chosen it yet.
    pub port: u16,
    /// The interface it is bound to, or 0.
    pub interface: u32,
    /// Whether it began to listen.
    pub begins: bool,
    /// The process's name.
    pub name: String,
}

impl ListenRecord {
    /// `None` for bytes of another layout, and for a protocol that is not collected.
    pub fn parse(bytes: &[u8]) -> Option<ListenRecord> {
        let bytes = bytes.first_chunk::<RECORD_BYTES>()?;
        let address = bytes.get(40..56)?;
        let local = match u16_at(bytes, 34)? {
            AF_INET => Ipv4Addr::from(*address.first_chunk::<4>()?).into(),
            AF_INET6 => Ipv6Addr::from(*address.first_chunk::<16>()?).into(),
            _ => return None,
        };
        let number = u16_at(bytes, 32)?;
        let name = bytes.get(56..72)?.split(|byte| *byte == 0).next()?;
        Some(ListenRecord {
            boottime_ns: u64_at(bytes, 0)?,
            start_boottime_ns: u64_at(bytes, 8)?,
            pid: u32_at(bytes, 16)?,
            uid: u32_at(bytes, 20)?,
            net_namespace: u32_at(bytes, 24)?,
            interface: u32_at(bytes, 28)?,
            protocol: Protocol::ALL.into_iter().find(|it| u16::from(it.number()) == number)?,
            local,
            port: u16_at(bytes, 36)?,
            begins: u16_at(bytes, 38)? != 0,
            name: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

/// A process that holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HolderRecord {
    /// Of the socket.
    pub inode: u64,
    /// The process.
    pub pid: u32,
    /// Its descriptor.
    pub fd: u32,
}

/// Reads records that follow each other; what is left of the last one is not read.
pub fn holders(bytes: &[u8]) -> impl Iterator<Item = HolderRecord> + '_ {
    bytes
        .chunks_exact(HOLDER_BYTES)
        .filter_map(|it| Some(HolderRecord { inode: u64_at(it, 0)?, pid: u32_at(it, 8)?, fd: u32_at(it, 12)? }))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Vec<u8> {
        let mut bytes = [5_000_000_000_u64, 4_000_000_000].map(u64::to_ne_bytes).concat();
        bytes.extend([77_u32, 33, 4_026_531_840, 2].map(u32::to_ne_bytes).concat());
        bytes.extend([6_u16, AF_INET, 8888, 1].map(u16::to_ne_bytes).concat());
        bytes.extend([127, 0, 0, 1]);
        bytes.resize(56, 0);
        bytes.extend(b"nc\0rubbish");
        bytes.resize(RECORD_BYTES, 0);
        bytes
    }

    #[test]
    fn a_listener_is_told_with_its_process() {
        let it = ListenRecord::parse(&record()).unwrap();
        assert_eq!((it.boottime_ns, it.start_boottime_ns), (5_000_000_000, 4_000_000_000));
        assert_eq!((it.pid, it.uid, it.net_namespace, it.interface), (77, 33, 4_026_531_840, 2));
        assert_eq!((it.protocol, it.local, it.port), (Protocol::Tcp, Ipv4Addr::LOCALHOST.into(), 8888));
        assert!(it.begins);
        assert_eq!(it.name, "nc");
        assert_eq!(ListenRecord::parse(&record()[1..]), None);
    }

    #[test]
    fn a_family_or_protocol_that_is_not_collected_is_passed_over() {
        for (at, value) in [(32, 33_u16), (34, 9)] {
            let mut bytes = record();
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
            assert_eq!(ListenRecord::parse(&bytes), None);
        }
    }

    #[test]
    fn holders_follow_each_other() {
        let one = [9_u64.to_ne_bytes().to_vec(), [7_u32, 3].map(u32::to_ne_bytes).concat()].concat();
        let found: Vec<_> = holders(&[one.clone(), one, vec![1]].concat()).collect();
        let expected = HolderRecord { inode: 9, pid: 7, fd: 3 };
        assert_eq!(found, [expected, expected]);
    }
}
