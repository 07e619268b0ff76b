//! Passing a request on to the node that it is for: same method, path, headers and body, over the nodes' own transport.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::answer::Answer;
use super::console::switching;
use super::incoming::Incoming;
use super::limits::FORWARD_WAIT;
use super::routes::Api;
use crate::error::{ApiError, ErrorCode};

/// Set by the node that passes a request on; one that has it is not passed on again.
const FORWARDED: HeaderName = HeaderName::from_static("x-form-forwarded");

/// Of one connection, not of the request.
const HOP_BY_HOP: [HeaderName; 4] = [CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING];

impl Api {
    /// Passes on a request that was not read yet.
    pub(super) async fn forward(&self, node_id: &str, mut request: Request<Body>) -> Answer {
        let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let incoming = Incoming::read(request).await?;
        self.pass_on(node_id, incoming, upgrade).await
    }

    /// Passes on a request that was read.
    pub(super) async fn forward_read(&self, node_id: &str, incoming: Incoming) -> Answer {
        self.pass_on(node_id, incoming, None).await
    }

    async fn pass_on(&self, node_id: &str, incoming: Incoming, upgrade: Option<hyper::upgrade::OnUpgrade>) -> Answer {
        let Incoming { parts, body } = incoming;
        if let Some(by) = parts.headers.get(FORWARDED) {
            return Err(ApiError::new(ErrorCode::Unavailable, "the request went round in a circle").cause(format!(
                "node {} passed it on, and it is for node {node_id}",
                String::from_utf8_lossy(by.as_bytes())
            )));
        }
        let lost = |error: hyper::Error| {
            ApiError::new(ErrorCode::Unavailable, format!("node {node_id} did not answer")).cause(error)
        };
        let stream = self.core.peer_http(node_id).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let node = node_id.to_owned();
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%node, %error, "a passed-on request's connection ended");
            }
        });

        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder()
            .method(parts.method)
            .uri(path)
            .body(Full::new(body))
            .map_err(|error| ApiError::new(ErrorCode::Internal, "the request can't be passed on").cause(error))?;
        *request.headers_mut() = self.headers(parts.headers, upgrade.is_some());
        let response = tokio::time::timeout(FORWARD_WAIT, sender.send_request(request)).await;
        let mut response = match response {
            Ok(response) => response.map_err(lost)?,
            Err(_) => {
                return Err(ApiError::new(ErrorCode::Unavailable, format!("node {node_id} did not answer"))
                    .cause(format!("it took longer than {} s", FORWARD_WAIT.as_secs())));
            }
        };

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let protocol = response.headers().get(UPGRADE).cloned();
            let (Some(client), Some(protocol)) = (upgrade, protocol) else {
                return Err(ApiError::new(ErrorCode::Internal, format!("node {node_id} upgraded a plain request")));
            };
            let peer = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                match tokio::try_join!(client, peer) {
                    // Either side may go at any time.
                    Ok((client, peer)) => {
                        drop(copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(peer)).await);
                    }
                    Err(error) => tracing::debug!(%error, "one side of a passed-on upgrade went"),
                }
            });
            return Ok(switching(protocol));
        }
        let (mut head, body) = response.into_parts();
        head.headers.remove(TRANSFER_ENCODING);
        head.headers.remove(CONNECTION);
        // The connection to the peer lives as long as the body: its sender goes with it.
        let body = body.map_frame(move |frame| {
            let _keep = &sender;
            frame
        });
        Ok(Response::from_parts(head, Body::new(body)))
    }

    fn headers(&self, mut headers: HeaderMap, upgrade: bool) -> HeaderMap {
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
        if !upgrade {
            headers.remove(CONNECTION);
        }
        headers.entry(HOST).or_insert(HeaderValue::from_static("node"));
        // A node id is hex.
        if let Ok(by) = HeaderValue::from_str(&self.core.node_id()) {
            headers.insert(FORWARDED, by);
        }
        headers
    }
}
