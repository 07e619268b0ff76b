//! Damaged, truncated and hostile bytes are refused with a word on what and where, before anything is allocated for them.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use form_delta::{
    Base, Engine, Error, ErrorKind, FrameIndex, FrameRef, Hash, Image, Manifest, Object, Result, Spool, apply, diff,
    encode,
    generate::{image, memory_file, noise},
    limits, plan, scan, verify_image,
};

const MIB: usize = 1 << 20;

/// A base, a new image, and frames of every kind between them.
struct Delta {
    base: Image,
    base_manifest: Manifest,
    index: FrameIndex,
    frames: Vec<u8>,
}

fn delta() -> Delta {
    let mut base = noise(1, 2 * MIB);
    base.resize(3 * MIB, 0);
    let mut new = base.clone();
    new[MIB] ^= 1;
    new[0..300_000].fill(0);
    new.extend_from_slice(&noise(2, 100_000));
    new.extend_from_slice(&base[MIB / 2..MIB + MIB / 2]);
    let (base, new) = (image(&base).unwrap(), image(&new).unwrap());
    let base_manifest = scan(&base);
    let diff = diff(&base, &base_manifest, &new).unwrap();
    let mut frames = Vec::new();
    let bases = [Base { image: &base, manifest: &base_manifest, blocks: None }];
    let encoded = encode(&bases, &new, &diff.manifest, &diff.changed, &mut frames, &mut |_, _| {}).unwrap();
    Delta { base, base_manifest, index: encoded.index, frames }
}

/// Plans and applies frames that are taken for genuine: the index lists whatever they hash to. What comes after the hash check must hold up by itself.
fn rebuild_forged(delta: &Delta, frame: &[u8]) -> Result<()> {
    let mut index = delta.index.clone();
    index.frames = vec![FrameRef { hash: Hash::of(frame), len_bytes: frame.len() as u32 }];
    let spool = Spool::full(memory_file(frame)?, index.clone());
    let plan = plan(&index, &spool, &[&delta.base_manifest])?;
    let out = memory_file(delta.base.as_slice())?;
    apply(&plan, &spool, &[&delta.base], &out, Engine::Pwrite, &mut |_, _| {})?;
    verify_image(&out, plan.manifest())
}

#[test]
fn every_flipped_bit_of_a_frame_is_found() {
    let delta = delta();
    assert_eq!(delta.index.frames.len(), 1);
    rebuild_forged(&delta, &delta.frames).unwrap();
    // The header, all records, and the begin of the bodies: bit by bit; then samples.
    let bodies = delta.frames.len();
    let places = (0..600).chain((600..bodies).step_by(997));
    let mut ignored = 0;
    for place in places {
        let mut frame = delta.frames.clone();
        frame[place] ^= 1 << (place % 8);
        let error = delta.index.verify(0, frame.clone()).unwrap_err();
        assert!(matches!(error, Error::WrongHash { object: Object::Frame(0), .. }));
        match rebuild_forged(&delta, &frame) {
            Err(error) => assert!(error.kind() != ErrorKind::System, "byte {place}: {error}"),
            // The image is right.
            Ok(()) => ignored += 1,
        }
    }
    // A decoder ignores one bit of each zstd frame's header (RFC 8878, 3.1.1.1.1.3), and some of the description of a table that is hardly used.
    assert!(ignored <= 4, "{ignored} bits do not count");
}

