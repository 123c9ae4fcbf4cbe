//! Whether what is seen now is worth a snapshot. Nothing here asks the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use collector_common::parse::inet_socket::Protocol;

use super::{Look, Socket, snapshot};

/// A datagram socket on a port the kernel chose is nearly always a client that waits for one answer (DNS, NTP), not a
/// service: it counts once it has been there for so long.
const CLIENTS_WAIT: Duration = Duration::from_secs(4);
/// A snapshot for nothing but a new peer is sent at most this often.
const PEER_SNAPSHOTS_EVERY: Duration = Duration::from_secs(5 * 60);

/// What one look saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// When, on the clock of the other views.
    at: Duration,
    /// Each listener, and how it lives.
    pub(super) listeners: BTreeMap<Listener, Life>,
    /// Peer addresses by the port they are connected to.
    peers: BTreeSet<(Option<u32>, u16, IpAddr)>,
}

/// One listener. The inode tells a socket from the one that took its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listener {
    /// The network namespace, when it is not the agent's.
    pub(super) namespace: Option<u32>,
    pub(super) protocol: Protocol,
    pub(super) local: IpAddr,
    pub(super) port: u16,
    pub(super) interface: u32,
    pub(super) inode: u64,
}

/// Whether a listener may be a client that waits, and when it was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    transient: bool,
    since: Duration,
}

impl Life {
    fn counts(self, at: Duration) -> bool {
        !self.transient || at.saturating_sub(self.since) >= CLIENTS_WAIT
    }
}

/// How long ago what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Since the last snapshot of any kind; `None` before the first.
    pub(super) since_snapshot: Option<Duration>,
    /// Since the last snapshot that was sent for a new peer only.
    pub(super) since_peer_snapshot: Option<Duration>,
    /// After this long a snapshot is due in any case.
    pub(super) snapshot_interval: Duration,
}

impl Moment {
    pub(super) fn is_due(&self) -> bool {
        self.since_snapshot.is_none_or(|elapsed| elapsed >= self.snapshot_interval)
    }

    /// Whether peers can matter to the decision.
    pub(super) fn peers_count(&self) -> bool {
        self.is_due() || self.since_peer_snapshot.is_none_or(|elapsed| elapsed >= PEER_SNAPSHOTS_EVERY)
    }
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    Snapshot {
        /// Listeners of the last snapshot at whose address nobody listens any more.
        vanished: Vec<Listener>,
        /// Only a new peer asked for it.
        for_peers_only: bool,
    },
}

impl View {
    /// `before` is what the look before this one saw, `ephemeral` the ports the kernel gives to clients.
    pub(super) fn of(looks: &[Look], at: Duration, before: &View, ephemeral: &RangeInclusive<u16>) -> View {
        let mut view = View { at, ..View::default() };
        for look in looks {
            for socket in &look.listeners {
                let listener = Listener::of(look.namespace, socket);
                let transient = matches!(listener.protocol, Protocol::Udp | Protocol::UdpLite)
                    && ephemeral.contains(&listener.port);
                let since = before.listeners.get(&listener).map_or(at, |life| life.since);
                view.listeners.insert(listener, Life { transient, since });
            }
            let peers = snapshot::peers(&look.listeners, &look.connections).into_values().flatten();
            view.peers.extend(peers.map(|it| (look.namespace, it.local_port, it.peer.to_canonical())));
        }
        view
    }

    /// Whether a listener that was taken for a client has been there for so long that it counts by now, and is not in
    /// the snapshot that was sent.
    pub(super) fn has_matured(&self, sent: &View, at: Duration) -> bool {
        let counts = |(listener, life): (&Listener, &Life)| {
            life.transient && life.counts(at) && !sent.listeners.contains_key(listener)
        };
        self.listeners.iter().any(counts)
    }

    /// Whether a listener of this look is not among these of the same namespace.
    pub(super) fn misses(&self, namespace: Option<u32>, listeners: &[Socket]) -> bool {
        let there: BTreeSet<Listener> = listeners.iter().map(|socket| Listener::of(namespace, socket)).collect();
        self.listeners.keys().any(|listener| listener.namespace == namespace && !there.contains(listener))
    }
}

