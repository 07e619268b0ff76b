//! A node that is told to end finishes or undoes what it has in flight. It never leaves half.

use form_node::ErrorCode;
use form_node::api::types::AttemptEvent;
use form_vmm_hooks::fake::Step;
use serde_json::Value;

use crate::client::events;
use crate::hooks::{Point, vm};
use crate::scene::Scene;

#[tokio::test]
async fn before_the_commit_point_it_is_undone() {
    let mut scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    scene.commit("a").await.committed();
    scene.poke("a", "memory", 40, 1);
    let head = scene.head().await;
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    let heard = tokio::spawn({
        let (api, attempt) = (scene.api("a"), attempt.clone());
        async move { events(api, &attempt).await }
    });
    scene.node("a").tell_to_end();
    scene.wait_for_outcome(&attempt, "aborted").await;
    let late = scene.commit_request("a", Value::Null).refused(scene.api("a")).await;
    assert_eq!(late.code, ErrorCode::Unavailable, "{late:?}");
    hold.release();
    // Whoever follows it hears why, and its end.
    let heard = heard.await.expect("no panic");
    assert!(matches!(heard.last(), Some(AttemptEvent::Settled { summary: None })), "{heard:?}");
    assert!(format!("{heard:?}").contains("told to end"), "{heard:?}");
    scene.node_mut("a").ended().await.expect("it ends well");
    scene.in_order().await;
    assert_eq!(scene.head().await, head);
    scene.all_run_the_head(&["b", "c"]).await;
    scene.node_mut("a").start().await;
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn after_the_commit_point_it_is_finished() {
    let mut scene = Scene::new(&[&["a"], &["b"]]).await;
    scene.commit("a").await.committed();
    scene.poke("a", "memory", 40, 1);
    let head = scene.head().await;
    let hold = scene.hooks.hold(Point::Written(0, "commits/"));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.node("a").tell_to_end();
    hold.release();
    scene.node_mut("a").ended().await.expect("it ends well");
    // Not a moment later: all of it was waited for.
    assert!(scene.attempt(&attempt).await.is_settled());
    assert_ne!(scene.head().await, head);
    scene.in_order().await;
    scene.all_run_the_head(&["b"]).await;
    scene.node_mut("a").start().await;
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}

#[tokio::test]
async fn the_node_of_a_target_waits_for_the_outcome() {
    let mut scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.wait_for_step(&["b"], form_proto::Step::Active).await;
    scene.node("b").tell_to_end();
    hold.release();
    scene.node_mut("b").ended().await.expect("it ends well");
    assert_eq!(scene.node("b").step(scene.id("b")), None, "it has carried out the outcome");
    scene.end_of("a", attempt).await.committed();
    scene.node_mut("b").start().await;
    scene.all_run_the_head(&["a", "b", "c"]).await;
}
