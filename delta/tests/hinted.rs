//! What is known of where an image changed saves reading, and changes no result while it is right.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use std::{fs::File, os::unix::fs::FileExt};

use form_delta::{
    ErrorKind, Extent, Refreshed, cut_anew, diff,
    generate::{image, image_pair, memory_file, noise},
    rechunk, refresh_extents, scan, verify_chunks,
};
use proptest::prelude::*;

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn only_what_is_hinted_is_looked_at() {
    let old = noise(1, 8 << 20);
    let mut new = old.clone();
    new[5000] ^= 1;
    new[3 << 20] ^= 1;
    let (live, shadow) = (memory_file(&new).unwrap(), memory_file(&old).unwrap());
    let hint = [Extent::new(3 << 20, (3 << 20) + 65536)];
    let moved = refresh_extents(&live, &shadow, &hint).unwrap();
    let changed = vec![Extent::new(3 << 20, (3 << 20) + 4096)];
    assert_eq!(moved, Refreshed { bytes_read: 65536, bytes_written: 4096, changed });
    // The change that the hint has left out is not there: a hint that lies is believed here, and looked after elsewhere.
    let frozen = bytes(&shadow);
    assert!(frozen[5000] == old[5000] && frozen[3 << 20] == new[3 << 20]);
    let (base, frozen) = (image(&old).unwrap(), image(&frozen).unwrap());
    let manifest = rechunk(&frozen, &scan(&base), moved.changed).unwrap();
    assert_eq!(manifest.root(), scan(&frozen).root(), "the manifest is that of what was captured");
    assert_eq!(refresh_extents(&live, &shadow, &[]).unwrap(), Refreshed::default());
}

#[test]
fn what_was_taken_over_from_the_base_can_be_verified() {
    let old = noise(1, 4 << 20);
    let manifest = scan(&image(&old).unwrap());
    let damaged_at = 1_000_000;
    let mut damaged = old.clone();
    damaged[damaged_at] ^= 1;
    let base = memory_file(&damaged).unwrap();
    let verified = |changed: Extent| {
        let mut new = damaged.clone();
        new[changed.start as usize] ^= 1;
        let found = rechunk(&image(&new).unwrap(), &manifest, vec![changed]).unwrap();
        let anew = cut_anew(&manifest, &found);
        // One byte changed; a chunk may end between it and the end of its block.
        assert!(anew.iter().any(|extent| extent.start <= changed.start && changed.start < extent.end));
        let bytes: u64 = anew.iter().map(Extent::len_bytes).sum();
        assert!(bytes < 1 << 20, "{anew:?}");
        (verify_chunks(&base, &manifest, &anew), found)
    };
    let (near, _) = verified(Extent::new(1_000_448, 1_004_544));
    assert_eq!(near.unwrap_err().kind(), ErrorKind::Corrupt);
    // Far from the damage its chunk is the base's, by its name: nothing is taken from the damaged bytes.
    let far = Extent::new(3 << 20, (3 << 20) + 4096);
    let (verified, found) = verified(far);
    verified.unwrap();
    let mut right = old.clone();
    right[far.start as usize] ^= 1;
    assert_eq!(found.root(), scan(&image(&right).unwrap()).root());
    assert_eq!(cut_anew(&manifest, &manifest), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_hint_that_covers_what_changed_gives_the_same(
        script in proptest::collection::vec(any::<u8>(), 0..120),
        more in proptest::collection::vec((0u64..4 << 20, 0u64..100_000), 0..8),
    ) {
        let (before, after) = image_pair(&script);
        let (base, new) = (image(&before).unwrap(), image(&after).unwrap());
        let manifest = scan(&base);
        let full = diff(&base, &manifest, &new).unwrap();
        let more = more.iter().map(|&(start, len)| Extent::new(start, start + len));
        let hint: Vec<_> = more.chain(full.changed.iter().copied()).collect();
        let (live, shadow) = (memory_file(&after).unwrap(), memory_file(&before).unwrap());
        let moved = refresh_extents(&live, &shadow, &hint).unwrap();
        prop_assert!(bytes(&shadow) == after);
        let hinted = rechunk(&new, &manifest, moved.changed).unwrap();
        prop_assert_eq!(hinted.encode(), full.manifest.encode());
    }
}
