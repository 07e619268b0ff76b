use crate::{
    Chunk, Extent, Hash, Image, Manifest, Result, image::normalise, limits::CHUNK_BYTES_MAX, parallel, scan::cutter,
};

/// Chunks that a thread hashes at a time.
const HASH_BATCH: usize = 32;

/// The manifest of `new`, given the manifest of a base and all extents where the two differ (more is allowed, and costs time). Equal to a full scan, byte
/// for byte.
///
/// Why it is equal: a FastCDC v2020 cut is a function of the bytes from the chunk's begin up to *and including* the first byte of the next chunk. So a chunk of
/// the base that begins where a chunk of `new` begins is also the next chunk of `new` if none of those bytes changed; in every other case the chunker is asked.
///
/// The end of an image adds one thing. The chunker tests bytes in pairs, and where an odd number of bytes remains it does not test the last one. So when the
/// lengths differ, even a cut just before the shorter image's last byte may depend on that length: the tail begins one byte early.
pub fn rechunk(new: &Image, base_manifest: &Manifest, changed: Vec<Extent>) -> Result<Manifest> {
    let mut changed = changed;
    if base_manifest.image_len_bytes() != new.len_bytes() {
        let shorter = base_manifest.image_len_bytes().min(new.len_bytes());
        changed.push(Extent::new(shorter.saturating_sub(1), u64::MAX));
    }
    cut_and_hash(new, base_manifest.chunks(), &normalise(changed))
}

/// A full scan: without a base, every chunk is new.
pub(super) fn scan(image: &Image) -> Result<Manifest> {
    cut_and_hash(image, &[], &[])
}

fn cut_and_hash(new: &Image, base: &[Chunk], changed: &[Extent]) -> Result<Manifest> {
    let mut scratch = Vec::new();
    let len = new.len_bytes();
    let mut chunks = Vec::new();
    let mut to_hash = Vec::new();
    let mut position = 0;
    let mut base = base.iter().peekable();
    let mut base_position = 0;
    let mut changed = changed.iter().peekable();

    while position < len {
        while base_position < position
            && let Some(chunk) = base.next()
        {
            base_position += u64::from(chunk.len_bytes);
        }
        while changed.next_if(|extent| extent.end <= position).is_some() {}
        let unchanged_before = changed.peek().map_or(u64::MAX, |extent| extent.start);

        if base_position == position
            && let Some(chunk) = base.peek()
            && position + u64::from(chunk.len_bytes) < unchanged_before
        {
            chunks.push(**chunk);
            position += u64::from(chunk.len_bytes);
            continue;
        }

        // A cut depends on nothing behind the largest chunk.
        let window = Extent::new(position, len.min(position + u64::from(CHUNK_BYTES_MAX)));
        let (len_bytes, hash) = if window.len_bytes() == u64::from(CHUNK_BYTES_MAX) && new.is_hole(window) {
            // Zeros have no cut points: the chunker would give the largest chunk.
            (CHUNK_BYTES_MAX, Hash::of_zeros(CHUNK_BYTES_MAX))
        } else {
            let bytes = new.read(window, &mut scratch).unwrap_or_default();
            let (_, len_bytes) = cutter(bytes).cut(0, bytes.len());
            to_hash.push((chunks.len(), Extent::new(position, position + len_bytes as u64)));
            (len_bytes as u32, Hash::from_bytes([0; 32]))
        };
        chunks.push(Chunk { hash, len_bytes });
        position += u64::from(len_bytes);
    }

    let hashes = parallel::map(to_hash.len().div_ceil(HASH_BATCH), Vec::new, |scratch, number| {
        let first = number * HASH_BATCH;
        let batch = to_hash.iter().skip(first).take(HASH_BATCH);
        Ok(batch
            .map(|(index, extent)| (*index, Hash::of(new.read(*extent, scratch).unwrap_or_default())))
            .collect::<Vec<_>>())
    })?;
    for (index, hash) in hashes.into_iter().flatten() {
        chunks[index].hash = hash;
    }
    Manifest::new(chunks)
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
