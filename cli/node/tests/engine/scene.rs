//! Nodes with one state store, and a cluster of instances on them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use form_node::api::types::{AttemptEvent, CommitAccepted, CommitSummary};
use form_node::auth::SigningKey;
use form_node::store::{
    AttemptRecord, Begin, BeginRequest, InstanceRecord, InstanceStatus, Op, ParticipantRecord, SqliteKv, Store,
};
use form_node::{ApiError, ErrorCode};
use form_proto::Step;
use form_vmm_hooks::VmState;
use form_vmm_hooks::fake::FakeVmm;
use serde_json::{Value, json};

use crate::client::{Signed, events, now_ms};
use crate::hooks::Hooks;
pub(crate) use crate::images::{PAGE, flip, noise, same, write_page};
use crate::node::{Node, Storage};

/// Memory of each guest, bytes.
pub(crate) const MEMORY_BYTES: u64 = 32 << 20;
/// The one disk of each guest, bytes.
pub(crate) const DISK_BYTES: u64 = 4 << 20;
/// What a commit consists of.
pub(crate) const ARTIFACTS: [&str; 3] = ["device", "memory", "root"];

const PATIENCE: Duration = Duration::from_secs(40);

/// An instance and where it is.
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) node: usize,
}

pub(crate) struct Scene {
    pub(crate) nodes: Vec<Node>,
    pub(crate) store: Store,
    pub(crate) hooks: Hooks,
    pub(crate) vmm: FakeVmm,
    pub(crate) owner: SigningKey,
    pub(crate) cluster: String,
    /// By name.
    pub(crate) places: BTreeMap<String, Place>,
    pub(crate) dir: tempfile::TempDir,
}

/// How an attempt ended.
pub(crate) struct Ended {
    pub(crate) attempt: String,
    pub(crate) events: Vec<AttemptEvent>,
}

impl Ended {
    pub(crate) fn committed(&self) -> &CommitSummary {
        match self.events.last() {
            Some(AttemptEvent::Settled { summary: Some(summary) }) => summary,
            _ => panic!("not committed: {:?}", self.events),
        }
    }

    /// The error it failed with; nothing was committed.
    pub(crate) fn failed(&self) -> &ApiError {
        assert!(matches!(self.events.last(), Some(AttemptEvent::Settled { summary: None })), "{:?}", self.events);
        let committed = self.events.iter().any(|e| matches!(e, AttemptEvent::Committed { .. }));
        let failed = self.events.iter().find_map(|e| match e {
            AttemptEvent::Failed { error } => Some(error),
            _ => None,
        });
        assert!(!committed, "{:?}", self.events);
        failed.expect("a reason")
    }

    /// As [`Ended::failed`]; the error has this code and names all of these.
    pub(crate) fn failed_with(&self, code: ErrorCode, named: &[&str]) {
        let error = self.failed();
        let text = format!("{}: {}", error.message, error.cause.as_deref().unwrap_or_default());
        assert_eq!(error.code, code, "{text}");
        for name in named {
            assert!(text.contains(name), "{name} is not named: {text}");
        }
    }
}

impl Scene {
    /// One node for each list of names, one cluster of all of them, all running. The first is the one the others are
    /// like; it has pages of its own before they join.
    pub(crate) async fn new(names: &[&[&str]]) -> Self {
        Self::on(names, Storage::Directory).await
    }

    /// As [`Scene::new`], the data of each node at such a place of its own.
    pub(crate) async fn on(names: &[&[&str]], storage: Storage) -> Self {
        Self::of(names, storage, "").await
    }

    /// As [`Scene::new`], their spec begins like that.
    pub(crate) async fn with_spec(names: &[&[&str]], more: &str) -> Self {
        Self::of(names, Storage::Directory, more).await
    }

