//! Attempts and commits.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Other;

/// Where an attempt stands. A decided one never changes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Not decided.
    Pending,
    /// It is the new head, or was.
    Committed,
    /// Nothing changed.
    Aborted,
}

/// One try to make a commit. Both outcomes are decided by comparing this one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Random.
    pub attempt_id: String,
    /// Of which cluster.
    pub cluster_id: String,
    /// The cluster's epoch as this attempt began it.
    pub epoch: u64,
    /// The node that coordinates: the source's.
    pub coordinator: String,
    /// The instance that is committed.
    pub source_instance: String,
    /// The head that it replaces.
    pub parent: Option<String>,
    /// SHA-256 of the signed request's message.
    pub request_hash: String,
    /// Everyone who takes part, the source among them, frozen.
    pub participants: Vec<ParticipantRecord>,
    /// The cluster's membership as frozen.
    pub membership_rev: u64,
    /// Its state.
    pub state: AttemptState,
    /// Once committed.
    pub commit_id: Option<String>,
    /// The instances that have acknowledged the outcome.
    #[serde(default)]
    pub acknowledged: BTreeSet<String>,
    /// When it began, by its coordinator's clock; later checks of the request's age compare with this.
    pub began_ms: u64,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}

impl AttemptRecord {
    /// Decided, and every participant has said that it knows.
    pub fn is_settled(&self) -> bool {
        self.state != AttemptState::Pending
            && self.participants.iter().all(|p| self.acknowledged.contains(&p.instance_id))
    }
}

/// An instance that takes part in an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantRecord {
    /// The instance.
    pub instance_id: String,
    /// Its host.
    pub node_id: String,
    /// Its lifecycle when the attempt began.
    pub lifecycle_generation: u64,
}

/// Who holds a cluster's lock. The key hangs on a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRecord {
    /// The attempt it is held for.
    pub attempt_id: String,
    /// By which node.
    pub coordinator: String,
    /// How often the holder proved that it can write.
    pub confirmed: u64,
}

/// A commit, as its maker encoded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Hash of `bytes`.
    pub commit_id: String,
    /// The encoded commit; opaque here.
    #[serde(with = "super::bytes")]
    pub bytes: Vec<u8>,
    /// The attempt that made it.
    pub attempt_id: String,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}
