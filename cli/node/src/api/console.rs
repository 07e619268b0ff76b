//! The serial console: the connection becomes its bytes, both ways.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::fs::{Mode, OFlags};
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;

use super::answer::Answer;
use super::incoming::{Id, Incoming, bad};
use super::routes::Api;
use super::signature::Subject;
use crate::auth::Level;
use crate::error::{ApiError, ErrorCode};

/// What the connection becomes.
const PROTOCOL: &str = "form-console";

pub(super) async fn console(State(api): State<Api>, Id(id): Id, mut request: Request<Body>) -> Answer {
    let (instance, cluster) = api.instance(&id).await?;
    if instance.node_id != api.core.node_id() {
        return api.forward(&instance.node_id, request).await;
    }
    if !is_upgrade_to(request.headers(), PROTOCOL) {
        return Err(
            bad("the console is a stream of bytes").remedy("send Connection: upgrade and Upgrade: form-console")
        );
    }
    let client = hyper::upgrade::on(&mut request);
    let incoming = Incoming::read(request).await?;
    api.check_once(&incoming, Subject::Instance(&instance, &cluster), Level::Operator).await?;
    let path = api.core.console(&instance.instance_id).await?;
    let mut guest = connect(&path).await.map_err(|error| {
        ApiError::new(ErrorCode::WrongState, format!("the console of {} does not answer", instance.name))
            .cause(error)
            .remedy("is it running? form manage status shows it; a console serves one client at a time")
    })?;
    tokio::spawn(async move {
        match client.await {
            // Either side may go at any time; that is how a console ends.
            Ok(client) => drop(copy_bidirectional(&mut TokioIo::new(client), &mut guest).await),
            Err(error) => tracing::debug!(%error, "the console's client went before the upgrade"),
        }
    });
    Ok(switching(HeaderValue::from_static(PROTOCOL)))
}

/// Connects to a socket by a short name: its address has 107 bytes, and an ordinary data directory with its ids more.
async fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}

/// True if the client asks for this protocol.
pub(super) fn is_upgrade_to(headers: &HeaderMap, protocol: &str) -> bool {
    let named = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v: &HeaderValue| v.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    named(CONNECTION, "upgrade") && named(UPGRADE, protocol)
}

/// 101.
pub(super) fn switching(protocol: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    response
}
