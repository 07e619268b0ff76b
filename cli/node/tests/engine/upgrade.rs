//! A host gets another version of its VMM while guests run.

use form_node::ErrorCode;

use crate::scene::Scene;

/// A device state is of the process that wrote it, not of the binary that would be started now.
#[tokio::test]
async fn a_guest_from_before_an_upgrade_is_not_taken_for_one_from_after_it() {
    let mut scene = Scene::new(&[&["a"], &["b"]]).await;
    scene.commit("a").await.committed();
    scene.vmm.upgrade("2");
    // The daemon's own restart changes nothing of that.
    for _ in 0..2 {
        scene.commit("a").await.failed_with(ErrorCode::TargetUnfit, &["target b", "another VMM"]);
        scene.node_mut("a").restart().await;
    }
    scene.post("a", "/api/v1/instances/a/stop").accepted(scene.api("a")).await;
    scene.post("a", "/api/v1/instances/a/start").accepted(scene.api("a")).await;
    scene.commit("a").await.committed();
    // b runs on the new version since: it was restored with it.
    scene.commit("b").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}

/// Between the check of the offer and the restore.
#[tokio::test]
async fn a_state_is_not_given_to_another_version_than_it_was_checked_for() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    let hold = scene.hooks.hold(crate::hooks::vm("b", form_vmm_hooks::fake::Step::Pause));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.vmm.upgrade("2");
    hold.release();
    scene.end_of("a", attempt).await.failed_with(ErrorCode::Aborted, &["got another VMM"]);
}
