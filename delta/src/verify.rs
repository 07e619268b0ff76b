use std::{fs::File, os::unix::fs::FileExt};

use crate::{
    Extent, Hash, Manifest, Result,
    error::{Error, Object},
    image::{clip, data_extents, intersects},
    limits::CHUNK_BYTES_MAX,
    parallel,
};

/// Chunks that a thread verifies at a time.
const BATCH: usize = 32;

/// Reads every byte of `file` and compares it, chunk by chunk, with the manifest. Holes are known to be zeros and are not read.
///
/// This goes through `read`, not through a mapping, so that a device error is an error and not a signal.
pub fn verify_image(file: &File, manifest: &Manifest) -> Result<()> {
    let len_bytes = file.metadata().map_err(Error::io("stat", Object::Image))?.len();
    if len_bytes != manifest.image_len_bytes() {
        return Err(Error::Mismatch {
            object: Object::Image,
            reason: format!("it has {len_bytes} bytes, its manifest says {}", manifest.image_len_bytes()),
        });
    }
    let data = data_extents(file, len_bytes, Object::Image)?;
    let offsets = manifest.offsets();
    let chunks = manifest.chunks();
    parallel::map(
        chunks.len().div_ceil(BATCH),
        || vec![0; CHUNK_BYTES_MAX as usize],
        |buffer, number| {
            let batch = chunks.iter().zip(&offsets).skip(number * BATCH).take(BATCH);
            for (chunk, &offset_bytes) in batch {
                let extent = Extent::new(offset_bytes, offset_bytes + u64::from(chunk.len_bytes));
                let found = if intersects(&data, extent) {
                    let bytes = &mut buffer[..chunk.len_bytes as usize];
                    read(file, &data, extent, bytes)?;
                    Hash::of(bytes)
                } else {
                    Hash::of_zeros(chunk.len_bytes)
                };
                if found != chunk.hash {
                    return Err(Error::WrongHash { object: Object::Image, offset_bytes, expected: chunk.hash, found });
                }
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// Reads the data in `extent`; what is a hole is zeros.
fn read(file: &File, data: &[Extent], extent: Extent, bytes: &mut [u8]) -> Result<()> {
    bytes.fill(0);
    for data in clip(data, extent) {
        let inside = (data.start - extent.start) as usize..(data.end - extent.start) as usize;
        file.read_exact_at(&mut bytes[inside], data.start).map_err(Error::io("read", Object::Image))?;
    }
    Ok(())
}
