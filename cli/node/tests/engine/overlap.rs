//! Attempts that meet.

use form_node::ErrorCode;
use form_vmm_hooks::fake::Step;
use serde_json::{Value, json};

use crate::hooks::{Point, vm};
use crate::scene::{Scene, text};

/// A commit can begin before every participant of the last one has got to say that it is done.
#[tokio::test]
async fn a_commit_begins_while_the_last_one_is_being_acknowledged() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    scene.poke("a", "memory", 10, 1);
    let late = scene.hooks.hold(Point::Write(1, "attempts/"));
    let first = scene.begin("a").await;
    late.reached().await;
    scene.wait_for("all but b are through", async || scene.attempt(&first).await.acknowledged.len() == 2).await;
    scene.hooks.act(Point::Host(1), || {});
    let staging = scene.hooks.hold(Point::Host(1));
    let accepted = scene.until_accepted("c", Value::Null).await;
    staging.reached().await;
    late.release();
    scene.wait_until_settled(&first).await;
    staging.release();
    scene.end_of("c", text(&accepted, "attempt_id")).await.committed();
    scene.end_of("a", first).await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
}

/// What is aborted during its capture leaves nothing, and the source is not captured twice at once.
async fn out_of_time_at(point: Point) {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    let hold = scene.hooks.hold(point);
    let request = scene.commit_request("a", json!({"timeout_s": 3}));
    let attempt = text(&request.accepted(scene.api("a")).await, "attempt_id");
    hold.reached().await;
    // The guest may be paused just now: that is no reason to call it stopped.
    let busy = scene.commit_request("a", Value::Null).refused(scene.api("a")).await;
    assert_eq!((busy.code, busy.message.contains(&attempt)), (ErrorCode::Conflict, true), "{}", busy.message);
    scene.wait_for_outcome(&attempt, "aborted").await;
    let busy = scene.commit_request("a", Value::Null).refused(scene.api("a")).await;
    assert_eq!(busy.code, ErrorCode::Conflict);
    assert!(busy.message.contains(&attempt), "{}", busy.message);
    hold.release();
    scene.end_of("a", attempt).await.failed_with(ErrorCode::Aborted, &["not committed within 3 s"]);
    assert_eq!(scene.hooks.left(), []);
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}

#[tokio::test]
async fn promise_10_an_attempt_that_runs_out_of_time_during_its_capture() {
    tokio::join!(out_of_time_at(vm("a", Step::CaptureStop)), out_of_time_at(vm("a", Step::CaptureState)));
}
