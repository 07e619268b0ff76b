//! A node without an engine: it answers, and notes what it was asked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use axum::Router;
use form_node::api::flight::FlightView;
use form_node::api::health::{Finding, HealthView, Verdict};
use form_node::api::types::{
    AttemptEvent, AttemptView, CommitAccepted, CommitVmRequest, CreateRequest, Created, NodeView,
};
use form_node::auth::{Address, SigningKey};
use form_node::store::{CreateInstance, InstanceRecord, Join, Kv, NodeRecord, Other, SqliteKv, Store};
use form_node::{ApiError, Core, ErrorCode, Signed, api};
use form_transport::{BiStream, Envelope, ItemSink, NodeId, NodeKey, PeerAddr, Service, Transport};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

pub(crate) const CLUSTER: &str = "c000000000000000000000000000000000000000";
pub(crate) const ATTEMPT: &str = "00112233445566778899aabbccddeeff";

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32]).expect("a key")
}

/// The owner of all instances.
pub(crate) fn owner() -> Address {
    key(1).address()
}

pub(crate) fn id(n: u32) -> String {
    format!("{n:040x}")
}

/// One node: its HTTP API, and its transport.
pub(crate) struct FakeNode {
    store: Store,
    id: NodeId,
    calls: Mutex<Vec<String>>,
    pub(crate) console: Mutex<Option<PathBuf>>,
    /// The owner that this node remembers, whatever the store says.
    pub(crate) pinned: Mutex<Option<Address>>,
    transport: OnceLock<Transport>,
}

/// Nodes that share one store.
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Arc<FakeNode>>,
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
}