impl Listener {
    pub(super) fn of(namespace: Option<u32>, (protocol, socket): &Socket) -> Listener {
        Listener {
            namespace,
            protocol: *protocol,
            local: socket.local,
            port: socket.local_port,
            interface: socket.interface,
            inode: socket.inode,
        }
    }

    fn address(&self) -> (Option<u32>, Protocol, IpAddr, u16, u32) {
        (self.namespace, self.protocol, self.local, self.port, self.interface)
    }
}

/// `sent` is what the last snapshot showed, `before` what the last look saw, `now` what this one sees.
pub(super) fn decide(sent: Option<&View>, before: &View, now: &View, moment: &Moment) -> Verdict {
    let Some(sent) = sent else {
        return Verdict::Snapshot { vanished: Vec::new(), for_peers_only: false };
    };
    let is_new =
        now.listeners.iter().any(|(listener, life)| life.counts(now.at) && !sent.listeners.contains_key(listener));
    let settled = |listener: &Listener, life: &Life| {
        !life.transient || before.listeners.get(listener).is_some_and(|life| life.counts(before.at))
    };
    let gone: Vec<_> = sent
        .listeners
        .iter()
        .filter(|(listener, life)| !now.listeners.contains_key(listener) && settled(listener, life))
        .map(|(listener, _)| listener)
        .collect();
    let new_peer = moment.peers_count() && !now.peers.is_subset(&sent.peers);
    let changed = is_new || !gone.is_empty();
    if !changed && !new_peer && !moment.is_due() {
        return Verdict::Nothing;
    }
    let there: BTreeSet<_> = now.listeners.keys().map(Listener::address).collect();
    let mut vanished: Vec<Listener> = gone.into_iter().filter(|old| !there.contains(&old.address())).cloned().collect();
    vanished.dedup_by_key(|listener| listener.address());
    Verdict::Snapshot { vanished, for_peers_only: !changed && !moment.is_due() }
}

#[cfg(test)]
mod tests {
    use collector_common::parse::inet_socket::{CLOSE, ESTABLISHED, InetSocket, LISTEN};

    use super::*;

    const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;
    const SOON: Moment = Moment {
        since_snapshot: Some(Duration::from_secs(5)),
        since_peer_snapshot: None,
        snapshot_interval: Duration::from_secs(3600),
    };

    fn socket(protocol: Protocol, port: u16, inode: u64) -> Socket {
        let state = if protocol == Protocol::Tcp { LISTEN } else { CLOSE };
        let any = IpAddr::from([0, 0, 0, 0]);
        let (local, peer, v6_only) = (any, any, None);
        let socket =
            InetSocket { local, local_port: port, peer, peer_port: 0, state, interface: 0, uid: 0, inode, v6_only };
        (protocol, socket)
    }

    fn connection(port: u16, peer: &str) -> InetSocket {
        let peer = peer.parse().unwrap();
        let local = IpAddr::from([10, 0, 0, 1]);
        InetSocket { local, peer, peer_port: 4000, state: ESTABLISHED, ..socket(Protocol::Tcp, port, 99).1 }
    }

    /// What is seen a while after `before`.
    fn view(listeners: &[Socket], connections: &[InetSocket], before: &View) -> View {
        let (listeners, connections) = (listeners.to_vec(), connections.to_vec());
        let look = Look { namespace: None, listeners, connections, interfaces: BTreeMap::new() };
        View::of(&[look], before.at + CLIENTS_WAIT, before, &EPHEMERAL)
    }

    fn snapshot_of(verdict: Verdict) -> (Vec<u16>, bool) {
        let Verdict::Snapshot { vanished, for_peers_only } = verdict else { panic!("{verdict:?}") };
        (vanished.iter().map(|listener| listener.port).collect(), for_peers_only)
    }

    #[test]
    fn the_first_look_and_an_expired_interval_give_a_snapshot() {
        let now = view(&[socket(Protocol::Tcp, 22, 1)], &[], &View::default());
        assert_eq!(snapshot_of(decide(None, &View::default(), &now, &SOON)), (vec![], false));
        assert_eq!(decide(Some(&now), &now, &now, &SOON), Verdict::Nothing);
        let late = Moment { since_snapshot: Some(Duration::from_secs(3600)), ..SOON };
        assert_eq!(snapshot_of(decide(Some(&now), &now, &now, &late)), (vec![], false));
    }

