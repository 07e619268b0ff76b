//! begin, commit and abort, one at a time.

use std::time::Duration;

use form_node::store::{Abort, AttemptState, Begin, BeginRequest, Commit, Confirm, Join, Outcome, Refusal, Store};

use crate::scene::{CLUSTER, LONG, begun, cluster, commit_id, expire_lock, id, instance, request, store};

#[tokio::test]
async fn a_commit_moves_the_head_and_settles_when_all_have_heard() {
    let (_dir, store) = store().await;
    cluster(&store, 3).await;
    let attempt = begun(&store, "r1").await;
    assert_eq!(store.outcome(&attempt).await.expect("outcome"), Outcome::Pending);
    let record = store.cluster(CLUSTER).await.expect("read").expect("cluster");
    assert_eq!((record.epoch, record.pending.as_deref(), record.head), (1, Some(attempt.as_str()), None));
    assert!(!store.acknowledge(&attempt, &id(1)).await.expect("acknowledge"), "nothing to acknowledge yet");

    assert_eq!(store.commit(&attempt, &commit_id(1), b"bytes").await.expect("commit"), Commit::Committed);
    assert_eq!(store.outcome(&attempt).await.expect("outcome"), Outcome::Committed { commit_id: commit_id(1) });
    let record = store.cluster(CLUSTER).await.expect("read").expect("cluster");
    assert_eq!((record.epoch, record.pending, record.head), (1, None, Some(commit_id(1))));
    let commit = store.commit_record(&commit_id(1)).await.expect("read").expect("commit");
    assert_eq!((commit.bytes.as_slice(), commit.attempt_id.as_str()), (b"bytes".as_slice(), attempt.as_str()));
    assert!(store.kv().get(&format!("locks/{CLUSTER}")).await.expect("get").is_none(), "unlocked");

    for (n, settled) in [(1, false), (2, false), (2, false), (3, true)] {
        assert_eq!(store.unsettled_attempts().await.expect("list").len(), 1);
        assert_eq!(store.acknowledge(&attempt, &id(n)).await.expect("acknowledge"), settled, "{n}");
    }
    assert_eq!(store.unsettled_attempts().await.expect("list").len(), 0);
    assert!(store.attempt(&attempt).await.expect("read").expect("kept").is_settled());
}

#[tokio::test]
async fn begin_freezes_what_it_was_given() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let asked = request(&store, "r1").await;
    let Begin::Begun { attempt } = store.begin(&asked).await.expect("begin") else { panic!("begun") };
    assert_eq!(store.attempt(&attempt.attempt_id).await.expect("read").as_ref(), Some(&*attempt));
    assert_eq!(attempt.attempt_id.len(), 32);
    assert_eq!((attempt.epoch, attempt.state, attempt.commit_id), (1, AttemptState::Pending, None));
    assert_eq!((&attempt.participants, attempt.membership_rev), (&asked.participants, 2));
    assert_eq!((attempt.coordinator.as_str(), attempt.began_ms), ("node-1", 5_000));
}

#[tokio::test]
async fn the_same_request_is_the_same_attempt_for_ever() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let asked = request(&store, "r1").await;
    let attempt = begun(&store, "r1").await;
    let again = Begin::AlreadySeen { attempt_id: attempt.clone() };
    assert_eq!(store.begin(&asked).await.expect("begin"), again, "pending");
    store.commit(&attempt, &commit_id(1), b"").await.expect("commit");
    assert_eq!(store.begin(&asked).await.expect("begin"), again, "committed");
    assert_eq!(store.epoch(CLUSTER).await.expect("epoch"), 1);
}

#[tokio::test]
async fn a_request_that_began_nothing_begins_nothing_later() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    assert!(store.note_request("r1", 5).await.expect("note"));
    assert!(!store.note_request("r1", 6).await.expect("note"));
    assert_eq!(store.noted_ms("r1").await.expect("read"), Some(5));
    assert_eq!(store.noted_ms("r0").await.expect("read"), None);
    assert_eq!(store.begin(&request(&store, "r1").await).await.expect("begin"), Begin::Replayed);
    begun(&store, "r2").await;
    assert!(!store.note_request("r2", 6).await.expect("note"), "one that began an attempt was made too");
}