/// `count` nodes; instance `n` is on node `n - 1`, all of one cluster.
pub(crate) async fn nodes(count: u32) -> Nodes {
    let dir = tempfile::tempdir().expect("tempdir");
    let kv: Arc<dyn Kv> = Arc::new(SqliteKv::open(&dir.path().join("state.db")).await.expect("open"));
    let store = Store::over(kv).await.expect("store");
    let (mut nodes, mut addrs) = (Vec::new(), Vec::new());
    for n in 1..=count {
        let key = NodeKey::generate().expect("key");
        let node = Arc::new(FakeNode {
            store: store.clone(),
            id: key.id(),
            calls: Mutex::default(),
            console: Mutex::default(),
            pinned: Mutex::default(),
            transport: OnceLock::new(),
        });
        let router = api::router(node.clone());
        let peers = Arc::new(Peers { router: router.clone() });
        let transport = Transport::bind("127.0.0.1:0".parse().expect("addr"), &key, peers).expect("bind");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        addrs.push(listener.local_addr().expect("addr"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let record = NodeRecord {
            node_id: key.id().to_string(),
            api_addr: addrs.last().expect("pushed").to_string(),
            quic_addr: transport.local_addr().to_string(),
            enrolled_at: 1,
            other: Other::new(),
        };
        store.put_node(&record).await.expect("enrol");
        node.transport.set(transport).expect("once");
        let instance = InstanceRecord::new(&id(n), &format!("vm-{n}"), &key.id().to_string(), CLUSTER, owner(), 1);
        if n == 1 {
            assert_eq!(store.create_instance(instance).await.expect("create"), CreateInstance::Created);
        } else {
            assert!(matches!(store.join_cluster(&instance).await.expect("join"), Join::Joined { .. }));
        }
        nodes.push(node);
    }
    Nodes { nodes, addrs, store, dir }
}

impl FakeNode {
    /// What it was asked since the last look.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().expect("lock"))
    }

    fn note(&self, call: String) {
        self.calls.lock().expect("lock").push(call);
    }
}

struct Peers {
    router: Router,
}

#[async_trait]
impl Service for Peers {
    async fn trusted(&self, _: NodeId) -> bool {
        true
    }
    async fn message(&self, _: NodeId, _: Envelope) {}
    async fn request(&self, _: NodeId, _: Vec<u8>) -> Vec<u8> {
        Vec::new()
    }
    async fn fetch(&self, _: NodeId, _: Vec<u8>, _: ItemSink) -> Result<(), String> {
        Ok(())
    }
    async fn http(&self, _: NodeId, stream: BiStream) {
        // The client's side says what went wrong.
        let _ = api::serve_connection(self.router.clone(), stream).await;
    }
}

#[async_trait]
impl Core for FakeNode {
    fn store(&self) -> &Store {
        &self.store
    }
    fn node_id(&self) -> String {
        self.id.to_string()
    }
    fn installation_id(&self) -> String {
        self.store.installation_id().to_owned()
    }
    async fn pinned_owner(&self, _: &str) -> Result<Option<Address>, ApiError> {
        Ok(*self.pinned.lock().expect("lock"))
    }
    async fn view(&self) -> Result<NodeView, ApiError> {
        Err(ApiError::new(ErrorCode::MissingDependency, "no VMM here").remedy("install one"))
    }
    async fn flight(&self) -> Result<FlightView, ApiError> {
        self.note("flight".into());
        let (attempts, participants) = (Vec::new(), Vec::new());
        Ok(FlightView { node_id: self.node_id(), store_silent_ms: Some(12_000), attempts, participants })
    }
    async fn health(&self) -> Result<HealthView, ApiError> {
        let finding = |verdict| Finding { check: "store".into(), verdict, message: "it is away".into(), remedy: None };
        Ok(HealthView::new(Some(self.node_id()), true, vec![finding(Verdict::Ok), finding(Verdict::Problem)]))
    }
    async fn create(&self, signed: Signed, request: CreateRequest) -> Result<Created, ApiError> {
        self.note(format!("create {} for {} like {:?}", request.name, signed.authorised.signer(), request.like));
        Ok(Created { instance_id: id(99), cluster_id: id(98), snapshot_id: None, received_bytes: 0 })
    }
    async fn start(&self, instance_id: &str) -> Result<(), ApiError> {
        self.note(format!("start {instance_id}"));
        Ok(())
    }
    async fn stop(&self, instance_id: &str) -> Result<(), ApiError> {
        self.note(format!("stop {instance_id}"));
        Err(ApiError::new(ErrorCode::WrongState, "it is stopped"))
    }
    async fn delete(&self, instance_id: &str) -> Result<(), ApiError> {
        self.note(format!("delete {instance_id}"));
        Ok(())
    }
    async fn console(&self, instance_id: &str) -> Result<PathBuf, ApiError> {
        self.note(format!("console {instance_id}"));
        let path = self.console.lock().expect("lock").clone();
        path.ok_or_else(|| ApiError::new(ErrorCode::WrongState, "it is stopped"))
    }
    async fn commit(
        &self,
        signed: Signed,
        instance_id: &str,
        request: CommitVmRequest,
    ) -> Result<CommitAccepted, ApiError> {
        let description = request.description.unwrap_or_default();
        self.note(format!("commit {instance_id} by {}: {description}", signed.authorised.signer()));
        Ok(CommitAccepted {
            attempt_id: ATTEMPT.into(),
            instance_id: instance_id.into(),
            node_id: self.node_id(),
            targets: vec![],
        })
    }
    async fn attempt(&self, attempt_id: &str) -> Result<AttemptView, ApiError> {
        if attempt_id != ATTEMPT && self.store.attempt(attempt_id).await?.is_none() {
            return Err(ApiError::new(ErrorCode::NotFound, "no such attempt"));
        }
        Ok(AttemptView {
            attempt_id: attempt_id.into(),
            instance_id: id(1),
            outcome: "pending".into(),
            settled: false,
            last_event: None,
            waits_for: vec![],
        })
    }
    async fn attempt_events(&self, attempt_id: &str) -> Result<BoxStream<'static, AttemptEvent>, ApiError> {
        self.attempt(attempt_id).await?;
        let events = [
            AttemptEvent::Phase { target: None, phase: "preflight".into(), at_ms: 0 },
            AttemptEvent::Snapshot { snapshot_id: "ab".repeat(32) },
            AttemptEvent::Settled { summary: None },
        ];
        Ok(futures_util::stream::iter(events).boxed())
    }
    async fn peer_http(&self, node_id: &str) -> Result<BiStream, ApiError> {
        let unavailable = |error: &dyn std::fmt::Display| {
            ApiError::new(ErrorCode::Unavailable, format!("node {node_id} can't be reached")).cause(error)
        };
        let record = self.store.node(node_id).await?.ok_or_else(|| unavailable(&"it is not enrolled"))?;
        let to = PeerAddr {
            id: node_id.parse().map_err(|e| unavailable(&e))?,
            addr: record.quic_addr.parse().map_err(|e| unavailable(&e))?,
        };
        let transport = self.transport.get().expect("bound");
        transport.open_http(&to).await.map_err(|e| unavailable(&e))
    }
}
