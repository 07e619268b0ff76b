//! Nodes talking to nodes: QUIC with mutual authentication by node key.
//!
//! What this crate holds to:
//!
//! * **A peer is its key.** Both ends prove an Ed25519 key in the TLS handshake (RFC 7250). The dialer
//!   pins the key it dials; the listener asks [`Service::trusted`] before it reads a single byte.
//! * **Nothing a peer sends decides how much memory is taken** before a limit from [`limits`] is
//!   checked, and memory grows with what arrived, not with what was announced.
//! * **Bulk bytes are bounded in bytes.** A slow consumer stops its producer.
//! * **Framing is a contract**: [`wire`], described in `PROTOCOL.md`, held by golden bytes.
//!
//! It moves opaque messages. What they mean is decided by the protocol machine; whether a chunk is
//! right is decided by `form-delta`. The signed records of a commit, [`Commit`] and [`Offer`], live
//! here because they are what travels.

mod accept;
mod buffers;
mod bulk;
mod commit;
mod congestion;
mod cork;
mod envelope;
mod error;
mod fetch;
mod frames;
#[cfg(test)]
mod hostile;
pub mod limits;
mod link;
mod node_id;
mod node_key;
mod offer;
mod quic;
mod route;
mod service;
mod stream;
mod tls;
mod traffic;
mod transport;
pub mod wire;

pub use bulk::{BulkRequest, FrameRange};
pub use commit::{Artifact, ArtifactKind, COMMIT_VERSION, Commit};
pub use envelope::Envelope;
pub use error::{Error, ErrorKind, Result};
pub use fetch::{ItemSink, Items};
pub use node_id::{NodeId, verify_signature};
pub use node_key::NodeKey;
pub use offer::{FrameIndexBytes, Offer};
pub use service::{PeerAddr, Service};
pub use stream::BiStream;
pub use traffic::SocketBytes;
pub use transport::Transport;