    #[test]
    fn a_new_listener_a_replaced_one_and_a_vanished_one() {
        let old = view(&[socket(Protocol::Tcp, 22, 1), socket(Protocol::Udp, 53, 2)], &[], &View::default());
        let more = view(
            &[socket(Protocol::Tcp, 22, 1), socket(Protocol::Udp, 53, 2), socket(Protocol::Tcp, 50000, 3)],
            &[],
            &old,
        );
        assert_eq!(snapshot_of(decide(Some(&old), &old, &more, &SOON)), (vec![], false));
        let replaced = view(&[socket(Protocol::Tcp, 22, 9), socket(Protocol::Udp, 53, 2)], &[], &old);
        assert_eq!(snapshot_of(decide(Some(&old), &old, &replaced, &SOON)), (vec![], false));
        let fewer = view(&[socket(Protocol::Tcp, 22, 1)], &[], &old);
        assert!(old.misses(None, &[socket(Protocol::Tcp, 22, 1)]));
        assert!(!fewer.misses(None, &[socket(Protocol::Tcp, 22, 1), socket(Protocol::Udp, 53, 2)]));
        assert_eq!(snapshot_of(decide(Some(&old), &old, &fewer, &SOON)), (vec![53], false));
        let shared = view(&[socket(Protocol::Tcp, 22, 1), socket(Protocol::Tcp, 22, 4)], &[], &View::default());
        let none = View::default();
        assert_eq!(snapshot_of(decide(Some(&shared), &shared, &none, &SOON)), (vec![22], false));
    }

    #[test]
    fn a_datagram_client_that_comes_and_goes_is_no_news() {
        let quiet = View::default();
        let client = view(&[socket(Protocol::Udp, 40000, 7)], &[], &quiet);
        assert_eq!(decide(Some(&quiet), &quiet, &client, &SOON), Verdict::Nothing);
        assert!(!client.has_matured(&quiet, client.at + CLIENTS_WAIT / 2));
        assert!(client.has_matured(&quiet, client.at + CLIENTS_WAIT));
        assert!(!client.has_matured(&client, client.at + CLIENTS_WAIT));
        assert_eq!(decide(Some(&client), &client, &quiet, &SOON), Verdict::Nothing);
        assert_eq!(decide(Some(&client), &quiet, &quiet, &SOON), Verdict::Nothing);
        let mut soon = view(&[socket(Protocol::Udp, 40000, 7)], &[], &client);
        soon.at = client.at + CLIENTS_WAIT / 2;
        assert_eq!(decide(Some(&quiet), &client, &soon, &SOON), Verdict::Nothing);
        let stays = view(&[socket(Protocol::Udp, 40000, 7)], &[], &client);
        assert_eq!(snapshot_of(decide(Some(&quiet), &client, &stays, &SOON)), (vec![], false));
        assert_eq!(snapshot_of(decide(Some(&client), &stays, &quiet, &SOON)), (vec![40000], false));
    }

    #[test]
    fn a_new_peer_is_sent_at_once_and_then_at_most_every_five_minutes() {
        let listeners = [socket(Protocol::Tcp, 22, 1)];
        let alone = view(&listeners, &[], &View::default());
        let visited = view(&listeners, &[connection(22, "10.0.0.7")], &alone);
        let elsewhere = view(&listeners, &[connection(23, "10.0.0.7")], &alone);
        assert_eq!(snapshot_of(decide(Some(&alone), &alone, &visited, &SOON)), (vec![], true));
        assert_eq!(decide(Some(&alone), &alone, &elsewhere, &SOON), Verdict::Nothing);
        assert_eq!(decide(Some(&visited), &visited, &alone, &SOON), Verdict::Nothing);
        let cases = [(299, false), (300, true)];
        for (seconds, sends) in cases {
            let moment = Moment { since_peer_snapshot: Some(Duration::from_secs(seconds)), ..SOON };
            assert_eq!(decide(Some(&alone), &alone, &visited, &moment) != Verdict::Nothing, sends, "{seconds}");
        }
    }
}
