//! What a node that is joined tells, and what is believed of it.

use std::path::Path;

use form_node::ErrorCode;
use form_node::auth::{NOTHING, RequestMessage, sign};
use serde_json::{Value, json};

use crate::client::{Signed, message, now_ms};
use crate::rogue::Rogue;
use crate::scene::Scene;

const ROUTE: &str = "/api/v1/instances";

fn body(scene: &Scene) -> String {
    json!({"name": "c", "like": scene.id("a")}).to_string()
}

/// A node like any other: it hosts `a`, and a third one has nothing yet.
async fn scene() -> (Scene, Rogue) {
    let scene = Scene::new(&[&["a"], &["b"], &[]]).await;
    scene.commit("a").await.committed();
    let rogue = Rogue::in_place_of(&scene, "a").await;
    (scene, rogue)
}

/// What the rogue answers to whoever asks for the head.
async fn seeding(scene: &Scene, session: &str, change: impl FnOnce(&mut Value)) -> Value {
    let head = scene.store.commit_record(&scene.head().await).await.expect("read").expect("the head");
    let kernel = scene.dir.path().join("kernel");
    let qemu = json!({"memory_bytes": crate::scene::MEMORY_BYTES, "vcpus": 1, "kernel": kernel, "cmdline": ""});
    let mut spec = json!({"vmm": {"qemu": qemu}, "disks": [{"name": "root", "template": "/srv/root.raw"}]});
    change(&mut spec);
    json!({"answer": "seeding", "session": session, "commit": hex::encode(head.bytes), "indexes": [], "spec": spec})
}

/// A machine of files that is started by this command.
fn files(start: &[&str]) -> Value {
    let none: [&str; 0] = [];
    json!({"files": {"commands": {"pause": none, "resume": none, "start": start, "stop": none, "timeout_s": 30}}})
}

async fn join(scene: &Scene) -> form_node::ApiError {
    let subject = Some((scene.cluster.as_str(), scene.id("a")));
    let request = Signed::new(&scene.owner, scene.store.installation_id(), subject, "POST", ROUTE, body(scene));
    request.refused(scene.nodes[2].api).await
}

#[tokio::test]
async fn a_spec_from_a_peer_is_checked() {
    let (scene, rogue) = scene().await;
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 8] = [
        ("can't be the name of a disk", |s| s["disks"][0]["name"] = json!("../../a")),
        ("not an absolute path", |s| s["disks"][0]["template"] = json!("root.raw")),
        ("control character", |s| s["vmm"]["qemu"]["cmdline"] = json!("a\nb")),
        ("2 virtual CPUs", |s| s["vmm"]["qemu"]["vcpus"] = json!(2)),
        ("other images", |s| s["disks"][0]["name"] = json!("swap")),
        ("another memory", |s| s["vmm"]["qemu"]["memory_bytes"] = json!(64 << 20)),
        ("other images", |s| s["vmm"] = files(&[])),
        ("name of a program", |s| s["vmm"] = files(&["/bin/sh"])),
    ];
    for (why, change) in cases {
        rogue.answer(&seeding(&scene, &"ab".repeat(16), change).await);
        let error = join(&scene).await;
        let text = format!("{}: {}", error.message, error.cause.unwrap_or_default());
        assert!(text.contains(why), "expected {why:?}: {text}");
    }
    assert_eq!(scene.nodes[2].names("instances"), [""; 0]);
    assert_eq!(scene.nodes[2].names("clusters"), [""; 0]);
    rogue.close().await;
}

