//! What touches files: spool, clone, verification, shadow.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use form_delta::{
    CloneKind, ErrorKind, Extent, FrameIndex, Image, Mapped, Refreshed, Spool, clone_image, encode,
    generate::{image, memory_file, noise},
    refresh_shadow, scan, verify_image,
};
use proptest::prelude::*;

const MIB: usize = 1 << 20;

fn bytes(file: &File) -> Vec<u8> {
    // Not through a mapping: on tmpfs that would fill the holes.
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_spool_takes_frames_in_any_order_and_gives_them_back_verified() {
    let new = image(&noise(1, 5 * MIB)).unwrap();
    let mut frames = Vec::new();
    let encoded = encode(&[], &new, &scan(&new), &[], &mut frames, &mut |_, _| {}).unwrap();
    let index = encoded.index;
    assert_eq!(index.frames_len_bytes(), frames.len() as u64);
    let frame = |number: u32| {
        let range = index.frame_range(number).unwrap();
        frames[range.start as usize..range.end as usize].to_vec()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let spool = Spool::create(&path, index.clone()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Spool::create(&path, index.clone()).is_err(), "never over another one");
    assert_eq!(spool.missing(), [0, 1, 2]);
    for number in [2, 0, 0] {
        spool.put(index.verify(number, frame(number)).unwrap()).unwrap();
    }
    assert_eq!(spool.missing(), [1]);
    assert_eq!(spool.read(2).unwrap().bytes(), frame(2));
    assert_eq!(spool.read(1).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(spool.read(3).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(index.verify(3, vec![]).unwrap_err().kind(), ErrorKind::Refused);
    spool.put(index.verify(1, frame(1)).unwrap()).unwrap();
    assert_eq!(spool.missing(), []);
    assert!(fs::read(&path).unwrap() == frames);

    // Damaged while it waits: found when it is read.
    let at = index.frame_range(1).unwrap().start + 100;
    File::options().write(true).open(&path).unwrap().write_all_at(&[0xff; 9], at).unwrap();
    assert_eq!(spool.read(1).unwrap_err().kind(), ErrorKind::Corrupt);

    // A frame of another delta.
    let one = FrameIndex { frames: index.frames[..1].to_vec(), ..index.clone() };
    let other = FrameIndex { frames: index.frames[1..].to_vec(), ..index.clone() };
    let stranger = one.verify(0, frame(0)).unwrap();
    let other = Spool::create(&dir.path().join("other"), other).unwrap();
    assert_eq!(other.put(stranger).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn a_clone_has_the_bytes_the_holes_and_mode_0600() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let file = File::create_new(&from).unwrap();
    file.set_len(64 * MIB as u64 + 17).unwrap();
    file.write_all_at(&noise(1, MIB), 8 * MIB as u64).unwrap();
    file.write_all_at(b"end", 64 * MIB as u64).unwrap();
    file.sync_all().unwrap();
    let kind = clone_image(&from, &to).unwrap();
    if let CloneKind::Copy { bytes } = kind {
        assert!(bytes <= 2 * MIB as u64, "{bytes} bytes copied: holes were read");
    }
    let (from, copy) = (Image::open(&from).unwrap(), Image::open(&to).unwrap());
    assert!(from.as_slice() == copy.as_slice());
    assert_eq!(from.data(), copy.data());
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    // Never over a file that is there, and nothing left behind when it fails.
    assert!(clone_image(&dir.path().join("from"), &to).is_err());
    assert!(clone_image(&dir.path().join("none"), &dir.path().join("never")).is_err());
    assert!(!dir.path().join("never").exists());
}

#[test]
fn verification_finds_any_changed_byte_and_names_the_chunk() {
    let mut content = noise(1, MIB);
    content.resize(3 * MIB, 0);
    let file = memory_file(&content).unwrap();
    let manifest = scan(&image(&content).unwrap());
    verify_image(&file, &manifest).unwrap();
    for at in [0, MIB - 1, 2 * MIB, 3 * MIB - 1] {
        let right = content[at];
        file.write_all_at(&[right ^ 1], at as u64).unwrap();
        let error = verify_image(&file, &manifest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let text = error.to_string();
        let place: usize = text.split(&[' ', ':'][..]).find_map(|word| word.parse().ok()).unwrap();
        assert!((place..place + 256 * 1024).contains(&at), "{at}: {text}");
        file.write_all_at(&[right], at as u64).unwrap();
    }
    // Data that got lost leaves a hole.
    let emptied = memory_file(&vec![0; 3 * MIB]).unwrap();
    assert_eq!(verify_image(&emptied, &manifest).unwrap_err().kind(), ErrorKind::Corrupt);
    file.set_len(3 * MIB as u64 + 1).unwrap();
    assert_eq!(verify_image(&file, &manifest).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn a_shadow_moves_only_what_changed() {
    let mut content = noise(1, 2 * MIB);
    content.resize(512 * MIB, 0);
    let live = memory_file(&content).unwrap();
    let shadow = memory_file(&[]).unwrap();
    let all = refresh_shadow(&live, &shadow).unwrap();
    let data = 2 * MIB as u64;
    assert_eq!(all, Refreshed { bytes_read: data, bytes_written: data, changed: vec![Extent::new(0, data)] });
    let again = refresh_shadow(&live, &shadow).unwrap();
    assert_eq!(again, Refreshed { bytes_read: data, bytes_written: 0, changed: vec![] });
    live.write_all_at(&[1, 2, 3], 4095).unwrap();
    live.write_all_at(&[9], 300 * MIB as u64).unwrap();
    let third = refresh_shadow(&live, &shadow).unwrap();
    assert_eq!(third.bytes_written, 3 * 4096);
    let far = 300 * MIB as u64;
    assert_eq!(third.changed, [Extent::new(0, 2 * 4096), Extent::new(far, far + 4096)]);
    assert!(bytes(&live) == bytes(&shadow));
    assert_eq!(shadow.metadata().unwrap().blocks(), live.metadata().unwrap().blocks());
}

#[test]
fn what_the_guest_freed_becomes_a_hole_in_the_shadow() {
    let live = memory_file(&noise(1, 2 * MIB)).unwrap();
    let shadow = memory_file(&[]).unwrap();
    refresh_shadow(&live, &shadow).unwrap();
    live.set_len(0).unwrap();
    live.set_len(2 * MIB as u64).unwrap();
    live.write_all_at(&[5], 4096).unwrap();
    refresh_shadow(&live, &shadow).unwrap();
    assert!(bytes(&live) == bytes(&shadow));
    assert_eq!(shadow.metadata().unwrap().blocks() * 512, 4096);
}

/// Makes the file one that has these bytes; blocks of zeros are holes.
fn rewrite(file: &File, bytes: &[u8]) {
    file.set_len(0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (block, at) in bytes.chunks(4096).zip((0..).step_by(4096)).filter(|(block, _)| block.iter().any(|b| *b != 0)) {
        file.write_all_at(block, at).unwrap();
    }
}

#[test]
fn a_mapped_live_file_may_change_while_it_is_followed() {
    let content = noise(1, 8 * MIB);
    let (live, shadow) = (memory_file(&content).unwrap(), memory_file(&content).unwrap());
    let mut mapped = Mapped::new(&live, &shadow).unwrap();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let guest = scope.spawn(|| {
            for (round, at) in (0_u64..).zip((0..8 * MIB as u64).step_by(12_345).cycle()) {
                live.write_all_at(&round.to_le_bytes(), at).unwrap();
                if ended.load(Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..20 {
            mapped.refresh().unwrap();
        }
        ended.store(true, Relaxed);
        guest.join().unwrap();
    });
    mapped.refresh().unwrap();
    assert!(bytes(&live) == bytes(&shadow) && bytes(&live) != content);
    assert_eq!(mapped.refresh().unwrap().changed, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn mapped_or_read_the_same_is_done(script in proptest::collection::vec(any::<u8>(), 0..120)) {
        let (before, after) = form_delta::generate::image_pair(&script);
        let [live, read, shadow] = [&after, &before, &before].map(|bytes| memory_file(bytes).unwrap());
        let mut mapped = Mapped::new(&live, &shadow).unwrap();
        let mut as_long = before.clone();
        as_long.resize(after.len(), 1);
        // Of other bytes and holes, then of another length, then as long as it was mapped again.
        for now in [&after, &as_long, &after, &before, &as_long] {
            rewrite(&live, now);
            prop_assert_eq!(mapped.refresh().unwrap(), refresh_shadow(&live, &read).unwrap());
            prop_assert!(bytes(&shadow) == *now);
            prop_assert_eq!(shadow.metadata().unwrap().blocks(), read.metadata().unwrap().blocks());
        }
    }

    #[test]
    fn a_shadow_equals_the_live_file(script in proptest::collection::vec(any::<u8>(), 0..120)) {
        let (before, after) = form_delta::generate::image_pair(&script);
        let shadow = memory_file(&before).unwrap();
        let live = memory_file(&after).unwrap();
        let changed = refresh_shadow(&live, &shadow).unwrap().changed;
        prop_assert!(bytes(&shadow) == after);
        // Where it says nothing, nothing changed.
        for at in 0..before.len().min(after.len()) {
            let told = changed.iter().any(|extent| (extent.start..extent.end).contains(&(at as u64)));
            prop_assert!(told || before[at] == after[at], "{at} is not in {changed:?}");
        }
        prop_assert_eq!(refresh_shadow(&live, &shadow).unwrap().bytes_written, 0);
    }
}
