//! What a node does for its peers, and how a peer is addressed.

use std::net::SocketAddr;

use async_trait::async_trait;

use crate::{BiStream, Envelope, ItemSink, NodeId};

/// Whom to dial: the key that has to answer, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr {
    /// The key that has to answer.
    pub id: NodeId,
    /// Where it listens (UDP).
    pub addr: SocketAddr,
}

/// The node behind a [`Transport`](crate::Transport). Calls for different streams come concurrently.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Is this key a node that we talk with? Asked once per connection: by the listener right after the
    /// handshake and before anything is read, and by the dialer before it dials.
    async fn trusted(&self, peer: NodeId) -> bool;

    /// A control message. The next one of the same connection is handed over when this call returns, so
    /// it should do no more than queue it.
    async fn message(&self, from: NodeId, msg: Envelope);

    /// Answers a small request; the same request may come again after a lost connection.
    async fn request(&self, from: NodeId, body: Vec<u8>) -> Vec<u8>;

    /// Sends what `req` asks for, item by item. An `Err` reaches the peer as text.
    async fn fetch(&self, from: NodeId, req: Vec<u8>, sink: ItemSink) -> Result<(), String>;

    /// Serves HTTP/1.1 on `stream`, until either side ends it.
    async fn http(&self, from: NodeId, stream: BiStream);
}
