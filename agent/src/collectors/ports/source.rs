//! Where sockets are read: sock_diag where the kernel answers it, else the tables of `/proc/net`, chosen once for each
//! protocol.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use collector_common::collector::Failure;
use collector_common::parse::inet_diag::Query;
use collector_common::parse::inet_socket::{CLOSE_WAIT, ESTABLISHED, Family, InetSocket, Protocol};
use collector_common::parse::proc_net::{self, Table};
use collector_common::root::Root;
use collector_common::sys::netlink::{DumpError, SockDiag};
use nix::net::if_::if_indextoname;

use super::Socket;

/// What the kernel gives to clients when nobody set `net.ipv4.ip_local_port_range`.
const EPHEMERAL_DEFAULT: RangeInclusive<u16> = 32768..=60999;

/// Where the kernel counts sockets, for each family: some hundred bytes.
pub(super) const COUNTS: [(&str, Family); 2] = [("sockstat", Family::V4), ("sockstat6", Family::V6)];
const KEPT_BYTES: usize = 1024;

/// How the machine's sockets are read.
pub(super) struct Source {
    root: Root,
    /// Protocols this kernel has, and how it is asked about each.
    ways: Vec<(Protocol, Way)>,
    /// Why sock_diag is not used for a protocol everybody has, and what the tables hide.
    gaps: Vec<String>,
    /// The kernel's counts of the agent's own namespace, kept open because they are read at each look.
    counts: [Kept; 2],
}

/// A file of `/proc` that is always small, and is made anew by the kernel each time it is read.
pub(super) struct Kept(Option<File>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    SockDiag,
    Table,
}

/// The sockets of one network namespace.
pub(super) struct Reader<'a> {
    source: &'a Source,
    /// Absent where only tables may be read.
    diag: Option<SockDiag>,
    tables: PathBuf,
    /// How many there are, by the kernel's own count: to walk a table costs more than to ask for it.
    in_use: BTreeMap<(Protocol, Family), usize>,
}

impl Source {
    /// Tries each way once. Fails when there is none for TCP or for UDP.
    pub(super) fn open(root: &Root) -> Result<Source, Failure> {
        let counts = COUNTS.map(|(name, _)| Kept::count(root, name));
        let mut source = Source { root: root.clone(), ways: Vec::new(), gaps: Vec::new(), counts };
        let (diag, why_not) = match root.is_host().then(SockDiag::open) {
            Some(Ok(diag)) => (Some(diag), String::new()),
            Some(Err(error)) => (None, error.to_string()),
            None => (None, "sock_diag speaks of the running machine only".to_owned()),
        };
        let mut reader = Reader { source: &source, diag, tables: root.path("/proc/net"), in_use: BTreeMap::new() };
        let (mut ways, mut gaps) = (Vec::new(), Vec::new());
        for protocol in Protocol::ALL {
            // To ask about SCTP would have the kernel load it, which nobody wants here who does not use it.
            if protocol == Protocol::Sctp && !reader.tables.join("sctp").exists() {
                continue;
            }
            let query = Query { protocol, family: Family::V4, states: 1 << protocol.waiting_state() };
            let answer = match &mut reader.diag {
                Some(diag) => diag.dump(query).map(drop).map_err(|error| error.to_string()),
                None => Err(why_not.clone()),
            };
            let way = choose(protocol, answer, reader.table(protocol, Family::V4), &mut gaps)?;
            ways.extend(way.map(|way| (protocol, way)));
        }
        (source.ways, source.gaps) = (ways, gaps);
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

    /// Reads the network namespace the agent runs in.
    pub(super) fn here(&self) -> Result<Reader<'_>, Failure> {
        let asked = self.ways.iter().any(|(_, way)| *way == Way::SockDiag).then(SockDiag::open);
        let diag = asked.transpose().map_err(|error| Failure(error.to_string()))?;
        Ok(Reader { source: self, diag, tables: self.root.path("/proc/net"), in_use: BTreeMap::new() })
    }

