//! What every effect has at hand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use form_delta::{FrameIndex, Hash};
use form_proto::{AttemptId, Millis};
use form_transport::{NodeId, NodeKey, PeerAddr, Transport};
use tokio::sync::{Notify, mpsc};

use super::again::Again;
use super::attempt::Attempt;
use super::attempts::Attempts;
use super::db::NodeDb;
use super::driver::Input;
use super::incoming::Incoming;
use super::layout::Layout;
use super::participate::Work;
use super::seed::Leftover;
use super::silence::Silence;
use super::space::Space;
use super::vms::{Vmms, Vms};
use crate::config::NodeConfig;
use crate::error::{ApiError, ErrorCode};
use crate::store::Store;

/// Names an encoding: the artifact, and the root of the base it stands on.
pub(crate) type EncodingKey = (String, Option<[u8; 32]>);

/// Frames that peers may fetch: one session is an attempt, or a seeding.
pub(crate) struct Outgoing {
    /// The only nodes that get them.
    pub(crate) allowed: Vec<NodeId>,
    /// Each encoding's index, and the file of its frames, by the index's hash.
    pub(crate) encodings: HashMap<Hash, (PathBuf, FrameIndex)>,
    /// To whom, and how many bytes of frames.
    pub(crate) on_sent: Box<dyn Fn(NodeId, u64) + Send + Sync>,
    /// Files that are there for this session alone.
    #[expect(dead_code, reason = "they go when this is dropped")]
    pub(crate) files: Option<Leftover>,
}

/// The running node.
pub(crate) struct Node {
    pub(crate) layout: Layout,
    pub(crate) config: NodeConfig,
    pub(crate) key: NodeKey,
    pub(crate) store: Store,
    pub(crate) db: NodeDb,
    pub(crate) vmms: Vmms,
    pub(crate) vms: Vms,
    pub(crate) engine: form_delta::Engine,
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    /// Owned by whoever runs the node: it serves this node, and must not keep it alive.
    pub(crate) transport: OnceLock<Weak<Transport>>,
    attempts: Mutex<Attempts<Arc<Attempt>>>,
    works: Mutex<HashMap<(String, AttemptId), Arc<Work>>>,
    outgoing: Mutex<HashMap<[u8; 16], Arc<Outgoing>>>,
    pub(crate) incoming: Incoming,
    /// Instances whose participant is in an attempt, and sources whose attempt is not decided: their lifecycle
    /// stands still.
    busy: Mutex<HashMap<String, AttemptId>>,
    committing: Mutex<HashMap<String, AttemptId>>,
    /// Two instances of one cluster may advance the same base.
    pub(crate) base_lock: tokio::sync::Mutex<()>,
    pub(crate) space: Space,
    /// Memory for a second VM.
    pub(crate) memory: Space,
    /// Told when nothing is under way any more.
    pub(crate) standbys: Notify,
    keeps_standbys: AtomicBool,
    pub(crate) store_is_away: Again,
    pub(crate) store_silence: Silence,
    /// No attempt begins any more.
    pub(crate) ending: AtomicBool,
    /// Effects that must succeed in the end.
    pub(crate) effects_fail: Again,
    started: Instant,
}

