//! What the content of a frame has in common with the content before it, at any distance: a copy of a new file, or two files of one kind. As rsync and zstd's
//! long-distance matcher do it, short strings stand for the places where they are. Few of them are listed, chosen by what they begin with, so that the same
//! string is nearly always chosen, wherever it stands.

use std::collections::VecDeque;

use twox_hash::XxHash3_64;

use super::excerpt::Excerpt;
use crate::{
    Extent, Image,
    image::normalise,
    limits::{EARLIER_BYTES_MAX, ENCODE_THREADS_MAX, FRAME_CONTENT_BYTES_MAX},
};

/// Length of a string; also of the shortest repeat that is taken.
const STRING_BYTES: usize = 64;
/// One string of 2^6 is chosen, and none that begins within one before it: so bytes that repeat themselves are not listed all over.
const CHOSEN_LOG: u32 = 6;
/// Of all strings, one of 2^7 is listed by that. Of 31.17 MB that new packages on a disk would be (99 MiB of content) this saves 1.80; twice as many save 1.87.
const SAMPLING_LOG: u32 = 7;
/// Most places that are listed: one for each string that is in reach. The newest takes the place of an older one.
const SLOTS_LOG_MAX: u32 = (EARLIER_BYTES_MAX >> SAMPLING_LOG).ilog2();
/// How far back content is kept in mind: what is in reach of the frames that are being encoded meanwhile.
const KEPT_BYTES: u64 = EARLIER_BYTES_MAX + ENCODE_THREADS_MAX as u64 * FRAME_CONTENT_BYTES_MAX;
/// A slot: the lower bits of the hash, and the position in the image of the byte behind the string.
const POSITION_BITS: u32 = 40;
const POSITION: u64 = (1 << POSITION_BITS) - 1;

/// Goes through the content of frame after frame.
pub(super) struct Repeats {
    slots: Vec<u64>,
    /// Content that is kept in mind, in order of both the content and the image.
    runs: VecDeque<Run>,
    /// Of all content so far.
    len_bytes: u64,
}

/// Content that stands in an earlier frame too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    /// Where it is in this frame: an extent of the new image.
    pub(super) here: Extent,
    /// Where it was in that one: an extent of the new image.
    pub(super) earlier: Extent,
    /// From there to the begin of this frame's content.
    pub(super) back_bytes: u64,
}

/// What a frame takes of earlier ones, if this is what its coded stream repeats of them: excerpts, and the same as extents of the new image.
pub(super) fn excerpts<'r>(repeats: impl Iterator<Item = &'r Repeat>) -> (Vec<Excerpt>, Vec<Extent>) {
    // Content that is apart in the image may touch as content. Positions in it are counted from where a frame's reach begins.
    let in_content = |repeat: &Repeat| {
        let at = EARLIER_BYTES_MAX - repeat.back_bytes;
        (Extent::new(at, at + repeat.earlier.len_bytes()), repeat.earlier)
    };
    let (content, earlier) = repeats.map(in_content).unzip();
    // Both fit, as EARLIER_BYTES_MAX does.
    let excerpt = |extent: Extent| Excerpt {
        back_bytes: (EARLIER_BYTES_MAX - extent.start) as u32,
        len_bytes: extent.len_bytes() as u32,
    };
    (normalise(content).into_iter().map(excerpt).collect(), normalise(earlier))
}

/// A stretch of content, and where in all of it that begins.
#[derive(Debug, Clone, Copy)]
struct Run {
    extent: Extent,
    at: u64,
}

impl Repeats {
    /// The table follows what there is to be looked at, 4 MiB at most; what is kept in mind is a list of stretches.
    pub(super) fn new(content_bytes: u64) -> Repeats {
        let strings = (content_bytes >> SAMPLING_LOG).max(1);
        let slots_log = strings.next_power_of_two().ilog2().min(SLOTS_LOG_MAX);
        Repeats { slots: vec![0; 1 << slots_log], runs: VecDeque::new(), len_bytes: 0 }
    }

