//! What the content of a frame has in common with the content before it, at any distance: a copy of a new file, or two files of one kind. As rsync and zstd's
//! long-distance matcher do it, short strings stand for the places where they are. Few of them are listed, chosen by what they begin with, so that the same
//! string is chosen wherever it stands.

use std::collections::VecDeque;

use twox_hash::XxHash3_64;

use super::excerpt::Excerpt;
use crate::{
    Extent, Image,
    image::normalise,
    limits::{EARLIER_BYTES_MAX, EXCERPTS_BYTES_MAX},
};

/// Length of a string; also of the shortest repeat that is taken.
const STRING_BYTES: usize = 64;
/// One string of 2^7 is listed and looked for. Of 31.17 MB that new packages on a disk would be (99 MiB of content) this saves 1.77; one of 2^6 saves 1.84.
const SAMPLING_LOG: u32 = 7;
/// From one listed string to the next: where bytes repeat themselves, all of their strings may begin with a word that is chosen.
const STRINGS_APART_MIN: usize = 32;
/// Most places that are listed: one for each string that is in reach. The newest takes the place of an older one.
const SLOTS_LOG_MAX: u32 = (EARLIER_BYTES_MAX >> SAMPLING_LOG).ilog2();
/// A slot: the lower bits of the hash, and the position in the image of the byte behind the string.
const POSITION_BITS: u32 = 40;
const POSITION: u64 = (1 << POSITION_BITS) - 1;

/// Goes through the content of frame after frame.
pub(super) struct Repeats {
    slots: Vec<u64>,
    /// Content that is in reach, in order of both the content and the image.
    runs: VecDeque<Run>,
    /// Of all content so far.
    len_bytes: u64,
}

/// What [`Repeats::next`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Repeated {
    /// The content of earlier frames that stands in this one again, in order and apart.
    pub(super) excerpts: Vec<Excerpt>,
    /// The same, as extents of the new image.
    pub(super) earlier: Vec<Extent>,
    /// Where in this frame content stands that was there before, in this or an earlier one.
    pub(super) here: Vec<Extent>,
}

/// A stretch of content, and where in all of it that begins.
#[derive(Debug, Clone, Copy)]
struct Run {
    extent: Extent,
    at: u64,
}

impl Repeats {
    /// Memory follows what there is to be looked at, 4 MiB at most.
    pub(super) fn new(content_bytes: u64) -> Repeats {
        let strings = (content_bytes >> SAMPLING_LOG).max(1);
        let slots_log = strings.next_power_of_two().ilog2().min(SLOTS_LOG_MAX);
        Repeats { slots: vec![0; 1 << slots_log], runs: VecDeque::new(), len_bytes: 0 }
    }

    /// Looks at the content of the next frame, which lies behind that of all before.
    pub(super) fn next(&mut self, new: &Image, content: impl Iterator<Item = Extent>) -> Repeated {
        let frame_at = self.len_bytes;
        while let Some(first) = self.runs.front()
            && first.at + EARLIER_BYTES_MAX < frame_at
        {
            self.runs.pop_front();
        }
        let (mut earlier, mut here) = (Vec::new(), Vec::new());
        for extent in content {
            let run = Run { extent, at: self.len_bytes };
            self.len_bytes += extent.len_bytes();
            self.look(new, extent, |from, to, source: &Run| {
                here.push(to);
                if source.at < frame_at {
                    earlier.push(from);
                }
            });
            self.runs.push_back(run);
        }
        let mut repeated = Repeated { here: normalise(here), ..Repeated::default() };
        let mut room_bytes = EXCERPTS_BYTES_MAX;
        for extent in normalise(earlier) {
            let first = self.runs.partition_point(|run| run.extent.end <= extent.start);
            let Some(run) = self.runs.get(first) else { continue };
            let at = run.at + (extent.start - run.extent.start);
            let len_bytes = extent.len_bytes();
            if len_bytes > room_bytes {
                break;
            }
            room_bytes -= len_bytes;
            // Both fit: no further back than EARLIER_BYTES_MAX, and no longer than EXCERPTS_BYTES_MAX.
            let excerpt = Excerpt { back_bytes: (frame_at - at) as u32, len_bytes: len_bytes as u32 };
            repeated.excerpts.push(excerpt);
            repeated.earlier.push(extent);
        }
        repeated
    }

    /// Lists the strings of a stretch of content, and says what of it stands in a run before: from where, to where.
    fn look(&mut self, new: &Image, extent: Extent, mut found: impl FnMut(Extent, Extent, &Run)) {
        let bytes = new.get(extent).unwrap_or_default();
        let slot_shift = u64::BITS - self.slots.len().ilog2();
        let slot_of = |key: u64| key.checked_shr(slot_shift).unwrap_or(0) as usize;
        // Up to where the bytes are known to be a repeat.
        let mut covered = 0;
        for (end, key) in strings(bytes) {
            let Some(slot) = self.slots.get_mut(slot_of(key)) else { continue };
            let tagged = key << POSITION_BITS | (extent.start + end as u64);
            let listed = std::mem::replace(slot, tagged);
            if end <= covered || (listed ^ tagged) & !POSITION != 0 {
                continue;
            }
            let there = listed & POSITION;
            let number = self.runs.partition_point(|run| run.extent.end < there);
            let Some(run) = self.runs.get(number).filter(|run| run.extent.start < there) else { continue };
            let Some((before, behind)) =
                new.get(run.extent).and_then(|old| old.split_at_checked((there - run.extent.start) as usize))
            else {
                continue;
            };
            let (known, rest) = bytes.split_at(end);
            let open = known.get(covered..).unwrap_or_default();
            let back = same(before.iter().rev(), open.iter().rev());
            let forth = same(behind.iter(), rest.iter());
            if back + forth >= STRING_BYTES {
                covered = end + forth;
                let from = Extent::new(there - back as u64, there + forth as u64);
                let to = Extent::new(extent.start + (end - back) as u64, extent.start + covered as u64);
                found(from, to, run);
            }
        }
    }
}

