//! Where sockets are read: sock_diag where the kernel answers it, else the tables of `/proc/net`, chosen once for each
//! protocol.

use std::fs;
use std::io;
use std::ops::RangeInclusive;

use collector_common::collector::Failure;
use collector_common::parse::inet_diag::Query;
use collector_common::parse::inet_socket::{CLOSE_WAIT, ESTABLISHED, Family, InetSocket, Protocol};
use collector_common::parse::proc_net::{self, Table};
use collector_common::root::Root;
use collector_common::sys::netlink::{DumpError, dump};
use nix::net::if_::if_indextoname;

use super::Socket;

/// What the kernel gives to clients when nobody set `net.ipv4.ip_local_port_range`.
const EPHEMERAL_DEFAULT: RangeInclusive<u16> = 32768..=60999;

/// The machine's sockets.
pub(super) struct Source {
    root: Root,
    /// Protocols this kernel has, and how it is asked about each.
    ways: Vec<(Protocol, Way)>,
    /// Why sock_diag is not used for a protocol everybody has, and what the tables hide.
    gaps: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    SockDiag,
    Table,
}

impl Source {
    /// Tries each way once. Fails when there is none for TCP or for UDP.
    pub(super) fn open(root: &Root) -> Result<Source, Failure> {
        let mut source = Source { root: root.clone(), ways: Vec::new(), gaps: Vec::new() };
        for protocol in Protocol::ALL {
            let diag = match root.is_host() {
                true => diag(protocol, Family::V4, 1 << protocol.waiting_state()).map_err(|error| error.to_string()),
                false => Err("sock_diag speaks of the running machine only".to_owned()),
            };
            let common = matches!(protocol, Protocol::Tcp | Protocol::Udp);
            match (diag, source.table(protocol, Family::V4)) {
                (Ok(_), _) => source.ways.push((protocol, Way::SockDiag)),
                (Err(why), Ok(table)) => {
                    source.ways.push((protocol, Way::Table));
                    if common && !source.gaps.iter().any(|gap| gap.contains(&why)) {
                        source.gaps.push(format!("interfaces and dual-stack sockets are not told by /proc/net: {why}"));
                    }
                    source.note_bad_lines(protocol, &table);
                }
                (Err(why), Err(table)) if common => {
                    return Err(Failure(format!(
                        "{} sockets cannot be listed: {why}; {}. Allow AF_NETLINK or mount /proc",
                        protocol.name(),
                        table.0
                    )));
                }
                // A kernel without UDP-Lite or raw diagnostics and without a table for it has no such sockets.
                (Err(_), Err(_)) => {}
            }
        }
        Ok(source)
    }

