//! The power of a host goes at each step of the protocol, on real file systems: ext4, and XFS, which shares blocks.

use form_node::store::AttemptState;
use form_vmm_hooks::fake::Step;
use futures_util::future::join_all;

use crate::client::events;
use crate::hooks::{Point, vm};
use crate::inspect;
use crate::node::Storage;
use crate::scene::Scene;
use crate::volume::Kind;

const NAMES: [&str; 2] = ["a", "b"];

/// Where it goes: what is about to happen, or has.
fn points() -> Vec<(&'static str, Point)> {
    vec![
        ("preflight", Point::Host(1)),
        ("capture", vm("a", Step::CaptureStop)),
        ("pause", vm("a", Step::CaptureState)),
        ("the old VM is paused", vm("b", Step::Pause)),
        ("restore", vm("b", Step::Restore)),
        ("commit", Point::Write(0, "commits/")),
        ("committed", Point::Written(0, "commits/")),
        ("resume", vm("b", Step::Resume)),
        ("the old VM ends", vm("b", Step::Quit)),
        ("noted", Point::Write(1, "instances/")),
        ("acknowledged", Point::Written(1, "attempts/")),
    ]
}

async fn cut_and_back(kind: Kind, victim: usize) {
    let mut scene = Scene::on(&[&[NAMES[0]], &[NAMES[1]]], Storage::Volume(kind, 320 << 20)).await;
    scene.commit("a").await.committed();
    for (page, (what, point)) in (20..).zip(points()) {
        scene.poke("a", "memory", page, page);
        scene.poke("a", "root", page, page);
        scene.poke("b", "root", inspect::TARGETS_OWN_PAGE, page);
        let head = scene.head().await;
        let hold = scene.hooks.hold(point);
        let attempt = scene.begin("a").await;
        hold.reached().await;
        scene.nodes[victim].kill();
        scene.vmm.crash(NAMES[victim]);
        scene.nodes[victim].crash(0);
        inspect::records_are_true(&scene.nodes[victim].data);
        scene.nodes[victim].start().await;
        hold.release();
        events(scene.api("a"), &attempt).await;
        let booted = scene.run_again(&NAMES).await;
        scene.in_order().await;
        let committed = scene.attempt(&attempt).await.state == AttemptState::Committed;
        println!("{kind:?}: {what}: {} loses its power: committed {committed}", NAMES[victim]);
        assert_eq!(scene.head().await != head, committed, "{what}");
        match committed && !booted.contains(&"b") {
            true => scene.all_run_the_head(&["b"]).await,
            false => inspect::disk_is_what_it_was(&scene, "b").await,
        }
        scene.nodes.iter().for_each(|node| inspect::bases_are_whole(&node.data));
        let again = scene.until_accepted("a", serde_json::Value::Null).await;
        scene.end_of("a", crate::scene::text(&again, "attempt_id")).await.committed();
        scene.all_run_the_head(&NAMES).await;
    }
}

#[tokio::test]
async fn promise_1_and_3_a_source_without_power() {
    join_all([Kind::Ext4, Kind::Xfs].map(|kind| cut_and_back(kind, 0))).await;
}

#[tokio::test]
async fn promise_1_and_3_a_target_without_power() {
    join_all([Kind::Ext4, Kind::Xfs].map(|kind| cut_and_back(kind, 1))).await;
}
