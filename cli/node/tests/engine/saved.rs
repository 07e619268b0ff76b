//! No memory for two VMs: the old one is saved and ended before the new one is restored (rule 23), and that is the way back.

use std::path::PathBuf;

use form_node::ErrorCode;
use form_node::api::health::Verdict;
use form_node::api::types::AttemptEvent;
use form_node::store::InstanceStatus;
use form_proto::Step as At;
use form_vmm_hooks::VmState;
use form_vmm_hooks::fake::Step;

use crate::before::Before;
use crate::doctor::health;
use crate::hooks::vm;
use crate::node::Storage;
use crate::scene::{Ended, MEMORY_BYTES, Scene, flip};

const SAVED: &str = "way_back = \"saved\"\n";

async fn three() -> Scene {
    three_like(SAVED).await
}

/// All have a commit, and have run since.
async fn three_like(spec: &str) -> Scene {
    let scene = Scene::with_spec(&[&["a"], &["b"], &["c"]], spec).await;
    scene.commit("a").await.committed();
    scene.poke("a", "memory", 20, 20);
    scene.poke("b", "memory", 30, 30);
    scene.poke("b", "root", 30, 31);
    scene
}

/// What the monitor has done with an instance since there were `before` steps in all.
fn steps(scene: &Scene, name: &str, before: usize) -> Vec<Step> {
    let steps = scene.vmm.calls().into_iter().skip(before);
    steps.filter(|(machine, step)| machine == name && *step != Step::Adopt).map(|(_, step)| step).collect()
}

fn warnings(ended: &Ended, name: &str) -> Vec<String> {
    let of = |event: &AttemptEvent| match event {
        AttemptEvent::Warning { target, message } if target == name => Some(message.clone()),
        _ => None,
    };
    ended.events.iter().filter_map(of).collect()
}

/// Nothing that was saved lies beside the images of a VM that runs.
fn only_images(scene: &Scene, name: &str) {
    let dir = scene.live_dir(name);
    let mut names: Vec<_> = std::fs::read_dir(&dir).expect("read").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["memory.img", "root.img"], "{}", dir.display());
}

async fn all_is_well(scene: &Scene) {
    assert_eq!(scene.hooks.left(), [], "every failure has happened");
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
    ["a", "b", "c"].iter().for_each(|name| only_images(scene, name));
}

