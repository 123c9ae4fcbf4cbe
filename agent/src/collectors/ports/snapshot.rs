//! Sockets and their owners as rows. Nothing here asks the machine.
//!
//! A listener's `LocalAddress` is the kernel's own, as `ss` shows it: an IPv6 socket bound to an IPv4-mapped address
//! stays `::ffff:127.0.0.1`, so that it can be told from an IPv4 socket there. In the row of a peer both addresses are
//! folded, because there it no longer matters which kind of socket took the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use collector_common::event::payload::{ExtraDetails, ListeningPort};
use collector_common::parse::inet_socket::{CLOSE_WAIT, ESTABLISHED, InetSocket, LISTEN, Protocol};

use super::owner::{Named, Owner};
use super::{Look, Socket};

/// Rows for peers of one listener; more connections than these are counted.
const PEERS_SHOWN: usize = 64;

/// The inodes whose owners a snapshot names.
pub(super) fn inodes(looks: &[Look]) -> BTreeSet<u64> {
    let mut inodes = BTreeSet::new();
    for look in looks {
        let shown = peers(&look.listeners, &look.connections).into_values().flat_map(|peers| bounded(peers).0);
        let all = look.listeners.iter().map(|(_, socket)| socket).chain(shown);
        inodes.extend(all.map(|socket| socket.inode).filter(|inode| *inode != 0));
    }
    inodes
}

/// Each connection that came in, under the index of the listener it came through: the one bound to just its address
/// before a wildcard, a wildcard of its own family before a dual-stack one.
pub(super) fn peers<'a>(listeners: &[Socket], connections: &'a [InetSocket]) -> BTreeMap<usize, Vec<&'a InetSocket>> {
    let mut by_port: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (index, (protocol, socket)) in listeners.iter().enumerate() {
        if *protocol == Protocol::Tcp {
            by_port.entry(socket.local_port).or_default().push(index);
        }
    }
    let mut peers: BTreeMap<usize, Vec<&InetSocket>> = BTreeMap::new();
    for connection in connections {
        let reached = connection.local.to_canonical();
        let preference = |index: &usize| {
            let bound = listeners[*index].1.local.to_canonical();
            (bound != reached, bound.is_ipv4() != reached.is_ipv4())
        };
        let candidates = by_port.get(&connection.local_port).into_iter().flatten().copied();
        let through = candidates.filter(|index| listeners[*index].1.accepts(connection)).min_by_key(preference);
        if let Some(index) = through {
            peers.entry(index).or_default().push(connection);
        }
    }
    peers
}

/// All rows of one network namespace: each listener, and below it its peers.
pub(super) fn rows(look: &Look, named: &Named) -> Vec<ListeningPort> {
    let mut peers = peers(&look.listeners, &look.connections);
    let mut rows = Vec::new();
    for (index, (protocol, socket)) in look.listeners.iter().enumerate() {
        let mut details = details(socket, *protocol, look, named);
        if socket.is_dual_stack(*protocol) == Some(true) {
            details.insert("DualStack", "true".to_owned());
        }
        // A connection nobody has accepted yet is held by no process either, but a listener always is.
        if socket.inode == 0 || named.get(&socket.inode) == Some(&None) {
            details.insert("Owner", "none".to_owned());
        }
        let (shown, hidden) = bounded(peers.remove(&index).unwrap_or_default());
        if hidden > 0 {
            details.insert("MorePeers", hidden.to_string());
        }
        rows.push(ListeningPort {
            protocol: protocol.name(),
            local_address: socket.local,
            local_port: socket.local_port.to_string(),
            remote_address: if socket.local.is_ipv4() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            } else {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            },
            remote_port: "*".to_owned(),
            extra_details: details,
        });
        rows.extend(shown.into_iter().map(|peer| peer_row(peer, *protocol, look, named)));
    }
    rows
}

fn peer_row(peer: &InetSocket, protocol: Protocol, look: &Look, named: &Named) -> ListeningPort {
    ListeningPort {
        protocol: protocol.name(),
        local_address: peer.local.to_canonical(),
        local_port: peer.local_port.to_string(),
        remote_address: peer.peer.to_canonical(),
        remote_port: peer.peer_port.to_string(),
        extra_details: details(peer, protocol, look, named),
    }
}

