//! Promise 8: a hint of what changed saves reading, and a wrong one changes nothing.

use std::ops::Range;

use form_vmm_hooks::fake::Step;
use form_vmm_hooks::{Cuts, Mark};

use crate::hooks::vm;
use crate::scene::{PAGE, Scene};

/// Blocks of the disk that the scene makes.
const DISK_DATA: Range<u64> = 0..16;

fn data_block(number: u64) -> u64 {
    number * 3
}

fn blocks(blocks: &[u64]) -> Vec<Range<u64>> {
    blocks.iter().map(|block| block * PAGE..(block + 1) * PAGE).collect()
}

fn say(scene: &Scene, name: &str, written: Vec<Range<u64>>) {
    scene.vmm.say_written(name, [("root".to_owned(), written)].into());
}

/// The marks of the disk's cuts at an instance, oldest first.
fn cuts(scene: &Scene, name: &str) -> Vec<(Option<Mark>, Mark)> {
    let of = |(machine, cuts): (String, Cuts)| {
        let cut = cuts.get("root").filter(|_| machine == name)?;
        Some((cut.since.clone(), cut.next.clone()))
    };
    scene.vmm.cuts().into_iter().filter_map(of).collect()
}

/// What was last to be kept of the disk's recordings: its name, and of which ones it is made.
fn kept(scene: &Scene, name: &str) -> (Mark, Vec<Mark>) {
    let all = scene.vmm.keeps();
    let (_, keeps) = all.iter().rfind(|(machine, _)| machine == name).expect("something was kept");
    let keep = keeps.get("root").expect("of the disk");
    (keep.kept.clone(), keep.chain.clone())
}

#[tokio::test]
async fn promise_8_only_what_a_hint_says_is_read_of_a_disk() {
    let scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
    scene.poke("a", "root", data_block(3), 7);
    let full = scene.commit("a").await.committed().paused_read_bytes;
    scene.poke("a", "root", data_block(4), 8);
    say(&scene, "a", blocks(&[data_block(4), data_block(5)]));
    let hinted = scene.commit("a").await.committed().clone();
    scene.all_run_the_head(&["a", "b", "c"]).await;
    let unread = DISK_DATA.end - 2;
    assert_eq!(full - hinted.paused_read_bytes, unread * PAGE, "all of the disk, and then two blocks");
    let disk = hinted.artifacts.iter().find(|artifact| artifact.name == "root").expect("a disk");
    assert_eq!(disk.changed_bytes, PAGE, "what did not change is not sent, whatever the hint says");
}

#[tokio::test]
async fn a_recording_is_named_by_its_base_and_has_no_gap() {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    scene.commit("a").await.committed();
    let (since, chain) = kept(&scene, "a");
    let made = cuts(&scene, "a");
    let [.., (_, warm), (before, pause)] = made.as_slice() else { panic!("{made:?}") };
    assert_eq!((before.as_ref(), chain), (Some(warm), vec![pause.clone()]), "it goes on from the pause");
    // The target begins with the same name, before its first write.
    assert_eq!(cuts(&scene, "b"), [(None, since.clone())]);
    let head = scene.base("a", "root").await;
    let root = head.file_stem().expect("a name").to_string_lossy().into_owned();
    assert!(since.to_string().contains(&root), "{since} is since {root}");

    // A capture that fails gives all back to the old name.
    scene.hooks.fail(vm("a", Step::CaptureState));
    scene.commit("a").await.failed();
    let made = cuts(&scene, "a");
    let [.., (first, warm), (_, pause)] = made.as_slice() else { panic!("{made:?}") };
    assert_eq!(first.as_ref(), Some(&since));
    assert_eq!(kept(&scene, "a"), (since.clone(), vec![since.clone(), warm.clone(), pause.clone()]));

    // And whoever commits next, begins there.
    scene.commit("b").await.committed();
    assert_eq!(cuts(&scene, "b")[1].0.as_ref(), Some(&since));
    assert_ne!(kept(&scene, "b").0, since, "the same root by another attempt has another name");
}

#[tokio::test]
async fn promise_8_a_hint_that_lies_gives_no_wrong_image_and_is_not_believed_again() {
    for lie in [vec![], blocks(&[1000, 1001]), blocks(&[data_block(15)])] {
        let mut scene = Scene::new(&[&["a"], &["b"], &["c"]]).await;
        // Of this small disk every block is in the sample.
        say(&scene, "a", lie.clone());
        scene.poke("a", "root", data_block(2), 7);
        scene.poke("a", "root", 700, 8);
        scene.commit("a").await.committed();
        scene.all_run_the_head(&["a", "b", "c"]).await;

        let asked = cuts(&scene, "a").len();
        scene.node_mut("a").restart().await;
        scene.poke("a", "root", data_block(6), 9);
        scene.commit("a").await.committed();
        scene.all_run_the_head(&["a", "b", "c"]).await;
        assert_eq!(cuts(&scene, "a").len(), asked, "it is not asked any more, by a later daemon either");
    }
}

#[tokio::test]
async fn a_hint_that_can_not_be_is_none() {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    let range = |start, end| vec![Range { start, end }];
    for impossible in [range(0, u64::MAX), range(2 * PAGE, PAGE), blocks(&[1024])] {
        say(&scene, "a", impossible);
        scene.poke("a", "root", data_block(2), scene.vmm.cuts().len() as u64);
        scene.commit("a").await.committed();
        scene.all_run_the_head(&["a", "b"]).await;
    }
    let asked = cuts(&scene, "a").len();
    scene.commit("a").await.committed();
    assert_eq!(cuts(&scene, "a").len(), asked + 2, "it was no lie about a block: it is still asked");
}
