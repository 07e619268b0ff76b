//! What `form delta` refuses, and that nothing is left of it.

use form_delta::generate::noise;
use form_delta::{BlockIndex, FileIdentity, ImageIndex, generate::image, scan};
use snapbox::{assert_data_eq, str};

use crate::delta_scene::Scene;

const APPLY: [&str; 7] = ["apply", "--base", "A", "--delta", "P", "--out", "C"];

fn made() -> Scene {
    let scene = Scene::large();
    scene.json(&["make", "--base", "A", "--new", "B", "--out", "P"]);
    scene
}

#[test]
fn other_bases() {
    let scene = made();
    std::fs::write(scene.path("D"), &scene.read("A")[1..]).unwrap();
    assert_data_eq!(
        scene.form(&["apply", "--base", "D", "--delta", "P", "--out", "C"]).to_string(),
        str![[r#"
exit 6
error: P is for other bases
cause: it wants the base [..]; D is [..]
fix: give exactly the images that it was made against, unchanged since: form delta info names their roots

"#]]
    );
    assert_data_eq!(
        scene.form(&["apply", "--delta", "P", "--out", "C"]).to_string(),
        str![[r#"
exit 6
error: P is for other bases
cause: it wants the base [..]; none was given
fix: give exactly the images that it was made against, unchanged since: form delta info names their roots

"#]]
    );
    scene.json(&["make", "--new", "B", "--out", "whole"]);
    assert_data_eq!(
        scene.form(&["apply", "--base", "A", "--delta", "whole", "--out", "C"]).to_string(),
        str![[r#"
exit 6
error: whole is for other bases
cause: it wants no other base; A is [..]
fix: give exactly the images that it was made against, unchanged since: form delta info names their roots

"#]]
    );
    scene.holds(&["A", "B", "D", "P", "whole"]);
}

#[test]
fn a_delta_that_is_damaged_anywhere() {
    let scene = made();
    let bytes = scene.read("P");
    let len = bytes.len();
    // Header, records, bodies, index, trailer.
    for at in [0, 4, 6, 8, 30, 100, len / 2, len - 190, len - 160, len - 150, len - 60, len - 40, len - 20, len - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        std::fs::write(scene.path("P"), damaged).unwrap();
        for words in [&APPLY[..], &["info", "P"]] {
            let ran = scene.form(words);
            assert_eq!(ran.code, 2, "byte {at}: {ran}");
            assert!(ran.stderr.starts_with("error: P can't be "), "byte {at}: {ran}");
            assert!(ran.stderr.contains("\ncause: ") && ran.stderr.contains("\nfix: "), "byte {at}: {ran}");
        }
        scene.holds(&["A", "B", "P"]);
    }
}

#[test]
fn a_delta_that_was_cut_short() {
    let scene = made();
    let bytes = scene.read("P");
    for len in [0, 1, 7, 8, 47, 48, 100, bytes.len() / 2, bytes.len() - 41, bytes.len() - 40, bytes.len() - 1] {
        std::fs::write(scene.path("P"), &bytes[..len]).unwrap();
        let ran = scene.form(&APPLY);
        assert_eq!(ran.code, 2, "{len} bytes: {ran}");
        assert!(ran.stderr.contains("cause: delta file is damaged at byte "), "{len} bytes: {ran}");
        scene.holds(&["A", "B", "P"]);
    }
}

#[test]
fn damage_is_named() {
    let scene = made();
    let bytes = scene.read("P");
    let mut damaged = bytes.clone();
    damaged[1000] ^= 1;
    std::fs::write(scene.path("P"), damaged).unwrap();
    assert_data_eq!(
        scene.form(&APPLY).to_string(),
        str![[r#"
exit 2
error: P can't be applied
cause: frame 0 is damaged at byte 0: BLAKE3 is [..], not [..]; the frame is bytes 8 to [..] of the file
fix: copy it again from where it was made, or make it anew

"#]]
    );
    std::fs::write(scene.path("P"), &bytes[..1000]).unwrap();
    assert_data_eq!(
        scene.form(&["info", "P"]).to_string(),
        str![[r#"
exit 2
error: P can't be read
cause: delta file is damaged at byte 996: its end mark is missing: it was cut short, or something was added to it
fix: copy it again from where it was made, or make it anew

"#]]
    );
    let mut newer = bytes;
    newer[4] = 9;
    std::fs::write(scene.path("P"), newer).unwrap();
    assert_data_eq!(
        scene.form(&APPLY).to_string(),
        str![[r#"
exit 2
error: P can't be applied
cause: delta file has format version 9; this build reads version 1
fix: it was made by another version of form: use that one, or make it anew

"#]]
    );
    std::fs::write(scene.path("P"), noise(5, 5000)).unwrap();
    assert!(
        scene.form(&APPLY).stderr.contains("cause: delta file is damaged at byte 0: the magic number is another one")
    );
}

#[test]
fn names_that_are_taken_or_missing() {
    let scene = made();
    std::fs::write(scene.path("C"), b"mine").unwrap();
    for words in [&APPLY[..], &["make", "--base", "A", "--new", "B", "--out", "C"]] {
        assert_data_eq!(
            scene.form(words).to_string(),
            str![[r#"
exit 2
error: C exists already
fix: remove it, or choose another name

"#]]
        );
        assert_eq!(scene.read("C"), b"mine");
    }
    assert_data_eq!(
        scene.form(&["make", "--base", "nowhere", "--new", "B", "--out", "Q"]).to_string(),
        str![[r#"
exit 3
error: nowhere can't be read
cause: No such file or directory (os error 2)
fix: check the path: the file does not exist

"#]]
    );
    assert_data_eq!(
        scene.form(&["make", "--base", "A", "--new", "B", "--out", "nowhere/Q"]).to_string(),
        str![[r#"
exit 3
error: nowhere/Q can't be made
cause: No such file or directory (os error 2)
fix: check the path: its directory does not exist

"#]]
    );
    assert_eq!(scene.form(&["make", "--base", ".", "--new", "B", "--out", "Q"]).code, 2);
    scene.holds(&["A", "B", "C", "P"]);
}

#[test]
fn a_standby_that_does_not_equal_the_base() {
    let scene = made();
    let mut standby = scene.read("A");
    standby[2_000_000] ^= 1;
    std::fs::write(scene.path("S"), &standby).unwrap();
    let apply = |standby| scene.form(&[&APPLY[..], &["--standby", standby]].concat());
    assert_data_eq!(
        apply("S").to_string(),
        str![[r#"
exit 6
error: [..]/S does not equal the base
cause: its bytes are not those of A
fix: copy the base to it, or leave out --standby; it was not touched

"#]]
    );
    assert!(scene.read("S") == standby);
    // An index of it says the same, for less.
    scene.json(&["index", "S"]);
    assert_eq!(apply("S").code, 6);
    assert!(scene.read("S") == standby);
    assert_data_eq!(
        apply("A").to_string(),
        str![[r#"
exit 2
error: [..]/A is the base itself
fix: give a copy: the base is read while the standby image changes

"#]]
    );
    std::fs::hard_link(scene.path("A"), scene.path("H")).unwrap();
    assert_eq!(apply("H").code, 2);
    scene.holds(&["A", "B", "H", "P", "S", "S.fdx"]);
}

/// The sample misses most small lies; what is made of them must not.
#[test]
fn an_index_that_lies_about_the_very_file() {
    let scene = made();
    let truth = scene.read("A");
    let manifest = scan(&image(&truth).unwrap());
    let blocks = || Some(BlockIndex::build(&image(&truth).unwrap(), manifest.root()).unwrap());
    // Within the chunk that the delta changes, but not where it changes it; in a chunk that moves; in one that is kept.
    for (at, more) in [(1_799_000, &[][..]), (500_000, &[]), (1_200_000, &["--verify", "full"])] {
        let mut other = truth.clone();
        other[at] ^= 1;
        std::fs::write(scene.path("A"), &other).unwrap();
        let identity = FileIdentity::of(&std::fs::File::open(scene.path("A")).unwrap()).unwrap();
        let lie = ImageIndex { identity, manifest: manifest.clone(), blocks: blocks() };
        std::fs::write(scene.path("A.fdx"), lie.encode()).unwrap();
        let ran = scene.form(&[&APPLY[..], more].concat());
        assert_eq!(ran.code, 6, "{ran}");
        let found_by_sample = "error: P is for other bases";
        let found_by_work = "error: A is not what its index says\ncause: image is damaged at byte ";
        assert!(ran.stderr.contains(found_by_sample) || ran.stderr.starts_with(found_by_work), "{ran}");
        scene.holds(&["A", "A.fdx", "B", "P"]);
    }
}
