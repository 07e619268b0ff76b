//! A message of the commit protocol on its way between two nodes.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::{
    Error, Result,
    limits::{CONTROL_MESSAGE_BYTES_MAX, ID_BYTES_MAX},
    wire,
};

const WHAT: &str = "control message";

/// One control message. The body is opaque here; attempt and instance say to whom it is handed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Envelope {
    /// The attempt that the message belongs to.
    pub attempt: [u8; 16],
    /// The instance that it is to or from.
    pub instance: String,
    /// The message.
    pub body: Vec<u8>,
}

impl Envelope {
    /// The bytes of a control block: borsh, fields in order.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check()?;
        let encoded = borsh::to_vec(self).map_err(|e| Error::malformed(WHAT, e))?;
        wire::block_len(WHAT, encoded.len(), CONTROL_MESSAGE_BYTES_MAX)?;
        Ok(encoded)
    }

    /// The reverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        wire::block_len(WHAT, bytes.len(), CONTROL_MESSAGE_BYTES_MAX)?;
        let envelope = Self::try_from_slice(bytes).map_err(|e| Error::malformed(WHAT, e))?;
        envelope.check()?;
        Ok(envelope)
    }

    fn check(&self) -> Result<()> {
        wire::block_len("instance id", self.instance.len(), ID_BYTES_MAX as u32).map(drop)
    }
}
