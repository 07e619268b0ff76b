//! A source node that the test plays: it offers what it likes to a real target.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use borsh::{BorshDeserialize, BorshSerialize};
use form_delta::{FrameIndex, Hash, Image, Manifest};
use form_node::ApiError;
use form_node::api::types::VmmView;
use form_node::auth::{SignedRequest, SigningKey, sign};
use form_node::store::{Begin, BeginRequest, NodeRecord, Other, ParticipantRecord};
use form_proto::{AttemptId, Body, CommitId, Epoch, Message, Refusal};
use form_transport::{
    Artifact, ArtifactKind, BiStream, BulkRequest, COMMIT_VERSION, Commit, Envelope, FrameIndexBytes, FrameRange,
    ItemSink, NodeId, NodeKey, Offer, PeerAddr, Service, Transport,
};
use form_vmm_hooks::Vmm as _;
use tokio::sync::mpsc;

use crate::client::{message, now_ms};
use crate::node::own_ip;
use crate::scene::{ARTIFACTS, Scene};

/// As on the wire between nodes.
#[derive(BorshSerialize, BorshDeserialize)]
enum Packet {
    Protocol { message: Vec<u8>, payload: Vec<u8> },
    Progress { phase: String, done: u64, total: u64 },
}

/// The body of a forged request, as its commit tells it.
pub(crate) const BODY: &str = r#"{"description":"forged"}"#;

/// Frames of each encoding, one after the other, by their index's hash.
type Frames = HashMap<Hash, (Vec<u8>, FrameIndex)>;

/// The node.
pub(crate) struct Rogue {
    pub(crate) key: NodeKey,
    transport: Transport,
    frames: Arc<Mutex<Frames>>,
    answer: Arc<Mutex<Vec<u8>>>,
    heard: mpsc::UnboundedReceiver<(Message, Vec<u8>)>,
}

struct Served {
    frames: Arc<Mutex<Frames>>,
    answer: Arc<Mutex<Vec<u8>>>,
    heard: mpsc::UnboundedSender<(Message, Vec<u8>)>,
}

#[async_trait]
impl Service for Served {
    async fn trusted(&self, _: NodeId) -> bool {
        true
    }
    async fn message(&self, _: NodeId, envelope: Envelope) {
        if let Ok(Packet::Protocol { message, payload }) = Packet::try_from_slice(&envelope.body) {
            let message = Message::decode(&message).expect("a message");
            // The test may be over.
            let _ = self.heard.send((message, payload));
        }
    }
    async fn request(&self, _: NodeId, _: Vec<u8>) -> Vec<u8> {
        self.answer.lock().expect("lock").clone()
    }
    async fn fetch(&self, _: NodeId, request: Vec<u8>, sink: ItemSink) -> Result<(), String> {
        let request = BulkRequest::decode(&request).expect("a request");
        let (bytes, index) = self.frames.lock().expect("lock")[&request.index()].clone();
        let BulkRequest::Frames { ranges, .. } = request else { return Err("it seeds nobody".into()) };
        for number in ranges.into_iter().flat_map(FrameRange::numbers) {
            let range = index.frame_range(number).map_err(|e| e.to_string())?;
            let frame = bytes[range.start as usize..range.end as usize].to_vec();
            sink.send(frame).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }
    async fn http(&self, _: NodeId, _: BiStream) {}
}

/// An attempt in the store, and an offer that would be right.
pub(crate) struct Forgery {
    pub(crate) attempt: AttemptId,
    pub(crate) epoch: u64,
    pub(crate) offer: Offer,
    /// Whose signature the offer gets.
    pub(crate) signer: NodeKey,
    /// The commit that the message announces, when it is not the offer's.
    pub(crate) announced: Option<CommitId>,
}

/// What a forgery is begun with.
pub(crate) struct Begun<'a> {
    /// Whose request it is.
    pub(crate) account: &'a SigningKey,
    /// The attempt's coordinator, when it is not the rogue.
    pub(crate) coordinator: Option<String>,
    pub(crate) cluster: &'a str,
    /// The request's body.
    pub(crate) body: &'a str,
}

impl Forgery {
    /// Another length of an image, in commit and frame index alike.
    pub(crate) fn resize(&mut self, artifact: usize, len_bytes: u64) {
        let index = &mut self.offer.indexes[artifact];
        let mut changed = FrameIndex::decode(&index.0).expect("an index");
        changed.image_len_bytes = len_bytes;
        *index = FrameIndexBytes(changed.encode());
        self.offer.commit.artifacts[artifact].image_len_bytes = len_bytes;
    }
}

