//! A rebuilt image is the new image, whichever engine wrote it, and the work is what it has to be.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use std::{fs::File, io::Write};

use form_delta::{
    Applied, Base, BlockIndex, Encoded, Engine, FrameIndex, Image, Manifest, Spool, Totals, apply, clone_image, diff,
    encode,
    generate::{image, image_pair, memory_file, noise, rebuild},
    limits, plan, scan, verify_image,
};
use proptest::prelude::*;
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

/// A base on disk and what it takes to make a new image of it.
struct Way {
    dir: TempDir,
    base: Image,
    manifest: Manifest,
    encoded: Encoded,
    spool: Spool,
    base_manifest: Manifest,
}

impl Way {
    fn new(base: &[u8], new: &[u8]) -> Way {
        let dir = tempfile::tempdir().unwrap();
        std::io::copy(&mut memory_file(base).unwrap(), &mut File::create(dir.path().join("whole")).unwrap()).unwrap();
        sparse_file(&dir.path().join("base"), base);
        let base = Image::open(&dir.path().join("base")).unwrap();
        let base_manifest = scan(&base);
        let new = image(new).unwrap();
        let diff = diff(&base, &base_manifest, &new).unwrap();
        let manifest = diff.manifest;
        let mut frames = File::create_new(dir.path().join("frames")).unwrap();
        let bases = [Base { image: &base, manifest: &base_manifest, blocks: None }];
        let encoded = encode(&bases, &new, &manifest, &diff.changed, &mut frames, &mut |_, _| {}).unwrap();
        let frames = File::open(dir.path().join("frames")).unwrap();
        let spool = Spool::full(frames, encoded.index.clone());
        Way { dir, base, manifest, encoded, spool, base_manifest }
    }

    fn apply(&self, engine: Engine) -> (Applied, File) {
        let to = self.dir.path().join(format!("out-{engine}"));
        clone_image(&self.dir.path().join("base"), &to).unwrap();
        let out = File::options().read(true).write(true).open(to).unwrap();
        let plan = plan(&self.encoded.index, &self.spool, &[&self.base_manifest]).unwrap();
        assert_eq!(plan.manifest(), &self.manifest);
        assert_eq!(plan.totals(), self.encoded.totals);
        let mut last = (0, 0);
        let applied =
            apply(&plan, &self.spool, &[&self.base], &out, engine, &mut |done, total| last = (done, total)).unwrap();
        assert_eq!(last, (last.1, self.manifest.image_len_bytes()));
        verify_image(&out, &self.manifest).unwrap();
        (applied, out)
    }
}

fn sparse_file(path: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = File::create_new(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (number, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, number as u64 * 4096).unwrap();
        }
    }
    file.sync_all().unwrap();
}

fn uring() -> Engine {
    let (engine, reason) = Engine::probe();
    assert_eq!(engine, Engine::Uring, "this kernel refuses io_uring ({reason:?}): nothing here would be tested");
    engine
}

#[test]
fn three_changes_are_three_writes_and_one_fsync() {
    let base = noise(1, 8 * MIB);
    let mut new = base.clone();
    for at in [MIB, 4 * MIB, 6 * MIB] {
        new[at] ^= 1;
    }
    let way = Way::new(&base, &new);
    for engine in [Engine::Pwrite, uring()] {
        let (applied, _) = way.apply(engine);
        assert_eq!((applied.writes, applied.fsyncs), (3, 1), "{engine}");
        assert_eq!(applied.engine, engine);
        // A block each, not its chunk.
        assert_eq!(applied.bytes_written, 3 * 4 * KIB as u64);
        assert_eq!(way.encoded.totals.new_chunks, 3);
        // One changed byte in a chunk costs little more than the chunk's hash.
        assert!(way.encoded.index.frames_len_bytes() < 300);
    }
}

#[test]
fn neighbouring_chunks_are_one_write_of_at_most_a_mebibyte() {
    let base = noise(1, 8 * MIB);
    let mut new = base.clone();
    new[2 * MIB..6 * MIB].copy_from_slice(&noise(2, 4 * MIB));
    let way = Way::new(&base, &new);
    for engine in [Engine::Pwrite, uring()] {
        let (applied, _) = way.apply(engine);
        assert_eq!((applied.writes, applied.fsyncs), (4, 1), "{engine}");
        assert_eq!(applied.bytes_written, 4 * MIB as u64);
    }
}

#[test]
fn many_more_writes_than_the_queue_is_deep() {
    let base = noise(1, 24 * MIB);
    let mut new = base.clone();
    let places: Vec<usize> = (0..48).map(|n| n * MIB / 2).collect();
    for at in &places {
        new[*at + 5] ^= 1;
    }
    let way = Way::new(&base, &new);
    let (one, _) = way.apply(Engine::Pwrite);
    let (other, _) = way.apply(uring());
    assert!(one.writes > 32);
    assert_eq!((one.writes, one.fsyncs), (other.writes, other.fsyncs));
}

