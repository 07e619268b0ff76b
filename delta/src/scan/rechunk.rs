use std::{iter::Peekable, slice};

use crate::{
    Base, Chunk, Extent, Hash, Image, Manifest, Moved, Result,
    image::normalise,
    limits::{CHUNK_BYTES_MAX, THREADS_MAX},
    parallel,
    scan::cutter,
};

/// Chunks that a thread hashes at a time.
const HASH_BATCH: usize = 32;
/// Chunks that it passes on at a time, most of them known.
const CHUNK_BATCH: usize = 4096;

/// The manifest of `new`, given the manifest of a base and all extents where the two differ (more is allowed, and costs time). Equal to a full scan, byte
/// for byte.
///
/// Why it is equal: a FastCDC v2020 cut is a function of the bytes from the chunk's begin up to *and including* the first byte of the next chunk. So a chunk of
/// the base that begins where a chunk of `new` begins is also the next chunk of `new` if none of those bytes changed; in every other case the chunker is asked.
///
/// A base's manifest is one that this chunker cut; a delta with other chunks is applied all the same (FORMAT.md), and what is made from it next is another manifest
/// than a full scan's until then.
///
/// The end of an image adds one thing. The chunker tests bytes in pairs, and where an odd number of bytes remains it does not test the last one. So when the
/// lengths differ, even a cut just before the shorter image's last byte may depend on that length: the tail begins one byte early.
pub fn rechunk(new: &Image, base_manifest: &Manifest, changed: Vec<Extent>) -> Result<Manifest> {
    cut_and_hash(new, base_manifest.chunks(), &with_tail(new, base_manifest, changed), None)
}

/// As [`rechunk`], when it is known what of the changed blocks stands elsewhere in the bases, the first of which is the one that `new` was compared with.
///
/// What holds for a chunk in its place holds for one that moved: it is cut as it was where the bytes from its begin to the next one's are the same.
pub fn rechunk_moved(new: &Image, bases: &[Base<'_>], changed: Vec<Extent>, moved: &Moved) -> Result<Manifest> {
    let Some(first) = bases.first() else { return scan(new) };
    let elsewhere =
        Elsewhere { moved, bases: bases.iter().map(|base| (base.manifest, base.manifest.offsets())).collect() };
    cut_and_hash(new, first.manifest.chunks(), &with_tail(new, first.manifest, changed), Some(elsewhere))
}

fn with_tail(new: &Image, base_manifest: &Manifest, changed: Vec<Extent>) -> Vec<Extent> {
    let mut changed = changed;
    if base_manifest.image_len_bytes() != new.len_bytes() {
        let shorter = base_manifest.image_len_bytes().min(new.len_bytes());
        changed.push(Extent::new(shorter.saturating_sub(1), u64::MAX));
    }
    normalise(changed)
}

/// A full scan: without a base, every chunk is new.
pub(super) fn scan(image: &Image) -> Result<Manifest> {
    cut_and_hash(image, &[], &[], None)
}

/// One thread at a time cuts, and hashes what it has cut while it is at hand; meanwhile the next one cuts.
fn cut_and_hash(new: &Image, base: &[Chunk], changed: &[Extent], elsewhere: Option<Elsewhere<'_>>) -> Result<Manifest> {
    let cuts = Cuts {
        new,
        base: base.iter().peekable(),
        base_position: 0,
        changed: changed.iter().peekable(),
        elsewhere,
        position: 0,
        scratch: Vec::new(),
    };
    let batches = parallel::each(THREADS_MAX, cuts, Vec::new, |scratch, mut batch| {
        for (index, extent) in &batch.to_hash {
            batch.chunks[*index].hash = Hash::of(new.read(*extent, scratch).unwrap_or_default());
        }
        if let (Some((_, first)), Some((_, last))) = (batch.to_hash.first(), batch.to_hash.last()) {
            // The chunker looked at what is behind the last cut.
            new.release(Extent::new(first.start, last.end + u64::from(CHUNK_BYTES_MAX)));
        }
        Ok(batch.chunks)
    })?;
    Manifest::new(batches.concat())
}

/// The chunks of zeros, and of bases, that stand somewhere else in the new image.
struct Elsewhere<'a> {
    moved: &'a Moved,
    /// The manifest of each, and where its chunks begin.
    bases: Vec<(&'a Manifest, Vec<u64>)>,
}

impl Elsewhere<'_> {
    /// The new image's chunk at `position`, if it is one of a base.
    fn chunk(&self, position: u64) -> Option<Chunk> {
        let run = self.moved.run_with(Extent::new(position, position + 1))?;
        let Some(from) = run.from else {
            let is_largest = position + u64::from(CHUNK_BYTES_MAX) <= run.extent.end;
            return is_largest.then(|| Chunk { hash: Hash::of_zeros(CHUNK_BYTES_MAX), len_bytes: CHUNK_BYTES_MAX });
        };
        let from = from.forward(position - run.extent.start);
        let (manifest, offsets) = self.bases.get(usize::from(from.base))?;
        let chunk = *manifest.chunks().get(offsets.binary_search(&from.start).ok()?)?;
        // The next chunk's first byte has to be the same too, and not to be the last of either image (see `rechunk`).
        (position + u64::from(chunk.len_bytes) + 1 < run.extent.end).then_some(chunk)
    }
}

