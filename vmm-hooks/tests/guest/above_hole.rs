//! A guest with more memory than fits below the PCI hole: what lies above it is in the same file, and is carried like the rest.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use form_vmm_hooks::{Cuts, Vmm};
use tokio::task::block_in_place;

use crate::console::Console;
use crate::fixture::{Fixture, copy, qemu};

/// More than the 2815 MiB that q35 places below the hole. Of so much it has 2 GiB there, and the rest from 4 GiB on.
const MEMORY_BYTES: u64 = 3584 << 20;
const BELOW_BYTES: u64 = 2 << 30;
const PAGE: usize = 4096;

#[tokio::test(flavor = "multi_thread")]
async fn memory_above_the_pci_hole_is_carried_too() {
    let fixture = Fixture::new();
    let (qemu, mut original, mut other) = (qemu(), fixture.machine(1), fixture.machine(2));
    for machine in [&mut original, &mut other] {
        machine.memory_bytes = MEMORY_BYTES;
    }
    let vm = qemu.boot(&original).await.unwrap();
    let mut console = Console::connect(&vm.console());
    // Linux takes what is above the hole first.
    let sum = block_in_place(|| {
        console.ready();
        assert_eq!(console.run("grep -ci '^100000000-15fffffff : System RAM' /proc/iomem"), "1");
        console.run("for n in $(seq 20000); do echo above-the-hole; done > /tmp/mark");
        console.run("cksum /tmp/mark")
    });
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
    captured.await.unwrap();
    vm.quit().await.unwrap();
    assert_eq!(std::fs::metadata(&other.ram_path).unwrap().len(), MEMORY_BYTES);
    assert!(stands_above(&other.ram_path, b"above-the-hole\n"), "the mark is nowhere above the hole");

    let copied = qemu.restore(&other, Some(File::open(&state_path).unwrap())).await.unwrap();
    copied.resume().await.unwrap();
    let mut console = Console::connect(&copied.console());
    block_in_place(|| {
        assert_eq!(console.run("cksum /tmp/mark"), sum);
        // It can still be taken and used.
        console.run("cat /tmp/mark /tmp/mark > /tmp/more");
        assert_eq!(console.run("wc -c < /tmp/more"), (2 * 20_000 * 15).to_string());
    });
    copied.quit().await.unwrap();
}

/// Whether a page of that memory begins with `mark`.
fn stands_above(ram: &Path, mark: &[u8]) -> bool {
    let (file, mut piece) = (File::open(ram).unwrap(), vec![0; 1 << 20]);
    (BELOW_BYTES..MEMORY_BYTES).step_by(piece.len()).any(|offset| {
        file.read_exact_at(&mut piece, offset).unwrap();
        piece.chunks(PAGE).any(|page| page.starts_with(mark))
    })
}
