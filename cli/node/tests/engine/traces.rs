//! What the driver fed the machines in a real run, fed to them once more: the same answers.

use form_node::ErrorCode;
use form_vmm_hooks::fake::Step;

use crate::hooks::vm;
use crate::scene::Scene;

#[tokio::test]
async fn what_a_node_recorded_replays() {
    let mut scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    scene.commit("a").await.committed();
    // c can't restore it, and is lost while it rolls back.
    scene.poke("a", "memory", 20, 20);
    scene.hooks.fail(vm("c", Step::Restore));
    let undo = scene.hooks.hold(vm("c", Step::Resume));
    let attempt = scene.begin("a").await;
    undo.reached().await;
    scene.node_mut("c").kill();
    undo.release();
    scene.node_mut("c").start().await;
    scene.end_of("a", attempt).await.failed_with(ErrorCode::Aborted, &["target c"]);
    // The coordinator is lost; what is under way is aborted.
    scene.node_mut("a").restart().await;
    scene.commit("a").await.committed();
    scene.in_order().await;
    scene.nodes.iter_mut().for_each(crate::node::Node::kill);

    let (mut begun, mut told) = (0, String::new());
    for node in &scene.nodes {
        for name in node.names("traces") {
            let trace = std::fs::read_to_string(node.data.join("traces").join(&name)).expect("a trace");
            let inputs = form_proto::replay(&trace).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(inputs > 0, "{name} has no input");
            begun += trace.lines().filter(|line| line.starts_with("form-trace")).count();
            told.push_str(&trace);
        }
    }
    // Three attempts, or four with the one that made the cluster's first commit; three instances, two restarts.
    assert!(begun >= 3 + 3 + 2, "{begun} machines have begun");
    for answer in ["Finalize(Committed)", "Finalize(Aborted)", "RollBack(Work", "Acknowledge(Settled"] {
        assert!(told.contains(answer), "nobody was told {answer}");
    }
}