#[test]
fn nothing_changed_writes_nothing() {
    let base = noise(1, 8 * MIB);
    let way = Way::new(&base, &base);
    assert_eq!(way.encoded.index.frames.len(), 1);
    assert_eq!(way.encoded.index.frames_len_bytes(), 74);
    let (applied, _) = way.apply(uring());
    assert_eq!((applied.writes, applied.bytes_written), (0, 0));
}

#[test]
fn moved_data_costs_a_record() {
    let base = noise(1, 8 * MIB);
    let mut new = base.clone();
    new.splice(MIB..MIB, noise(2, 1234));
    let way = Way::new(&base, &new);
    let totals = way.encoded.totals;
    assert!(totals.copy.image_bytes > 6 * MIB as u64);
    assert!(totals.records.wire_bytes < 300, "{totals:?}");
    way.apply(uring());
}

#[test]
fn each_kind_of_recipe_is_used() {
    let text: Vec<u8> = noise(9, MIB).iter().map(|byte| byte & 7).collect();
    let mut base = noise(1, 4 * MIB);
    base.resize(8 * MIB, 0);
    let mut new = base.clone();
    new[MIB..2 * MIB].fill(0);
    new[3 * MIB] ^= 1;
    // Most of a block is shifted.
    new[3 * MIB + 9216..3 * MIB + 12_288].rotate_right(5);
    new[5 * MIB..6 * MIB].copy_from_slice(&text);
    new[6 * MIB..7 * MIB].copy_from_slice(&noise(3, MIB));
    new.extend_from_slice(&base[..MIB]);
    let way = Way::new(&base, &new);
    let totals = way.encoded.totals;
    let unused = totals.by_kind().into_iter().filter(|(_, share)| share.image_bytes + share.wire_bytes == 0);
    let unused: Vec<_> = unused.map(|(kind, _)| kind).collect();
    assert!(unused.is_empty(), "{unused:?} are not used");
    let sum = way.encoded.totals.sum();
    assert_eq!(sum.image_bytes, new.len() as u64);
    assert_eq!(sum.wire_bytes, way.encoded.index.frames_len_bytes());
    way.apply(Engine::Pwrite);
    way.apply(uring());
}

#[test]
fn holes_stay_holes_and_freed_blocks_become_holes() {
    let mut base = noise(1, 4 * MIB);
    base.resize(64 * MIB, 0);
    let mut new = base.clone();
    new[MIB..3 * MIB].fill(0);
    new[32 * MIB] = 1;
    let way = Way::new(&base, &new);
    for engine in [Engine::Pwrite, uring()] {
        let (applied, out) = way.apply(engine);
        assert_eq!(applied.holes_punched, 1);
        let allocated = Image::from_file(out).unwrap().allocated_bytes();
        // Two MiB of the base remain, one block is new; the file system may round.
        assert!(allocated <= (2 * MIB + 256 * KIB) as u64, "{allocated}");
    }
    // And in full, from nothing.
    let (whole, encoded) = rebuild(None, &new, uring()).unwrap();
    assert!(whole == new);
    assert!(encoded.totals.zero.image_bytes > 55 * MIB as u64);
}

#[test]
fn an_engine_that_cannot_write_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    File::create(&path).unwrap().write_all(&[0; 100_000]).unwrap();
    let base = image(&[0; 100_000]).unwrap();
    let new = image(&noise(1, 100_000)).unwrap();
    let (base_manifest, manifest) = (scan(&base), scan(&new));
    let mut frames = Vec::new();
    let bases = [Base { image: &base, manifest: &base_manifest, blocks: None }];
    let changed = diff(&base, &base_manifest, &new).unwrap().changed;
    let encoded = encode(&bases, &new, &manifest, &changed, &mut frames, &mut |_, _| {}).unwrap();
    let spool = Spool::full(memory_file(&frames).unwrap(), encoded.index.clone());
    let plan = plan(&encoded.index, &spool, &[&base_manifest]).unwrap();
    // Opened for reading: setting the length is refused before, so take a file that is sealed against writing only.
    let out = sealed(100_000);
    for engine in [Engine::Pwrite, uring()] {
        let error = apply(&plan, &spool, &[&base], &out, engine, &mut |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), "cannot write new image", "{engine}");
        assert_eq!(error.kind(), form_delta::ErrorKind::System);
    }
}

/// A file whose length stands and whose bytes nobody may write.
fn sealed(len: u64) -> File {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let file = File::from(memfd_create("sealed", MemfdFlags::ALLOW_SEALING).unwrap());
    file.set_len(len).unwrap();
    fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    file
}

