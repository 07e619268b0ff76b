//! `form delta standby`, and what `apply` believes of a standby image.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

use form_delta::generate::noise;
use form_delta::{Image, Standby, scan};

use crate::delta_scene::Scene;

const MIB: usize = 1 << 20;
const APPLY: [&str; 9] = ["apply", "--base", "A", "--delta", "P", "--out", "C", "--standby", "S"];

/// With a delta from A to B.
fn made() -> Scene {
    let scene = Scene::large();
    scene.json(&["make", "--base", "A", "--new", "B", "--out", "P"]);
    scene
}

#[test]
fn from_one_update_to_the_next_nothing_is_scanned_and_nothing_compared() {
    let scene = made();
    scene.json(&["index", "A"]);
    assert_eq!(scene.json(&["standby", "--base", "A", "S"])["bytes_written"], 2 * MIB);
    scene.holds(&["A", "A.fdx", "B", "P", "S", "S.record"]);
    let applied = scene.json(&APPLY);
    assert_eq!((&applied["standby_known"], &applied["indexes_used"]), (&true.into(), &1.into()));
    assert!(scene.read("C") == scene.read("B"));
    scene.holds(&["A", "A.fdx", "B", "C", "C.fdx", "P"]);

    // The base of before becomes the standby image: what is known of both says where they differ.
    let brought = scene.json(&["standby", "--base", "C", "A"]);
    let (read, image) = (brought["bytes_read"].as_u64().unwrap(), brought["image_bytes"].as_u64().unwrap());
    assert!(0 < read && read < image / 5 * 4, "{brought}");
    assert!(scene.read("A") == scene.read("C"));
    assert_eq!(scene.json(&["standby", "--base", "C", "A"])["bytes_read"], 0);
    scene.holds(&["A", "A.record", "B", "C", "C.fdx", "P"]);

    let mut third = scene.read("C");
    third[2_500_000] ^= 1;
    third.truncate(4_000_000);
    std::fs::write(scene.path("B"), &third).unwrap();
    let made = scene.json(&["make", "--base", "C", "--new", "B", "--out", "P2"]);
    let applied = scene.json(&["apply", "--base", "C", "--delta", "P2", "--out", "D", "--standby", "A"]);
    assert_eq!((&made["indexes_used"], &applied["indexes_used"]), (&1.into(), &1.into()));
    assert_eq!(applied["standby_known"], true);
    assert!(scene.read("D") == third);
    scene.holds(&["B", "C", "C.fdx", "D", "D.fdx", "P", "P2"]);
    // What was kept of it is what an index made anew says.
    let kept = scene.json(&["info", "P2"])["root"].clone();
    assert_eq!(scene.json(&["index", "D", "--out", "anew.fdx"])["root"], kept);
}

/// The source's side of the same: what it sent is its next base.
#[test]
fn from_one_delta_to_the_next_nothing_is_scanned() {
    let scene = Scene::large();
    scene.json(&["index", "A"]);
    scene.json(&["make", "--base", "A", "--new", "B", "--out", "P", "--index"]);
    scene.holds(&["A", "A.fdx", "B", "B.fdx", "P"]);
    let mut third = scene.read("B");
    third.rotate_left(5 * 4096);
    std::fs::write(scene.path("D"), &third).unwrap();
    let made = scene.json(&["make", "--base", "B", "--new", "D", "--out", "P2", "--index"]);
    assert_eq!(made["indexes_used"], 1);
    // Its blocks are known too: what was rotated is copied.
    let sent = |kind: &str| made["kinds"][kind]["image_bytes"].as_u64().unwrap();
    assert!(sent("raw") + sent("zstd") + sent("zstd_prefix") + sent("edited") < 200_000, "{made}");
    let kept = made["root"].clone();
    assert_eq!(scene.json(&["index", "D", "--out", "anew.fdx"])["root"], kept);
    // Without an index of the base there are blocks all the same, and its index is what was built.
    std::fs::remove_file(scene.path("B.fdx")).unwrap();
    scene.json(&["make", "--base", "B", "--new", "D", "--out", "P3", "--index"]);
    assert!(scene.read("P3") == scene.read("P2"));
}

/// What is known of blocks goes from index to index: data that moves is found as if the image had been read.
#[test]
fn an_index_that_apply_has_kept_finds_what_moved() {
    let scene = made();
    scene.json(&["index", "A"]);
    scene.json(&["standby", "--base", "A", "S"]);
    scene.json(&APPLY);
    let mut moved = scene.read("C");
    moved.rotate_left(128 * 4096);
    std::fs::write(scene.path("B"), &moved).unwrap();
    let words = |out| ["make", "--base", "C", "--new", "B", "--out", out];
    let kept = scene.json(&words("P1"));
    std::fs::remove_file(scene.path("C.fdx")).unwrap();
    let read = scene.json(&words("P2"));
    assert_eq!((&kept["indexes_used"], &read["indexes_used"]), (&1.into(), &0.into()));
    let bytes = |made: &serde_json::Value| made["bytes"].as_u64().unwrap();
    assert!(bytes(&kept) <= bytes(&read) + 4096, "{kept} {read}");
}

