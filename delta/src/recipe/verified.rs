use super::FrameRef;
use crate::{
    Hash, Result,
    error::{Error, Object},
};

/// A frame whose length and BLAKE3 are those that the index names. Only [`FrameIndex::verify`](crate::FrameIndex::verify) makes one of what
/// came from elsewhere, and only one of these is ever decoded.
#[derive(Debug, Clone)]
pub struct VerifiedFrame {
    number: u32,
    listed: FrameRef,
    bytes: Vec<u8>,
}

impl VerifiedFrame {
    /// A frame that was just made.
    pub(super) fn made(bytes: Vec<u8>) -> VerifiedFrame {
        let listed = FrameRef { hash: Hash::of(&bytes), len_bytes: bytes.len() as u32 };
        VerifiedFrame { number: 0, listed, bytes }
    }

    pub(super) fn check(number: u32, listed: FrameRef, bytes: Vec<u8>) -> Result<VerifiedFrame> {
        if bytes.len() != listed.len_bytes as usize {
            return Err(Error::damaged(
                Object::Frame(number),
                (bytes.len() as u64).min(u64::from(listed.len_bytes)),
                "its length is not the one that the index lists",
            ));
        }
        let found = Hash::of(&bytes);
        if found != listed.hash {
            return Err(Error::WrongHash {
                object: Object::Frame(number),
                offset_bytes: 0,
                expected: listed.hash,
                found,
            });
        }
        Ok(VerifiedFrame { number, listed, bytes })
    }

    /// Its place in the index.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it was checked against.
    pub(crate) fn listed(&self) -> FrameRef {
        self.listed
    }
}