#[test]
fn an_output_that_is_not_the_base_is_refused() {
    let base = noise(1, MIB);
    let way = Way::new(&base, &noise(2, MIB));
    let plan = plan(&way.encoded.index, &way.spool, &[&way.base_manifest]).unwrap();
    for (out, bases) in [(Some(&[0; 10][..]), &[&way.base][..]), (None, &[])] {
        let out = memory_file(out.unwrap_or_default()).unwrap();
        let error = apply(&plan, &way.spool, bases, &out, Engine::Pwrite, &mut |_, _| {}).unwrap_err();
        assert_eq!(error.kind(), form_delta::ErrorKind::Refused);
        assert!(out.metadata().unwrap().len() <= 10, "nothing may have been done");
    }
}

#[test]
fn a_copied_chunk_is_verified_against_a_base_that_changed() {
    let base = noise(1, 4 * MIB);
    let mut new = base.clone();
    new.splice(0..0, noise(2, 5000));
    let way = Way::new(&base, &new);
    let plan = plan(&way.encoded.index, &way.spool, &[&way.base_manifest]).unwrap();
    assert!(plan.totals().copy.image_bytes > 3 * MIB as u64);
    let mut damaged = base.clone();
    damaged[3 * MIB] ^= 1;
    let damaged_base = image(&damaged).unwrap();
    let out = memory_file(&damaged).unwrap();
    let error = apply(&plan, &way.spool, &[&damaged_base], &out, Engine::Pwrite, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), form_delta::ErrorKind::Corrupt);
    assert!(error.to_string().starts_with("base image is damaged at byte "), "{error}");
}

