//! Plain and signed requests, their answers and errors.

use form_node::api::types::{InstanceView, NodeView};
use form_node::{ApiError, ErrorCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Duration, timeout};

use super::connection::{exchange, lost};
use super::limits::{ANSWER_BYTES_MAX, ANSWER_TIMEOUT, WORK_TIMEOUT};
use super::signer::{Signer, Subject};
use super::url::NodeUrl;

/// How long an answer may take.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// It is at hand.
    Answer,
    /// It comes after the work.
    Work,
}

impl Patience {
    fn limit(self) -> Duration {
        match self {
            Self::Answer => ANSWER_TIMEOUT,
            Self::Work => WORK_TIMEOUT,
        }
    }
}

/// A node's API.
#[derive(Clone)]
pub(crate) struct Client {
    node: NodeUrl,
}

impl Client {
    pub(crate) fn new(node: NodeUrl) -> Self {
        Self { node }
    }

    pub(crate) fn node(&self) -> &NodeUrl {
        &self.node
    }

    /// The node itself: asked first, since requests are signed for its installation.
    pub(crate) async fn node_view(&self) -> Result<NodeView, ApiError> {
        self.get("/api/v1/node").await
    }

    /// An instance by id or name.
    pub(crate) async fn instance(&self, id_or_name: &str) -> Result<InstanceView, ApiError> {
        self.get(&format!("/api/v1/instances/{}", segment(id_or_name))).await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let answer = self.open(path, "application/json").await?;
        self.read(answer).await
    }

    /// The answer to a GET as soon as its head is there; an error status is an error.
    pub(super) async fn open(&self, path: &str, accept: &str) -> Result<Response<Incoming>, ApiError> {
        let request = self.builder(&Method::GET, path).header(ACCEPT, accept).body(Full::default()).map_err(ours)?;
        let answer = exchange(&self.node, request, ANSWER_TIMEOUT).await?;
        self.refuse_errors(answer).await
    }

    /// A signed request with a JSON body.
    pub(crate) async fn signed<T: DeserializeOwned>(
        &self,
        signer: &Signer,
        (method, path): (Method, &str),
        subject: Subject<'_>,
        body: Option<&impl Serialize>,
        patience: Patience,
    ) -> Result<T, ApiError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(ours)?,
            None => vec![],
        };
        let mut request = self.builder(&method, path).header(CONTENT_TYPE, "application/json");
        for (name, value) in signer.headers(&method, path, subject, &body)? {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(ours)?;
        let answer = exchange(&self.node, request, patience.limit()).await?;
        let answer = self.refuse_errors(answer).await?;
        self.read(answer).await
    }

    pub(super) fn builder(&self, method: &Method, path: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(path).header(HOST, self.node.authority())
    }

    pub(super) async fn refuse_errors(&self, answer: Response<Incoming>) -> Result<Response<Incoming>, ApiError> {
        let status = answer.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let body = self.collect(answer).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
            let begin: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            ApiError::new(
                ErrorCode::Internal,
                format!("{} answered {status}, which is not how a node answers", self.node),
            )
            .cause(if begin.is_empty() { "the answer is empty".to_owned() } else { begin })
            .remedy("is --node the URL of a node's API?")
        }))
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<T, ApiError> {
        let body = self.collect(answer).await?;
        serde_json::from_slice(&body).map_err(|error| {
            ApiError::new(ErrorCode::Internal, format!("the answer of {} can't be understood", self.node))
                .cause(error)
                .remedy("is it the URL of a node's API, and of this version? `form node status` shows the version")
        })
    }

    async fn collect(&self, answer: Response<Incoming>) -> Result<Bytes, ApiError> {
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
        match timeout(ANSWER_TIMEOUT, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(lost(&self.node).cause(error)),
            Err(_) => Err(lost(&self.node).cause(format!("the answer stopped for {} s", ANSWER_TIMEOUT.as_secs()))),
        }
    }
}

/// A request that could not be built is a fault of ours.
pub(super) fn ours(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Internal, "the request could not be built").cause(error)
}

/// Text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || (byte == b'.' && text.len() > 2) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_one_segment() {
        assert_eq!(super::segment("demo-1.a_b"), "demo-1.a_b");
        assert_eq!(super::segment("../a b/ü?"), "..%2Fa%20b%2F%C3%BC%3F");
        assert_eq!(super::segment(".."), "%2E%2E");
    }
}
