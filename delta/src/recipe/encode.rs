use std::{io::Write, thread};

use super::{
    Base, DraftSource, FrameIndex, FrameRef, Part, PartSource, Patching, Record, Totals, VerifiedFrame, body,
    choose::{Source, Step, Steps},
    frame::{Streams, write_frame},
    literal, read_frame, references, xor,
};
use crate::{
    Extent, Hash, Image, Manifest, Result,
    error::{Error, Object},
    image::normalise,
    limits::{
        BASES_MAX, BLOCK_BYTES, FRAME_CONTENT_BYTES_TARGET, FRAMES_IN_FLIGHT_PER_THREAD, RECORDS_BYTES_TARGET,
        SMALL_DELTA_BYTES, THREADS_MAX, ZSTD_LEVEL, ZSTD_LEVEL_SMALL,
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
    let changed = if bases.is_empty() { new.data() } else { changed };
    // Parts are made of whole blocks, and an image may end within one.
    let block = |extent: &Extent| {
        let (start, end) = (extent.start / BLOCK_BYTES, extent.end.div_ceil(BLOCK_BYTES));
        Extent::new(start * BLOCK_BYTES, end * BLOCK_BYTES)
    };
    let changed = normalise(changed.iter().map(block).collect());
    let changed_bytes: u64 = changed.iter().map(Extent::len_bytes).sum();
    let level = if changed_bytes <= SMALL_DELTA_BYTES { ZSTD_LEVEL_SMALL } else { ZSTD_LEVEL };
    let coder = Coder { bases: bases.iter().map(|base| base.image).collect(), new, new_manifest, level };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);

    let mut steps = Steps::new(bases, new, new_manifest, &changed).peekable();
    let mut frames = Vec::new();
    let mut totals = Totals::default();
    while steps.peek().is_some() {
        let batch = (0..threads * FRAMES_IN_FLIGHT_PER_THREAD).map(|_| take_frame(&mut steps));
        let batch: Vec<Vec<Step>> = batch.take_while(|steps| !steps.is_empty()).collect();
        let end = batch.iter().flatten().last().map_or(0, |step| step.extent.end);
        let coded = parallel::map(batch.len(), || (), |(), number| coder.frame(frames.len() + number, &batch[number]))?;
        for coded in coded {
            out.write_all(&coded.bytes).map_err(Error::io("write frames to", Object::Spool))?;
            frames.push(coded.listed);
            totals += coded.totals;
        }
        // What was looked at need not stay in memory.
        for image in coder.bases.iter().chain([&new]) {
            image.release(Extent::new(0, image.len_bytes()));
        }
        progress(end, new.len_bytes());
    }
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

/// The steps of one frame: until it has enough new bytes, or records.
fn take_frame(steps: &mut impl Iterator<Item = Step>) -> Vec<Step> {
    let (mut content_bytes, mut records_bytes) = (0, 0);
    let mut taken = Vec::new();
    while content_bytes < FRAME_CONTENT_BYTES_TARGET && records_bytes < RECORDS_BYTES_TARGET {
        let Some(step) = steps.next() else { break };
        records_bytes += 20;
        if let Source::New { count, parts, .. } = &step.source {
            // A literal may become several parts, one for each block at worst.
            for part in parts {
                records_bytes += 14;
                if matches!(part.source, DraftSource::Literal { .. }) {
                    content_bytes += part.extent.len_bytes();
                    records_bytes += 14 * (part.extent.len_bytes() / 4096) as usize;
                }
            }
            records_bytes += 36 * count;
        }
        taken.push(step);
    }
    taken
}

struct Coder<'a> {
    bases: Vec<&'a Image>,
    new: &'a Image,
    new_manifest: &'a Manifest,
    level: i32,
}

struct Coded {
    bytes: Vec<u8>,
    listed: FrameRef,
    totals: Totals,
}

impl Coder<'_> {
    fn frame(&self, number: usize, steps: &[Step]) -> Result<Coded> {
        let position = steps.first().map_or(0, |step| step.extent.start);
        let mut records: Vec<Record> = steps.iter().map(|step| self.record(step)).collect();
        let (patching, coded) = self.coded(position, &mut records);
        // Afterwards: what does not shrink has joined it.
        let raw = self.content(position, &records, |source| source == PartSource::Raw);
        let bytes = write_frame(position, &records, &Streams { raw, coded, patching });
        let listed = FrameRef { hash: Hash::of(&bytes), len_bytes: bytes.len() as u32 };
        let frame = VerifiedFrame::check(number as u32, listed, bytes)?;
        let mut totals = Totals::default();
        totals.add(&read_frame(&frame)?);
        Ok(Coded { bytes: frame.into_bytes(), listed, totals })
    }

    fn record(&self, step: &Step) -> Record {
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
                        DraftSource::Literal { .. } => literal::classify(&self.bases, self.new, *draft, &mut parts),
                    }
                }
                Record::New { chunks, parts }
            }
        }
    }

    /// The coded stream, by whichever way is shorter: patched parts first, so that each is at the same distance from its old self, then plain ones. If it does
    /// not shrink, its parts become raw ones.
    fn coded(&self, position: u64, records: &mut [Record]) -> (Patching, Vec<u8>) {
        let patched = self.content(position, records, |source| matches!(source, PartSource::Patched(_)));
        let plain = self.content(position, records, |source| source == PartSource::Plain);
        let content = [&patched[..], &plain].concat();
        let old = references(&self.bases, records.iter());
        let by_prefix = body::zstd(&content, Some(&old).filter(|old| !old.is_empty()).map(Vec::as_slice), self.level);
        // Where most bytes differ, what is left of them has no pattern.
        let differ = patched.iter().zip(&old).filter(|(new, old)| new != old).count();
        let by_xor = match !patched.is_empty() && differ < patched.len() / 4 {
            true => {
                let mut content = content;
                xor(&mut content, &old);
                body::zstd(&content, None, self.level)
            }
            false => None,
        };
        match (by_prefix, by_xor) {
            (Some(prefix), Some(xor)) if xor.len() < prefix.len() => (Patching::Xor, xor),
            (Some(prefix), _) => (Patching::Prefix, prefix),
            (None, Some(xor)) => (Patching::Xor, xor),
            (None, None) => {
                make_raw(records);
                (Patching::Prefix, Vec::new())
            }
        }
    }

    /// The new bytes of all parts of a kind, one after the other.
    fn content(&self, position: u64, records: &[Record], wanted: fn(PartSource) -> bool) -> Vec<u8> {
        let mut content = Vec::new();
        let mut position = position;
        for record in records {
            let mut part_at = position;
            for part in record.parts() {
                let end = part_at + u64::from(part.len_bytes);
                if wanted(part.source) {
                    content.extend(self.new.get(Extent::new(part_at, end)).unwrap_or_default());
                }
                part_at = end;
            }
            position += record.len_bytes();
        }
        content
    }
}

fn make_raw(records: &mut [Record]) {
    for record in records {
        if let Record::New { parts, .. } = record {
            for part in parts {
                if matches!(part.source, PartSource::Plain | PartSource::Patched(_)) {
                    part.source = PartSource::Raw;
                }
            }
        }
    }
}
