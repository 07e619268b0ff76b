//! The incremental manifest is that of a full scan, byte for byte.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use form_delta::{
    ErrorKind, Extent, Image, Manifest, diff,
    generate::{image, image_pair, noise},
    rechunk, scan, scan_reference,
};
use proptest::prelude::*;

const MIB: usize = 1 << 20;

fn boundaries(manifest: &Manifest) -> Vec<u64> {
    let mut next = 0;
    let lens = manifest.chunks().iter().map(|c| u64::from(c.len_bytes));
    lens.map(|len| {
        next += len;
        next
    })
    .collect()
}

#[track_caller]
fn assert_same(found: &Manifest, new: &Image) {
    let expected = scan_reference(new);
    let differ = (0..).zip(expected.chunks().iter().zip(found.chunks())).find(|(_, (a, b))| a != b);
    assert_eq!(differ, None);
    assert_eq!(found.encode(), expected.encode());
}

/// Flips every byte in `extents` and tells `rechunk` exactly that.
fn flip_and_rechunk(base: &[u8], extents: &[Extent]) {
    let mut new = base.to_vec();
    for extent in extents {
        for byte in &mut new[extent.start as usize..extent.end as usize] {
            *byte ^= 0x5a;
        }
    }
    let base = image(base).unwrap();
    let new = image(&new).unwrap();
    assert_same(&rechunk(&new, &scan(&base), extents.to_vec()).unwrap(), &new);
}

#[test]
fn changes_that_begin_and_end_on_boundaries() {
    let base = noise(1, 3 * MIB);
    let manifest = scan(&image(&base).unwrap());
    let cuts = boundaries(&manifest);
    for pair in cuts.windows(2) {
        let (begin, end) = (pair[0], pair[1]);
        for (start, stop) in [
            (begin, end),
            // The byte that decides the cut before it, alone.
            (begin, begin + 1),
            (begin - 1, begin),
            (begin - 1, begin + 1),
            (end - 1, end),
        ] {
            flip_and_rechunk(&base, &[Extent::new(start, stop.min(base.len() as u64))]);
        }
    }
    // Every second chunk.
    let every_second: Vec<_> = cuts.chunks_exact(2).map(|pair| Extent::new(pair[0], pair[1])).collect();
    flip_and_rechunk(&base, &every_second);
}

#[test]
fn a_cut_depends_on_the_first_byte_of_the_next_chunk() {
    // The rule that makes all this necessary: without it the tests above would prove nothing.
    let base = noise(2, 3 * MIB);
    let before = boundaries(&scan(&image(&base).unwrap()));
    let mut moved = 0;
    for cut in &before[..before.len() - 1] {
        let mut new = base.clone();
        new[*cut as usize] ^= 0x5a;
        moved += usize::from(!boundaries(&scan(&image(&new).unwrap())).contains(cut));
    }
    assert!(moved * 10 >= (before.len() - 1) * 9, "{moved} of {}", before.len());
}

#[test]
fn a_shorter_image_loses_the_cut_before_its_last_byte() {
    // Where an odd number of bytes remains the chunker does not test the last one. Cut the image one byte behind a cut: the cut goes, and the chunk before it
    // grows by that byte, although no byte that remained changed.
    let base = noise(3, 2 * MIB);
    let base_image = image(&base).unwrap();
    let manifest = scan(&base_image);
    let cuts = boundaries(&manifest);
    let mut lost = 0;
    for cut in &cuts[..cuts.len() - 1] {
        for len in [*cut, cut + 1, cut + 2] {
            let new = image(&base[..len as usize]).unwrap();
            let expected = scan_reference(&new);
            lost += usize::from(len == cut + 1 && !boundaries(&expected).contains(cut));
            assert_same(&rechunk(&new, &manifest, Vec::new()).unwrap(), &new);
            // And back: from the short one to the long one.
            assert_same(&rechunk(&base_image, &expected, Vec::new()).unwrap(), &base_image);
        }
    }
    assert!(lost > 0, "the case does not occur any more: simplify the rule");
}

#[test]
fn an_unchanged_image_hashes_nothing_anew() {
    let bytes = noise(4, MIB);
    let base = image(&bytes).unwrap();
    let found = diff(&base, &scan(&base), &image(&bytes).unwrap()).unwrap();
    assert_eq!(found.changed, []);
    assert_eq!(found.manifest, scan(&base));
}

#[test]
fn empty_images() {
    let empty = image(&[]).unwrap();
    let full = image(&noise(5, 100_000)).unwrap();
    assert_eq!(scan(&empty).chunks(), []);
    assert_same(&scan(&empty), &empty);
    assert_same(&diff(&empty, &scan(&empty), &full).unwrap().manifest, &full);
    assert_same(&diff(&full, &scan(&full), &empty).unwrap().manifest, &empty);
}

