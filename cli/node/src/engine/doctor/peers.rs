//! The installation's other nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;

use super::{Findings, Patient};
use crate::engine::Node;
use crate::engine::serve::unreachable;
use crate::error::{ApiError, ErrorCode};

/// A node that does not answer within this is as good as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn peers(findings: &mut Findings, patient: &Patient<'_>) {
    let (Some(store), Some(node)) = (&patient.store, patient.node) else {
        return findings.ok("nodes", "the other nodes are asked by a node that runs alone");
    };
    let read = async { Ok::<_, crate::store::Error>((store.nodes().await?, store.instances().await?)) };
    // Not read: said of the store already.
    let Ok((nodes, instances)) = read.await else { return };
    let own = node.id().to_string();
    let others: Vec<_> = nodes.into_iter().filter(|other| other.node_id != own).collect();
    let asked = join_all(others.iter().map(|other| async {
        let reach = answers(node, &other.node_id);
        match tokio::time::timeout(ANSWER_WITHIN, reach).await {
            Ok(reached) => reached,
            Err(_) => Err(ApiError::new(ErrorCode::TargetUnavailable, "no answer within 5 s")),
        }
    }));
    let mut reached = 0;
    for (other, answer) in others.iter().zip(asked.await) {
        let Err(error) = answer else {
            reached += 1;
            continue;
        };
        let ours = |cluster: &str| patient.instances.iter().any(|local| local.cluster_id == cluster);
        let hosted = instances.iter().filter(|i| i.node_id == other.node_id && ours(&i.cluster_id));
        let hosted: Vec<&str> = hosted.map(|i| i.name.as_str()).collect();
        let why = error.cause.as_deref().unwrap_or(&error.message);
        let message = format!("node {} at {} does not answer: {why}", other.node_id, other.quic_addr);
        if hosted.is_empty() {
            let remedy =
                format!("if it is gone for good: form node remove {} --store {}", other.node_id, patient.config.store);
            findings.note("nodes", message, remedy);
        } else {
            let remedy = format!(
                "run it, and let UDP {} through: commits to {} are refused until then",
                other.quic_addr,
                hosted.join(", ")
            );
            findings.problem("nodes", message, remedy);
        }
    }
    if reached == others.len() {
        findings.ok("nodes", format!("{reached} others answer"));
    }
}

/// Asks a node for something that it has at hand. A stream that opens says nothing yet: the other end may just have gone.
async fn answers(node: &Arc<Node>, node_id: &str) -> Result<(), ApiError> {
    let silent = |error: hyper::Error| {
        ApiError::new(ErrorCode::TargetUnavailable, format!("node {node_id} did not answer")).cause(error)
    };
    let peer = node.peer(node_id).await?;
    let stream = node.transport()?.open_http(&peer).await.map_err(unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(silent)?;
    tokio::spawn(connection);
    let request = Request::get("/api/v1/openapi.json").header(HOST, "node").body(Empty::<Bytes>::new());
    let request = request.map_err(|e| ApiError::internal("ask a node", e))?;
    sender.send_request(request).await.map(drop).map_err(silent)
}