#[test]
fn every_truncation_of_a_frame_is_found() {
    let delta = delta();
    for len in (0..500).chain((500..delta.frames.len()).step_by(4099)) {
        let error = delta.index.verify(0, delta.frames[..len].to_vec()).unwrap_err();
        assert!(
            matches!(error, Error::Damaged { object: Object::Frame(0), offset_bytes, .. } if offset_bytes == len as u64),
            "{error}"
        );
        let error = rebuild_forged(&delta, &delta.frames[..len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{len} bytes: {error}");
    }
    let longer = [&delta.frames[..], &[0]].concat();
    assert!(delta.index.verify(0, longer.clone()).is_err());
    assert!(rebuild_forged(&delta, &longer).is_err());
}

/// Every prefix and every flipped byte of an encoding is refused, or (never here) decodes to something else that encodes to itself.
fn flip_and_truncate<T>(bytes: &[u8], decode: fn(&[u8]) -> Result<T>, encode: fn(&T) -> Vec<u8>) {
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert!(decode(&[bytes, &[0]].concat()).is_err());
    for place in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[place] ^= 0x80;
        if let Ok(other) = decode(&flipped) {
            assert_eq!(encode(&other), flipped, "byte {place}: two encodings of one value");
        }
    }
}

#[test]
fn manifests_and_indexes_have_one_encoding() {
    let delta = delta();
    flip_and_truncate(&delta.base_manifest.encode(), Manifest::decode, Manifest::encode);
    flip_and_truncate(&delta.index.encode(), FrameIndex::decode, FrameIndex::encode);
    let full = FrameIndex { base_roots: vec![], ..delta.index };
    assert_eq!(FrameIndex::decode(&full.encode()).unwrap(), full);
}

#[test]
fn errors_name_the_place() {
    let manifest = scan(&image(&noise(1, MIB)).unwrap());
    let mut bytes = manifest.encode();
    // The length of the second chunk: header, one entry, the hash of the next.
    let place = 36 + 36 + 32;
    bytes[place..place + 4].copy_from_slice(&3u32.to_le_bytes());
    assert_eq!(
        Manifest::decode(&bytes).unwrap_err().to_string(),
        "manifest is damaged at byte 72: the chunk's length is outside the chunker's bounds"
    );
    let mut bytes = manifest.encode();
    bytes[4] = 9;
    assert_eq!(
        Manifest::decode(&bytes).unwrap_err().to_string(),
        "manifest has format version 9; this build reads version 1"
    );
}

#[test]
fn hostile_lengths_meet_a_limit() {
    let manifest = scan(&image(&noise(1, MIB)).unwrap()).encode();
    let with = |place: usize, bytes: &[u8]| {
        let mut changed = manifest.clone();
        changed[place..place + bytes.len()].copy_from_slice(bytes);
        Manifest::decode(&changed).unwrap_err()
    };
    assert_eq!(with(20, &u64::MAX.to_le_bytes()).kind(), ErrorKind::Limit);
    // Four thousand million chunks, of which none follow.
    assert_eq!(with(28, &u32::MAX.to_le_bytes()).kind(), ErrorKind::Corrupt);

    let index = delta().index;
    let mut long = index.clone();
    long.image_len_bytes = limits::IMAGE_BYTES_MAX + 1;
    assert_eq!(FrameIndex::decode(&long.encode()).unwrap_err().kind(), ErrorKind::Limit);
    let mut fat = index.clone();
    fat.frames[0].len_bytes = limits::FRAME_BYTES_MAX + 1;
    assert_eq!(FrameIndex::decode(&fat.encode()).unwrap_err().kind(), ErrorKind::Limit);
    let mut many = index.encode();
    let count_at = many.len() - 36 - 4;
    many[count_at..count_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(FrameIndex::decode(&many).unwrap_err().kind(), ErrorKind::Limit);
}

/// A frame for the begin of an image, of sections that are not packed.
#[derive(Default, Clone, Copy)]
struct Sections<'s> {
    records: &'s [u8],
    hashes: &'s [u8],
    edits: &'s [u8],
    text: &'s [u8],
    excerpts: &'s [u8],
    raw: &'s [u8],
    coded: &'s [u8],
}

impl Sections<'_> {
    fn frame(&self) -> Vec<u8> {
        let Sections { records, hashes, edits, text, excerpts, raw, coded } = *self;
        let mut frame = b"fmFR\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        let packable = [records, edits, text, excerpts].into_iter().flat_map(|section| [section.len(); 2]);
        for len in packable.chain([raw.len(), coded.len()]) {
            frame.extend((len as u32).to_le_bytes());
        }
        [&frame[..], records, hashes, edits, text, excerpts, raw, coded].concat()
    }
}

/// A part of so many blocks.
fn part(kind: u8, blocks: u16, place: &[u8]) -> Vec<u8> {
    [&[kind][..], &blocks.to_le_bytes(), place].concat()
}

