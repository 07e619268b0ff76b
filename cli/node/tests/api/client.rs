//! A client that can be wrong in every way.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use form_node::auth::{NOTHING, RequestMessage, SigningKey, sign};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use crate::fake::{CLUSTER, Nodes, id};

/// A request as it will be sent; change what you like.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    /// Status and code of an error; every error is complete.
    pub(crate) fn error(&self) -> (u16, String) {
        let error = self.json();
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{error}");
        (self.status.as_u16(), error["code"].as_str().expect("a code").to_owned())
    }
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("small")
}

pub(crate) fn nonce() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_le_bytes()
}

pub(crate) fn call(method: &'static str, path: &str, body: &str) -> Call {
    Call { method, path: path.into(), headers: vec![], body: body.into() }
}

/// The message for a call, about instance `n` of the cluster, or about nothing.
pub(crate) fn message(nodes: &Nodes, call: &Call, instance: Option<u32>) -> RequestMessage {
    RequestMessage {
        installation: nodes.store.installation_id().into(),
        cluster: instance.map_or(NOTHING, |_| CLUSTER).into(),
        instance: instance.map_or(NOTHING.into(), id),
        method: call.method.into(),
        path: call.path.replacen("/v1/", "/api/v1/", usize::from(call.path.starts_with("/v1/"))),
        body_sha256: Sha256::digest(&call.body).into(),
        time_ms: now_ms(),
        nonce: nonce(),
    }
}

impl Call {
    pub(crate) fn signed_with(mut self, key: &SigningKey, message: &RequestMessage) -> Self {
        self.headers.extend(sign(key, message).to_headers());
        self
    }

    pub(crate) fn signed(self, nodes: &Nodes, key: &SigningKey, instance: Option<u32>) -> Self {
        let message = message(nodes, &self, instance);
        self.signed_with(key, &message)
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) async fn send(&self, to: SocketAddr) -> Reply {
        let response = self.open(to).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("body").to_bytes();
        Reply { status: head.status, headers: head.headers, body }
    }

    /// The response with its body still to come.
    pub(crate) async fn open(&self, to: SocketAddr) -> Response<hyper::body::Incoming> {
        let stream = TcpStream::connect(to).await.expect("connect");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("handshake");
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().method(self.method).uri(&self.path).header("host", to.to_string());
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(self.body.clone()))).expect("request");
        sender.send_request(request).await.expect("a response")
    }
}
