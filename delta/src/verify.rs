use std::{fs::File, os::unix::fs::FileExt};

use crate::{
    Extent, Hash, Manifest, Result,
    error::{Error, Object},
    image::{clip, data_within, intersects, normalise},
    limits::CHUNK_BYTES_MAX,
    parallel,
};

/// Chunks that a thread verifies at a time.
const BATCH: usize = 8;

/// Reads every byte of `file` and compares it, chunk by chunk, with the manifest. Holes are known to be zeros and are not read.
///
/// This goes through `read`, not through a mapping, so that a device error is an error and not a signal.
pub fn verify_image(file: &File, manifest: &Manifest) -> Result<()> {
    verify(file, manifest, None, &|| true).map(drop)
}

/// As [`verify_image`], of those chunks only that `extents` touch: where new bytes were written into a file whose other bytes are verified already. Returns how
/// many bytes that were.
pub fn verify_chunks(file: &File, manifest: &Manifest, extents: &[Extent]) -> Result<u64> {
    verify(file, manifest, Some(normalise(extents.to_vec())), &|| true)
}

/// The chunks that a normalised list touches, or all. `go_on` is asked now and then.
pub(crate) fn verify(
    file: &File,
    manifest: &Manifest,
    within: Option<Vec<Extent>>,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<u64> {
    let len_bytes = file.metadata().map_err(Error::io("stat", Object::Image))?.len();
    if len_bytes != manifest.image_len_bytes() {
        return Err(Error::Mismatch {
            object: Object::Image,
            reason: format!("it has {len_bytes} bytes, its manifest says {}", manifest.image_len_bytes()),
        });
    }
    let offsets = manifest.offsets();
    let all = manifest.chunks().iter().zip(&offsets);
    let chunks: Vec<_> = all
        .map(|(chunk, &start)| (chunk, Extent::new(start, start + u64::from(chunk.len_bytes))))
        .filter(|(_, extent)| within.as_ref().is_none_or(|within| intersects(within, *extent)))
        .collect();
    let data = data_within(file, &normalise(chunks.iter().map(|(_, extent)| *extent).collect()), Object::Image)?;
    let read_bytes = parallel::map(
        chunks.len().div_ceil(BATCH),
        || vec![0; CHUNK_BYTES_MAX as usize],
        |buffer, number| {
            if !go_on() {
                return Err(Error::Cancelled);
            }
            let mut read_bytes = 0;
            for &(chunk, extent) in chunks.iter().skip(number * BATCH).take(BATCH) {
                let found = if intersects(&data, extent) {
                    let bytes = &mut buffer[..chunk.len_bytes as usize];
                    read(file, &data, extent, bytes)?;
                    Hash::of(bytes)
                } else {
                    Hash::of_zeros(chunk.len_bytes)
                };
                if found != chunk.hash {
                    let (object, offset_bytes) = (Object::Image, extent.start);
                    return Err(Error::WrongHash { object, offset_bytes, expected: chunk.hash, found });
                }
                read_bytes += extent.len_bytes();
            }
            Ok(read_bytes)
        },
    )?;
    Ok(read_bytes.iter().sum())
}

/// Reads the data in `extent`; what is a hole is zeros.
fn read(file: &File, data: &[Extent], extent: Extent, bytes: &mut [u8]) -> Result<()> {
    if clip(data, extent).next() != Some(extent) {
        bytes.fill(0);
    }
    for data in clip(data, extent) {
        let inside = (data.start - extent.start) as usize..(data.end - extent.start) as usize;
        file.read_exact_at(&mut bytes[inside], data.start).map_err(Error::io("read", Object::Image))?;
    }
    Ok(())
}
