//! What nodes ask of each other beside the commit protocol's own messages, and what carries those.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::api::types::VmmView;
use crate::auth::SignedRequest;
use crate::error::ApiError;

/// A small question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Question {
    /// Could this instance take a commit like that?
    Preflight(Preflight),
    /// Make the cluster's first commit from your running instance, for one that joins. Answered at once with the
    /// attempt; its outcome is in the store.
    Origin { instance: String, request: SignedRequest },
    /// Get the head's images ready for me, against what I hold.
    Seed { instance: String, request: SignedRequest, roots: Vec<String> },
    /// I have what I asked for.
    SeedDone { session: String },
}

/// What the source wants to know of a target before anything is paused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Preflight {
    pub(crate) attempt: String,
    pub(crate) cluster: String,
    pub(crate) instance: String,
    pub(crate) vmm: VmmView,
    /// Length of its memory and its disks, by name.
    pub(crate) image_bytes: BTreeMap<String, u64>,
    /// What the source's images take now, all of them.
    pub(crate) allocated_bytes: u64,
    /// How long the whole commit may take.
    pub(crate) timeout_s: u64,
}

/// The target could take it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fit {
    /// Roots of the bases that its node holds.
    pub(crate) roots: Vec<String>,
    /// There is no memory for two VMs: the old one is saved first.
    pub(crate) saves_old: bool,
}

/// Where the head's images can be fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seeding {
    /// 32 hex.
    pub(crate) session: String,
    /// The encoded commit, hex.
    pub(crate) commit: String,
    /// Hash of the frame index of each artifact, in the commit's order. The indexes are fetched: they may be long.
    pub(crate) indexes: Vec<String>,
    /// The spec of the instance that is joined.
    pub(crate) spec: crate::spec::InstanceSpec,
}

/// Any answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// To `Preflight`.
    Fit(Fit),
    /// To `Origin`: the attempt, 32 hex.
    Began { attempt: String },
    /// To `Seed`.
    Seeding(Box<Seeding>),
    /// To `SeedDone`.
    Done,
    /// No.
    Refused { error: ApiError },
}

/// The body of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum Packet {
    /// A message of the protocol, and what belongs to it: the offer's bytes, or JSON of an error or a report.
    Protocol { message: Vec<u8>, payload: Vec<u8> },
    /// How far a target is: for people only.
    Progress { phase: String, done: u64, total: u64 },
    /// What somebody should know of it: for people only.
    Warning { message: String },
}
