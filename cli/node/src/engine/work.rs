//! What the effects of a participant need beside the protocol's record; it is stored with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::live_copy::Hashed;
use crate::api::types::TargetSummary;

/// Whether the instance gives or takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// It is what is committed; it runs on.
    Source,
    /// It becomes the commit.
    Target,
}

/// One attempt as one participant sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkContext {
    pub(crate) role: Role,
    pub(crate) cluster: String,
    /// Node id of the coordinator.
    pub(crate) coordinator: String,
    /// 64 hex.
    pub(crate) commit_id: String,
    pub(crate) description: String,
    /// Unix time, ms.
    pub(crate) time_ms: u64,
    /// Artifact name to root, 64 hex.
    pub(crate) roots: BTreeMap<String, String>,
    /// The directory of the VM that the instance becomes (targets).
    pub(crate) live: String,
    /// The files that will run, as they were when they were hashed (targets).
    pub(crate) hashed: BTreeMap<String, Hashed>,
    /// The VMM that it was captured by, as the commit says it (targets).
    pub(crate) vmm: String,
    /// There is no memory for two VMs: the old one is saved and ended first (targets).
    pub(crate) saves_old: bool,
}

/// What a participant tells at the end; it travels beside `Settled`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) downtime_ns: u64,
    pub(crate) engine: String,
    pub(crate) staged_roots: BTreeMap<String, String>,
    pub(crate) phases_ms: BTreeMap<String, u64>,
}

impl Report {
    pub(crate) fn into_summary(self, summary: &mut TargetSummary) {
        summary.downtime_ns = self.downtime_ns;
        summary.engine = self.engine;
        summary.staged_roots = self.staged_roots;
        summary.phases_ms = self.phases_ms;
    }
}
