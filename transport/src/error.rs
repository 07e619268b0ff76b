//! The crate's one error.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{NodeId, limits, wire::CloseCode};

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a message, a connection or a key could not be had. Each names the operation and its object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A length is over its limit; nothing was allocated for it.
    #[error("{what} of {len_bytes} bytes is over the limit of {max_bytes} bytes")]
    TooLarge {
        /// The thing that has the length.
        what: &'static str,
        /// Its length.
        len_bytes: u64,
        /// The limit, from [`limits`].
        max_bytes: u64,
    },
    /// Bytes that do not follow the format.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// The thing that was decoded.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The stream ended inside something.
    #[error("{what} is truncated: {got_bytes} of {want_bytes} bytes arrived")]
    Truncated {
        /// The thing that was read.
        what: &'static str,
        /// Bytes that arrived.
        got_bytes: u64,
        /// Bytes that were announced.
        want_bytes: u64,
    },
    /// A stream could not be read or written.
    #[error("cannot transfer {what}")]
    Stream {
        /// The thing that was read or written.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A node key file could not be read or written.
    #[error("cannot {operation} the node key {}", path.display())]
    KeyFile {
        /// `read` or `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the node key.
    #[error("the node key {} can be read by others (mode {mode:03o}): make it yours with `chmod 600`", path.display())]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// These bytes hold no usable key.
    #[error("not an Ed25519 private key in PKCS#8 form: {reason}")]
    KeyRejected {
        /// What the parser found.
        reason: String,
    },
    /// The operating system gave no random bytes.
    #[error("cannot generate a node key: the system gave no random bytes")]
    NoRandomness,
    /// A signature was not made by this key over these bytes.
    #[error("the signature was not made by node {signer} over this message")]
    BadSignature {
        /// The key that should have made it.
        signer: NodeId,
    },
    /// The address can't be listened on.
    #[error("cannot listen on UDP {addr}; is another node running there?")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS could not be set up from the node key.
    #[error("cannot set up TLS from the node key")]
    Tls(#[source] rustls::Error),
    /// We do not know the peer's key, so nothing is said to it.
    #[error("refused: unknown node key {peer}: it is not a node that this node trusts")]
    UnknownPeer {
        /// The peer.
        peer: NodeId,
    },
    /// The peer does not know our key.
    #[error("refused: unknown node key: node {peer} does not trust this node's key")]
    Refused {
        /// The peer.
        peer: NodeId,
    },
    /// Another key than the dialed one answered.
    #[error("refused: wrong node key: {addr} should be node {expected} but is node {found}")]
    WrongKey {
        /// The address.
        addr: SocketAddr,
        /// The key that was dialed.
        expected: NodeId,
        /// The key that answered.
        found: NodeId,
    },
    /// Nothing answered in time.
    #[error("cannot connect to node {peer} at {addr}: no answer within {} ms", limits::CONNECT_TIMEOUT.as_millis())]
    ConnectTimeout {
        /// The peer.
        peer: NodeId,
        /// Its address.
        addr: SocketAddr,
    },
    /// An address that can't be dialed.
    #[error("cannot dial node {peer} at {addr}")]
    Dial {
        /// The peer.
        peer: NodeId,
        /// Its address.
        addr: SocketAddr,
        /// Why.
        source: quinn::ConnectError,
    },
    /// The connection ended during an operation. The peer may or may not have acted.
    #[error("cannot {operation}: the connection to node {peer} was lost")]
    Lost {
        /// What was going on.
        operation: &'static str,
        /// The peer.
        peer: NodeId,
        /// How it ended.
        source: quinn::ConnectionError,
    },
    /// The peer gave the stream or connection up: it found our bytes wrong or too large.
    #[error("cannot {operation}: node {peer} rejected it with code {code} (see CloseCode)")]
    Rejected {
        /// What was going on.
        operation: &'static str,
        /// The peer.
        peer: NodeId,
        /// One of [`wire::CloseCode`](crate::wire::CloseCode), as sent.
        code: u64,
    },
    /// The peer could not serve a fetch, and says why.
    #[error("node {peer} cannot serve the fetch: {message}")]
    Remote {
        /// The peer.
        peer: NodeId,
        /// Its words.
        message: String,
    },
    /// A fetched frame or index is not what it should be, or could not be kept.
    #[error("what was fetched is of no use")]
    Frame(#[source] form_delta::Error),
    /// The fetch that this sink belongs to is over.
    #[error("the fetch was given up by the peer, or its connection was lost")]
    SinkClosed,
    /// This transport was closed.
    #[error("this node's transport is closed")]
    Closed,
}

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Try again: the peer or the network was not there.
    Retryable,
    /// Bytes that are not what they should be. Asking again gives the same, or an attacker is at work.
    Corrupt,
    /// Someone said no, and will again.
    Refused,
    /// Over a limit.
    Limit,
    /// This machine's files, keys or sockets.
    Local,
    /// Ours: an operation on something that is closed.
    Bug,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        const DONE: u64 = CloseCode::Done as u64;
        match self {
            Self::TooLarge { .. } => ErrorKind::Limit,
            Self::Malformed { .. } | Self::Truncated { .. } | Self::BadSignature { .. } => ErrorKind::Corrupt,
            Self::Stream { .. }
            | Self::ConnectTimeout { .. }
            | Self::Lost { .. }
            | Self::Rejected { code: DONE, .. }
            | Self::SinkClosed => ErrorKind::Retryable,
            Self::KeyFile { .. }
            | Self::KeyExposed { .. }
            | Self::KeyRejected { .. }
            | Self::NoRandomness
            | Self::Bind { .. }
            | Self::Tls(_)
            | Self::Dial { .. }
            | Self::Frame(_) => ErrorKind::Local,
            Self::UnknownPeer { .. }
            | Self::Refused { .. }
            | Self::WrongKey { .. }
            | Self::Rejected { .. }
            | Self::Remote { .. } => ErrorKind::Refused,
            Self::Closed => ErrorKind::Bug,
        }
    }

    pub(crate) fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}
