//! What new bytes are like, and so which stream of the frame takes them.

use super::{Draft, DraftSource, Part, PartSource, edits};
use crate::{
    Extent, Image,
    base::Place,
    image::{clip, slices},
    limits::BLOCK_BYTES,
};

/// A block with this part of its words as they were is like what was there before.
const SAME_WORDS_DIVISOR: usize = 32;
/// Bytes that stand for a place when shifted data is looked for.
const SHINGLE_BYTES: usize = 16;
/// One shingle of so many is kept, chosen by content.
const SHINGLE_SAMPLING: u64 = 32;
/// A block with so many bytes that were there before shrinks, whatever it looks like.
const REPEATED_BYTES_MIN: u64 = 256;
/// Data that does not shrink stays among other data unless there is this much of it.
const RAW_BYTES_MIN: u64 = 16 << 10;

/// Divides new bytes into parts by kind: a few edits of what a base has at the same place, or near the place that the neighbours came from; like one of these
/// in another way; without any pattern, so that it does not shrink; and plain. `repeated` lists what stands in earlier content.
pub(super) fn classify(bases: &[&Image], new: &Image, draft: Draft, repeated: &[Extent], parts: &mut Vec<Part>) {
    let DraftSource::Literal { near } = draft.source else { return };
    let shingles = near.map(|place| Shingles::of(bases, place, draft.extent.len_bytes()));
    let is_repeated = |block| clip(repeated, block).map(|part| part.len_bytes()).sum::<u64>() >= REPEATED_BYTES_MIN;
    let first = parts.len();
    for block in slices(draft.extent, BLOCK_BYTES) {
        let bytes = new.get(block).unwrap_or_default();
        let here = Place { base: 0, start: block.start };
        let near = near.map(|place| place.forward(block.start - draft.extent.start));
        let is_near = |place: &Place| {
            let lies_inside = bases.get(usize::from(place.base)).is_some_and(|base| place.start < base.len_bytes());
            lies_inside && shingles.as_ref().is_some_and(|shingles| shingles.are_in(bytes))
        };
        let is_edited = |place: &Place| old(bases, *place, bytes).is_some_and(|old| edits::are_few(old, bytes));
        let source = if let Some(place) = near.into_iter().chain([here]).find(is_edited) {
            PartSource::Edited(place)
        } else if let Some(place) = near.filter(is_near) {
            PartSource::Patched(place)
        } else if old(bases, here, bytes).is_some_and(|old| is_like(old, bytes)) {
            PartSource::Patched(here)
        } else if is_random(bytes) && !is_repeated(block) {
            PartSource::Raw
        } else {
            PartSource::Plain
        };
        push(parts, first, Part { len_bytes: block.len_bytes() as u32, source });
    }
    // Short runs of noise are not worth a part of their own.
    let mut merged: Vec<Part> = Vec::with_capacity(parts.len() - first);
    for part in parts.drain(first..) {
        let short = u64::from(part.len_bytes) < RAW_BYTES_MIN.min(draft.extent.len_bytes());
        let source = match part.source {
            PartSource::Raw if short => PartSource::Plain,
            source => source,
        };
        push(&mut merged, 0, Part { source, ..part });
    }
    parts.extend(merged);
}

/// Appends a part, or lengthens the last one that it continues.
fn push(parts: &mut Vec<Part>, first: usize, part: Part) {
    if parts.len() > first
        && let Some(last) = parts.last_mut()
    {
        let continues = match (last.source, part.source) {
            (PartSource::Patched(place), PartSource::Patched(next))
            | (PartSource::Edited(place), PartSource::Edited(next)) => place.forward(u64::from(last.len_bytes)) == next,
            (one, other) => one == other,
        };
        if continues {
            last.len_bytes += part.len_bytes;
            return;
        }
    }
    parts.push(part);
}

/// As many bytes of a base from a place on, if it has them, and they are not a hole.
fn old<'a>(bases: &[&'a Image], place: Place, bytes: &[u8]) -> Option<&'a [u8]> {
    let there = Extent::new(place.start, place.start + bytes.len() as u64);
    let image = *bases.get(usize::from(place.base))?;
    if image.is_hole(there) { None } else { image.get(there) }
}

