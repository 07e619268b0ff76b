//! Commits that nothing disturbs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use form_delta::Image;
use form_node::ErrorCode;
use form_vmm_hooks::fake::Step;
use serde_json::{Value, json};

use crate::hooks::{Point, vm};
use crate::scene::{ARTIFACTS, PAGE, Scene, text, write_page};

#[tokio::test]
async fn promise_1_all_targets_run_what_was_captured() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    let first = scene.head().await;
    scene.poke("a", "memory", 3, 7);
    scene.poke("a", "memory", 5000, 8);
    scene.poke("a", "root", 40, 9);
    // What targets did on their own since is replaced.
    scene.poke("b", "memory", 5001, 10);
    let before = scene.live_dir("a");

    let ended = scene.commit("a").await;
    scene.all_run_the_head(&["a", "b", "c"]).await;
    assert_eq!(scene.live_dir("a"), before, "the source goes on in its own VM");
    let summary = ended.committed();
    assert_eq!(summary.snapshot_id, scene.head().await);
    assert_eq!(summary.parent.as_deref(), Some(first.as_str()));
    let names: Vec<_> = summary.artifacts.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ARTIFACTS);
    let delta_bytes: u64 = summary.artifacts.iter().map(|a| a.delta_bytes).sum();
    assert!((3 * PAGE..4 * PAGE).contains(&delta_bytes), "three pages of noise took {delta_bytes} bytes");
    let roots = summary.artifacts.iter().map(|a| (a.name.clone(), a.root.clone())).collect();
    let mut targets: Vec<_> = summary.targets.iter().map(|t| t.instance.as_str()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["b", "c"]);
    for target in &summary.targets {
        assert_eq!(target.staged_roots, roots);
        assert!(target.sent_bytes > delta_bytes && target.downtime_ns > 0, "{target:?}");
    }
    for name in ["a", "b", "c"] {
        let record = scene.instance(name).await;
        let history: Vec<_> = record.history().map(|s| (s.snapshot_id.as_str(), s.description.as_deref())).collect();
        assert_eq!(history[0], (summary.snapshot_id.as_str(), Some("from a")));
        assert_eq!((history.len(), history[1].0), (2, first.as_str()));
    }
    assert!(scene.attempt(&ended.attempt).await.is_settled());
    assert!(scene.store.unsettled_attempts().await.expect("list").is_empty());
}

/// Rule 9: two instances on one node are two participants and one transfer.
#[tokio::test]
async fn what_two_targets_of_one_node_need_travels_once() {
    let scene = Scene::new(&[&["a"], &["b", "c"]]).await;
    scene.poke("a", "memory", 1, 1);
    scene.commit("a").await;
    for page in 100..500 {
        scene.poke("a", "memory", page, page);
    }
    let ended = scene.commit("a").await;
    scene.all_run_the_head(&["a", "b", "c"]).await;
    let summary = ended.committed();
    let delta_bytes: u64 = summary.artifacts.iter().map(|a| a.delta_bytes).sum();
    assert!(delta_bytes > 400 * PAGE, "{delta_bytes}");
    for target in &summary.targets {
        // What the socket sent to their host: some of it is the protocol's own, and lost datagrams.
        let sent = target.sent_bytes;
        assert!((delta_bytes..delta_bytes * 3 / 2).contains(&sent), "{sent} for {delta_bytes} bytes of frames");
    }
}

#[tokio::test]
async fn any_instance_commits_next_and_the_base_has_moved_on() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    scene.poke("a", "memory", 100, 1);
    let first = scene.commit("a").await;
    let old = scene.base("b", "memory").await;
    scene.poke("c", "memory", 200, 2);
    scene.poke("c", "root", 1, 3);
    let second = scene.commit("c").await;
    scene.all_run_the_head(&["a", "b", "c"]).await;
    assert_eq!(second.committed().parent.as_ref(), Some(&first.committed().snapshot_id));
    let delta_bytes: u64 = second.committed().artifacts.iter().map(|a| a.delta_bytes).sum();
    assert!(delta_bytes < 3 * PAGE, "two pages since the first took {delta_bytes} bytes");
    assert!(!old.exists() && scene.base("b", "memory").await.exists());
}