impl Rogue {
    /// Enrolled as a node, and as the host of the instance `source`.
    pub(crate) async fn in_place_of(scene: &Scene, source: &str) -> Self {
        let key = NodeKey::generate().expect("key");
        let (frames, answer) = (Arc::default(), Arc::default());
        let (sender, heard) = mpsc::unbounded_channel();
        let service = Arc::new(Served { frames: Arc::clone(&frames), answer: Arc::clone(&answer), heard: sender });
        let transport = Transport::bind((own_ip(), 3003).into(), &key, service).expect("bind");
        let record = NodeRecord {
            node_id: key.id().to_string(),
            api_addr: "127.0.0.1:1".into(),
            quic_addr: transport.local_addr().to_string(),
            enrolled_at: 1,
            other: Other::new(),
        };
        scene.store.put_node(&record).await.expect("enrol");
        let hosts = |record: &mut form_node::store::InstanceRecord| record.node_id = key.id().to_string();
        scene.store.update_instance(scene.id(source), hosts).await.expect("write");
        Self { key, transport, frames, answer, heard }
    }

    /// What it answers to every question from now on.
    pub(crate) fn answer(&self, answer: &serde_json::Value) {
        *self.answer.lock().expect("lock") = answer.to_string().into();
    }

    /// Asks the node of an instance.
    pub(crate) async fn question(&self, scene: &Scene, of: &str, question: &serde_json::Value) -> serde_json::Value {
        let node = scene.node(of);
        let to = PeerAddr { id: node.id.parse().expect("an id"), addr: node.quic };
        let answer = self.transport.request(&to, question.to_string().into()).await.expect("an answer");
        serde_json::from_slice(&answer).expect("JSON")
    }

    /// begin(A), and an offer of what `target` has as its base, with the images in `changed` in place of their bases.
    pub(crate) async fn begin(
        &self,
        scene: &Scene,
        begun: Begun<'_>,
        target: &str,
        changed: &HashMap<&str, Vec<u8>>,
    ) -> Forgery {
        let request = request(scene, &begun);
        let head = scene.head().await;
        let mut participants = Vec::new();
        for name in ["a", target] {
            let record = scene.instance(name).await;
            participants.push(ParticipantRecord {
                instance_id: record.instance_id,
                node_id: scene.node(name).id.clone(),
                lifecycle_generation: record.lifecycle_generation,
            });
        }
        let cluster = scene.store.cluster(&scene.cluster).await.expect("read").expect("a cluster");
        let begin = BeginRequest {
            cluster_id: scene.cluster.clone(),
            source_instance: scene.id("a").into(),
            parent: cluster.head,
            request_hash: hex::encode(request.request_hash()),
            coordinator: begun.coordinator.unwrap_or_else(|| self.key.id().to_string()),
            participants,
            membership_rev: cluster.membership_rev,
            began_ms: now_ms(),
            lease: Duration::from_secs(600),
        };
        let record = match scene.store.begin(&begin).await.expect("begin") {
            Begin::Begun { attempt } => attempt,
            other => panic!("not begun: {other:?}"),
        };
        let mut id = [0; 16];
        hex::decode_to_slice(&record.attempt_id, &mut id).expect("hex");
        let (mut artifacts, mut indexes) = (Vec::new(), Vec::new());
        for name in ARTIFACTS {
            let base = scene.base(target, name).await;
            let (artifact, index) = self.encode(name, &base, changed.get(name).map(Vec::as_slice));
            artifacts.push(artifact);
            indexes.push(index);
        }
        let facts = scene.vmm.host().await.expect("facts");
        let vmm = serde_json::to_value(&facts).and_then(serde_json::from_value::<VmmView>).expect("facts");
        let mut parent = [0; 32];
        hex::decode_to_slice(head, &mut parent).expect("hex");
        let commit = Commit {
            version: COMMIT_VERSION,
            cluster: begun.cluster.into(),
            parent: Some(parent),
            artifacts,
            author: *begun.account.address().as_bytes(),
            description: "forged".into(),
            time_ms: now_ms(),
            request_message: request.message.clone(),
            source_instance: scene.id("a").into(),
            vmm: serde_json::to_string(&vmm).expect("JSON"),
        };
        let offer = Offer {
            commit,
            node_signature: [0; 64],
            request_signature: request.signature,
            request_recovery_id: request.recovery_id,
            request_body: begun.body.into(),
            indexes,
        };
        let signer = copy(&self.key);
        Forgery { attempt: AttemptId(id), epoch: record.epoch, offer, signer, announced: None }
    }

