//! What a node says of itself, and what the doctor finds from outside.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::atomic::Ordering;

use form_node::api::flight::FlightView;
use form_node::api::health::{HealthView, Verdict};
use form_node::store::InstanceStatus;
use form_vmm_hooks::fake::Step;

use crate::client::get;
use crate::hooks::vm;
use crate::scene::{Scene, flip};

pub(crate) async fn health(scene: &Scene, name: &str) -> HealthView {
    let (status, json) = get(scene.api(name), "/api/v1/health").await.expect("an answer");
    assert!(status.is_success(), "{json}");
    serde_json::from_value(json).expect("a view")
}

/// The problems, as `check: message (remedy)`.
fn problems(health: &HealthView) -> Vec<String> {
    let problems = health.findings.iter().filter(|finding| finding.verdict == Verdict::Problem);
    let problems: Vec<_> = problems
        .map(|f| format!("{}: {} ({})", f.check, f.message, f.remedy.as_deref().expect("each has a remedy")))
        .collect();
    assert_eq!(health.healthy, problems.is_empty());
    problems
}

/// One problem and no other, which names all of these.
pub(crate) fn one_problem(health: &HealthView, named: &[&str]) {
    let problems = problems(health);
    let [problem] = problems.as_slice() else { panic!("not one: {problems:#?}") };
    named.iter().for_each(|name| assert!(problem.contains(name), "{name}: {problem}"));
}

#[tokio::test]
async fn a_node_that_is_well_and_what_can_be_wrong_with_it() {
    let mut scene = Scene::new(&[&["a"], &["b"]]).await;
    scene.commit("a").await.committed();
    let well = health(&scene, "a").await;
    assert_eq!(problems(&well), Vec::<String>::new());
    let checks: BTreeSet<&str> = well.findings.iter().map(|finding| finding.check.as_str()).collect();
    let all = [
        "settings",
        "key",
        "vmm",
        "store",
        "clock",
        "writing",
        "space",
        "bases",
        "instances",
        "in flight",
        "leftovers",
        "nodes",
    ];
    assert_eq!(checks, BTreeSet::from(all));

    scene.vmm.crash("a");
    one_problem(&health(&scene, "a").await, &["instances: a ", "its VM is gone", "form manage start --name a"]);
    scene.post("a", "/api/v1/instances/a/start").accepted(scene.api("a")).await;

    scene.node("a").cut_off.store(true, Ordering::SeqCst);
    one_problem(&health(&scene, "a").await, &["store: ", "bring it back"]);
    scene.node("a").cut_off.store(false, Ordering::SeqCst);

    let ahead = scene.store.update_instance(scene.id("b"), |b| b.updated_at += 3600).await;
    ahead.expect("update");
    one_problem(&health(&scene, "a").await, &["clock: ", "set the hosts' clocks right"]);
    scene.store.update_instance(scene.id("b"), |b| b.updated_at -= 3600).await.expect("update");

    let status = async |status| {
        scene.store.update_instance(scene.id("a"), |a| a.status = status).await.expect("update");
    };
    status(InstanceStatus::CriticalError).await;
    one_problem(
        &health(&scene, "a").await,
        &["instances: a has a VM that did not answer", "form manage start --name a"],
    );
    status(InstanceStatus::Started).await;

    let base = scene.base("a", "root").await;
    std::fs::rename(&base, base.with_extension("away")).expect("rename");
    let without = health(&scene, "a").await;
    assert!(without.healthy, "it is brought along with the next commit");
    assert!(without.findings.iter().any(|f| f.check == "bases" && f.verdict == Verdict::Note), "{without:?}");
    std::fs::rename(base.with_extension("away"), &base).expect("rename");

    let id = scene.node("b").id.clone();
    scene.node_mut("b").kill();
    one_problem(&health(&scene, "a").await, &["nodes: ", &id, "commits to b are refused"]);
}

