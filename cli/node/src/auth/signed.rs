//! A message with its signature, as it travels.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key::SigningKey;
use super::limits::MESSAGE_BYTES_MAX;
use super::message::RequestMessage;
use crate::error::{ApiError, ErrorCode};

/// Carries r||s, 128 hex digits.
pub const HEADER_SIGNATURE: &str = "x-signature";
/// Carries `0` or `1`.
pub const HEADER_RECOVERY_ID: &str = "x-recovery-id";
/// Carries the message, in hex.
pub const HEADER_MESSAGE: &str = "x-message";

/// The very bytes that were signed, and the signature. Nothing in it has been checked.
///
/// In borsh: length (`u32`) and bytes of the message, 64 bytes r||s, one byte recovery id; in JSON: hex strings.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct SignedRequest {
    /// [`RequestMessage::to_bytes`].
    pub message: Vec<u8>,
    /// r||s, big-endian.
    pub signature: [u8; 64],
    /// Which of the points with this r.
    pub recovery_id: u8,
}

impl SignedRequest {
    /// SHA-256 of the message: what is signed, and the name of the request for ever.
    pub fn request_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.message).into()
    }

    /// The values of [`HEADER_MESSAGE`], [`HEADER_SIGNATURE`] and [`HEADER_RECOVERY_ID`].
    ///
    /// # Errors
    /// `bad_key` or `bad_request`, naming the header that can't be read.
    pub fn from_headers(message: &str, signature: &str, recovery_id: &str) -> Result<Self, ApiError> {
        let recovery_id = match recovery_id {
            "0" => 0,
            "1" => 1,
            _ => {
                return Err(ApiError::new(ErrorCode::BadKey, "X-Recovery-Id must be 0 or 1"));
            }
        };
        Text { message: message.to_owned(), signature: signature.to_owned(), recovery_id }.try_into()
    }

    /// Names and values of the three headers.
    pub fn to_headers(&self) -> [(&'static str, String); 3] {
        [
            (HEADER_MESSAGE, hex::encode(&self.message)),
            (HEADER_SIGNATURE, hex::encode(self.signature)),
            (HEADER_RECOVERY_ID, self.recovery_id.to_string()),
        ]
    }
}

/// Signs a request (RFC 6979, so the same message gives the same bytes).
pub fn sign(key: &SigningKey, message: &RequestMessage) -> SignedRequest {
    let message = message.to_bytes();
    let (signature, recovery_id) = key.sign_digest(&Sha256::digest(&message).into());
    SignedRequest { message, signature, recovery_id }
}

#[derive(Serialize, Deserialize)]
struct Text {
    message: String,
    signature: String,
    recovery_id: u8,
}

impl TryFrom<Text> for SignedRequest {
    type Error = ApiError;

    fn try_from(text: Text) -> Result<Self, ApiError> {
        if text.message.len() > 2 * MESSAGE_BYTES_MAX {
            return Err(ApiError::new(ErrorCode::BadRequest, "X-Message is too long"));
        }
        let message =
            hex::decode(&text.message).map_err(|_| ApiError::new(ErrorCode::BadRequest, "X-Message is not hex"))?;
        let mut signature = [0; 64];
        hex::decode_to_slice(&text.signature, &mut signature)
            .map_err(|_| ApiError::new(ErrorCode::BadKey, "X-Signature must be 128 hex digits (r, then s)"))?;
        Ok(Self { message, signature, recovery_id: text.recovery_id })
    }
}

impl From<SignedRequest> for Text {
    fn from(request: SignedRequest) -> Self {
        Self {
            message: hex::encode(&request.message),
            signature: hex::encode(request.signature),
            recovery_id: request.recovery_id,
        }
    }
}
