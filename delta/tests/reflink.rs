//! Clones on the file systems of hosts: XFS and btrfs share blocks, ext4 copies them. Each is made in a file and mounted in a mount namespace that ends with the
//! thread, so that nothing is left behind whatever happens. Needs root, xfsprogs and btrfs-progs.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]
#![expect(unsafe_code, reason = "a thread of its own in a mount namespace of its own")]

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process::Command,
    thread,
};

use form_delta::{
    Base, CloneKind, Engine, Image, Spool, apply, clone_image, diff, encode,
    generate::{memory_file, noise},
    plan, scan, verify_image,
};
use rustix::{
    mount::{MountPropagationFlags, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

const MIB: u64 = 1 << 20;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `test` in a new file system.
fn on(make: &[&str], len_bytes: u64, test: fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let (device, place) = (dir.path().join("device"), dir.path().join("mounted"));
    File::create_new(&device).unwrap().set_len(len_bytes).unwrap();
    fs::create_dir(&place).unwrap();
    run(make[0], &[&make[1..], &[device.to_str().unwrap()]].concat());
    let alone = thread::spawn(move || {
        // SAFETY: no descriptor is shared differently, only this thread's view of the mounts is its own from now on.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace; this needs root");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        run("mount", &["-o", "loop", device.to_str().unwrap(), place.to_str().unwrap()]);
        test(&place);
    });
    if let Err(panic) = alone.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Bytes that the file system has used.
fn used_bytes(place: &Path) -> u64 {
    rustix::fs::sync();
    let stat = rustix::fs::statvfs(place).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// 16 MiB of data, 16 MiB of hole, 16 MiB of data.
fn base_bytes() -> Vec<u8> {
    let mut bytes = noise(1, 48 << 20);
    bytes[16 << 20..32 << 20].fill(0);
    bytes
}

fn write_base(place: &Path) -> std::path::PathBuf {
    let path = place.join("base");
    let mut bytes = memory_file(&base_bytes()).unwrap();
    let file = File::create_new(&path).unwrap();
    file.set_len(48 * MIB).unwrap();
    for start in [0, 32 * MIB] {
        let mut part = vec![0; 16 << 20];
        bytes.read_exact_at(&mut part, start).unwrap();
        file.write_all_at(&part, start).unwrap();
    }
    std::io::Seek::rewind(&mut bytes).unwrap();
    file.sync_all().unwrap();
    path
}

fn clone_and_rebuild(place: &Path, is_shared: bool) {
    let base_path = write_base(place);
    let base_bytes = base_bytes();
    let before = used_bytes(place);
    let out_path = place.join("out");
    let kind = clone_image(&base_path, &out_path).unwrap();
    match is_shared {
        true => assert_eq!(kind, CloneKind::Reflink),
        false => assert_eq!(kind, CloneKind::Copy { bytes: 32 * MIB }),
    }
    let cloned = used_bytes(place) - before;
    let data = if is_shared { 0 } else { 32 * MIB };
    assert!((data..=data + 4 * MIB).contains(&cloned), "the clone took {cloned} bytes");

    // Some blocks change, some are freed, some are new in the hole.
    let mut new = base_bytes.clone();
    new[5 << 20..6 << 20].copy_from_slice(&noise(2, 1 << 20));
    new[33 << 20..41 << 20].fill(0);
    new[20 << 20..21 << 20].copy_from_slice(&noise(3, 1 << 20));
    let base = Image::open(&base_path).unwrap();
    let base_manifest = scan(&base);
    let new = form_delta::generate::image(&new).unwrap();
    let diff = diff(&base, &base_manifest, &new).unwrap();
    let manifest = diff.manifest;
    let mut frames = Vec::new();
    let bases = [Base { image: &base, manifest: &base_manifest, blocks: None }];
    let encoded = encode(&bases, &new, &manifest, &diff.changed, &mut frames, &mut |_, _| {}).unwrap();
    let spool = Spool::full(memory_file(&frames).unwrap(), encoded.index.clone());
    let plan = plan(&encoded.index, &spool, &[&base_manifest]).unwrap();
    let out = File::options().read(true).write(true).open(&out_path).unwrap();
    let applied = apply(&plan, &spool, &[&base], &out, Engine::probe().0, &mut |_, _| {}).unwrap();
    assert_eq!((applied.bytes_written, applied.holes_punched, applied.fsyncs), (2 * MIB, 1, 1));
    verify_image(&out, &manifest).unwrap();

    // What was shared and is punched stays allocated once, for the base; a copy gives it back.
    let rebuilt = used_bytes(place) - before;
    let data = if is_shared { 2 * MIB } else { 32 * MIB + MIB - 8 * MIB };
    assert!((data..=data + 4 * MIB).contains(&rebuilt), "all in all it took {rebuilt} bytes");
    let allocated = out.metadata().unwrap().blocks() * 512;
    assert!((25 * MIB..25 * MIB + 65536).contains(&allocated), "{allocated}");
    assert!(Image::open(&base_path).unwrap().as_slice() == base_bytes, "the base is what it was");
    verify_image(&File::open(&base_path).unwrap(), &base_manifest).unwrap();
}

#[test]
fn xfs_shares_blocks() {
    on(&["mkfs.xfs", "-q", "-m", "reflink=1"], 320 * MIB, |place| clone_and_rebuild(place, true));
}

#[test]
fn btrfs_shares_blocks() {
    on(&["mkfs.btrfs", "-q"], 256 * MIB, |place| clone_and_rebuild(place, true));
}

#[test]
fn ext4_copies_data_and_keeps_holes() {
    on(&["mkfs.ext4", "-q"], 256 * MIB, |place| clone_and_rebuild(place, false));
}
