//! A target's new VM on probation: nobody becomes what is not well, and of one that was tried nothing is left.

use form_node::ErrorCode;
use form_vmm_hooks::VmState;
use form_vmm_hooks::fake::Step;
use serde_json::json;

use crate::before::Before;
use crate::hooks::vm;
use crate::scene::{Scene, text};

/// Three that are asked with every commit, and have run since the last one.
async fn three(timeout_s: u32) -> Scene {
    let health = format!("health = {{ command = [\"is-well\"], timeout_s = {timeout_s} }}\n");
    let scene = Scene::with_spec(&[&["a"], &["b"], &["c"]], &health).await;
    scene.commit("a").await.committed();
    scene.poke("a", "memory", 20, 20);
    scene.poke("b", "root", 30, 30);
    scene
}

/// What the monitor has done with an instance since there were `before` steps in all; that it looked for one is no deed.
fn steps(scene: &Scene, name: &str, before: usize) -> Vec<Step> {
    let steps = scene.vmm.calls().into_iter().skip(before);
    steps.filter(|(machine, step)| machine == name && *step != Step::Adopt).map(|(_, step)| step).collect()
}

async fn the_next_commit_succeeds(scene: &Scene) {
    assert_eq!(scene.hooks.left(), [], "every failure has happened");
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn rule_16_a_target_is_asked_while_its_old_vm_stands_still_and_restored_after_it() {
    let scene = three(30).await;
    let before = scene.vmm.calls().len();
    let ended = scene.commit("a").await;
    assert!(ended.committed().targets.iter().all(|target| target.phases_ms.contains_key("probation")));
    for target in ["b", "c"] {
        let steps = steps(&scene, target, before);
        // One is ended with its probation.
        assert_eq!(steps[..4], [Step::Pause, Step::Probe, Step::Quit, Step::Restore], "{target}: {steps:?}");
    }
    assert!(!steps(&scene, "a", before).contains(&Step::Probe), "the source runs, and need not be asked");
    scene.all_run_the_head(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn promise_1_a_target_that_is_not_well() {
    let scene = three(1).await;
    let before = Before::of(&scene).await;
    scene.vmm.fail("c", Step::Probe);
    let ended = scene.commit("a").await;
    ended.failed_with(ErrorCode::Aborted, &["target c", "health probe", "command `is-well`", "failure asked for"]);
    assert!(ended.failed().remedy.as_deref().is_some_and(|remedy| remedy.contains("mend")), "{:?}", ended.failed());
    before.still_holds(&scene).await;

    scene.vmm.say_nothing("b");
    scene.commit("a").await.failed_with(ErrorCode::Aborted, &["target b", "no answer within 1 s"]);
    before.still_holds(&scene).await;

    // It can't be asked.
    scene.hooks.fail(vm("b", Step::Probe));
    scene.commit("a").await.failed_with(ErrorCode::Aborted, &["target b", "health probe"]);
    before.still_holds(&scene).await;
    the_next_commit_succeeds(&scene).await;
}

/// The node of `b` is lost while its new VM is on probation.
async fn lost(with_vms: bool, silent_adoptions: usize) {
    let mut scene = three(500).await;
    let before = Before::of(&scene).await;
    scene.vmm.say_nothing("b");
    let attempt =
        text(&scene.commit_request("a", json!({"timeout_s": 700})).accepted(scene.api("a")).await, "attempt_id");
    let tried = async || scene.states("b") == [VmState::Paused, VmState::Running];
    scene.wait_for("b is on probation", tried).await;
    scene.node_mut("b").kill();
    assert_eq!(scene.states("b"), [VmState::Paused, VmState::Running], "VMs outlive their node");
    if with_vms {
        scene.vmm.crash("b");
    }
    (0..silent_adoptions).for_each(|_| scene.hooks.fail(vm("b", Step::Adopt)));
    scene.node_mut("b").start().await;
    // It asks the coordinator, which has heard that it could not be activated.
    scene.end_of("a", attempt).await.failed();
    if !with_vms {
        before.still_holds(&scene).await;
    }
    the_next_commit_succeeds(&scene).await;
}

#[tokio::test]
async fn promise_2_a_node_that_is_lost_during_a_probation_leaves_the_old_vm_running() {
    lost(false, 0).await;
}

#[tokio::test]
async fn promise_2_a_host_that_is_lost_during_a_probation() {
    lost(true, 0).await;
}

/// Neither the old VM, nor the new one, nor the one on probation answers when the node comes back.
#[tokio::test]
async fn promise_2_the_old_vm_runs_only_when_the_one_on_probation_is_gone() {
    lost(false, 3).await;
}

#[tokio::test]
async fn a_probe_that_does_not_fit_into_the_commit_is_refused_before_anything_is_paused() {
    let scene = three(20).await;
    let before = scene.vmm.calls().len();
    let request = scene.commit_request("a", json!({"timeout_s": 20}));
    let attempt = text(&request.accepted(scene.api("a")).await, "attempt_id");
    scene.end_of("a", attempt).await.failed_with(ErrorCode::TargetUnfit, &["target", "health.timeout_s is 20 s"]);
    for name in ["a", "b", "c"] {
        assert_eq!(steps(&scene, name, before), [], "{name}");
    }
    the_next_commit_succeeds(&scene).await;
}
