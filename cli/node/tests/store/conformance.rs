//! What every backend must do.

use std::time::Duration;

use form_node::store::{
    Change, Compare, Error, Expect, KEY_BYTES_MAX, Kv, LeaseId, Op, TXN_PARTS_MAX, VALUE_BYTES_MAX,
};
use futures_util::StreamExt as _;

use crate::Pair;

const LONG: Duration = Duration::from_secs(600);

pub(crate) fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Op {
    Op::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease }
}

pub(crate) fn delete(key: &str) -> Op {
    Op::Delete { key: key.to_owned() }
}

pub(crate) fn expect(key: &str, expect: Expect) -> Compare {
    Compare { key: key.to_owned(), expect }
}

async fn write(kv: &dyn Kv, ops: Vec<Op>) -> i64 {
    let result = kv.txn(vec![], ops).await.expect("txn");
    assert!(result.succeeded, "no condition can fail");
    result.revision
}

async fn text(kv: &dyn Kv, key: &str) -> Option<String> {
    kv.get(key).await.expect("get").map(|e| String::from_utf8(e.value).expect("text"))
}

/// Waits for a state that a clock brings about; asserts nothing about how long it takes.
async fn until_gone(kv: &dyn Kv, key: &str) {
    while kv.get(key).await.expect("get").is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn what_is_put_is_read(pair: &Pair) {
    assert_eq!(pair.a.get("k").await.expect("get"), None);
    let revision = write(&*pair.a, vec![put("k", "v", None)]).await;
    let entry = pair.b.get("k").await.expect("get").expect("there");
    assert_eq!((entry.key.as_str(), entry.value.as_slice()), ("k", b"v".as_slice()));
    assert_eq!((entry.mod_revision, entry.lease), (revision, None));
    write(&*pair.b, vec![delete("k"), delete("never-there")]).await;
    assert_eq!(pair.a.get("k").await.expect("get"), None);
}

pub(crate) async fn a_listing_has_the_prefix_and_no_more(pair: &Pair) {
    let keys = ["a", "a/", "a/1", "a/2", "a/~", "a0", "b/1"];
    let revision = write(&*pair.a, keys.iter().map(|k| put(k, k, None)).collect()).await;
    let listing = pair.b.list("a/").await.expect("list");
    let found: Vec<_> = listing.entries.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(found, ["a/", "a/1", "a/2", "a/~"]);
    assert_eq!(listing.revision, revision);
    assert_eq!(pair.b.list("").await.expect("list").entries.len(), keys.len());
}

pub(crate) async fn absent_means_absent(pair: &Pair) {
    let create = || (vec![expect("k", Expect::Absent)], vec![put("k", "v", None)]);
    let (compares, ops) = create();
    assert!(pair.a.txn(compares, ops).await.expect("txn").succeeded);
    let (compares, ops) = create();
    assert!(!pair.b.txn(compares, ops).await.expect("txn").succeeded);
    write(&*pair.a, vec![delete("k")]).await;
    let (compares, ops) = create();
    assert!(pair.b.txn(compares, ops).await.expect("txn").succeeded, "deleted is absent");
}

pub(crate) async fn a_revision_is_compared(pair: &Pair) {
    let first = write(&*pair.a, vec![put("k", "1", None)]).await;
    let change = |to: &str| (vec![expect("k", Expect::ModRevision(first))], vec![put("k", to, None)]);
    let (compares, ops) = change("2");
    assert!(pair.a.txn(compares, ops).await.expect("txn").succeeded);
    let (compares, ops) = change("3");
    assert!(!pair.b.txn(compares, ops).await.expect("txn").succeeded);
    assert_eq!(text(&*pair.b, "k").await.as_deref(), Some("2"));
    let never = vec![expect("absent", Expect::ModRevision(first))];
    assert!(!pair.b.txn(never, vec![]).await.expect("txn").succeeded);
}

pub(crate) async fn all_of_a_transaction_or_nothing(pair: &Pair) {
    write(&*pair.a, vec![put("x", "1", None)]).await;
    let compares = vec![expect("y", Expect::Absent), expect("x", Expect::Absent)];
    let ops = vec![put("y", "2", None), delete("x")];
    assert!(!pair.a.txn(compares, ops).await.expect("txn").succeeded);
    assert_eq!(text(&*pair.b, "x").await.as_deref(), Some("1"));
    assert_eq!(text(&*pair.b, "y").await, None);
    // An error half way through leaves nothing either.
    let ops = vec![put("z", "3", None), put("w", "4", Some(LeaseId(987_654)))];
    pair.a.txn(vec![], ops).await.expect_err("no such lease");
    assert_eq!(text(&*pair.b, "z").await, None);
}

pub(crate) async fn revisions_only_grow(pair: &Pair) {
    let mut last = 0;
    for (kv, n) in [(&pair.a, 0), (&pair.b, 1), (&pair.a, 2), (&pair.b, 3)] {
        let revision = write(&**kv, vec![put("k", &n.to_string(), None), put("l", "", None)]).await;
        assert!(revision > last, "{revision} after {last}");
        for key in ["k", "l"] {
            assert_eq!(pair.a.get(key).await.expect("get").expect("there").mod_revision, revision);
        }
        last = revision;
    }
    let read = pair.a.txn(vec![expect("k", Expect::ModRevision(last))], vec![]).await.expect("txn");
    assert_eq!((read.succeeded, read.revision), (true, last), "a transaction that writes nothing is no revision");
}

pub(crate) async fn racing_writers_lose_no_update(pair: &Pair) {
    const EACH: usize = 20;
    write(&*pair.a, vec![put("n", "0", None)]).await;
    let mut tasks = Vec::new();
    for kv in [&pair.a, &pair.b, &pair.a, &pair.b] {
        let kv = kv.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..EACH {
                loop {
                    let entry = kv.get("n").await.expect("get").expect("there");
                    let n: u64 = String::from_utf8(entry.value).expect("text").parse().expect("number");
                    let compares = vec![expect("n", Expect::ModRevision(entry.mod_revision))];
                    let ops = vec![put("n", &(n + 1).to_string(), None)];
                    if kv.txn(compares, ops).await.expect("txn").succeeded {
                        break;
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("task");
    }
    assert_eq!(text(&*pair.a, "n").await, Some((4 * EACH).to_string()));
}

pub(crate) async fn a_lease_takes_its_keys_with_it(pair: &Pair) {
    let lease = pair.a.grant(LONG).await.expect("grant");
    let other = pair.a.grant(LONG).await.expect("grant");
    assert_ne!(lease, other);
    let ops = vec![put("k", "v", Some(lease)), put("l", "v", Some(lease)), put("m", "v", Some(other))];
    write(&*pair.a, ops).await;
    assert_eq!(pair.b.get("k").await.expect("get").expect("there").lease, Some(lease));
    pair.b.revoke(lease).await.expect("revoke");
    assert_eq!(text(&*pair.a, "k").await, None);
    assert_eq!(text(&*pair.a, "l").await, None);
    assert_eq!(text(&*pair.a, "m").await.as_deref(), Some("v"));
    pair.b.revoke(lease).await.expect("revoking again is no error");
}

pub(crate) async fn an_expired_lease_takes_its_keys_with_it(pair: &Pair) {
    let lease = pair.a.grant(Duration::from_millis(30)).await.expect("grant");
    write(&*pair.a, vec![put("k", "v", None)]).await;
    if pair.a.txn(vec![], vec![put("k", "v", Some(lease))]).await.is_err() {
        // Expired before it was used: a slow machine. The key must be as it was.
        assert_eq!(text(&*pair.a, "k").await.as_deref(), Some("v"));
        return;
    }
    until_gone(&*pair.b, "k").await;
    let create = pair.b.txn(vec![expect("k", Expect::Absent)], vec![put("k", "w", None)]).await.expect("txn");
    assert!(create.succeeded, "an expired key is absent for a transaction too");
    assert_eq!(pair.b.time_left(lease).await.expect("time left"), None);
}

pub(crate) async fn a_lease_that_is_kept_alive_stays(pair: &Pair) {
    let lease = pair.a.grant(LONG).await.expect("grant");
    let left = pair.b.time_left(lease).await.expect("time left").expect("alive");
    assert!(left <= LONG);
    assert_eq!(pair.b.keep_alive(lease).await.expect("keep alive"), LONG);
    assert!(pair.a.time_left(lease).await.expect("time left").is_some());
}

pub(crate) async fn a_dead_lease_is_refused(pair: &Pair) {
    let lease = pair.a.grant(LONG).await.expect("grant");
    pair.a.revoke(lease).await.expect("revoke");
    assert!(matches!(pair.b.keep_alive(lease).await, Err(Error::LeaseExpired { .. })));
    assert!(matches!(pair.b.txn(vec![], vec![put("k", "v", Some(lease))]).await, Err(Error::LeaseExpired { .. })));
    assert_eq!(pair.b.time_left(lease).await.expect("time left"), None);
    assert_eq!(text(&*pair.a, "k").await, None);
}

pub(crate) async fn a_put_without_lease_frees_the_key(pair: &Pair) {
    let lease = pair.a.grant(LONG).await.expect("grant");
    write(&*pair.a, vec![put("k", "1", Some(lease))]).await;
    write(&*pair.a, vec![put("k", "2", None)]).await;
    pair.a.revoke(lease).await.expect("revoke");
    assert_eq!(text(&*pair.b, "k").await.as_deref(), Some("2"));
}

pub(crate) async fn a_watch_sees_what_another_client_does(pair: &Pair) {
    let revision = pair.a.list("w/").await.expect("list").revision;
    let mut watch = pair.a.watch("w/", revision).await.expect("watch");
    write(&*pair.b, vec![put("elsewhere", "x", None)]).await;
    let put_at = write(&*pair.b, vec![put("w/k", "1", None)]).await;
    let seen = watch.next().await.expect("open").expect("change");
    assert_eq!(seen, Change { key: "w/k".into(), value: Some(b"1".to_vec()), revision: put_at });
    let gone_at = write(&*pair.b, vec![delete("w/k")]).await;
    let seen = watch.next().await.expect("open").expect("change");
    assert_eq!(seen, Change { key: "w/k".into(), value: None, revision: gone_at });
}

pub(crate) async fn a_watch_misses_nothing_since_its_revision(pair: &Pair) {
    let revision = pair.a.list("w/").await.expect("list").revision;
    write(&*pair.b, vec![put("w/1", "a", None)]).await;
    write(&*pair.b, vec![put("w/2", "b", None)]).await;
    let watch = pair.a.watch("w/", revision).await.expect("watch");
    let seen: Vec<_> = watch.take(2).map(|c| c.expect("change").key).collect().await;
    assert_eq!(seen, ["w/1", "w/2"]);
}

pub(crate) async fn a_watch_sees_a_lease_expire(pair: &Pair) {
    let lease = pair.b.grant(LONG).await.expect("grant");
    let revision = write(&*pair.b, vec![put("w/k", "1", Some(lease))]).await;
    let mut watch = pair.a.watch("w/", revision).await.expect("watch");
    pair.b.revoke(lease).await.expect("revoke");
    let seen = watch.next().await.expect("open").expect("change");
    assert_eq!((seen.key.as_str(), seen.value), ("w/k", None));
    // The same when nobody writes and time alone ends it.
    let lease = pair.b.grant(Duration::from_millis(200)).await.expect("grant");
    let Ok(put) = pair.b.txn(vec![], vec![put("w/l", "1", Some(lease))]).await else { return };
    let mut watch = pair.a.watch("w/", put.revision).await.expect("watch");
    let seen = watch.next().await.expect("open").expect("change");
    assert_eq!((seen.key.as_str(), seen.value), ("w/l", None));
}

pub(crate) async fn limits_come_first(pair: &Pair) {
    let too_long = "k".repeat(KEY_BYTES_MAX + 1);
    let too_large = "v".repeat(VALUE_BYTES_MAX + 1);
    let too_many: Vec<_> = (0..=TXN_PARTS_MAX).map(|n| put(&n.to_string(), "", None)).collect();
    for ops in [vec![put(&too_long, "", None)], vec![delete(&too_long)], vec![put("k", &too_large, None)], too_many] {
        assert!(matches!(pair.a.txn(vec![], ops).await, Err(Error::Limit { .. })));
    }
    assert_eq!(pair.b.list("").await.expect("list").entries, []);
    write(&*pair.a, vec![put(&too_long[1..], &too_large[1..], None)]).await;
}
