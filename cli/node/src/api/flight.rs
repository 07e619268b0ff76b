//! What is in flight on a node, as far as it can tell without asking anybody: it answers while the state store is away, which is when it is asked most.

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, ok};
use super::incoming::Id;
use super::routes::Api;

/// `GET /api/v1/flight`, and of another node `GET /api/v1/nodes/{id}/flight`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlightView {
    /// The node that this is of, 64 hex.
    pub node_id: String,
    /// How long the state store has not answered it; `None` while it does.
    pub store_silent_ms: Option<u64>,
    /// Attempts that it coordinates and that are not settled.
    pub attempts: Vec<AttemptInFlight>,
    /// Its instances that are durably in an attempt.
    pub participants: Vec<ParticipantInFlight>,
}

/// An attempt, as its coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptInFlight {
    /// 32 hex.
    pub attempt_id: String,
    /// 40 hex.
    pub cluster_id: String,
    /// The source, 40 hex.
    pub instance_id: String,
    /// The cluster's epoch that it is.
    pub epoch: u64,
    /// What is being done: `preflight`, `warm`, `stage`, `activate`, `commit`, `finalize`, …
    pub phase: String,
    /// For how long.
    pub phase_ms: u64,
    /// Since it began.
    pub age_ms: u64,
    /// The store has said how it ended.
    pub decided: bool,
}

/// A participant, as its own node keeps it durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantInFlight {
    /// 40 hex.
    pub instance_id: String,
    /// Its name.
    pub name: String,
    /// 40 hex.
    pub cluster_id: String,
    /// 32 hex.
    pub attempt_id: String,
    /// The attempt's epoch.
    pub epoch: u64,
    /// The node that coordinates, 64 hex.
    pub coordinator: String,
    /// `source` or `target`.
    pub role: String,
    /// `prepared`, `activating`, `active`, `resuming` or `rolling_back`.
    pub step: String,
}

pub(super) async fn here(State(api): State<Api>) -> Answer {
    ok(&api.core.flight().await?)
}

pub(super) async fn there(State(api): State<Api>, Id(id): Id, request: Request<Body>) -> Answer {
    if id == api.core.node_id() {
        return ok(&api.core.flight().await?);
    }
    api.forward(&id, request).await
}
