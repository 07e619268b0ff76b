//! The way to other nodes, and theirs to us.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
};

use tokio::{sync::Mutex, task::JoinHandle, time::timeout};

use crate::{
    BiStream, Envelope, Error, Items, NodeId, NodeKey, PeerAddr, Result, Service, SocketBytes,
    accept::Listener,
    limits::{CLOSE_LINGER, DATAGRAM_BYTES_MAX, FETCH_REQUEST_BYTES_MAX, REQUEST_BYTES_MAX},
    link::Link,
    quic::Socket,
    traffic::Traffic,
    wire::{self, CloseCode},
};

/// One UDP socket on which this node listens and dials.
///
/// For each peer there is at most one dialed connection: made when first needed, kept, and made again
/// when it is dead. What a peer dialed is used for its calls, what we dialed for ours.
pub struct Transport {
    socket: Socket,
    local_addr: SocketAddr,
    service: Arc<dyn Service>,
    traffic: Arc<Traffic>,
    links: SyncMutex<HashMap<NodeId, Slot>>,
    listening: SyncMutex<Option<JoinHandle<()>>>,
}

/// Locked while a link is being made, so that one dial serves all who wait.
type Slot = Arc<Mutex<Option<Arc<Link>>>>;

impl Transport {
    /// Listens on `addr` (UDP; port 0 takes a free one) and serves peers from then on. Call it inside a
    /// tokio runtime.
    pub fn bind(addr: SocketAddr, key: &NodeKey, service: Arc<dyn Service>) -> Result<Self> {
        Self::bind_narrow(addr, key, service, DATAGRAM_BYTES_MAX)
    }

    /// As [`bind`](Self::bind), but never sends a UDP payload over `datagram_bytes_max` (at least 1200). A path's own
    /// limit is found out anyway; this is for measuring what a narrower path would cost.
    pub fn bind_narrow(
        addr: SocketAddr,
        key: &NodeKey,
        service: Arc<dyn Service>,
        datagram_bytes_max: u16,
    ) -> Result<Self> {
        let socket = Socket::bind(addr, key, datagram_bytes_max)?;
        let local_addr = socket.endpoint.local_addr().map_err(|source| Error::Bind { addr, source })?;
        let traffic = Arc::new(Traffic::default());
        let listener = Arc::new(Listener {
            service: Arc::clone(&service),
            traffic: Arc::clone(&traffic),
            inbound: Default::default(),
            acceptor: socket.acceptor(),
        });
        let listening = tokio::spawn(listener.run(socket.endpoint.clone()));
        Ok(Self {
            socket,
            local_addr,
            service,
            traffic,
            links: SyncMutex::default(),
            listening: SyncMutex::new(Some(listening)),
        })
    }

    /// Where this node listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Sends a control message. Messages to one peer that are sent one after the other arrive in that order.
    ///
    /// `Ok` means that the connection has taken it, not that the peer has: a message can be lost with its
    /// connection. Whoever needs an answer sends again until there is one.
    pub async fn send(&self, to: &PeerAddr, msg: Envelope) -> Result<()> {
        let encoded = msg.encode()?;
        self.link(to).await?.control(&encoded).await
    }

    /// Sends a small request and waits for its reply. Tried a second time if a connection from earlier turns
    /// out to be dead, so the peer may see it twice.
    pub async fn request(&self, to: &PeerAddr, body: Vec<u8>) -> Result<Vec<u8>> {
        wire::block_len("request", body.len(), REQUEST_BYTES_MAX)?;
        match self.link(to).await?.request(&body).await {
            Err(Error::Lost { .. }) => self.link(to).await?.request(&body).await,
            done => done,
        }
    }

    /// Asks for items in bulk. They come in the order in which the peer sends them.
    ///
    /// While nobody takes the next one, nothing more is read, and in the end the peer stops sending.
    pub async fn fetch(&self, to: &PeerAddr, req: Vec<u8>) -> Result<Items> {
        wire::block_len("fetch request", req.len(), FETCH_REQUEST_BYTES_MAX)?;
        self.link(to).await?.fetch(&req).await
    }

    /// Opens a stream on which the peer serves HTTP/1.1.
    pub async fn open_http(&self, to: &PeerAddr) -> Result<BiStream> {
        self.link(to).await?.http().await
    }

    /// What crossed the socket to and from `peer` since this transport was bound, whoever dialed.
    pub fn socket_bytes(&self, peer: NodeId) -> SocketBytes {
        self.traffic.of(peer)
    }

    /// Ends all connections, tells the peers, and waits until handlers have returned, for a while. The
    /// address is free again once the transport is dropped as well.
    pub async fn close(&self) {
        self.socket.close();
        let listening = {
            let mut slot = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
            slot.take()
        };
        if let Some(task) = listening {
            // The task bounds its own end. That it panicked was said where it happened.
            let _ = task.await;
        }
        // Peers that are gone do not confirm the end; they are not waited for any longer.
        let _ = timeout(CLOSE_LINGER, self.socket.endpoint.wait_idle()).await;
    }

    /// The dialed connection to a peer.
    pub(crate) async fn link(&self, to: &PeerAddr) -> Result<Arc<Link>> {
        let slot = {
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(links.entry(to.id).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(link) = slot.as_ref()
            && link.is_open()
        {
            if link.addr() == to.addr {
                return Ok(Arc::clone(link));
            }
            let reason = b"the node is dialed at another address";
            link.connection().close(CloseCode::Done.into(), reason);
        }
        *slot = None;
        if !self.service.trusted(to.id).await {
            return Err(Error::UnknownPeer { peer: to.id });
        }
        let link = self.dial_anew(to).await?;
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    pub(crate) async fn dial_anew(&self, to: &PeerAddr) -> Result<Arc<Link>> {
        let link = Link::dial(&self.socket, *to).await?;
        self.traffic.watch(to.id, link.connection());
        Ok(Arc::new(link))
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.socket.close();
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport(on {})", self.local_addr)
    }
}