/// Neighbouring chunks of the new image, some of them not hashed yet.
struct Batch {
    chunks: Vec<Chunk>,
    to_hash: Vec<(usize, Extent)>,
}

/// Cuts the new image, from its begin to its end.
struct Cuts<'a> {
    new: &'a Image,
    base: Peekable<slice::Iter<'a, Chunk>>,
    base_position: u64,
    changed: Peekable<slice::Iter<'a, Extent>>,
    elsewhere: Option<Elsewhere<'a>>,
    position: u64,
    scratch: Vec<u8>,
}

impl Iterator for Cuts<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch { chunks: Vec::new(), to_hash: Vec::new() };
        while self.position < self.new.len_bytes()
            && batch.to_hash.len() < HASH_BATCH
            && batch.chunks.len() < CHUNK_BATCH
        {
            let (chunk, is_known) = self.cut();
            let end = self.position + u64::from(chunk.len_bytes);
            if !is_known {
                batch.to_hash.push((batch.chunks.len(), Extent::new(self.position, end)));
            }
            batch.chunks.push(chunk);
            self.position = end;
        }
        (!batch.chunks.is_empty()).then_some(batch)
    }
}

impl Cuts<'_> {
    /// The chunk at `position`, and whether its hash is known.
    fn cut(&mut self) -> (Chunk, bool) {
        let position = self.position;
        while self.base_position < position
            && let Some(chunk) = self.base.next()
        {
            self.base_position += u64::from(chunk.len_bytes);
        }
        while self.changed.next_if(|extent| extent.end <= position).is_some() {}
        let unchanged_before = self.changed.peek().map_or(u64::MAX, |extent| extent.start);

        if self.base_position == position
            && let Some(chunk) = self.base.peek()
            && position + u64::from(chunk.len_bytes) < unchanged_before
        {
            return (**chunk, true);
        }

        if let Some(chunk) = self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.chunk(position)) {
            return (chunk, true);
        }

        // A cut depends on nothing behind the largest chunk.
        let window = Extent::new(position, self.new.len_bytes().min(position + u64::from(CHUNK_BYTES_MAX)));
        if window.len_bytes() == u64::from(CHUNK_BYTES_MAX) && self.new.is_hole(window) {
            // Zeros have no cut points: the chunker would give the largest chunk.
            return (Chunk { hash: Hash::of_zeros(CHUNK_BYTES_MAX), len_bytes: CHUNK_BYTES_MAX }, true);
        }
        let bytes = self.new.read(window, &mut self.scratch).unwrap_or_default();
        let (_, len_bytes) = cutter(bytes).cut(0, bytes.len());
        (Chunk { hash: Hash::from_bytes([0; 32]), len_bytes: len_bytes as u32 }, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ZEROS;

    #[test]
    fn zeros_have_no_cut_points() {
        let (_, end) = cutter(&ZEROS).cut(0, ZEROS.len());
        assert_eq!(end, ZEROS.len());
    }
}
