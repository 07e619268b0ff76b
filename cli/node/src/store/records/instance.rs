//! Instances.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::Other;
use crate::auth::Address;
use crate::store::limits::SNAPSHOTS_IN_RECORD_MAX;

/// One VM on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Its id.
    pub instance_id: String,
    /// Unique in the installation.
    pub name: String,
    /// Its host.
    pub node_id: String,
    /// What it was built as; its cluster, as long as nothing else builds instances.
    pub build_id: String,
    /// Its owner.
    pub instance_owner: Address,
    /// Unix time, s.
    pub created_at: i64,
    /// Unix time, s.
    pub updated_at: i64,
    /// When its last commit was made; Unix time, s; 0 before the first.
    pub last_snapshot: i64,
    /// Its status.
    pub status: InstanceStatus,
    /// Its cluster.
    pub cluster_id: String,
    /// The commit it runs.
    pub current_commit: Option<String>,
    /// Counts starts, stops and activations.
    pub lifecycle_generation: u64,
    /// Its siblings, itself among them.
    #[serde(default)]
    pub cluster: InstanceCluster,
    /// Its history, newest first, cut at [`SNAPSHOTS_IN_RECORD_MAX`].
    pub snapshots: Option<Snapshots>,
    /// What else is known.
    #[serde(default)]
    pub metadata: InstanceMetadata,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}

impl InstanceRecord {
    /// A new instance, alone and without a commit. `created_at` is Unix time in seconds.
    pub fn new(
        instance_id: &str,
        name: &str,
        node_id: &str,
        cluster_id: &str,
        owner: Address,
        created_at: i64,
    ) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            name: name.to_owned(),
            node_id: node_id.to_owned(),
            build_id: cluster_id.to_owned(),
            instance_owner: owner,
            created_at,
            updated_at: created_at,
            last_snapshot: 0,
            status: InstanceStatus::Created,
            cluster_id: cluster_id.to_owned(),
            current_commit: None,
            lifecycle_generation: 0,
            cluster: InstanceCluster::default(),
            snapshots: None,
            metadata: InstanceMetadata::default(),
            other: Other::new(),
        }
    }

    /// The history, newest first.
    pub fn history(&self) -> impl Iterator<Item = &Snapshots> {
        self.snapshots.iter().flat_map(Snapshots::iter)
    }

    /// Puts a commit on top of the history. Again with a commit that is in it changes nothing.
    pub(crate) fn push_snapshot(&mut self, commit_id: &str, timestamp: i64, description: Option<String>) {
        if self.history().any(|s| s.snapshot_id == commit_id) {
            return;
        }
        let previous = self.snapshots.take();
        let mut snapshots = Snapshots {
            snapshot_id: commit_id.to_owned(),
            timestamp,
            description,
            previous_snapshot: Box::new(previous),
            other: Other::new(),
        };
        snapshots.cut(SNAPSHOTS_IN_RECORD_MAX);
        self.snapshots = Some(snapshots);
        self.current_commit = Some(commit_id.to_owned());
        self.metadata.annotations.build_commit = Some(commit_id.to_owned());
        self.last_snapshot = timestamp;
        self.updated_at = self.updated_at.max(timestamp);
    }
}

/// As the platform names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum InstanceStatus {
    Building,
    Built,
    Created,
    Started,
    Stopped,
    Killed,
    CriticalError,
}

impl std::fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What an instance knows of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceCluster {
    /// By instance id.
    #[serde(default)]
    pub members: BTreeMap<String, ClusterMember>,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}

/// One instance of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMember {
    /// Its host.
    pub node_id: String,
    /// The host's address; unspecified where the platform's network is not used.
    pub node_public_ip: IpAddr,
    /// The host's address in the platform's network.
    pub node_formnet_ip: IpAddr,
    /// The instance.
    pub instance_id: String,
    /// Its address in the platform's network.
    pub instance_formnet_ip: IpAddr,
    /// As the platform writes it.
    pub status: String,
    /// Unix time, s.
    pub last_heartbeat: i64,
    /// In a row.
    pub heartbeats_skipped: u32,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}

impl ClusterMember {
    /// A member without addresses. `now` is Unix time in seconds.
    pub fn new(node_id: &str, instance_id: &str, now: i64) -> Self {
        let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            node_id: node_id.to_owned(),
            node_public_ip: none,
            node_formnet_ip: none,
            instance_id: instance_id.to_owned(),
            instance_formnet_ip: none,
            status: "Active".to_owned(),
            last_heartbeat: now,
            heartbeats_skipped: 0,
            other: Other::new(),
        }
    }
}

/// A commit and, inside it, the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// The commit's id.
    pub snapshot_id: String,
    /// Unix time, s.
    pub timestamp: i64,
    /// What its author said.
    pub description: Option<String>,
    /// The one before.
    pub previous_snapshot: Box<Option<Snapshots>>,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}

impl Snapshots {
    /// From the newest to the oldest.
    pub fn iter(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |s| s.previous_snapshot.as_ref().as_ref())
    }

    fn cut(&mut self, kept: usize) {
        let mut last = self;
        for _ in 1..kept {
            match last.previous_snapshot.as_mut() {
                Some(previous) => last = previous,
                None => return,
            }
        }
        *last.previous_snapshot = None;
    }
}

/// What else the platform keeps of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceMetadata {
    /// Free words.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Where it comes from.
    #[serde(default)]
    pub annotations: InstanceAnnotations,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}

/// Where an instance comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceAnnotations {
    /// Address of the account that made it.
    #[serde(default)]
    pub deployed_by: String,
    /// Of the platform's network.
    #[serde(default)]
    pub network_id: u16,
    /// The commit it runs.
    pub build_commit: Option<String>,
    /// Kept as found.
    #[serde(flatten)]
    pub other: Other,
}