    /// As both of these.
    pub(crate) async fn of(names: &[&[&str]], storage: Storage, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = dir.path().join("state/state.db");
        let (hooks, vmm) = (Hooks::default(), FakeVmm::default());
        let mut nodes = Vec::new();
        for number in 0..names.len() {
            let mut node = Node::init(number, dir.path(), &state, &vmm, &hooks, storage).await;
            node.start().await;
            nodes.push(node);
        }
        let store = Store::over(Arc::new(SqliteKv::open(&state).await.expect("open"))).await.expect("store");
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("random bytes");
        let owner = SigningKey::from_bytes(&key).expect("a key");
        let (cluster, places) = (String::new(), BTreeMap::new());
        let mut scene = Self { nodes, store, hooks, vmm, owner, cluster, places, dir };
        let mut first = None;
        for (node, names) in names.iter().enumerate() {
            for name in *names {
                scene.create(node, name, first, more).await;
                scene.post(name, &format!("/api/v1/instances/{name}/start")).accepted(scene.api(name)).await;
                if first.is_none() {
                    (0..8).for_each(|page| scene.poke(name, "memory", page, 1));
                    first = Some(name);
                }
            }
        }
        scene
    }

    async fn create(&mut self, node: usize, name: &str, like: Option<&str>, more: &str) {
        let body = match like {
            Some(like) => json!({"name": name, "like": self.id(like)}),
            None => json!({"name": name, "spec": format!("{more}{}", self.spec())}),
        };
        let subject = like.map(|like| (self.cluster.as_str(), self.id(like)));
        let installation = self.store.installation_id();
        let path = "/api/v1/instances";
        let request = Signed::new(&self.owner, installation, subject, "POST", path, body.to_string());
        let created = request.accepted(self.nodes[node].api).await;
        self.cluster = text(&created, "cluster_id");
        self.places.insert(name.into(), Place { id: text(&created, "instance_id"), node });
    }

    fn spec(&self) -> String {
        let (kernel, disk) = (self.dir.path().join("kernel"), self.dir.path().join("root.raw"));
        std::fs::write(&kernel, "a kernel").expect("write");
        let file = File::create(&disk).expect("create");
        file.set_len(DISK_BYTES).expect("set length");
        for page in 0..16 {
            file.write_all_at(&noise(1000 + page), page * 3 * PAGE).expect("write");
        }
        let memory = MEMORY_BYTES >> 20;
        format!(
            "vmm = \"qemu\"\nmemory = \"{memory}MiB\"\nkernel = {kernel:?}\n[[disk]]\nname = \"root\"\npath = {disk:?}\n"
        )
    }

    pub(crate) fn id(&self, name: &str) -> &str {
        &self.places[name].id
    }

    pub(crate) fn node(&self, name: &str) -> &Node {
        &self.nodes[self.places[name].node]
    }

    pub(crate) fn node_mut(&mut self, name: &str) -> &mut Node {
        &mut self.nodes[self.places[name].node]
    }

    /// The API of the node that hosts an instance.
    pub(crate) fn api(&self, name: &str) -> std::net::SocketAddr {
        self.node(name).api
    }

    /// A POST about an instance, signed by the owner, without a body.
    pub(crate) fn post(&self, name: &str, path: &str) -> Signed {
        self.signed(name, path, "")
    }

    pub(crate) fn signed(&self, name: &str, path: &str, body: &str) -> Signed {
        let subject = Some((self.cluster.as_str(), self.id(name)));
        Signed::new(&self.owner, self.store.installation_id(), subject, "POST", path, body.into())
    }

    pub(crate) fn commit_request(&self, name: &str, more: Value) -> Signed {
        let mut body = json!({"id": self.id(name), "description": format!("from {name}")});
        let more = more.as_object().cloned().unwrap_or_default();
        body.as_object_mut().expect("an object").extend(more);
        self.signed(name, "/api/v1/commit", &body.to_string())
    }

    /// Begins a commit of the whole cluster; the attempt's id.
    pub(crate) async fn begin(&self, name: &str) -> String {
        let accepted = self.commit_request(name, Value::Null).accepted(self.api(name)).await;
        serde_json::from_value::<CommitAccepted>(accepted).expect("accepted").attempt_id
    }