#[tokio::test]
async fn one_attempt_at_a_time() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let first = begun(&store, "r1").await;
    let second = request(&store, "r2").await;
    assert_eq!(store.begin(&second).await.expect("begin"), Begin::Busy { attempt_id: first.clone() });
    assert_eq!(store.abort(&first, "node-1").await.expect("abort"), Abort::Aborted);
    assert!(matches!(store.begin(&second).await.expect("begin"), Begin::Begun { .. }), "busy was not for ever");
    assert_eq!(store.epoch(CLUSTER).await.expect("epoch"), 2);
}

#[tokio::test]
async fn another_head_is_a_conflict_that_names_the_winner() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let stale = request(&store, "r2").await;
    let attempt = begun(&store, "r1").await;
    store.commit(&attempt, &commit_id(1), b"").await.expect("commit");
    let moved = Begin::HeadMoved { head: Some(commit_id(1)) };
    assert_eq!(store.begin(&stale).await.expect("begin"), moved);
    // The parent is right, but the source has not got there itself.
    let ahead = BeginRequest { parent: Some(commit_id(1)), ..stale.clone() };
    assert_eq!(store.begin(&ahead).await.expect("begin"), moved);
    store.record_snapshot(&id(1), &commit_id(1), 2_000, None).await.expect("record");
    // The source has, but was asked for when it stood on another.
    assert_eq!(store.begin(&stale).await.expect("begin"), moved);
    assert!(matches!(store.begin(&ahead).await.expect("begin"), Begin::Begun { .. }));
}

#[tokio::test]
async fn participants_of_another_membership_are_refused() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    let before = request(&store, "r1").await;
    assert!(matches!(store.join_cluster(&instance(2)).await.expect("join"), Join::Joined { .. }));
    assert_eq!(store.begin(&before).await.expect("begin"), Begin::MembershipChanged);
}

#[tokio::test]
async fn an_expired_lock_lets_the_next_one_abort_the_earlier() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let first = begun(&store, "r1").await;
    expire_lock(&store).await;
    assert_eq!(store.outcome(&first).await.expect("outcome"), Outcome::Pending, "expiry alone decides nothing");
    let second = begun(&store, "r2").await;
    assert_eq!(store.outcome(&first).await.expect("outcome"), Outcome::Aborted);
    let refused = store.commit(&first, &commit_id(1), b"").await.expect("commit");
    assert_eq!(refused, Commit::Refused(Refusal::Aborted), "the slow coordinator is too late");
    assert_eq!(store.commit(&second, &commit_id(2), b"").await.expect("commit"), Commit::Committed);
    let unsettled = store.unsettled_attempts().await.expect("list");
    assert_eq!(unsettled.iter().map(|a| &a.attempt_id).collect::<Vec<_>>(), [&second]);
}

#[tokio::test]
async fn an_expired_lock_alone_does_not_stop_a_commit() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let attempt = begun(&store, "r1").await;
    expire_lock(&store).await;
    assert_eq!(store.commit(&attempt, &commit_id(1), b"").await.expect("commit"), Commit::Committed);
}

#[tokio::test]
async fn only_the_coordinator_aborts_while_its_lock_lives() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let attempt = begun(&store, "r1").await;
    let held = Abort::Held { coordinator: "node-1".into() };
    assert_eq!(store.abort(&attempt, "node-2").await.expect("abort"), held);
    assert_eq!(store.outcome(&attempt).await.expect("outcome"), Outcome::Pending);
    expire_lock(&store).await;
    assert_eq!(store.abort(&attempt, "node-2").await.expect("abort"), Abort::Aborted);
    assert_eq!(store.cluster(CLUSTER).await.expect("read").expect("cluster").pending, None);
}

