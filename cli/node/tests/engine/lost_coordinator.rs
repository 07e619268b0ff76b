//! The node that coordinates is lost: before the commit point the attempt is aborted, after it it is carried out.

use form_node::ErrorCode;
use form_node::api::types::AttemptView;
use form_vmm_hooks::VmState;
use form_vmm_hooks::fake::Step;
use futures_util::future::join_all;
use serde_json::Value;

use crate::client::{events, get};
use crate::hooks::{Point, vm};
use crate::scene::{Ended, Scene};

/// Where the coordinator is lost, and whether the commit point is behind it.
#[derive(Clone, Copy, Debug)]
enum Lost {
    Preflight,
    Warm,
    Capture,
    Stage,
    Activate,
    BeforeCommit,
    AfterCommit,
    Finalize,
}

const EVERYWHERE: [Lost; 8] = [
    Lost::Preflight,
    Lost::Warm,
    Lost::Capture,
    Lost::Stage,
    Lost::Activate,
    Lost::BeforeCommit,
    Lost::AfterCommit,
    Lost::Finalize,
];

impl Lost {
    fn committed(self) -> bool {
        matches!(self, Lost::AfterCommit | Lost::Finalize)
    }

    fn point(self, scene: &Scene) -> Point {
        match self {
            Lost::Preflight => Point::Host(1),
            // The parent is read for the bases that the shadows are made from.
            Lost::Warm => Point::Read(0, "commits/"),
            Lost::Capture => vm("a", Step::CaptureStop),
            Lost::Stage => {
                scene.hooks.act(Point::Host(1), || {});
                Point::Host(1)
            }
            Lost::Activate => vm("b", Step::Restore),
            Lost::BeforeCommit => Point::Write(0, "commits/"),
            Lost::AfterCommit => Point::Written(0, "commits/"),
            Lost::Finalize => vm("b", Step::Resume),
        }
    }
}

async fn lost_and_found(lost: Lost) {
    let mut scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    scene.commit("a").await.committed();
    scene.poke("a", "memory", 40, 1);
    let head = scene.head().await;
    let hold = scene.hooks.hold(lost.point(&scene));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.node_mut("a").kill();
    hold.release();
    scene.node_mut("a").start().await;
    // Whoever asks after the restart hears how it ended.
    let events = events(scene.api("a"), &attempt).await;
    scene.in_order().await;
    let ended = Ended { attempt, events };
    if lost.committed() {
        assert_ne!(scene.head().await, head, "{lost:?}");
        assert!(scene.attempt(&ended.attempt).await.is_settled(), "{lost:?}: the last event is the end");
        assert!(format!("{:?}", ended.events).contains(&scene.head().await), "{lost:?}: {:?}", ended.events);
    } else {
        ended.failed_with(ErrorCode::Aborted, &["restarted"]);
        assert_eq!(scene.head().await, head, "{lost:?}");
    }
    assert_eq!(scene.hooks.left(), [], "{lost:?}");
    scene.all_run_the_head(&["b", "c"]).await;
    scene.poke("a", "memory", 41, 2);
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn promise_1_a_coordinator_that_is_restarted_at_each_step() {
    join_all(EVERYWHERE.map(lost_and_found)).await;
}

/// An attempt, as the node of an instance tells it.
async fn view(scene: &Scene, by: &str, attempt: &str) -> AttemptView {
    let (status, json) = get(scene.api(by), &format!("/api/v1/attempts/{attempt}")).await.expect("an answer");
    assert!(status.is_success(), "{json}");
    serde_json::from_value(json).expect("a view")
}

/// Its lock runs out, and those who wait end the attempt themselves.
#[tokio::test]
async fn promise_1_a_coordinator_that_does_not_come_back() {
    let mut scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.wait_for_state("b", VmState::Paused, 2).await;
    scene.node_mut("a").kill();
    hold.release();
    scene.wait_for_state("c", VmState::Paused, 2).await;
    let coordinator = scene.node("a").id.clone();
    let pending = view(&scene, "b", &attempt).await;
    assert_eq!((pending.outcome.as_str(), pending.settled), ("pending", false));
    assert!(matches!(pending.waits_for.as_slice(), [who] if who.contains(&coordinator)), "{pending:?}");
    scene.expire_lock().await;
    scene.wait_for_outcome(&attempt, "aborted").await;
    scene.in_order().await;

    // The others can go on without it.
    let targets = serde_json::json!({"targets": [scene.id("c")]});
    let other = scene.commit_request("b", targets).accepted(scene.api("b")).await;
    scene.end_of("b", crate::scene::text(&other, "attempt_id")).await.committed();
    scene.all_run_the_head(&["b", "c"]).await;
    scene.node_mut("a").start().await;
    scene.in_order().await;
    let behind = scene.commit_request("a", Value::Null).refused(scene.api("a")).await;
    assert_eq!(behind.code, ErrorCode::Conflict, "{behind:?}");
    scene.commit("c").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
}
