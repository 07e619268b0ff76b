//! `form delta`: what is made is applied, and what is said of it.

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use form_delta::generate::{image_pair, noise};
use serde_json::Value;
use snapbox::{assert_data_eq, str};

use crate::delta_scene::{Scene, files};

const MIB: usize = 1 << 20;

/// Images of every kind of change, small enough for many runs.
fn pairs() -> Vec<(Vec<u8>, Vec<u8>)> {
    let scripts = (0..6).map(|seed| {
        let mut script = noise(seed, 120);
        script[0] = 12;
        image_pair(&script)
    });
    let mut pairs: Vec<_> = scripts.collect();
    pairs.push((vec![], noise(9, 100_000)));
    pairs.push((noise(9, 100_000), vec![]));
    pairs.push((noise(9, 300_000), noise(9, 300_000)));
    pairs
}

#[test]
fn what_was_made_is_applied() {
    for (number, (base, new)) in pairs().into_iter().enumerate() {
        let scene = Scene::new(&base, &new);
        if number % 2 == 0 {
            scene.json(&["index", "A"]);
        }
        let made = scene.json(&["make", "--base", "A", "--new", "B", "--out", "P"]);
        assert_eq!(made["indexes_used"], u64::from(number % 2 == 0));
        let info = scene.json(&["info", "P"]);
        for key in ["bytes", "frames", "image_bytes", "root", "bases"] {
            assert_eq!(made[key], info[key], "{key}");
        }
        for (number, more) in
            [&[][..], &["--verify", "full", "--engine", "pwrite"], &["--engine", "io_uring"]].iter().enumerate()
        {
            let out = format!("C{number}");
            let apply = ["apply", "--base", "A", "--delta", "P", "--out", &out];
            let applied = scene.json(&[&apply[..], more].concat());
            assert!(scene.read(&out) == new);
            for key in ["bytes", "root", "chunks", "kinds"] {
                assert_eq!(made[key], applied[key], "{key}");
            }
        }
        std::fs::copy(scene.path("A"), scene.path("S")).unwrap();
        let standby = ["apply", "--base", "A", "--delta", "P", "--out", "C3", "--standby", "S"];
        assert_eq!(scene.json(&standby)["start"], "standby");
        assert!(scene.read("C3") == new);
        let index: &[&str] = if number % 2 == 0 { &["A.fdx"] } else { &[] };
        let made = ["C0", "C0.fdx", "C1", "C1.fdx", "C2", "C2.fdx", "C3", "C3.fdx"];
        scene.holds(&[&["A", "B", "P"], &made[..], index].concat());
    }
}

#[test]
fn memory_takes_blocks_from_its_disk() {
    // A guest reads a file: its page cache holds blocks of the disk, in another order.
    let (memory, disk) = (noise(1, 2 << 20), noise(2, 8 << 20));
    let mut new = memory.clone();
    for (n, block) in disk.chunks(4096).step_by(3).take(400).enumerate() {
        new[n * 4096..][..4096].copy_from_slice(block);
    }
    let scene = Scene::new(&memory, &new);
    std::fs::write(scene.path("D"), &disk).unwrap();
    let alone = scene.json(&["make", "--base", "A", "--new", "B", "--out", "P1"]);
    let made = scene.json(&["make", "--base", "A", "--base", "D", "--new", "B", "--out", "P2"]);
    assert_eq!(made["bases"].as_array().unwrap().len(), 2);
    assert!(made["bytes"].as_u64().unwrap() * 20 < alone["bytes"].as_u64().unwrap(), "{made}");
    // Whichever is named first.
    for (out, bases) in [("C1", ["A", "D"]), ("C2", ["D", "A"])] {
        scene.json(&["apply", "--base", bases[0], "--base", bases[1], "--delta", "P2", "--out", out]);
        assert!(scene.read(out) == new);
    }
}

