//! A step that fails on one instance: all or none of them run the commit, nothing is left, the next commit succeeds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use form_node::ErrorCode;
use form_node::store::InstanceStatus;
use form_vmm_hooks::VmState;
use form_vmm_hooks::fake::Step;
use serde_json::{Value, json};

use crate::before::Before;
use crate::client::events;
use crate::doctor;
use crate::hooks::{Point, vm};
use crate::scene::{Ended, Scene, text};

async fn three() -> Scene {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    // All have a commit that was restored, and have run since.
    scene.commit("a").await.committed();
    scene.poke("a", "memory", 20, 20);
    scene.poke("a", "root", 20, 21);
    scene.poke("b", "memory", 30, 30);
    scene
}

async fn the_next_commit_succeeds(scene: &Scene) {
    assert_eq!(scene.hooks.left(), [], "every failure has happened");
    let ended = scene.commit("a").await;
    assert_eq!(ended.committed().targets.len(), scene.places.len() - 1);
    let names: Vec<_> = scene.places.keys().map(String::as_str).collect();
    scene.all_run_the_head(&names).await;
}

#[tokio::test]
async fn promise_1_a_target_that_can_not_restore() {
    let scene = three().await;
    let before = Before::of(&scene).await;
    for step in [Step::Pause, Step::Restore] {
        scene.hooks.fail(vm("c", step));
        scene.commit("a").await.failed_with(ErrorCode::Aborted, &["target c"]);
        before.still_holds(&scene).await;
    }
    // Nor can another one at once resume what it ran: it tries again.
    scene.hooks.fail(vm("c", Step::Restore));
    scene.hooks.fail(vm("b", Step::Resume));
    scene.commit("a").await.failed_with(ErrorCode::Aborted, &["target c"]);
    before.still_holds(&scene).await;
    the_next_commit_succeeds(&scene).await;
}

/// The others do not stand still until it has undone what it could not restore.
#[tokio::test]
async fn a_target_that_can_neither_restore_nor_undo_that_holds_nobody_up() {
    let scene = three().await;
    let before = Before::of(&scene).await;
    scene.hooks.fail(vm("c", Step::Restore));
    let undo = scene.hooks.hold(vm("c", Step::Resume));
    let attempt = scene.begin("a").await;
    undo.reached().await;
    scene.wait_for_state("b", VmState::Running, 1).await;
    assert_eq!(scene.states("c"), [VmState::Paused]);
    undo.release();
    scene.end_of("a", attempt).await.failed_with(ErrorCode::Aborted, &["target c"]);
    before.still_holds(&scene).await;
    the_next_commit_succeeds(&scene).await;
}

#[tokio::test]
async fn promise_2_a_capture_that_fails() {
    let scene = three().await;
    let before = Before::of(&scene).await;
    // The last of them leaves the guest paused.
    for step in [Step::CaptureStop, Step::CaptureState, Step::CaptureResume] {
        match step {
            Step::CaptureResume => scene.vmm.fail("a", step),
            _ => scene.hooks.fail(vm("a", step)),
        }
        let ended = scene.commit("a").await;
        assert!(
            ended.failed().message.starts_with("a") || ended.failed().message.contains("of a"),
            "{:?}",
            ended.failed()
        );
        before.still_holds(&scene).await;
    }
    scene.vmm.fail("a", Step::CaptureState);
    scene.commit("a").await.failed();
    before.still_holds(&scene).await;
    the_next_commit_succeeds(&scene).await;
}

#[tokio::test]
async fn promise_2_a_guest_that_could_not_be_resumed_is_reported_and_found_again() {
    let mut scene = three().await;
    let before = Before::of(&scene).await;
    scene.vmm.fail("a", Step::CaptureResume);
    scene.hooks.fail(vm("a", Step::Resume));
    let attempt = scene.begin("a").await;
    let ended = Ended { events: events(scene.api("a"), &attempt).await, attempt };
    assert!(ended.failed().message.contains("a is STILL PAUSED"), "{:?}", ended.failed());
    assert_eq!(scene.states("a"), [VmState::Paused]);
    doctor::one_problem(&doctor::health(&scene, "a").await, &["instances: a is paused", "restart its node"]);
    // A VM that stands still outside of any attempt was left so by a daemon that is gone.
    scene.node_mut("a").restart().await;
    scene.in_order().await;
    before.still_holds(&scene).await;
    the_next_commit_succeeds(&scene).await;
}

