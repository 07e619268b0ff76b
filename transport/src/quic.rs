//! The QUIC socket: windows, timeouts, and how peers notice at once that we ended or were restarted.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectError, Connecting, Connection, ConnectionError, Endpoint, EndpointConfig,
    IdleTimeout, Incoming, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};
use quinn_proto::RandomConnectionIdGenerator;
use ring::hmac;
use rustls::sign::CertifiedKey;

use crate::{
    Error, NodeKey, PeerAddr, Result, buffers, congestion::Ending, cork::Corked, limits, route, tls, wire::CloseCode,
};

/// The server name that QUIC's API wants; it is not sent, and nobody reads it.
const SERVER_NAME: &str = "form";

/// A UDP socket that both listens and dials as one node.
pub(crate) struct Socket {
    pub(crate) endpoint: Endpoint,
    certified: CertifiedKey,
    paths: Paths,
    server: Arc<ServerConfig>,
}

/// How connections are set up, each for its own path.
#[derive(Clone)]
struct Paths {
    ending: Ending,
    datagram_bytes_max: u16,
}

/// Accepts connections.
#[derive(Clone)]
pub(crate) struct Acceptor {
    server: Arc<ServerConfig>,
    paths: Paths,
}

impl Acceptor {
    /// Begins a handshake.
    pub(crate) fn accept(&self, incoming: Incoming) -> std::result::Result<Connecting, ConnectionError> {
        let mut server = ServerConfig::clone(&self.server);
        server.transport_config(self.paths.transport(incoming.remote_address(), limits::UNTRUSTED_WINDOW_BYTES));
        incoming.accept_with(Arc::new(server))
    }
}

impl Socket {
    pub(crate) fn bind(addr: SocketAddr, key: &NodeKey, datagram_bytes_max: u16) -> Result<Self> {
        let certified = tls::certified_key(key)?;
        let paths = Paths { ending: Ending::default(), datagram_bytes_max };
        let crypto = QuicServerConfig::try_from(tls::server(&certified)?).map_err(no_suite)?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server.max_incoming(limits::HANDSHAKES_MAX);

        // A restarted node no longer knows its old connections. With a reset key that outlives the process it can
        // tell a peer so in a way that the peer believes (RFC 9000, section 10.3), as soon as the peer sends
        // anything; with a random one the peer would wait for the idle timeout. For the same reason connection ids
        // hold nothing of this process: packets with ids of a former one are answered, too.
        let secret = key.derive("form 2026 stateless reset key v1");
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice());
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        config.cid_generator(|| Box::new(RandomConnectionIdGenerator::default()));
        // What a peer may send us. The receive buffers grow with it, so it is not simply the largest there is.
        config
            .max_udp_payload_size(limits::DATAGRAM_BYTES_MAX)
            .map_err(|e| Error::Bind { addr, source: io::Error::other(e) })?;

        let failed = |source| Error::Bind { addr, source };
        let udp = std::net::UdpSocket::bind(addr).map_err(failed)?;
        buffers::enlarge(&udp);
        let endpoint = Endpoint::new(config, Some(server.clone()), udp, Arc::new(Corked)).map_err(failed)?;
        Ok(Self { endpoint, certified, paths, server: Arc::new(server) })
    }

    pub(crate) fn acceptor(&self) -> Acceptor {
        Acceptor { server: Arc::clone(&self.server), paths: self.paths.clone() }
    }

    /// Begins a handshake. `pin` decides about the key that answers.
    pub(crate) fn dial(&self, peer: &PeerAddr, pin: Arc<tls::Pin>) -> Result<Connecting> {
        let crypto = QuicClientConfig::try_from(tls::client(&self.certified, pin)?).map_err(no_suite)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.paths.transport(peer.addr, limits::RECEIVE_WINDOW_BYTES_MIN));
        self.endpoint.connect_with(config, peer.addr, SERVER_NAME).map_err(|source| match source {
            ConnectError::EndpointStopping => Error::Closed,
            source => Error::Dial { peer: peer.id, addr: peer.addr, source },
        })
    }

    /// Ends all connections and listens no more.
    pub(crate) fn close(&self) {
        self.paths.ending.begin();
        self.endpoint.close(CloseCode::Done.into(), b"the node is shutting down");
    }
}

/// Lets a peer send ahead what a fast network holds during this connection's round trip.
pub(crate) fn widen(connection: &Connection) {
    let round_trip_us = u64::try_from(connection.min_rtt().as_micros()).unwrap_or(u64::MAX);
    let product = limits::BANDWIDTH_BYTES_PER_S.saturating_mul(round_trip_us) / 1_000_000;
    let bytes = u32::try_from(product).unwrap_or(u32::MAX);
    let bytes = bytes.clamp(limits::RECEIVE_WINDOW_BYTES_MIN, limits::RECEIVE_WINDOW_BYTES_MAX);
    connection.set_receive_window(VarInt::from_u32(bytes));
}

impl Paths {
    fn transport(&self, peer: SocketAddr, window_bytes: u32) -> Arc<TransportConfig> {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(route::datagram_bytes(peer, self.datagram_bytes_max));
        // By default every second packet is acknowledged, which costs both ends. In slow start a small window waits for
        // its acknowledgement, so that must not take long.
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(limits::PACKETS_PER_ACK))
            .max_ack_delay(Some(limits::ACK_DELAY_MAX));
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(limits::STREAMS_MAX))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(limits::RECEIVE_WINDOW_BYTES_MAX))
            .receive_window(VarInt::from_u32(window_bytes))
            .send_window(u64::from(limits::SEND_WINDOW_BYTES))
            .mtu_discovery_config(Some(mtu))
            .ack_frequency_config(Some(acks))
            .congestion_controller_factory(Arc::new(self.ending.clone()))
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
            .keep_alive_interval(Some(limits::KEEP_ALIVE_INTERVAL));
        Arc::new(config)
    }
}

const IDLE_TIMEOUT_MS: u32 = limits::IDLE_TIMEOUT.as_millis() as u32;
const _: () = assert!(Duration::from_millis(IDLE_TIMEOUT_MS as u64).as_nanos() == limits::IDLE_TIMEOUT.as_nanos());

fn no_suite(_: NoInitialCipherSuite) -> Error {
    Error::Tls(rustls::Error::General("the TLS provider lacks QUIC's initial cipher suite".into()))
}