#[tokio::test]
async fn what_is_in_flight_is_told_without_the_store() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    let flight = async |of: &str, by: &str| -> FlightView {
        let path = format!("/api/v1/nodes/{}/flight", scene.node(of).id);
        serde_json::from_value(get(scene.api(by), &path).await.expect("an answer").1).expect("a view")
    };
    let hold = scene.hooks.hold(vm("c", Step::Restore));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.wait_for_step(&["a", "b"], form_proto::Step::Active).await;
    let [at_a, at_b, at_c] = [flight("a", "a").await, flight("b", "a").await, flight("c", "a").await];
    let [coordinated] = at_a.attempts.as_slice() else { panic!("{at_a:?}") };
    assert_eq!((coordinated.attempt_id.as_str(), coordinated.phase.as_str()), (attempt.as_str(), "activate"));
    assert_eq!((coordinated.decided, at_a.store_silent_ms), (false, None));
    let steps = [&at_a, &at_b, &at_c].map(|view| {
        view.participants.iter().map(|p| format!("{} {} {}", p.name, p.role, p.step)).collect::<Vec<_>>().join(", ")
    });
    assert_eq!(steps, ["a source active", "b target active", "c target activating"]);
    assert_eq!((at_b.participants[0].coordinator.as_str(), at_b.attempts.len()), (scene.node("a").id.as_str(), 0));
    let said = format!("{:?}", health(&scene, "b").await.findings);
    assert!(said.contains("b is paused, and waits for the outcome"), "{said}");

    scene.node("b").cut_off.store(true, Ordering::SeqCst);
    let silent = flight("b", "b").await;
    assert!(silent.store_silent_ms.is_some(), "{silent:?}");
    assert_eq!(silent.participants, at_b.participants);
    scene.node("b").cut_off.store(false, Ordering::SeqCst);
    assert_eq!(flight("b", "b").await.store_silent_ms, None);
    hold.release();
    scene.end_of("a", attempt).await.committed();
    assert_eq!(flight("a", "a").await.participants, []);
}

#[tokio::test]
async fn a_node_that_does_not_run() {
    let mut scene = Scene::new(&[&["a"], &["b"]]).await;
    scene.commit("a").await.committed();
    scene.post("a", "/api/v1/instances/a/stop").accepted(scene.api("a")).await;
    let data = scene.node("a").data.clone();
    let running = form_node::doctor(&data, false).await.expect("looked at");
    assert_eq!((running.0.running, running.1), (true, Some(scene.api("a"))));
    let said = format!("{:?}", running.0.findings);
    assert!(said.contains(&format!("process {} runs the node", std::process::id())), "{said}");

    scene.node_mut("a").kill();
    let look = async |verify| {
        let (mut health, api) = form_node::doctor(&data, verify).await.expect("looked at");
        assert_eq!((health.running, api), (false, None));
        // This host may have no QEMU, or another than the guests of this test say.
        health.findings.retain(|finding| finding.check != "vmm");
        HealthView::new(health.node_id, health.running, health.findings)
    };
    assert_eq!(problems(&look(true).await), Vec::<String>::new());

    let staging = data.join("staging").join("ab".repeat(16));
    std::fs::create_dir_all(&staging).expect("make");
    let left = look(false).await;
    assert!(left.findings.iter().any(|f| f.check == "leftovers" && f.message.contains(&"ab".repeat(16))), "{left:?}");

    // Arguments as QEMU's; it ends with its stdin.
    let of_nobody = data.join("instances/gone/vm-0");
    let words = ["-c", "read _", "qemu", "-uuid", "00000000-0000-4000-8000-000000000000"];
    let process = std::process::Command::new("sh").args(words).arg(&of_nobody).stdin(Stdio::piped()).spawn();
    let mut process = process.expect("sh runs");
    let stranger = look(false).await;
    drop(process.stdin.take());
    process.wait().expect("it ends");
    one_problem(&stranger, &[&format!("leftovers: process {} is a VM", process.id()), "no instance's"]);

    let base = scene.base("a", "root").await;
    flip(&base, 0);
    assert!(look(false).await.healthy, "it takes reading");
    one_problem(&look(true).await, &["bases: ", "is damaged", "remove that file"]);
    flip(&base, 0);

    let key = data.join("node.key");
    let mode = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).expect("chmod");
    mode(0o644);
    let open = look(false).await;
    mode(0o600);
    one_problem(&open, &["key: ", "chmod 600"]);

    let record = scene.cluster_record().await;
    let mut older: serde_json::Value = serde_json::from_slice(&record).expect("json");
    older["epoch"] = 0.into();
    scene.put_cluster_record(older.to_string().as_bytes()).await;
    one_problem(&look(false).await, &["store: ", "is behind this node"]);
    scene.put_cluster_record(&record).await;

    let config = std::fs::read_to_string(data.join("node.toml")).expect("read");
    std::fs::write(data.join("node.toml"), config.replace("state/state.db", "nowhere/state.db")).expect("write");
    one_problem(&look(false).await, &["store: there is no state store", "put the file back"]);
    assert!(!scene.dir.path().join("nowhere").exists(), "it is not made");
    let installation = scene.store.installation_id();
    std::fs::write(data.join("node.toml"), config.replace(installation, &"0".repeat(installation.len())))
        .expect("write");
    one_problem(&look(false).await, &["store: it is of installation", installation]);
    std::fs::write(data.join("node.toml"), "api = 7").expect("write");
    one_problem(&look(false).await, &["settings: ", "mend the line"]);
}
