//! Where the file system can't share blocks, files that wait near the head become the next images.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use form_delta::CloneKind;

use crate::scene::{Scene, flip, same};

/// Nothing of this is done on XFS or btrfs.
fn shares_blocks(dir: &Path) -> bool {
    let (from, to) = (dir.join("probe"), dir.join("probe-clone"));
    File::create(&from).and_then(|file| file.write_all_at(&[1; 4096], 0)).expect("write");
    form_delta::clone_image(&from, &to).expect("clone") == CloneKind::Reflink
}

async fn pair() -> Option<Scene> {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    if shares_blocks(scene.dir.path()) {
        return None;
    }
    (0..64).for_each(|page| scene.poke("a", "memory", 100 + page, page));
    scene.commit("a").await.committed();
    Some(scene)
}

fn inode(path: impl AsRef<Path>) -> u64 {
    std::fs::metadata(path).expect("stat").ino()
}

fn inodes(paths: [impl AsRef<Path>; 2]) -> BTreeSet<u64> {
    paths.into_iter().map(inode).collect()
}

#[tokio::test]
async fn a_commit_copies_no_image_and_what_it_replaces_stands_by() {
    let Some(scene) = pair().await else { return };
    let names = ["a", "b"];
    for round in 0..3 {
        let source = names[round % 2];
        let target = names[(round + 1) % 2];
        let mut before = Vec::new();
        for artifact in ["memory", "root"] {
            let standbys = [scene.standbys(source, artifact).await, scene.standbys(target, artifact).await].map(inodes);
            let bases = [scene.base(source, artifact).await, scene.base(target, artifact).await].map(inode);
            before.push((artifact, standbys, bases, names.map(|name| inode(scene.live(name, artifact)))));
            for name in names {
                let files = [inode(scene.base(name, artifact).await), inode(scene.live(name, artifact))];
                let all = inodes(scene.standbys(name, artifact).await).into_iter().chain(files);
                assert_eq!(all.collect::<BTreeSet<_>>().len(), 4, "base, live and standbys are different files");
            }
        }
        scene.poke(source, "memory", 3000 + round as u64, 7 + round as u64);
        scene.poke(target, "memory", 50, 1000 + round as u64);
        scene.commit(source).await.committed();
        scene.all_run_the_head(&names).await;
        for (artifact, [of_source, of_target], [source_base, target_base], lives) in before {
            let old_live = lives[(round + 1) % 2];
            let used = inodes([scene.base(target, artifact).await, scene.live(target, artifact)]);
            assert_eq!(used, of_target, "{artifact} of the target was a standby, as base and as live copy");
            assert!(
                of_source.contains(&inode(scene.base(source, artifact).await)),
                "the source's shadow was a standby"
            );
            let next = inodes(scene.standbys(target, artifact).await);
            assert_eq!(next, BTreeSet::from([target_base, old_live]), "{artifact}: what was replaced stands by");
            let left: BTreeSet<_> = of_source.into_iter().chain([source_base]).collect();
            assert!(inodes(scene.standbys(source, artifact).await).is_subset(&left));
            for name in names {
                let base = scene.base(name, artifact).await;
                assert!(scene.standbys(name, artifact).await.iter().all(|standby| same(standby, &base)), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_standby_that_was_touched_is_not_used() {
    let Some(scene) = pair().await else { return };
    let standbys = scene.standbys("b", "memory").await;
    for (standby, page) in standbys.iter().zip([150, 151]) {
        flip(standby, page * 4096 + 77);
    }
    let touched = inodes(standbys);
    scene.poke("a", "memory", 20, 20);
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
    assert!(!touched.contains(&inode(scene.live("b", "memory"))));
    // It is compared in full, and is right again.
    let base = scene.base("b", "memory").await;
    assert!(scene.standbys("b", "memory").await.iter().all(|standby| same(standby, &base)));
}

#[tokio::test]
async fn a_node_that_was_killed_takes_its_standbys_up_again() {
    let Some(mut scene) = pair().await else { return };
    let before = inodes(scene.standbys("b", "memory").await);
    scene.node_mut("b").kill();
    let record = scene.standby_dir("b").join("memory.0.img.record");
    let torn = std::fs::read(&record).expect("read");
    std::fs::write(&record, &torn[..50]).expect("write");
    std::fs::create_dir(scene.standby_dir("b").with_file_name("nobody")).expect("make");
    scene.node_mut("b").start().await;
    assert_eq!(inodes(scene.standbys("b", "memory").await), before);
    assert!(!scene.standby_dir("b").with_file_name("nobody").exists(), "of an instance that is gone");
    scene.poke("a", "root", 3, 3);
    scene.commit("a").await.committed();
    scene.all_run_the_head(&["a", "b"]).await;
}
