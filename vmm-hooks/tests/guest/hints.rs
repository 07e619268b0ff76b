//! What QEMU says of where a guest wrote to covers what a compare finds.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use form_vmm_hooks::{Cut, Cuts, Keep, Keeps, Mark, Vm, Vmm, Written};
use rustix::fs::{SeekFrom, seek};
use tokio::task::block_in_place;

use crate::console::Console;
use crate::fixture::{Fixture, copy, exists, files, qemu};

const BLOCK: usize = 4096;
const SLICE: usize = 1 << 20;

fn cuts(since: Option<&str>, next: &str) -> Cuts {
    [("root".to_owned(), Cut { since: since.map(Mark::new), next: Mark::new(next) })].into()
}

fn keeps(kept: &str, chain: &[&str]) -> Keeps {
    [("root".to_owned(), Keep { kept: Mark::new(kept), chain: chain.iter().map(Mark::new).collect() })].into()
}

fn somewhere() -> Option<File> {
    Some(tempfile::tempfile().unwrap())
}

/// The blocks that differ, in bytes from the begin.
fn differing(a: &Path, b: &Path) -> Vec<u64> {
    let (a, b) = (File::open(a).unwrap(), File::open(b).unwrap());
    let (mut left, mut right, mut found) = (vec![0; SLICE], vec![0; SLICE], Vec::new());
    let is_hole =
        |file: &File, at: u64| !matches!(seek(file, SeekFrom::Data(at)), Ok(data) if data < at + SLICE as u64);
    for at in (0..a.metadata().unwrap().len()).step_by(SLICE) {
        if is_hole(&a, at) && is_hole(&b, at) {
            continue;
        }
        a.read_exact_at(&mut left, at).unwrap();
        b.read_exact_at(&mut right, at).unwrap();
        if left != right {
            let pairs = left.chunks(BLOCK).zip(right.chunks(BLOCK)).enumerate();
            found.extend(pairs.filter(|(_, (a, b))| a != b).map(|(n, _)| at + (n * BLOCK) as u64));
        }
    }
    found
}

/// A capture that is cut; what was written, and where the disk differs from `base` during the pause. The disk is copied
/// to `to` if one is given.
async fn capture(vm: &dyn Vm, cuts: Cuts, disk: &Path, base: Option<&Path>, to: Option<&Path>) -> (Written, Vec<u64>) {
    let seen = Arc::new(Mutex::new((Written::new(), Vec::new())));
    let (out, disk, base) = (Arc::clone(&seen), disk.to_owned(), base.map(Path::to_owned));
    let to: Option<PathBuf> = to.map(Path::to_owned);
    let look = move |written| {
        let differs = base.map(|base| differing(&disk, &base)).unwrap_or_default();
        if let Some(to) = to {
            copy(&disk, &to);
        }
        *out.lock().unwrap() = (written, differs);
        Ok(())
    };
    let captured = vm.capture(somewhere(), cuts, Box::new(look)).await.unwrap();
    eprintln!("{captured:?}");
    Arc::try_unwrap(seen).unwrap().into_inner().unwrap()
}

/// All blocks lie in the ranges.
fn covers(ranges: &[&Vec<Range<u64>>], blocks: &[u64]) {
    let within = |block: &u64| {
        ranges.iter().any(|list| list.iter().any(|range| range.start <= *block && block + BLOCK as u64 <= range.end))
    };
    let missed: Vec<_> = blocks.iter().filter(|block| !within(block)).collect();
    assert!(missed.is_empty(), "{} of {} blocks were not said: {missed:?}", missed.len(), blocks.len());
}

fn bytes(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_8_what_was_written_is_said_and_little_else() {
    let fixture = Fixture::new();
    let (qemu, machine) = (qemu(), fixture.machine(1));
    let (disk, base) = (machine.disks[0].path.clone(), fixture.path().join("base"));
    let vm = qemu.boot(&machine).await.unwrap();
    let mut console = Console::connect(&vm.console());
    block_in_place(|| console.ready());

    // Nothing has been recorded yet: nothing is known.
    let (written, _) = capture(&*vm, cuts(Some("never"), "base"), &disk, None, Some(&base)).await;
    assert_eq!(written, Written::new());
    block_in_place(|| {
        console.run("dd if=/dev/urandom of=/root/first bs=64k count=40 2> /dev/null; sync");
        console.run("(n=0; while :; do n=$((n + 1)); echo $n > /root/count; sync; done) &");
    });
    // While it writes: what is not in one answer is in the next.
    let begin = Instant::now();
    let first = vm.cut(&cuts(Some("base"), "warm")).await.remove("root").expect("known");
    eprintln!("read in {:?}: {} ranges, {} bytes", begin.elapsed(), first.len(), bytes(&first));
    assert!((40 * 65536..256 << 20).contains(&bytes(&first)), "{first:?}");
    block_in_place(|| {
        console.run("dd if=/dev/urandom of=/root/second bs=4k count=9 2> /dev/null; rm /root/first; sync")
    });
    let (mut written, differs) = capture(&*vm, cuts(Some("warm"), "pause"), &disk, Some(&base), None).await;
    let second = written.remove("root").expect("known");
    assert!(differs.len() > 600, "{} blocks", differs.len());
    covers(&[&first, &second], &differs);
    let said = bytes(&first) + bytes(&second);
    eprintln!("{} blocks differ, {} were said", differs.len(), said / BLOCK as u64);
    assert!(bytes(&second) < bytes(&first));

    // An abort merges back: all since the base is known again, in one.
    vm.keep(&keeps("base", &["base", "warm", "pause"])).await;
    let (mut written, differs) =
        capture(&*vm, cuts(Some("base"), "next"), &disk, Some(&base), Some(&fixture.path().join("new"))).await;
    let all = written.remove("root").expect("known");
    covers(&[&all], &differs);
    assert!(bytes(&all) >= bytes(&first) && !differs.is_empty());
    // A commit: the last recording is the new base's. Another daemon finds it by its name.
    vm.keep(&keeps("new", &["next"])).await;
    block_in_place(|| console.run("dd if=/dev/urandom of=/root/third bs=4k count=9 2> /dev/null; sync"));
    drop(vm);
    let vm = qemu.adopt(&machine).await.unwrap().expect("it runs");
    assert_eq!(vm.cut(&cuts(Some("base"), "x")).await, Written::new(), "that base is gone");
    let (mut written, differs) =
        capture(&*vm, cuts(Some("new"), "y"), &disk, Some(&fixture.path().join("new")), None).await;
    let third = written.remove("root").expect("known");
    covers(&[&third], &differs);
    assert!(bytes(&third) < bytes(&all) && differs.len() >= 9);

    // One that was ended stays ended, and a used mark is not used again.
    assert_eq!(vm.cut(&cuts(Some("new"), "z")).await, Written::new());
    assert_eq!(vm.cut(&cuts(Some("y"), "z")).await, Written::new());
    // A gap: nothing is kept.
    vm.keep(&keeps("new", &["new", "gone", "y"])).await;
    assert_eq!(vm.cut(&cuts(Some("new"), "a")).await, Written::new());
    assert_eq!(vm.cut(&cuts(Some("a"), "b")).await.len(), 1);
    assert!(!files(&machine).contains(&"nbd".to_owned()), "{:?}", files(&machine));
    let pid = vm.pid();
    vm.quit().await.unwrap();
    assert!(!exists(pid));
}
