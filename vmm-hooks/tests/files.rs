//! Machines that are only files: their commands run when they must and as often, and what they are outlives a daemon.

#![expect(clippy::unwrap_used, reason = "what a test's own tools can't do is that test's failure")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use form_vmm_hooks::keeper::{KeeperCommand, Keeping};
use form_vmm_hooks::{Commands, Cuts, Error, ErrorKind, Files, FilesConfig, Machine, MachineDisk, Vm, VmState, Vmm};

/// A directory with one program, `drive`: it notes how it was called in `calls`, and fails or hangs where a file
/// `fail-<command>` or `hang-<command>` is. Each failure happens once.
struct Scene {
    dir: tempfile::TempDir,
    pause_max: Duration,
}

const PROCESS: &str = env!("CARGO_BIN_EXE_form-hooks-process");

impl Scene {
    fn new() -> Self {
        let scene = Scene { dir: tempfile::tempdir().unwrap(), pause_max: Duration::from_secs(600) };
        fs::create_dir(scene.path("programs")).unwrap();
        // Not written here: what a test writes can't be run while another test forks.
        let drive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drive.sh");
        std::os::unix::fs::symlink(drive, scene.path("programs/drive")).unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn files(&self) -> Files {
        let command =
            KeeperCommand { program: PROCESS.into(), called: "form".into(), arguments: vec!["keeper".into()] };
        let keeping = Keeping { command: Some(command), pause_max: self.pause_max };
        Files::new(FilesConfig { programs: self.path("programs"), links: self.path("live"), keeping })
    }

    fn machine(&self, dir: &str) -> Machine {
        let dir = self.path(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("disk.img"), "a disk").unwrap();
        let command = |word: &str| vec!["drive".to_owned(), word.to_owned()];
        Machine {
            name: "vm".into(),
            uuid: "00000000-0000-4000-8000-000000000001".into(),
            disks: vec![MachineDisk { name: "disk".into(), path: dir.join("disk.img") }],
            dir,
            memory_bytes: 0,
            ram_path: PathBuf::new(),
            kernel: PathBuf::new(),
            initrd: None,
            cmdline: String::new(),
            mac: String::new(),
            generation_id: String::new(),
            link_up: true,
            agent: false,
            commands: Commands {
                pause: command("pause"),
                resume: command("resume"),
                start: command("start"),
                stop: command("stop"),
                timeout_s: 30,
            },
        }
    }

    /// The commands since it was asked last, as they were called.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls")); // there may be none
        calls.lines().map(str::to_owned).collect()
    }

    fn words(&self) -> Vec<String> {
        self.calls().iter().map(|call| call.split(' ').next().unwrap().to_owned()).collect()
    }

    fn next(&self, what: &str) {
        fs::write(self.path(what), "").unwrap();
    }

    fn link(&self) -> Option<PathBuf> {
        fs::read_link(self.path("live/vm")).ok()
    }
}

