//! A file system that has no space left, a real one: before it is paused an instance says so, and after its promise it needs
//! none.

use form_node::ErrorCode;
use form_vmm_hooks::fake::Step;

use crate::before::Before;
use crate::hooks::{Point, vm};
use crate::node::Storage;
use crate::scene::{Ended, Scene};
use crate::volume::{Kind, Volume};

async fn pair() -> Scene {
    let scene = Scene::on(&[&["a"], &["b"]], Storage::Volume(Kind::Ext4, 320 << 20)).await;
    scene.commit("a").await.committed();
    (0..64).for_each(|page| scene.poke("a", "memory", 100 + page, page));
    scene
}

/// The disk of an instance's node is full from that point on; until the attempt has ended.
async fn full_from(scene: &Scene, name: &str, point: Point) -> Ended {
    let hold = scene.hooks.hold(point);
    let attempt = scene.begin("a").await;
    hold.reached().await;
    let filler = Volume::fill(&scene.node(name).data);
    hold.release();
    let ended = scene.end_of("a", attempt).await;
    std::fs::remove_file(filler).expect("remove");
    ended
}

async fn the_next_commit_succeeds(scene: &Scene) {
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}

#[tokio::test]
async fn rule_13_a_disk_that_is_full_before_the_promise() {
    let scene = pair().await;
    let before = Before::of(&scene).await;
    // The target is asked for its host's facts twice: in the preflight, and when it has the offer and begins to build.
    for name in ["b", "a"] {
        let point = Point::Host(1);
        if name == "b" {
            scene.hooks.act(Point::Host(1), || {});
        }
        let ended = full_from(&scene, name, point).await;
        let error = ended.failed();
        assert_eq!(error.code, ErrorCode::TargetUnfit, "{error:?}");
        assert!(error.remedy.as_deref().is_some_and(|remedy| remedy.contains("free some space")), "{error:?}");
        before.still_holds(&scene).await;
    }
    the_next_commit_succeeds(&scene).await;
}

#[tokio::test]
async fn rule_13_a_disk_that_is_full_after_the_promise() {
    let scene = pair().await;
    for (number, (name, point)) in
        [("b", vm("b", Step::Restore)), ("a", vm("b", Step::Restore)), ("b", Point::Written(0, "commits/"))]
            .into_iter()
            .enumerate()
    {
        scene.poke("a", "memory", 20, number as u64);
        full_from(&scene, name, point).await.committed();
        scene.all_run_the_head(&["a", "b"]).await;
    }
    the_next_commit_succeeds(&scene).await;
}
