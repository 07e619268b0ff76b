//! Is this request signed, for exactly what is being asked, just now?

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use super::address::Address;
use super::limits::REQUEST_AGE_MS_MAX;
use super::message::{RequestMessage, canonical_path};
use super::signed::SignedRequest;
use crate::error::{ApiError, ErrorCode};

/// What is being asked, rebuilt from the request itself: never from what it claims to have signed.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The installation of the node that checks.
    pub installation: &'a str,
    /// Id of the cluster, or [`NOTHING`](super::NOTHING).
    pub cluster: &'a str,
    /// Id of the instance, or [`NOTHING`](super::NOTHING).
    pub instance: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// Path with its query, as it arrived.
    pub path: &'a str,
}

/// A well-formed message whose signer is known. Made by [`recover`], [`check_entry`] and [`check_again`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    signer: Address,
    request_hash: [u8; 32],
    message: RequestMessage,
}

impl Recovered {
    /// Who signed.
    pub fn signer(&self) -> Address {
        self.signer
    }

    /// SHA-256 of the message; names the request.
    pub fn request_hash(&self) -> [u8; 32] {
        self.request_hash
    }

    /// What was signed.
    pub fn message(&self) -> &RequestMessage {
        &self.message
    }
}

/// Parses the message and recovers its signer. Says nothing about whether the message fits a request.
///
/// # Errors
/// `bad_request` for a malformed message; `bad_key` for r or s of zero, high s, a recovery id above 1,
/// or bytes that are no signature at all.
pub fn recover(request: &SignedRequest) -> Result<Recovered, ApiError> {
    let message = RequestMessage::parse(&request.message)?;
    // Refuses r or s of zero or beyond the order.
    let signature = Signature::from_slice(&request.signature).map_err(|_| bad_signature("r or s is out of range"))?;
    if signature.normalize_s() != signature {
        return Err(bad_signature("s is in the upper half of its range"));
    }
    // 2 and 3 (x reduced) exist for one r in 2^127: nobody signs them.
    let recovery_id = RecoveryId::from_byte(request.recovery_id)
        .filter(|id| !id.is_x_reduced())
        .ok_or_else(|| bad_signature("the recovery id is not 0 or 1"))?;
    let request_hash = request.request_hash();
    let key = VerifyingKey::recover_from_prehash(&request_hash, &signature, recovery_id)
        .map_err(|_| bad_signature("no key can have made it"))?;
    Ok(Recovered { signer: Address::of_key(&key), request_hash, message })
}

/// The check at the one entry: signed, for this request with this body, within a minute of `now_ms` (Unix time).
/// That the request was not made before is the store's to say, by its hash.
///
/// # Errors
/// As [`recover`]; `not_allowed` when something else was signed; `stale_request`.
pub fn check_entry(
    request: &SignedRequest,
    expected: &Expected<'_>,
    body: &[u8],
    now_ms: u64,
) -> Result<Recovered, ApiError> {
    let recovered = check_again(request, expected, now_ms)?;
    if recovered.message.body_sha256 != <[u8; 32]>::from(Sha256::digest(body)) {
        return Err(mismatch("body", "another body"));
    }
    Ok(recovered)
}

/// The check of everyone after the entry, each for itself: as [`check_entry`] without the body, which only its hash
/// in the message stands for. `begin_ms` is the time at which the attempt began, not now: an attempt that takes
/// long does not outlive its own signature.
///
/// # Errors
/// As [`check_entry`].
pub fn check_again(request: &SignedRequest, expected: &Expected<'_>, begin_ms: u64) -> Result<Recovered, ApiError> {
    let recovered = recover(request)?;
    let message = &recovered.message;
    for (field, signed, asked) in [
        ("installation", message.installation.as_str(), expected.installation),
        ("cluster", &message.cluster, expected.cluster),
        ("instance", &message.instance, expected.instance),
        ("method", &message.method, expected.method),
        ("path", &message.path, &canonical_path(expected.path)),
    ] {
        if signed != asked {
            return Err(mismatch(field, signed));
        }
    }
    let off_ms = message.time_ms.abs_diff(begin_ms);
    if off_ms > REQUEST_AGE_MS_MAX {
        let side = if message.time_ms < begin_ms { "ago" } else { "ahead of this node's clock" };
        return Err(ApiError::new(
            ErrorCode::StaleRequest,
            format!("the request was signed {} s {side}", off_ms / 1000),
        )
        .cause(format!("a request is accepted within {} s of its signature", REQUEST_AGE_MS_MAX / 1000))
        .remedy("sign it again; if that does not help, set the clocks of both machines"));
    }
    Ok(recovered)
}

fn bad_signature(cause: &str) -> ApiError {
    ApiError::new(ErrorCode::BadKey, "the request's signature is not valid").cause(cause)
}

fn mismatch(field: &str, signed: &str) -> ApiError {
    ApiError::new(ErrorCode::NotAllowed, "the signature is for another request")
        .cause(format!("it was made for {field} {signed}"))
        .remedy("sign the request that you send")
}