#[test]
fn figures_add_up() {
    let scene = Scene::large();
    let made = scene.json(&["make", "--base", "A", "--new", "B", "--out", "P"]);
    let sum = |key: &str| -> u64 {
        made["kinds"].as_object().unwrap().values().map(|kind| kind[key].as_u64().unwrap()).sum()
    };
    let number = |key: &str| made[key].as_u64().unwrap();
    assert_eq!(number("bytes"), scene.path("P").metadata().unwrap().len());
    assert_eq!(sum("image_bytes"), number("image_bytes"));
    assert!(number("new_chunks") < number("chunks"));
    // 36 for each frame's place in the index, 100 for the file, 32 for its base.
    assert_eq!(sum("wire_bytes") + 132 + 36 * number("frames"), number("bytes"));
    let stages = made["stages_s"].as_object().unwrap();
    for stage in ["open", "compare", "chunk", "encode", "write"] {
        assert!(stages[stage].as_f64().is_some(), "{stage}: {made}");
    }
    assert!(number("peak_rss_bytes") > 0);
    let info = scene.json(&["info", "P"]);
    assert_eq!((&info["kinds"], &info["new_chunks"]), (&made["kinds"], &made["new_chunks"]));
}

#[test]
fn what_is_shown_to_people() {
    let scene = Scene::large();
    assert_data_eq!(
        scene.form(&["index", "A"]).to_string(),
        str![[r#"
exit 0
index   A.fdx  [..] KiB
image   A  3.0 MiB
root    [..]
chunks  [..]
time    [..] (scan [..], write [..])
memory  [..] MiB at most, mapped images included

"#]]
    );
    assert_data_eq!(
        scene.form(&["make", "--base", "A", "--new", "B", "--out", "P"]).to_string(),
        str![[r#"
exit 0
delta   P  [..] KiB in 1 frame
new     B  4.3 MiB
base    A  3.0 MiB, known from its index
changed 2.3 MiB, 53.43 %

kind[..] image [..] delta
keep [..]
zero [..]
copy [..]
raw [..]
zstd [..]
edited [..]
records [..]
all [..]

time    [..] (open [..], compare [..], chunk [..], encode [..], write [..])
memory  [..] MiB at most, mapped images included

"#]]
    );
    assert_data_eq!(
        scene.form(&["info", "P"]).to_string(),
        str![[r#"
exit 0
delta   P  [..] KiB
frames  1
new     [..]  4.3 MiB
base    [..]

kind[..] image [..] delta
keep [..]
zero [..]
copy [..]
raw [..]
zstd [..]
edited [..]
records [..]
all [..] 4.3 MiB  [..] KiB

time    [..] (open [..], read [..])
memory  [..] MiB at most, mapped images included

"#]]
    );
    assert_data_eq!(
        scene.form(&["apply", "--base", "A", "--delta", "P", "--out", "C", "--engine", "pwrite"]).to_string(),
        str![[r#"
exit 0
new     C  4.3 MiB
root    [..]
delta   P  [..] KiB
from    a copy of the base[..]
written [..] by pwrite, [..] punched

kind[..] image [..] delta
keep [..]
zero [..]
copy [..]
raw [..]
zstd [..]
edited [..]
records [..]
all [..]

time    [..] (open [..], plan [..], copy [..], apply [..], verify [..], publish [..])
memory  [..] MiB at most, mapped images included

"#]]
    );
}

#[test]
fn without_a_base_all_of_it_travels() {
    let scene = Scene::large();
    let made = scene.json(&["make", "--new", "B", "--out", "P"]);
    assert_eq!(made["bases"], Value::Array(vec![]));
    let applied = scene.json(&["apply", "--delta", "P", "--out", "C"]);
    assert_eq!((&applied["start"], &applied["copied_bytes"]), (&"empty".into(), &0.into()));
    assert!(scene.read("C") == scene.read("B"));
}

/// What went through a pipe can't be taken back: of an image that was written to meanwhile it has no end.
#[test]
fn an_image_that_changes_makes_no_delta_through_a_pipe() {
    let scene = Scene::new(&[], &noise(4, 6 * MIB));
    let mut make = scene.command(&["make", "--new", "B", "--out", "-"]);
    let mut make = make.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut delta) = (make.stdout.take().unwrap(), vec![0; 1000]);
    out.read_exact(&mut delta).unwrap();
    let file = std::fs::File::options().write(true).open(scene.path("B")).unwrap();
    file.write_all_at(b"x", 5).unwrap();
    out.read_to_end(&mut delta).unwrap();
    drop(out);
    let ran = make.wait_with_output().unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(6), "{stderr}");
    assert!(stderr.contains("B was changed while it was read"), "{stderr}");
    std::fs::write(scene.path("P"), &delta).unwrap();
    assert!(delta.len() > 5 * MIB && scene.form(&["info", "P"]).code == 2);
}

#[test]
fn through_a_pipe() {
    let scene = Scene::large();
    let made = scene.command(&["make", "--base", "A", "--new", "B", "--out", "-"]).output().unwrap();
    assert!(made.status.success());
    assert!(String::from_utf8(made.stderr).unwrap().starts_with("delta   -  "));
    scene.json(&["make", "--base", "A", "--new", "B", "--out", "P"]);
    assert!(made.stdout == scene.read("P"));

    let apply = |delta: &[u8]| {
        std::fs::write(scene.path("P"), delta).unwrap();
        let mut apply = scene.command(&["apply", "--base", "A", "--delta", "-", "--out", "C"]);
        apply.stdin(std::fs::File::open(scene.path("P")).unwrap()).output().unwrap()
    };
    let cut = apply(&made.stdout[..made.stdout.len() - 1]);
    assert_eq!(cut.status.code(), Some(2));
    scene.holds(&["A", "B", "P"]);
    assert!(apply(&made.stdout).status.success());
    assert!(scene.read("C") == scene.read("B"));
    scene.holds(&["A", "B", "C", "C.fdx", "P"]);
    // A pipe that has a name.
    let mut info = scene.command(&["info", "/dev/stdin"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    info.stdin.take().unwrap().write_all(&made.stdout).unwrap();
    assert!(info.wait().unwrap().success());
}

/// Nothing waits for the other end of a pipe, and nothing of the user's is taken for something else.
#[test]
fn an_index_is_a_file_of_its_own() {
    let scene = Scene::new(&[], &noise(4, MIB));
    let ran = scene.form(&["index", "A", "--out", "A"]);
    assert!(ran.code == 2 && ran.stderr.contains("A is the image itself"), "{ran}");
    assert!(scene.read("A").is_empty());
    assert!(Command::new("mkfifo").arg(scene.path("B.fdx")).status().unwrap().success());
    let ran = scene.form(&["index", "B"]);
    assert!(ran.code == 2 && ran.stderr.contains("B.fdx exists already"), "{ran}");
    let made = scene.json(&["make", "--base", "B", "--new", "A", "--out", "P"]);
    assert_eq!(made["indexes_used"], 0);
    // It is known before any work.
    std::fs::write(scene.path("A.fdx"), "mine").unwrap();
    let ran = scene.form(&["make", "--new", "A", "--out", "P2", "--index"]);
    assert!(ran.code == 2 && ran.stderr.contains("A.fdx exists already"), "{ran}");
    scene.holds(&["A", "A.fdx", "B", "B.fdx", "P"]);
}

#[test]
fn files_are_for_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::large();
    scene.json(&["index", "A"]);
    scene.json(&["make", "--base", "A", "--new", "B", "--out", "P"]);
    scene.json(&["apply", "--base", "A", "--delta", "P", "--out", "C"]);
    for file in ["A.fdx", "P", "C"] {
        assert_eq!(scene.path(file).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

/// Makes the index of `A` one that must not be believed.
fn spoil(scene: &Scene, what: &str) {
    let index = scene.read("A.fdx");
    let write = |name: &str, bytes: &[u8]| std::fs::write(scene.path(name), bytes).unwrap();
    let flip = |name: &str, at: usize| {
        let mut bytes = scene.read(name);
        bytes[at] ^= 1;
        write(name, &bytes);
    };
    match what {
        "stale" => flip("A", 77),
        "damaged" => flip("A.fdx", 200),
        "cut short" => write("A.fdx", &index[..index.len() / 2]),
        "of another image" => {
            scene.json(&["index", "B", "--out", "other.fdx"]);
            std::fs::rename(scene.path("other.fdx"), scene.path("A.fdx")).unwrap();
        }
        "of a copy" => {
            std::fs::copy(scene.path("A"), scene.path("A2")).unwrap();
            std::fs::rename(scene.path("A2"), scene.path("A")).unwrap();
        }
        _ => write("A.fdx", b""),
    }
}

/// An index that says what is not so must never make a wrong image.
#[test]
fn an_index_that_does_not_fit_is_passed_over() {
    for what in ["stale", "of another image", "cut short", "damaged", "empty", "of a copy"] {
        let scene = Scene::large();
        scene.json(&["index", "A"]);
        spoil(&scene, what);
        let made = scene.form(&["make", "--base", "A", "--new", "B", "--out", "P"]);
        assert_eq!(made.code, 0, "{what}: {made}");
        assert!(made.stderr.starts_with("A.fdx is not used: "), "{what}: {made}");
        let applied = scene.form(&["apply", "--base", "A", "--delta", "P", "--out", "C"]);
        assert_eq!(applied.code, 0, "{what}: {applied}");
        assert!(applied.stderr.starts_with("A.fdx is not used: "), "{what}: {applied}");
        assert!(scene.read("C") == scene.read("B"), "{what}");
        // And a new one makes it good.
        scene.json(&["index", "A"]);
        assert_eq!(scene.json(&["apply", "--base", "A", "--delta", "P", "--out", "C2"])["indexes_used"], 1, "{what}");
    }
}

/// Whatever became of images and indexes since the indexes were made: the new image comes out, or nothing does.
#[test]
fn no_index_ever_makes_a_wrong_image() {
    for seed in 0..40 {
        let mut random = noise(1000 + seed, 130).into_iter();
        let mut next = |below: usize| {
            (usize::from(random.next().unwrap()) << 8 | usize::from(random.next().unwrap())) % below.max(1)
        };
        let (what, who) = (next(7), next(2));
        let (base, new) = image_pair(&noise(seed, 120));
        let scene = Scene::new(&base, &new);
        std::fs::copy(scene.path("A"), scene.path("S")).unwrap();
        for image in ["A", "S"] {
            scene.json(&["index", image]);
        }
        let image = ["A", "S"][who];
        let index = format!("{image}.fdx");
        let (mut bytes, mut of_index) = (scene.read(image), scene.read(&index));
        let place = next(of_index.len());
        match what {
            0 => of_index[place] ^= 1 << next(8),
            1 => of_index.truncate(place),
            2 => of_index.extend(noise(seed, place)),
            3 => of_index = noise(seed, place),
            4 => of_index.clear(),
            5 => of_index = scene.read(["S.fdx", "A.fdx"][who]),
            _ if bytes.is_empty() => bytes.push(1),
            _ => {
                let place = next(bytes.len());
                bytes[place] ^= 1;
            }
        }
        std::fs::write(scene.path(&index), of_index).unwrap();
        if what == 6 {
            std::fs::write(scene.path(image), &bytes).unwrap();
        }
        scene.json(&["make", "--base", "A", "--new", "B", "--out", "P"]);
        let apply = ["apply", "--base", "A", "--delta", "P", "--out"];
        scene.json(&[&apply[..], &["C"]].concat());
        assert!(scene.read("C") == new, "seed {seed}");
        let ran = scene.form(&[&apply[..], &["C2", "--standby", "S"]].concat());
        if what == 6 {
            assert_eq!(ran.code, 6, "seed {seed}: A and S are not equal any more: {ran}");
            assert!(!scene.path("C2").exists());
        } else {
            assert_eq!(ran.code, 0, "seed {seed}: {ran}");
            assert!(scene.read("C2") == new, "seed {seed}");
        }
    }
}

#[test]
fn an_index_replaces_an_index_and_nothing_else() {
    let scene = Scene::large();
    scene.json(&["index", "A"]);
    let first = scene.read("A.fdx");
    scene.json(&["index", "A"]);
    assert!(scene.read("A.fdx") == first);
    let ran = scene.form(&["index", "A", "--out", "B"]);
    assert_data_eq!(
        ran.to_string(),
        str![[r#"
exit 2
error: B exists already, and is no image index
fix: remove it, or choose another name

"#]]
    );
    scene.holds(&["A", "A.fdx", "B"]);
}

#[test]
fn nothing_is_written_through_a_symbolic_link_to_a_standby() {
    let scene = Scene::large();
    scene.json(&["make", "--base", "A", "--new", "B", "--out", "P"]);
    std::fs::copy(scene.path("A"), scene.path("S")).unwrap();
    std::os::unix::fs::symlink("S", scene.path("link")).unwrap();
    scene.json(&["apply", "--base", "A", "--delta", "P", "--out", "C", "--standby", "link"]);
    assert!(scene.path("C").symlink_metadata().unwrap().is_file());
    assert!(scene.read("C") == scene.read("B"));
    assert!(!Path::new(&scene.path("S")).exists());
    assert_eq!(files(scene.path("").as_path()), ["A", "B", "C", "C.fdx", "P", "link"]);
}
