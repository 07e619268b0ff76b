//! Who may do what, and which requests were seen.

use serde::{Deserialize, Serialize};

use super::Other;
use crate::auth::{Address, Level, SignedRequest};

/// What an owner gave to an address, or took back. It holds for the whole cluster of the instance it names: its
/// instances are one machine. The signed request travels with it, so that each node checks it for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// Who gets it.
    pub address: Address,
    /// The instance it was given on.
    pub instance_id: String,
    /// The cluster of that instance.
    pub cluster_id: String,
    /// How much it may do; may be absent once it is taken back.
    #[serde(default)]
    pub level: Option<Level>,
    /// Only a higher version replaces a grant.
    pub version: u64,
    /// It was taken back by this version.
    pub revoked: bool,
    /// What the owner signed.
    pub request: SignedRequest,
    /// The body that `request` names by its hash.
    pub body: String,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}

/// A request that was made. It is kept for ever: the same request is never made twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The attempt it began, if it was a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<String>,
    /// When it was noted, if it was none that begins an attempt: Unix time, ms, by the clock of the node it came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted_ms: Option<u64>,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}