/// Going back is resuming it: until the commit is final it is there, with its files.
#[tokio::test]
async fn promise_4_the_old_vm_is_kept_until_the_commit_is_final() {
    let scene = three().await;
    scene.poke("b", "memory", 41, 1);
    let before = Before::of(&scene).await;
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.wait_for_state("b", VmState::Paused, 2).await;
    let earlier = scene.vmm.calls().len();
    scene.vmm.fail("c", Step::Restore);
    hold.release();
    scene.end_of("a", attempt).await.failed_with(ErrorCode::Aborted, &["target c"]);
    before.still_holds(&scene).await;
    let calls = scene.vmm.calls().split_off(earlier);
    let of_b: Vec<_> = calls.into_iter().filter(|(name, _)| name == "b").map(|(_, step)| step).collect();
    assert!(!of_b.contains(&Step::Boot) && !of_b.contains(&Step::Restore), "{of_b:?}");
    assert_eq!(of_b.iter().filter(|step| **step == Step::Resume).count(), 1, "{of_b:?}");

    let hold = scene.hooks.hold(vm("b", Step::Resume));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.wait_for_outcome(&attempt, "committed").await;
    assert_eq!(scene.states("b"), [VmState::Paused; 2], "it is committed, and b has not gone on yet");
    let files = scene.node("b").names(&format!("instances/{}", scene.id("b")));
    assert_eq!(files.len(), 2, "{files:?}");
    hold.release();
    scene.end_of("a", attempt).await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
}

/// Once it is committed there is no way back: what fails is tried again.
#[tokio::test]
async fn promise_1_what_fails_after_the_commit_point_is_tried_again() {
    let scene = three().await;
    for (page, step) in [(1, Step::Resume), (2, Step::SetLink), (3, Step::Quit)] {
        scene.poke("a", "memory", 50, page);
        scene.hooks.fail(vm("b", step));
        scene.commit("a").await.committed();
        scene.all_run_the_head(&["a", "b", "c"]).await;
    }
    the_next_commit_succeeds(&scene).await;
}

#[tokio::test]
async fn promise_1_vms_that_are_lost_while_they_wait_for_the_outcome() {
    let scene = three().await;
    // Aborted: what b ran is gone, so it starts from its own disk.
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.wait_for_state("b", VmState::Paused, 2).await;
    scene.vmm.crash("b");
    scene.vmm.fail("c", Step::Restore);
    hold.release();
    scene.end_of("a", attempt).await.failed_with(ErrorCode::Aborted, &["target c"]);
    assert_eq!(scene.instance("b").await.status, InstanceStatus::Started);

    // Committed: it is restored again.
    let hold = scene.hooks.hold(Point::Written(0, "commits/"));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.vmm.crash("b");
    hold.release();
    scene.end_of("a", attempt).await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
    the_next_commit_succeeds(&scene).await;
}

#[tokio::test]
async fn promise_1_unknown_is_not_failed() {
    let scene = three().await;
    let head = scene.head().await;
    // It begins, and the answer is lost.
    scene.hooks.fail(Point::Written(0, "requests/"));
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
    // The commit is made, and the answer lost.
    scene.hooks.fail(Point::Written(0, "commits/"));
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
    assert_ne!(scene.head().await, head);
    // It is lost on the way there.
    scene.poke("a", "memory", 20, 22);
    scene.hooks.fail(Point::Write(0, "commits/"));
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
    // The answer to an abort is lost.
    let before = Before::of(&scene).await;
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.vmm.fail("c", Step::Restore);
    scene.hooks.fail(Point::Written(0, "attempts/"));
    hold.release();
    scene.end_of("a", attempt).await.failed_with(ErrorCode::Aborted, &["target c"]);
    before.still_holds(&scene).await;
    the_next_commit_succeeds(&scene).await;
}