/// Its kernel is a file of the node's own, which the guest could read.
#[tokio::test]
async fn a_spec_does_not_name_the_nodes_own_files() {
    let (scene, rogue) = scene().await;
    let state = scene.dir.path().join("state/state.db");
    rogue.answer(&seeding(&scene, &"ab".repeat(16), |spec| spec["vmm"]["qemu"]["initrd"] = json!(state)).await);
    assert_eq!(join(&scene).await.code, ErrorCode::NotAllowed);
    rogue.close().await;

    let new = |disk: &Path| {
        let kernel = scene.dir.path().join("kernel");
        let spec = format!(
            "vmm = \"qemu\"\nmemory = \"32MiB\"\nkernel = {kernel:?}\n[[disk]]\nname = \"root\"\npath = {disk:?}\n"
        );
        let body = json!({"name": "d", "spec": spec}).to_string();
        Signed::new(&scene.owner, scene.store.installation_id(), None, "POST", ROUTE, body)
    };
    let image = scene.base("b", "root").await;
    std::os::unix::fs::symlink(&image, scene.dir.path().join("link")).expect("link");
    for disk in [&image, &scene.dir.path().join("link")] {
        assert_eq!(new(disk).refused(scene.api("b")).await.code, ErrorCode::NotAllowed, "{disk:?}");
    }
    new(&scene.dir.path().join("root.raw")).accepted(scene.api("b")).await;
}

/// The name of its session is no name of ours.
#[tokio::test]
async fn a_peer_does_not_say_what_is_removed_here() {
    let (scene, rogue) = scene().await;
    let attempt = "cd".repeat(16);
    let staged = scene.nodes[2].data.join("staging").join(&attempt).join("prepared");
    std::fs::create_dir_all(&staged).expect("make");
    rogue.answer(&seeding(&scene, &attempt, |_| {}).await);
    assert_eq!(join(&scene).await.code, ErrorCode::Aborted);
    assert!(staged.exists(), "it is another attempt's");
    std::fs::remove_dir_all(staged.parent().expect("a parent")).expect("remove");
    scene.in_order().await;
    rogue.close().await;
}

/// The head is for those who were let in: by a node, and not long ago.
#[tokio::test]
async fn the_head_is_for_who_was_let_in() {
    let (scene, rogue) = scene().await;
    let home = |record: &mut form_node::store::InstanceRecord| record.node_id = scene.node("a").id.clone();
    scene.store.update_instance(scene.id("a"), home).await.expect("write");
    let message = |age_ms: u64| {
        let subject = Some((scene.cluster.as_str(), scene.id("a")));
        let message = message(scene.store.installation_id(), subject, "POST", ROUTE, &body(&scene));
        RequestMessage { time_ms: now_ms() - age_ms, ..message }
    };
    let ask = async |message: &RequestMessage, noted_ago_ms: Option<u64>| {
        let request = sign(&scene.owner, message);
        if let Some(ago_ms) = noted_ago_ms {
            let hash = hex::encode(request.request_hash());
            assert!(scene.store.note_request(&hash, now_ms() - ago_ms).await.expect("note"));
        }
        let question = json!({"ask": "seed", "instance": scene.id("a"), "request": request, "roots": []});
        rogue.question(&scene, "a", &question).await
    };
    let code = |answer: &Value| answer["error"]["code"].as_str().unwrap_or_default().to_owned();
    assert_eq!(code(&ask(&message(0), None).await), "not_allowed");
    assert_eq!(code(&ask(&message(500_000), Some(100_000)).await), "stale_request", "stale when it came");
    assert_eq!(code(&ask(&message(3_000_000), Some(3_000_000)).await), "stale_request", "nobody waits any more");
    assert_eq!(code(&ask(&RequestMessage { cluster: NOTHING.into(), ..message(0) }, Some(0)).await), "not_allowed");
    assert_eq!(scene.node("a").names("staging"), [""; 0]);

    // A first commit may have come between.
    let answer = ask(&message(120_000), Some(119_000)).await;
    assert_eq!(answer["answer"], "seeding", "{answer}");
    let session = crate::scene::text(&answer, "session");
    assert_eq!(scene.node("a").names("staging"), [session.as_str()]);
    rogue.question(&scene, "a", &json!({"ask": "seed_done", "session": session})).await;
    scene.in_order().await;
    rogue.close().await;
}
