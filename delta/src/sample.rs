//! A look behind a hint's back: some blocks that a hint says are unchanged, drawn at random, and compared all the same.

use std::{fs::File, os::unix::fs::FileExt};

use crate::{
    Extent, Result,
    error::{Error, Object},
    image::{data_extents, normalise},
    limits::BLOCK_BYTES,
};

/// Draws `count` blocks of 4 KiB, or all there are, from where `live` or `shadow` has data and no extent of `but` reaches. Ascending, each once; which ones is
/// a matter of `seed`.
pub fn sample(live: &File, shadow: &File, but: &[Extent], count: usize, seed: u64) -> Result<Vec<Extent>> {
    let len_bytes = live.metadata().map_err(Error::io("stat", Object::Live))?.len();
    let data =
        [data_extents(live, len_bytes, Object::Live)?, data_extents(shadow, len_bytes, Object::Shadow)?].concat();
    let wanted = blocks_between(&normalise(data), &normalise(but.to_vec()));
    let total: u64 = wanted.iter().map(|(_, count)| count).sum();
    let mut numbers: Vec<u64> = match total <= count as u64 {
        true => (0..total).collect(),
        // A number that is drawn twice counts once: a few less do no harm.
        false => random(seed).take(count).map(|number| number % total).collect(),
    };
    numbers.sort_unstable();
    numbers.dedup();
    let (mut runs, mut skipped, mut drawn) = (wanted.into_iter(), 0, Vec::with_capacity(numbers.len()));
    let mut run = runs.next();
    for number in numbers {
        while let Some((_, count)) = run.filter(|(_, count)| number - skipped >= *count) {
            skipped += count;
            run = runs.next();
        }
        if let Some((first, _)) = run {
            let start = (first + number - skipped) * BLOCK_BYTES;
            drawn.push(Extent::new(start, (start + BLOCK_BYTES).min(len_bytes)));
        }
    }
    Ok(drawn)
}

/// Runs of blocks (the first's number, how many) that `data` reaches and `but` does not.
fn blocks_between(data: &[Extent], but: &[Extent]) -> Vec<(u64, u64)> {
    let in_blocks = |extent: &Extent| Extent::new(extent.start / BLOCK_BYTES, extent.end.div_ceil(BLOCK_BYTES));
    let data = normalise(data.iter().map(in_blocks).collect());
    let but = normalise(but.iter().map(in_blocks).collect());
    let mut runs = Vec::new();
    let mut but = but.into_iter().peekable();
    for extent in data {
        let mut first = extent.start;
        while but.next_if(|hole| hole.end <= first).is_some() {}
        while let Some(hole) = but.peek().copied().filter(|hole| hole.start < extent.end) {
            if first < hole.start {
                runs.push((first, hole.start - first));
            }
            first = hole.end;
            if hole.end >= extent.end {
                break;
            }
            but.next();
        }
        if first < extent.end {
            runs.push((first, extent.end - first));
        }
    }
    runs
}

/// SplitMix64.
fn random(mut state: u64) -> impl Iterator<Item = u64> {
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// Whether two files hold the same bytes in all of `extents`.
pub fn same_within(live: &File, shadow: &File, extents: &[Extent]) -> Result<bool> {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for extent in extents {
        for slice in crate::image::slices(*extent, BLOCK_BYTES) {
            let len = slice.len_bytes() as usize;
            theirs.resize(len, 0);
            ours.resize(len, 0);
            live.read_exact_at(&mut theirs, slice.start).map_err(Error::io("read", Object::Live))?;
            shadow.read_exact_at(&mut ours, slice.start).map_err(Error::io("read", Object::Shadow))?;
            if theirs != ours {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{memory_file, noise};

    #[test]
    fn blocks_are_drawn_where_no_hint_reaches() {
        let blocks = |pairs: &[(u64, u64)]| pairs.iter().map(|&(a, b)| Extent::new(a, b)).collect::<Vec<_>>();
        let data = blocks(&[(0, 40960), (81920, 90000)]);
        assert_eq!(blocks_between(&data, &[]), [(0, 10), (20, 2)]);
        assert_eq!(
            blocks_between(&data, &blocks(&[(4096, 8192), (12288, 12289), (40000, 86016)])),
            [(0, 1), (2, 1), (4, 5), (21, 1)]
        );
        assert_eq!(blocks_between(&data, &blocks(&[(0, 1 << 20)])), []);

        let live = memory_file(&noise(1, 100 * 4096 + 100)).unwrap();
        let shadow = memory_file(&[]).unwrap();
        let hinted = blocks(&[(0, 50 * 4096)]);
        let all = sample(&live, &shadow, &hinted, 1000, 1).unwrap();
        assert_eq!((all.len(), all[0].start, all[50]), (51, 50 * 4096, Extent::new(100 * 4096, 100 * 4096 + 100)));
        let some = sample(&live, &shadow, &hinted, 20, 1).unwrap();
        assert!((10..=20).contains(&some.len()) && some.iter().all(|block| all.contains(block)));
        assert_ne!(some, sample(&live, &shadow, &hinted, 20, 2).unwrap());
        assert_eq!(some, sample(&live, &shadow, &hinted, 20, 1).unwrap());
    }

    #[test]
    fn one_byte_is_seen_where_it_is_looked_for() {
        let mut bytes = noise(1, 8 * 4096);
        let live = memory_file(&bytes).unwrap();
        bytes[3 * 4096 + 7] ^= 1;
        let shadow = memory_file(&bytes).unwrap();
        let block = |n: u64| Extent::new(n * 4096, (n + 1) * 4096);
        assert!(same_within(&live, &shadow, &[block(0), block(2), block(4)]).unwrap());
        assert!(!same_within(&live, &shadow, &[block(0), block(3)]).unwrap());
        assert!(!same_within(&live, &shadow, &[Extent::new(0, 8 * 4096)]).unwrap());
    }
}