#[tokio::test]
async fn rule_23_the_old_vm_is_saved_and_gone_before_the_new_one_is_there_and_the_plan_says_so() {
    let scene = three().await;
    let before = scene.vmm.calls().len();
    let hold = scene.hooks.hold(vm("b", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    assert_eq!(scene.states("b"), [], "neither the old one nor the new one");
    hold.release();
    let ended = scene.end_of("a", attempt).await;
    let summary = ended.committed();
    assert!(summary.targets.iter().all(|target| target.phases_ms.contains_key("save")), "{summary:?}");
    assert_eq!(steps(&scene, "b", before)[..4], [Step::Pause, Step::Save, Step::Quit, Step::Restore]);
    for target in ["b", "c"] {
        assert!(matches!(warnings(&ended, target).as_slice(), [one] if one.contains("weaker")), "{:?}", ended.events);
    }
    assert_eq!(warnings(&ended, "a"), [""; 0], "the source runs on");
    scene.all_run_the_head(&["a", "b", "c"]).await;
    all_is_well(&scene).await;
}

#[tokio::test]
async fn rule_23_an_aborted_commit_goes_back_to_what_was_saved() {
    let scene = three().await;
    let before = Before::of(&scene).await;
    let since = scene.vmm.calls().len();
    // The target itself fails, and one that was active goes back with it.
    scene.hooks.fail(vm("c", Step::Restore));
    scene.commit("a").await.failed_with(ErrorCode::Aborted, &["target c"]);
    before.still_holds(&scene).await;
    for target in ["b", "c"] {
        let steps = steps(&scene, target, since);
        assert!(steps.contains(&Step::Save) && !steps.contains(&Step::Boot), "{target}: {steps:?}");
        only_images(&scene, target);
    }
    // What can't be saved is not ended.
    let since = scene.vmm.calls().len();
    scene.hooks.fail(vm("c", Step::Save));
    scene.commit("a").await.failed_with(ErrorCode::Aborted, &["target c"]);
    before.still_holds(&scene).await;
    assert_eq!(steps(&scene, "c", since), [Step::Pause, Step::SetLink, Step::Resume]);
    all_is_well(&scene).await;
}

/// When the node of `b` is lost.
async fn lost(point: crate::hooks::Point, outcome_is_abort: bool) {
    let mut scene = three().await;
    let before = Before::of(&scene).await;
    let since = scene.vmm.calls().len();
    if outcome_is_abort {
        scene.vmm.fail("c", Step::Restore);
    }
    let hold = scene.hooks.hold(point.clone());
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.node_mut("b").kill();
    scene.node_mut("b").start().await;
    scene.end_of("a", attempt).await.failed();
    before.still_holds(&scene).await;
    assert!(!steps(&scene, "b", since).contains(&Step::Boot), "{point:?}: its memory is not lost");
    only_images(&scene, "b");
    assert_eq!(scene.instance("b").await.status, InstanceStatus::Started);
    all_is_well(&scene).await;
}

#[tokio::test]
async fn rule_23_a_node_that_is_lost_before_and_after_the_old_process_is_ended() {
    for step in [Step::Save, Step::Quit, Step::Restore] {
        lost(vm("b", step), false).await;
    }
}

#[tokio::test]
async fn rule_23_a_node_that_is_lost_on_the_way_back() {
    for step in [Step::SetLink, Step::Resume] {
        lost(vm("b", step), true).await;
    }
}

/// Its host is lost on the way back; whether it had to boot.
async fn host_is_lost_at(step: Step) -> bool {
    let mut scene = three().await;
    let before = Before::of(&scene).await;
    let since = scene.vmm.calls().len();
    scene.vmm.fail("b", Step::Restore);
    let hold = scene.hooks.hold(vm("b", step));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    assert_eq!(scene.states("b"), [VmState::Paused], "restored");
    scene.node_mut("b").kill();
    scene.vmm.crash("b");
    scene.node_mut("b").start().await;
    scene.end_of("a", attempt).await.failed();
    let booted = steps(&scene, "b", since).contains(&Step::Boot);
    if !booted {
        before.still_holds(&scene).await;
    }
    only_images(&scene, "b");
    all_is_well(&scene).await;
    booted
}

#[tokio::test]
async fn rule_23_a_restored_vm_is_restored_again_if_it_has_not_run_and_only_then() {
    assert!(!host_is_lost_at(Step::SetLink).await, "it had not run");
    assert!(host_is_lost_at(Step::Resume).await, "for all that is durable it may have run");
}

/// A disk that forgets what was not fsynced: what was saved is there all the same.
#[tokio::test]
async fn rule_23_what_was_saved_outlives_its_host() {
    let mut scene = Scene::of(&[&["a"], &["b"]], Storage::Disk, SAVED).await;
    scene.commit("a").await.committed();
    (0..64).for_each(|page| scene.poke("b", "memory", 100 + page, page));
    let before = Before::of(&scene).await;
    let since = scene.vmm.calls().len();
    let hold = scene.hooks.hold(vm("b", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.node_mut("b").kill();
    scene.node_mut("b").crash(23);
    scene.node_mut("b").start().await;
    scene.end_of("a", attempt).await.failed();
    before.still_holds(&scene).await;
    assert!(!steps(&scene, "b", since).contains(&Step::Boot));
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}

#[tokio::test]
async fn rule_23_a_restore_that_fails_is_tried_again_and_then_its_disk_is_all_there_is() {
    let scene = three().await;
    for (failures, boots) in [(2, false), (6, true)] {
        let before = Before::of(&scene).await;
        let since = scene.vmm.calls().len();
        let hold = scene.hooks.hold(vm("c", Step::Restore));
        let attempt = scene.begin("a").await;
        hold.reached().await;
        scene.wait_for_step(&["b"], At::Active).await;
        (0..failures).for_each(|_| scene.hooks.fail(vm("b", Step::Restore)));
        scene.vmm.fail("c", Step::Restore);
        hold.release();
        let ended = scene.end_of("a", attempt).await;
        ended.failed();
        assert_eq!(scene.hooks.left(), []);
        assert_eq!(steps(&scene, "b", since).contains(&Step::Boot), boots);
        assert_eq!(warnings(&ended, "b").iter().any(|said| said.contains("its memory is lost")), boots);
        if !boots {
            before.still_holds(&scene).await;
        }
    }
    all_is_well(&scene).await;
}

#[tokio::test]
async fn rule_23_two_instances_of_a_node_are_not_promised_the_same_memory() {
    let scene = Scene::new(&[&["a"], &["b", "c"]]).await;
    let saves = async |scene: &Scene| {
        let since = scene.vmm.calls().len();
        let ended = scene.commit("a").await;
        ended.committed();
        let saved = ["a", "b", "c"].map(|name| steps(scene, name, since).contains(&Step::Save));
        assert_eq!(["a", "b", "c"].map(|name| warnings(&ended, name).len() == 1), saved, "it is said of those alone");
        scene.poke("a", "memory", 20, since as u64);
        saved.iter().filter(|saved| **saved).count()
    };
    assert_eq!(saves(&scene).await, 0, "nobody can say what is free");
    let one = MEMORY_BYTES + (256 << 20);
    for (free, saved) in [(2 * one, 0), (2 * one - 1, 1), (2 * one - 1, 1), (one - 1, 2), (2 * one, 0)] {
        scene.vmm.has_free_memory(free);
        assert_eq!(saves(&scene).await, saved, "{free} bytes are free");
        let health = health(&scene, "b").await;
        let memory = health.findings.iter().find(|finding| finding.check == "memory").expect("it is looked at");
        assert_eq!(memory.verdict, if saved == 0 { Verdict::Ok } else { Verdict::Note }, "{memory:?}");
    }
    all_is_well(&scene).await;
}

#[tokio::test]
async fn rule_16_and_23_a_new_vm_is_on_probation_when_the_old_one_is_gone() {
    let scene = three_like(&format!("{SAVED}health = {{ command = [\"is-well\"], timeout_s = 30 }}\n")).await;
    let before = Before::of(&scene).await;
    let since = scene.vmm.calls().len();
    let hold = scene.hooks.hold(vm("b", Step::Probe));
    scene.vmm.fail("b", Step::Probe);
    let attempt = scene.begin("a").await;
    hold.reached().await;
    assert_eq!(scene.states("b"), [], "the old one has ended before");
    hold.release();
    scene.end_of("a", attempt).await.failed_with(ErrorCode::Aborted, &["target b", "health probe"]);
    before.still_holds(&scene).await;
    for target in ["b", "c"] {
        assert!(!steps(&scene, target, since).contains(&Step::Boot), "{target}");
    }
    all_is_well(&scene).await;
}

#[tokio::test]
async fn rule_23_an_old_vm_that_could_not_be_restored_is_not_ended() {
    let scene = three().await;
    scene.vmm.upgrade("2");
    // The source is captured by what its host has now; the others run in what it had.
    for step in ["stop", "start"] {
        scene.post("a", &format!("/api/v1/instances/a/{step}")).accepted(scene.api("a")).await;
    }
    let since = scene.vmm.calls().len();
    scene.commit("a").await.failed_with(ErrorCode::TargetUnfit, &["could not be restored", "\"1\"", "\"2\""]);
    assert_eq!(steps(&scene, "b", since), [], "before anything was paused");
    for name in ["b", "c"] {
        for step in ["stop", "start"] {
            scene.post(name, &format!("/api/v1/instances/{name}/{step}")).accepted(scene.api(name)).await;
        }
    }
    all_is_well(&scene).await;
}

/// The files of the old VM while there are two directories.
fn old_memory(scene: &Scene, old: &str) -> PathBuf {
    scene.node("b").data.join("instances").join(scene.id("b")).join(old).join("memory.img")
}

#[tokio::test]
async fn rule_23_what_is_not_what_was_saved_is_not_restored_and_that_is_said() {
    let scene = three().await;
    let head = scene.head().await;
    let old = scene.live_dir("b").file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let disk = std::fs::read(scene.live("b", "root")).expect("read");
    let since = scene.vmm.calls().len();
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.wait_for_step(&["b"], At::Active).await;
    assert_eq!(scene.states("b"), [VmState::Paused], "the new one");
    flip(&old_memory(&scene, &old), 4096);
    scene.vmm.fail("c", Step::Restore);
    hold.release();
    let ended = scene.end_of("a", attempt).await;
    ended.failed_with(ErrorCode::Aborted, &["target c"]);
    assert!(steps(&scene, "b", since).contains(&Step::Boot));
    let said = warnings(&ended, "b");
    assert!(
        said.iter().any(|said| said.contains("its memory is lost") && said.contains("memory is not what was saved")),
        "{said:?}"
    );
    assert_eq!((scene.head().await, scene.instance("b").await.status), (head, InstanceStatus::Started));
    assert!(std::fs::read(scene.live("b", "root")).expect("read") == disk, "its disk is what it was");
    only_images(&scene, "b");
    all_is_well(&scene).await;
}
