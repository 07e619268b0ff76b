//! Damaged bytes: found by verification, named, never restored.

use std::path::PathBuf;

use form_node::ErrorCode;
use form_proto::Step::Prepared;
use form_vmm_hooks::fake::Step;

use crate::hooks::{Point, vm};
use crate::scene::{PAGE, Scene, flip, same};

async fn pair() -> Scene {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    (0..64).for_each(|page| scene.poke("a", "memory", 100 + page, page));
    scene.commit("a").await.committed();
    scene.poke("a", "memory", 20, 20);
    scene
}

fn restores(scene: &Scene) -> usize {
    scene.vmm.calls().iter().filter(|(_, step)| *step == Step::Restore).count()
}

async fn the_next_commit_succeeds(scene: &Scene) {
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}

#[tokio::test]
async fn promise_3_a_frame_that_was_damaged_at_the_source() {
    let scene = pair().await;
    let before = restores(&scene);
    let staging = scene.node("a").data.join("staging");
    // The target asks for its host's facts twice: in the preflight, and when it has the offer and fetches next.
    scene.hooks.act(Point::Host(1), || {});
    scene.hooks.act(Point::Host(1), move || {
        let frames = files_below(&staging).into_iter().filter(|path| path.to_string_lossy().ends_with(".frames"));
        let frames: Vec<_> = frames.filter(|path| path.to_string_lossy().contains("/memory.")).collect();
        assert_eq!(frames.len(), 1, "{frames:?}");
        flip(&frames[0], 100);
    });
    scene.commit("a").await.failed_with(ErrorCode::Aborted, &["target b", "memory", "frame 0"]);
    assert_eq!(restores(&scene), before);
    the_next_commit_succeeds(&scene).await;
}

#[tokio::test]
async fn promise_8_a_base_whose_manifest_is_damaged_is_no_base() {
    let scene = pair().await;
    for holder in ["a", "b"] {
        scene.poke("a", "memory", 20, 30);
        flip(&scene.base(holder, "memory").await.with_extension("manifest"), 40);
        let ended = scene.commit("a").await;
        let summary = ended.committed();
        let delta_bytes = |name| summary.artifacts.iter().find(|a| a.name == name).expect("it").delta_bytes;
        assert!(delta_bytes("memory") > 64 * PAGE, "sent in full, as {holder} has no base");
        assert!(delta_bytes("root") < PAGE, "the other bases are used");
        scene.all_run_the_head(&["a", "b"]).await;
    }
}

#[tokio::test]
async fn promise_3_a_base_image_that_was_damaged_at_a_target() {
    let scene = pair().await;
    let before = restores(&scene);
    // With one, its base's bytes would not be needed.
    scene.no_standbys("b");
    // Far from what the commit changes: these bytes are kept.
    flip(&scene.base("b", "memory").await, 150 * PAGE + 77);
    scene.commit("a").await.failed_with(ErrorCode::Aborted, &["target b", "memory", "base"]);
    assert_eq!(restores(&scene), before);
    // The damaged base is not used again.
    the_next_commit_succeeds(&scene).await;
    let ended = scene.commit("a").await;
    let memory = ended.committed().artifacts.iter().find(|a| a.name == "memory").expect("it");
    assert!(memory.delta_bytes < PAGE, "the new base is used");
}

/// The source's base only says what need not be sent: the capture is compared with it, and copied from the guest.
#[tokio::test]
async fn promise_3_a_base_image_that_was_damaged_at_the_source() {
    let scene = pair().await;
    flip(&scene.base("a", "memory").await, 150 * PAGE + 77);
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
    assert!(same(&scene.live("a", "memory"), &scene.live("b", "memory")));
}

/// What is committed does not depend on the base; what is left of others in it goes.
#[tokio::test]
async fn a_base_that_is_lost_after_the_commit_point() {
    let scene = pair().await;
    for name in ["image-of-nobody.img", "manifest-of-nobody.manifest", "half-written.new"] {
        std::fs::write(scene.base_dir("b").join(name), "left over").expect("write");
    }
    let hold = scene.hooks.hold(vm("b", Step::Resume));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    let staged = files_below(&scene.node("b").data.join("staging"));
    let memory = staged.iter().find(|path| path.ends_with("memory.img")).expect("it is staged");
    std::fs::remove_file(memory).expect("remove");
    hold.release();
    scene.end_of("a", attempt).await.committed();
    let bases = files_below(&scene.base_dir("b"));
    let images = bases.iter().filter(|path| path.extension().is_some_and(|kind| kind == "img")).count();
    assert_eq!(images, 2, "device and root: {bases:?}");
    the_next_commit_succeeds(&scene).await;
}

fn files_below(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("read").map(|entry| entry.expect("entry").path()) {
        match entry.is_dir() {
            true => found.extend(files_below(&entry)),
            false => found.push(entry),
        }
    }
    found
}

/// After the commit point the VM is gone and made again: from images that are read again in full first.
#[tokio::test]
async fn promise_3_a_verified_image_that_was_damaged_before_it_is_restored_again() {
    let scene = pair().await;
    let hold = scene.hooks.hold(Point::Written(0, "commits/"));
    let attempt = scene.begin("a").await;
    hold.reached().await;
    scene.vmm.crash("b");
    let (before, id) = (restores(&scene), scene.id("b"));
    let staged = scene.node("b").data.join("staging").join(&attempt).join(id);
    let live = scene.node("b").data.join("instances").join(id).join(format!("vm-{}", &attempt[..12]));
    let made = || std::fs::metadata(&live).and_then(|dir| dir.modified()).ok();
    let damaged = [("device", 3), ("memory", 20 * PAGE + 5)].map(|(name, at)| (staged.join(format!("{name}.img")), at));
    damaged.iter().for_each(|(image, at)| flip(image, *at));
    hold.release();
    for (image, at) in &damaged {
        // What was under way, and one more try.
        for _ in 0..2 {
            let last = made();
            scene.wait_for("it is tried again", async || made().is_some() && made() != last).await;
        }
        assert_eq!(restores(&scene), before, "nothing is restored from a damaged {image:?}");
        flip(image, *at);
    }
    scene.end_of("a", attempt).await.committed();
    assert_eq!(restores(&scene), before + 1);
    scene.all_run_the_head(&["a", "b"]).await;
}

/// What was verified is what is opened: bytes that change after a target's word that it is ready, and before its restore.
#[tokio::test]
async fn promise_3_an_image_that_was_damaged_after_it_had_been_verified() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    scene.commit("a").await.committed();
    for (artifact, says) in [("device", "device"), ("memory", "memory was changed"), ("root", "root was changed")] {
        scene.poke("a", "memory", 20, 20);
        let before = restores(&scene);
        // In the preflight, and then with the offer.
        scene.hooks.act(Point::Host(2), || {});
        let hold = scene.hooks.hold(Point::Host(2));
        let attempt = scene.begin("a").await;
        scene.wait_for_step(&["b"], Prepared).await;
        let (data, id) = (&scene.node("b").data, scene.id("b"));
        let image = match artifact {
            "device" => data.join("staging").join(&attempt).join(id),
            _ => data.join("instances").join(id).join(format!("vm-{}", &attempt[..12])),
        };
        flip(&image.join(format!("{artifact}.img")), 3);
        hold.release();
        scene.end_of("a", attempt).await.failed_with(ErrorCode::Aborted, &["target b", says]);
        let restored = restores(&scene) - before;
        assert!(restored <= 1, "c may have been faster; nothing of b's is restored: {restored}");
    }
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b", "c"]).await;
}
