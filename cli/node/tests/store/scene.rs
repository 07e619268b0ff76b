//! A cluster of instances, and attempts on it.

use std::sync::Arc;
use std::time::Duration;

use form_node::auth::{Address, SigningKey};
use form_node::store::{
    Begin, BeginRequest, CreateInstance, InstanceRecord, Join, Kv, ParticipantRecord, SqliteKv, Store,
};

pub(crate) const LONG: Duration = Duration::from_secs(600);
pub(crate) const CLUSTER: &str = "c000000000000000000000000000000000000000";

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32]).expect("a key")
}

pub(crate) fn owner() -> Address {
    key(1).address()
}

pub(crate) fn id(n: u32) -> String {
    format!("{n:040x}")
}

pub(crate) fn commit_id(n: u32) -> String {
    format!("{n:064x}")
}

/// A store in a file of its own.
pub(crate) async fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("tempdir");
    let kv: Arc<dyn Kv> = Arc::new(SqliteKv::open(&dir.path().join("state.db")).await.expect("open"));
    (dir, Store::over(kv).await.expect("store"))
}

/// An instance of [`CLUSTER`] on node `node-<n>`.
pub(crate) fn instance(n: u32) -> InstanceRecord {
    InstanceRecord::new(&id(n), &format!("vm-{n}"), &format!("node-{n}"), CLUSTER, owner(), 1_000)
}

/// A cluster of `members` instances, numbered from 1.
pub(crate) async fn cluster(store: &Store, members: u32) {
    assert_eq!(store.create_instance(instance(1)).await.expect("create"), CreateInstance::Created);
    for n in 2..=members {
        let joined = store.join_cluster(&instance(n)).await.expect("join");
        assert_eq!(joined, Join::Joined { membership_rev: u64::from(n) });
    }
}

/// A commit from instance 1, as its node asks for it.
pub(crate) async fn request(store: &Store, hash: &str) -> BeginRequest {
    let cluster = store.cluster(CLUSTER).await.expect("read").expect("cluster");
    let source = store.instance(&id(1)).await.expect("read").expect("source");
    let participants = cluster.members.values().map(|m| ParticipantRecord {
        instance_id: m.instance_id.clone(),
        node_id: m.node_id.clone(),
        lifecycle_generation: 0,
    });
    BeginRequest {
        cluster_id: CLUSTER.into(),
        source_instance: source.instance_id,
        parent: source.current_commit,
        request_hash: hash.into(),
        coordinator: source.node_id,
        participants: participants.collect(),
        membership_rev: cluster.membership_rev,
        began_ms: 5_000,
        lease: LONG,
    }
}

/// Begins a commit from instance 1 and gives the attempt's id.
pub(crate) async fn begun(store: &Store, hash: &str) -> String {
    match store.begin(&request(store, hash).await).await.expect("begin") {
        Begin::Begun { attempt } => attempt.attempt_id,
        other => panic!("not begun: {other:?}"),
    }
}

/// Ends the lease that the cluster's lock hangs on, as time would.
pub(crate) async fn expire_lock(store: &Store) {
    let lock = store.kv().get(&format!("locks/{CLUSTER}")).await.expect("get").expect("a lock");
    store.kv().revoke(lock.lease.expect("a lease")).await.expect("revoke");
}