/// The strings of some bytes that are listed: where each ends, and its hash. Which are is decided by their first word, so that no hash has to be made of the
/// others. Zeros never are.
fn strings(bytes: &[u8]) -> Vec<(usize, u64)> {
    const LISTED: u64 = u64::MAX << (u64::BITS - SAMPLING_LOG);
    let mut strings = Vec::with_capacity(bytes.len() >> (SAMPLING_LOG - 1));
    let mut next_at = 0;
    for (at, string) in bytes.windows(STRING_BYTES).enumerate() {
        let word = string.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        if word.wrapping_mul(SPREAD) >= LISTED && at >= next_at {
            next_at = at + STRINGS_APART_MIN;
            strings.push((at + STRING_BYTES, XxHash3_64::oneshot(string)));
        }
    }
    strings
}

/// How many are equal before the first that differ.
fn same<'a>(left: impl Iterator<Item = &'a u8>, right: impl Iterator<Item = &'a u8>) -> usize {
    left.zip(right).take_while(|(left, right)| left == right).count()
}

/// A product with it has upper bits that depend on all bits of the other factor (Knuth, TAOCP 3, 6.4: 2^64 over the golden ratio).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{image, noise};

    fn next(repeats: &mut Repeats, new: &Image, content: &[(u64, u64)]) -> Repeated {
        repeats.next(new, content.iter().map(|(start, end)| Extent::new(*start, *end)))
    }

    #[test]
    fn a_repeat_is_found_wherever_it_stands_and_to_its_ends() {
        let file = noise(1, 100_000);
        let new = image(&[&noise(2, 50_000), &file[..], &noise(3, 70_001), &file, &noise(4, 9)].concat()).unwrap();
        let mut repeats = Repeats::new(new.len_bytes());
        // What lies before the file is no content, and so is nothing that a reader has.
        assert_eq!(next(&mut repeats, &new, &[(50_000, 160_000)]), Repeated::default());
        let all = next(&mut repeats, &new, &[(160_000, 320_010)]);
        assert_eq!(all.earlier, [Extent::new(50_000, 150_000)]);
        assert_eq!(all.here, [Extent::new(220_001, 320_001)]);
        // 110,000 bytes of content, of which it is the first.
        assert_eq!(all.excerpts, [Excerpt { back_bytes: 110_000, len_bytes: 100_000 }]);
    }

    #[test]
    fn a_repeat_across_stretches_of_content_is_one_excerpt() {
        let file = noise(1, 100_000);
        let new = image(&[&file[..], &file].concat()).unwrap();
        let mut repeats = Repeats::new(new.len_bytes());
        next(&mut repeats, &new, &[(0, 40_960), (40_960, 100_000)]);
        let all = next(&mut repeats, &new, &[(100_000, 200_000)]);
        assert_eq!(all.excerpts, [Excerpt { back_bytes: 100_000, len_bytes: 100_000 }]);
        assert_eq!(all.here, [Extent::new(100_000, 200_000)]);
    }

    #[test]
    fn what_repeats_its_own_frame_needs_no_excerpt() {
        let file = noise(1, 50_000);
        let new = image(&[&file[..], &file].concat()).unwrap();
        let repeated = next(&mut Repeats::new(new.len_bytes()), &new, &[(0, 50_000), (50_000, 100_000)]);
        assert_eq!((repeated.excerpts.len(), &repeated.here[..]), (0, &[Extent::new(50_000, 100_000)][..]));
    }

    #[test]
    fn few_strings_are_listed_whatever_the_bytes() {
        let len = 100_000;
        let noise = strings(&noise(1, len)).len();
        assert!((len >> (SAMPLING_LOG + 1)..len >> (SAMPLING_LOG - 1)).contains(&noise), "{noise}");
        assert_eq!(strings(&vec![0; len]), []);
        let most = (1..=255).map(|byte| strings(&vec![byte; len]).len()).max().unwrap_or(0);
        assert!(most > 0 && most <= len.div_ceil(STRINGS_APART_MIN), "{most}");
    }

    #[test]
    fn no_more_than_a_frame_may_take_is_taken() {
        let file = |seed| noise(seed, EXCERPTS_BYTES_MAX as usize / 2 + 4096);
        let gap = |seed| noise(seed, 4096);
        let new = image(&[file(1), gap(2), file(3), file(1), gap(4), file(3)].concat()).unwrap();
        let half = new.len_bytes() / 2;
        let mut repeats = Repeats::new(new.len_bytes());
        next(&mut repeats, &new, &[(0, half)]);
        let repeated = next(&mut repeats, &new, &[(half, 2 * half)]);
        assert_eq!(repeated.here.len(), 2);
        assert_eq!(repeated.earlier, [Extent::new(0, EXCERPTS_BYTES_MAX / 2 + 4096)]);
    }
}
