//! A node for tests: it writes down what it is asked and answers in simple ways.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use form_transport::{BiStream, Envelope, Error, ItemSink, Items, NodeId, NodeKey, PeerAddr, Service, Transport};
use tokio::{
    io::AsyncWriteExt,
    sync::{
        Semaphore,
        mpsc::{self, UnboundedReceiver, UnboundedSender},
    },
};

pub(crate) struct Node {
    pub(crate) transport: Transport,
    pub(crate) log: Arc<Log>,
    pub(crate) key: NodeKey,
    pub(crate) messages: UnboundedReceiver<(NodeId, Envelope)>,
}

/// What the node was asked, and how it answers.
pub(crate) struct Log {
    pub(crate) known: Mutex<HashSet<NodeId>>,
    pub(crate) trust_asked: AtomicU64,
    pub(crate) requests: AtomicU64,
    /// Bytes of items that the transport has taken from us.
    pub(crate) served_bytes: AtomicU64,
    /// Fetches whose sink was closed under them.
    pub(crate) fetches_cut: AtomicU64,
    /// A control message is handled when it gets a permit.
    pub(crate) gate: Semaphore,
    messages: UnboundedSender<(NodeId, Envelope)>,
}

pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Node {
    pub(crate) fn start() -> Self {
        Self::start_as(NodeKey::generate().unwrap(), LOOPBACK)
    }

    pub(crate) fn start_as(key: NodeKey, addr: SocketAddr) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let log = Arc::new(Log {
            known: Mutex::default(),
            trust_asked: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            served_bytes: AtomicU64::new(0),
            fetches_cut: AtomicU64::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            messages: sender,
        });
        let bind = || Transport::bind(addr, &key, Arc::clone(&log) as Arc<dyn Service>);
        // A former transport's socket is closed by a task of its own, a moment after the transport is dropped.
        let patience = Instant::now() + Duration::from_secs(10);
        let transport = loop {
            match bind() {
                Err(Error::Bind { .. }) if Instant::now() < patience => thread::sleep(Duration::from_millis(10)),
                bound => break bound.unwrap(),
            }
        };
        Self { transport, log, key, messages }
    }

    /// Two nodes that know each other.
    pub(crate) fn pair() -> (Self, Self) {
        let (a, b) = (Self::start(), Self::start());
        a.knows(&b);
        b.knows(&a);
        (a, b)
    }

    pub(crate) fn knows(&self, other: &Self) {
        self.log.known.lock().unwrap().insert(other.key.id());
    }

    pub(crate) fn peer(&self) -> PeerAddr {
        PeerAddr { id: self.key.id(), addr: self.transport.local_addr() }
    }

    /// The same key, for the same node after a restart.
    pub(crate) fn copy_of_key(&self) -> NodeKey {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        self.key.save(&path).unwrap();
        NodeKey::load(&path).unwrap()
    }

    pub(crate) async fn next_message(&mut self) -> Envelope {
        self.messages.recv().await.unwrap().1
    }
}

/// Stops both; each has to come to an end by itself.
pub(crate) async fn stop(nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        node.transport.close().await;
        // The listener's task held the other reference to the service's owner; it is over now.
        drop(node.transport);
        assert_eq!(Arc::strong_count(&node.log), 1, "something of the node still runs");
    }
}

/// A fetch of `count` items of `len_bytes`, each filled with its number.
pub(crate) fn wanted(count: u32, len_bytes: u32) -> Vec<u8> {
    [count.to_le_bytes(), len_bytes.to_le_bytes()].concat()
}

/// All items of a fetch.
pub(crate) async fn all(items: Result<Items, Error>) -> Result<Vec<Vec<u8>>, Error> {
    let (mut items, mut got) = (items?, Vec::new());
    while let Some(item) = items.next().await? {
        got.push(item);
    }
    Ok(got)
}

#[async_trait]
impl Service for Log {
    async fn trusted(&self, peer: NodeId) -> bool {
        self.trust_asked.fetch_add(1, SeqCst);
        self.known.lock().unwrap().contains(&peer)
    }

    async fn message(&self, from: NodeId, msg: Envelope) {
        self.gate.acquire().await.unwrap().forget();
        // The test may have stopped listening.
        let _ = self.messages.send((from, msg));
    }

    /// The request backwards; `big` is answered by more than a reply may have.
    async fn request(&self, _from: NodeId, mut body: Vec<u8>) -> Vec<u8> {
        self.requests.fetch_add(1, SeqCst);
        if body == b"big" {
            return vec![0; form_transport::limits::REPLY_BYTES_MAX as usize + 1];
        }
        body.reverse();
        body
    }

    async fn fetch(&self, _from: NodeId, req: Vec<u8>, sink: ItemSink) -> Result<(), String> {
        match req.as_slice() {
            b"fail" => return Err("the disk is on fire".into()),
            b"panic" => panic!("asked for by the test"),
            _ => {}
        }
        let count = u32::from_le_bytes(req[..4].try_into().unwrap());
        let len_bytes = u32::from_le_bytes(req[4..].try_into().unwrap());
        for number in 0..count {
            if let Err(error) = sink.send(vec![number as u8; len_bytes as usize]).await {
                self.fetches_cut.fetch_add(1, SeqCst);
                return Err(error.to_string());
            }
            self.served_bytes.fetch_add(len_bytes.into(), SeqCst);
        }
        Ok(())
    }

    /// Echo.
    async fn http(&self, _from: NodeId, stream: BiStream) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    }
}
