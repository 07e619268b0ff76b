//! A node's name: its Ed25519 public key.

use std::{fmt, str::FromStr};

use borsh::{BorshDeserialize, BorshSerialize};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::{Error, Result};

/// An Ed25519 public key (RFC 8032), which is all the identity that a node has.
///
/// Shown as 64 lowercase hex digits; a leading `0x` and capitals are accepted on input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct NodeId([u8; 32]);

/// DER of a SubjectPublicKeyInfo for Ed25519 up to the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl NodeId {
    /// From the raw public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As a TLS raw public key (RFC 7250): a SubjectPublicKeyInfo in DER.
    pub(crate) fn to_spki(self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.0].concat()
    }

    /// The reverse of [`to_spki`](Self::to_spki). There is one DER encoding of an Ed25519 key, so this is a comparison.
    pub(crate) fn from_spki(spki: &[u8]) -> Option<Self> {
        let key = spki.strip_prefix(&SPKI_PREFIX)?;
        key.try_into().ok().map(Self)
    }
}

/// Checks that `signer` made `signature` over `message`.
pub fn verify_signature(signer: NodeId, message: &[u8], signature: &[u8; 64]) -> Result<()> {
    UnparsedPublicKey::new(&ED25519, signer.0).verify(message, signature).map_err(|_| Error::BadSignature { signer })
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes)
            .map_err(|_| Error::malformed("node id", "it has to be 64 hex digits"))?;
        Ok(Self(bytes))
    }
}
