use std::io::Write;

use super::{
    DraftSource, FrameIndex, Part, PartSource, Record, Totals, VerifiedFrame,
    body::Compressor,
    choose::{Source, Step, Steps},
    edited,
    edits::{self, Edited},
    frame::{Streams, write_frame},
    literal, patched, read_frame, references,
    repeats::{Repeat, Repeats, excerpts},
};
use crate::{
    Base, Extent, Image, Manifest, Moved, Result,
    error::{Error, Object},
    image::{intersects, normalise, whole_blocks},
    limits::{
        BASES_MAX, BLOCK_BYTES, EDITS_SAMPLE_BYTES, ENCODE_THREADS_MAX, FRAME_CONTENT_BYTES_FIRST,
        FRAME_CONTENT_BYTES_TARGET, FRAMES_BEFORE_DOUBLE, FRAMES_IN_FLIGHT_PER_THREAD, RECORDS_BYTES_TARGET,
        REDUNDANT_RATIO, REDUNDANT_SAMPLE_BYTES, SMALL_DELTA_BYTES, ZSTD_LEVEL, ZSTD_LEVEL_REDUNDANT, ZSTD_LEVEL_SMALL,
    },
    parallel,
};

/// What [`encode`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The frames, for the commit and for those who fetch them.
    pub index: FrameIndex,
    /// What the new image is made of.
    pub totals: Totals,
}

