use crate::{
    Base, Chunk, Extent, Hash, Image, Manifest, Moved, Result,
    hash::is_zero,
    image::{batches, normalise},
    limits::{CHUNK_BYTES_MAX, JOB_BYTES, PIECE_BYTES_MAX},
    parallel,
    scan::cutter,
};

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

/// The end of a chunk depends on its begin and on the bytes behind that, and on nothing before. So each CPU cuts and hashes a piece speculatively, from its first
/// byte. Then one thread walks through the image in order, takes the chunks that begin where it stands, and cuts the others itself.
///
/// A scan that begins at the wrong place falls into step with the right one after a few chunks: of real images, 2 to 4 % is cut twice. In long periodic data it may
/// never fall into step; all of that is cut and hashed again, on one CPU.
fn cut_and_hash(new: &Image, base: &[Chunk], changed: &[Extent], elsewhere: Option<Elsewhere<'_>>) -> Result<Manifest> {
    let cut = Cut { new, elsewhere };
    let jobs = batches(touched(base, changed, new.len_bytes()).into_iter().flat_map(pieces), JOB_BYTES);
    let ready = parallel::map(jobs.len(), Vec::new, |scratch, number| {
        let mut ready = Vec::new();
        for piece in &jobs[number] {
            let mut position = piece.start;
            while position < piece.end {
                let chunk = match cut.known(position) {
                    Some(chunk) => chunk,
                    None => {
                        let chunk = cut.hashed(position, scratch);
                        ready.push((position, chunk));
                        chunk
                    }
                };
                position += u64::from(chunk.len_bytes);
            }
        }
        if let (Some(first), Some(last)) = (jobs[number].first(), jobs[number].last()) {
            // The chunker looked at what is behind the last cut.
            new.release(Extent::new(first.start, last.end + u64::from(CHUNK_BYTES_MAX)));
        }
        Ok(ready)
    })?;

    let (mut base, mut base_position) = (base.iter().peekable(), 0);
    let mut changed = changed.iter().peekable();
    let mut ready = ready.into_iter().flatten().peekable();
    let (mut chunks, mut position, mut scratch) = (Vec::new(), 0, Vec::new());
    // From where on this thread has read the image itself, and not yet let go of it.
    let mut read = None;
    while position < new.len_bytes() {
        while base_position < position
            && let Some(chunk) = base.next()
        {
            base_position += u64::from(chunk.len_bytes);
        }
        while changed.next_if(|extent| extent.end <= position).is_some() {}
        let old = base.peek().filter(|_| base_position == position);
        let old = old.filter(|chunk| !reaches(changed.peek(), position + u64::from(chunk.len_bytes)));
        while ready.next_if(|(start, _)| *start < position).is_some() {}
        let found = old.map(|chunk| **chunk).or_else(|| Some(ready.next_if(|(start, _)| *start == position)?.1));
        let chunk = found.unwrap_or_else(|| {
            let chunk = cut.known(position).unwrap_or_else(|| cut.hashed(position, &mut scratch));
            let from = *read.get_or_insert(position);
            if position - from >= PIECE_BYTES_MAX {
                new.release(Extent::new(from, position + 2 * u64::from(CHUNK_BYTES_MAX)));
                read = None;
            }
            chunk
        });
        chunks.push(chunk);
        position += u64::from(chunk.len_bytes);
    }
    Manifest::new(chunks)
}

/// Whether what changed next begins before a chunk's end, or with the first byte of the next one.
fn reaches(changed: Option<&&Extent>, end: u64) -> bool {
    changed.is_some_and(|extent| extent.start <= end)
}

/// Where the base's chunks are not the new image's, or may not be: those that a change reaches, and everything behind the base's end.
fn touched(base: &[Chunk], changed: &[Extent], len_bytes: u64) -> Vec<Extent> {
    let mut changed = changed.iter().peekable();
    let (mut touched, mut position): (Vec<Extent>, u64) = (Vec::new(), 0);
    for chunk in base {
        let end = position + u64::from(chunk.len_bytes);
        while changed.next_if(|extent| extent.end <= position).is_some() {}
        if reaches(changed.peek(), end) {
            match touched.last_mut() {
                Some(last) if last.end == position => last.end = end.min(len_bytes),
                _ => touched.push(Extent::new(position, end.min(len_bytes))),
            }
        }
        position = end;
    }
    touched.push(Extent::new(position, len_bytes));
    normalise(touched)
}

/// Cuts an extent into pieces of about one length, at most `PIECE_BYTES_MAX`.
fn pieces(extent: Extent) -> impl Iterator<Item = Extent> {
    let count = extent.len_bytes().div_ceil(PIECE_BYTES_MAX);
    let at = move |number: u64| extent.start + extent.len_bytes() * number / count;
    (0..count).map(move |number| Extent::new(at(number), at(number + 1)))
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
            return (position + u64::from(CHUNK_BYTES_MAX) <= run.extent.end).then(largest_of_zeros);
        };
        let from = from.forward(position - run.extent.start);
        let (manifest, offsets) = self.bases.get(usize::from(from.base))?;
        let chunk = *manifest.chunks().get(offsets.binary_search(&from.start).ok()?)?;
        // The next chunk's first byte has to be the same too, and not to be the last of either image (see `rechunk`).
        (position + u64::from(chunk.len_bytes) + 1 < run.extent.end).then_some(chunk)
    }
}

/// Finds chunks by where they begin.
struct Cut<'a> {
    new: &'a Image,
    elsewhere: Option<Elsewhere<'a>>,
}

impl Cut<'_> {
    /// The chunk at `position`, where it can be told without reading.
    fn known(&self, position: u64) -> Option<Chunk> {
        let elsewhere = self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.chunk(position));
        let window = self.window(position);
        elsewhere.or_else(|| (is_largest(window) && self.new.is_hole(window)).then(largest_of_zeros))
    }

    /// The chunk at `position`, in any case.
    fn hashed(&self, position: u64, scratch: &mut Vec<u8>) -> Chunk {
        let window = self.window(position);
        let bytes = self.new.read(window, scratch).unwrap_or_default();
        if is_largest(window) && is_zero(bytes) {
            return largest_of_zeros();
        }
        let (_, end) = cutter(bytes).cut(0, bytes.len());
        Chunk { hash: Hash::of(bytes.get(..end).unwrap_or_default()), len_bytes: end as u32 }
    }

    /// A cut depends on nothing behind the largest chunk.
    fn window(&self, position: u64) -> Extent {
        Extent::new(position, self.new.len_bytes().min(position + u64::from(CHUNK_BYTES_MAX)))
    }
}

fn is_largest(window: Extent) -> bool {
    window.len_bytes() == u64::from(CHUNK_BYTES_MAX)
}

/// Zeros have no cut points: the chunker gives the largest chunk.
fn largest_of_zeros() -> Chunk {
    Chunk { hash: Hash::of_zeros(CHUNK_BYTES_MAX), len_bytes: CHUNK_BYTES_MAX }
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
