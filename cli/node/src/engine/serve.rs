//! What this node does for its peers.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use borsh::BorshDeserialize;
use bytes::Bytes;
use form_proto::{AttemptId, Body, CoordinatorInput, Message, Outcome, ParticipantInput};
use form_transport::limits::INDEX_PIECE_BYTES;
use form_transport::{BiStream, BulkRequest, Envelope, ItemSink, NodeId, PeerAddr, Service};

use super::build::chain;
use super::driver::Input;
use super::limits::{ANSWER_TIMEOUT, SEED_TIMEOUT};
use super::participate::Work;
use super::peer::{Answer, Packet, Question};
use super::{Node, blocking, encode, participate, preflight, seed};
use crate::error::{ApiError, ErrorCode};
use crate::store::AttemptState;

/// The node behind its transport.
pub(crate) struct Peers {
    pub(crate) node: Arc<Node>,
    /// The HTTP API, for requests that were passed on.
    pub(crate) api: OnceLock<axum::Router>,
}

#[async_trait]
impl Service for Peers {
    async fn trusted(&self, peer: NodeId) -> bool {
        match self.node.store.node(&peer.to_string()).await {
            Ok(record) => record.is_some(),
            Err(error) => {
                tracing::warn!(%peer, %error, "refused: the state store does not say who it is");
                false
            }
        }
    }

    async fn message(&self, from: NodeId, envelope: Envelope) {
        let attempt = AttemptId(envelope.attempt);
        match Packet::try_from_slice(&envelope.body) {
            Ok(Packet::Protocol { message, payload }) => match Message::decode(&message) {
                Ok(message) if message.attempt == attempt => {
                    receive(&self.node, from, attempt, &envelope.instance, message, payload).await;
                }
                Ok(_) => tracing::warn!(%from, "a message of another attempt than its envelope's is dropped"),
                Err(error) => tracing::warn!(%from, %error, "dropped"),
            },
            Ok(packet) => progress(&self.node, from, attempt, &envelope.instance, packet),
            Err(error) => tracing::warn!(%from, %error, "a malformed packet is dropped"),
        }
    }

    async fn request(&self, from: NodeId, body: Vec<u8>) -> Vec<u8> {
        let answer = match serde_json::from_slice::<Question>(&body) {
            Ok(question) => answer(&self.node, from, question).await,
            Err(error) => Answer::Refused {
                error: ApiError::new(ErrorCode::BadRequest, "not a question of a node's").cause(error),
            },
        };
        serde_json::to_vec(&answer).unwrap_or_default()
    }

    async fn fetch(&self, from: NodeId, request: Vec<u8>, sink: ItemSink) -> Result<(), String> {
        let request = BulkRequest::decode(&request).map_err(|e| chain(&e))?;
        let outgoing = self.node.outgoing(request.session()).ok_or("no such session, or it is over")?;
        if !outgoing.allowed.contains(&from) {
            return Err("these frames are not for this node".into());
        }
        let (path, index) = outgoing.encodings.get(&request.index()).ok_or("no such encoding in this session")?;
        let BulkRequest::Frames { ranges, .. } = request else {
            let encoded = Bytes::from(index.encode());
            for start in (0..encoded.len()).step_by(INDEX_PIECE_BYTES) {
                let end = encoded.len().min(start + INDEX_PIECE_BYTES);
                sink.send(encoded.slice(start..end)).await.map_err(|e| chain(&e))?;
            }
            return Ok(());
        };
        let file = Arc::new(File::open(path).map_err(|e| e.to_string())?);
        for range in ranges {
            let mut start = index.frame_range(range.first).map_err(|e| chain(&e))?.start;
            for number in range.numbers() {
                let frame = index.frames.get(number as usize).ok_or("the encoding has fewer frames")?;
                let (file, at) = (Arc::clone(&file), start..start + u64::from(frame.len_bytes));
                start = at.end;
                let read = blocking("read a frame", move || {
                    encode::read_frame(&file, at).map_err(|e| ApiError::internal("read a frame", e))
                });
                sink.send(read.await.map_err(|e| e.to_string())?).await.map_err(|e| chain(&e))?;
                (outgoing.on_sent)(from, u64::from(frame.len_bytes));
            }
        }
        Ok(())
    }

    async fn http(&self, _from: NodeId, stream: BiStream) {
        let Some(api) = self.api.get() else { return };
        if let Err(error) = crate::api::serve_connection(api.clone(), stream).await {
            tracing::debug!(%error, "a request that was passed on broke off");
        }
    }
}

