//! What a trusted peer's broken or hostile bytes do: one stream or one connection ends, and nothing else.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    BiStream, Envelope, Error, ItemSink, NodeId, NodeKey, PeerAddr, Service, Transport,
    limits::{CONTROL_MESSAGE_BYTES_MAX, FETCH_REQUEST_BYTES_MAX, REQUEST_BYTES_MAX},
    wire::{CloseCode, StreamTag, VERSION},
};

/// Counts what reaches it.
#[derive(Default)]
struct Counter {
    messages: AtomicU64,
    others: AtomicU64,
}

#[async_trait]
impl Service for Counter {
    async fn trusted(&self, _peer: NodeId) -> bool {
        true
    }

    async fn message(&self, _from: NodeId, _msg: Envelope) {
        self.messages.fetch_add(1, SeqCst);
    }

    async fn request(&self, _from: NodeId, body: Vec<u8>) -> Vec<u8> {
        self.others.fetch_add(1, SeqCst);
        body
    }

    async fn fetch(&self, _from: NodeId, _req: Vec<u8>, _sink: ItemSink) -> Result<(), String> {
        self.others.fetch_add(1, SeqCst);
        Ok(())
    }

    async fn http(&self, _from: NodeId, _stream: BiStream) {
        self.others.fetch_add(1, SeqCst);
    }
}

struct Scene {
    attacker: Transport,
    victim: Transport,
    counter: Arc<Counter>,
    peer: PeerAddr,
}

impl Scene {
    fn new() -> Self {
        let (counter, key) = (Arc::new(Counter::default()), NodeKey::generate().unwrap());
        let bind = |key: &NodeKey, service| Transport::bind(([127, 0, 0, 1], 0).into(), key, service).unwrap();
        let attacker = bind(&NodeKey::generate().unwrap(), Arc::new(Counter::default()));
        let victim = bind(&key, counter.clone());
        let peer = PeerAddr { id: key.id(), addr: victim.local_addr() };
        Self { attacker, victim, counter, peer }
    }

    /// Sends bytes on a stream of their own and returns how the victim ended it: its answer or its code.
    async fn send(&self, bytes: &[u8]) -> Result<Vec<u8>, u64> {
        let link = self.attacker.link(&self.peer).await.unwrap();
        let (mut send, mut recv) = link.connection().open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        // The victim may have stopped the stream already.
        let _ = send.shutdown().await;
        let mut answer = Vec::new();
        match AsyncReadExt::read_to_end(&mut recv, &mut answer).await {
            Ok(_) => Ok(answer),
            Err(error) => match link.explain("attack", Error::Stream { what: "answer", source: error }) {
                Error::Rejected { code, .. } => Err(code),
                other => panic!("{other:?}"),
            },
        }
    }

    async fn close(self) {
        self.attacker.close().await;
        self.victim.close().await;
    }
}

fn block(tag: StreamTag, len_bytes: u32, body: &[u8]) -> Vec<u8> {
    [&[tag as u8, VERSION], len_bytes.to_le_bytes().as_slice(), body].concat()
}

const PROTOCOL: Result<Vec<u8>, u64> = Err(CloseCode::Protocol as u64);
const LIMIT: Result<Vec<u8>, u64> = Err(CloseCode::Limit as u64);

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_stream_ends_alone() {
    let scene = Scene::new();
    let connection = scene.attacker.link(&scene.peer).await.unwrap();
    let attacks = [
        (vec![], PROTOCOL),
        (vec![StreamTag::Request as u8], PROTOCOL),
        (vec![0, VERSION], PROTOCOL),
        (vec![9, VERSION, 1, 2, 3], PROTOCOL),
        (vec![StreamTag::Request as u8, VERSION + 1, 0, 0, 0, 0], PROTOCOL),
        // A length without its bytes: refused for the length, or found out as cut off; nothing waits for it.
        (block(StreamTag::Request, REQUEST_BYTES_MAX + 1, b""), LIMIT),
        (block(StreamTag::Request, u32::MAX, b""), LIMIT),
        (block(StreamTag::Request, REQUEST_BYTES_MAX, b"short"), PROTOCOL),
        (block(StreamTag::Fetch, FETCH_REQUEST_BYTES_MAX + 1, b""), LIMIT),
        (block(StreamTag::Fetch, 6, b"short"), PROTOCOL),
    ];
    for (bytes, want) in attacks {
        assert_eq!(scene.send(&bytes).await, want, "{bytes:?}");
    }
    assert_eq!(scene.counter.others.load(SeqCst), 0, "something reached the service");
    // The same connection still serves.
    let answer = scene.send(&block(StreamTag::Request, 2, b"ok")).await;
    assert_eq!(answer, Ok(b"\x02\0\0\0ok".to_vec()));
    assert!(Arc::ptr_eq(&connection, &scene.attacker.link(&scene.peer).await.unwrap()));
    drop(connection);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_control_stream_ends_its_connection() {
    let scene = Scene::new();
    let envelope = Envelope { attempt: [1; 16], instance: "i".into(), body: vec![] }.encode().unwrap();
    let len_bytes = envelope.len() as u32;
    let attacks = [
        (block(StreamTag::Control, CONTROL_MESSAGE_BYTES_MAX + 1, b""), LIMIT),
        (block(StreamTag::Control, u32::MAX, b""), LIMIT),
        (block(StreamTag::Control, 0, b""), PROTOCOL),
        (block(StreamTag::Control, len_bytes - 1, &envelope), PROTOCOL),
        (block(StreamTag::Control, len_bytes + 1, &[envelope.as_slice(), b"x"].concat()), PROTOCOL),
        (block(StreamTag::Control, len_bytes, &envelope[1..]), PROTOCOL),
    ];
    for (bytes, want) in attacks {
        let connection = scene.attacker.link(&scene.peer).await.unwrap();
        let got = scene.send(&bytes).await;
        // The stream's own end or the connection's, whichever is seen first, has the code.
        assert!(got == want || got == Ok(vec![StreamTag::Control as u8, VERSION]), "{got:?} for {bytes:?}");
        connection.connection().closed().await;
        let error = connection.request(b"more").await.unwrap_err();
        assert!(matches!(&error, Error::Rejected { code, .. } if Err(*code) == want), "{error:?} for {bytes:?}");
    }
    assert_eq!(scene.counter.messages.load(SeqCst), 0);
    // A new connection works.
    let answer = scene.send(&block(StreamTag::Request, 2, b"ok")).await;
    assert_eq!(answer, Ok(b"\x02\0\0\0ok".to_vec()));
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_piles_up_connections_loses_its_oldest() {
    let scene = Scene::new();
    let mut links = Vec::new();
    for _ in 0..crate::limits::INBOUND_CONNECTIONS_PER_PEER_MAX + 2 {
        links.push(scene.attacker.dial_anew(&scene.peer).await.unwrap());
    }
    let [first, second, rest @ ..] = links.as_slice() else { panic!("too few") };
    first.connection().closed().await;
    second.connection().closed().await;
    for link in rest {
        assert_eq!(link.request(b"ok").await.unwrap(), b"ok");
    }
    drop(links);
    scene.close().await;
}
