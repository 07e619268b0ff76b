//! Attempts, and their events as they happen.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::StreamExt as _;

use super::answer::{Answer, ok};
use super::incoming::Id;
use super::limits::SSE_KEEP_ALIVE;
use super::routes::Api;
use crate::error::{ApiError, ErrorCode};

pub(super) async fn show(State(api): State<Api>, Id(id): Id, request: Request<Body>) -> Answer {
    let Some(coordinator) = api.other_coordinator(&id).await? else { return ok(&api.core.attempt(&id).await?) };
    match api.forward(&coordinator, request).await {
        // What the store knows can be told without it.
        Err(error) if matches!(error.code, ErrorCode::TargetUnavailable | ErrorCode::Unavailable) => {
            let mut view = api.core.attempt(&id).await?;
            if !view.settled {
                view.waits_for.push(format!("node {coordinator}, which coordinates it and does not answer"));
            }
            ok(&view)
        }
        answer => answer,
    }
}

pub(super) async fn events(State(api): State<Api>, Id(id): Id, request: Request<Body>) -> Answer {
    if let Some(coordinator) = api.other_coordinator(&id).await? {
        return api.forward(&coordinator, request).await;
    }
    let events = api.core.attempt_events(&id).await?.map(|event| {
        // An event without a JSON form can't be made; should one be, the others still arrive.
        let data = serde_json::to_string(&event).unwrap_or_default();
        Ok::<_, Infallible>(Event::default().event("progress").data(data))
    });
    let keep_alive = KeepAlive::new().interval(SSE_KEEP_ALIVE).text("still here");
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

impl Api {
    /// The node that coordinates an attempt, unless it is this one or the store knows of none.
    async fn other_coordinator(&self, attempt_id: &str) -> Result<Option<String>, ApiError> {
        let attempt = self.core.store().attempt(attempt_id).await?;
        Ok(attempt.map(|a| a.coordinator).filter(|coordinator| *coordinator != self.core.node_id()))
    }
}
