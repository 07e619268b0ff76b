//! A delta in a file: whatever became of the file, it is the one that was written or it is refused, with what and where. The same for an image index.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use form_delta::{
    Base, DeltaWriter, Encoded, Engine, Error, ErrorKind, Extent, FileIdentity, ImageIndex, Object, Result, Spool,
    apply, diff, encode,
    generate::{image, memory_file, noise},
    open_delta, plan, scan, sent_extents, summarise, verify_chunks, verify_image,
};

const MIB: usize = 1 << 20;

/// The bytes of a delta file from one image to another, or of all of it.
fn delta_file(base: Option<&[u8]>, new: &[u8]) -> (Vec<u8>, Encoded) {
    let new = image(new).unwrap();
    let base = base.map(|base| image(base).unwrap());
    let base = base.as_ref().map(|base| (base, scan(base)));
    let bases: Vec<_> = base.iter().map(|(image, manifest)| Base { image, manifest, blocks: None }).collect();
    let changed = bases.iter().flat_map(|base| diff(base.image, base.manifest, &new).unwrap().changed);
    let changed: Vec<_> = changed.collect();
    let mut out = DeltaWriter::new(Vec::new()).unwrap();
    let encoded = encode(&bases, &new, &scan(&new), &changed, &mut out, &mut |_, _| {}).unwrap();
    let (bytes, len_bytes) = out.finish(&encoded.index).unwrap();
    assert_eq!(bytes.len() as u64, len_bytes);
    (bytes, encoded)
}

fn open(bytes: &[u8]) -> Result<Spool> {
    open_delta(memory_file(bytes)?)
}

/// What `form delta info` does: everything in the file is read and checked.
fn read(bytes: &[u8]) -> Result<()> {
    summarise(&open(bytes)?).map(drop)
}

/// Several frames, and every kind of record.
fn large() -> (Vec<u8>, Vec<u8>) {
    let mut base = noise(1, 4 * MIB);
    base.resize(6 * MIB, 0);
    let mut new = base.clone();
    new[MIB] ^= 1;
    new[2 * MIB..3 * MIB].fill(0);
    new.extend(noise(2, 12 * MIB));
    new.extend(noise(3, MIB).iter().map(|byte| byte & 7));
    new.extend_from_slice(&base[..MIB]);
    (base, new)
}

#[test]
fn what_was_written_is_applied() {
    let (base, new) = large();
    let (bytes, encoded) = delta_file(Some(&base), &new);
    let spool = open(&bytes).unwrap();
    assert_eq!(spool.index(), &encoded.index);
    assert!(encoded.index.frames.len() > 2);
    let base = image(&base).unwrap();
    let plan = plan(&encoded.index, &spool, &[&scan(&base)]).unwrap();
    let out = memory_file(base.as_slice()).unwrap();
    apply(&plan, &spool, &[&base], &out, Engine::Pwrite, &mut |_, _| {}).unwrap();
    verify_image(&out, &scan(&image(&new).unwrap())).unwrap();
}

#[test]
fn what_travels_is_known_by_its_place() {
    let (base, new) = large();
    let (bytes, encoded) = delta_file(Some(&base), &new);
    let sent = sent_extents(&open(&bytes).unwrap()).unwrap();
    let totals = encoded.totals;
    let travel = [totals.raw, totals.zstd, totals.zstd_prefix, totals.edited].map(|share| share.image_bytes);
    assert_eq!(sent.iter().map(Extent::len_bytes).sum::<u64>(), travel.iter().sum());
    // The block that was changed; then what is new, and not what stands where it stood.
    let (first, last) = (sent.first().unwrap(), sent.last().unwrap());
    assert!(first.start <= MIB as u64 && MIB as u64 <= first.end && first.len_bytes() < 8192, "{first:?}");
    assert!(last.end <= 19 * MIB as u64 + 300_000 && last.end >= 19 * MIB as u64, "{last:?}");
}

#[test]
fn a_file_costs_little_more_than_its_frames() {
    let (base, new) = large();
    for base in [None, Some(base.as_slice())] {
        let (bytes, encoded) = delta_file(base, &new);
        let frames = encoded.index.frames.len() as u64;
        let overhead = bytes.len() as u64 - encoded.index.frames_len_bytes();
        assert_eq!(overhead, 100 + 32 * u64::from(base.is_some()) + 36 * frames);
    }
}

#[test]
fn a_summary_needs_no_base() {
    let (base, new) = large();
    let (bytes, encoded) = delta_file(Some(&base), &new);
    let totals = summarise(&open(&bytes).unwrap()).unwrap();
    assert_eq!(totals, encoded.totals);
    assert_eq!(totals.sum().wire_bytes, encoded.index.frames_len_bytes());
}

