//! The text that is signed.

use std::borrow::Cow;

use super::limits::{ID_BYTES_MAX, MESSAGE_BYTES_MAX, METHOD_BYTES_MAX, PATH_BYTES_MAX};
use crate::error::{ApiError, ErrorCode};

/// First line of a message: what it is, and which version.
const TAG: &str = "form-request-v1";

/// What stands for a cluster or an instance in a request that concerns none.
pub const NOTHING: &str = "-";

/// What a signer says: do this, to that, in this installation, now. One field a line, eight lines, no
/// newline at the end; cluster and instance share a line. There is one encoding of each message: [`parse`](Self::parse)
/// refuses everything that [`to_bytes`](Self::to_bytes) would not have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMessage {
    /// The installation (state store) that the request is meant for.
    pub installation: String,
    /// Id of the cluster, or [`NOTHING`].
    pub cluster: String,
    /// Id of the instance, or [`NOTHING`].
    pub instance: String,
    /// HTTP method, capitals.
    pub method: String,
    /// Canonical path ([`canonical_path`]) with its query.
    pub path: String,
    /// SHA-256 of the request's body; of nothing when there is none.
    pub body_sha256: [u8; 32],
    /// Unix time at which it was signed.
    pub time_ms: u64,
    /// Random; makes two equal requests two.
    pub nonce: [u8; 16],
}

impl RequestMessage {
    /// The bytes that are hashed and signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        format!(
            "{TAG}\n{}\n{} {}\n{}\n{}\n{}\n{}\n{}",
            self.installation,
            self.cluster,
            self.instance,
            self.method,
            self.path,
            hex::encode(self.body_sha256),
            self.time_ms,
            hex::encode(self.nonce)
        )
        .into_bytes()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// `bad_request`, naming the field, when it is not exactly what [`to_bytes`](Self::to_bytes) writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(malformed("length"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("text"))?;
        let lines: Vec<&str> = text.split('\n').collect();
        let &[tag, installation, ids, method, path, body_sha256, time_ms, nonce] = lines.as_slice() else {
            return Err(malformed("number of lines"));
        };
        if tag != TAG {
            return Err(malformed("first line (form-request-v1)"));
        }
        let (cluster, instance) = ids.split_once(' ').ok_or_else(|| malformed("cluster and instance"))?;
        let message = Self {
            installation: id(installation, "installation")?,
            cluster: id(cluster, "cluster")?,
            instance: id(instance, "instance")?,
            method: word(method, METHOD_BYTES_MAX, u8::is_ascii_uppercase, "method")?,
            path: word(path, PATH_BYTES_MAX, u8::is_ascii_graphic, "path")?,
            body_sha256: digits(body_sha256, "body hash")?,
            time_ms: time_ms.parse().map_err(|_| malformed("time"))?,
            nonce: digits(nonce, "nonce")?,
        };
        if canonical_path(&message.path) != message.path {
            return Err(malformed("path (it must be the canonical one)"));
        }
        // Leading zeros, a plus sign, capital hex: whatever else has two spellings.
        if message.to_bytes() != bytes {
            return Err(malformed("spelling"));
        }
        Ok(message)
    }
}

/// The one path of a route that has two: `/v1/…` is `/api/v1/…`. The query is kept.
pub fn canonical_path(path: &str) -> Cow<'_, str> {
    match path.strip_prefix("/v1/") {
        Some(rest) => Cow::Owned(format!("/api/v1/{rest}")),
        None => Cow::Borrowed(path),
    }
}

fn id(text: &str, field: &str) -> Result<String, ApiError> {
    word(text, ID_BYTES_MAX, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-', field)
}

fn word(text: &str, bytes_max: usize, allowed: impl Fn(&u8) -> bool, field: &str) -> Result<String, ApiError> {
    if text.is_empty() || text.len() > bytes_max || !text.as_bytes().iter().all(allowed) {
        return Err(malformed(field));
    }
    Ok(text.to_owned())
}

fn digits<const N: usize>(text: &str, field: &str) -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| malformed(field))?;
    Ok(bytes)
}

fn malformed(field: &str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, format!("the signed message is malformed: {field}"))
}