async fn capture(vm: &Arc<dyn Vm>, copy: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<(), Error> {
    vm.capture(None, Cuts::new(), Box::new(|_| copy())).await.map(|captured| assert!(captured.pause_ns > 0))
}

#[tokio::test]
async fn each_command_runs_once_and_where_the_files_are() {
    let scene = Scene::new();
    let vm = scene.files().boot(&scene.machine("a")).await.unwrap();
    assert_eq!(scene.calls(), ["start vm a a"]);
    assert_eq!(scene.link(), Some(scene.path("a")));
    let calls = scene.path("calls");
    let during = move || {
        assert_eq!(fs::read_to_string(&calls).unwrap(), "pause vm a a\n");
        Ok(())
    };
    capture(&vm, during).await.unwrap();
    assert_eq!(scene.words(), ["pause", "resume"]);
    vm.pause().await.unwrap();
    vm.pause().await.unwrap();
    assert_eq!((vm.state().await.unwrap(), scene.words()), (VmState::Paused, vec!["pause".into()]));
    vm.resume().await.unwrap();
    vm.resume().await.unwrap();
    assert_eq!((vm.state().await.unwrap(), scene.words()), (VmState::Running, vec!["resume".into()]));
    vm.quit().await.unwrap();
    vm.quit().await.unwrap();
    assert_eq!((vm.state().await.unwrap(), scene.words()), (VmState::Gone, vec!["stop".into()]));
    assert_eq!(scene.link(), None);
    assert!(scene.path("a/disk.img").exists());
}

#[tokio::test]
async fn promise_2_it_is_resumed_whatever_becomes_of_the_capture() {
    let scene = Scene::new();
    let vm = scene.files().boot(&scene.machine("a")).await.unwrap();
    scene.calls();

    let failed = capture(&vm, || Err(std::io::Error::other("disk full"))).await.unwrap_err();
    assert!(matches!(failed, Error::WhilePaused { .. }), "{failed:?}");
    assert_eq!(scene.words(), ["pause", "resume"]);
    let panicked = capture(&vm, || panic!("as this test wants")).await.unwrap_err();
    assert!(matches!(panicked, Error::Panicked { .. }), "{panicked:?}");
    assert_eq!(scene.words(), ["pause", "resume"]);

    scene.next("fail-pause");
    let unpaused = capture(&vm, || panic!("not reached")).await.unwrap_err();
    assert!(unpaused.to_string().contains("pause") && unpaused.to_string().contains("no pause today"), "{unpaused}");
    assert_eq!(scene.words(), ["pause", "resume"], "it may have come half way");
    scene.next("fail-pause");
    vm.pause().await.unwrap_err();
    assert_eq!((vm.state().await.unwrap(), scene.words()), (VmState::Running, vec!["pause".into(), "resume".into()]));

    scene.next("fail-resume");
    let stuck = capture(&vm, || Ok(())).await.unwrap_err();
    assert_eq!(stuck.kind(), ErrorKind::StillPaused);
    // Its keeper goes on trying; whatever comes next waits for that.
    vm.resume().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    assert_eq!(scene.words(), ["pause", "resume", "resume"]);
    capture(&vm, || Ok(())).await.unwrap();
}

#[tokio::test]
async fn a_command_has_its_deadline() {
    let scene = Scene::new();
    let mut machine = scene.machine("a");
    machine.commands.timeout_s = 1;
    let vm = scene.files().boot(&machine).await.unwrap();
    scene.calls();
    scene.next("hang-pause");
    let late = capture(&vm, || panic!("not reached")).await.unwrap_err();
    assert!(matches!(late, Error::Timeout { operation: "pause", after_ms: 1000, .. }), "{late:?}");
    assert_eq!(scene.words(), ["pause", "resume"]);
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
}

#[tokio::test]
async fn a_capture_that_nobody_waits_for_ends_all_the_same() {
    let scene = Scene::new();
    let vm = scene.files().boot(&scene.machine("a")).await.unwrap();
    let (paused, is_paused) = std::sync::mpsc::channel();
    let (go_on, went_on) = std::sync::mpsc::channel::<()>();
    let copy = move || {
        paused.send(()).unwrap();
        went_on.recv().map_err(std::io::Error::other)
    };
    let capturing = tokio::spawn({
        let vm = Arc::clone(&vm);
        async move { vm.capture(None, Cuts::new(), Box::new(move |_| copy())).await }
    });
    tokio::task::spawn_blocking(move || is_paused.recv().unwrap()).await.unwrap();
    capturing.abort();
    assert!(capturing.await.unwrap_err().is_cancelled());
    go_on.send(()).unwrap();
    // Whatever comes next waits for its end.
    vm.resume().await.unwrap();
    assert_eq!(scene.words(), ["start", "pause", "resume"]);
}

#[tokio::test]
async fn a_later_daemon_finds_it_as_it_was() {
    let scene = Scene::new();
    let (one, two) = (scene.machine("a"), scene.machine("b"));
    assert!(scene.files().adopt(&one).await.unwrap().is_none());
    drop(scene.files().boot(&one).await.unwrap());
    let again = scene.files().boot(&one).await.map(drop).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::WrongState);
    let vm = scene.files().adopt(&one).await.unwrap().expect("it is there");
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    vm.pause().await.unwrap();
    drop(vm);
    let vm = scene.files().adopt(&one).await.unwrap().expect("it is there");
    assert_eq!(vm.state().await.unwrap(), VmState::Paused);
    let other = Machine { uuid: "00000000-0000-4000-8000-000000000002".into(), ..one.clone() };
    assert!(scene.files().adopt(&other).await.unwrap().is_none());

    // As a commit replaces it: nothing runs on the new files before the outcome is known.
    scene.calls();
    drop(scene.files().restore(&two, None).await.unwrap());
    let new = scene.files().adopt(&two).await.unwrap().expect("it is there");
    assert_eq!((new.state().await.unwrap(), scene.calls()), (VmState::Paused, vec![]));
    assert_eq!(scene.link(), Some(scene.path("a")));
    new.resume().await.unwrap();
    vm.quit().await.unwrap();
    assert_eq!(scene.calls(), ["start vm b b", "stop vm a a"]);
    assert_eq!(scene.link(), Some(scene.path("b")), "the new one's");
    // And as one is undone.
    drop(scene.files().restore(&one, None).await.unwrap());
    scene.files().adopt(&one).await.unwrap().expect("it is there").quit().await.unwrap();
    assert_eq!((scene.calls(), scene.link()), (vec![], Some(scene.path("b"))));
}