/// The connections that get a row, and how many do not. Each address comes once before any comes again, so that one
/// busy client cannot push the others out.
fn bounded(mut connections: Vec<&InetSocket>) -> (Vec<&InetSocket>, usize) {
    let mut occurrences: BTreeMap<IpAddr, usize> = BTreeMap::new();
    connections.sort_by_key(|it| (it.peer.to_canonical(), it.peer_port));
    let mut ranked: Vec<_> = connections
        .into_iter()
        .map(|it| {
            let seen = occurrences.entry(it.peer.to_canonical()).or_default();
            *seen += 1;
            (*seen, it)
        })
        .collect();
    ranked.sort_by_key(|(seen, _)| *seen);
    let hidden = ranked.len().saturating_sub(PEERS_SHOWN);
    ranked.truncate(PEERS_SHOWN);
    (ranked.into_iter().map(|(_, it)| it).collect(), hidden)
}

fn details(socket: &InetSocket, protocol: Protocol, look: &Look, named: &Named) -> ExtraDetails {
    let mut details = ExtraDetails::from([("State", state(socket.state, protocol).to_owned())]);
    let owner = named.get(&socket.inode).and_then(Option::as_ref);
    if let Some(owner) = owner {
        describe(owner, &mut details);
    }
    // A socket that no program holds says uid 0, whoever made it.
    let made_by = (socket.inode != 0).then_some(socket.uid);
    if let Some(uid) = owner.and_then(|owner| owner.uid).or(made_by) {
        details.insert("UserId", uid.to_string());
    }
    if let Some(interface) = look.interfaces.get(&socket.interface) {
        details.insert("Interface", interface.clone());
    }
    if let Some(namespace) = look.namespace {
        details.insert("NetworkNamespace", namespace.to_string());
    }
    details
}

fn describe(owner: &Owner, details: &mut ExtraDetails) {
    details.insert("ProcessId", owner.pid.to_string());
    if let Some(executable) = &owner.executable {
        details.insert("Executable", executable.clone());
    }
    if let Some(container) = &owner.container {
        details.insert("ContainerId", container.clone());
    }
    if owner.holders > 1 {
        let others: Vec<_> = owner.others.iter().map(ToString::to_string).collect();
        details.insert("OtherProcessIds", others.join(";"));
        details.insert("Holders", owner.holders.to_string());
    }
    if owner.activated {
        details.insert("SocketActivation", "true".to_owned());
    }
}

/// The words of `ss`.
fn state(state: u8, protocol: Protocol) -> &'static str {
    match (state, protocol) {
        (LISTEN, Protocol::Tcp) => "LISTEN",
        (ESTABLISHED, _) => "ESTAB",
        (CLOSE_WAIT, _) => "CLOSE-WAIT",
        _ => "UNCONN",
    }
}

#[cfg(test)]
mod tests {
    use collector_common::parse::inet_socket::CLOSE;

    use super::*;

    fn listener(protocol: Protocol, local: &str, port: u16, v6_only: Option<bool>) -> Socket {
        let local: IpAddr = local.parse().unwrap();
        let peer = if local.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let state = if protocol == Protocol::Tcp { LISTEN } else { CLOSE };
        let (peer_port, interface, uid, inode) = (0, 0, 33, 5);
        (protocol, InetSocket { local, local_port: port, peer, peer_port, state, interface, uid, inode, v6_only })
    }

    fn connection(local: &str, port: u16, peer: &str, peer_port: u16) -> InetSocket {
        let peer = peer.parse().unwrap();
        let state = ESTABLISHED;
        InetSocket { peer, peer_port, state, inode: 6, ..listener(Protocol::Tcp, local, port, None).1 }
    }

    fn look(listeners: &[Socket], connections: Vec<InetSocket>) -> Look {
        let interfaces = BTreeMap::from([(3, "eth0".to_owned())]);
        Look { namespace: None, listeners: listeners.to_vec(), connections, interfaces }
    }

    fn owner(pid: i32) -> Owner {
        let (executable, uid) = (Some("/usr/sbin/sshd".to_owned()), Some(0));
        Owner { pid, executable, uid, container: None, others: Vec::new(), holders: 1, activated: false }
    }

    fn texts(rows: &[ListeningPort]) -> Vec<String> {
        let text = |it: &ListeningPort| {
            format!("{} {} {} {} {}", it.protocol, it.local_address, it.local_port, it.remote_address, it.remote_port)
        };
        rows.iter().map(text).collect()
    }

