//! Processes: started, left alone, found again, ended.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use form_vmm_hooks::{Cuts, Error, ErrorKind, Qemu, QemuConfig, VmState, Vmm};

use crate::fixture::{Fixture, exists, files, qemu, sigkill, until_state, zombies};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_outlives_its_handle_and_is_found_again() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    assert!(qemu().adopt(&machine).await.unwrap().is_none(), "nothing was started yet");
    let vm = qemu().boot(&machine).await.unwrap();
    let pid = vm.pid();
    let again = qemu().boot(&machine).await.map(drop).unwrap_err();
    assert!(matches!(again, Error::AlreadyRunning { pid: other, .. } if other == pid), "{again:?}");
    vm.pause().await.unwrap();
    vm.pause().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Paused);
    let refused = vm.capture(Some(tempfile::tempfile().unwrap()), Cuts::new(), Box::new(|_| Ok(()))).await.unwrap_err();
    assert!(matches!(refused, Error::WrongState { .. }));
    drop(vm);

    let vm = qemu().adopt(&machine).await.unwrap().expect("it is still there");
    assert_eq!((vm.pid(), vm.state().await.unwrap()), (pid, VmState::Paused), "left as it was");
    vm.resume().await.unwrap();
    vm.resume().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Running);

    // Its directory may be renamed: sockets and pid file go along.
    let mut moved = machine.clone();
    moved.dir = machine.dir.with_file_name("moved");
    fs::rename(&machine.dir, &moved.dir).unwrap();
    assert_eq!(vm.console(), moved.dir.join("con"));
    drop(vm);
    assert!(qemu().adopt(&machine).await.unwrap().is_none());
    let vm = qemu().adopt(&moved).await.unwrap().expect("it is still there");
    assert_eq!(vm.pid(), pid);

    let mut stranger = moved.clone();
    stranger.uuid = "00000000-0000-4000-8000-00000000ffff".into();
    assert!(qemu().adopt(&stranger).await.unwrap().is_none(), "another machine's process");
    vm.quit().await.unwrap();
    assert!(!exists(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn quit_leaves_the_log_and_nothing_else() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    let vm = qemu().boot(&machine).await.unwrap();
    let pid = vm.pid();
    let ram = fs::metadata(&machine.ram_path).unwrap();
    assert_eq!((ram.len(), ram.permissions().mode() & 0o777), (machine.memory_bytes, 0o600));
    assert_eq!(files(&machine), ["con", "intent", "keeper", "log", "pid", "qmp"]);
    vm.quit().await.unwrap();
    assert!(!exists(pid));
    assert_eq!(files(&machine), ["log"]);
    assert_eq!(vm.state().await.unwrap(), VmState::Gone);
    assert_eq!(vm.pause().await.unwrap_err().kind(), ErrorKind::Gone);
    vm.quit().await.unwrap();
    assert_eq!(zombies(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_killed_is_reaped_and_its_place_can_be_taken() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    let killed = qemu().boot(&machine).await.unwrap();
    sigkill(killed.pid());
    until_state(&*killed, VmState::Gone).await;
    assert_eq!(zombies(), 0);
    assert!(qemu().adopt(&machine).await.unwrap().is_none());

    let next = qemu().boot(&machine).await.unwrap();
    killed.quit().await.unwrap();
    assert_eq!(files(&machine), ["con", "intent", "keeper", "log", "pid", "qmp"], "they are the next one's");
    next.quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_waits_for_a_device_state_is_ended_on_adoption() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    fs::create_dir(&machine.dir).unwrap();
    let mut half = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-display", "none", "-machine", "none", "-S", "-incoming", "defer"])
        .args(["-uuid", &machine.uuid, "-qmp"])
        .arg(format!("unix:{},server=on,wait=off", machine.dir.join("qmp").display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    fs::write(machine.dir.join("pid"), half.id().to_string()).unwrap();
    while UnixStream::connect(machine.dir.join("qmp")).is_err() {
        assert!(half.try_wait().unwrap().is_none(), "QEMU did not start");
    }
    assert!(qemu().adopt(&machine).await.unwrap().is_none());
    assert!(!exists(half.id()));
    let _ = half.wait(); // reaped by then
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_not_what_was_started_is_not_adopted() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    let vm = qemu().boot(&machine).await.unwrap();
    drop(vm);
    let intent = machine.dir.join("intent");
    let written = fs::read_to_string(&intent).unwrap();
    assert!(written.contains(&machine.uuid) && written.contains("-uuid"), "{written}");
    let other = machine.uuid.replace("4000", "4001");
    for damaged in
        [written.replace("256M", "255M"), written.replace("vm-1", "vm-2"), written.replace(&machine.uuid, &other)]
    {
        assert_ne!(damaged, written);
        fs::write(&intent, damaged).unwrap();
        let refused = qemu().adopt(&machine).await.map(drop).unwrap_err();
        assert!(matches!(refused, Error::Protocol { command: "adopt", .. }), "{refused:?}");
    }
    fs::write(&intent, written).unwrap();
    qemu().adopt(&machine).await.unwrap().unwrap().quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_directory_is_lost_is_found_by_its_files() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.machine(1), fixture.machine(2));
    let (kept, lost) = (qemu().boot(&one).await.unwrap(), qemu().boot(&two).await.unwrap());
    fs::remove_dir_all(&two.dir).unwrap();
    assert!(qemu().adopt(&two).await.unwrap().is_none());
    let known = std::collections::HashSet::from([one.uuid.clone()]);
    let elsewhere = fixture.path().join("3");
    assert_eq!(qemu().end_others(&elsewhere, &Default::default()).await.unwrap(), 0);
    assert_eq!(qemu().end_others(fixture.path(), &known).await.unwrap(), 1);
    until_state(&*lost, VmState::Gone).await;
    assert_eq!(kept.state().await.unwrap(), VmState::Running);
    kept.quit().await.unwrap();
    assert_eq!(zombies(), 0);
}

/// Rule 29: what was checked is what is opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_the_files_and_not_their_paths() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    let vm = qemu().boot(&machine).await.unwrap();
    let line = fs::read_to_string(format!("/proc/{}/cmdline", vm.pid())).unwrap();
    let named: Vec<&str> = line.split('\0').filter(|word| word.contains("root.raw") || word.contains("/ram")).collect();
    assert!(named.iter().all(|word| word.contains("opaque=")), "{named:?}");
    let open = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", vm.pid())).unwrap().flatten();
        fds.filter_map(|fd| fs::read_link(fd.path()).ok()).collect::<Vec<_>>()
    };
    let maps = fs::read_to_string(format!("/proc/{}/maps", vm.pid())).unwrap();
    assert!(open().contains(&machine.disks[0].path), "{:?}", open());
    assert!(maps.contains(&*machine.ram_path.to_string_lossy()));
    vm.quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_before_anything_starts() {
    let fixture = Fixture::new();
    let none = Qemu::new(QemuConfig { binary: "/nowhere/qemu".into(), ..QemuConfig::default() });
    let error = none.host().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingDependency);
    assert!(error.to_string().contains("qemu-system-x86"), "{error}");

    let mut no_kernel = fixture.machine(1);
    no_kernel.kernel = "/nowhere/vmlinuz".into();
    let error = qemu().boot(&no_kernel).await.map(drop).unwrap_err();
    assert!(matches!(error, Error::File { what: "kernel", .. }), "{error:?}");
    assert!(!no_kernel.ram_path.exists() && !no_kernel.dir.exists());

    let other_size = fixture.machine(2);
    File::create(&other_size.ram_path).unwrap().set_len(1 << 20).unwrap();
    let state = tempfile::tempfile().unwrap();
    let error = qemu().restore(&other_size, Some(state)).await.map(drop).unwrap_err();
    assert!(matches!(error, Error::Machine { field: "memory_bytes", .. }), "{error:?}");
    assert!(!other_size.dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_described_by_versions() {
    let host = qemu().host().await.unwrap();
    assert_eq!((host.vmm.as_str(), host.accelerator.as_str(), host.cpu_model.as_str()), ("qemu", "tcg", "max"));
    let major_minor = host.machine_type.strip_prefix("pc-q35-").unwrap();
    assert!(host.version.starts_with(major_minor), "{host:?}");
}
