//! The fake keeps the promises that its users' tests rest on.

use std::io::Seek;

use form_vmm_hooks::fake::{FakeVmm, Step};
use form_vmm_hooks::{Cuts, Error, ErrorKind, Machine, VmState, Vmm};

fn machine(dir: &std::path::Path, number: u8) -> Machine {
    Machine {
        name: format!("vm-{number}"),
        uuid: format!("00000000-0000-4000-8000-{number:012}"),
        dir: dir.join(format!("run-{number}")),
        memory_bytes: 32 << 20,
        ram_path: dir.join(format!("ram-{number}")),
        disks: Vec::new(),
        kernel: "/nowhere".into(),
        initrd: None,
        cmdline: String::new(),
        mac: "52:54:00:00:00:01".into(),
        generation_id: "00000000-0000-4000-9000-000000000000".into(),
        link_up: true,
        agent: false,
        commands: Default::default(),
    }
}

#[tokio::test]
async fn a_capture_restores_elsewhere_and_only_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (vmm, from, to) = (FakeVmm::default(), machine(dir.path(), 1), machine(dir.path(), 2));
    let vm = vmm.boot(&from).await.unwrap();
    let mut state = tempfile::tempfile().unwrap();
    let (ram, copy) = (from.ram_path.clone(), to.ram_path.clone());
    let copy_ram = Box::new(move |_| std::fs::copy(ram, copy).map(drop));
    assert!(vm.capture(Some(state.try_clone().unwrap()), Cuts::new(), copy_ram).await.unwrap().pause_ns > 0);

    state.rewind().unwrap();
    let restored = vmm.restore(&to, Some(state.try_clone().unwrap())).await.unwrap();
    assert_eq!(vmm.processes(), [("vm-1".into(), VmState::Running, true), ("vm-2".into(), VmState::Paused, false)]);
    restored.quit().await.unwrap();

    state.set_len(5).unwrap();
    state.rewind().unwrap();
    let refused = vmm.restore(&to, Some(state)).await.map(drop).unwrap_err();
    assert!(matches!(refused, Error::DeviceState { .. }));
    assert_eq!(vmm.processes().len(), 1);
}

#[tokio::test]
async fn it_notes_a_machine_that_runs_twice_and_ends_those_that_nobody_knows() {
    let dir = tempfile::tempdir().unwrap();
    let (vmm, one, mut two) = (FakeVmm::default(), machine(dir.path(), 1), machine(dir.path(), 2));
    let vm = vmm.boot(&one).await.unwrap();
    vm.pause().await.unwrap();
    two.name.clone_from(&one.name);
    let twin = vmm.boot(&two).await.unwrap();
    assert!(vmm.twins().is_empty());
    vm.resume().await.unwrap();
    assert_eq!(vmm.twins(), ["vm-1"]);

    let known = std::collections::HashSet::from([one.uuid.clone()]);
    assert_eq!(vmm.end_others(&dir.path().join("elsewhere"), &known).await.unwrap(), 0);
    assert_eq!(vmm.end_others(dir.path(), &known).await.unwrap(), 1);
    assert_eq!((vm.state().await.unwrap(), twin.state().await.unwrap()), (VmState::Running, VmState::Gone));
}

#[tokio::test]
async fn a_failure_happens_once_where_it_was_put() {
    let dir = tempfile::tempdir().unwrap();
    let (vmm, one) = (FakeVmm::default(), machine(dir.path(), 1));
    let vm = vmm.boot(&one).await.unwrap();
    let somewhere = || tempfile::tempfile().unwrap();

    vmm.fail("vm-1", Step::CaptureState);
    assert!(vm.capture(Some(somewhere()), Cuts::new(), Box::new(|_| panic!("not reached"))).await.is_err());
    assert_eq!(vm.state().await.unwrap(), VmState::Running);

    assert!(vm.capture(Some(somewhere()), Cuts::new(), Box::new(|_| panic!("as this test wants"))).await.is_err());
    assert_eq!(vm.state().await.unwrap(), VmState::Running);

    vmm.fail("vm-1", Step::CaptureResume);
    let stuck = vm.capture(Some(somewhere()), Cuts::new(), Box::new(|_| Ok(()))).await.unwrap_err();
    assert_eq!(stuck.kind(), ErrorKind::StillPaused);
    drop(vm);

    // Another daemon finds it, and it can be resumed.
    let vm = vmm.adopt(&one).await.unwrap().expect("it is still there");
    assert_eq!(vm.state().await.unwrap(), VmState::Paused);
    vm.resume().await.unwrap();
    assert!(vm.capture(Some(somewhere()), Cuts::new(), Box::new(|_| Ok(()))).await.is_ok());

    vmm.crash("vm-1");
    assert_eq!(vm.state().await.unwrap(), VmState::Gone);
    assert!(vmm.adopt(&one).await.unwrap().is_none());
    assert_eq!(vmm.calls().iter().filter(|(_, step)| *step == Step::CaptureResume).count(), 4);
}