#[tokio::test]
async fn instances_of_one_node_are_participants_each() {
    let scene = Scene::new(&[&["a", "b"], &["c", "d"]]).await;
    for (source, page) in [("a", 10), ("d", 20)] {
        scene.poke(source, "memory", page, page);
        let ended = scene.commit(source).await;
        assert_eq!(ended.committed().targets.len(), 3);
        assert_eq!(scene.attempt(&ended.attempt).await.acknowledged.len(), 4);
        scene.all_run_the_head(&["a", "b", "c", "d"]).await;
    }
}

#[tokio::test]
async fn promise_6_of_two_commits_at_once_one_wins_and_the_other_hears_which() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    scene.poke("a", "memory", 9, 1);
    scene.poke("b", "memory", 9, 2);
    // Neither is over before the other has begun.
    let holds = [scene.hooks.hold(Point::Host(0)), scene.hooks.hold(Point::Host(1))];
    let requests = ["a", "b"].map(|name| (name, scene.commit_request(name, Value::Null)));
    let (a, b) = tokio::join!(requests[0].1.send(scene.api("a")), requests[1].1.send(scene.api("b")));
    let (winner, won, lost) = if a.0.is_success() { ("a", a, b) } else { ("b", b, a) };
    assert!(won.0.is_success(), "{won:?}");
    let attempt = text(&won.1, "attempt_id");
    assert_eq!((lost.0.as_u16(), text(&lost.1, "code").as_str()), (409, "conflict"));
    assert!(lost.1.to_string().contains(&attempt), "{lost:?}");
    holds.iter().for_each(|hold| hold.release());
    scene.end_of(winner, attempt).await.committed();
    scene.hooks.clear();
    scene.all_run_the_head(&["a", "b", "c"]).await;

    // A client that saw another commit than the source's current one hears of that.
    let seen = json!({"parent": "ab".repeat(32)});
    let error = scene.commit_request("c", seen).refused(scene.api("c")).await;
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.cause.expect("a cause").contains(&scene.head().await));
    scene.commit("c").await.committed();
}

/// `begin` compares with the head; a commit that another has overtaken since is refused at the commit point.
#[tokio::test]
async fn promise_6_the_commit_point_compares_with_the_parent() {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    let head = scene.head().await;
    let hold = scene.hooks.hold(Point::Write(0, "commits/"));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    // Its lock has run out, and another attempt has begun in its place.
    let record = scene.attempt(&attempt).await;
    scene.expire_lock().await;
    let begun = scene.begin_by_hand("b", record.participants).await;
    hold.release();
    let ended = scene.end_of("a", attempt).await;
    ended.failed_with(ErrorCode::Conflict, &[]);
    assert_eq!(scene.head().await, head);
    scene.store.abort(&begun, &scene.node("b").id).await.expect("abort");
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}

#[tokio::test]
async fn between_stop_and_cont_only_what_changed_since_the_warm_pass_is_written() {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    // The warm pass has copied these.
    (100..150).for_each(|page| scene.poke("a", "memory", page, page));
    scene.poke("a", "root", 2, 2);
    let (memory, root) = (scene.live("a", "memory"), scene.live("a", "root"));
    let (late_memory, late_root) = (memory, root);
    let there = Arc::new(OnceLock::new());
    let data = Arc::clone(&there);
    scene.hooks.act(vm("a", Step::CaptureStop), move || {
        // Changed after the warm pass: one that it copied, six that are new, and two of the disk.
        (149..156).for_each(|page| write_page(&late_memory, page, 1000 + page));
        (700..702).for_each(|page| write_page(&late_root, page, page));
        // Written again as it was.
        write_page(&late_memory, 100, 100);
        // Not what is allocated: that counts the file system's own blocks.
        let images = [&late_memory, &late_root].map(|path| Image::open(path).expect("open"));
        let bytes = images.iter().flat_map(|image| image.data()).map(|extent| extent.len_bytes()).sum::<u64>();
        data.set(bytes).expect("once");
    });
    let ended = scene.commit("a").await;
    let summary = ended.committed();
    assert_eq!(summary.paused_written_bytes, 9 * PAGE);
    assert_eq!(Some(&summary.paused_read_bytes), there.get(), "compared: all data, once");
    scene.all_run_the_head(&["a", "b"]).await;
}