/// Whether much of `new` is what was there before, in place.
fn is_like(old: &[u8], new: &[u8]) -> bool {
    let words = new.as_chunks::<8>().0.iter().zip(old.as_chunks::<8>().0);
    let same = words.filter(|(new, old)| new == old && **new != [0; 8]).count();
    same * SAME_WORDS_DIVISOR >= (new.len() / 8).max(1)
}

/// Whether bytes look drawn at random: no value stands out. For n such bytes the squares of the counts add up to n + n²/256, give or take little.
fn is_random(bytes: &[u8]) -> bool {
    if bytes.len() < BLOCK_BYTES as usize {
        return false;
    }
    // Equal neighbours would wait for each other's store to the same counter: four tables.
    let mut counts = [[0u32; 256]; 4];
    for quad in bytes.as_chunks::<4>().0 {
        for (counts, byte) in counts.iter_mut().zip(quad) {
            counts[usize::from(*byte)] += 1;
        }
    }
    for byte in bytes.as_chunks::<4>().1 {
        counts[0][usize::from(*byte)] += 1;
    }
    let [one, two, three, four] = &counts;
    let counts = one.iter().zip(two).zip(three.iter().zip(four)).map(|((a, b), (c, d))| u64::from(a + b + c + d));
    let squares: u64 = counts.map(|count| count * count).sum();
    let len = bytes.len() as u64;
    squares < len + len * len / 256 + len * len / 2048
}

/// A sample of short strings of bytes, chosen by content, so that the same string is chosen wherever it stands. Of each, one bit of a table is kept (Bloom 1970,
/// with one hash function), so that one in `BITS_PER_SHINGLE` seems known and is not.
struct Shingles(Vec<u64>);

/// Bits of the table for each shingle in it.
const BITS_PER_SHINGLE: u64 = 32;

impl Shingles {
    /// Those of a base from `place` on, and a block around it.
    fn of(bases: &[&Image], place: Place, len_bytes: u64) -> Shingles {
        let image = bases.get(usize::from(place.base));
        let bytes = image.and_then(|image| {
            let end = (place.start + len_bytes + BLOCK_BYTES).min(image.len_bytes());
            image.get(Extent::new(place.start.saturating_sub(BLOCK_BYTES), end))
        });
        let bytes = bytes.unwrap_or_default();
        let bits = (bytes.len() as u64 / SHINGLE_SAMPLING * BITS_PER_SHINGLE).next_power_of_two().max(64);
        let mut this = Shingles(vec![0; (bits / 64) as usize]);
        for shingle in sampled(bytes) {
            let (word, bit) = this.place(shingle);
            if let Some(word) = this.0.get_mut(word) {
                *word |= bit;
            }
        }
        this
    }

    fn place(&self, shingle: u64) -> (usize, u64) {
        let number = shingle as usize & (self.0.len() * 64 - 1);
        (number / 64, 1 << (number % 64))
    }

    /// Whether many of the shingles of `bytes` are among these.
    fn are_in(&self, bytes: &[u8]) -> bool {
        let (mut all, mut known) = (0, 0);
        for shingle in sampled(bytes) {
            let (word, bit) = self.place(shingle);
            all += 1;
            known += usize::from(self.0.get(word).is_some_and(|word| word & bit != 0));
        }
        known * 8 > all
    }
}

fn sampled(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.windows(SHINGLE_BYTES).filter_map(|window| {
        let (low, high) = window.split_first_chunk::<8>()?;
        let high = high.first_chunk::<8>()?;
        // Fibonacci hashing (Knuth, TAOCP 6.4) of two words.
        let mixed =
            (u64::from_le_bytes(*low) ^ u64::from_le_bytes(*high).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The upper bits are mixed best; some say whether, others where.
        ((mixed >> 40) % SHINGLE_SAMPLING == 0).then_some(mixed.rotate_right(45))
    })
}
