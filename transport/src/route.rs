//! How large a datagram may be on its way to a peer, as far as this host's routes know.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::net::sockopt;

/// IP and UDP headers (RFC 791, RFC 8200, RFC 768).
const IPV4_HEADERS_BYTES: u32 = 20 + 8;
const IPV6_HEADERS_BYTES: u32 = 40 + 8;
/// What every path carries (RFC 9000, section 14).
const LEAST_BYTES: u16 = 1200;
/// What Ethernet carries: where the route says nothing, probing begins there.
const USUAL_BYTES: u16 = 1452;

/// The largest UDP payload, up to `most`, that the first hop towards `peer` carries. QUIC probes up to it, since a later hop may carry less; probes that
/// cannot even leave this host would be counted as sent, and cost a timeout each.
pub(crate) fn datagram_bytes(peer: SocketAddr, most: u16) -> u16 {
    let mtu = || {
        let any: SocketAddr = match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        // Sends nothing: it asks for the route.
        socket.connect(peer)?;
        let bytes = match peer {
            SocketAddr::V4(_) => sockopt::ip_mtu(&socket)?.saturating_sub(IPV4_HEADERS_BYTES),
            SocketAddr::V6(_) => sockopt::ipv6_mtu(&socket)?.saturating_sub(IPV6_HEADERS_BYTES),
        };
        std::io::Result::Ok(u16::try_from(bytes).unwrap_or(u16::MAX))
    };
    mtu().unwrap_or(USUAL_BYTES).clamp(LEAST_BYTES, most.max(LEAST_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_carries_much_and_a_bound_holds() {
        for peer in ["127.0.0.1:9", "[::1]:9"] {
            let peer = peer.parse().expect("an address");
            assert_eq!(datagram_bytes(peer, 6500), 6500);
            assert_eq!(datagram_bytes(peer, 1300), 1300);
        }
    }
}
