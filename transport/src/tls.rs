//! TLS 1.3 in which a certificate is nothing but an Ed25519 public key (RFC 7250), on both sides.
//!
//! The handshake proves that the peer holds its key. Whether that key is welcome is decided by the
//! dialer's pin here, and by [`Service::trusted`](crate::Service::trusted) at the listener.
//!
//! The provider is ring: aws-lc moved as many bytes per CPU-second, within noise, at both sizes of datagrams that
//! `benches/quic` measures, and needs more to be built. Of its suites AES-256-GCM is the first; ChaCha20 costs more
//! wherever the CPU has AES.

use std::sync::{Arc, OnceLock};

use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, PeerMisbehaved, ServerConfig,
    SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring::{default_provider, sign::any_eddsa_type},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{Error, NodeId, NodeKey, Result, wire::ALPN};

/// The dialer's TLS. `pin` learns which key answered.
pub(crate) fn client(key: &CertifiedKey, pin: Arc<Pin>) -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(pin)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(key.clone()))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A peer is its key: there is no name to send, and each connection proves the key anew.
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The listener's TLS.
pub(crate) fn server(key: &CertifiedKey) -> Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Tls)?
        .with_client_cert_verifier(Arc::new(AnyNode))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(key.clone()))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The node key as rustls takes it.
pub(crate) fn certified_key(key: &NodeKey) -> Result<CertifiedKey> {
    let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(key.pkcs8())).map_err(Error::Tls)?;
    Ok(CertifiedKey::new(vec![CertificateDer::from(key.id().to_spki())], signing))
}

/// Whose key the handshake proved.
pub(crate) fn peer_id(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let certificates = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match certificates.as_slice() {
        [one] => NodeId::from_spki(one),
        _ => None,
    }
}

/// Accepts one key only, and keeps the key that came for the error message.
#[derive(Debug)]
pub(crate) struct Pin {
    expected: NodeId,
    found: OnceLock<NodeId>,
}

impl Pin {
    pub(crate) fn new(expected: NodeId) -> Arc<Self> {
        Arc::new(Self { expected, found: OnceLock::new() })
    }

    /// The key that answered, when it is not the expected one.
    pub(crate) fn wrong_key(&self) -> Option<NodeId> {
        self.found.get().copied().filter(|id| *id != self.expected)
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = parse(end_entity, intermediates)?;
        if *self.found.get_or_init(|| found) == self.expected && found == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts any Ed25519 key that its holder proves; trust is asked afterwards, asynchronously.
#[derive(Debug)]
struct AnyNode;

impl ClientCertVerifier for AnyNode {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        parse(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn parse(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<NodeId, rustls::Error> {
    match NodeId::from_spki(end_entity) {
        Some(id) if intermediates.is_empty() => Ok(id),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}

fn verify(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    if dss.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let id = parse(cert, &[])?;
    UnparsedPublicKey::new(&ED25519, id.as_bytes())
        .verify(message, dss.signature())
        .map(|()| HandshakeSignatureValid::assertion())
        .map_err(|_| CertificateError::BadSignature.into())
}
