//! A transfer that is cut goes on where it stopped.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use form_delta::{FrameIndex, FrameRef, Hash, Spool, generate::noise};
use form_transport::{
    BiStream, BulkRequest, Envelope, Error, FrameRange, ItemSink, NodeId, NodeKey, PeerAddr, Service, Transport,
    limits::{
        FETCH_IN_FLIGHT_BYTES_MAX, INBOUND_CONNECTIONS_PER_PEER_MAX, INDEX_PIECE_BYTES, RECEIVE_WINDOW_BYTES_MAX,
        SEND_WINDOW_BYTES,
    },
};
use tempfile::TempDir;
use tokio::{sync::Notify, time::sleep};

use crate::node::LOOPBACK;

const FRAME_BYTES: usize = 1 << 20;
const SESSION: [u8; 16] = [7; 16];
/// What may have left the source without having reached the target when a connection is cut.
const FRAMES_IN_FLIGHT: usize =
    (FETCH_IN_FLIGHT_BYTES_MAX + SEND_WINDOW_BYTES + RECEIVE_WINDOW_BYTES_MAX) as usize / FRAME_BYTES + 2;

/// Serves frames of one encoding, and writes down which it was asked for and which it sent.
struct Source {
    index: FrameIndex,
    asked: Mutex<Vec<Vec<FrameRange>>>,
    sent: AtomicUsize,
    /// When it is asked for the first time, it sends nothing from this frame on.
    held: Option<u32>,
    go_on: Notify,
}

/// Neighbouring frames differ, and each can be made again.
fn frame(number: u32) -> Vec<u8> {
    noise(number.into(), FRAME_BYTES)
}

fn index(count: u32) -> FrameIndex {
    let frames = (0..count).map(|number| FrameRef { hash: Hash::of(&frame(number)), len_bytes: FRAME_BYTES as u32 });
    FrameIndex { base_roots: vec![], new_root: Hash::of(b"new"), image_len_bytes: 1 << 30, frames: frames.collect() }
}

#[async_trait]
impl Service for Source {
    async fn trusted(&self, _peer: NodeId) -> bool {
        true
    }

    async fn message(&self, _from: NodeId, _msg: Envelope) {}

    async fn request(&self, _from: NodeId, body: Vec<u8>) -> Vec<u8> {
        body
    }

    async fn fetch(&self, _from: NodeId, req: Vec<u8>, sink: ItemSink) -> Result<(), String> {
        let request = BulkRequest::decode(&req).map_err(|e| e.to_string())?;
        assert_eq!((request.session(), request.index()), (SESSION, self.index.hash()));
        let BulkRequest::Frames { ranges, .. } = request else {
            for piece in self.index.encode().chunks(INDEX_PIECE_BYTES) {
                sink.send(piece.to_vec()).await.map_err(|e| e.to_string())?;
            }
            return Ok(());
        };
        self.asked.lock().unwrap().push(ranges.clone());
        for number in ranges.into_iter().flat_map(FrameRange::numbers) {
            if self.held == Some(number) && self.asked.lock().unwrap().len() == 1 {
                self.go_on.notified().await;
                return Err("the connection is gone".into());
            }
            sink.send(frame(number)).await.map_err(|e| e.to_string())?;
            self.sent.fetch_add(1, SeqCst);
        }
        Ok(())
    }

    async fn http(&self, _from: NodeId, _stream: BiStream) {}
}

struct Scene {
    source: Arc<Source>,
    serving: Transport,
    target: Transport,
    key: NodeKey,
    peer: PeerAddr,
    spool: Arc<Spool>,
    _dir: TempDir,
}

