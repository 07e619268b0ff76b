mod codec;

use crate::{
    Extent, Hash, Image, Result,
    error::{Error, Object},
    image::normalise,
    limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, IMAGE_BYTES_MAX},
};

/// A content-defined piece of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// BLAKE3 of its bytes.
    pub hash: Hash,
    /// Its length: `CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX`, except that the last one of an image may be shorter.
    pub len_bytes: u32,
}

/// The ordered chunks of an image. Equal images have equal manifests, byte for byte; the hash of a manifest, its *root*, names the image.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    image_len_bytes: u64,
    chunks: Vec<Chunk>,
    root: Hash,
}

impl Manifest {
    /// A manifest of these chunks, in order. The lengths are checked; that the chunks are those of an image is the caller's word.
    pub(crate) fn new(chunks: Vec<Chunk>) -> Result<Manifest> {
        let mut image_len_bytes = 0;
        for (number, chunk) in chunks.iter().enumerate() {
            let smallest = match number + 1 == chunks.len() {
                true => 1,
                false => CHUNK_BYTES_MIN,
            };
            if !(smallest..=CHUNK_BYTES_MAX).contains(&chunk.len_bytes) {
                return Err(Error::damaged(
                    Object::Manifest,
                    codec::offset_of(number),
                    "the chunk's length is outside the chunker's bounds",
                ));
            }
            image_len_bytes += u64::from(chunk.len_bytes);
        }
        if image_len_bytes > IMAGE_BYTES_MAX {
            return Err(Error::Limit {
                object: Object::Manifest,
                what: "length of the image",
                value: image_len_bytes,
                limit: IMAGE_BYTES_MAX,
            });
        }
        let mut manifest = Manifest { image_len_bytes, chunks, root: Hash::from_bytes([0; 32]) };
        manifest.root = Hash::of(&manifest.encode());
        Ok(manifest)
    }

    /// BLAKE3 of the encoded manifest.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The chunks, in the order of the image.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Length of the image.
    pub fn image_len_bytes(&self) -> u64 {
        self.image_len_bytes
    }

    /// Where this image may differ from an older one, in whole chunks: everywhere but where both have the same chunk at the same place. Ascending.
    pub fn changed_since(&self, older: &Manifest) -> Vec<Extent> {
        let mut theirs = older.chunks.iter().zip(older.offsets()).peekable();
        let mut changed = Vec::new();
        for (chunk, start) in self.chunks.iter().zip(self.offsets()) {
            while theirs.next_if(|(_, offset)| *offset < start).is_some() {}
            if theirs.peek() != Some(&(chunk, start)) {
                changed.push(Extent::new(start, start + u64::from(chunk.len_bytes)));
            }
        }
        normalise(changed)
    }

    /// Refuses an image that cannot be the one described, by its length.
    pub(crate) fn fits(&self, object: Object, image: &Image) -> Result<()> {
        if image.len_bytes() == self.image_len_bytes {
            return Ok(());
        }
        let reason = format!("it has {} bytes, its manifest says {}", image.len_bytes(), self.image_len_bytes);
        Err(Error::Mismatch { object, reason })
    }

    /// Where each chunk begins, and after them the end of the image.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        let mut next = 0;
        let mut offsets = Vec::with_capacity(self.chunks.len() + 1);
        for chunk in &self.chunks {
            offsets.push(next);
            next += u64::from(chunk.len_bytes);
        }
        offsets.push(next);
        offsets
    }
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest")
            .field("root", &self.root)
            .field("image_len_bytes", &self.image_len_bytes)
            .field("chunks", &self.chunks.len())
            .finish()
    }
}
