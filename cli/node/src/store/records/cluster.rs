//! Installation, nodes and clusters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ClusterMember, Other};
use crate::auth::Address;

/// Names the store itself; requests are signed for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallationRecord {
    /// Random, 32 hex.
    pub installation_id: String,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}

/// A host that was enrolled; a key that is not among these is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its public key.
    pub node_id: String,
    /// Where its HTTP API is, `host:port`.
    pub api_addr: String,
    /// Where the nodes' transport is, `host:port`.
    pub quic_addr: String,
    /// Unix time, ms.
    pub enrolled_at: u64,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}

/// Instances that are replicas of each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its id.
    pub cluster_id: String,
    /// Set when the first instance is made, and never again.
    pub owner: Address,
    /// The current commit; `None` before the first.
    pub head: Option<String>,
    /// Counts attempts.
    pub epoch: u64,
    /// By instance id.
    pub members: BTreeMap<String, ClusterMember>,
    /// Counts changes of `members`.
    pub membership_rev: u64,
    /// The attempt that is not decided.
    pub pending: Option<String>,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}
