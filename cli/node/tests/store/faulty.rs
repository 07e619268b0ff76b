//! A store whose answers get lost: unknown is not failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use form_node::store::{
    Abort, Begin, Change, Commit, Compare, Entry, Error, ErrorKind, Kv, LeaseId, Listing, Op, Outcome, Store, TxnResult,
};
use futures_util::stream::BoxStream;

use crate::scene::{CLUSTER, begun, cluster, commit_id, request, store};

/// Applies a transaction and loses the answer, when told to; and answers no question after that, if it is to go away.
struct Lossy {
    kv: Arc<dyn Kv>,
    lose: AtomicBool,
    goes_away: AtomicBool,
    away: AtomicBool,
}

fn lost() -> Error {
    Error::Unknown { operation: "a transaction", source: "the answer was lost".into() }
}

#[async_trait]
impl Kv for Lossy {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        if self.away.load(Ordering::SeqCst) {
            return Err(lost());
        }
        self.kv.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.kv.list(prefix).await
    }
    async fn txn(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<TxnResult, Error> {
        let result = self.kv.txn(compares, ops).await?;
        if self.lose.swap(false, Ordering::SeqCst) {
            self.away.store(self.goes_away.load(Ordering::SeqCst), Ordering::SeqCst);
            return Err(lost());
        }
        Ok(result)
    }
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.kv.grant(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.kv.keep_alive(lease).await
    }
    async fn time_left(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        self.kv.time_left(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.kv.revoke(lease).await
    }
    async fn watch(&self, prefix: &str, after: i64) -> Result<BoxStream<'static, Result<Change, Error>>, Error> {
        self.kv.watch(prefix, after).await
    }
}

async fn lossy() -> (tempfile::TempDir, Store, Arc<Lossy>) {
    let (dir, store) = store().await;
    cluster(&store, 2).await;
    let [lose, goes_away, away] = [false; 3].map(AtomicBool::new);
    let lossy = Arc::new(Lossy { kv: Arc::clone(store.kv()), lose, goes_away, away });
    let store = Store::over(lossy.clone()).await.expect("store");
    (dir, store, lossy)
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_read_as_committed() {
    let (_dir, store, lossy) = lossy().await;
    let attempt = begun(&store, "r1").await;
    lossy.lose.store(true, Ordering::SeqCst);
    let error = store.commit(&attempt, &commit_id(1), b"").await.expect_err("lost");
    assert_eq!(error.kind(), ErrorKind::Unknown);
    let committed = Outcome::Committed { commit_id: commit_id(1) };
    assert_eq!(store.outcome(&attempt).await.expect("outcome"), committed);
    assert_eq!(store.commit(&attempt, &commit_id(1), b"").await.expect("again"), Commit::Committed);
    let late = Abort::AlreadyCommitted { commit_id: commit_id(1) };
    assert_eq!(store.abort(&attempt, "node-1").await.expect("abort"), late);
}

#[tokio::test]
async fn an_abort_whose_answer_is_lost_is_read_as_aborted() {
    let (_dir, store, lossy) = lossy().await;
    let attempt = begun(&store, "r1").await;
    lossy.lose.store(true, Ordering::SeqCst);
    assert_eq!(store.abort(&attempt, "node-1").await.expect_err("lost").kind(), ErrorKind::Unknown);
    assert_eq!(store.outcome(&attempt).await.expect("outcome"), Outcome::Aborted);
}

#[tokio::test]
async fn a_begin_whose_answer_is_lost_is_read_back() {
    let (_dir, store, lossy) = lossy().await;
    let asked = request(&store, "r1").await;
    lossy.lose.store(true, Ordering::SeqCst);
    let Begin::Begun { attempt } = store.begin(&asked).await.expect("begin") else { panic!("begun") };
    assert_eq!(store.outcome(&attempt.attempt_id).await.expect("outcome"), Outcome::Pending);
    assert!(store.keep_lock(&attempt.attempt_id).await.expect("keep"), "its lock was not revoked");
}

#[tokio::test]
async fn a_begin_that_is_not_answered_at_all_is_found_by_its_request() {
    let (_dir, store, lossy) = lossy().await;
    let asked = request(&store, "r1").await;
    lossy.goes_away.store(true, Ordering::SeqCst);
    lossy.lose.store(true, Ordering::SeqCst);
    assert_eq!(store.begin(&asked).await.expect_err("lost").kind(), ErrorKind::Unknown);
    lossy.away.store(false, Ordering::SeqCst);
    let Begin::AlreadySeen { attempt_id } = store.begin(&asked).await.expect("begin") else { panic!("seen") };
    assert_eq!(store.outcome(&attempt_id).await.expect("outcome"), Outcome::Pending);
    assert_eq!(store.epoch(CLUSTER).await.expect("epoch"), 1, "one attempt");
    assert!(store.keep_lock(&attempt_id).await.expect("keep"), "its lock was not revoked");
}
