//! Instances, names, clusters and nodes.

use form_node::store::{
    CreateInstance, DeleteInstance, Error, ErrorKind, InstanceRecord, InstanceStatus, Join, MEMBERS_MAX, NodeRecord,
    SNAPSHOTS_IN_RECORD_MAX, Store, check_name, normal_id,
};

use crate::scene::{CLUSTER, begun, cluster, commit_id, expire_lock, id, instance, key, owner, store};

async fn read(store: &Store, n: u32) -> InstanceRecord {
    store.instance(&id(n)).await.expect("read").expect("instance")
}

#[tokio::test]
async fn the_first_instance_makes_its_cluster_and_pins_its_owner() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    let record = store.cluster(CLUSTER).await.expect("read").expect("cluster");
    assert_eq!((record.owner, record.head, record.epoch, record.membership_rev), (owner(), None, 0, 1));
    assert_eq!(read(&store, 1).await.cluster.members, record.members);
    // Whoever joins gets the pinned owner, whatever its record says.
    let mut second = instance(2);
    second.instance_owner = key(9).address();
    assert_eq!(store.join_cluster(&second).await.expect("join"), Join::Joined { membership_rev: 2 });
    assert_eq!(read(&store, 2).await.instance_owner, owner());
}

#[tokio::test]
async fn names_are_unique_and_found() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    let mut twin = InstanceRecord::new(&id(7), "vm-1", "node-7", &id(700), owner(), 0);
    let taken = id(1);
    assert_eq!(
        store.create_instance(twin.clone()).await.expect("create"),
        CreateInstance::NameTaken { instance_id: taken.clone() }
    );
    assert_eq!(store.cluster(&id(700)).await.expect("read"), None, "nothing is left of it");
    twin.cluster_id = CLUSTER.into();
    assert_eq!(store.join_cluster(&twin).await.expect("join"), Join::NameTaken { instance_id: taken });
    let find = async |what: &str| store.find_instance(what).await.expect("find").map(|i| i.name);
    assert_eq!(find("vm-1").await.as_deref(), Some("vm-1"));
    assert_eq!(find(&id(1)).await.as_deref(), Some("vm-1"));
    assert_eq!(find(&format!("0x{}", id(0x1).to_uppercase())).await.as_deref(), Some("vm-1"));
    assert_eq!(find("vm-2").await, None);
    assert_eq!(find(&id(2)).await, None);
    store.delete_instance(&id(1)).await.expect("delete");
    assert_eq!(find("vm-1").await, None);
    cluster(&store, 1).await;
}

#[tokio::test]
async fn siblings_know_each_other() {
    let (_dir, store) = store().await;
    cluster(&store, 3).await;
    for n in 1..=3 {
        let members: Vec<_> = read(&store, n).await.cluster.members.into_keys().collect();
        assert_eq!(members, [id(1), id(2), id(3)], "{n}");
    }
    assert_eq!(store.delete_instance(&id(2)).await.expect("delete"), DeleteInstance::Deleted);
    assert_eq!(store.delete_instance(&id(2)).await.expect("again"), DeleteInstance::Deleted);
    for n in [1, 3] {
        let members: Vec<_> = read(&store, n).await.cluster.members.into_keys().collect();
        assert_eq!(members, [id(1), id(3)], "{n}");
    }
    assert_eq!(store.cluster(CLUSTER).await.expect("read").expect("cluster").membership_rev, 4);
    store.delete_instance(&id(1)).await.expect("delete");
    store.delete_instance(&id(3)).await.expect("delete");
    assert_eq!(store.cluster(CLUSTER).await.expect("read"), None, "the last one takes the cluster with it");
    assert_eq!(store.kv().list("").await.expect("list").entries.len(), 1, "only the installation is left");
}

#[tokio::test]
async fn nobody_leaves_in_the_middle_of_an_attempt() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let attempt = begun(&store, "r1").await;
    let busy = DeleteInstance::Busy { attempt_id: attempt.clone() };
    assert_eq!(store.delete_instance(&id(2)).await.expect("delete"), busy);
    expire_lock(&store).await;
    assert_eq!(store.delete_instance(&id(2)).await.expect("delete"), DeleteInstance::Deleted);
}

#[tokio::test]
async fn joining_takes_the_head_or_is_refused() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    let attempt = begun(&store, "r1").await;
    store.commit(&attempt, &commit_id(1), b"").await.expect("commit");
    store.record_snapshot(&id(1), &commit_id(1), 2_000, Some("first")).await.expect("record");
    let mut joining = instance(2);
    assert_eq!(
        store.join_cluster(&joining).await.expect("join"),
        Join::HeadMoved { head: Some(commit_id(1)) },
        "seeded before the commit"
    );
    joining.current_commit = Some(commit_id(1));
    assert_eq!(store.join_cluster(&joining).await.expect("join"), Join::Joined { membership_rev: 2 });
    let joined = read(&store, 2).await;
    assert_eq!(joined.snapshots, read(&store, 1).await.snapshots, "with its sibling's history");
    assert_eq!((joined.last_snapshot, joined.metadata.annotations.build_commit), (2_000, Some(commit_id(1))));
}

