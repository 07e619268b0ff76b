//! Addresses of accounts.

use std::fmt;
use std::str::FromStr;

use k256::ecdsa::VerifyingKey;
use serde::{Deserialize, Serialize};
use sha3::{Digest, Keccak256};

use crate::error::{ApiError, ErrorCode};

/// An account: the last 20 bytes of the Keccak-256 of its public key, as Ethereum has it.
///
/// Shown as 40 lowercase hex digits; `0x` and capitals are accepted on input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address([u8; 20]);

impl Address {
    /// The address with these bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    pub(super) fn of_key(key: &VerifyingKey) -> Self {
        let point = key.to_sec1_point(false);
        // The first byte is SEC1's tag for an uncompressed point; the hash covers x and y alone.
        let hash = Keccak256::digest(&point.as_bytes()[1..]);
        let mut address = [0; 20];
        address.copy_from_slice(&hash[12..]);
        Self(address)
    }
}

impl FromStr for Address {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = [0; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| {
            ApiError::new(ErrorCode::BadRequest, format!("\"{text}\" is not an address"))
                .remedy("give 40 hex digits, with or without 0x")
        })?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Address {
    type Error = ApiError;

    fn try_from(text: String) -> Result<Self, ApiError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}
