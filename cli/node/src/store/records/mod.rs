//! What the store holds, as JSON. The records that the platform also has keep its field names and units (Unix
//! seconds); what this version does not know in a record is kept as it is.
//!
//! Ids are lowercase hex: 40 digits for instances and clusters, 64 for nodes and commits, 32 for attempts.

mod account;
mod attempt;
mod bytes;
mod cluster;
mod instance;

pub use account::{GrantRecord, RequestRecord};
pub use attempt::{AttemptRecord, AttemptState, CommitRecord, LockRecord, ParticipantRecord};
pub use cluster::{ClusterRecord, InstallationRecord, NodeRecord};
pub use instance::{
    ClusterMember, InstanceAnnotations, InstanceCluster, InstanceMetadata, InstanceRecord, InstanceStatus, Snapshots,
};

/// Fields of a record that this version does not know.
pub type Other = serde_json::Map<String, serde_json::Value>;