/// A record of one new chunk of these parts.
fn new_record(chunk_len: u32, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut record = vec![3, 1, 0];
    record.extend((parts.len() as u16).to_le_bytes());
    record.extend(chunk_len.to_le_bytes());
    [record, parts.concat()].concat()
}

const RAW: u8 = 2;
const PLAIN: u8 = 3;
const KEEP: u8 = 4;
const COPY: u8 = 5;
const PATCHED: u8 = 7;
const EDITED: u8 = 9;

fn place(base: u8, distance: u64) -> Vec<u8> {
    [&[base][..], &distance.to_le_bytes()].concat()
}

#[test]
fn hostile_records_are_refused_in_the_plan() {
    let delta = delta();
    let base_len = delta.base.len_bytes();
    let copy = |start: u64, len: u64| [&[1, 0][..], &start.to_le_bytes(), &len.to_le_bytes()].concat();
    let zero = |len: u32, count: u32| [&[2][..], &len.to_le_bytes(), &count.to_le_bytes()].concat();
    let (hash, blocks) = ([7; 32], 20_000u32.div_ceil(4096) as u16);
    let one = |kind: u8, place: &[u8]| new_record(20_000, &[part(kind, blocks, place)]);
    type Case<'c> = (&'c str, Vec<u8>, &'c [u8], &'c [u8], &'c [u8], &'c str);
    let cases: [Case<'_>; 23] = [
        ("no record", vec![], &[], &[], &[], "a frame has at least one record"),
        ("unknown kind", vec![9], &[], &[], &[], "there is no such kind of record"),
        ("cut off", vec![2, 0], &[], &[], &[], "it ends in the middle of a field"),
        ("copy from nowhere", copy(u64::MAX, 2), &[], &[], &[], "empty or has no end"),
        ("copy nothing", copy(0, 0), &[], &[], &[], "empty or has no end"),
        ("copy behind the base", copy(0, base_len + 1), &[], &[], &[], "not made of whole chunks"),
        ("copy half a chunk", copy(0, 20_000), &[], &[], &[], "not made of whole chunks"),
        ("copy from base 16", [&[1, 16][..], &[0; 16]].concat(), &[], &[], &[], "no base of that number"),
        ("copy from base 1", [&[1, 1][..], &[0; 8], &[1; 8]].concat(), &[], &[], &[], "not made of whole"),
        ("zeros without end", zero(limits::CHUNK_BYTES_MAX, u32::MAX), &[], &[], &[], "reach behind the image"),
        ("crumbs of zeros", zero(1, 1000), &[], &[], &[], "a run of zeros is made of the largest chunks"),
        ("one crumb", zero(1, 1), &[], &[], &[], "a chunk is too short"),
        ("a huge zero", zero(u32::MAX, 1), &[], &[], &[], "reach behind the image"),
        ("no hash", one(RAW, &[]), &[], &[], &[], "the hashes are longer than the frame"),
        ("too little raw", one(RAW, &[]), &hash, &[0; 19_999], &[], "not what the parts need"),
        ("a stream for nobody", one(KEEP, &[]), &hash, &[], &[1], "not what the parts need"),
        ("unknown part", one(10, &[]), &hash, &[], &[], "no such kind of part"),
        ("an empty part", new_record(20_000, &[part(KEEP, 0, &[])]), &hash, &[], &[], "a part is empty"),
        ("a part too long", new_record(20_000, &[part(KEEP, blocks + 1, &[])]), &hash, &[], &[], "reaches behind"),
        ("too few parts", new_record(20_000, &[part(KEEP, 1, &[])]), &hash, &[], &[], "not as long as the chunks"),
        ("keep by the long way", one(COPY, &place(0, 0)), &hash, &[], &[], "has another kind"),
        ("copy of base 15", one(COPY, &place(15, 0)), &hash, &[], &[], "a part to copy leaves the base"),
        ("copy behind the base", one(COPY, &place(0, base_len - 19_999)), &hash, &[], &[], "a part to copy leaves"),
    ];
    for (name, records, hashes, raw, coded, reason) in cases {
        let error =
            rebuild_forged(&delta, &Sections { records: &records, hashes, raw, coded, ..Sections::default() }.frame())
                .unwrap_err();
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error:?}");
    }
    for kind in [PATCHED, EDITED] {
        let behind = new_record(20_000, &[part(kind, blocks, &place(0, base_len))]);
        let coded: &[u8] = if kind == PATCHED { &[1] } else { &[] };
        let error =
            rebuild_forged(&delta, &Sections { records: &behind, hashes: &hash, coded, ..Sections::default() }.frame())
                .unwrap_err();
        assert!(error.to_string().contains("what a part is made from leaves the base"), "{error}");
    }
    let long = new_record(limits::CHUNK_BYTES_MAX + 1, &[part(KEEP, 65, &[])]);
    let error =
        rebuild_forged(&delta, &Sections { records: &long, hashes: &hash, ..Sections::default() }.frame()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    // Records that claim to unpack to more than there may be.
    let mut bomb = Sections { records: &zero(limits::CHUNK_BYTES_MAX, 1), ..Sections::default() }.frame();
    bomb[6] = 1;
    bomb[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(rebuild_forged(&delta, &bomb).unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn hostile_edits_are_refused_in_the_plan() {
    let delta = delta();
    let record = new_record(20_000, &[part(EDITED, 5, &place(0, 4096))]);
    let sections = Sections { records: &record, hashes: &[7; 32], ..Sections::default() };
    // One edit: gap and length, by plane.
    let edit = |gap: u16, len: u16| [gap.to_le_bytes(), len.to_le_bytes()].concat();
    const NOISE: u16 = 1 << 15;
    type Case<'c> = (&'c str, Vec<u8>, &'c [u8], &'c [u8], &'c str);
    let cases: [Case<'_>; 7] = [
        ("half an edit", vec![1, 0, 1], &[1], &[], "the edits are not whole"),
        ("an empty edit", edit(5, 0), &[], &[], "an edit is empty"),
        ("empty noise", edit(u16::MAX, NOISE), &[], &[], "an edit is empty"),
        ("behind the parts", edit(19_999, 2), &[1, 2], &[], "the edits reach behind their parts"),
        ("too little text", edit(0, 2), &[1], &[], "the edits' text is not what the edits need"),
        ("too little noise", edit(0, NOISE | 2), &[], &[1], "the streams are not what the parts need"),
        ("text for nobody", vec![], &[1], &[], "the edits' text is not what the edits need"),
    ];
    for (name, edits, text, raw, reason) in cases {
        let error = rebuild_forged(&delta, &Sections { edits: &edits, text, raw, ..sections }.frame()).unwrap_err();
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error:?}");
    }
    // Sections that claim to unpack to more than there may be, and flags for what is not there.
    for (place, flag) in [(28, 2), (36, 4)] {
        let mut bomb = sections.frame();
        bomb[6] = flag;
        bomb[place..place + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(rebuild_forged(&delta, &bomb).unwrap_err().kind(), ErrorKind::Limit);
    }
    for flag in [8, 16, 32] {
        let mut frame = sections.frame();
        frame[6] = flag;
        assert_eq!(rebuild_forged(&delta, &frame).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn hostile_excerpts_are_refused_in_the_plan() {
    let delta = delta();
    let record = new_record(20_000, &[part(PLAIN, 5, &[])]);
    let plain = Sections { records: &record, hashes: &[7; 32], coded: &[1], ..Sections::default() };
    // One excerpt: gap and length, by plane.
    let excerpt = |gap: u32, len: u32| [gap.to_le_bytes(), len.to_le_bytes()].concat();
    let reach = limits::EARLIER_BYTES_MAX as u32;
    type Case<'c> = (&'c str, Vec<u8>, &'c str);
    let cases: [Case<'_>; 6] = [
        ("half an excerpt", vec![1; 12], "the excerpts are not whole"),
        ("nothing", excerpt(5, 0), "an excerpt is empty"),
        ("too far", excerpt(reach, 64), "too far away"),
        ("too far by far", excerpt(u32::MAX, u32::MAX), "too far away"),
        ("too long", excerpt(0, 20_001), "longer than what repeats them"),
        ("of frames that do not exist", excerpt(0, 64), "an excerpt reaches back behind the first frame"),
    ];
    for (name, excerpts, reason) in cases {
        let error = rebuild_forged(&delta, &Sections { excerpts: &excerpts, ..plain }.frame()).unwrap_err();
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error:?}");
    }
    let raw = new_record(20_000, &[part(RAW, 5, &[])]);
    let raw = Sections { records: &raw, raw: &[1; 20_000], coded: &[], excerpts: &excerpt(0, 64), ..plain };
    let error = rebuild_forged(&delta, &raw.frame()).unwrap_err();
    assert!(error.to_string().contains("there are excerpts and no coded stream"), "{error}");
    let mut bomb = plain.frame();
    bomb[6] = 16;
    bomb[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(rebuild_forged(&delta, &bomb).unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn a_stream_that_is_no_zstd_frame_or_not_its_parts_is_refused() {
    // An image of one chunk, so that the manifest's root can be forged as well and only the stream is wrong.
    let forge = |kind: u8, raw: &[u8], coded: &[u8], chunk_len: u32, hash: Hash| {
        let record = new_record(chunk_len, &[part(kind, chunk_len.div_ceil(4096) as u16, &[])]);
        let frame = Sections { records: &record, hashes: hash.as_bytes(), raw, coded, ..Sections::default() }.frame();
        let mut manifest = b"fmMF\x01\0\x01\0".to_vec();
        for size in [16u32 << 10, 64 << 10, 256 << 10] {
            manifest.extend(size.to_le_bytes());
        }
        manifest.extend(u64::from(chunk_len).to_le_bytes());
        manifest.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        manifest.extend(hash.as_bytes());
        manifest.extend(chunk_len.to_le_bytes());
        let index = FrameIndex {
            base_roots: vec![],
            new_root: Hash::of(&manifest),
            image_len_bytes: u64::from(chunk_len),
            frames: vec![FrameRef { hash: Hash::of(&frame), len_bytes: frame.len() as u32 }],
        };
        let spool = Spool::full(memory_file(&frame).unwrap(), index.clone());
        let plan = plan(&index, &spool, &[]).unwrap();
        let out = memory_file(&[]).unwrap();
        apply(&plan, &spool, &[], &out, Engine::Pwrite, &mut |_, _| {}).map(drop)
    };
    let right = Hash::of(b"form");
    forge(RAW, b"form", &[], 4, right).unwrap();
    let error = forge(RAW, b"fork", &[], 4, right).unwrap_err();
    assert!(matches!(error, Error::WrongHash { object: Object::Frame(0), offset_bytes: 0, .. }));
    let error = forge(PLAIN, &[], b"form", 4, right).unwrap_err();
    assert!(
        error.to_string().contains("frame 0 is damaged at byte 100: the stream is not exactly one zstd frame"),
        "{error}"
    );
    // A genuine zstd frame of 200 MiB of zeros in a few KiB, said to hold one chunk.
    let bomb = zstd::bulk::compress(&vec![0; 200 * MIB], 3).unwrap();
    let error = forge(PLAIN, &[], &bomb, limits::CHUNK_BYTES_MAX, right).unwrap_err();
    assert!(error.to_string().contains("not as long as what it is for"), "{error}");
}

#[test]
fn a_wrong_base_or_index_is_refused() {
    let delta = delta();
    let spool = Spool::full(memory_file(&delta.frames).unwrap(), delta.index.clone());
    let other = scan(&image(&noise(9, MIB)).unwrap());
    for bases in [&[][..], &[&other], &[&delta.base_manifest, &other]] {
        let error = plan(&delta.index, &spool, bases).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(&delta.base_manifest.root().to_string()));
    }
    let other = FrameIndex { image_len_bytes: 1, ..delta.index.clone() };
    assert_eq!(plan(&other, &spool, &[&delta.base_manifest]).unwrap_err().kind(), ErrorKind::Refused);
    // Right frames under another root.
    let renamed = FrameIndex { new_root: Hash::of(b""), ..delta.index };
    let spool = Spool::full(memory_file(&delta.frames).unwrap(), renamed.clone());
    let error = plan(&renamed, &spool, &[&delta.base_manifest]).unwrap_err();
    assert!(matches!(error, Error::WrongHash { object: Object::Manifest, .. }));
}
