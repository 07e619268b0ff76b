//! The events of an attempt, as they come.

use std::collections::VecDeque;

use form_node::api::types::AttemptEvent;
use form_node::{ApiError, ErrorCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::connection::lost;
use super::limits::EVENT_SILENCE;
use super::request::{Client, segment};
use super::sse::Parser;
use super::url::NodeUrl;

/// An open stream of events.
pub(crate) struct EventStream {
    node: NodeUrl,
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Vec<u8>>,
}

impl Client {
    /// The events of an attempt, from its first one.
    pub(crate) async fn events(&self, attempt_id: &str) -> Result<EventStream, ApiError> {
        let path = format!("/api/v1/attempts/{}/events", segment(attempt_id));
        let body = self.open(&path, "text/event-stream").await?.into_body();
        Ok(EventStream { node: self.node().clone(), body, parser: Parser::default(), ready: VecDeque::new() })
    }
}

impl EventStream {
    /// The next event; `None` when the node ended the stream.
    ///
    /// # Errors
    /// `unavailable` when the connection broke or fell silent: ask for the events again. Anything else is final.
    pub(crate) async fn next(&mut self) -> Result<Option<AttemptEvent>, ApiError> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return serde_json::from_slice(&data).map(Some).map_err(|error| {
                    ApiError::new(ErrorCode::Internal, "the node sent an event that can't be understood")
                        .cause(error)
                        .remedy("use the version of `form` that the node has: `form node status` shows it")
                });
            }
            match timeout(EVENT_SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.ready.extend(self.parser.push(&bytes)?);
                    }
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(lost(&self.node).cause(error)),
                Err(_) => return Err(lost(&self.node).cause("it fell silent")),
            }
        }
    }
}