#[tokio::test]
async fn promise_5_the_same_request_is_the_same_attempt() {
    let mut scene = Scene::new(&[&["a"], &["b"]]).await;
    let request = scene.commit_request("a", Value::Null);
    let hold = scene.hooks.hold(Point::Host(1));
    let first = request.accepted(scene.api("a")).await;
    hold.reached().await;
    assert_eq!(request.accepted(scene.api("a")).await, first, "while it is under way");
    // Through a node that does not host the instance.
    assert_eq!(request.accepted(scene.api("b")).await, first);
    hold.release();
    scene.end_of("a", text(&first, "attempt_id")).await.committed();
    let head = scene.head().await;
    assert_eq!(request.accepted(scene.api("a")).await, first, "when it is over");
    scene.node_mut("a").restart().await;
    assert_eq!(request.accepted(scene.api("a")).await, first, "after a restart");
    assert_eq!(scene.head().await, head);
    let epoch = scene.store.epoch(&scene.cluster).await.expect("epoch");
    assert_eq!(epoch, scene.attempt(&text(&first, "attempt_id")).await.epoch, "no other attempt has begun");
}

#[tokio::test]
async fn targets_are_other_instances_and_each_is_named_once() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    let (a, b) = (scene.id("a"), scene.id("b"));
    for targets in [json!([]), json!([a]), json!([b, a])] {
        let request = scene.commit_request("a", json!({"targets": targets}));
        let error = request.refused(scene.api("a")).await;
        assert_eq!(error.code, ErrorCode::BadRequest, "{targets}");
    }
    let request = scene.commit_request("a", json!({"targets": [b, b]}));
    let attempt = text(&request.accepted(scene.api("a")).await, "attempt_id");
    let ended = scene.end_of("a", attempt).await;
    assert_eq!(ended.committed().targets.len(), 1);
    scene.all_run_the_head(&["a", "b"]).await;

    // The one that was left out is brought along by the next commit.
    scene.poke("b", "memory", 77, 7);
    scene.commit("b").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
}

/// The guest stands still in the pause alone. Whatever it writes before, the manifest is that of a full scan.
#[tokio::test]
async fn promise_3_a_guest_that_writes_while_it_is_copied() {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    scene.commit("a").await.committed();
    for round in 0..3 {
        let (memory, root) = (scene.live("a", "memory"), scene.live("a", "root"));
        let (runs, writes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let guest = std::thread::spawn({
            let (runs, writes) = (Arc::clone(&runs), Arc::clone(&writes));
            move || {
                while runs.load(Ordering::SeqCst) {
                    let n = writes.fetch_add(1, Ordering::SeqCst);
                    write_page(if n % 4 == 0 { &root } else { &memory }, n * 37 % 1000, n + round);
                }
            }
        });
        scene.wait_for("the guest writes", async || writes.load(Ordering::SeqCst) > 10).await;
        scene.hooks.act(vm("a", Step::CaptureStop), move || {
            runs.store(false, Ordering::SeqCst);
            guest.join().expect("no panic");
        });
        let ended = scene.commit("a").await;
        let summary = ended.committed();
        assert!((1..=4).contains(&summary.warm_rounds), "{}", summary.warm_rounds);
        assert_eq!(summary.pause_parts_ns.len(), 4, "{:?}", summary.pause_parts_ns);
        for artifact in &summary.artifacts {
            let base = Image::open(&scene.base("a", &artifact.name).await).expect("open");
            assert_eq!(artifact.root, form_delta::scan(&base).root().to_string(), "{}", artifact.name);
        }
        scene.all_run_the_head(&["a", "b"]).await;
    }
}