    /// The back end, for `status` and `check`.
    pub(super) fn backend(&self) -> String {
        let by = |wanted: Way, name: &str| {
            let protocols: Vec<_> =
                self.ways.iter().filter(|(_, way)| *way == wanted).map(|(protocol, _)| protocol.name()).collect();
            (!protocols.is_empty()).then(|| format!("{name} ({})", protocols.join(", ")))
        };
        let parts = [by(Way::SockDiag, "sock_diag"), by(Way::Table, "/proc/net")];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    pub(super) fn gaps(&self) -> &[String] {
        &self.gaps
    }

    /// Every socket that waits for somebody, in a stable order.
    pub(super) fn listeners(&self) -> Result<Vec<Socket>, Failure> {
        self.listeners_beside(Vec::new())
    }

    /// The listeners of this look and of one before it.
    pub(super) fn listeners_beside(&self, mut all: Vec<Socket>) -> Result<Vec<Socket>, Failure> {
        for (protocol, way) in &self.ways {
            let sockets = self.sockets(*protocol, *way, 1 << protocol.waiting_state())?;
            let listeners = sockets.into_iter().filter(|socket| socket.is_listener(*protocol));
            all.extend(listeners.map(|socket| (*protocol, socket)));
        }
        all.sort_by(|(p, a), (q, b)| (p, a.local_port, a).cmp(&(q, b.local_port, b)));
        all.dedup();
        Ok(all)
    }

    /// Every TCP connection whose program could still hear from the peer or answer it.
    pub(super) fn connections(&self, listeners: &[Socket]) -> Result<Vec<InetSocket>, Failure> {
        let tcp = self.ways.iter().find(|(protocol, _)| *protocol == Protocol::Tcp);
        let anybody_listens = listeners.iter().any(|(protocol, _)| *protocol == Protocol::Tcp);
        let Some((_, way)) = tcp.filter(|_| anybody_listens) else { return Ok(Vec::new()) };
        let mut sockets = self.sockets(Protocol::Tcp, *way, 1 << ESTABLISHED | 1 << CLOSE_WAIT)?;
        sockets.retain(|socket| matches!(socket.state, ESTABLISHED | CLOSE_WAIT));
        Ok(sockets)
    }

    /// The ports the kernel gives to clients.
    pub(super) fn ephemeral_ports(&self) -> RangeInclusive<u16> {
        let text = fs::read_to_string(self.root.path("/proc/sys/net/ipv4/ip_local_port_range")).unwrap_or_default();
        let mut ports = text.split_ascii_whitespace().map(str::parse);
        match (ports.next(), ports.next()) {
            (Some(Ok(low)), Some(Ok(high))) => low..=high,
            _ => EPHEMERAL_DEFAULT,
        }
    }

    fn sockets(&self, protocol: Protocol, way: Way, states: u32) -> Result<Vec<InetSocket>, Failure> {
        let mut all = Vec::new();
        for family in Family::ALL {
            let sockets = match way {
                Way::Table => self.table(protocol, family).map(|table| table.sockets),
                Way::SockDiag => match diag(protocol, family, states) {
                    Err(DumpError::Refused(_)) if family == Family::V6 && !self.has_ipv6() => Ok(Vec::new()),
                    outcome => {
                        outcome.map_err(|error| Failure(format!("listing {} sockets failed: {error}", protocol.name())))
                    }
                },
            };
            all.extend(sockets?);
        }
        // Both ways give a table in parts, and one that changes between two parts can tell a socket twice.
        all.sort();
        all.dedup();
        Ok(all)
    }

    fn has_ipv6(&self) -> bool {
        self.root.path("/proc/net/if_inet6").exists()
    }

    fn note_bad_lines(&mut self, protocol: Protocol, table: &Table) {
        if table.bad_lines > 0 {
            let path = table_path(protocol, Family::V4);
            let lines = table.bad_lines;
            self.gaps.push(format!("{lines} lines of {path} have an unknown layout and are not listed"));
        }
    }

    fn table(&self, protocol: Protocol, family: Family) -> Result<Table, Failure> {
        let path = table_path(protocol, family);
        match fs::read_to_string(self.root.path(path)) {
            Ok(text) => Ok(proc_net::read(&text)),
            // A kernel without IPv6 has no tables for it.
            Err(error) if family == Family::V6 && error.kind() == io::ErrorKind::NotFound => Ok(Table::default()),
            Err(error) => Err(Failure(format!("reading {path} failed: {error}"))),
        }
    }
}

/// The name of a network interface, or its index once it is gone.
pub(super) fn interface_name(index: u32) -> String {
    if_indextoname(index).map_or_else(|_| index.to_string(), |name| name.to_string_lossy().into_owned())
}

fn diag(protocol: Protocol, family: Family, states: u32) -> Result<Vec<InetSocket>, DumpError> {
    dump(Query { protocol, family, states })
}

fn table_path(protocol: Protocol, family: Family) -> &'static str {
    match (protocol, family) {
        (Protocol::Tcp, Family::V4) => "/proc/net/tcp",
        (Protocol::Tcp, Family::V6) => "/proc/net/tcp6",
        (Protocol::Udp, Family::V4) => "/proc/net/udp",
        (Protocol::Udp, Family::V6) => "/proc/net/udp6",
        (Protocol::UdpLite, Family::V4) => "/proc/net/udplite",
        (Protocol::UdpLite, Family::V6) => "/proc/net/udplite6",
        (Protocol::Raw, Family::V4) => "/proc/net/raw",
        (Protocol::Raw, Family::V6) => "/proc/net/raw6",
    }
}
