//! Keys that sign requests.

use std::fmt;

use k256::elliptic_curve::zeroize::Zeroize;

use super::address::Address;
use crate::error::{ApiError, ErrorCode};

/// A secp256k1 private key. It is wiped from memory when dropped and never shown.
pub struct SigningKey(k256::ecdsa::SigningKey);

impl SigningKey {
    /// The key with these 32 bytes (big-endian scalar).
    ///
    /// # Errors
    /// `bad_key` when the length is another, or the scalar is 0 or not below the curve's order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.len() != 32 {
            return Err(bad_key(format!("a private key has 32 bytes, this one {}", bytes.len())));
        }
        k256::ecdsa::SigningKey::from_slice(bytes)
            .map(Self)
            .map_err(|_| bad_key("the private key is zero or beyond the curve's order".into()))
    }

    /// The key written as 64 hex digits, with or without `0x`.
    ///
    /// # Errors
    /// `bad_key`; the text is never repeated in the message.
    pub fn from_hex(text: &str) -> Result<Self, ApiError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        if digits.len() != 64 {
            return Err(bad_key(format!("a private key has 64 hex digits, this one {}", digits.chars().count())));
        }
        let mut bytes = [0; 32];
        let decoded = hex::decode_to_slice(digits, &mut bytes)
            .map_err(|_| bad_key("the private key holds something that is no hex digit".into()));
        let key = decoded.and_then(|()| Self::from_bytes(&bytes));
        bytes.zeroize();
        key
    }

    /// The account that this key is.
    pub fn address(&self) -> Address {
        Address::of_key(self.0.verifying_key())
    }

    /// RFC 6979 signature of a SHA-256 digest: r||s with low s, and the recovery id.
    pub(super) fn sign_digest(&self, digest: &[u8; 32]) -> ([u8; 64], u8) {
        // secp256k1 in k256 always answers with low s; `recover` refuses anything else.
        let (signature, recovery_id) = self.0.sign_prehash_recoverable(digest);
        let mut bytes = [0; 64];
        bytes.copy_from_slice(&signature.to_bytes());
        (bytes, recovery_id.to_byte())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.address())
    }
}

fn bad_key(message: String) -> ApiError {
    ApiError::new(ErrorCode::BadKey, message).remedy("give the 32 bytes of a secp256k1 private key, in hex or base64")
}
