//! One connection, one request: a command makes few, and a node that restarts between them is no special case.

use form_node::{ApiError, ErrorCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use super::limits::CONNECT_TIMEOUT;
use super::url::NodeUrl;

/// Sends a request and waits for the head of its answer.
///
/// # Errors
/// `unavailable` when the node can't be reached or goes away.
pub(super) async fn exchange(
    node: &NodeUrl,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Response<Incoming>, ApiError> {
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(node.authority())).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(node).cause(error)),
        Err(_) => return Err(unreachable(node).cause(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
    };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(node).cause(error))?;
    tokio::spawn(connection.with_upgrades());
    match timeout(patience, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(|error| lost(node).cause(error)),
        Err(_) => Err(ApiError::new(ErrorCode::Unavailable, format!("the node at {node} does not answer"))
            .cause(format!("no answer within {} s", patience.as_secs()))
            .remedy("look at the node's log; `form node status` shows whether it is up")),
    }
}

fn unreachable(node: &NodeUrl) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, format!("the node at {node} can't be reached"))
        .remedy("start it with `form node run`, or name another with --node or FORM_NODE")
}

/// The connection broke after it was made.
pub(super) fn lost(node: &NodeUrl) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, format!("the connection to the node at {node} broke"))
        .remedy("look at the node's log; `form node status` shows whether it is up")
}
