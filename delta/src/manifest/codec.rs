//! The bytes of a manifest: see FORMAT.md, "Manifest".

use super::{Chunk, Manifest};
use crate::{
    Result,
    codec::Reader,
    error::{Error, Object},
    limits::{CHUNK_BYTES_AVG, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, IMAGE_BYTES_MAX},
};

const MAGIC: [u8; 4] = *b"fmMF";
const VERSION: u16 = 1;
/// FastCDC v2020, normalisation level 1, seed 0.
const CHUNKER: u16 = 1;
const HEADER_BYTES: usize = 36;
const CHUNK_ENTRY_BYTES: usize = 36;

/// Where the entry of a chunk stands.
pub(super) fn offset_of(number: usize) -> u64 {
    (HEADER_BYTES + number * CHUNK_ENTRY_BYTES) as u64
}

impl Manifest {
    /// The bytes that are hashed, stored and sent.
    pub fn encode(&self) -> Vec<u8> {
        let count = self.chunks.len();
        let mut out = Vec::with_capacity(HEADER_BYTES + count * CHUNK_ENTRY_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(CHUNKER.to_le_bytes());
        out.extend(CHUNK_BYTES_MIN.to_le_bytes());
        out.extend(CHUNK_BYTES_AVG.to_le_bytes());
        out.extend(CHUNK_BYTES_MAX.to_le_bytes());
        out.extend(self.image_len_bytes.to_le_bytes());
        // IMAGE_BYTES_MAX / CHUNK_BYTES_MIN chunks at most: fits.
        out.extend((count as u32).to_le_bytes());
        out.extend([0; 4]);
        for chunk in &self.chunks {
            out.extend(chunk.hash.as_bytes());
            out.extend(chunk.len_bytes.to_le_bytes());
        }
        out
    }

    /// Reads what [`Manifest::encode`] wrote; anything else is refused, so that a manifest has one encoding and one root.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        let mut reader = Reader::new(Object::Manifest, bytes, 0);
        reader.opening(MAGIC, VERSION)?;
        let chunker = (reader.u16()?, reader.u32()?, reader.u32()?, reader.u32()?);
        if chunker != (CHUNKER, CHUNK_BYTES_MIN, CHUNK_BYTES_AVG, CHUNK_BYTES_MAX) {
            return Err(Error::Mismatch {
                object: Object::Manifest,
                reason: format!("it was made with chunker {chunker:?}, which this build has not"),
            });
        }
        let image_len_bytes = reader.u64()?;
        reader.limit("length of the image", image_len_bytes, IMAGE_BYTES_MAX)?;
        let count = reader.u32()? as usize;
        if reader.array()? != [0; 4] {
            return Err(reader.damaged("the reserved field must be zero"));
        }
        // The entries, and nothing else, must be here before room for them is made.
        if reader.remaining() != count.saturating_mul(CHUNK_ENTRY_BYTES) {
            return Err(reader.damaged("the number of chunks is not what follows"));
        }
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            chunks.push(Chunk { hash: reader.hash()?, len_bytes: reader.u32()? });
        }
        let manifest = Manifest::new(chunks)?;
        if manifest.image_len_bytes != image_len_bytes {
            return Err(Error::damaged(Object::Manifest, 20, "the chunks are not as long as the image"));
        }
        Ok(manifest)
    }
}
