//! Bytes that must never change under a format version, and cut points that must never change at all: nodes of different builds compare roots.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use std::io::Write;

use form_delta::{
    Base, BlockIndex, DeltaWriter, Encoded, Engine, FileIdentity, FrameIndex, Hash, ImageIndex, Manifest, Share, Spool,
    apply, diff, encode,
    generate::{image, memory_file, noise},
    plan, scan, verify_image,
};

const MIB: usize = 1 << 20;
const FORMAT: &str = include_str!("../FORMAT.md");

/// Lengths of the chunks.
fn cuts(bytes: &[u8]) -> Vec<u32> {
    let manifest = scan(&image(bytes).unwrap());
    manifest.chunks().iter().map(|chunk| chunk.len_bytes).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hex dump under a heading of FORMAT.md, without offsets and remarks: what is documented is what is tested.
fn documented(heading: &str) -> String {
    let (_, section) = FORMAT.split_once(heading).unwrap();
    let (_, dump) = section.split_once("```hex\n").unwrap();
    let (dump, _) = dump.split_once("```").unwrap();
    dump.lines().filter_map(|line| line.split(['|', '#']).nth(1)).flat_map(str::split_whitespace).collect()
}

#[test]
fn cut_points() {
    assert_eq!(cuts(&noise(1, 2 * MIB)), NOISE_CUTS);
    let text: Vec<u8> = noise(2, MIB).iter().map(|byte| byte & 15).collect();
    assert_eq!(cuts(&text), TEXT_CUTS);
    assert_eq!(cuts(&vec![0; MIB + 5]), [262_144, 262_144, 262_144, 262_144, 5]);
}

#[test]
fn the_root_of_known_images() {
    let root = |bytes: &[u8]| scan(&image(bytes).unwrap()).root().to_string();
    assert_eq!(root(b""), ROOT_OF_NOTHING);
    assert_eq!(root(&noise(1, 2 * MIB)), ROOT_OF_NOISE);
}

/// `hello` becomes `hello, world`: the worked example of FORMAT.md.
fn hello() -> (Manifest, Vec<u8>, Encoded) {
    let (base, new) = (image(b"hello").unwrap(), image(b"hello, world").unwrap());
    let base_manifest = scan(&base);
    let diff = diff(&base, &base_manifest, &new).unwrap();
    let mut frames = Vec::new();
    let bases = [Base { image: &base, manifest: &base_manifest, blocks: None }];
    let encoded = encode(&bases, &new, &diff.manifest, &diff.changed, &mut frames, &mut |_, _| {}).unwrap();
    (diff.manifest, frames, encoded)
}

#[test]
fn a_manifest_is_as_documented() {
    assert_eq!(hex(&hello().0.encode()), documented("### Manifest: worked example"));
}

#[test]
fn a_frame_is_as_documented() {
    assert_eq!(hex(&hello().1), documented("### Frame: worked example"));
}

#[test]
fn a_frame_index_is_as_documented() {
    assert_eq!(hex(&hello().2.index.encode()), documented("### Frame index: worked example"));
}

#[test]
fn a_delta_file_is_as_documented() {
    let (_, frames, encoded) = hello();
    let mut file = DeltaWriter::new(Vec::new()).unwrap();
    file.write_all(&frames).unwrap();
    assert_eq!(hex(&file.finish(&encoded.index).unwrap().0), documented("### Delta file: worked example"));
}

#[test]
fn an_image_index_is_as_documented() {
    let identity = FileIdentity {
        device: 0xfe01,
        inode: 131_077,
        len_bytes: 12,
        modified: (1_795_422_309, 500_000_000),
        changed: (1_795_422_310, 250_000_000),
    };
    let manifest = hello().0;
    let blocks = Some(BlockIndex::build(&image(b"hello, world").unwrap(), manifest.root()).unwrap());
    let index = ImageIndex { identity, manifest, blocks };
    assert_eq!(hex(&index.encode()), documented("### Image index: worked example"));
}

/// A base and a new image that need every kind of record and part, have edited parts before the coded stream, and repeat in one frame what another brought.
fn every_kind() -> (Vec<u8>, Vec<u8>) {
    let mut base = noise(3, MIB);
    base.resize(2 * MIB, 0);
    let mut new = base.clone();
    new[100_000] ^= 1;
    new[120_000..120_040].copy_from_slice(b"text that a person would write, and read");
    new[200_000..200_064].copy_from_slice(&noise(9, 64));
    new[300_000..303_000].rotate_right(5);
    new[400_000..1_000_000].fill(0);
    new.extend(noise(4, 20_000).iter().map(|byte| byte & 1));
    new.extend(noise(5, 20_000));
    new.extend_from_slice(&base[..400_000]);
    let tile: Vec<u8> = noise(6, 10_000).iter().map(|byte| byte & 15).collect();
    new.extend(tile.iter().cycle().take(MIB + 300_000));
    (base, new)
}

/// Rebuilds from a fixture what it was made of.
fn read_fixture(index: &[u8], frames: &[u8], (base, new): (Vec<u8>, Vec<u8>)) {
    let index = FrameIndex::decode(index).unwrap();
    let spool = Spool::full(memory_file(frames).unwrap(), index.clone());
    let base = image(&base).unwrap();
    let base_manifest = scan(&base);
    let plan = plan(&index, &spool, &[&base_manifest]).unwrap();
    for (kind, share) in plan.totals().by_kind() {
        assert_ne!(share, Share::default(), "{kind}");
    }
    let last = spool.read(index.frames.len() as u32 - 1).unwrap();
    assert_ne!(last.bytes()[40..48], [0; 8], "it has excerpts");
    let out = memory_file(base.as_slice()).unwrap();
    apply(&plan, &spool, &[&base], &out, Engine::Pwrite, &mut |_, _| {}).unwrap();
    verify_image(&out, &scan(&image(&new).unwrap())).unwrap();
}

#[test]
fn a_delta_of_version_1_is_read_for_ever() {
    let (index, frames) = (include_bytes!("golden/v1.index"), include_bytes!("golden/v1.frames"));
    read_fixture(index, frames, every_kind());
}

#[test]
fn the_fixture_is_what_it_was() {
    assert_eq!(Hash::of(include_bytes!("golden/v1.index")).to_string(), INDEX_HASH);
}

const NOISE_CUTS: [u32; 30] = [
    28128, 87550, 64925, 67788, 30364, 38273, 50371, 101085, 100168, 79822, 94750, 68129, 37731, 77250, 65957, 68615,
    40140, 55531, 102393, 26773, 106999, 119763, 136020, 70133, 82128, 17444, 100642, 55684, 25697, 96899,
];
const TEXT_CUTS: [u32; 15] =
    [139572, 42059, 70301, 157939, 80591, 96573, 72213, 76305, 80518, 32737, 34922, 27237, 101471, 19420, 16718];
const ROOT_OF_NOTHING: &str = "eb3c3bc71c40edd9b8c0f797ff87d67ba849b7c1613e23d3c17b827053a5aba6";
const ROOT_OF_NOISE: &str = "f22904defc5461cd21ce8c513a10fb2ca40505db8ddc9a69077c6069b4856a44";
const INDEX_HASH: &str = "6139e88a87a4d711d8d6d91d13f1ef1819524ea983300cb70b85d8156ee64c2e";
