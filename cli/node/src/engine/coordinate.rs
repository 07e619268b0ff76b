//! The coordinator's effects. Each runs by itself and ends as an input.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use form_proto::{
    AttemptId, Body, CoordinatorInput, CoordinatorOutput, Member, Message, Outcome, OutcomeRead, Phase, StoreReply,
};

use super::attempt::Attempt;
use super::driver::Input;
use super::limits::LEASE_LEFT_MIN;
use super::participate::{self, Work};
use super::{Node, capture, hints, leftovers, offer, preflight};
use crate::api::types::AttemptEvent;
use crate::error::{ApiError, ErrorCode};
use crate::store;

/// Starts one effect.
pub(crate) fn carry_out(node: &Arc<Node>, id: AttemptId, output: CoordinatorOutput) {
    let Some(attempt) = node.attempt(id) else { return };
    match output {
        CoordinatorOutput::Entered(phase) => return entered(node, &attempt, phase),
        CoordinatorOutput::Send(member, message) => return send(node, &attempt, member, message),
        _ => {}
    }
    let node = Arc::clone(node);
    tokio::spawn(async move {
        use CoordinatorInput as In;
        let input = match output {
            CoordinatorOutput::Preflight(member) => match preflight::ask(&node, &attempt, member).await {
                Ok(()) => In::Fit(member),
                Err(error) => {
                    attempt.failed_at(member, error);
                    In::Unfit(member)
                }
            },
            CoordinatorOutput::Capture => match capture::capture(&node, &attempt).await {
                Ok(commit) => In::Captured(commit),
                Err(error) => {
                    attempt.failed_at(Member::SOURCE, error);
                    In::CaptureFailed
                }
            },
            CoordinatorOutput::ConfirmLease => match node.store.confirm_lease(attempt.hex(), LEASE_LEFT_MIN).await {
                Ok(store::Confirm::Confirmed { .. }) => In::LeaseConfirmed,
                lost => {
                    attempt.events.failed(lease_lost(lost.err()));
                    In::LeaseLost
                }
            },
            CoordinatorOutput::Commit(commit) => {
                let bytes = attempt.capture.get().map(|c| c.commit.encode()).unwrap_or_default();
                let answer = node.store.commit(attempt.hex(), &hex::encode(commit.0), &bytes).await;
                node.store_silence.heard(&answer);
                match answer {
                    Ok(store::Commit::Committed) => In::StoreReplied(StoreReply::Applied),
                    Ok(store::Commit::Refused(refusal)) => {
                        attempt.events.failed(refused(&refusal));
                        In::StoreReplied(StoreReply::Refused)
                    }
                    Err(error) => {
                        if attempt.unanswered.worth_a_line() {
                            tracing::error!(attempt = attempt.hex(), %error, "commit(A) was not answered: all wait");
                        }
                        In::StoreReplied(StoreReply::Unknown)
                    }
                }
            }
            CoordinatorOutput::Abort => match node.store.abort(attempt.hex(), &node.id().to_string()).await {
                Ok(store::Abort::Aborted) => In::StoreReplied(StoreReply::Applied),
                Ok(_) => In::StoreReplied(StoreReply::Refused),
                Err(error) => {
                    if attempt.unanswered.worth_a_line() {
                        tracing::warn!(attempt = attempt.hex(), %error, "abort(A) was not answered");
                    }
                    In::StoreReplied(StoreReply::Unknown)
                }
            },
            CoordinatorOutput::ReadOutcome => In::OutcomeRead(read_outcome(&node, attempt.hex()).await),
            CoordinatorOutput::Entered(_) | CoordinatorOutput::Send(..) => return,
        };
        node.input(Input::Coordinator(id, input));
    });
}

/// What the store says of an attempt.
pub(crate) async fn read_outcome(node: &Node, attempt_hex: &str) -> OutcomeRead {
    let read = node.store.outcome(attempt_hex).await;
    node.store_silence.heard(&read);
    if read.is_ok() {
        node.store_is_away.over();
    }
    match read {
        Ok(store::Outcome::Pending) => OutcomeRead::Pending,
        Ok(store::Outcome::Committed { .. }) => OutcomeRead::Committed,
        Ok(store::Outcome::Aborted) => OutcomeRead::Aborted,
        Err(error) => {
            if node.store_is_away.worth_a_line() {
                tracing::warn!(attempt = attempt_hex, %error, "the state store does not say how the attempt ended");
            }
            OutcomeRead::Unknown
        }
    }
}