/// What [`Node::new`] is given.
pub(crate) struct Parts {
    pub(crate) layout: Layout,
    pub(crate) config: NodeConfig,
    pub(crate) key: NodeKey,
    pub(crate) store: Store,
    pub(crate) db: NodeDb,
    pub(crate) vmms: Vmms,
    pub(crate) engine: form_delta::Engine,
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was there before.
fn set(map: &Mutex<HashMap<String, AttemptId>>, instance: &str, attempt: Option<AttemptId>) -> Option<AttemptId> {
    let mut map = lock(map);
    match attempt {
        Some(attempt) => map.insert(instance.to_owned(), attempt),
        None => map.remove(instance),
    }
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { layout, config, key, store, db, vmms, engine, inputs } = parts;
        Self {
            layout,
            config,
            key,
            store,
            db,
            vmms,
            vms: Vms::default(),
            engine,
            inputs,
            transport: OnceLock::new(),
            attempts: Mutex::default(),
            works: Mutex::default(),
            outgoing: Mutex::default(),
            incoming: Incoming::default(),
            busy: Mutex::default(),
            committing: Mutex::default(),
            base_lock: tokio::sync::Mutex::default(),
            space: Space::default(),
            memory: Space::default(),
            standbys: Notify::new(),
            keeps_standbys: AtomicBool::new(false),
            store_is_away: Again::default(),
            store_silence: Silence::default(),
            ending: AtomicBool::new(false),
            effects_fail: Again::default(),
            started: Instant::now(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.id()
    }

    /// Directories whose files are no guest's business: this node's own, and the state store's.
    pub(crate) fn private_dirs(&self) -> Vec<PathBuf> {
        let store = self.config.store.strip_prefix("sqlite:").and_then(|path| Path::new(path).parent());
        let dirs = [Some(self.layout.root()), store].into_iter().flatten();
        dirs.filter_map(|dir| dir.canonicalize().ok()).collect()
    }

    /// The machines' clock.
    pub(crate) fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn instant(&self, at: Millis) -> Instant {
        self.started + std::time::Duration::from_millis(at.0)
    }

    pub(crate) fn input(&self, input: Input) {
        // The loop ends with the process alone.
        let _ = self.inputs.send(input);
    }

    pub(crate) fn transport(&self) -> Result<Arc<Transport>, ApiError> {
        let transport = self.transport.get().and_then(Weak::upgrade);
        transport.ok_or_else(|| ApiError::internal("reach a peer", "the node is starting or ending"))
    }

    /// Where a node of the installation is.
    pub(crate) async fn peer(&self, node_id: &str) -> Result<PeerAddr, ApiError> {
        let unknown = || {
            ApiError::new(ErrorCode::TargetUnavailable, format!("node {node_id} is not enrolled"))
                .remedy("enrol it with `form node init` against the same store")
        };
        let record = self.store.node(node_id).await?.ok_or_else(unknown)?;
        let id = node_id.parse().map_err(|e| ApiError::internal("read a node's id", e))?;
        let addr = record.quic_addr.parse().map_err(|e| ApiError::internal("read a node's address", e))?;
        Ok(PeerAddr { id, addr })
    }

    pub(crate) fn attempt(&self, id: AttemptId) -> Option<Arc<Attempt>> {
        lock(&self.attempts).get(id)
    }

    pub(crate) fn add_attempt(&self, attempt: Arc<Attempt>) {
        lock(&self.attempts).add(attempt.id, attempt);
    }

    /// The attempts coordinated here that are not settled.
    pub(crate) fn attempts_in_flight(&self) -> Vec<Arc<Attempt>> {
        lock(&self.attempts).in_flight()
    }

    pub(crate) fn attempt_is_settled(&self, id: AttemptId) {
        lock(&self.attempts).settled(id);
    }

    pub(crate) fn work(&self, instance: &str, attempt: AttemptId) -> Option<Arc<Work>> {
        lock(&self.works).get(&(instance.to_owned(), attempt)).cloned()
    }

    /// Keeps the first: a message that comes again brings nothing new.
    pub(crate) fn add_work(&self, instance: &str, attempt: AttemptId, work: Work) {
        lock(&self.works).entry((instance.to_owned(), attempt)).or_insert_with(|| Arc::new(work));
    }

    pub(crate) fn forget_other_works(&self, instance: &str, attempt: AttemptId) {
        lock(&self.works).retain(|(i, a), _| i != instance || *a == attempt);
    }

    pub(crate) fn offer(&self, session: [u8; 16], outgoing: Outgoing) {
        lock(&self.outgoing).insert(session, Arc::new(outgoing));
    }

    pub(crate) fn outgoing(&self, session: [u8; 16]) -> Option<Arc<Outgoing>> {
        lock(&self.outgoing).get(&session).cloned()
    }

    pub(crate) fn withdraw(&self, session: [u8; 16]) {
        lock(&self.outgoing).remove(&session);
    }

    pub(crate) fn busy_with(&self, instance: &str) -> Option<AttemptId> {
        let committing = lock(&self.committing).get(instance).copied();
        committing.or_else(|| lock(&self.busy).get(instance).copied())
    }

    pub(crate) fn set_busy(&self, instance: &str, attempt: Option<AttemptId>) {
        let before = set(&self.busy, instance, attempt);
        if before.is_some() && attempt.is_none() {
            self.standbys.notify_one();
        }
    }

    pub(crate) fn set_committing(&self, instance: &str, attempt: AttemptId) {
        set(&self.committing, instance, Some(attempt));
    }

    /// The attempt does not need the source any more. Another one may.
    pub(crate) fn committed(&self, instance: &str, attempt: AttemptId) {
        lock(&self.committing).retain(|source, of| source != instance || *of != attempt);
        self.standbys.notify_one();
    }

    /// Whether files that a commit replaces are of use to the next one.
    pub(crate) fn keeps_standbys(&self) -> bool {
        self.keeps_standbys.load(Ordering::Acquire)
    }

    pub(crate) fn keep_standbys(&self) {
        self.keeps_standbys.store(true, Ordering::Release);
    }

    /// No instance of this node is in an attempt.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.busy).is_empty() && lock(&self.committing).is_empty()
    }

    /// An instance of this node, or the error that says where it is.
    pub(crate) fn local(&self, instance: &str) -> Result<super::instance::LocalInstance, ApiError> {
        self.db.instance(instance)?.ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("instance {instance} is not on node {}", self.id()))
                .remedy("`form manage instances` shows where each instance is")
        })
    }
}

/// Runs `f` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    f: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(panic) => Err(ApiError::internal(doing, panic)),
    }
}