    /// Reads the network namespace the calling thread is in, which is not that of the other threads.
    pub(super) fn there(&self) -> Result<Reader<'_>, Failure> {
        Ok(Reader { tables: PathBuf::from("/proc/thread-self/net"), ..self.here()? })
    }

    /// Reads the network namespace of a process, where one may not enter it.
    pub(super) fn beside(&self, pid: i32) -> Reader<'_> {
        Reader { source: self, diag: None, tables: self.root.path(format!("/proc/{pid}/net")), in_use: BTreeMap::new() }
    }

    /// How many sockets of each kind there are in the namespace of a process, or in ours, as the kernel says it. It costs
    /// a tenth of what reading them does, and when it is the same as before, hardly anything has changed.
    pub(super) fn counts(&self, pid: Option<i32>) -> Option<String> {
        let [v4, v6] = match pid.map(|pid| self.root.path(format!("/proc/{pid}/net"))) {
            Some(tables) => COUNTS.map(|(name, _)| text(&tables.join(name))),
            None => self.counts.each_ref().map(Kept::text),
        };
        // Of SCTP there is no count but that of all sockets, those of unix(7) included.
        let has_sctp = self.ways.iter().any(|(protocol, _)| *protocol == Protocol::Sctp);
        v4.map(|v4| proc_net::counts(&(v4 + &v6.unwrap_or_default()), has_sctp))
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
}

impl Reader<'_> {
    /// Every socket that waits for somebody, in a stable order.
    pub(super) fn listeners(&mut self) -> Result<Vec<Socket>, Failure> {
        self.listeners_beside(Vec::new())
    }

    /// The listeners of this look and of one before it.
    pub(super) fn listeners_beside(&mut self, mut all: Vec<Socket>) -> Result<Vec<Socket>, Failure> {
        self.count();
        for (protocol, way) in &self.source.ways {
            let families = Family::ALL.into_iter().filter(|family| self.in_use.get(&(*protocol, *family)) != Some(&0));
            let sockets = self.sockets(*protocol, *way, families.collect(), 1 << protocol.waiting_state())?;
            let listeners = sockets.into_iter().filter(|socket| socket.is_listener(*protocol));
            all.extend(listeners.map(|socket| (*protocol, socket)));
        }
        all.sort_by(|(p, a), (q, b)| (p, a.local_port, a).cmp(&(q, b.local_port, b)));
        all.dedup();
        Ok(all)
    }

    /// Every TCP connection whose program could still hear from the peer or answer it.
    pub(super) fn connections(&mut self, listeners: &[Socket]) -> Result<Vec<InetSocket>, Failure> {
        let tcp = self.source.ways.iter().find(|(protocol, _)| *protocol == Protocol::Tcp);
        let anybody_listens = listeners.iter().any(|(protocol, _)| *protocol == Protocol::Tcp);
        let Some((_, way)) = tcp.filter(|_| anybody_listens) else { return Ok(Vec::new()) };
        if self.in_use.is_empty() {
            self.count();
        }
        // Where as many are in use as listen, nobody is connected.
        let waiting = |family| {
            let is_one = |(protocol, socket): &&Socket| {
                *protocol == Protocol::Tcp && socket.local.is_ipv6() == (family == Family::V6)
            };
            listeners.iter().filter(is_one).count()
        };
        let families =
            Family::ALL.into_iter().filter(|it| self.in_use.get(&(Protocol::Tcp, *it)) != Some(&waiting(*it)));
        let mut sockets = self.sockets(Protocol::Tcp, *way, families.collect(), 1 << ESTABLISHED | 1 << CLOSE_WAIT)?;
        sockets.retain(|socket| matches!(socket.state, ESTABLISHED | CLOSE_WAIT));
        Ok(sockets)
    }

    /// The names of the interfaces that sockets are bound to; the index of one that is gone, or may not be asked for.
    pub(super) fn interfaces<'s>(&self, sockets: impl Iterator<Item = &'s InetSocket>) -> BTreeMap<u32, String> {
        let name = |index: u32| {
            if_indextoname(index).map_or_else(|_| index.to_string(), |it| it.to_string_lossy().into_owned())
        };
        let mut names = BTreeMap::new();
        for socket in sockets.filter(|socket| socket.interface != 0) {
            names.entry(socket.interface).or_insert_with(|| name(socket.interface));
        }
        names
    }

    fn sockets(
        &mut self,
        protocol: Protocol,
        way: Way,
        families: Vec<Family>,
        states: u32,
    ) -> Result<Vec<InetSocket>, Failure> {
        let mut all = Vec::new();
        for family in families {
            let sockets = match (way, &mut self.diag) {
                (Way::SockDiag, Some(diag)) => match diag.dump(Query { protocol, family, states }) {
                    Err(DumpError::Refused(_)) if family == Family::V6 && !self.has_ipv6() => Ok(Vec::new()),
                    outcome => {
                        outcome.map_err(|error| Failure(format!("listing {} sockets failed: {error}", protocol.name())))
                    }
                },
                _ => self.table(protocol, family).map(|table| table.sockets),
            };
            all.extend(sockets?);
        }
        // Both ways give a table in parts, and one that changes between two parts can tell a socket twice.
        all.sort();
        all.dedup();
        Ok(all)
    }

    fn count(&mut self) {
        self.in_use.clear();
        for (name, family) in COUNTS {
            let text = text(&self.tables.join(name)).unwrap_or_default();
            self.in_use.extend(proc_net::in_use(&text).map(|(protocol, count)| ((protocol, family), count)));
        }
    }

    fn has_ipv6(&self) -> bool {
        self.tables.join("if_inet6").exists()
    }

    fn table(&self, protocol: Protocol, family: Family) -> Result<Table, Failure> {
        let name = table_name(protocol, family);
        if protocol == Protocol::Sctp {
            // One table has both families, and is there only where SCTP is.
            let text =
                if family == Family::V4 { fs::read_to_string(self.tables.join(name)) } else { Ok(String::new()) };
            return Ok(proc_net::read_sctp(&text.unwrap_or_default()));
        }
        let path = self.tables.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(proc_net::read(&text)),
            // A kernel without IPv6 has no tables for it.
            Err(error) if family == Family::V6 && error.kind() == io::ErrorKind::NotFound => Ok(Table::default()),
            Err(error) => Err(Failure(format!("reading {} failed: {error}", shown(&path)))),
        }
    }
}