    /// Commits from an instance to its whole cluster, and waits until that has ended and everything is in order.
    pub(crate) async fn commit(&self, name: &str) -> Ended {
        let attempt = self.begin(name).await;
        self.end_of(name, attempt).await
    }

    /// The end of an attempt that began from an instance.
    pub(crate) async fn end_of(&self, name: &str, attempt: String) -> Ended {
        let ending = tokio::time::timeout(PATIENCE, events(self.api(name), &attempt)).await;
        let events = ending.expect("the attempt ends");
        self.in_order().await;
        Ended { attempt, events }
    }

    pub(crate) async fn instance(&self, name: &str) -> InstanceRecord {
        self.store.instance(self.id(name)).await.expect("read").expect("a record")
    }

    pub(crate) async fn attempt(&self, attempt: &str) -> AttemptRecord {
        self.store.attempt(attempt).await.expect("read").expect("a record")
    }

    /// As [`Scene::commit_request`], sent until it is not in conflict with what is still being undone.
    pub(crate) async fn until_accepted(&self, name: &str, more: Value) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let (status, json) = self.commit_request(name, more.clone()).send(self.api(name)).await;
            if status.is_success() {
                return json;
            }
            assert!(text(&json, "code") == "conflict" && Instant::now() < until, "{json}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the processes of an instance do.
    pub(crate) fn states(&self, name: &str) -> Vec<VmState> {
        let processes = self.vmm.processes();
        processes.into_iter().filter(|(machine, _, _)| machine == name).map(|(_, state, _)| state).collect()
    }

    /// Waits until an instance has this many processes, all in that state.
    pub(crate) async fn wait_for_state(&self, name: &str, state: VmState, count: usize) {
        self.wait_for(&format!("{count} processes of {name}: {state:?}"), async || {
            self.states(name) == vec![state; count]
        })
        .await;
    }

    pub(crate) async fn wait_for_outcome(&self, attempt: &str, outcome: &str) {
        self.wait_for(&format!("attempt {attempt} is {outcome}"), async || {
            format!("{:?}", self.attempt(attempt).await.state).to_lowercase() == outcome
        })
        .await;
    }

    /// Waits until all of these have durably come that far.
    pub(crate) async fn wait_for_step(&self, names: &[&str], step: Step) {
        self.wait_for(&format!("{names:?} are at {step:?}"), async || {
            names.iter().all(|name| self.node(name).step(self.id(name)) == Some(step))
        })
        .await;
    }

    pub(crate) async fn wait_until_settled(&self, attempt: &str) {
        self.wait_for("everyone has acknowledged", async || self.attempt(attempt).await.is_settled()).await;
    }

    /// The cluster's record as it is in the store.
    pub(crate) async fn cluster_record(&self) -> Vec<u8> {
        let key = format!("clusters/{}", self.cluster);
        self.store.kv().get(&key).await.expect("read").expect("a record").value
    }

    pub(crate) async fn put_cluster_record(&self, value: &[u8]) {
        let put = Op::Put { key: format!("clusters/{}", self.cluster), value: value.to_owned(), lease: None };
        self.store.kv().txn(vec![], vec![put]).await.expect("write");
    }

    pub(crate) async fn wait_for(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < until, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the lease that the cluster's lock hangs on, as time would.
    pub(crate) async fn expire_lock(&self) {
        assert!(self.expire_lock_if_any().await, "there is no lock");
    }

    /// As [`Scene::expire_lock`]; false if nobody holds it.
    pub(crate) async fn expire_lock_if_any(&self) -> bool {
        let lock = self.store.kv().get(&format!("locks/{}", self.cluster)).await.expect("get");
        let Some(lock) = lock else { return false };
        self.store.kv().revoke(lock.lease.expect("a lease")).await.expect("revoke");
        true
    }

    /// begin(A) in the store alone, in the name of the node that hosts an instance; the attempt's id.
    pub(crate) async fn begin_by_hand(&self, name: &str, participants: Vec<ParticipantRecord>) -> String {
        let record = self.instance(name).await;
        let cluster = self.store.cluster(&self.cluster).await.expect("read").expect("a cluster");
        let request = BeginRequest {
            cluster_id: self.cluster.clone(),
            source_instance: record.instance_id,
            parent: cluster.head,
            request_hash: hex::encode(&noise(cluster.epoch)[..32]),
            coordinator: record.node_id,
            participants,
            membership_rev: cluster.membership_rev,
            began_ms: now_ms(),
            lease: Duration::from_secs(600),
        };
        match self.store.begin(&request).await.expect("begin") {
            Begin::Begun { attempt } => attempt.attempt_id,
            other => panic!("not begun: {other:?}"),
        }
    }

    pub(crate) async fn head(&self) -> String {
        self.store.cluster(&self.cluster).await.expect("read").expect("a cluster").head.expect("a head")
    }

    /// The one directory of the VM that an instance is.
    pub(crate) fn live_dir(&self, name: &str) -> PathBuf {
        let dir = format!("instances/{}", self.id(name));
        match self.node(name).names(&dir).as_slice() {
            [live] => self.node(name).data.join(dir).join(live),
            several => panic!("{name} has not one VM: {several:?}"),
        }
    }

    pub(crate) fn live(&self, name: &str, artifact: &str) -> PathBuf {
        self.live_dir(name).join(format!("{artifact}.img"))
    }

    /// What a running guest does: it writes a page of its memory or disk.
    pub(crate) fn poke(&self, name: &str, artifact: &str, page: u64, seed: u64) {
        write_page(&self.live(name, artifact), page, seed);
    }

    /// The base image of an artifact at the node of an instance; there is one.
    pub(crate) async fn base(&self, name: &str, artifact: &str) -> PathBuf {
        let head = self.store.commit_record(&self.head().await).await.expect("read").expect("the head");
        let commit = form_transport::Commit::decode(&head.bytes).expect("a commit");
        let root = commit.artifacts.iter().find(|a| a.name == artifact).expect("an artifact").root;
        self.base_dir(name).join(format!("{root}.img"))
    }

    /// Where the standbys of an instance are.
    pub(crate) fn standby_dir(&self, name: &str) -> PathBuf {
        self.node(name).data.join("standby").join(self.id(name))
    }

    /// Waits until the standbys of an instance are all at the head; those of one artifact.
    pub(crate) async fn standbys(&self, name: &str, artifact: &str) -> [PathBuf; 2] {
        for artifact in ["memory", "root"] {
            let base = self.base(name, artifact).await;
            let root = base.file_stem().and_then(|root| root.to_str()).expect("a root").to_owned();
            // Magic, version, clean.
            let clean = [&b"fmSB\x01\0\x01\0"[..], &hex::decode(root).expect("hex")].concat();
            self.wait_for(&format!("standbys of {name}'s {artifact} at the head"), async || {
                let records = [0, 1].map(|slot| self.standby_dir(name).join(format!("{artifact}.{slot}.img.record")));
                let clean = clean.clone();
                // A disk may keep us waiting, and we are not to keep others.
                let read =
                    move || records.iter().all(|record| std::fs::read(record).is_ok_and(|r| r.starts_with(&clean)));
                tokio::task::spawn_blocking(read).await.expect("no panic")
            })
            .await;
        }
        [0, 1].map(|slot| self.standby_dir(name).join(format!("{artifact}.{slot}.img")))
    }

    /// From now on an instance has no standbys.
    pub(crate) fn no_standbys(&self, name: &str) {
        let dir = self.standby_dir(name);
        // The node may be making one.
        while File::create_new(&dir).is_err() {
            let _ = std::fs::remove_dir_all(&dir);
        }
    }

    pub(crate) fn base_dir(&self, name: &str) -> PathBuf {
        self.node(name).data.join("clusters").join(&self.cluster).join("base")
    }

    /// Every instance runs exactly the head, its node has the bases of the head alone, and the records say so.
    pub(crate) async fn all_run_the_head(&self, names: &[&str]) {
        let head = self.head().await;
        for name in names {
            let mut bases = self.node(name).names(&format!("clusters/{}/base", self.cluster));
            // Lists of blocks are hints, made at leisure; one may be being written just now.
            bases.retain(|file| !file.contains(".blocks"));
            assert_eq!(bases.len(), 2 * ARTIFACTS.len(), "bases of {name}: {bases:?}");
            for artifact in ["memory", "root"] {
                let (live, base) = (self.live(name, artifact), self.base(name, artifact).await);
                assert!(same(&live, &base), "{artifact} of {name} is not the head's");
            }
            let record = self.instance(name).await;
            assert_eq!(record.current_commit.as_deref(), Some(head.as_str()), "{name}");
            assert_eq!(record.metadata.annotations.build_commit.as_deref(), Some(head.as_str()), "{name}");
            assert_eq!(record.history().next().map(|s| s.snapshot_id.as_str()), Some(head.as_str()), "{name}");
            assert_eq!(record.history().next().map(|s| s.timestamp), Some(record.last_snapshot), "{name}");
        }
    }

    /// A VM that was lost with its host outside of an attempt is its user's to start again. Those that were.
    pub(crate) async fn run_again<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        let mut booted = Vec::new();
        for name in names {
            let settled = async || self.node(name).step(self.id(name)).is_none();
            self.wait_for(&format!("{name} is in no attempt"), settled).await;
            if self.instance(name).await.status == InstanceStatus::Killed && self.states(name).is_empty() {
                self.post(name, &format!("/api/v1/instances/{name}/start")).accepted(self.api(name)).await;
                booted.push(*name);
            }
            self.wait_for_state(name, VmState::Running, 1).await;
        }
        booted
    }

    /// The attempt that the cluster is locked for.
    pub(crate) async fn attempt_under_way(&self) -> Option<String> {
        let attempts = self.store.unsettled_attempts().await.expect("read");
        let pending = |attempt: &&AttemptRecord| attempt.state == form_node::store::AttemptState::Pending;
        attempts.iter().find(pending).map(|attempt| attempt.attempt_id.clone())
    }

    /// Waits until nothing is left of any attempt: each instance is one running VM in one directory, and staging is empty.
    /// Of a node that does not run only the processes count.
    pub(crate) async fn in_order(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = self.residue();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left over: {left:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Each instance is one VM, which runs. Asks no disk: one that has lost its power does not answer.
    pub(crate) async fn each_is_one_vm(&self) {
        while self.vms().iter().any(|(_, found, wanted)| found.len() != *wanted) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn residue(&self) -> Vec<String> {
        let mut found = self.vms();
        for node in self.nodes.iter().filter(|node| node.runs()) {
            found.push((format!("staging of node {}", node.number), node.names("staging"), 0));
        }
        for (name, place) in &self.places {
            let node = &self.nodes[place.node];
            if node.runs() {
                found.push((format!("VMs of {name}"), node.names(&format!("instances/{}", place.id)), 1));
            }
        }
        found.retain(|(_, names, wanted)| names.len() != *wanted);
        found.into_iter().map(|(what, names, wanted)| format!("{what}: {names:?}, not {wanted}")).collect()
    }

    /// What there is of VMs, and how many of it there should be.
    fn vms(&self) -> Vec<(String, Vec<String>, usize)> {
        let mut found = vec![("VMs that ran twice at once".into(), self.vmm.twins(), 0)];
        let processes = self.vmm.processes();
        for name in self.places.keys() {
            let own = processes.iter().filter(|(machine, _, _)| machine == name);
            let (running, others): (Vec<_>, Vec<_>) =
                own.partition(|(_, state, link_up)| *state == VmState::Running && *link_up);
            let text = |some: Vec<_>| some.iter().map(|process| format!("{process:?}")).collect::<Vec<_>>();
            found.push((format!("running processes of {name}"), text(running), 1));
            found.push((format!("other processes of {name}"), text(others), 0));
        }
        found
    }
}

pub(crate) fn text(json: &Value, field: &str) -> String {
    json[field].as_str().unwrap_or_else(|| panic!("no {field} in {json}")).into()
}
