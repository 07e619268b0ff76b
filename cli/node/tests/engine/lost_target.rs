//! The node of a target is lost at each step of the protocol and comes back: all or none, and nothing is left.

use form_node::ErrorCode;
use form_proto::Step;
use form_vmm_hooks::fake::Step as Vmm;
use futures_util::future::join_all;

use crate::hooks::{Hold, Point, vm};
use crate::scene::Scene;

/// When the node of `b` and `d` is lost.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// Its offer is being checked.
    Staging,
    /// It is ready; `c` is not.
    Prepared,
    /// `b` is being restored.
    Activating,
    /// It is active; `c` is not.
    Active,
    /// The new VM of `b` is about to run.
    Resuming,
    /// It runs; its link is down.
    Resumed,
    /// The old VM of `b` is about to be ended.
    Dropping,
    /// The old VM of `b` is about to be resumed.
    RollingBack,
    /// All is done and durable; the store has not been told.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    Aborted,
}

use Outcome::{Aborted, Committed};

/// Each with the outcomes that it can meet, and whether the VMs are lost with the node, as with a host.
const CASES: [(Lost, Outcome, bool); 17] = [
    (Lost::Staging, Committed, false),
    (Lost::Prepared, Committed, false),
    (Lost::Prepared, Aborted, false),
    (Lost::Prepared, Aborted, true),
    (Lost::Activating, Aborted, false),
    (Lost::Activating, Aborted, true),
    (Lost::Active, Committed, false),
    (Lost::Active, Committed, true),
    (Lost::Active, Aborted, false),
    (Lost::Active, Aborted, true),
    (Lost::Resuming, Committed, false),
    (Lost::Resuming, Committed, true),
    (Lost::Resumed, Committed, false),
    (Lost::Resumed, Committed, true),
    (Lost::Dropping, Committed, false),
    (Lost::Dropping, Committed, true),
    (Lost::RollingBack, Aborted, true),
];

struct Case {
    scene: Scene,
    attempt: String,
    /// Holds `c` back while `b` gets where it is to be lost.
    other: Option<Hold>,
}

impl Case {
    async fn at(lost: Lost, outcome: Outcome) -> Self {
        let scene = Scene::new(&[&["a"], &["b", "d"], &["c"]]).await;
        scene.commit("a").await.committed();
        scene.poke("a", "memory", 60, 1);
        scene.poke("b", "memory", 61, 2);
        let wait_for_c = match lost {
            Lost::Prepared => {
                scene.hooks.act(Point::Host(2), || {});
                Some(scene.hooks.hold(Point::Host(2)))
            }
            Lost::Active => Some(scene.hooks.hold(vm("c", Vmm::Restore))),
            _ => None,
        };
        if outcome == Aborted && !matches!(lost, Lost::Activating) {
            scene.vmm.fail("c", Vmm::Restore);
        }
        let here = match lost {
            Lost::Staging => {
                // Both instances are asked about in the preflight.
                scene.hooks.act(Point::Host(1), || {});
                scene.hooks.act(Point::Host(1), || {});
                Some(Point::Host(1))
            }
            Lost::Prepared | Lost::Active => None,
            Lost::Activating => Some(vm("b", Vmm::Restore)),
            Lost::Resuming | Lost::RollingBack => Some(vm("b", Vmm::Resume)),
            Lost::Resumed => Some(vm("b", Vmm::SetLink)),
            Lost::Dropping => Some(vm("b", Vmm::Quit)),
            Lost::Done => Some(Point::Write(1, "attempts/")),
        };
        let here = here.map(|point| scene.hooks.hold(point));
        let attempt = scene.begin("a").await;
        match (&here, lost) {
            (Some(here), _) => here.reached().await,
            (None, Lost::Prepared) => scene.wait_for_step(&["b", "d"], Step::Prepared).await,
            (None, _) => scene.wait_for_step(&["b", "d"], Step::Active).await,
        }
        Self { scene, attempt, other: wait_for_c }
    }
}