/// Between the last `Active` and the outcome the store's loss makes everyone wait.
#[tokio::test]
async fn promise_1_a_store_that_is_away_at_the_commit_point() {
    let scene = three().await;
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.nodes.iter().for_each(|node| node.cut_off.store(true, Ordering::SeqCst));
    hold.release();
    scene.wait_for_state("c", VmState::Paused, 2).await;
    // Long enough for a first try and for the participants' own questions.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    for target in ["b", "c"] {
        assert_eq!(scene.states(target), [VmState::Paused; 2], "{target} waits, with both VMs");
    }
    scene.nodes.iter().for_each(|node| node.cut_off.store(false, Ordering::SeqCst));
    scene.end_of("a", attempt.clone()).await.committed();
    assert!(scene.attempt(&attempt).await.is_settled());
    scene.all_run_the_head(&["a", "b", "c"]).await;

    // A participant that can't reach it once it has finished says so later.
    scene.poke("a", "memory", 20, 22);
    scene.hooks.fail(Point::Write(1, "attempts/"));
    let ended = scene.commit("a").await;
    ended.committed();
    assert_eq!(scene.hooks.left(), []);
    assert!(scene.attempt(&ended.attempt).await.is_settled());
}

/// An attempt that fails leaves the source free, whatever became of a target: it can be told later.
#[tokio::test]
async fn a_target_that_is_gone_does_not_lock_the_source() {
    let mut scene = three().await;
    scene.hooks.act(Point::Host(2), || {});
    let hold = scene.hooks.hold(Point::Host(2));
    let request = scene.commit_request("a", json!({"timeout_s": 1}));
    let attempt = text(&request.accepted(scene.api("a")).await, "attempt_id");
    hold.reached().await;
    scene.node_mut("c").kill();
    scene.wait_for_outcome(&attempt, "aborted").await;
    let undone = async || scene.node("b").step(scene.id("b")).is_none();
    scene.wait_for("b has undone it", undone).await;

    let body = json!({"targets": [scene.id("b")]});
    let again = text(&scene.until_accepted("a", body).await, "attempt_id");
    scene.wait_for_outcome(&again, "committed").await;

    scene.node_mut("c").start().await;
    let ended = scene.end_of("a", attempt).await;
    assert_eq!(ended.failed().cause.as_deref(), Some("it was not committed within 1 s"));
    scene.all_run_the_head(&["a", "b"]).await;
    the_next_commit_succeeds(&scene).await;
}

#[tokio::test]
async fn a_target_that_is_down_is_named() {
    // No connection was ever made to it: then it takes less long to be sure.
    let mut scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    let before = Before::of(&scene).await;
    scene.node_mut("c").kill();
    let attempt = text(&scene.commit_request("a", Value::Null).accepted(scene.api("a")).await, "attempt_id");
    let ended = scene.end_of("a", attempt).await;
    ended.failed_with(ErrorCode::TargetUnavailable, &["target c"]);
    scene.node_mut("c").start().await;
    before.still_holds(&scene).await;
    the_next_commit_succeeds(&scene).await;
}

/// Whoever asked for a commit hangs up in the middle of the answer: what has begun goes to its end.
#[tokio::test]
async fn a_client_that_hangs_up_takes_nothing_along() {
    let scene = three().await;
    let hold = scene.hooks.hold(Point::Written(0, "requests/"));
    let (request, api) = (scene.commit_request("a", Value::Null), scene.api("a"));
    let asked = tokio::spawn(async move { request.send(api).await });
    hold.reached().await;
    asked.abort();
    assert!(asked.await.expect_err("it hung up").is_cancelled());
    // Long enough for the node to see that the connection is gone.
    tokio::time::sleep(Duration::from_millis(100)).await;
    hold.release();
    let attempt = scene.attempt_under_way().await.expect("it has begun");
    scene.wait_for_outcome(&attempt, "committed").await;
    scene.wait_until_settled(&attempt).await;
    scene.in_order().await;
    the_next_commit_succeeds(&scene).await;
}
