//! The participants' effects, and the way of messages between them and coordinators.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use form_proto::{AttemptId, Body, CoordinatorInput, Message, Outcome, ParticipantInput, ParticipantOutput, Refusal};
use form_transport::{Envelope, NodeId, PeerAddr};
use futures_util::FutureExt as _;

use super::again::Again;
use super::attempt::{Attempt, MemberInfo};
use super::capture::Capture;
use super::driver::Input;
use super::limits::PERSIST_RETRY;
use super::peer::Packet;
use super::work::{Report, Role, WorkContext};
use super::{Node, blocking, coordinate, source, target};
use crate::error::ApiError;

/// What a participant's effects share while they work on one attempt.
pub(crate) struct Work {
    /// The offer as it arrived.
    pub(crate) payload: Vec<u8>,
    context: Mutex<WorkContext>,
    report: Mutex<Report>,
    error: Mutex<Option<ApiError>>,
    pub(crate) staging: Mutex<Option<tokio::task::AbortHandle>>,
    pub(crate) paused_at: Mutex<Option<Instant>>,
    /// How often the old VM could not be restored.
    pub(crate) restores_failed: AtomicU32,
}

impl Work {
    pub(crate) fn new(context: WorkContext, payload: Vec<u8>) -> Self {
        Self {
            payload,
            context: Mutex::new(context),
            report: Mutex::default(),
            error: Mutex::default(),
            staging: Mutex::default(),
            paused_at: Mutex::default(),
            restores_failed: AtomicU32::new(0),
        }
    }

    pub(crate) fn of_source(node: &Node, attempt: &Attempt, capture: &Capture) -> Self {
        let roots = capture.commit.artifacts.iter().map(|a| (a.name.clone(), a.root.to_string())).collect();
        let context = WorkContext {
            role: Role::Source,
            cluster: attempt.record.cluster_id.clone(),
            coordinator: node.id().to_string(),
            commit_id: hex::encode(capture.commit_id.0),
            description: attempt.description.clone(),
            time_ms: capture.commit.time_ms,
            roots,
            live: String::new(),
            hashed: Default::default(),
            vmm: String::new(),
            saves_old: false,
        };
        Self::new(context, Vec::new())
    }

    /// A target's, when all that is known is who offers.
    pub(crate) fn of_target(cluster: &str, from: NodeId, attempt: AttemptId, payload: Vec<u8>) -> Self {
        let context = WorkContext {
            role: Role::Target,
            cluster: cluster.to_owned(),
            coordinator: from.to_string(),
            commit_id: String::new(),
            description: String::new(),
            time_ms: 0,
            roots: Default::default(),
            live: target::live_name(attempt),
            hashed: Default::default(),
            vmm: String::new(),
            saves_old: false,
        };
        Self::new(context, payload)
    }

    pub(crate) fn context(&self) -> MutexGuard<'_, WorkContext> {
        self.context.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: ApiError) {
        tracing::warn!(%error, cause = error.cause, "this instance can't take part");
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn payload_of(&self, body: Body) -> Vec<u8> {
        let json = match body {
            Body::Refused(_) | Body::Settled(Outcome::Aborted) => {
                match &*self.error.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some(error) => serde_json::to_vec(error),
                    None => return Vec::new(),
                }
            }
            Body::Ready | Body::Settled(Outcome::Committed) => serde_json::to_vec(&*self.report()),
            _ => return Vec::new(),
        };
        json.unwrap_or_default()
    }
}