/// What the store says to a participant that waits. An attempt of another node's whose lock has run out has lost its
/// coordinator: it is aborted first, or everyone would wait for that node's return.
pub(crate) async fn read_or_end(node: &Node, attempt_hex: &str) -> OutcomeRead {
    let read = read_outcome(node, attempt_hex).await;
    if read != OutcomeRead::Pending {
        return read;
    }
    let ended = async {
        let own = node.id().to_string();
        match node.store.attempt(attempt_hex).await? {
            Some(record) if record.coordinator != own => Ok(node.store.abort(attempt_hex, &own).await?),
            _ => Ok::<_, store::Error>(store::Abort::Held { coordinator: own }),
        }
    };
    match ended.await {
        Ok(store::Abort::Held { .. }) => OutcomeRead::Pending,
        Ok(_) => {
            tracing::warn!(attempt = attempt_hex, "its coordinator is gone and its lock has run out");
            read_outcome(node, attempt_hex).await
        }
        Err(_) => OutcomeRead::Unknown,
    }
}

/// Keeps the cluster's lock alive until the attempt is decided.
pub(crate) fn keep_lock(node: &Arc<Node>, attempt: &Arc<Attempt>, every: Duration) {
    let (node, attempt) = (Arc::clone(node), Arc::downgrade(attempt));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let Some(attempt) = attempt.upgrade() else { return };
            match node.store.keep_lock(attempt.hex()).await {
                Ok(true) => {}
                // Decided, or lost: then confirming the lease says so before anything is paused.
                Ok(false) => return,
                Err(error) => tracing::warn!(attempt = attempt.hex(), %error, "the lock could not be kept"),
            }
        }
    });
}

fn entered(node: &Arc<Node>, attempt: &Arc<Attempt>, phase: Phase) {
    tracing::info!(attempt = attempt.hex(), ?phase, "phase");
    match phase {
        Phase::Preflight => attempt.enter("preflight"),
        // The capture names its own steps.
        Phase::Capture => {}
        Phase::Stage => attempt.enter("stage"),
        Phase::Confirm => attempt.enter("confirm"),
        Phase::Activate => attempt.enter("activate"),
        Phase::Commit => attempt.enter("commit"),
        Phase::Abort => attempt.enter("abort"),
        Phase::Finalize(outcome) => {
            match outcome {
                Outcome::Committed => {
                    let snapshot_id = attempt.summary().snapshot_id.clone();
                    attempt.events.push(AttemptEvent::Committed { snapshot_id });
                    attempt.enter("finalize");
                }
                Outcome::Aborted => {
                    attempt.events.failed(aborted(node, attempt));
                    attempt.enter("undo");
                }
            }
            attempt.decided.store(true, Ordering::Release);
            tokio::spawn(free_source(Arc::clone(node), Arc::clone(attempt), outcome));
        }
        Phase::Settled(outcome) => {
            attempt.leave();
            tokio::spawn(settled(Arc::clone(node), Arc::clone(attempt), outcome));
        }
    }
}

/// Once it is decided, the source's own participant stands for the source: it is not held until the last target, which
/// may be gone for good, has acknowledged.
async fn free_source(node: Arc<Node>, attempt: Arc<Attempt>, outcome: Outcome) {
    let _captured = attempt.capturing.lock().await;
    hints::settle(&node, &attempt, outcome).await;
    node.committed(&attempt.record.source_instance, attempt.id);
}