    /// Looks at the content of the next frame, which lies behind that of all before. What it finds is in order, and no two are of the same place here.
    pub(super) fn next(&mut self, new: &Image, content: impl Iterator<Item = Extent>) -> Vec<Repeat> {
        let frame_at = self.len_bytes;
        let mut out_of_reach = None;
        while let Some(first) = self.runs.front()
            && first.at + KEPT_BYTES < frame_at
        {
            let start = out_of_reach.map_or(first.extent.start, |extent: Extent| extent.start);
            out_of_reach = Some(Extent::new(start, first.extent.end));
            self.runs.pop_front();
        }
        // It was looked at again since its frame was encoded, and no frame that still is can do so.
        if let Some(extent) = out_of_reach {
            new.release(extent);
        }
        let (mut repeats, mut runs, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        for extent in content {
            let strings = strings(new.get(extent).unwrap_or_default());
            self.look(new, extent, frame_at, &strings, |here, earlier, run| {
                let at = run.at + (earlier.start - run.extent.start);
                repeats.push(Repeat { here, earlier, back_bytes: frame_at - at });
            });
            listed.extend(strings.into_iter().map(|(end, key)| (extent.start + end as u64, key)));
            runs.push(Run { extent, at: self.len_bytes });
            self.len_bytes += extent.len_bytes();
        }
        // Only now: what a frame has in common with itself is its compressor's to find, and would hide what it has with others.
        self.runs.extend(runs);
        for (position, key) in listed {
            let slot = self.slot_of(key);
            if let Some(slot) = self.slots.get_mut(slot) {
                *slot = key << POSITION_BITS | position;
            }
        }
        repeats
    }

    fn slot_of(&self, key: u64) -> usize {
        key.checked_shr(u64::BITS - self.slots.len().ilog2()).unwrap_or(0) as usize
    }

    /// Says what of a stretch of content with these strings, in the frame at `frame_at`, stands in earlier frames, and where there.
    fn look(
        &self,
        new: &Image,
        extent: Extent,
        frame_at: u64,
        strings: &[(usize, u64)],
        mut found: impl FnMut(Extent, Extent, &Run),
    ) {
        let bytes = new.get(extent).unwrap_or_default();
        // Up to where the bytes are known to be a repeat.
        let mut covered = 0;
        for &(end, key) in strings {
            let listed = self.slots.get(self.slot_of(key)).copied().unwrap_or_default();
            if end <= covered || listed >> POSITION_BITS != key << POSITION_BITS >> POSITION_BITS {
                continue;
            }
            let there = listed & POSITION;
            let number = self.runs.partition_point(|run| run.extent.end < there);
            let is_in_reach = |run: &&Run| run.extent.start < there && run.at + EARLIER_BYTES_MAX >= frame_at;
            let Some(run) = self.runs.get(number).filter(is_in_reach) else { continue };
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
                let here = Extent::new(extent.start + (end - back) as u64, extent.start + covered as u64);
                found(here, Extent::new(there - back as u64, there + forth as u64), run);
            }
        }
    }
}

/// The strings of some bytes that are listed: where each ends, and its hash. Which are is decided by their first word, so that no hash has to be made of the
/// others. Zeros never are.
fn strings(bytes: &[u8]) -> Vec<(usize, u64)> {
    let is_chosen = |string: &[u8]| {
        let word = string.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        word.wrapping_mul(SPREAD) >= u64::MAX << (u64::BITS - CHOSEN_LOG)
    };
    let mut strings = Vec::with_capacity(bytes.len() >> SAMPLING_LOG);
    let mut from = 0;
    while let Some(rest) = bytes.get(from..)
        && let Some(after) = rest.windows(STRING_BYTES).position(is_chosen)
        && let Some(string) = rest.get(after..after + STRING_BYTES)
    {
        strings.push((from + after + STRING_BYTES, XxHash3_64::oneshot(string)));
        from += after + STRING_BYTES;
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

    fn next(repeats: &mut Repeats, new: &Image, content: &[(u64, u64)]) -> Vec<Repeat> {
        repeats.next(new, content.iter().map(|(start, end)| Extent::new(*start, *end)))
    }

    #[test]
    fn a_repeat_is_found_wherever_it_stands_and_to_its_ends() {
        let file = noise(1, 100_000);
        let new = image(&[&noise(2, 50_000), &file[..], &noise(3, 70_001), &file, &noise(4, 9)].concat()).unwrap();
        let mut repeats = Repeats::new(new.len_bytes());
        // What lies before the file is no content, and so is nothing that a reader has.
        assert_eq!(next(&mut repeats, &new, &[(50_000, 160_000)]), []);
        let found = next(&mut repeats, &new, &[(160_000, 320_010)]);
        let (here, earlier) = (Extent::new(220_001, 320_001), Extent::new(50_000, 150_000));
        // 110,000 bytes of content, of which it is the first.
        assert_eq!(found, [Repeat { here, earlier, back_bytes: 110_000 }]);
        assert_eq!(excerpts(found.iter()), (vec![Excerpt { back_bytes: 110_000, len_bytes: 100_000 }], vec![earlier]));
    }

    #[test]
    fn a_repeat_across_stretches_of_content_is_one_excerpt() {
        // Between them lies a block that is no content.
        let file = noise(1, 100_000);
        let new = image(&[&file[..40_960], &[0; 4096], &file[40_960..], &file].concat()).unwrap();
        let mut repeats = Repeats::new(new.len_bytes());
        next(&mut repeats, &new, &[(0, 40_960), (45_056, 104_096)]);
        let found = next(&mut repeats, &new, &[(104_096, 204_096)]);
        let (listed, earlier) = excerpts(found.iter());
        assert_eq!(listed, [Excerpt { back_bytes: 100_000, len_bytes: 100_000 }]);
        assert_eq!(earlier, [Extent::new(0, 40_960), Extent::new(45_056, 104_096)]);
    }

    #[test]
    fn what_repeats_its_own_frame_needs_no_excerpt() {
        let file = noise(1, 50_000);
        let new = image(&[&file[..], &file].concat()).unwrap();
        let found = next(&mut Repeats::new(new.len_bytes()), &new, &[(0, 50_000), (50_000, 100_000)]);
        assert_eq!(found, []);
    }

    #[test]
    fn few_strings_are_listed_whatever_the_bytes() {
        let len = 100_000;
        let noise = strings(&noise(1, len)).len();
        assert!((len >> (SAMPLING_LOG + 1)..len >> (SAMPLING_LOG - 1)).contains(&noise), "{noise}");
        assert_eq!(strings(&vec![0; len]), []);
        let most = (1..=255).map(|byte| strings(&vec![byte; len]).len()).max().unwrap_or(0);
        assert!(most > 0 && most <= len.div_ceil(STRING_BYTES), "{most}");
    }
}