#[test]
fn every_flipped_bit_is_found() {
    let (bytes, _) = delta_file(Some(b"hello"), b"hello, world");
    read(&bytes).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = read(&damaged).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::System, "bit {bit}: {error}");
    }
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    let (bytes, _) = delta_file(Some(b"hello"), b"hello, world");
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).unwrap_err();
        assert!(matches!(error, Error::Damaged { object: Object::DeltaFile, .. }), "{len}: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(read(&longer), Err(Error::Damaged { object: Object::DeltaFile, .. })));
    // Two files in one, and a file within another.
    assert!(matches!(read(&[&bytes[..], &bytes[..]].concat()), Err(Error::Damaged { object: Object::DeltaFile, .. })));
    assert!(matches!(read(&[&bytes[..8], &bytes[..]].concat()), Err(Error::Damaged { object: Object::DeltaFile, .. })));
}

#[test]
fn damage_is_named_where_it_is() {
    let (base, new) = large();
    let (bytes, encoded) = delta_file(Some(&base), &new);
    let spool = open(&bytes).unwrap();
    for number in 0..encoded.index.frames.len() as u32 {
        let range = spool.file_range(number).unwrap();
        for at in [range.start, (range.start + range.end) / 2, range.end - 1] {
            let mut damaged = bytes.clone();
            damaged[at as usize] ^= 0x10;
            let error = read(&damaged).unwrap_err();
            assert!(
                matches!(error, Error::WrongHash { object: Object::Frame(named), .. } if named == number),
                "{at}: {error}"
            );
        }
    }
    let index_at = spool.file_range(encoded.index.frames.len() as u32 - 1).unwrap().end;
    let mut damaged = bytes.clone();
    damaged[index_at as usize + 60] ^= 1;
    let error = open(&damaged).err().unwrap();
    assert!(
        matches!(error, Error::WrongHash { object: Object::DeltaFile, offset_bytes, .. } if offset_bytes == index_at),
        "{error}"
    );
    let mut damaged = bytes;
    damaged[4] = 2;
    assert!(matches!(open(&damaged), Err(Error::Version { object: Object::DeltaFile, found: 2, .. })));
}

#[test]
fn an_index_of_other_frames_is_not_written() {
    let (_, encoded) = delta_file(None, b"hello");
    let error = DeltaWriter::new(Vec::new()).unwrap().finish(&encoded.index).unwrap_err();
    assert!(matches!(error, Error::Mismatch { object: Object::DeltaFile, .. }), "{error}");
}

fn image_index() -> ImageIndex {
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &noise(1, 100_000), 0).unwrap();
    ImageIndex::build(&file).unwrap()
}

#[test]
fn an_image_index_has_one_encoding_and_any_other_is_refused() {
    let index = image_index();
    let bytes = index.encode();
    let decoded = ImageIndex::decode(&bytes).unwrap();
    assert_eq!((decoded.identity, &decoded.manifest), (index.identity, &index.manifest));
    assert_eq!(decoded.encode(), bytes);
    let from_file = |bytes: &[u8]| ImageIndex::read(memory_file(bytes).unwrap());
    let read = from_file(&bytes).unwrap();
    assert_eq!((read.encode(), read.blocks), (bytes.clone(), decoded.blocks));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(ImageIndex::decode(&damaged).is_err(), "bit {bit}");
        assert!(bit % 997 > 0 || from_file(&damaged).is_err(), "bit {bit} in a file");
    }
    for len in 0..bytes.len() {
        assert!(ImageIndex::decode(&bytes[..len]).is_err(), "{len} bytes");
        assert!(len % 97 > 0 || from_file(&bytes[..len]).is_err(), "{len} bytes in a file");
    }
    assert!(ImageIndex::decode(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_file_that_was_written_to_is_another() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"hello").unwrap();
    let before = FileIdentity::of(file.as_file()).unwrap();
    let times = file.as_file().metadata().unwrap();
    // Until the file system's clock has ticked, a write leaves no trace.
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(file.path(), b"hullo").unwrap();
    let times = std::fs::FileTimes::new().set_modified(times.modified().unwrap());
    file.as_file().set_times(times).unwrap();
    let after = FileIdentity::of(file.as_file()).unwrap();
    assert_eq!(before.modified, after.modified, "the time was set back");
    assert_ne!(before, after);
    assert!(before.same_file(&after));
}

#[test]
fn what_was_made_is_read_back_and_what_was_kept_is_not() {
    let base = noise(1, 2 * MIB);
    let mut new = base.clone();
    new[MIB] ^= 1;
    let (bytes, encoded) = delta_file(Some(&base), &new);
    let (base, new_image) = (image(&base).unwrap(), image(&new).unwrap());
    let base_manifest = scan(&base);
    assert_eq!(diff(&base, &base_manifest, &new_image).unwrap().manifest.root(), encoded.index.new_root);
    let plan = plan(&encoded.index, &open(&bytes).unwrap(), &[&base_manifest]).unwrap();
    let mut kept_differs = new.clone();
    kept_differs[5] ^= 1;
    verify_chunks(&memory_file(&kept_differs).unwrap(), plan.manifest(), plan.made()).unwrap();
    assert!(verify_image(&memory_file(&kept_differs).unwrap(), plan.manifest()).is_err());
    let error = verify_chunks(&memory_file(base.as_slice()).unwrap(), plan.manifest(), plan.made()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