#[tokio::test]
async fn a_cluster_has_a_largest_size() {
    let (_dir, store) = store().await;
    let members = u32::try_from(MEMBERS_MAX).expect("small");
    cluster(&store, members).await;
    assert_eq!(store.join_cluster(&instance(members + 1)).await.expect("join"), Join::Full);
    assert_eq!(store.delete_instance(&id(1)).await.expect("delete"), DeleteInstance::Deleted);
}

#[tokio::test]
async fn a_commit_is_noted_once_and_never_backwards() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    for (n, description) in [(1, Some("one")), (2, None), (2, Some("late")), (1, Some("very late"))] {
        let at = 1_000 + i64::from(n);
        store.record_snapshot(&id(1), &commit_id(n), at, description).await.expect("record");
    }
    let record = read(&store, 1).await;
    let history: Vec<_> =
        record.history().map(|s| (s.snapshot_id.clone(), s.timestamp, s.description.clone())).collect();
    assert_eq!(history, [(commit_id(2), 1_002, None), (commit_id(1), 1_001, Some("one".into()))]);
    assert_eq!(record.current_commit, Some(commit_id(2)));
    assert_eq!((record.last_snapshot, record.updated_at), (1_002, 1_002));
    assert_eq!(record.metadata.annotations.build_commit, Some(commit_id(2)));
}

#[tokio::test]
async fn a_long_history_stays_readable() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    let commits = u32::try_from(SNAPSHOTS_IN_RECORD_MAX).expect("small") + 5;
    for n in 1..=commits {
        store.record_snapshot(&id(1), &commit_id(n), i64::from(n), None).await.expect("record");
    }
    let record = read(&store, 1).await;
    assert_eq!(record.history().count(), SNAPSHOTS_IN_RECORD_MAX);
    assert_eq!(record.current_commit, Some(commit_id(commits)));
}

#[tokio::test]
async fn status_and_lifecycle_change_from_the_newest_state() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    store.set_instance_status(&id(1), InstanceStatus::Started).await.expect("set");
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move { store.bump_lifecycle_generation(&id(1)).await.expect("bump") }));
    }
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.expect("task"));
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=8).collect::<Vec<u64>>(), "each got a number of its own");
    let record = read(&store, 1).await;
    assert_eq!((record.lifecycle_generation, record.status), (8, InstanceStatus::Started));
    let missing = store.set_instance_status(&id(2), InstanceStatus::Started).await.expect_err("none");
    assert!(matches!(missing, Error::Missing { .. }));
}

#[tokio::test]
async fn nodes_are_enrolled_and_forgotten() {
    let (_dir, store) = store().await;
    let mut node = NodeRecord {
        node_id: "aa".into(),
        api_addr: "127.0.0.1:1".into(),
        quic_addr: "127.0.0.1:2".into(),
        enrolled_at: 1,
        other: serde_json::Map::new(),
    };
    store.put_node(&node).await.expect("put");
    node.quic_addr = "127.0.0.1:3".into();
    store.put_node(&node).await.expect("put again");
    assert_eq!(store.nodes().await.expect("list"), [node.clone()]);
    assert_eq!(store.node("aa").await.expect("read"), Some(node));
    assert_eq!(store.node("bb").await.expect("read"), None);
    store.remove_node("aa").await.expect("remove");
    assert_eq!(store.node("aa").await.expect("read"), None);
}

#[tokio::test]
async fn a_store_url_says_what_it_is() {
    let dir = tempfile::tempdir().expect("tempdir");
    let url = format!("sqlite:{}", dir.path().join("s/state.db").display());
    let first = Store::open(&url).await.expect("open");
    let again = Store::open(&url).await.expect("open again");
    assert_eq!(first.installation_id(), again.installation_id());
    assert_eq!(first.installation_id().len(), 32);
    for bad in ["", "sqlite:", "etcd://localhost:2379", "/var/lib/form/state.db", "postgres:x"] {
        let error = Store::open(bad).await.expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::Refused, "{bad}");
    }
}

#[test]
fn names_and_ids_are_told_apart() {
    for good in ["demo-1", "a", "0", "web.prod_2", &"a".repeat(39)] {
        check_name(good).expect(good);
        assert_eq!(normal_id(good), None, "{good}");
    }
    let hex40 = "ab".repeat(20);
    for bad in ["", "-a", ".a", "A", "a b", "a/b", "ä", hex40.as_str(), &"a".repeat(64)] {
        check_name(bad).expect_err(bad);
    }
    assert_eq!(normal_id(&format!("0x{}", hex40.to_uppercase())), Some(hex40));
}