/// Hands a message to the machine it is for, if it comes from whom it must.
pub(crate) async fn receive(
    node: &Arc<Node>,
    from: NodeId,
    attempt: AttemptId,
    instance: &str,
    message: Message,
    payload: Vec<u8>,
) {
    match message.body {
        Body::Offer { .. } | Body::Activate | Body::Decided(_) => {
            let local = node.db.instance(instance);
            if matches!((&local, message.body), (Ok(None), Body::Decided(_))) {
                return participate::gone(node, from, instance, message).await;
            }
            let (Ok(Some(local)), Ok(Some(record))) = (local, node.store.attempt(&hex::encode(attempt.0)).await) else {
                return tracing::warn!(%from, instance, "a message for an instance or attempt that is not known here");
            };
            if record.coordinator != from.to_string() || record.epoch != message.epoch.0 {
                return tracing::warn!(%from, instance, "a message that is not from the attempt's coordinator");
            }
            let stands = match message.body {
                Body::Decided(Outcome::Committed) => record.state == AttemptState::Committed,
                Body::Decided(Outcome::Aborted) => record.state == AttemptState::Aborted,
                _ => true,
            };
            if !stands {
                return tracing::error!(%from, instance, "an outcome that the store does not hold");
            }
            if matches!(message.body, Body::Offer { .. }) {
                node.add_work(instance, attempt, Work::of_target(&local.cluster_id, from, attempt, payload));
            }
            node.input(Input::Participant(instance.to_owned(), ParticipantInput::Message(message)));
        }
        Body::Ready | Body::Active | Body::Refused(_) | Body::Settled(_) => {
            let Some(coordinated) = node.attempt(attempt) else { return };
            let member = coordinated.member_of(instance);
            let Some((member, info)) = member.and_then(|m| Some((m, coordinated.member(m)?))) else { return };
            if info.peer.id != from {
                return tracing::warn!(%from, instance, "a message from a node that does not host its instance");
            }
            match message.body {
                Body::Refused(_) | Body::Settled(Outcome::Aborted) => {
                    if let Ok(error) = serde_json::from_slice(&payload) {
                        coordinated.failed_at(member, error);
                    }
                    if matches!(message.body, Body::Settled(_)) {
                        coordinated.events.phase(Some(&info.name), "settled");
                    }
                }
                Body::Ready => coordinated.events.phase(Some(&info.name), "ready"),
                Body::Active => coordinated.events.phase(Some(&info.name), "active"),
                Body::Settled(Outcome::Committed) => {
                    coordinated.events.phase(Some(&info.name), "settled");
                    let mut summary = coordinated.summary();
                    let target = summary.targets.iter_mut().find(|t| t.instance == info.name);
                    if let (Some(target), Ok(report)) =
                        (target, serde_json::from_slice::<super::work::Report>(&payload))
                    {
                        report.into_summary(target);
                    }
                }
                _ => {}
            }
            node.input(Input::Coordinator(attempt, CoordinatorInput::Message(member, message)));
        }
    }
}

/// How far a target is.
pub(crate) fn progress(node: &Node, from: NodeId, attempt: AttemptId, instance: &str, packet: Packet) {
    let Some(attempt) = node.attempt(attempt) else { return };
    let info = attempt.member_of(instance).and_then(|m| attempt.member(m));
    let Some(info) = info.filter(|info| info.peer.id == from) else { return };
    match packet {
        Packet::Progress { phase, done, total } => attempt.events.bytes(Some(&info.name), &phase, done, total),
        Packet::Warning { message } => attempt.events.warn(&info.name, &message),
        Packet::Protocol { .. } => {}
    }
}

/// Asks a node; ourselves too.
pub(crate) async fn ask(node: &Arc<Node>, peer: &PeerAddr, question: &Question) -> Result<Answer, ApiError> {
    if peer.id == node.id() {
        return Ok(Box::pin(answer(node, node.id(), question.clone())).await);
    }
    let body = serde_json::to_vec(question).map_err(|e| ApiError::internal("encode a question", e))?;
    let limit = if matches!(question, Question::Seed { .. }) { SEED_TIMEOUT } else { ANSWER_TIMEOUT };
    let reply = tokio::time::timeout(limit, node.transport()?.request(peer, body)).await;
    let reply = reply.map_err(|_| {
        ApiError::new(ErrorCode::TargetUnavailable, format!("node {} does not answer", peer.id))
            .cause(format!("it was asked {} s ago", limit.as_secs()))
            .remedy("see that node's log, then try again")
    })?;
    let reply = reply.map_err(unreachable)?;
    serde_json::from_slice(&reply).map_err(|e| ApiError::internal("read a node's answer", e))
}

async fn answer(node: &Arc<Node>, from: NodeId, question: Question) -> Answer {
    let answered = match question {
        Question::Preflight(ask) => preflight::answer(node, &ask).await.map(Answer::Fit),
        Question::Origin { instance, request } => seed::origin(node, &instance, &request).await,
        Question::Seed { instance, request, roots } => seed::offer(node, from, &instance, &request, &roots).await,
        Question::SeedDone { session } => seed::done(node, from, &session),
    };
    answered.unwrap_or_else(|error| Answer::Refused { error })
}

/// A peer that could not be talked to.
pub(crate) fn unreachable(error: form_transport::Error) -> ApiError {
    ApiError::new(ErrorCode::TargetUnavailable, "a node can't be reached")
        .cause(chain(&error))
        .remedy("see that `form node run` is up on that host and that UDP reaches it, then try again")
}