impl Kept {
    pub(super) fn open(path: &Path) -> Kept {
        Kept(File::open(path).ok())
    }

    /// One of `COUNTS`, of the agent's own namespace.
    pub(super) fn count(root: &Root, name: &str) -> Kept {
        Kept::open(&root.path("/proc/self/net").join(name))
    }

    /// All of it as it is now.
    pub(super) fn text(&self) -> Option<String> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether it could be read.
    pub(super) fn append_to(&self, bytes: &mut Vec<u8>) -> bool {
        let mut buffer = [0; KEPT_BYTES];
        let read = self.0.as_ref().and_then(|file| file.read_at(&mut buffer, 0).ok());
        bytes.extend_from_slice(&buffer[..read.unwrap_or_default()]);
        read.is_some()
    }
}

fn text(path: &Path) -> Option<String> {
    Kept::open(path).text()
}

/// How sockets of a protocol are read, by what came of both ways; `None` where the kernel does not have it.
fn choose(
    protocol: Protocol,
    diag: Result<(), String>,
    table: Result<Table, Failure>,
    gaps: &mut Vec<String>,
) -> Result<Option<Way>, Failure> {
    let common = matches!(protocol, Protocol::Tcp | Protocol::Udp);
    match (diag, table) {
        (Ok(()), _) => Ok(Some(Way::SockDiag)),
        (Err(why), Ok(table)) => {
            if common && !gaps.iter().any(|gap| gap.contains(&why)) {
                gaps.push(format!("interfaces and dual-stack sockets are not told by /proc/net: {why}"));
            }
            if table.bad_lines > 0 {
                let (lines, name) = (table.bad_lines, table_name(protocol, Family::V4));
                gaps.push(format!("{lines} lines of /proc/net/{name} have an unknown layout and are not listed"));
            }
            Ok(Some(Way::Table))
        }
        (Err(why), Err(table)) if common => Err(Failure(format!(
            "{} sockets cannot be listed: {why}; {}. Allow AF_NETLINK or mount /proc",
            protocol.name(),
            table.0
        ))),
        // A kernel without UDP-Lite or raw diagnostics and without a table for it has no such sockets.
        (Err(_), Err(_)) => Ok(None),
    }
}

/// As an operator knows it, wherever the root lies.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.rfind("/proc/").map_or_else(|| text.clone().into_owned(), |at| text[at..].to_owned())
}

fn table_name(protocol: Protocol, family: Family) -> &'static str {
    match (protocol, family) {
        (Protocol::Tcp, Family::V4) => "tcp",
        (Protocol::Tcp, Family::V6) => "tcp6",
        (Protocol::Udp, Family::V4) => "udp",
        (Protocol::Udp, Family::V6) => "udp6",
        (Protocol::UdpLite, Family::V4) => "udplite",
        (Protocol::UdpLite, Family::V6) => "udplite6",
        (Protocol::Raw, Family::V4) => "raw",
        (Protocol::Raw, Family::V6) => "raw6",
        (Protocol::Sctp, _) => "sctp/eps",
    }
}
