//! Images of guests: what is written to them, and whether two are the same.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::SeekFrom;

/// A page of guest memory, a block of a disk, bytes.
pub(crate) const PAGE: u64 = 4096;

/// A page that no other seed makes.
pub(crate) fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take(PAGE as usize / 8).flatten().collect()
}

pub(crate) fn write_page(path: &Path, page: u64, seed: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("open");
    file.write_all_at(&noise(seed), page * PAGE).expect("write");
}

/// Changes one byte of a file, where it is data.
pub(crate) fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("write");
}

/// Whether two images hold the same bytes. Holes of both are not read.
pub(crate) fn same(a: &Path, b: &Path) -> bool {
    let [a, b] = [a, b].map(|path| File::open(path).expect("open"));
    let len = |file: &File| file.metadata().expect("stat").len();
    let read = |file: &File, data: &Range<u64>| {
        let mut bytes = vec![0; usize::try_from(data.end - data.start).expect("small")];
        file.read_exact_at(&mut bytes, data.start).expect("read");
        bytes
    };
    len(&a) == len(&b) && [&a, &b].iter().all(|file| data(file).iter().all(|data| read(&a, data) == read(&b, data)))
}

/// Where a file is no hole.
fn data(file: &File) -> Vec<Range<u64>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(file, SeekFrom::Hole(start)).expect("a hole, or the end");
        found.push(start..at);
    }
    found
}