/// Starts one effect.
pub(crate) fn carry_out(node: &Arc<Node>, instance: &str, output: ParticipantOutput) {
    let (node, instance) = (Arc::clone(node), instance.to_owned());
    match output {
        ParticipantOutput::Persist(record) => {
            tokio::spawn(async move {
                let attempt = record.work.map(|(_, w)| w.attempt).or(record.settled.map(|s| s.attempt));
                let context = attempt.and_then(|a| node.work(&instance, a)).map(|w| w.context().clone());
                let failures = Again::default();
                loop {
                    let (db, name, context) = (node.db.clone(), instance.clone(), context.clone());
                    let write = move || db.put_participant(&name, &record, context.as_ref());
                    match blocking("write a record", write).await {
                        Ok(()) => break,
                        Err(error) if failures.worth_a_line() => {
                            tracing::error!(%error, cause = error.cause, "tried again every second");
                        }
                        Err(_) => {}
                    }
                    tokio::time::sleep(PERSIST_RETRY).await;
                }
                node.input(Input::Participant(instance, ParticipantInput::Persisted));
            });
        }
        ParticipantOutput::Send(message) => {
            tokio::spawn(async move { send(&node, &instance, message).await });
        }
        ParticipantOutput::Stage(work) => {
            // Every earlier attempt is settled here: what its effects shared is needed no more.
            node.forget_other_works(&instance, work.attempt);
            let Some(shared) = node.work(&instance, work.attempt) else {
                return node.input(Input::Participant(instance, ParticipantInput::StageFailed(work.attempt)));
            };
            let handle = tokio::spawn({
                let shared = Arc::clone(&shared);
                async move {
                    let role = shared.context().role;
                    let staged = unpanicked(async {
                        match role {
                            Role::Source => source::stage(&node, &instance, &work).await,
                            Role::Target => target::stage(&node, &instance, &work, &shared).await,
                        }
                    });
                    let input = match staged.await {
                        Ok(()) => ParticipantInput::Staged(work.attempt),
                        Err(error) => {
                            shared.fail(error);
                            ParticipantInput::StageFailed(work.attempt)
                        }
                    };
                    node.input(Input::Participant(instance, input));
                }
            });
            *shared.staging.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle.abort_handle());
        }
        ParticipantOutput::Discard(attempt) => {
            drop(node.memory.held(&hex::encode(attempt.0), &instance));
            if let Some(shared) = node.work(&instance, attempt) {
                if let Some(task) = shared.staging.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    task.abort();
                }
                target::discard(&node, &instance, attempt, &shared.context());
            }
        }
        ParticipantOutput::Activate(work) => act(node, instance, work, Act::Activate),
        ParticipantOutput::Finalize(work) => act(node, instance, work, Act::Finalize),
        ParticipantOutput::RollBack(work) => act(node, instance, work, Act::RollBack),
        ParticipantOutput::Acknowledge(settled) => {
            tokio::spawn(async move {
                let attempt_hex = hex::encode(settled.attempt.0);
                // It may have been asked whether there is space, and never offered anything.
                drop([node.space.held(&attempt_hex, &instance), node.memory.held(&attempt_hex, &instance)]);
                let input = match node.store.acknowledge(&attempt_hex, &instance).await {
                    Ok(_) => ParticipantInput::Acknowledged(settled.attempt),
                    Err(error) => {
                        tracing::warn!(instance, %error, "the outcome is carried out, but the store was not told");
                        ParticipantInput::NotAcknowledged(settled.attempt)
                    }
                };
                node.input(Input::Participant(instance, input));
            });
        }
        ParticipantOutput::ReadOutcome(attempt) => {
            tokio::spawn(async move {
                let read = coordinate::read_or_end(&node, &hex::encode(attempt.0)).await;
                node.input(Input::Participant(instance, ParticipantInput::OutcomeRead(attempt, read)));
            });
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Activate,
    Finalize,
    RollBack,
}

fn act(node: Arc<Node>, instance: String, work: form_proto::Work, act: Act) {
    tokio::spawn(async move {
        let shared = node.work(&instance, work.attempt);
        let done = match &shared {
            Some(shared) => unpanicked(carry_on(&node, &instance, &work, shared, act)).await,
            None => Err(ApiError::internal("go on with an attempt", "what is known of it was lost")),
        };
        let input = match (act, done) {
            (Act::Activate, Ok(())) => ParticipantInput::Activated(work.attempt),
            (Act::Finalize, Ok(())) => ParticipantInput::Finalized(work.attempt),
            (Act::RollBack, Ok(())) => ParticipantInput::RolledBack(work.attempt),
            (Act::Activate, Err(error)) => {
                if let Some(shared) = shared {
                    shared.fail(error);
                }
                ParticipantInput::ActivateFailed(work.attempt)
            }
            (_, Err(error)) => {
                if node.effects_fail.worth_a_line() {
                    tracing::error!(instance, ?act, %error, cause = error.cause, "tried again every second");
                }
                ParticipantInput::EffectFailed(work.attempt)
            }
        };
        if matches!(input, ParticipantInput::Finalized(_) | ParticipantInput::RolledBack(_)) {
            node.effects_fail.over();
        }
        node.input(Input::Participant(instance, input));
    });
}

