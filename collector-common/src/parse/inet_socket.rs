//! What the kernel tells about one internet socket, whichever of its two ways it was asked in.

use std::net::{IpAddr, Ipv4Addr};

/// `TCP_ESTABLISHED` of `include/net/tcp_states.h`; also the state of a connected UDP or raw socket.
pub const ESTABLISHED: u8 = 1;
/// `TCP_CLOSE`: for UDP and raw sockets it means not connected.
pub const CLOSE: u8 = 7;
/// `TCP_CLOSE_WAIT`: the peer sends no more, the program here still holds the connection.
pub const CLOSE_WAIT: u8 = 8;
/// `TCP_LISTEN`.
pub const LISTEN: u8 = 10;

/// The protocols whose sockets can wait for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite, RFC 3828.
    UdpLite,
    /// Raw IP. The port of such a socket is the IP protocol number it receives.
    Raw,
    /// SCTP, RFC 9260. An endpoint with several addresses is a socket for each.
    Sctp,
}

impl Protocol {
    /// All of them, the commonest first.
    pub const ALL: [Protocol; 5] = [Protocol::Tcp, Protocol::Udp, Protocol::UdpLite, Protocol::Raw, Protocol::Sctp];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::UdpLite => "UDPLITE",
            Protocol::Raw => "RAW",
            Protocol::Sctp => "SCTP",
        }
    }

    /// The IP protocol number sock_diag knows it by.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::UdpLite => 136,
            Protocol::Raw => 255,
            Protocol::Sctp => 132,
        }
    }

    /// The state of a socket that waits for anybody.
    pub fn waiting_state(self) -> u8 {
        match self {
            Protocol::Tcp | Protocol::Sctp => LISTEN,
            Protocol::Udp | Protocol::UdpLite | Protocol::Raw => CLOSE,
        }
    }
}

/// The two families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and IPv4 through an IPv6 socket.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InetSocket {
    /// The address it is bound to, as the kernel tells it: IPv4-mapped addresses stay as they are.
    pub local: IpAddr,
    /// The port it is bound to.
    pub local_port: u16,
    /// The peer; unspecified when there is none.
    pub peer: IpAddr,
    /// The peer's port; 0 when there is none.
    pub peer_port: u16,
    /// `TCP_*` of `include/net/tcp_states.h`, for all protocols.
    pub state: u8,
    /// Index of the network interface it is bound to, 0 for none or when it is not told.
    pub interface: u32,
    /// The user who made it.
    pub uid: u32,
    /// Its inode in sockfs, 0 when no program holds it any more.
    pub inode: u64,
    /// Whether an IPv6 socket refuses IPv4; `None` when it is not told or the socket is IPv4.
    pub v6_only: Option<bool>,
}

impl InetSocket {
    /// Whether it waits for anybody: TCP and SCTP in LISTEN; UDP and raw when not connected, and UDP only once it has a port.
    pub fn is_listener(&self, protocol: Protocol) -> bool {
        let addressable = protocol == Protocol::Raw || self.local_port != 0;
        addressable && self.state == protocol.waiting_state()
    }

    /// Whether it takes IPv4 and IPv6: an IPv6 wildcard socket without `IPV6_V6ONLY`. `None` when it is not told.
    /// A raw socket never does, whatever the flag says.
    pub fn is_dual_stack(&self, protocol: Protocol) -> Option<bool> {
        let may_be = self.local.is_ipv6() && self.local.is_unspecified() && protocol != Protocol::Raw;
        if may_be { self.v6_only.map(|only| !only) } else { Some(false) }
    }

    /// Whether a connection came in through this listener: same port, its address or a wildcard that covers it, and
    /// the listener's interface if it has one.
    pub fn accepts(&self, connection: &InetSocket) -> bool {
        if self.local_port != connection.local_port || (self.interface != 0 && self.interface != connection.interface) {
            return false;
        }
        let (bound, reached) = (self.local.to_canonical(), connection.local.to_canonical());
        match bound {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => reached.is_ipv4(),
            IpAddr::V6(wildcard) if wildcard.is_unspecified() => reached.is_ipv6() || self.v6_only != Some(true),
            exact => exact == reached,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(local: &str, port: u16, v6_only: Option<bool>) -> InetSocket {
        InetSocket {
            local: local.parse().unwrap(),
            local_port: port,
            peer: "0.0.0.0".parse().unwrap(),
            peer_port: 0,
            state: LISTEN,
            interface: 0,
            uid: 0,
            inode: 1,
            v6_only,
        }
    }

    #[test]
    fn a_listener_accepts_what_its_address_covers() {
        let cases = [
            ("0.0.0.0", None, "10.0.0.1", true),
            ("0.0.0.0", None, "fd00::1", false),
            ("10.0.0.1", None, "10.0.0.1", true),
            ("10.0.0.1", None, "10.0.0.2", false),
            ("::", Some(false), "::ffff:10.0.0.1", true),
            ("::", Some(true), "::ffff:10.0.0.1", false),
            ("::", None, "::ffff:10.0.0.1", true),
            ("::", Some(true), "fd00::1", true),
            ("::ffff:127.0.0.1", Some(false), "::ffff:127.0.0.1", true),
            ("fd00::1", Some(true), "fd00::2", false),
        ];
        for (listener, v6_only, reached, expected) in cases {
            let (listener, connection) = (socket(listener, 22, v6_only), socket(reached, 22, None));
            assert_eq!(listener.accepts(&connection), expected, "{listener:?} {reached}");
            assert!(!listener.accepts(&socket(reached, 23, None)));
        }
    }

    #[test]
    fn a_listener_on_an_interface_accepts_only_from_there() {
        let listener = InetSocket { interface: 2, ..socket("0.0.0.0", 22, None) };
        assert!(!listener.accepts(&socket("10.0.0.1", 22, None)));
        assert!(listener.accepts(&InetSocket { interface: 2, ..socket("10.0.0.1", 22, None) }));
    }

    #[test]
    fn connected_and_unbound_datagram_sockets_are_no_listeners() {
        let bound = InetSocket { state: CLOSE, ..socket("0.0.0.0", 53, None) };
        assert!(bound.is_listener(Protocol::Udp));
        assert!(!InetSocket { state: ESTABLISHED, ..bound.clone() }.is_listener(Protocol::Udp));
        assert!(!InetSocket { local_port: 0, ..bound.clone() }.is_listener(Protocol::Udp));
        assert!(InetSocket { local_port: 0, ..bound.clone() }.is_listener(Protocol::Raw));
        assert!(!bound.is_listener(Protocol::Tcp));
    }
}
