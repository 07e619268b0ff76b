//! What is right and wrong with a node, in words.

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, ok};
use super::routes::Api;

/// `GET /api/v1/health`, and what `form node doctor` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// 64 hex; `None` when its key can't be read.
    pub node_id: Option<String>,
    /// Whether a process runs it.
    pub running: bool,
    /// Nothing is a problem.
    pub healthy: bool,
    /// What was looked at, in order.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at: `settings`, `key`, `lock`, `store`, `clock`, `vmm`, `writing`, `space`, `bases`, `instances`,
    /// `in flight`, `leftovers`, `nodes`.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Something has to be done.
    Problem,
}

impl HealthView {
    /// It is healthy if none of these is a problem.
    pub fn new(node_id: Option<String>, running: bool, findings: Vec<Finding>) -> Self {
        let healthy = findings.iter().all(|finding| finding.verdict != Verdict::Problem);
        Self { node_id, running, healthy, findings }
    }
}

pub(super) async fn show(State(api): State<Api>) -> Answer {
    ok(&api.core.health().await?)
}