/// Encodes `new` against the bases, or in full without any, into frames that are appended to `out` back to back. The manifests must be those of the images.
///
/// `changed` lists where `new` differs from the first base, in blocks of 4 KiB (see [`Diff`](crate::Diff)); more is allowed and costs time. It is empty without
/// a base. `progress(done_bytes, total_bytes)` counts bytes of the new image. Memory is bounded by some frames for each thread.
pub fn encode(
    bases: &[Base<'_>],
    new: &Image,
    new_manifest: &Manifest,
    changed: &[Extent],
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Encoded> {
    let changed = if bases.is_empty() { new.data() } else { changed };
    let moved = Moved::find(bases, new, changed)?;
    encode_moved(bases, new, new_manifest, (changed, &moved), out, progress)
}

/// As [`encode`], when it is known already what of the changed blocks has moved. Without a base, `changed` is where the image has data.
pub fn encode_moved(
    bases: &[Base<'_>],
    new: &Image,
    new_manifest: &Manifest,
    (changed, moved): (&[Extent], &Moved),
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Encoded> {
    new_manifest.fits(Object::Image, new)?;
    for base in bases {
        base.manifest.fits(Object::Base, base.image)?;
    }
    if bases.len() > BASES_MAX {
        return Err(Error::Limit {
            object: Object::Base,
            what: "number",
            value: bases.len() as u64,
            limit: BASES_MAX as u64,
        });
    }
    // Parts are made of whole blocks, and an image may end within one.
    let changed = whole_blocks(changed);
    let changed_bytes: u64 = changed.iter().map(Extent::len_bytes).sum();
    let level = if changed_bytes <= SMALL_DELTA_BYTES { ZSTD_LEVEL_SMALL } else { ZSTD_LEVEL };
    let coder = Coder { bases: bases.iter().map(|base| base.image).collect(), new, new_manifest, level };
    let mut steps = Steps::new(bases, new, new_manifest, &changed, moved);
    let mut repeats = Repeats::new(changed_bytes);
    let batches = frame_contents().map(|content_bytes| take_frame(&mut steps, content_bytes));
    let batches = batches.take_while(|steps| !steps.is_empty()).map(|steps| {
        let repeated = repeats.next(new, content(&steps));
        (steps, repeated)
    });
    let mut frames = Vec::new();
    let mut totals = Totals::default();
    let take = |coded: Coded| {
        out.write_all(coded.frame.bytes()).map_err(Error::io("write frames to", Object::Spool))?;
        frames.push(coded.frame.listed());
        totals += coded.totals;
        progress(coded.end, new.len_bytes());
        Ok(())
    };
    let job = |compressor: &mut Compressor, (steps, repeated): (Vec<Step>, Vec<Repeat>)| {
        coder.frame(&steps, &repeated, compressor)
    };
    parallel::in_order(ENCODE_THREADS_MAX, FRAMES_IN_FLIGHT_PER_THREAD, batches, Compressor::new, job, take)?;
    out.flush().map_err(Error::io("write frames to", Object::Spool))?;
    Ok(Encoded {
        index: FrameIndex {
            base_roots: bases.iter().map(|base| base.manifest.root()).collect(),
            new_root: new_manifest.root(),
            image_len_bytes: new.len_bytes(),
            frames,
        },
        totals,
    })
}

/// Longest step, part and chunk in the records, see FORMAT.md: a new run has 5 bytes, a copy 18; a part 3 and a place of 9; a chunk its length.
const STEP_BYTES: usize = 18;
const PART_BYTES: usize = 12;
const CHUNK_BYTES: usize = 4;

/// How many new bytes each frame is to carry: the first ones few, so that all CPUs have a part in a small delta, and soon more, which compress better together.
fn frame_contents() -> impl Iterator<Item = u64> {
    let doubled = std::iter::successors(Some(FRAME_CONTENT_BYTES_FIRST), |bytes| Some(bytes.saturating_mul(2)));
    doubled.flat_map(|bytes| [bytes.min(FRAME_CONTENT_BYTES_TARGET); FRAMES_BEFORE_DOUBLE])
}

/// The steps of one frame: until it has that many new bytes, or enough records.
fn take_frame(steps: &mut impl Iterator<Item = Step>, frame_bytes: u64) -> Vec<Step> {
    let (mut content_bytes, mut records_bytes) = (0, 0);
    let mut taken = Vec::new();
    while content_bytes < frame_bytes && records_bytes < RECORDS_BYTES_TARGET {
        let Some(step) = steps.next() else { break };
        records_bytes += STEP_BYTES;
        if let Source::New { count, parts, .. } = &step.source {
            // A literal may become several parts, one for each block at worst.
            for part in parts {
                records_bytes += PART_BYTES;
                if matches!(part.source, DraftSource::Literal { .. }) {
                    content_bytes += part.extent.len_bytes();
                    records_bytes += PART_BYTES * (part.extent.len_bytes() / BLOCK_BYTES) as usize;
                }
            }
            records_bytes += CHUNK_BYTES * count;
        }
        taken.push(step);
    }
    taken
}

/// What of some steps is new, in order.
fn content(steps: &[Step]) -> impl Iterator<Item = Extent> {
    let drafts = steps.iter().flat_map(|step| match &step.source {
        Source::New { parts, .. } => parts.as_slice(),
        Source::Copy(_) | Source::Zero { .. } => &[],
    });
    drafts.filter(|draft| matches!(draft.source, DraftSource::Literal { .. })).map(|draft| draft.extent)
}

/// A coded stream that is shorter than this part of the edited ones is compressed without them.
const EDITED_BEFORE_DIVISOR: usize = 16;

struct Coder<'a> {
    bases: Vec<&'a Image>,
    new: &'a Image,
    new_manifest: &'a Manifest,
    level: i32,
}

struct Coded {
    frame: VerifiedFrame,
    /// Where the next frame begins in the new image.
    end: u64,
    totals: Totals,
}

impl Coder<'_> {
    fn frame(&self, steps: &[Step], repeats: &[Repeat], compressor: &mut Compressor) -> Result<Coded> {
        let position = steps.first().map_or(0, |step| step.extent.start);
        let end = steps.last().map_or(0, |step| step.extent.end);
        let repeated: Vec<Extent> = repeats.iter().map(|repeat| repeat.here).collect();
        let mut records: Vec<Record> = steps.iter().map(|step| self.record(step, &repeated)).collect();
        if !self.edits_are_shorter(position, &records, compressor) {
            replace_sources(&mut records, |source| match source {
                PartSource::Edited(place) => PartSource::Patched(place),
                other => other,
            });
        }
        let streams = self.streams(position, &mut records, repeats, compressor);
        let frame = VerifiedFrame::made(write_frame(position, &records, streams, compressor));
        let mut totals = Totals::default();
        totals.add(&read_frame(&frame)?);
        // What was looked at need not stay in memory.
        for image in self.bases.iter().take(1).chain([&self.new]) {
            image.release(Extent::new(position, end));
        }
        Ok(Coded { frame, end, totals })
    }

    fn record(&self, step: &Step, repeated: &[Extent]) -> Record {
        match &step.source {
            Source::Copy(from) => Record::Copy { from: *from, len_bytes: step.extent.len_bytes() },
            Source::Zero { chunk_bytes, count } => Record::Zero { chunk_bytes: *chunk_bytes, count: *count },
            Source::New { first, count, parts: drafts } => {
                let chunks = self.new_manifest.chunks().iter().skip(*first).take(*count).copied().collect();
                let mut parts = Vec::with_capacity(drafts.len());
                for draft in drafts {
                    let len_bytes = draft.extent.len_bytes() as u32;
                    match draft.source {
                        DraftSource::Zero => parts.push(Part { len_bytes, source: PartSource::Zero }),
                        DraftSource::Copy(place) => parts.push(Part { len_bytes, source: PartSource::Copy(place) }),
                        DraftSource::Literal { .. } => {
                            literal::classify(&self.bases, self.new, *draft, repeated, &mut parts)
                        }
                    }
                }
                Record::New { chunks, parts }
            }
        }
    }

    /// Whether the edited parts of a frame are better listed as edits than compressed with their old selves before them, by a sample of them: edits
    /// are short where new bytes have nothing to do with each other, and lose against a compressor that knows what is around them where they have.
    fn edits_are_shorter(&self, position: u64, records: &[Record], compressor: &mut Compressor) -> bool {
        let new = self.content(position, records, |source| matches!(source, PartSource::Edited(_)));
        let old = references(&self.bases, records.iter(), edited);
        let step = new.len().div_ceil(EDITS_SAMPLE_BYTES).max(1);
        let sampled = |bytes: &[u8]| bytes.chunks(EDITS_SAMPLE_BYTES / 4).step_by(step).flatten().copied().collect();
        let (new, old): (Vec<u8>, Vec<u8>) = (sampled(&new), sampled(&old));
        let edited = Edited::of(&old, &new);
        let mut coded_bytes = |bytes: &[u8], prefix_bytes: usize| {
            let coded = compressor.zstd(bytes, prefix_bytes, self.level);
            coded.map_or(bytes.len() - prefix_bytes, |coded| coded.len())
        };
        let edits = coded_bytes(&edits::write(&edited.edits), 0) + coded_bytes(&edited.text, 0) + edited.noise.len();
        edits <= coded_bytes(&[&old[..], &new].concat(), old.len())
    }

    /// The new bytes as they are sent. Before the coded stream stands what the other side has by then: what it repeats of earlier frames, the edited parts,
    /// and what the patched ones were. If it does not shrink, there is none, and its parts become raw ones.
    fn streams(
        &self,
        position: u64,
        records: &mut [Record],
        repeats: &[Repeat],
        compressor: &mut Compressor,
    ) -> Streams {
        let new = self.content(position, records, |source| matches!(source, PartSource::Edited(_)));
        let Edited { edits, noise, text } = Edited::of(&references(&self.bases, records.iter(), edited), &new);
        let mut coded = places(position, records, |source| matches!(source, PartSource::Patched(_)));
        coded.extend(places(position, records, |source| source == PartSource::Plain));
        let coded_bytes = len_bytes(&coded);
        let edited_before = !new.is_empty() && coded_bytes >= new.len() / EDITED_BEFORE_DIVISOR;
        let is_coded = normalise(coded.clone());
        let (excerpts, earlier) = excerpts(repeats.iter().filter(|repeat| intersects(&is_coded, repeat.here)));
        let old = references(&self.bases, records.iter(), patched);
        let mut bytes = Vec::with_capacity(len_bytes(&earlier) + new.len() + old.len() + coded_bytes);
        self.bytes(&earlier).for_each(|excerpt| bytes.extend(excerpt));
        if edited_before {
            bytes.extend(new);
        }
        bytes.extend(old);
        let prefix_bytes = bytes.len();
        self.bytes(&coded).for_each(|part| bytes.extend(part));
        let level = self.level_of(bytes.get(prefix_bytes..).unwrap_or_default(), compressor);
        let coded = compressor.zstd(&bytes, prefix_bytes, level);
        drop(bytes);
        if coded.is_none() {
            replace_sources(records, |source| match source {
                PartSource::Plain | PartSource::Patched(_) => PartSource::Raw,
                other => other,
            });
        }
        let edited_before = edited_before && coded.is_some();
        let mut raw = self.content(position, records, |source| source == PartSource::Raw);
        raw.extend(noise);
        let excerpts = if coded.is_some() { excerpts } else { Vec::new() };
        Streams { edits, text, raw, coded: coded.unwrap_or_default(), excerpts, edited_before }
    }

    /// How closely to look at a coded stream, by what a piece from its middle shrinks to.
    fn level_of(&self, content: &[u8], compressor: &mut Compressor) -> i32 {
        let start = content.len().saturating_sub(REDUNDANT_SAMPLE_BYTES) / 2;
        match content.get(start..start + REDUNDANT_SAMPLE_BYTES) {
            Some(sample) if self.level == ZSTD_LEVEL => match compressor.zstd(sample, 0, ZSTD_LEVEL) {
                Some(coded) if coded.len() * REDUNDANT_RATIO < sample.len() => ZSTD_LEVEL_REDUNDANT,
                _ => ZSTD_LEVEL,
            },
            _ => self.level,
        }
    }

    /// The new bytes of all parts of a kind, one after the other.
    fn content(&self, position: u64, records: &[Record], wanted: fn(PartSource) -> bool) -> Vec<u8> {
        self.bytes(&places(position, records, wanted)).collect::<Vec<_>>().concat()
    }

    fn bytes<'s>(&'s self, places: &'s [Extent]) -> impl Iterator<Item = &'s [u8]> {
        places.iter().filter_map(|place| self.new.get(*place))
    }
}

/// Where all parts of a kind are in the new image.
fn places(position: u64, records: &[Record], wanted: fn(PartSource) -> bool) -> Vec<Extent> {
    let mut places = Vec::new();
    let mut position = position;
    for record in records {
        let mut part_at = position;
        for part in record.parts() {
            let end = part_at + u64::from(part.len_bytes);
            if wanted(part.source) {
                places.push(Extent::new(part_at, end));
            }
            part_at = end;
        }
        position += record.len_bytes();
    }
    places
}

fn len_bytes(places: &[Extent]) -> usize {
    places.iter().map(|place| place.len_bytes() as usize).sum()
}

fn replace_sources(records: &mut [Record], replace: impl Fn(PartSource) -> PartSource) {
    for record in records {
        if let Record::New { parts, .. } = record {
            parts.iter_mut().for_each(|part| part.source = replace(part.source));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frames_are_small() {
        let mib: Vec<u64> = frame_contents().take(7).map(|bytes| bytes >> 20).collect();
        assert_eq!(mib, [1, 1, 2, 2, 4, 4, 4]);
        assert_eq!(frame_contents().nth(1000), Some(FRAME_CONTENT_BYTES_TARGET));
    }
}
