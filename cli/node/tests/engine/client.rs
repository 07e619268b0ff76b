//! The API of a node as a client meets it.

use std::io;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use form_node::ApiError;
use form_node::api::types::AttemptEvent;
use form_node::auth::{NOTHING, RequestMessage, SignedRequest, SigningKey, sign};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

/// Status and JSON.
pub(crate) type Reply = (StatusCode, Value);

/// A signed request, to be sent as often as one likes.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: String,
    pub(crate) request: SignedRequest,
}

/// What a request is about: cluster and instance.
pub(crate) type Subject<'a> = Option<(&'a str, &'a str)>;

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("small")
}

pub(crate) fn message(
    installation: &str,
    subject: Subject<'_>,
    method: &str,
    path: &str,
    body: &str,
) -> RequestMessage {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).expect("random bytes");
    let (cluster, instance) = subject.unwrap_or((NOTHING, NOTHING));
    RequestMessage {
        installation: installation.into(),
        cluster: cluster.into(),
        instance: instance.into(),
        method: method.into(),
        path: path.into(),
        body_sha256: Sha256::digest(body).into(),
        time_ms: now_ms(),
        nonce,
    }
}

impl Signed {
    pub(crate) fn new(
        key: &SigningKey,
        installation: &str,
        subject: Subject<'_>,
        method: &'static str,
        path: &str,
        body: String,
    ) -> Self {
        let request = sign(key, &message(installation, subject, method, path, &body));
        Self { method, path: path.into(), body, request }
    }

    /// The answer, unless whoever was asked is gone.
    pub(crate) async fn ask(&self, to: SocketAddr) -> io::Result<Reply> {
        exchange(to, self.method, &self.path, &self.body, Some(&self.request)).await
    }

    /// As [`Signed::ask`], when there has to be an answer.
    pub(crate) async fn send(&self, to: SocketAddr) -> Reply {
        self.ask(to).await.expect("an answer")
    }

    /// As [`Signed::send`], when it has to work.
    pub(crate) async fn accepted(&self, to: SocketAddr) -> Value {
        let (status, json) = self.send(to).await;
        assert!(status.is_success(), "{} {}: {status} {json}", self.method, self.path);
        json
    }

    /// As [`Signed::send`], when it has to be refused.
    pub(crate) async fn refused(&self, to: SocketAddr) -> ApiError {
        let (status, json) = self.send(to).await;
        assert!(!status.is_success(), "{} {}: {status} {json}", self.method, self.path);
        serde_json::from_value(json).expect("an error")
    }
}

pub(crate) async fn get(to: SocketAddr, path: &str) -> io::Result<Reply> {
    exchange(to, "GET", path, "", None).await
}

/// All events of an attempt, to the end of their stream.
pub(crate) async fn events(to: SocketAddr, attempt: &str) -> Vec<AttemptEvent> {
    let path = format!("/api/v1/attempts/{attempt}/events");
    let (status, text) = raw(to, "GET", &path, "", None).await.expect("an answer");
    let text = String::from_utf8(text.to_vec()).expect("UTF-8");
    assert_eq!(status, StatusCode::OK, "{text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.map(|json| serde_json::from_str(json.trim()).expect("an event")).collect()
}

async fn exchange(
    to: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    signed: Option<&SignedRequest>,
) -> io::Result<Reply> {
    let (status, body) = raw(to, method, path, body, signed).await?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("not JSON: {body:?}"))))
}

async fn raw(
    to: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    signed: Option<&SignedRequest>,
) -> io::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
    for (name, value) in signed.iter().flat_map(|signed| signed.to_headers()) {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}
