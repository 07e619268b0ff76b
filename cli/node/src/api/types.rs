//! What travels as JSON between the command line and a node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// `GET /api/v1/node`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Ed25519 public key, 64 hex.
    pub node_id: String,
    /// Version of this program.
    pub version: String,
    /// Which installation (state store) it belongs to; requests are signed for it.
    pub installation_id: String,
    /// Address of the HTTP API.
    pub api: String,
    /// Address of the nodes' transport.
    pub quic: String,
    /// URL of the state store.
    pub store: String,
    /// What the VMM of this host is; `None` when it is missing, with the reason in `vmm_error`.
    pub vmm: Option<VmmView>,
    /// Why there is no VMM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_error: Option<String>,
    /// The engine that rebuilds images: `io_uring` or `pwrite`.
    pub engine: String,
    /// Instances hosted here.
    pub instances: u64,
    /// Free space where the data directory is.
    pub data_free_bytes: u64,
}

/// The VMM of a host; two hosts whose views differ can't exchange memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmView {
    /// `qemu`.
    pub vmm: String,
    /// Its version.
    pub version: String,
    /// The versioned machine type.
    pub machine_type: String,
    /// `tcg` or `kvm`.
    pub accelerator: String,
    /// The CPU model that guests see.
    pub cpu_model: String,
}

/// One instance as every node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    /// 40 hex.
    pub instance_id: String,
    /// Unique in the installation.
    pub name: String,
    /// Host.
    pub node_id: String,
    /// Cluster, 40 hex.
    pub cluster_id: String,
    /// Address of the owner, 40 hex.
    pub owner: String,
    /// `Created`, `Started`, `Stopped`, …
    pub status: String,
    /// The commit it runs, if any: 64 hex.
    pub snapshot_id: Option<String>,
    /// Hosted by the node that answers.
    pub local: bool,
    /// Names of all instances of its cluster.
    #[serde(default)]
    pub members: Vec<String>,
    /// History, oldest first (only when one instance is asked for).
    #[serde(default)]
    pub snapshots: Vec<SnapshotView>,
    /// The attempt that is under way in its cluster, or the last one that is not settled.
    #[serde(default)]
    pub attempt_id: Option<String>,
}

/// One commit in an instance's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// 64 hex.
    pub snapshot_id: String,
    /// Unix time, ms.
    pub timestamp_ms: u64,
    /// What the author said.
    pub description: String,
    /// Its parent.
    pub previous_snapshot: Option<String>,
}

/// `POST /api/v1/instances`: exactly one of `spec` and `like`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// The new instance's name.
    pub name: String,
    /// The text of an instance spec (TOML): a new cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
    /// Id of an instance whose cluster it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
}

/// Answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// 40 hex.
    pub instance_id: String,
    /// 40 hex.
    pub cluster_id: String,
    /// The commit its images were taken from (`like` only).
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// Bytes received to seed this node with the cluster's head.
    #[serde(default)]
    pub received_bytes: u64,
}

/// `POST /api/v1/commit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitVmRequest {
    /// Instance id; or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Second carrier of the signature (r||s, then the recovery id, hex): never beside the headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Second carrier of the signer's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What the author says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Ids of the instances to bring along; all of the cluster when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<String>>,
    /// Check everything, change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Abort when not committed by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// The commit that the client saw as current; another one is a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// `202` answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAccepted {
    /// 32 hex; names the attempt everywhere.
    pub attempt_id: String,
    /// The source.
    pub instance_id: String,
    /// The node that coordinates.
    pub node_id: String,
    /// Names of the targets.
    pub targets: Vec<String>,
}

/// `GET /api/v1/attempts/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// 32 hex.
    pub attempt_id: String,
    /// The source.
    pub instance_id: String,
    /// `pending`, `committed`, `aborted`.
    pub outcome: String,
    /// Every participant has acknowledged the outcome.
    pub settled: bool,
    /// What it says last.
    pub last_event: Option<AttemptEvent>,
    /// Who has still to act, as the state store knows it: instances that have not acknowledged a commit, by name; and if
    /// the node that coordinates did not answer, that one.
    pub waits_for: Vec<String>,
}

/// One step of an attempt, as a server-sent event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AttemptEvent {
    /// A phase begins, for one target or for all of the attempt.
    Phase {
        /// Instance name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// What is being done.
        phase: String,
        /// Since the attempt began.
        at_ms: u64,
    },
    /// How far a phase is.
    Bytes {
        /// Instance name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// What is being done.
        phase: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Something that a person should know; nothing has failed.
    Warning {
        /// Instance name.
        target: String,
        /// What.
        message: String,
    },
    /// The commit's id is known.
    Snapshot {
        /// 64 hex.
        snapshot_id: String,
    },
    /// The store says so: it is final.
    Committed {
        /// 64 hex.
        snapshot_id: String,
    },
    /// Undone; nothing changed.
    Failed {
        /// Why.
        error: ApiError,
    },
    /// Every participant has acknowledged the outcome. Always the last event.
    Settled {
        /// `None` after a failure.
        summary: Option<Box<CommitSummary>>,
    },
}

/// What a commit did; every figure is measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommitSummary {
    /// 64 hex.
    pub snapshot_id: String,
    /// Its parent.
    pub parent: Option<String>,
    /// Name of the source.
    pub source: String,
    /// From the last instruction before the capture to the first after.
    pub pause_ns: u64,
    /// Its parts: `stop` (until the vCPUs and disks stand still), `device state`, `copy` (compare and copy of memory and
    /// disks), and `cont`, the rest.
    #[serde(default)]
    pub pause_parts_ns: BTreeMap<String, u64>,
    /// How often the copies of memory and disks were brought up to the running guest again before the pause.
    #[serde(default)]
    pub warm_rounds: u32,
    /// Bytes read between stop and cont.
    pub paused_read_bytes: u64,
    /// Bytes written between stop and cont.
    pub paused_written_bytes: u64,
    /// From the request to the last acknowledgement.
    pub total_ms: u64,
    /// Time per phase.
    pub phases_ms: BTreeMap<String, u64>,
    /// Allocated bytes of the source's RAM image.
    pub ram_allocated_bytes: u64,
    /// Allocated bytes of the source's disk images.
    pub disk_allocated_bytes: u64,
    /// What was captured.
    pub artifacts: Vec<ArtifactSummary>,
    /// What each target got.
    pub targets: Vec<TargetSummary>,
}

/// One artifact of a commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArtifactSummary {
    /// `memory`, `device`, `disk0`, …
    pub name: String,
    /// Root of its manifest, 64 hex.
    pub root: String,
    /// Its length.
    pub image_bytes: u64,
    /// Bytes of its changed chunks.
    pub changed_bytes: u64,
    /// Bytes of its frames.
    pub delta_bytes: u64,
    /// Encoded bytes by recipe.
    pub recipes: BTreeMap<String, u64>,
}

/// One target of a commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetSummary {
    /// Instance name.
    pub instance: String,
    /// Its host.
    pub node_id: String,
    /// UDP payload bytes that the source's socket sent to that host during the attempt.
    pub sent_bytes: u64,
    /// In how many datagrams.
    pub sent_datagrams: u64,
    /// From its last instruction as it was to its first as the new commit.
    pub downtime_ns: u64,
    /// `io_uring` or `pwrite`.
    pub engine: String,
    /// Root of each staged image as the target re-read and hashed it, by artifact.
    pub staged_roots: BTreeMap<String, String>,
    /// Time per phase there.
    pub phases_ms: BTreeMap<String, u64>,
}