#[tokio::test]
async fn the_first_decision_stands() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let attempt = begun(&store, "r1").await;
    store.commit(&attempt, &commit_id(1), b"").await.expect("commit");
    let late = Abort::AlreadyCommitted { commit_id: commit_id(1) };
    assert_eq!(store.abort(&attempt, "node-1").await.expect("abort"), late);
    assert_eq!(store.commit(&attempt, &commit_id(1), b"").await.expect("again"), Commit::Committed);
    let other = Commit::Refused(Refusal::OtherCommit { commit_id: commit_id(1) });
    assert_eq!(store.commit(&attempt, &commit_id(2), b"").await.expect("other"), other);

    store.record_snapshot(&id(1), &commit_id(1), 2_000, None).await.expect("record");
    let attempt = begun(&store, "r2").await;
    assert_eq!(store.abort(&attempt, "node-1").await.expect("abort"), Abort::Aborted);
    assert_eq!(store.abort(&attempt, "node-1").await.expect("again"), Abort::Aborted);
    let refused = store.commit(&attempt, &commit_id(2), b"").await.expect("commit");
    assert_eq!(refused, Commit::Refused(Refusal::Aborted));
    assert_eq!(store.cluster(CLUSTER).await.expect("read").expect("cluster").head, Some(commit_id(1)));
    assert_eq!(store.commit_record(&commit_id(2)).await.expect("read"), None);
}

#[tokio::test]
async fn what_never_began_is_aborted() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    assert_eq!(store.outcome("never").await.expect("outcome"), Outcome::Aborted);
    assert_eq!(store.abort("never", "node-1").await.expect("abort"), Abort::Aborted);
    let refused = store.commit("never", &commit_id(1), b"").await.expect("commit");
    assert_eq!(refused, Commit::Refused(Refusal::Aborted));
    assert_eq!(store.outcome("never").await.expect("outcome"), Outcome::Aborted, "no call made a record");
}

#[tokio::test]
async fn a_member_that_comes_after_begin_voids_the_attempt() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    let attempt = begun(&store, "r1").await;
    let busy = Join::Busy { attempt_id: attempt.clone() };
    assert_eq!(store.join_cluster(&instance(2)).await.expect("join"), busy, "as long as the lock lives");
    expire_lock(&store).await;
    assert_eq!(store.join_cluster(&instance(2)).await.expect("join"), Join::Joined { membership_rev: 2 });
    let refused = store.commit(&attempt, &commit_id(1), b"").await.expect("commit");
    assert_eq!(refused, Commit::Refused(Refusal::MembershipChanged));
    assert_eq!(store.outcome(&attempt).await.expect("outcome"), Outcome::Pending, "refused is not yet aborted");
}

#[tokio::test]
async fn a_lease_is_confirmed_by_writing() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let attempt = begun(&store, "r1").await;
    let revision = async |store: &Store| store.kv().list("").await.expect("list").revision;
    let before = revision(&store).await;
    let confirmed = store.confirm_lease(&attempt, Duration::from_secs(60)).await.expect("confirm");
    assert!(matches!(confirmed, Confirm::Confirmed { left } if left <= LONG), "{confirmed:?}");
    assert_eq!(revision(&store).await, before + 1, "a real write");
    assert!(store.keep_lock(&attempt).await.expect("keep"));
    assert_eq!(store.confirm_lease(&attempt, LONG * 2).await.expect("confirm"), Confirm::Lost, "too little is left");

    expire_lock(&store).await;
    assert!(!store.keep_lock(&attempt).await.expect("keep"));
    assert_eq!(store.confirm_lease(&attempt, Duration::ZERO).await.expect("confirm"), Confirm::Lost);
    let second = begun(&store, "r2").await;
    assert_eq!(store.confirm_lease(&attempt, Duration::ZERO).await.expect("confirm"), Confirm::Lost, "another's lock");
    store.commit(&second, &commit_id(2), b"").await.expect("commit");
    assert_eq!(store.confirm_lease(&second, Duration::ZERO).await.expect("confirm"), Confirm::Lost, "decided");
}

#[tokio::test]
async fn whoever_waits_hears_the_decision() {
    let (_dir, store) = store().await;
    cluster(&store, 2).await;
    let attempt = begun(&store, "r1").await;
    let waiting = tokio::spawn({
        let (store, attempt) = (store.clone(), attempt.clone());
        async move { store.decided(&attempt).await }
    });
    store.commit(&attempt, &commit_id(1), b"").await.expect("commit");
    let heard = waiting.await.expect("task").expect("decided");
    assert_eq!(heard, Outcome::Committed { commit_id: commit_id(1) });
    assert_eq!(store.decided("never").await.expect("decided"), Outcome::Aborted);
}
