//! Whatever bytes stand in a file: a delta file and an image index are refused, or sound to the last record. Hashes would keep every input out, so the bytes are
//! also taken for a frame, and for an index, whose hash is right.

#![no_main]

use std::io::Write;

use form_delta::{DeltaWriter, FrameIndex, FrameRef, Hash, ImageIndex, generate::memory_file, open_delta, summarise};
use libfuzzer_sys::fuzz_target;
use twox_hash::XxHash3_128;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let index = FrameIndex {
        base_roots: vec![],
        new_root: Hash::of(bytes),
        image_len_bytes: bytes.len() as u64,
        frames: vec![FrameRef { hash: Hash::of(bytes), len_bytes: bytes.len() as u32 }],
    };
    let mut file = DeltaWriter::new(Vec::new()).expect("memory can be written to");
    file.write_all(bytes).expect("memory can be written to");
    check(&file.finish(&index).expect("it lists what was written").0);

    let hashed = [bytes, &XxHash3_128::oneshot(bytes).to_le_bytes()].concat();
    if let Ok(index) = ImageIndex::decode(&hashed) {
        assert_eq!(index.encode(), hashed);
    }
});

fn check(file: &[u8]) {
    if let Ok(spool) = open_delta(memory_file(file).expect("a file in memory"))
        && let Ok(totals) = summarise(&spool)
    {
        assert_eq!(totals.sum().image_bytes, spool.index().image_len_bytes);
    }
}