    #[test]
    fn a_dual_stack_listener_shows_its_ipv4_peers_folded() {
        let listeners = [
            listener(Protocol::Tcp, "::", 22, Some(false)),
            listener(Protocol::Tcp, "::ffff:127.0.0.1", 80, Some(false)),
            listener(Protocol::Udp, "0.0.0.0", 22, None),
        ];
        let connections = [
            connection("::ffff:10.0.0.1", 22, "::ffff:10.0.0.9", 4000),
            connection("10.0.0.1", 54321, "10.0.0.2", 443),
        ];
        let rows = rows(&look(&listeners, connections.to_vec()), &Named::from([(5, Some(owner(77)))]));
        assert_eq!(
            texts(&rows),
            [
                "TCP :: 22 :: *",
                "TCP 10.0.0.1 22 10.0.0.9 4000",
                "TCP ::ffff:127.0.0.1 80 :: *",
                "UDP 0.0.0.0 22 0.0.0.0 *"
            ]
        );
        let ssh = &rows[0].extra_details;
        assert_eq!(
            (ssh["State"].as_str(), ssh["DualStack"].as_str(), ssh["ProcessId"].as_str()),
            ("LISTEN", "true", "77")
        );
        assert_eq!((ssh["Executable"].as_str(), ssh["UserId"].as_str()), ("/usr/sbin/sshd", "0"));
        assert_eq!(rows[1].extra_details["State"], "ESTAB");
        assert_eq!((rows[1].extra_details.get("ProcessId"), rows[1].extra_details["UserId"].as_str()), (None, "33"));
        assert_eq!(rows[2].extra_details.get("DualStack"), None);
        assert_eq!(rows[3].extra_details["State"], "UNCONN");
    }

    #[test]
    fn a_connection_belongs_to_the_closest_listener_only() {
        let listeners = [
            listener(Protocol::Tcp, "::", 22, Some(false)),
            listener(Protocol::Tcp, "0.0.0.0", 22, None),
            listener(Protocol::Tcp, "10.0.0.1", 22, None),
        ];
        let connections = [
            connection("10.0.0.1", 22, "10.0.0.9", 1),
            connection("10.0.0.2", 22, "10.0.0.9", 2),
            connection("fd00::1", 22, "fd00::2", 3),
        ];
        let found = peers(&listeners, &connections);
        let ports: Vec<_> = found.iter().map(|(index, peers)| (*index, peers[0].peer_port, peers.len())).collect();
        assert_eq!(ports, [(0, 3, 1), (1, 2, 1), (2, 1, 1)]);
    }

    #[test]
    fn one_busy_client_does_not_push_the_others_out() {
        let listeners = [InetSocket { interface: 3, ..listener(Protocol::Tcp, "0.0.0.0", 80, None).1 }];
        let listeners = listeners.map(|socket| (Protocol::Tcp, socket));
        let mut connections: Vec<_> = (1..=100).map(|port| connection("10.0.0.1", 80, "10.0.0.2", port)).collect();
        connections.push(connection("10.0.0.1", 80, "10.0.0.250", 9));
        connections.iter_mut().for_each(|it| it.interface = 3);
        let rows = rows(&look(&listeners, connections), &Named::new());
        assert_eq!(rows.len(), 1 + PEERS_SHOWN);
        assert_eq!(rows[0].extra_details["MorePeers"], "37");
        assert_eq!(rows[0].extra_details["Interface"], "eth0");
        assert!(texts(&rows).contains(&"TCP 10.0.0.1 80 10.0.0.250 9".to_owned()));
    }

    #[test]
    fn who_else_holds_a_socket_is_said_and_that_nobody_does() {
        let listeners = [listener(Protocol::Tcp, "0.0.0.0", 80, None), listener(Protocol::Udp, "0.0.0.0", 2049, None)];
        let mut listeners = listeners.to_vec();
        listeners[1].1.inode = 9;
        let shared =
            Owner { others: vec![78, 1], holders: 3, activated: true, container: Some("web".into()), ..owner(77) };
        let look = Look { namespace: Some(4_026_532_000), ..look(&listeners, Vec::new()) };
        let rows = rows(&look, &Named::from([(5, Some(shared)), (9, None)]));
        let web = &rows[0].extra_details;
        assert_eq!((web["OtherProcessIds"].as_str(), web["Holders"].as_str()), ("78;1", "3"));
        assert_eq!((web["SocketActivation"].as_str(), web["ContainerId"].as_str()), ("true", "web"));
        assert_eq!(web["NetworkNamespace"], "4026532000");
        assert_eq!((web.get("Owner"), rows[1].extra_details["Owner"].as_str()), (None, "none"));
        assert_eq!(rows[1].extra_details.get("ProcessId"), None);
    }
}
