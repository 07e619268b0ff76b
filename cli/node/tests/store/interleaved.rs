//! Several processes at once. Each has a connection of its own; the order is the scheduler's, what must hold is not.

use std::sync::Arc;

use form_node::store::{Abort, Begin, Commit, Kv, Outcome, SqliteKv, Store};
use proptest::prelude::*;

use crate::scene::{CLUSTER, cluster, commit_id, expire_lock, id, request, store};

/// Another process's view of the same file.
async fn beside(dir: &tempfile::TempDir) -> Store {
    let kv: Arc<dyn Kv> = Arc::new(SqliteKv::open(&dir.path().join("state.db")).await.expect("open"));
    Store::over(kv).await.expect("store")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_concurrent_begins_one_wins_and_the_other_learns_who() {
    let (dir, store) = store().await;
    cluster(&store, 3).await;
    let mut tasks = Vec::new();
    for n in 0..6 {
        let store = beside(&dir).await;
        let asked = request(&store, &format!("r{n}")).await;
        tasks.push(tokio::spawn(async move { store.begin(&asked).await.expect("begin") }));
    }
    let (mut begun, mut busy) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.expect("task") {
            Begin::Begun { attempt } => begun.push(attempt.attempt_id),
            Begin::Busy { attempt_id } => busy.push(attempt_id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(begun.len(), 1);
    assert_eq!(busy, vec![begun[0].clone(); 5]);
    assert_eq!(store.epoch(CLUSTER).await.expect("epoch"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_on_many_nodes_is_one_attempt() {
    let (dir, store) = store().await;
    cluster(&store, 2).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let store = beside(&dir).await;
        let asked = request(&store, "r").await;
        tasks.push(tokio::spawn(async move { store.begin(&asked).await.expect("begin") }));
    }
    let (mut begun, mut seen) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.expect("task") {
            Begin::Begun { attempt } => begun.push(attempt.attempt_id),
            Begin::AlreadySeen { attempt_id } => seen.push(attempt_id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(begun.len(), 1);
    assert_eq!(seen, vec![begun[0].clone(); 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_and_abort_never_both() {
    let (dir, store) = store().await;
    cluster(&store, 2).await;
    let other = beside(&dir).await;
    let mut head = None;
    for n in 0..20 {
        let Begin::Begun { attempt } = store.begin(&request(&store, &format!("r{n}")).await).await.expect("begin")
        else {
            panic!("begun")
        };
        let attempt = attempt.attempt_id;
        let commit = tokio::spawn({
            let (store, attempt) = (store.clone(), attempt.clone());
            async move { store.commit(&attempt, &commit_id(n), b"").await.expect("commit") }
        });
        let abort = tokio::spawn({
            let (store, attempt) = (other.clone(), attempt.clone());
            async move { store.abort(&attempt, "node-1").await.expect("abort") }
        });
        let committed = commit.await.expect("task") == Commit::Committed;
        let aborted = abort.await.expect("task") == Abort::Aborted;
        assert!(committed != aborted, "committed {committed}, aborted {aborted}");
        if committed {
            head = Some(commit_id(n));
            store.record_snapshot(&id(1), &commit_id(n), 2_000, None).await.expect("record");
        }
        let outcome = store.outcome(&attempt).await.expect("outcome");
        assert_eq!(matches!(outcome, Outcome::Committed { .. }), committed);
        assert_eq!(store.cluster(CLUSTER).await.expect("read").expect("cluster").head, head);
    }
}

/// What any node may do next to the one cluster.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(u8),
    Commit(u8),
    Abort { attempt: u8, by_coordinator: bool },
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u8..6).prop_map(Step::Begin),
        3 => (0_u8..6).prop_map(Step::Commit),
        2 => (0_u8..6, any::<bool>()).prop_map(|(attempt, by_coordinator)| Step::Abort { attempt, by_coordinator }),
        1 => Just(Step::Expire),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// After every step: a decision never changes, the head is the newest committed attempt's commit and its parent the
    /// one before, at most one attempt is pending, and epochs only grow.
    #[test]
    fn decisions_are_for_ever(steps in proptest::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let mut attempts: Vec<(String, Outcome)> = Vec::new();
    let (mut head, mut epoch) = (None, 0);
    for step in steps {
        let nth = |n: u8| attempts.get(usize::from(n)).map_or_else(|| "never".to_owned(), |(id, _)| id.clone());
        match step {
            Step::Begin(n) => {
                if let Begin::Begun { attempt } =
                    store.begin(&request(&store, &format!("r{n}")).await).await.expect("begin")
                {
                    assert_eq!(attempt.parent, head);
                    attempts.push((attempt.attempt_id, Outcome::Pending));
                }
            }
            Step::Commit(n) => {
                let commit = commit_id(u32::from(n) + 1);
                if store.commit(&nth(n), &commit, b"").await.expect("commit") == Commit::Committed {
                    store.record_snapshot(&id(1), &commit, 2_000, None).await.expect("record");
                }
            }
            Step::Abort { attempt, by_coordinator } => {
                let by = if by_coordinator { "node-1" } else { "node-2" };
                store.abort(&nth(attempt), by).await.expect("abort");
            }
            Step::Expire => {
                if store.kv().get(&format!("locks/{CLUSTER}")).await.expect("get").is_some() {
                    expire_lock(&store).await;
                }
            }
        }
        let record = store.cluster(CLUSTER).await.expect("read").expect("cluster");
        assert!(record.epoch >= epoch, "epochs only grow");
        epoch = record.epoch;
        let mut pending = Vec::new();
        for (attempt, was) in &mut attempts {
            let now = store.outcome(attempt).await.expect("outcome");
            assert!(*was == Outcome::Pending || *was == now, "{attempt}: {was:?} became {now:?}");
            if *was == Outcome::Pending
                && let Outcome::Committed { commit_id } = &now
            {
                let parent = store.attempt(attempt).await.expect("read").expect("record").parent;
                assert_eq!(parent, head, "compare-and-swap on the parent");
                head = Some(commit_id.clone());
            }
            if now == Outcome::Pending {
                pending.push(attempt.clone());
            }
            *was = now;
        }
        assert_eq!(record.head, head);
        assert_eq!(record.pending.as_ref(), pending.first());
        assert!(pending.len() <= 1, "{pending:?}");
    }
}
