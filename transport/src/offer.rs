//! What a source sends to each target: the commit, who asked for it, and what the frames are.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use form_delta::Hash;

use crate::{
    Commit, Error, NodeId, NodeKey, Result,
    limits::{FRAME_INDEX_BYTES_MAX, OFFER_BYTES_MAX, REQUEST_BODY_BYTES_MAX},
    verify_signature, wire,
};

const WHAT: &str = "offer";
const SIGNED_TAG: &[u8] = b"form-offer-v1\0";

/// A commit on its way to the targets of an attempt.
///
/// The user signed the intent; the source's node signs the content. A target checks both.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Offer {
    /// The commit.
    pub commit: Commit,
    /// The source node's signature; [`sign`](Self::sign) says over what.
    pub node_signature: [u8; 64],
    /// The user's signature (r and s) over the commit's `request_message`.
    pub request_signature: [u8; 64],
    /// Which of two keys it recovers: 0 or 1.
    pub request_recovery_id: u8,
    /// The body that the request's message names by its hash; opaque here.
    pub request_body: Vec<u8>,
    /// The frame index of each artifact, in the order of the commit's artifacts.
    pub indexes: Vec<FrameIndexBytes>,
}

/// An encoded `form_delta::FrameIndex`, opaque here.
#[derive(Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FrameIndexBytes(pub Vec<u8>);

impl FrameIndexBytes {
    /// BLAKE3 of the bytes: what the source's node signs.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.0)
    }
}

impl Offer {
    /// Signs, for this attempt and epoch: `form-offer-v1`, a zero byte, attempt, epoch (u64 little-endian), commit id,
    /// parent (0, or 1 and the id), number of indexes (u32 little-endian), and the hash of each.
    pub fn sign(&mut self, key: &NodeKey, attempt: &[u8; 16], epoch: u64) {
        self.node_signature = key.sign(&self.signed_bytes(attempt, epoch));
    }

    /// Checks that `source` signed this very offer for this attempt and epoch. The user's signature is checked by
    /// whoever knows accounts.
    pub fn verify(&self, source: NodeId, attempt: &[u8; 16], epoch: u64) -> Result<()> {
        let signed = self.signed_bytes(attempt, epoch);
        verify_signature(source, &signed, &self.node_signature)
    }

    /// The one encoding (borsh, fields in order). Refuses what [`decode`](Self::decode) would refuse.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let encoded = borsh::to_vec(self).map_err(|e| Error::malformed(WHAT, e))?;
        wire::block_len(WHAT, encoded.len(), OFFER_BYTES_MAX)?;
        Ok(encoded)
    }

    /// The reverse of [`encode`](Self::encode). Checks the length first. The signatures are not checked here.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        wire::block_len(WHAT, bytes.len(), OFFER_BYTES_MAX)?;
        let offer = Self::try_from_slice(bytes).map_err(|e| Error::malformed(WHAT, e))?;
        offer.validate()?;
        Ok(offer)
    }

    fn validate(&self) -> Result<()> {
        self.commit.validate()?;
        if self.request_recovery_id > 1 {
            return Err(Error::malformed(WHAT, "its recovery id is neither 0 nor 1"));
        }
        wire::block_len("request body", self.request_body.len(), REQUEST_BODY_BYTES_MAX)?;
        let (artifacts, indexes) = (self.commit.artifacts.len(), self.indexes.len());
        if artifacts != indexes {
            let reason = format!("{indexes} frame indexes for {artifacts} artifacts");
            return Err(Error::malformed(WHAT, reason));
        }
        for index in &self.indexes {
            wire::block_len("frame index", index.0.len(), FRAME_INDEX_BYTES_MAX)?;
        }
        Ok(())
    }

    fn signed_bytes(&self, attempt: &[u8; 16], epoch: u64) -> Vec<u8> {
        let mut bytes = SIGNED_TAG.to_vec();
        bytes.extend_from_slice(attempt);
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(&self.commit.id());
        match &self.commit.parent {
            None => bytes.push(0),
            Some(parent) => {
                bytes.push(1);
                bytes.extend_from_slice(parent);
            }
        }
        bytes.extend_from_slice(&(self.indexes.len() as u32).to_le_bytes());
        for index in &self.indexes {
            bytes.extend_from_slice(index.hash().as_bytes());
        }
        bytes
    }
}

impl fmt::Debug for FrameIndexBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameIndexBytes({} bytes, {})", self.0.len(), self.hash())
    }
}