#[tokio::test]
async fn what_is_missing_is_said_before_anything_runs() {
    let scene = Scene::new();
    let refused = |change: fn(&mut Machine)| {
        let mut machine = scene.machine("a");
        change(&mut machine);
        let files = scene.files();
        async move { files.boot(&machine).await.map(drop).unwrap_err() }
    };
    let missing = refused(|m| m.commands.stop = vec!["nowhere".into()]).await;
    assert_eq!(missing.kind(), ErrorKind::MissingDependency);
    assert!(missing.to_string().contains("stop command"), "{missing}");
    for path in ["../programs/drive", "/bin/sh", "..", ""] {
        let mut machine = scene.machine("a");
        machine.commands.pause = vec![path.into()];
        let refused = scene.files().restore(&machine, None).await.map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused, "{path}");
    }
    let missing = refused(|m| m.disks[0].path = "/nowhere".into()).await;
    assert_eq!(missing.kind(), ErrorKind::MissingDependency);
    assert!(Path::new(&scene.path("a/disk.img")).exists() && !scene.path("a/state").exists());
    assert_eq!(scene.calls(), Vec::<String>::new());
}

/// What stands between a daemon's death and the next.
fn daemon_that_copies(scene: &Scene, machine: &Machine) -> std::process::Child {
    use std::os::unix::process::CommandExt;
    let job = scene.path("job");
    let text = serde_json::json!({
        "machine": machine, "qemu": "", "programs": scene.path("programs"), "hang_in": "copy"
    });
    fs::write(&job, text.to_string()).unwrap();
    std::process::Command::new(PROCESS).arg("daemon").arg(job).process_group(0).spawn().unwrap()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill_group(daemon: &mut std::process::Child) {
    let group = rustix::process::Pid::from_child(daemon);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    daemon.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_2_its_keeper_resumes_it_when_the_daemon_is_killed() {
    let scene = Scene::new();
    let machine = scene.machine("a");
    for slow in [false, true] {
        drop(scene.files().boot(&machine).await.unwrap());
        scene.calls();
        if slow {
            // Killed while the pause command runs: that ends first, or it would have the last word.
            scene.next("slow-pause");
        }
        let mut daemon = daemon_that_copies(&scene, &machine);
        let calls = || fs::read_to_string(scene.path("calls")).unwrap_or_default();
        wait_until("a pause", || calls().contains("pause"));
        kill_group(&mut daemon);
        let vm = scene.files().adopt(&machine).await.unwrap().expect("it is there");
        assert_eq!(vm.state().await.unwrap(), VmState::Running);
        let expected: &[&str] = if slow { &["pause", "pause-ended", "resume"] } else { &["pause", "resume"] };
        assert_eq!(scene.words(), expected);
        vm.quit().await.unwrap();
    }
    // A resume that does not work is tried again.
    drop(scene.files().boot(&machine).await.unwrap());
    scene.calls();
    scene.next("fail-resume");
    let mut daemon = daemon_that_copies(&scene, &machine);
    wait_until("a pause", || fs::read_to_string(scene.path("calls")).unwrap_or_default().contains("pause"));
    kill_group(&mut daemon);
    let vm = scene.files().adopt(&machine).await.unwrap().expect("it is there");
    assert_eq!(
        (vm.state().await.unwrap(), scene.words()),
        (VmState::Running, ["pause", "resume", "resume"].map(String::from).to_vec())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_is_too_long_is_ended_and_voids_the_capture() {
    let mut scene = Scene::new();
    scene.pause_max = Duration::from_millis(100);
    let mut machine = scene.machine("a");
    machine.commands.timeout_s = 1;
    let vm = scene.files().boot(&machine).await.unwrap();
    scene.calls();
    let calls = scene.path("calls");
    let goes_on = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&goes_on);
    let copy = move || {
        wait_until("a resume", || fs::read_to_string(&calls).unwrap_or_default().contains("resume"));
        seen.store(true, Ordering::Release);
        Ok(())
    };
    let voided = capture(&vm, copy).await.unwrap_err();
    assert!(matches!(voided, Error::Voided { .. }), "{voided:?}");
    assert!(goes_on.load(Ordering::Acquire), "while it was still being copied");
    capture(&vm, || Ok(())).await.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    assert_eq!(scene.words(), ["pause", "resume", "pause", "resume"]);
}

#[tokio::test]
async fn what_can_be_paused_is_not_captured_without_a_keeper() {
    let scene = Scene::new();
    let mut machine = scene.machine("a");
    let files = Files::new(FilesConfig {
        programs: scene.path("programs"),
        links: scene.path("live"),
        keeping: Keeping::default(),
    });
    let vm = files.boot(&machine).await.unwrap();
    let refused = capture(&vm, || panic!("not reached")).await.unwrap_err();
    assert!(matches!(refused, Error::Keeper { .. }), "{refused:?}");
    assert_eq!((vm.state().await.unwrap(), scene.words()), (VmState::Running, vec!["start".into()]));
    vm.quit().await.unwrap();
    // Nothing pauses this one.
    machine.commands.pause.clear();
    machine.commands.resume.clear();
    capture(&files.boot(&machine).await.unwrap(), || Ok(())).await.unwrap();
}
