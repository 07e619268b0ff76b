//! The bytes of a frame index: see FORMAT.md, "Frame index".

use std::ops::Range;

use super::VerifiedFrame;
use crate::{
    Hash, Result,
    codec::Reader,
    error::{Error, Object},
    limits::{BASES_MAX, FRAME_BYTES_MAX, FRAMES_MAX, IMAGE_BYTES_MAX},
};

const MAGIC: [u8; 4] = *b"fmIX";
const VERSION: u16 = 1;
const FRAME_ENTRY_BYTES: usize = 36;

/// One frame, as the index names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRef {
    /// BLAKE3 of the whole frame.
    pub hash: Hash,
    /// Its length.
    pub len_bytes: u32,
}

/// What turns a base into a new image: the frames, in order of the image. Its hash stands in the offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameIndex {
    /// Roots of the images that the recipes refer to, by number. The first is the older image of the same artifact, which the rebuild starts from; without any
    /// the image is made from nothing.
    pub base_roots: Vec<Hash>,
    /// Root of the image that they make.
    pub new_root: Hash,
    /// Length of that image.
    pub image_len_bytes: u64,
    /// The frames, numbered from 0.
    pub frames: Vec<FrameRef>,
}

impl FrameIndex {
    /// The bytes that are hashed, stored and sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(52 + self.base_roots.len() * 32 + self.frames.len() * FRAME_ENTRY_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.base_roots.len() as u16).to_le_bytes());
        out.extend(self.image_len_bytes.to_le_bytes());
        out.extend(self.new_root.as_bytes());
        for base_root in &self.base_roots {
            out.extend(base_root.as_bytes());
        }
        // FRAMES_MAX bounds the number: fits.
        out.extend((self.frames.len() as u32).to_le_bytes());
        for frame in &self.frames {
            out.extend(frame.hash.as_bytes());
            out.extend(frame.len_bytes.to_le_bytes());
        }
        out
    }

    /// Reads what [`FrameIndex::encode`] wrote; anything else is refused.
    pub fn decode(bytes: &[u8]) -> Result<FrameIndex> {
        let mut reader = Reader::new(Object::FrameIndex, bytes, 0);
        reader.opening(MAGIC, VERSION)?;
        let bases = reader.u16()?;
        reader.limit("number of bases", u64::from(bases), BASES_MAX as u64)?;
        let image_len_bytes = reader.u64()?;
        reader.limit("length of the image", image_len_bytes, IMAGE_BYTES_MAX)?;
        let new_root = reader.hash()?;
        let base_roots = (0..bases).map(|_| reader.hash()).collect::<Result<_>>()?;
        let count = reader.u32()?;
        reader.limit("number of frames", u64::from(count), u64::from(FRAMES_MAX))?;
        let count = count as usize;
        // The entries, and nothing else, must be here before room for them is made.
        if reader.remaining() != count * FRAME_ENTRY_BYTES {
            return Err(reader.damaged("the number of frames is not what follows"));
        }
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            let hash = reader.hash()?;
            let len_bytes = reader.u32()?;
            reader.limit("length of a frame", u64::from(len_bytes), u64::from(FRAME_BYTES_MAX))?;
            frames.push(FrameRef { hash, len_bytes });
        }
        Ok(FrameIndex { base_roots, new_root, image_len_bytes, frames })
    }

    /// BLAKE3 of the encoded index.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.encode())
    }

    /// Length of all frames together.
    pub fn frames_len_bytes(&self) -> u64 {
        self.frames.iter().map(|f| u64::from(f.len_bytes)).sum()
    }

    /// Where a frame stands when all are written back to back, as [`encode`](crate::encode) writes them.
    pub fn frame_range(&self, number: u32) -> Result<Range<u64>> {
        let frame = self.frame(number)?;
        let before = self.frames.iter().take(number as usize);
        let start = before.map(|f| u64::from(f.len_bytes)).sum();
        Ok(start..start + u64::from(frame.len_bytes))
    }

    /// Checks length and hash of a frame that arrived, before anything in it is decoded.
    pub fn verify(&self, number: u32, bytes: Vec<u8>) -> Result<VerifiedFrame> {
        VerifiedFrame::check(number, self.frame(number)?, bytes)
    }

    pub(crate) fn frame(&self, number: u32) -> Result<FrameRef> {
        self.frames.get(number as usize).copied().ok_or_else(|| Error::Mismatch {
            object: Object::Frame(number),
            reason: format!("the index lists {} frames", self.frames.len()),
        })
    }
}