impl Scene {
    fn new(index: FrameIndex, held: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::create(&dir.path().join("spool"), index.clone()).unwrap());
        let (asked, sent) = (Mutex::default(), AtomicUsize::new(0));
        let source = Arc::new(Source { index, asked, sent, held, go_on: Notify::new() });
        let (key, source_key) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        let bind = |key: &NodeKey| Transport::bind(LOOPBACK, key, Arc::clone(&source) as Arc<dyn Service>).unwrap();
        let (target, serving) = (bind(&key), bind(&source_key));
        let peer = PeerAddr { id: source_key.id(), addr: serving.local_addr() };
        Self { source, serving, target, key, peer, spool, _dir: dir }
    }

    /// Makes the source end the target's connection, whatever is on its way: a peer may have only so many.
    async fn cut(&self) -> Vec<Transport> {
        let mut others = Vec::new();
        for _ in 0..INBOUND_CONNECTIONS_PER_PEER_MAX {
            let other = Transport::bind(LOOPBACK, &self.key, Arc::clone(&self.source) as Arc<dyn Service>).unwrap();
            other.request(&self.peer, vec![]).await.unwrap();
            others.push(other);
        }
        others
    }

    /// Fetches all frames and cuts the connection once `arrived` of them are there. Returns how many came in all.
    async fn fetch_and_cut(&self, arrived: usize) -> usize {
        let came = AtomicUsize::new(0);
        let on_frame = |len_bytes| {
            assert_eq!(len_bytes, FRAME_BYTES as u64);
            came.fetch_add(1, SeqCst);
        };
        let cutting = async {
            while came.load(SeqCst) < arrived {
                sleep(Duration::from_millis(1)).await;
            }
            let others = self.cut().await;
            self.source.go_on.notify_one();
            others
        };
        let fetching = self.target.fetch_frames(&self.peer, SESSION, &self.spool, &on_frame);
        let (others, fetched) = tokio::join!(cutting, fetching);
        fetched.unwrap();
        for other in others {
            other.close().await;
        }
        came.into_inner()
    }

    fn asked(&self) -> Vec<Vec<(u32, u32)>> {
        let asked = self.source.asked.lock().unwrap();
        asked.iter().map(|ranges| ranges.iter().map(|r| (r.first, r.count)).collect()).collect()
    }

    fn all_there(&self, frames: u32) {
        assert_eq!(self.spool.missing(), []);
        for number in (0..frames).step_by(7) {
            assert_eq!(self.spool.read(number).unwrap().bytes(), frame(number));
        }
    }

    async fn close(self) {
        self.target.close().await;
        self.serving.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cut_each_frame_has_been_sent_once() {
    let scene = Scene::new(index(48), Some(20));
    assert_eq!(scene.fetch_and_cut(20).await, 48);
    assert_eq!(scene.asked(), [vec![(0, 48)], vec![(20, 28)]]);
    assert_eq!(scene.source.sent.load(SeqCst), 48);
    scene.all_there(48);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_costs_no_more_than_what_was_in_flight() {
    const FRAMES: usize = 96;
    let scene = Scene::new(index(FRAMES as u32), Some(90));
    assert_eq!(scene.fetch_and_cut(40).await, FRAMES, "a frame came twice");
    let asked = scene.asked();
    let [first, rest] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(*first, [(0, 96)]);
    let [(next, count)] = rest.as_slice() else { panic!("{asked:?}") };
    assert!(*next >= 40 && next + count == 96, "{asked:?}");
    let sent = scene.source.sent.load(SeqCst);
    assert!(sent <= FRAMES + FRAMES_IN_FLIGHT, "{sent} frames were sent");
    scene.all_there(96);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_missing_is_asked_for() {
    let scene = Scene::new(index(9), None);
    for number in [0, 3, 4, 8] {
        scene.spool.put(scene.spool.index().verify(number, frame(number)).unwrap()).unwrap();
    }
    scene.target.fetch_frames(&scene.peer, SESSION, &scene.spool, &|_| ()).await.unwrap();
    assert_eq!(scene.asked(), [[(1, 2), (5, 3)]]);
    assert_eq!(scene.source.sent.load(SeqCst), 5);
    scene.all_there(9);
    // Nothing is missing now, and nothing is asked for.
    scene.target.fetch_frames(&scene.peer, SESSION, &scene.spool, &|_| ()).await.unwrap();
    assert_eq!(scene.asked().len(), 1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_not_the_listed_one_ends_the_fetch_at_once() {
    let mut listed = index(3);
    listed.frames[1].hash = Hash::of(b"another");
    let scene = Scene::new(listed, None);
    let error = scene.target.fetch_frames(&scene.peer, SESSION, &scene.spool, &|_| ()).await.unwrap_err();
    assert!(matches!(error, Error::Frame(_)), "{error:?}");
    assert_eq!((scene.asked().len(), scene.spool.missing()), (1, vec![1, 2]));
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_comes_in_pieces_and_is_the_one_that_was_named() {
    let frames = (0..100_000_u32).map(|n| FrameRef { hash: Hash::of(&n.to_le_bytes()), len_bytes: 1 }).collect();
    let long = FrameIndex { frames, ..index(0) };
    assert!(long.encode().len() > 3 * INDEX_PIECE_BYTES);
    let scene = Scene::new(long, None);
    let index = &scene.source.index;
    assert_eq!(scene.target.fetch_index(&scene.peer, SESSION, index.hash()).await.unwrap(), *index);
    scene.close().await;
}