#[test]
fn a_manifest_of_another_image_is_refused() {
    let (one, other) = (image(&noise(1, 50_000)).unwrap(), image(&noise(1, 50_001)).unwrap());
    assert_eq!(diff(&one, &scan(&other), &one).unwrap_err().kind(), ErrorKind::Refused);
}

/// Long data is cut in pieces of at most 8 MiB, side by side: from the begin of each the cuts meet the true ones soon, late or never.
#[test]
fn pieces_whose_cuts_meet_or_never_do() {
    let odd = 12_345;
    let of_noise = noise(1, 20 * MIB);
    let zeros = [noise(2, odd), vec![0; 20 * MIB], noise(3, MIB)].concat();
    // Without any cut: chunks of the largest size, from wherever they begin.
    let even = [noise(4, odd), vec![0x55; 20 * MIB], noise(5, MIB)].concat();
    let periodic = noise(6, MIB).repeat(20);
    for bytes in [&of_noise, &zeros, &even, &periodic] {
        let new = image(bytes).unwrap();
        assert_same(&scan(&new), &new);
        flip_and_rechunk(bytes, &[Extent::new(odd as u64, (19 * MIB + odd) as u64)]);
    }
    // Zeros that are allocated are not holes.
    let file = form_delta::generate::memory_file(&[]).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &zeros, 0).unwrap();
    let new = Image::from_file(file).unwrap();
    assert_eq!(new.data().len(), 1);
    assert_same(&scan(&new), &new);
}

#[test]
fn holes_are_zeros() {
    // Data, a long hole, data; then the hole moves by a few bytes, is filled, and is longer than all.
    let mut base = noise(6, 300_000);
    base.resize(3 * MIB, 0);
    base.extend(noise(7, 300_001));
    let mut shifted = base.clone();
    shifted.splice(MIB..MIB, [0; 1234]);
    let mut filled = base.clone();
    filled[MIB..2 * MIB].copy_from_slice(&noise(8, MIB));
    let hole = vec![0; 2 * MIB + 17];
    let all = [base, shifted, filled, hole];
    for base in &all {
        let base = image(base).unwrap();
        assert_same(&scan(&base), &base);
        for new in &all {
            let new = image(new).unwrap();
            assert_same(&diff(&base, &scan(&base), &new).unwrap().manifest, &new);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn incremental_is_full(script in proptest::collection::vec(any::<u8>(), 0..160)) {
        let (base, new) = image_pair(&script);
        let (base, new) = (image(&base).unwrap(), image(&new).unwrap());
        let base_manifest = scan(&base);
        prop_assert_eq!(base_manifest.encode(), scan_reference(&base).encode());
        let found = diff(&base, &base_manifest, &new).unwrap();
        prop_assert_eq!(found.manifest.encode(), scan_reference(&new).encode());
        // What is not listed as changed is equal.
        let mut position = 0;
        for extent in found.changed.iter().copied().chain([Extent::new(new.len_bytes(), 0)]) {
            let kept = position as usize..extent.start as usize;
            prop_assert!(kept.is_empty() || base.as_slice()[kept.clone()] == new.as_slice()[kept]);
            position = extent.end;
        }
    }

    /// Changes told byte for byte, around boundaries of the base.
    #[test]
    fn rechunk_is_full_around_boundaries(
        seed in any::<u64>(),
        zeros in 0usize..MIB,
        picks in proptest::collection::vec((any::<prop::sample::Index>(), -2i64..=2, 1u64..70_000), 1..6),
        cut_off in 0usize..5,
    ) {
        let mut base = noise(seed, MIB);
        base.resize(MIB + zeros, 0);
        base.extend(noise(seed ^ 1, MIB / 2 + 1));
        let base_image = image(&base).unwrap();
        let manifest = scan(&base_image);
        let cuts = boundaries(&manifest);
        let mut new = base.clone();
        let mut extents = Vec::new();
        for (index, shift, len) in picks {
            let start = index.get(&cuts).saturating_add_signed(shift).min(base.len() as u64);
            let end = (start + len).min(base.len() as u64);
            let end = cuts.iter().copied().find(|cut| *cut >= end && cut % 3 == 0).unwrap_or(end);
            for byte in &mut new[start as usize..end as usize] {
                *byte = !*byte;
            }
            extents.push(Extent::new(start, end));
        }
        new.truncate(new.len() - cut_off);
        let new = image(&new).unwrap();
        prop_assert_eq!(
            rechunk(&new, &manifest, extents).unwrap().encode(),
            scan_reference(&new).encode()
        );
    }
}
