//! The ways out of a capture. The guest runs after each of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use form_vmm_hooks::{Cuts, Error, ErrorKind, VmState, Vmm};

use crate::fixture::{Fixture, copy, exists, files, qemu, sigkill, until_state, zombies};

fn somewhere() -> File {
    tempfile::tempfile().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_or_panics_leaves_the_guest_running() {
    let fixture = Fixture::new();
    let vm = qemu().boot(&fixture.machine(1)).await.unwrap();

    let failed = vm.capture(Some(somewhere()), Cuts::new(), Box::new(|_| Err(io::Error::other("disk full")))).await;
    assert!(matches!(&failed, Err(Error::WhilePaused { source, .. }) if source.to_string() == "disk full"));
    assert_eq!(vm.state().await.unwrap(), VmState::Running);

    let panicked = vm.capture(Some(somewhere()), Cuts::new(), Box::new(|_| panic!("as this test wants"))).await;
    assert!(matches!(panicked, Err(Error::Panicked { .. })));
    assert_eq!(vm.state().await.unwrap(), VmState::Running);

    // A device state that can't be written.
    let read_only = File::open("/dev/null").unwrap();
    let refused = vm.capture(Some(read_only), Cuts::new(), Box::new(|_| panic!("must not be reached"))).await;
    assert!(matches!(refused, Err(Error::DeviceState { .. })), "{refused:?}");
    assert_eq!(vm.state().await.unwrap(), VmState::Running);

    // None of that is in the way of the next.
    assert!(vm.capture(Some(somewhere()), Cuts::new(), Box::new(|_| Ok(()))).await.unwrap().pause_ns > 0);
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    vm.quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_gives_up_leaves_the_guest_running_once_the_copy_has_ended() {
    let fixture = Fixture::new();
    let vm = qemu().boot(&fixture.machine(1)).await.unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let held = Box::new(move |_| {
        begun.send(()).unwrap();
        may_end.recv().map_err(io::Error::other)
    });
    tokio::select! {
        _ = vm.capture(Some(somewhere()), Cuts::new(), held) => panic!("it can't have ended"),
        _ = tokio::task::spawn_blocking(move || has_begun.recv().unwrap()) => {}
    }
    assert_eq!(vm.state().await.unwrap(), VmState::Paused, "somebody is still copying");
    end.send(()).unwrap();
    until_state(&*vm, VmState::Running).await;
    vm.quit().await.unwrap();
}

#[test]
fn a_daemon_that_ends_during_a_capture_lets_the_guest_go_on() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    let (begun, has_begun) = mpsc::channel();
    let (_end, may_end) = mpsc::channel::<()>();

    let daemon = tokio::runtime::Runtime::new().unwrap();
    let vm = daemon.block_on(qemu().boot(&machine)).unwrap();
    daemon.spawn(async move {
        let held = Box::new(move |_| {
            begun.send(()).unwrap();
            may_end.recv_timeout(Duration::from_secs(600)).map_err(io::Error::other)
        });
        vm.capture(Some(somewhere()), Cuts::new(), held).await
    });
    has_begun.recv().unwrap();
    daemon.shutdown_background();

    tokio::runtime::Runtime::new().unwrap().block_on(async {
        // Between two looks the monitor is free: whoever resumes the guest needs it.
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let vm = qemu().adopt(&machine).await.unwrap().expect("it is still there");
            if vm.state().await.unwrap() == VmState::Running {
                return vm.quit().await.unwrap();
            }
            assert!(Instant::now() < end, "never resumed");
            drop(vm);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_pauses_or_resumes_during_a_capture() {
    let fixture = Fixture::new();
    let vm = qemu().boot(&fixture.machine(1)).await.unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let held = Box::new(move |_| {
        begun.send(()).unwrap();
        may_end.recv().map_err(io::Error::other)
    });
    let capture = vm.capture(Some(somewhere()), Cuts::new(), held);
    let resume = async {
        tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
        let resumed = tokio::time::timeout(Duration::from_millis(200), vm.resume()).await;
        assert!(resumed.is_err(), "it went in between");
        end.send(()).unwrap();
    };
    let (captured, ()) = tokio::join!(capture, resume);
    captured.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    vm.quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_during_a_capture_is_said_to_be_gone() {
    let fixture = Fixture::new();
    let vm = qemu().boot(&fixture.machine(1)).await.unwrap();
    let pid = vm.pid();
    let kill = Box::new(move |_| {
        sigkill(pid);
        Ok(())
    });
    let error = vm.capture(Some(somewhere()), Cuts::new(), kill).await.unwrap_err();
    assert!(matches!(&error, Error::NotResumed { source, .. } if source.kind() == ErrorKind::Gone), "{error:?}");
    until_state(&*vm, VmState::Gone).await;
    vm.quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_state_cut_short_is_refused_with_the_reason_and_leaves_nothing() {
    let fixture = Fixture::new();
    let (qemu, original, other) = (qemu(), fixture.machine(1), fixture.machine(2));
    let vm = qemu.boot(&original).await.unwrap();
    let state_path = fixture.path().join("state");
    let (from, to) = (original.ram_path.clone(), other.ram_path.clone());
    let copy_ram = Box::new(move |_| {
        copy(&from, &to);
        Ok(())
    });
    vm.capture(Some(File::create(&state_path).unwrap()), Cuts::new(), copy_ram).await.unwrap();
    let whole = fs::read(&state_path).unwrap();

    for kept in [0, 1000, whole.len() / 2] {
        fs::write(&state_path, &whole[..kept]).unwrap();
        let error = qemu.restore(&other, Some(File::open(&state_path).unwrap())).await.map(drop).unwrap_err();
        match &error {
            Error::Gone { log, .. } => assert!(log.contains("load of migration failed"), "{kept}: {error}"),
            Error::DeviceState { reason, .. } => assert!(!reason.is_empty()),
            _ => panic!("{kept}: {error:?}"),
        }
        assert_eq!(files(&other), ["log"]);
        assert!(qemu.adopt(&other).await.unwrap().is_none());
    }
    assert_eq!(zombies(), 0);

    // The same machine restores once the state is whole.
    fs::write(&state_path, &whole).unwrap();
    let restored = qemu.restore(&other, Some(File::open(&state_path).unwrap())).await.unwrap();
    assert_eq!(restored.state().await.unwrap(), VmState::Paused);
    assert!(exists(restored.pid()) && exists(vm.pid()));
    restored.quit().await.unwrap();
    vm.quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_during_a_restore_or_right_after_its_resume_leaves_nothing() {
    let fixture = Fixture::new();
    let (qemu, original, other) = (qemu(), fixture.machine(1), fixture.machine(2));
    let vm = qemu.boot(&original).await.unwrap();
    let state_path = fixture.path().join("state");
    let (from, to) = (original.ram_path.clone(), other.ram_path.clone());
    let copy_ram = Box::new(move |_| {
        copy(&from, &to);
        Ok(())
    });
    vm.capture(Some(File::create(&state_path).unwrap()), Cuts::new(), copy_ram).await.unwrap();
    vm.quit().await.unwrap();

    // The rest of its device state never comes: it waits for that when it is killed.
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut writer = File::from(writer);
    writer.write_all(&fs::read(&state_path).unwrap()[..1000]).unwrap();
    let killed = async {
        let pid = loop {
            let pid = fs::read_to_string(other.dir.join("pid")).unwrap_or_default();
            if let Ok(pid) = pid.trim().parse() {
                break pid;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        sigkill(pid);
        pid
    };
    let (restored, pid) = tokio::join!(qemu.restore(&other, Some(reader.into())), killed);
    let error = restored.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone, "{error:?}");
    assert_eq!((exists(pid), files(&other)), (false, vec!["log".to_owned()]));
    assert!(qemu.adopt(&other).await.unwrap().is_none());

    for _ in 0..2 {
        let vm = qemu.restore(&other, Some(File::open(&state_path).unwrap())).await.unwrap();
        vm.resume().await.unwrap();
        sigkill(vm.pid());
        until_state(&*vm, VmState::Gone).await;
        assert!(qemu.adopt(&other).await.unwrap().is_none());
        vm.quit().await.unwrap();
        assert_eq!(files(&other), ["log"]);
    }
    assert_eq!(zombies(), 0);
}