#[test]
fn a_record_is_believed_of_the_very_file_only() {
    type Spoil = fn(&Scene);
    let spoils: [(&str, Spoil); 4] = [
        ("gone", |scene| std::fs::remove_file(scene.path("S.record")).unwrap()),
        ("cut short", |scene| {
            let record = scene.read("S.record");
            std::fs::write(scene.path("S.record"), &record[..record.len() - 1]).unwrap();
        }),
        ("damaged", |scene| {
            let mut record = scene.read("S.record");
            record[20] ^= 1;
            std::fs::write(scene.path("S.record"), record).unwrap();
        }),
        ("another file", |scene| {
            std::fs::copy(scene.path("S"), scene.path("copy")).unwrap();
            std::fs::rename(scene.path("copy"), scene.path("S")).unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        let scene = made();
        scene.json(&["standby", "--base", "A", "S"]);
        spoil(&scene);
        let applied = scene.json(&APPLY);
        assert_eq!(applied["standby_known"], false, "{what}");
        assert!(scene.read("C") == scene.read("B"), "{what}");
        scene.holds(&["A", "B", "C", "C.fdx", "P"]);
    }

    let scene = made();
    scene.json(&["standby", "--base", "A", "S"]);
    File::options().write(true).open(scene.path("S")).unwrap().write_all_at(b"x", 1_200_000).unwrap();
    let ran = scene.form(&APPLY);
    assert_eq!(ran.code, 6, "{ran}");
    assert!(ran.stderr.contains("/S does not equal the base"), "{ran}");
    scene.holds(&["A", "B", "P", "S", "S.record"]);
}

/// What no record can see: writes behind the file system's back.
#[test]
fn a_record_that_lies_about_the_very_file() {
    let scene = made();
    let root = scan(&form_delta::generate::image(&scene.read("A")).unwrap()).root();
    let lie = |bytes: &[u8]| {
        std::fs::write(scene.path("S"), bytes).unwrap();
        Standby::open(&scene.path("S")).unwrap().know(root).unwrap();
    };
    // Much is found by the sample, and what is written is checked in any case.
    lie(&noise(7, 3 * MIB));
    let ran = scene.form(&APPLY);
    assert_eq!(ran.code, 6, "{ran}");
    assert!(ran.stderr.contains("/S does not equal the base"), "{ran}");
    assert!(scene.read("S") == noise(7, 3 * MIB));
    // Little is written over, or found where it is looked for: within chunks that are made, or by reading all.
    let truth = scene.read("A");
    for at in (1_700_000..1_900_000).step_by(10_000) {
        let mut other = truth.clone();
        other[at] ^= 1;
        lie(&other);
        let ran = scene.form(&[&APPLY[..], &["--verify", "full"]].concat());
        let is_right = scene.path("C").exists() && scene.read("C") == scene.read("B");
        assert_eq!(ran.code == 0, is_right, "{at}: {ran}");
        for name in ["C", "C.fdx"] {
            let _ = std::fs::remove_file(scene.path(name));
        }
    }
    let mut other = truth;
    other[1_200_000] ^= 1;
    lie(&other);
    let ran = scene.form(&[&APPLY[..], &["--verify", "full"]].concat());
    // The sample finds it before anything is written, or reading all does afterwards.
    assert!(ran.code == 6 && ran.stderr.contains("/S does not equal the base"), "{ran}");
    assert!(!scene.path("C").exists());
    // It does not stay so: the same again compares, and undoes only what it has written itself.
    let ran = scene.form(&APPLY);
    assert!(ran.code == 6 && ran.stderr.contains("/S does not equal the base"), "{ran}");
}

/// A copy that was broken off is no other file: the same command goes on.
#[test]
fn a_copy_that_was_broken_off_goes_on() {
    let scene = Scene::large();
    let (base, manifest) = (File::open(scene.path("A")).unwrap(), scan(&Image::open(&scene.path("A")).unwrap()));
    let asked = AtomicU32::new(0);
    let mut standby = Standby::open(&scene.path("S")).unwrap();
    let go_on = || asked.fetch_add(1, Ordering::Relaxed) < 4;
    assert!(standby.bring_to(&base, &manifest, None, &go_on).is_err());
    drop(standby);
    assert!(scene.read("S") != scene.read("A"));
    scene.json(&["standby", "--base", "A", "S"]);
    assert!(scene.read("S") == scene.read("A"));
    scene.holds(&["A", "B", "S", "S.record"]);
}

#[test]
fn a_standby_is_made_of_nothing_else() {
    let scene = Scene::large();
    let standby = |path| scene.form(&["standby", "--base", "A", path]);
    let ran = standby("B");
    assert_eq!(ran.code, 6, "{ran}");
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains("is another file"), "{ran}");
    let ran = standby("A");
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("is the base itself"), "{ran}");
    assert_eq!(standby("no/S").code, 7 - 4, "a directory that is not there");
    scene.holds(&["A", "B"]);
    // A copy that somebody made becomes one; through a link it is the file.
    std::fs::copy(scene.path("A"), scene.path("S")).unwrap();
    std::os::unix::fs::symlink("S", scene.path("link")).unwrap();
    assert_eq!(scene.json(&["standby", "--base", "A", "link"])["bytes_written"], 0);
    scene.holds(&["A", "B", "S", "S.record", "link"]);
}