async fn carry_on(
    node: &Arc<Node>,
    instance: &str,
    work: &form_proto::Work,
    shared: &Work,
    act: Act,
) -> Result<(), ApiError> {
    let role = shared.context().role;
    match (act, role) {
        (Act::Activate, Role::Source) => Ok(()),
        (Act::Activate, Role::Target) => target::activate(node, instance, work, shared).await,
        (Act::Finalize, Role::Source) => source::finalize(node, instance, work, shared).await,
        (Act::Finalize, Role::Target) => target::finalize(node, instance, work, shared).await,
        (Act::RollBack, Role::Source) => source::roll_back(node, instance, work),
        (Act::RollBack, Role::Target) => target::roll_back(node, instance, work, shared).await,
    }
}

/// The machine waits for an answer: a panic is one.
async fn unpanicked(effect: impl Future<Output = Result<(), ApiError>>) -> Result<(), ApiError> {
    let done = AssertUnwindSafe(effect).catch_unwind().await;
    done.unwrap_or_else(|_| Err(ApiError::internal("carry out an effect", "it panicked; the log says where")))
}

/// A participant's message, to the coordinator.
async fn send(node: &Arc<Node>, instance: &str, message: Message) {
    let shared = node.work(instance, message.attempt);
    let payload = shared.as_ref().map(|w| w.payload_of(message.body)).unwrap_or_default();
    let coordinator = match shared {
        Some(shared) => Some(shared.context().coordinator.clone()),
        None => node.store.attempt(&hex::encode(message.attempt.0)).await.ok().flatten().map(|a| a.coordinator),
    };
    let Some(coordinator) = coordinator else { return };
    let sent = if coordinator == node.id().to_string() {
        super::serve::receive(node, node.id(), message.attempt, instance, message, payload).await;
        Ok(())
    } else {
        let packet = packet(message, payload);
        match node.peer(&coordinator).await {
            Ok(peer) => post(node, &peer, message.attempt, instance, packet).await,
            Err(error) => Err(error),
        }
    };
    if let Err(error) = sent {
        tracing::warn!(instance, %error, cause = error.cause, "the coordinator was not reached");
    }
}

/// The answer for an instance that was deleted since it was offered something: nothing of that is left here.
pub(crate) async fn gone(node: &Arc<Node>, to: NodeId, instance: &str, message: Message) {
    let message = Message { body: Body::Refused(Refusal::Stale), ..message };
    if to == node.id() {
        let Some(member) = node.attempt(message.attempt).and_then(|a| a.member_of(instance)) else { return };
        return node.input(Input::Coordinator(message.attempt, CoordinatorInput::Message(member, message)));
    }
    let sent = match node.peer(&to.to_string()).await {
        Ok(peer) => post(node, &peer, message.attempt, instance, packet(message, Vec::new())).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::warn!(instance, %error, cause = error.cause, "the coordinator was not reached");
    }
}

/// A coordinator's message, to a participant on whatever node.
pub(crate) async fn deliver(
    node: &Arc<Node>,
    to: &MemberInfo,
    attempt: AttemptId,
    message: Message,
    payload: Vec<u8>,
) -> Result<(), ApiError> {
    if to.peer.id == node.id() {
        super::serve::receive(node, node.id(), attempt, &to.instance_id, message, payload).await;
        return Ok(());
    }
    post(node, &to.peer, attempt, &to.instance_id, packet(message, payload)).await
}

fn packet(message: Message, payload: Vec<u8>) -> Packet {
    Packet::Protocol { message: message.encode(), payload }
}

/// Sends a packet to a node.
pub(crate) async fn post(
    node: &Arc<Node>,
    to: &PeerAddr,
    attempt: AttemptId,
    instance: &str,
    packet: Packet,
) -> Result<(), ApiError> {
    let body = borsh::to_vec(&packet).map_err(|e| ApiError::internal("encode a message", e))?;
    let envelope = Envelope { attempt: attempt.0, instance: instance.to_owned(), body };
    node.transport()?.send(to, envelope).await.map_err(super::serve::unreachable)
}
