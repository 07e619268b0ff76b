//! A guest whose process is ended while it stands still, and that goes on in another one.

use std::fs::{self, File};

use form_vmm_hooks::{VmState, Vmm};
use tokio::task::block_in_place;

use crate::console::Console;
use crate::fixture::{Fixture, copy, qemu, sigkill, until_state};

#[tokio::test(flavor = "multi_thread")]
async fn rule_23_a_guest_that_was_saved_goes_on_where_it_was() {
    let fixture = Fixture::new();
    let (qemu, machine) = (qemu(), fixture.machine(1));
    let vm = qemu.boot(&machine).await.unwrap();
    let mut console = Console::connect(&vm.console());
    let boot_id = block_in_place(|| {
        console.ready();
        console.run("word=kept; echo in-page-cache > /root/file");
        console.run("(n=0; while :; do n=$((n + 1)); echo $n > /tmp/count; sleep 0.1; done) &");
        console.run("while [ ! -s /tmp/count ]; do sleep 0.1; done");
        console.run("cat /proc/sys/kernel/random/boot_id")
    });

    // Saving what runs would save something else. What was saved and not ended goes on all the same.
    let refused = vm.save(tempfile::tempfile().unwrap()).await.map_err(|error| error.to_string());
    assert!(refused.as_ref().is_err_and(|error| error.contains("running")), "{refused:?}");
    vm.pause().await.unwrap();
    vm.save(tempfile::tempfile().unwrap()).await.unwrap();
    vm.resume().await.unwrap();
    let count = block_in_place(|| {
        let now = console.number("cat /tmp/count");
        console.run(&format!("while [ $(cat /tmp/count) -le {now} ]; do sleep 0.1; done"));
        console.number("cat /tmp/count")
    });

    let state = fixture.path().join("state");
    vm.pause().await.unwrap();
    vm.save(File::create(&state).unwrap()).await.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Paused);
    let saved = fixture.path().join("saved");
    copy(&machine.ram_path, &saved);
    vm.quit().await.unwrap();
    let unchanged = || {
        let [now, then] = [&machine.ram_path, &saved].map(|path| fs::read(path).unwrap());
        let differ = now.iter().zip(&then).enumerate().filter(|(_, (now, then))| now != then).map(|(at, _)| at);
        assert_eq!((now.len(), differ.take(16).collect::<Vec<_>>()), (then.len(), vec![]));
    };
    unchanged();

    // Restored as what it was, it has written nothing before it runs: it may be lost there, and restored once more.
    let half = qemu.restore(&machine, Some(File::open(&state).unwrap())).await.unwrap();
    unchanged();
    sigkill(half.pid());
    until_state(&*half, VmState::Gone).await;
    unchanged();
    let vm = qemu.restore(&machine, Some(File::open(&state).unwrap())).await.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Paused);
    vm.set_link(true).await.unwrap();
    vm.resume().await.unwrap();
    let mut console = Console::connect(&vm.console());
    block_in_place(|| {
        assert_eq!(console.run("echo $word; cat /root/file"), "kept\nin-page-cache");
        assert_eq!(console.run("cat /proc/sys/kernel/random/boot_id"), boot_id);
        let restored = console.number("cat /tmp/count");
        assert!(restored >= count, "{restored}, {count}");
        console.run(&format!("while [ $(cat /tmp/count) -le {restored} ]; do sleep 0.1; done"));
        console.run("while [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done");
    });
    vm.quit().await.unwrap();
}
