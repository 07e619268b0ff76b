mod compare;
mod moved;
mod rechunk;

use fastcdc::v2020::FastCDC;

pub(crate) use moved::Found;
pub use moved::Moved;
pub use rechunk::{rechunk, rechunk_moved};

use crate::{
    Chunk, Extent, Hash, Image, Manifest, Result,
    error::Object,
    image::normalise,
    limits::{CHUNK_BYTES_AVG, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN},
};

/// What became of an image.
#[derive(Debug, Clone)]
pub struct Diff {
    /// Manifest of the new image: exactly that of a full scan.
    pub manifest: Manifest,
    /// Where the new image differs from the base, in whole blocks of 4 KiB except at the image's end.
    pub changed: Vec<Extent>,
}

/// The chunks of an image. Reads data only, on all CPUs; a hole costs a table entry for each 256 KiB.
pub fn scan(image: &Image) -> Manifest {
    rechunk::scan(image).expect("the chunker keeps to its own bounds")
}

/// The chunks of an image, in the plainest way: cut, hash, next. This defines what a manifest is; everything faster is held against it.
pub fn scan_reference(image: &Image) -> Manifest {
    let chunks = cutter(image.as_slice())
        .map(|cut| {
            let bytes = &image.as_slice()[cut.offset..cut.offset + cut.length];
            Chunk { hash: Hash::of(bytes), len_bytes: bytes.len() as u32 }
        })
        .collect();
    Manifest::new(chunks).expect("the chunker keeps to its own bounds")
}

/// Finds what changed between a base and a new image, and the new manifest. Reads both images where at least one has data, at the speed of memory, and
/// chunks and hashes only around changes. `base_manifest` must be that of `base`.
pub fn diff(base: &Image, base_manifest: &Manifest, new: &Image) -> Result<Diff> {
    base_manifest.fits(Object::Base, base)?;
    let changed = compare(base, new)?;
    Ok(Diff { manifest: rechunk(new, base_manifest, changed.clone())?, changed })
}

/// The first half of [`diff`]: where `new` differs from `base`. The second is [`rechunk`].
pub fn compare(base: &Image, new: &Image) -> Result<Vec<Extent>> {
    compare::changed_extents(base, new)
}

/// Where chunks of `new` are that are not the base's at the same place: around what changed, their bytes have been taken over from the base.
pub fn cut_anew(base: &Manifest, new: &Manifest) -> Vec<Extent> {
    let offsets = base.offsets();
    let is_old = |chunk: &Chunk, start: u64| {
        offsets.binary_search(&start).ok().and_then(|number| base.chunks().get(number)) == Some(chunk)
    };
    let placed = new.chunks().iter().zip(new.offsets());
    let anew = placed.filter(|(chunk, start)| !is_old(chunk, *start));
    normalise(anew.map(|(chunk, start)| Extent::new(start, start + u64::from(chunk.len_bytes))).collect())
}

fn cutter(bytes: &[u8]) -> FastCDC<'_> {
    FastCDC::new(bytes, CHUNK_BYTES_MIN as usize, CHUNK_BYTES_AVG as usize, CHUNK_BYTES_MAX as usize)
}