    fn encode(&self, name: &str, base: &Path, changed: Option<&[u8]>) -> (Artifact, FrameIndexBytes) {
        let old = Image::open(base).expect("open");
        let manifest = std::fs::read(base.with_extension("manifest")).expect("read");
        let manifest = Manifest::decode(&manifest).expect("a manifest");
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), changed.unwrap_or_else(|| old.as_slice())).expect("write");
        let new = Image::open(file.path()).expect("open");
        let new_manifest = form_delta::scan(&new);
        let mut bytes = Vec::new();
        let changed = form_delta::diff(&old, &manifest, &new).expect("diff").changed;
        let bases = [form_delta::Base { image: &old, manifest: &manifest, blocks: None }];
        let encoded = form_delta::encode(&bases, &new, &new_manifest, &changed, &mut bytes, &mut |_, _| {});
        let index = encoded.expect("encode").index;
        self.frames.lock().expect("lock").insert(index.hash(), (bytes, index.clone()));
        let kind = match name {
            "memory" => ArtifactKind::Memory,
            "device" => ArtifactKind::DeviceState,
            _ => ArtifactKind::Disk,
        };
        let artifact =
            Artifact { name: name.into(), kind, image_len_bytes: new.len_bytes(), root: new_manifest.root() };
        (artifact, FrameIndexBytes(index.encode()))
    }

    /// Serves the frames of one index under another one, too.
    pub(crate) fn list_as(&self, listed: Hash, other: FrameIndex) {
        let mut frames = self.frames.lock().expect("lock");
        let (bytes, _) = frames[&listed].clone();
        frames.insert(other.hash(), (bytes, other));
    }

    /// Signs the offer and sends it.
    pub(crate) async fn offer(&self, scene: &Scene, forgery: &Forgery, target: &str) {
        let mut offer = forgery.offer.clone();
        offer.sign(&forgery.signer, &forgery.attempt.0, forgery.epoch);
        let commit = forgery.announced.unwrap_or(CommitId(offer.commit.id()));
        self.say(scene, forgery, target, Body::Offer { commit }, borsh::to_vec(&offer).expect("borsh")).await;
    }

    pub(crate) async fn say(&self, scene: &Scene, forgery: &Forgery, target: &str, body: Body, payload: Vec<u8>) {
        let message = Message { attempt: forgery.attempt, epoch: Epoch(forgery.epoch), body }.encode();
        let body = borsh::to_vec(&Packet::Protocol { message, payload }).expect("borsh");
        let envelope = Envelope { attempt: forgery.attempt.0, instance: scene.id(target).into(), body };
        let node = scene.node(target);
        let to = PeerAddr { id: node.id.parse().expect("an id"), addr: node.quic };
        self.transport.send(&to, envelope).await.expect("send");
    }

    /// Says something until it is answered: a message can be lost with a connection.
    pub(crate) async fn ask(&mut self, scene: &Scene, forgery: &Forgery, target: &str, body: Body) -> Body {
        loop {
            self.say(scene, forgery, target, body, vec![]).await;
            if let Ok((answer, _)) = tokio::time::timeout(Duration::from_secs(1), self.heard(forgery)).await {
                return answer;
            }
        }
    }

    /// The next message of an attempt.
    pub(crate) async fn heard(&mut self, forgery: &Forgery) -> (Body, Option<ApiError>) {
        loop {
            let heard = tokio::time::timeout(Duration::from_secs(20), self.heard.recv()).await;
            let (message, payload) = heard.expect("an answer").expect("open");
            if message.attempt == forgery.attempt {
                return (message.body, serde_json::from_slice(&payload).ok());
            }
        }
    }

    /// The offer is refused, and the error says this.
    pub(crate) async fn refused(&mut self, scene: &Scene, forgery: &Forgery, target: &str, why: &str) {
        self.offer(scene, forgery, target).await;
        let (body, error) = self.heard(forgery).await;
        assert_eq!(body, Body::Refused(Refusal::Stage), "{why}");
        let error = error.expect("an error");
        let text = format!("{}: {}", error.message, error.cause.unwrap_or_default());
        assert!(text.contains(why), "expected {why:?}: {text}");
        self.abort(scene, forgery).await;
    }

    /// It is over, in the store.
    pub(crate) async fn abort(&self, scene: &Scene, forgery: &Forgery) {
        let attempt = hex::encode(forgery.attempt.0);
        let coordinator = scene.attempt(&attempt).await.coordinator;
        scene.store.abort(&attempt, &coordinator).await.expect("abort");
    }

    pub(crate) async fn close(self) {
        self.transport.close().await;
    }
}

fn request(scene: &Scene, begun: &Begun<'_>) -> SignedRequest {
    let subject = Some((begun.cluster, scene.id("a")));
    sign(begun.account, &message(scene.store.installation_id(), subject, "POST", "/api/v1/commit", begun.body))
}

fn copy(key: &NodeKey) -> NodeKey {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("key");
    key.save(&path).expect("save");
    NodeKey::load(&path).expect("load")
}
