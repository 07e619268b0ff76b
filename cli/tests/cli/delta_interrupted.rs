//! Ctrl-C, a full disk, an image that is cut short: no half file is left, and of a standby image it is said what it is now.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use form_delta::generate::noise;
use rustix::process::{Pid, Signal, kill_process};

use crate::delta_scene::{Scene, files};
use crate::run::Ran;

const MIB: usize = 1 << 20;

/// Work for a while.
fn much() -> Scene {
    Scene::new(&noise(1, MIB), &noise(2, 192 * MIB))
}

/// Waits until `ready` or the end; then sends the signal. What it said, and whether the signal came in time.
fn interrupted(mut child: Child, signal: Signal, ready: impl Fn() -> bool) -> (Ran, bool) {
    let mut in_time = false;
    while child.try_wait().unwrap().is_none() {
        if ready() {
            kill_process(Pid::from_child(&child), signal).unwrap();
            in_time = true;
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let code = child.wait().unwrap().code().unwrap_or(-1);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    // It may have ended between the look and the signal.
    in_time &= code != 0;
    (Ran { code, stdout, stderr }, in_time)
}

/// On a slow day the look comes late: then once more.
fn until_in_time(mut run: impl FnMut() -> bool) {
    assert!((0..20).any(|_| run()), "the work ended before the signal, each time");
}

#[test]
fn a_signal_leaves_nothing_of_a_delta() {
    let scene = much();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        until_in_time(|| {
            let make = scene.command(&["make", "--base", "A", "--new", "B", "--out", "P"]).spawn().unwrap();
            let begun = || files(&scene.path("")).iter().any(|name| name.ends_with(".part"));
            let (ran, in_time) = interrupted(make, signal, begun);
            if in_time {
                assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (130, "", ""));
                scene.holds(&["A", "B"]);
            } else {
                std::fs::remove_file(scene.path("P")).unwrap();
            }
            in_time
        });
    }
}

/// The command is held where its file has begun, so that the image is cut short before all of it was read.
#[test]
fn an_image_that_is_cut_short_leaves_nothing_of_a_delta() {
    let scene = much();
    let whole = scene.read("B");
    until_in_time(|| {
        let make = scene.command(&["make", "--new", "B", "--out", "P"]).spawn().unwrap();
        let pid = Pid::from_child(&make);
        let begun = || files(&scene.path("")).iter().any(|name| name.ends_with(".part"));
        let cut = || {
            let begun = begun();
            if begun {
                kill_process(pid, Signal::STOP).unwrap();
                std::fs::OpenOptions::new().write(true).open(scene.path("B")).unwrap().set_len(MIB as u64).unwrap();
            }
            begun
        };
        let (ran, in_time) = interrupted(make, Signal::CONT, cut);
        std::fs::write(scene.path("B"), &whole).unwrap();
        if in_time {
            assert_eq!((ran.code, ran.stdout.as_str()), (6, ""), "{ran}");
            let words = ["an image can't be read to its end", "cause: it was cut short", "fix: let nobody write"];
            assert!(words.iter().all(|words| ran.stderr.contains(words)), "{ran}");
            scene.holds(&["A", "B"]);
        } else {
            std::fs::remove_file(scene.path("P")).unwrap();
        }
        in_time
    });
}

#[test]
fn a_signal_leaves_a_standby_image_and_says_what_it_is() {
    let scene = much();
    scene.json(&["make", "--base", "A", "--new", "B", "--out", "P"]);
    until_in_time(|| {
        let _ = std::fs::remove_file(scene.path("C"));
        std::fs::copy(scene.path("A"), scene.path("S")).unwrap();
        scene.json(&["index", "S"]);
        let words = ["apply", "--base", "A", "--delta", "P", "--out", "C", "--standby", "S"];
        let apply = scene.command(&words).spawn().unwrap();
        // Its index goes when it begins to change.
        let (ran, in_time) = interrupted(apply, Signal::INT, || !scene.path("S.fdx").exists());
        if in_time {
            assert_eq!(ran.code, 130, "{ran}");
            assert!(
                ran.stderr.contains("/S was being changed: it is neither the base nor the new image; the same command"),
                "{ran}"
            );
            scene.holds(&["A", "B", "P", "S", "S.record"]);
            // Another file that came to have its name is not touched, whatever the record says.
            std::fs::rename(scene.path("S"), scene.path("half")).unwrap();
            let other = noise(3, MIB);
            std::fs::write(scene.path("S"), &other).unwrap();
            assert_eq!(scene.form(&words).code, 6);
            assert!(scene.read("S") == other);
            std::fs::rename(scene.path("half"), scene.path("S")).unwrap();
            let again = scene.json(&words);
            assert_eq!(again["standby_known"], false);
            assert!(scene.read("C") == scene.read("B"));
            scene.holds(&["A", "B", "C", "C.fdx", "P"]);
        }
        in_time
    });
}

/// With a limit on the length of files, in place of a full disk. The signal that comes with it is ignored, as a shell can.
fn limited(scene: &Scene, kib: usize, words: &[&str]) -> Ran {
    let form = scene.command(words);
    let output = Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; ulimit -f "$1"; shift; exec "$@""#, "sh", &(kib * 2).to_string()])
        .arg(form.get_program())
        .args(form.get_args())
        .current_dir(scene.path(""))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let scene = Scene::large();
    let make = ["make", "--base", "A", "--new", "B", "--out", "P"];
    let ran = limited(&scene, 100, &make);
    assert_eq!(ran.code, 7, "{ran}");
    assert!(ran.stderr.starts_with("error: P can't be written\ncause: "), "{ran}");
    scene.holds(&["A", "B"]);

    scene.json(&make);
    let apply = ["apply", "--base", "A", "--delta", "P", "--out", "C"];
    // Too short for the copy of the base, and for the new image.
    for kib in [1000, 3500] {
        let ran = limited(&scene, kib, &apply);
        assert_eq!(ran.code, 7, "{ran}");
        assert!(ran.stderr.starts_with("error: C can't be made\ncause: "), "{ran}");
        scene.holds(&["A", "B", "P"]);
    }

    std::fs::copy(scene.path("A"), scene.path("S")).unwrap();
    let ran = limited(&scene, 3500, &[&apply[..], &["--standby", "S"]].concat());
    assert_eq!(ran.code, 7, "{ran}");
    assert!(
        ran.stderr
            .contains("fix: free some space there, or choose another place; S was being changed: it is neither the"),
        "{ran}"
    );
    scene.holds(&["A", "B", "P", "S", "S.record"]);
    scene.json(&[&apply[..], &["--standby", "S"]].concat());
    assert!(scene.read("C") == scene.read("B"));
    scene.holds(&["A", "B", "C", "C.fdx", "P"]);
}
