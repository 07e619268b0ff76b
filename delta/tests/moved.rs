//! What stood somewhere else in a base: its chunks are neither cut nor hashed again, and the manifest is that of a full scan all the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use form_delta::{
    Base, BlockIndex, Image, Manifest, Moved, compare, encode_moved,
    generate::{image, noise},
    limits::BLOCK_BYTES,
    rechunk_moved, scan, scan_reference,
};
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const BLOCK: usize = BLOCK_BYTES as usize;

struct Known {
    image: Image,
    manifest: Manifest,
    blocks: BlockIndex,
}

fn known(bytes: &[u8]) -> Known {
    let image = image(bytes).unwrap();
    let manifest = scan(&image);
    Known { blocks: BlockIndex::build(&image, manifest.root()).unwrap(), image, manifest }
}

/// The new image's manifest, and how many of its bytes travel.
fn made(bases: &[&Known], new: &[u8]) -> (Manifest, Image, u64) {
    let bases: Vec<Base<'_>> = bases
        .iter()
        .map(|known| Base { image: &known.image, manifest: &known.manifest, blocks: Some(&known.blocks) })
        .collect();
    let new = image(new).unwrap();
    let changed = compare(bases[0].image, &new).unwrap();
    let moved = Moved::find(&bases, &new, &changed).unwrap();
    let manifest = rechunk_moved(&new, &bases, changed.clone(), &moved).unwrap();
    let mut frames = Vec::new();
    let encoded = encode_moved(&bases, &new, &manifest, (&changed, &moved), &mut frames, &mut |_, _| {}).unwrap();
    let totals = encoded.totals;
    let sent = [totals.raw, totals.zstd, totals.zstd_prefix, totals.edited];
    (manifest, new, sent.iter().map(|share| share.image_bytes).sum())
}

#[track_caller]
fn assert_as_scanned(bases: &[&Known], new: &[u8]) -> u64 {
    let (manifest, new, sent_bytes) = made(bases, new);
    assert_eq!(manifest.encode(), scan_reference(&new).encode());
    sent_bytes
}

#[test]
fn blocks_that_moved_do_not_travel() {
    let old = noise(1, 6 * MIB);
    let disk = noise(2, 3 * MIB);
    let mut new = old.clone();
    // Within the image, across a slice of 4 MiB; from another base; zeros; and what is new.
    new[3 * MIB..5 * MIB].copy_from_slice(&old[MIB..3 * MIB]);
    new[..MIB].copy_from_slice(&disk[MIB / 2..MIB + MIB / 2]);
    new[5 * MIB..5 * MIB + 700_000].fill(0);
    new[2 * MIB..2 * MIB + 5 * BLOCK].copy_from_slice(&noise(3, 5 * BLOCK));
    let sent_bytes = assert_as_scanned(&[&known(&old), &known(&disk)], &new);
    assert!((5..=8).contains(&(sent_bytes as usize / BLOCK)), "{sent_bytes}");
}

/// Runs that end at a chunk's end, one byte before it, and behind it: what decides a cut lies just behind it.
#[test]
fn runs_that_end_where_chunks_do() {
    let old = noise(4, 8 * MIB);
    let base = known(&old);
    let mut end = 0;
    let ends: Vec<u64> = base
        .manifest
        .chunks()
        .iter()
        .map(|chunk| {
            end += u64::from(chunk.len_bytes);
            end
        })
        .collect();
    for end in ends.iter().take(40).map(|end| *end as usize) {
        for spare in [0, 1, 2] {
            let until = (end + spare).next_multiple_of(BLOCK);
            let from = until.saturating_sub(64 * BLOCK);
            let mut new = noise(5, 2 * MIB);
            new[MIB..MIB + until - from].copy_from_slice(&old[from..until]);
            assert_as_scanned(&[&base], &new);
            // And at the new image's very end.
            new.truncate(MIB + end + spare - from);
            assert_as_scanned(&[&base], &new);
        }
    }
}

/// A slice of many short runs is not listed, and its blocks are found all the same.
#[test]
fn crumbs_are_found() {
    let old = noise(6, 5 * MIB);
    let mut new = old.clone();
    let count = 4 * MIB / BLOCK;
    for number in 0..count {
        let from = (number * 7) % count * BLOCK;
        new[number * BLOCK..][..BLOCK].copy_from_slice(&old[from..from + BLOCK]);
    }
    let sent_bytes = assert_as_scanned(&[&known(&old)], &new);
    // The index lists almost all blocks.
    assert!(sent_bytes < 20 * BLOCK_BYTES, "{sent_bytes}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn moving_makes_no_other_manifest(
        seed in any::<u64>(),
        lens in (200_000..2 * MIB, 200_000..2 * MIB),
        moves in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..200, 0u8..4), 1..12),
    ) {
        let old = noise(seed, lens.0);
        let mut new = noise(seed ^ 1, lens.1);
        let (blocks, places) = (lens.0 / BLOCK, lens.1.div_ceil(BLOCK));
        for (from, to, count, kind) in moves {
            let (from, to) = (from.index(blocks) * BLOCK, to.index(places) * BLOCK);
            let len = (count * BLOCK).min(lens.0 - from).min(lens.1 - to);
            match kind {
                0 => new[to..to + len].fill(0),
                // Across blocks: only whole chunks are found.
                1 => new[to..to + len.saturating_sub(77)].copy_from_slice(&old[from..from + len.saturating_sub(77)]),
                _ => new[to..to + len].copy_from_slice(&old[from..from + len]),
            }
        }
        let (manifest, new, _) = made(&[&known(&old)], &new);
        prop_assert_eq!(manifest.encode(), scan_reference(&new).encode());
    }
}

/// Holes are zeros here as everywhere, and what is listed ends with the image.
#[test]
fn an_image_that_was_emptied() {
    let old = known(&noise(7, 3 * MIB));
    assert_eq!(assert_as_scanned(&[&old], &vec![0; 3 * MIB + 5]), 0);
    assert_eq!(assert_as_scanned(&[&old], &[]), 0);
}