async fn settled(node: Arc<Node>, attempt: Arc<Attempt>, outcome: Outcome) {
    let _captured = attempt.capturing.lock().await;
    hints::settle(&node, &attempt, outcome).await;
    node.committed(&attempt.record.source_instance, attempt.id);
    node.withdraw(attempt.id.0);
    if outcome == Outcome::Aborted {
        let staging = node.layout.staging(attempt.id, &attempt.record.source_instance);
        leftovers::discard(vec![staging], node.layout.staging_attempt(attempt.id));
    }
    if let Ok(transport) = node.transport() {
        attempt.count_socket(|id| transport.socket_bytes(id));
    }
    let mut summary = attempt.summary().clone();
    summary.total_ms = attempt.events.elapsed_ms();
    let summary = (outcome == Outcome::Committed).then(|| Box::new(summary));
    attempt.events.push(AttemptEvent::Settled { summary });
    node.attempt_is_settled(attempt.id);
}

fn send(node: &Arc<Node>, attempt: &Arc<Attempt>, member: Member, message: Message) {
    let (node, attempt) = (Arc::clone(node), Arc::clone(attempt));
    tokio::spawn(async move {
        let Some(info) = attempt.member(member) else { return };
        let payload = match message.body {
            Body::Offer { .. } => match offer::make(&node, &attempt, member) {
                Ok(payload) => payload,
                Err(error) => {
                    attempt.failed_at(member, error);
                    return node.input(Input::Coordinator(attempt.id, CoordinatorInput::Cancel));
                }
            },
            _ => Vec::new(),
        };
        if member == Member::SOURCE
            && matches!(message.body, Body::Offer { .. })
            && let Some(capture) = attempt.capture.get()
        {
            node.add_work(&info.instance_id, attempt.id, Work::of_source(&node, &attempt, capture));
        }
        let sent = attempt.one_at_a_time(member, participate::deliver(&node, info, attempt.id, message, payload));
        match sent.await {
            None => {}
            Some(Ok(())) => attempt.reached(member),
            Some(Err(error)) => {
                if attempt.unreached(member) {
                    let cause = error.cause.as_deref();
                    tracing::warn!(attempt = attempt.hex(), target = info.name, %error, cause, "not sent");
                }
                // Nothing is paused for good yet: a target that can't be reached fails the attempt rather than the
                // clock. Later on the message is sent again until it arrives.
                if matches!(message.body, Body::Offer { .. } | Body::Activate) {
                    attempt.failed_at(member, error);
                    node.input(Input::Coordinator(attempt.id, CoordinatorInput::Cancel));
                }
            }
        }
    });
}

/// Nobody else has given a reason: it took too long, or it was cancelled.
fn aborted(node: &Node, attempt: &Attempt) -> ApiError {
    let error = ApiError::new(ErrorCode::Aborted, "the commit was aborted; every instance runs what it ran before");
    if node.ending.load(Ordering::Acquire) {
        return error
            .cause("the node that coordinated it was told to end")
            .remedy("commit again when that node runs again");
    }
    if Duration::from_millis(attempt.events.elapsed_ms()) >= attempt.timeout {
        return error
            .cause(format!("it was not committed within {} s", attempt.timeout.as_secs()))
            .remedy("commit again, with a longer --timeout");
    }
    error.remedy("see the log of the node that coordinated it, then commit again")
}

fn lease_lost(error: Option<store::Error>) -> ApiError {
    let lost = ApiError::new(ErrorCode::Aborted, "the cluster's lock ran out before anything was paused")
        .remedy("see that the state store answers quickly, then commit again");
    match error {
        Some(error) => lost.cause(super::build::chain(&error)),
        None => lost,
    }
}

fn refused(refusal: &store::Refusal) -> ApiError {
    let conflict = |message: String| ApiError::new(ErrorCode::Conflict, message);
    match refusal {
        store::Refusal::HeadMoved { head } => {
            conflict(format!("another commit won: the cluster's head is {}", head.as_deref().unwrap_or("gone")))
                .remedy("look at the new head, then commit again")
        }
        store::Refusal::OtherCommit { commit_id } => conflict(format!("the attempt was committed as {commit_id}")),
        store::Refusal::EpochMoved { .. } => {
            conflict("a later attempt has begun in this cluster".into()).remedy("wait for it, then commit again")
        }
        store::Refusal::MembershipChanged => {
            conflict("instances joined or left the cluster meanwhile".into()).remedy("commit again")
        }
        store::Refusal::Aborted => conflict("the attempt was aborted meanwhile".into()).remedy("commit again"),
    }
}
