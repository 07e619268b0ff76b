//! QUIC settings: windows, timeouts, and what lets a peer notice at once that we were restarted.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use rustls::sign::CertifiedKey;

use crate::{Error, NodeKey, Result, limits, tls};

/// A socket on `addr` that both listens and dials.
pub(crate) fn endpoint(addr: SocketAddr, key: &NodeKey, certified: &CertifiedKey) -> Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(tls::server(certified)?).map_err(no_suite)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(transport(limits::UNTRUSTED_WINDOW_BYTES));
    server.max_incoming(limits::HANDSHAKES_MAX);

    // A restarted node no longer knows its old connections. With a reset key that outlives the process
    // it can tell a peer so in a way that the peer believes (RFC 9000, section 10.3); with a random one
    // the peer would wait for the idle timeout.
    let secret = key.derive("form 2026 stateless reset key v1");
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(|| Box::new(RandomIds(SystemRandom::new())));

    let bind = |source| Error::Bind { addr, source };
    let socket = std::net::UdpSocket::bind(addr).map_err(bind)?;
    Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime)).map_err(bind)
}

/// Settings for one dial.
pub(crate) fn client(certified: &CertifiedKey, pin: Arc<tls::Pin>) -> Result<ClientConfig> {
    let crypto = QuicClientConfig::try_from(tls::client(certified, pin)?).map_err(no_suite)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(limits::CONNECTION_WINDOW_BYTES));
    Ok(config)
}

fn transport(window_bytes: u32) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(window_bytes))
        .send_window(u64::from(limits::SEND_WINDOW_BYTES))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(limits::KEEP_ALIVE_INTERVAL));
    Arc::new(config)
}

const IDLE_TIMEOUT_MS: u32 = limits::IDLE_TIMEOUT.as_millis() as u32;
const _: () = assert!(Duration::from_millis(IDLE_TIMEOUT_MS as u64).as_millis() == limits::IDLE_TIMEOUT.as_millis());

fn no_suite(_: NoInitialCipherSuite) -> Error {
    Error::Tls(rustls::Error::General("the TLS provider lacks QUIC's initial cipher suite".into()))
}

/// Connection ids without a key of this process in them, so that packets for a former process are answered.
struct RandomIds(SystemRandom);

/// RFC 9000, section 5.1, leaves the length open; 8 bytes make a collision negligible.
const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; ID_BYTES];
        self.0.fill(&mut bytes).expect("the system gives random bytes, or no connection can be made safely");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
