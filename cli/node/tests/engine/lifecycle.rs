//! Starting and stopping, and attempts that hold an instance.

use form_node::ErrorCode;
use form_node::store::InstanceStatus;
use form_vmm_hooks::fake::Step;

use form_vmm_hooks::{Machine, VmState, Vmm as _};

use crate::hooks::vm;
use crate::scene::Scene;

#[tokio::test]
async fn an_instance_in_an_attempt_stays_as_it_is() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    for name in ["a", "b", "c"] {
        for what in ["start", "stop"] {
            let request = scene.post(name, &format!("/api/v1/instances/{name}/{what}"));
            let error = request.refused(scene.api(name)).await;
            assert_eq!(error.code, ErrorCode::Conflict, "{what} {name}: {error:?}");
            assert!(error.message.contains(&attempt), "{what} {name}: {error:?}");
        }
    }
    hold.release();
    scene.end_of("a", attempt).await.committed();
    scene.post("b", "/api/v1/instances/b/stop").accepted(scene.api("b")).await;
    let accepted = scene.commit_request("a", serde_json::Value::Null).accepted(scene.api("a")).await;
    let ended = crate::client::events(scene.api("a"), &crate::scene::text(&accepted, "attempt_id")).await;
    assert!(format!("{ended:?}").contains("target b is not running"), "{ended:?}");
    scene.post("b", "/api/v1/instances/b/start").accepted(scene.api("b")).await;
    scene.commit("a").await.committed();
}

#[tokio::test]
async fn a_guest_that_ended_by_itself_can_be_started() {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    scene.vmm.crash("b");
    scene.post("b", "/api/v1/instances/b/start").accepted(scene.api("b")).await;
    assert_eq!(scene.instance("b").await.status, InstanceStatus::Started);
    scene.in_order().await;
    let again = scene.post("b", "/api/v1/instances/b/start").refused(scene.api("b")).await;
    assert_eq!(again.code, ErrorCode::WrongState);
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}

/// One VM that can't be talked to keeps neither its node nor the others on it from running.
#[tokio::test]
async fn a_vm_that_does_not_answer_when_its_node_starts() {
    let mut scene = Scene::new(&[&["a"], &["b", "c"]]).await;
    scene.hooks.fail(vm("b", Step::Adopt));
    scene.node_mut("b").restart().await;
    assert_eq!(scene.instance("b").await.status, InstanceStatus::CriticalError);
    assert_eq!(scene.instance("c").await.status, InstanceStatus::Started);
    // Still not: then nothing is done to its files.
    for what in ["start", "stop"] {
        scene.hooks.fail(vm("b", Step::Adopt));
        scene.post("b", &format!("/api/v1/instances/b/{what}")).refused(scene.api("b")).await;
        assert_eq!(scene.states("b"), [VmState::Running], "{what}");
    }
    // Now it does.
    let running = scene.post("b", "/api/v1/instances/b/start").refused(scene.api("b")).await;
    assert_eq!(running.code, ErrorCode::WrongState, "{running:?}");
    assert_eq!(scene.instance("b").await.status, InstanceStatus::Started);
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
}

/// The directory in which it would be looked for is gone, or was never known.
#[tokio::test]
async fn a_vm_that_nothing_tells_of_is_ended_when_its_node_starts() {
    let mut scene = Scene::new(&[&["a"], &["b"]]).await;
    let lost = Machine {
        name: "lost".into(),
        uuid: "00000000-0000-4000-8000-000000000001".into(),
        dir: scene.node("b").data.join("instances/lost/vm-0"),
        memory_bytes: 32 << 20,
        ram_path: scene.dir.path().join("lost"),
        disks: Vec::new(),
        kernel: "/nowhere".into(),
        initrd: None,
        cmdline: String::new(),
        mac: "52:54:00:00:00:01".into(),
        generation_id: "00000000-0000-4000-9000-000000000000".into(),
        link_up: true,
        agent: false,
        commands: Default::default(),
    };
    scene.vmm.boot(&lost).await.expect("boot");
    scene.node_mut("a").restart().await;
    assert_eq!(scene.states("lost"), [VmState::Running], "it is none of this node's");
    scene.node_mut("b").restart().await;
    assert_eq!(scene.states("lost"), []);
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}

#[tokio::test]
async fn a_node_that_has_instances_stays_enrolled() {
    let scene = Scene::new(&[&["a"], &["b"], &[]]).await;
    let store = format!("sqlite:{}", scene.dir.path().join("state/state.db").display());
    let error = form_node::remove(&store, &scene.node("b").id).await.expect_err("b is there");
    assert_eq!((error.code, error.message.ends_with("instances: b")), (ErrorCode::WrongState, true), "{error:?}");
    let empty = &scene.nodes[2].id;
    form_node::remove(&store, empty).await.expect("removed");
    assert_eq!(form_node::remove(&store, empty).await.expect_err("it is gone").code, ErrorCode::NotFound);
    scene.commit("a").await.committed();
}