/// Encodes `new` against bases that are all indexed, and rebuilds it.
fn with_bases(bases: &[&[u8]], new: &[u8]) -> Encoded {
    let images: Vec<Image> = bases.iter().map(|bytes| image(bytes).unwrap()).collect();
    let manifests: Vec<Manifest> = images.iter().map(scan).collect();
    let blocks: Vec<BlockIndex> =
        images.iter().zip(&manifests).map(|(image, m)| BlockIndex::build(image, m.root()).unwrap()).collect();
    let bases: Vec<Base<'_>> = (0..images.len())
        .map(|n| Base { image: &images[n], manifest: &manifests[n], blocks: Some(&blocks[n]) })
        .collect();
    let new = image(new).unwrap();
    let diff = diff(&images[0], &manifests[0], &new).unwrap();
    let mut frames = Vec::new();
    let encoded = encode(&bases, &new, &diff.manifest, &diff.changed, &mut frames, &mut |_, _| {}).unwrap();
    let spool = Spool::full(memory_file(&frames).unwrap(), encoded.index.clone());
    let plan = plan(&encoded.index, &spool, &manifests.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!((plan.manifest(), plan.totals()), (&diff.manifest, encoded.totals));
    let out = memory_file(images[0].as_slice()).unwrap();
    apply(&plan, &spool, &images.iter().collect::<Vec<_>>(), &out, uring(), &mut |_, _| {}).unwrap();
    verify_image(&out, &diff.manifest).unwrap();
    encoded
}

#[test]
fn blocks_of_another_artifact_cost_a_record() {
    // A page cache holds a disk's blocks in another order.
    let (memory, disk) = (noise(1, 4 * MIB), noise(2, 8 * MIB));
    let mut new = memory.clone();
    for (n, block) in disk.chunks(4096).skip(100).step_by(2).take(500).enumerate() {
        new[MIB + n * 4096..][..4096].copy_from_slice(block);
    }
    let encoded = with_bases(&[&memory, &disk], &new);
    assert!(encoded.totals.copy.image_bytes > 490 * 4096, "{:?}", encoded.totals);
    // 500 blocks of which each is elsewhere, some 30 hashes, and the few blocks that the index has no room for.
    assert!(encoded.index.frames_len_bytes() < 30_000, "{:?}", encoded.totals);
}

#[test]
fn moved_blocks_are_found_where_chunks_are_not() {
    let base = noise(1, 4 * MIB);
    let mut new = base.clone();
    new[MIB..MIB + 10 * 4096].copy_from_slice(&base[3 * MIB..3 * MIB + 10 * 4096]);
    let encoded = with_bases(&[&base], &new);
    assert!(encoded.totals.copy.image_bytes >= 9 * 4096, "{:?}", encoded.totals);
    assert!(encoded.index.frames_len_bytes() < 6000);
}

#[test]
fn shifted_data_stands_on_its_old_self() {
    // A file of text moves by some bytes, and a word changes now and then.
    let text: Vec<u8> = noise(5, 8 * MIB).iter().map(|byte| b'a' + byte % 16).collect();
    let mut new = text.clone();
    new.splice(100_000..100_000, b"new line".iter().copied());
    for at in (200_000..new.len()).step_by(300_000) {
        new[at] = b'!';
    }
    let encoded = with_bases(&[&text], &new);
    // Each change costs its chunk's hash and little more, not the chunk: of that, blocks that only shifted are copies, and nothing is sent for itself.
    let on_old = encoded.totals.zstd_prefix.image_bytes + encoded.totals.edited.image_bytes;
    assert!(on_old > 100_000 && encoded.totals.copy.image_bytes > 7 * MIB as u64, "{:?}", encoded.totals);
    assert_eq!(encoded.totals.zstd.image_bytes + encoded.totals.raw.image_bytes, 0, "{:?}", encoded.totals);
    assert!(encoded.index.frames_len_bytes() < 3000, "{:?}", encoded.totals);
}

/// New bytes in the image, and those of its delta.
fn new_and_sent(totals: Totals, index: &FrameIndex) -> (u64, u64) {
    let new = totals.raw.image_bytes + totals.zstd.image_bytes + totals.zstd_prefix.image_bytes;
    (new, index.frames_len_bytes())
}

#[test]
fn what_stands_twice_in_new_data_travels_once() {
    let base = noise(1, MIB);
    // Archives that are copied, and text with other words around it; not at the same place of a block.
    let archive = noise(2, 3 * MIB);
    let text: Vec<u8> = noise(3, 2 * MIB).iter().map(|byte| b'a' + byte % 16).collect();
    let new = [&base[..], &archive, &text, &noise(4, 5 * MIB), b"again", &archive, &noise(5, 300_001), &text].concat();
    let encoded = with_bases(&[&base], &new);
    let (new_bytes, sent_bytes) = new_and_sent(encoded.totals, &encoded.index);
    assert!(new_bytes > 15 * MIB as u64, "{:?}", encoded.totals);
    // Half of the text's bits are its pattern.
    assert!(sent_bytes < (3 + 1 + 5) * MIB as u64 + 600_000, "{sent_bytes}: {:?}", encoded.totals);
}

#[test]
fn what_stands_out_of_reach_travels_again() {
    let reach = limits::EARLIER_BYTES_MAX as usize;
    let (near, far) = (noise(2, 2 * MIB), noise(3, 2 * MIB));
    let new = [&far[..], &noise(4, 16 * MIB), &near, &noise(5, reach - 10 * MIB), &near, &far].concat();
    let encoded = with_bases(&[&noise(1, 4096)], &new);
    let (new_bytes, sent_bytes) = new_and_sent(encoded.totals, &encoded.index);
    let saved = new_bytes as f64 - sent_bytes as f64;
    assert!((saved / (2 * MIB) as f64 - 1.0).abs() < 0.1, "{saved}: {:?}", encoded.totals);
}

#[test]
fn data_without_pattern_travels_raw_and_text_does_not() {
    let base = vec![0; 8 * MIB];
    let mut new = noise(1, 4 * MIB);
    new.extend(noise(2, 4 * MIB).iter().map(|byte| byte & 3));
    let totals = with_bases(&[&base], &new).totals;
    assert!(
        totals.raw.image_bytes > 4 * MIB as u64 - 64 * KIB as u64 && totals.raw.image_bytes < 5 * MIB as u64,
        "{totals:?}"
    );
    assert!(totals.zstd.wire_bytes < 5 * MIB as u64 / 4, "{totals:?}");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (base, mut new) = (noise(1, 6 * MIB), noise(1, 6 * MIB));
    for at in (0..new.len()).step_by(200_000) {
        new[at] ^= 1;
    }
    let first = rebuild(Some(&base), &new, Engine::Pwrite).unwrap().1;
    for _ in 0..3 {
        assert_eq!(rebuild(Some(&base), &new, Engine::Pwrite).unwrap().1, first);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rebuild_is_new_and_uring_is_pwrite(script in proptest::collection::vec(any::<u8>(), 0..160)) {
        let (base, new) = image_pair(&script);
        let uring = uring();
        let (one, encoded) = rebuild(Some(&base), &new, Engine::Pwrite).unwrap();
        prop_assert!(one == new);
        let (other, again) = rebuild(Some(&base), &new, uring).unwrap();
        prop_assert!(other == new);
        prop_assert_eq!(encoded, again);
        prop_assert!(rebuild(None, &new, uring).unwrap().0 == new);
    }

    #[test]
    fn any_second_base_does(one in proptest::collection::vec(any::<u8>(), 0..120), two in proptest::collection::vec(any::<u8>(), 0..60)) {
        let (base, new) = image_pair(&one);
        let (other, more) = image_pair(&two);
        let new = [new, more].concat();
        with_bases(&[&base, &other], &new);
    }
}