async fn lost_and_found((lost, outcome, with_vms): (Lost, Outcome, bool)) {
    let case = format!("{lost:?}, {outcome:?}, VMs lost: {with_vms}");
    println!("{case}");
    let Case { mut scene, attempt, other } = Case::at(lost, outcome).await;
    let head = scene.head().await;
    scene.node_mut("b").kill();
    if with_vms {
        scene.vmm.crash("b");
        // Where the outcome is known, it may be through with it already.
        if !matches!(lost, Lost::Resuming | Lost::Resumed | Lost::Dropping | Lost::RollingBack) {
            scene.vmm.crash("d");
        }
    }
    if let Some(other) = other {
        other.release();
    }
    scene.node_mut("b").start().await;
    let ended = scene.end_of("a", attempt).await;
    match outcome {
        Committed => {
            ended.committed();
            scene.all_run_the_head(&["a", "b", "c", "d"]).await;
            assert!(scene.attempt(&ended.attempt).await.is_settled(), "{case}");
        }
        Aborted => {
            ended.failed();
            assert_eq!(scene.head().await, head, "{case}");
            // Who lost its memory started again from its disk.
            let kept: &[&str] = if with_vms { &["c"] } else { &["c", "d"] };
            scene.all_run_the_head(kept).await;
        }
    }
    assert_eq!(scene.hooks.left(), [], "{case}");
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c", "d"]).await;
}

#[tokio::test]
async fn promise_1_a_target_that_is_lost_before_it_is_active() {
    join_all(CASES[..6].iter().copied().map(lost_and_found)).await;
}

#[tokio::test]
async fn promise_1_a_target_that_is_lost_while_it_is_active() {
    join_all(CASES[6..10].iter().copied().map(lost_and_found)).await;
}

#[tokio::test]
async fn promise_1_a_target_that_is_lost_when_the_outcome_is_known() {
    join_all(CASES[10..].iter().copied().map(lost_and_found)).await;
}

/// What it has carried out durably it also tells the store, if only after a restart.
#[tokio::test]
async fn a_target_that_is_lost_before_the_store_is_told() {
    let Case { mut scene, attempt, .. } = Case::at(Lost::Done, Committed).await;
    // Nobody is there any more who would ask it again.
    scene.node_mut("a").restart().await;
    scene.node_mut("b").restart().await;
    scene.in_order().await;
    scene.wait_until_settled(&attempt).await;
    scene.all_run_the_head(&["a", "b", "c", "d"]).await;
}

/// Neither of its two VMs answers when its node comes back; they do when the outcome is known.
#[tokio::test]
async fn promise_1_a_target_that_comes_back_to_vms_that_do_not_answer() {
    for outcome in [Committed, Aborted] {
        let Case { mut scene, attempt, other } = Case::at(Lost::Active, outcome).await;
        scene.node_mut("b").kill();
        scene.hooks.fail(vm("b", Vmm::Adopt));
        scene.hooks.fail(vm("b", Vmm::Adopt));
        scene.node_mut("b").start().await;
        assert_eq!(scene.hooks.left(), []);
        other.expect("c is held").release();
        let ended = scene.end_of("a", attempt).await;
        match outcome {
            Committed => {
                ended.committed();
                scene.all_run_the_head(&["b", "c", "d"]).await;
            }
            Aborted => {
                ended.failed();
                scene.all_run_the_head(&["c", "d"]).await;
            }
        }
        assert_eq!(scene.states("b"), [form_vmm_hooks::VmState::Running], "the very same: it was not booted");
    }
}

/// A node whose state store is a backup from before what it has seen does not run.
#[tokio::test]
async fn a_store_that_is_behind_is_refused() {
    let mut scene = Scene::new(&[&["a"], &["b"]]).await;
    scene.commit("a").await.committed();
    let old = scene.cluster_record().await;
    scene.commit("a").await.committed();
    scene.node_mut("b").kill();
    scene.put_cluster_record(&old).await;
    let error = scene.node_mut("b").try_start().await.expect_err("refused");
    assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}");
}
