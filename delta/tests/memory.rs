//! Images are mapped whole, and yet little of them is in the memory of the process at any time. Alone in its file: what is counted is the process's.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
};

use form_delta::{Image, diff, encode, generate::noise, limits, rechunk, scan, verify_image};
use rustix::fs::{MemfdFlags, memfd_create};

const MIB: u64 = 1 << 20;
/// Of each of two images.
const IMAGE_BYTES: u64 = 640 * MIB;
/// The promise is 256 MiB for a whole process; this is what looking at images may take of it.
const MEMORY_BYTES_MAX: u64 = 96 * MIB;

/// The same, of encoding: what each thread takes, the new bytes that may be referred to, and a window of each image.
const ENCODE_BYTES_MAX: u64 = 40 * MIB * limits::ENCODE_THREADS_MAX as u64 + limits::EARLIER_BYTES_MAX + 32 * MIB;

/// The largest memory that the process had since the last call, in bytes.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    // Starts it again from what is there now.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    kib << 10
}

fn file(is_changed: impl Fn(u64) -> bool) -> File {
    let file = File::from(memfd_create("image", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(IMAGE_BYTES + 64 * MIB).unwrap();
    let mut bytes = noise(1, MIB as usize);
    for number in 0..IMAGE_BYTES / MIB {
        bytes.chunks_mut(4096).for_each(|page| page[..8].copy_from_slice(&(number + 1).to_le_bytes()));
        if is_changed(number) {
            bytes[500_000] ^= 0xff;
        }
        file.write_all_at(&bytes, number * MIB).unwrap();
        if is_changed(number) {
            bytes[500_000] ^= 0xff;
        }
    }
    file
}

#[test]
fn memory_is_bounded_whatever_the_size_of_the_images() {
    let base = Image::from_file(file(|_| false)).unwrap();
    let new_file = file(|number| number % 20 == 3);
    let new = Image::from_file(new_file.try_clone().unwrap()).unwrap();
    peak_bytes();
    let base_manifest = scan(&base);
    let scanned = peak_bytes();
    let found = diff(&base, &base_manifest, &new).unwrap();
    let compared = peak_bytes();
    let everything = vec![form_delta::Extent::new(0, new.len_bytes())];
    let again = rechunk(&new, &base_manifest, everything).unwrap();
    let rechunked = peak_bytes();
    verify_image(&new_file, &found.manifest).unwrap();
    let verified = peak_bytes();
    let is_same = again == found.manifest && scan(&new) == found.manifest;
    drop((base, new));
    // New bytes that repeat others of 60 MiB before: those are looked at again, by frames that are encoded while the next ones are out of their reach.
    let file = File::from(memfd_create("image", MemfdFlags::CLOEXEC).unwrap());
    let pieces: Vec<Vec<u8>> = (0..60).map(|seed| noise(seed, MIB as usize)).collect();
    for (piece, at) in pieces.iter().cycle().zip((0..IMAGE_BYTES).step_by(MIB as usize)) {
        file.write_all_at(piece, at).unwrap();
    }
    drop(pieces);
    let image = Image::from_file(file).unwrap();
    let manifest = scan(&image);
    peak_bytes();
    let encoded = encode(&[], &image, &manifest, &[], &mut io::sink(), &mut |_, _| {}).unwrap();
    let encode_bytes = peak_bytes();
    assert!(encoded.index.frames_len_bytes() < 80 * MIB, "{:?}", encoded.totals);
    assert!(encode_bytes <= ENCODE_BYTES_MAX, "encode took {} MiB", encode_bytes / MIB);

    assert_eq!(found.changed.len(), 32);
    assert!(is_same);
    for (what, bytes) in [("scan", scanned), ("diff", compared), ("rechunk", rechunked), ("verify", verified)] {
        assert!(bytes <= MEMORY_BYTES_MAX, "{what} took {} MiB", bytes / MIB);
    }
    // Holes were not filled by looking at them.
    assert_eq!(Image::from_file(new_file).unwrap().allocated_bytes(), IMAGE_BYTES);
    const { assert!(ENCODE_BYTES_MAX <= 256 * MIB && ENCODE_BYTES_MAX < IMAGE_BYTES / 2) };
    const { assert!(limits::COMPARED_BYTES_MAX < MEMORY_BYTES_MAX) };
    const JOB_BYTES_MAX: u64 = limits::PIECE_BYTES_MAX + limits::JOB_BYTES + limits::CHUNK_BYTES_MAX as u64;
    const { assert!(JOB_BYTES_MAX * (limits::THREADS_MAX as u64) < MEMORY_BYTES_MAX) };
    const { assert!(2 * limits::SLICE_BYTES * (limits::THREADS_MAX as u64) < MEMORY_BYTES_MAX) };
}
