//! A booted guest is carried into another process.

use std::fs::File;

use form_vmm_hooks::{Cuts, VmState, Vmm};
use tokio::task::block_in_place;

use crate::console::Console;
use crate::fixture::{Fixture, copy, qemu};

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_guest_goes_on_where_the_captured_one_was() {
    let fixture = Fixture::new();
    let (qemu, original, other) = (qemu(), fixture.machine(1), fixture.machine(2));
    let vm = qemu.boot(&original).await.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    let mut console = Console::connect(&vm.console());
    let (boot_id, count) = block_in_place(|| {
        console.ready();
        console.run("word=kept");
        console.run("echo in-tmpfs > /tmp/file");
        console.run("echo in-page-cache > /root/file");
        console.run("(n=0; while :; do n=$((n + 1)); echo $n > /tmp/count; sleep 0.1; done) &");
        assert_eq!(console.run("cat /sys/class/net/eth0/carrier"), "1");
        console.run("while [ ! -s /tmp/count ]; do sleep 0.1; done");
        (console.run("cat /proc/sys/kernel/random/boot_id"), console.number("cat /tmp/count"))
    });
    assert_eq!(boot_id.len(), 36, "{boot_id:?}");

    let state_path = fixture.path().join("state");
    let (from, to) = (original.clone(), other.clone());
    let captured = vm.capture(
        Some(File::create(&state_path).unwrap()),
        Cuts::new(),
        Box::new(move |_| {
            copy(&from.ram_path, &to.ram_path);
            copy(&from.disks[0].path, &to.disks[0].path);
            Ok(())
        }),
    );
    let captured = captured.await.unwrap();
    eprintln!("{captured:?}, device state of {} bytes", state_path.metadata().unwrap().len());
    assert!(captured.pause_ns > 0 && captured.stop_ns > 0 && captured.state_ns > 0 && captured.copy_ns > 0);

    // The original goes on.
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    block_in_place(|| {
        let now = console.number("cat /tmp/count");
        assert!(now >= count);
        console.run(&format!("while [ $(cat /tmp/count) -le {now} ]; do sleep 0.1; done"));
        console.run("word=changed; echo changed > /root/file");
    });

    // The copy stands where it was captured, with its link down, until it is told otherwise.
    let copied = qemu.restore(&other, Some(File::open(&state_path).unwrap())).await.unwrap();
    assert_ne!(copied.pid(), vm.pid());
    assert_eq!(copied.state().await.unwrap(), VmState::Paused);
    vm.quit().await.unwrap();
    copied.resume().await.unwrap();
    assert_eq!(copied.state().await.unwrap(), VmState::Running);
    let mut console = Console::connect(&copied.console());
    block_in_place(|| {
        assert_eq!(console.run("echo $word"), "kept");
        assert_eq!(console.run("cat /tmp/file"), "in-tmpfs");
        assert_eq!(console.run("cat /root/file"), "in-page-cache");
        assert_eq!(console.run("cat /proc/sys/kernel/random/boot_id"), boot_id);
        let restored = console.number("cat /tmp/count");
        assert!(restored >= count);
        console.run(&format!("while [ $(cat /tmp/count) -le {restored} ]; do sleep 0.1; done"));
        assert_eq!(console.run("cat /sys/class/net/eth0/carrier"), "0");
    });
    copied.set_link(true).await.unwrap();
    block_in_place(|| console.run("while [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done"));

    // And once more, from the copy: a restored guest can be captured too.
    copied.capture(Some(File::create(&state_path).unwrap()), Cuts::new(), Box::new(|_| Ok(()))).await.unwrap();
    block_in_place(|| assert_eq!(console.run("echo $word; sync; echo $?"), "kept\n0"));
    copied.quit().await.unwrap();
}
