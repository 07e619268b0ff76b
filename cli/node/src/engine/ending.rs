//! What a node does when it is told to end: nothing stays half done that it can still finish or undo.
//!
//! Attempts that it coordinates are cancelled if commit(A) was not asked for yet, and finished otherwise; no new one
//! begins. What others have to say is waited for until [`ENDING_GRACE`] is over. What is left then is durable, is said in
//! the log, and is taken up again by the next run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use form_proto::CoordinatorInput;
use tokio::time::{Instant, sleep};

use super::driver::Input;
use super::limits::{ENDING_ACKNOWLEDGED, ENDING_GRACE, ENDING_POLL};
use super::{Node, flight};
use crate::error::{ApiError, ErrorCode};

/// No attempt begins on a node that ends.
pub(crate) fn refuse(node: &Node) -> Result<(), ApiError> {
    if !node.ending.load(Ordering::Acquire) {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::Unavailable, "the node is ending: it begins no commit")
        .remedy("commit when it runs again, or from an instance on another node"))
}

/// Cancels what is not decided, and waits until nothing is in flight here, or the grace is over.
pub(crate) async fn wind_down(node: &Arc<Node>) {
    node.ending.store(true, Ordering::Release);
    let began = Instant::now();
    let mut cancelled = Vec::new();
    loop {
        let in_flight = node.attempts_in_flight();
        // One may just have begun.
        for attempt in in_flight.iter().filter(|attempt| !attempt.decided.load(Ordering::Acquire)) {
            if !cancelled.contains(&attempt.id) {
                tracing::info!(attempt = attempt.hex(), "not decided yet: it is undone, as the node ends");
                cancelled.push(attempt.id);
                // Without effect once commit(A) was asked for: then the store decides, and that is carried out.
                node.input(Input::Coordinator(attempt.id, CoordinatorInput::Cancel));
            }
        }
        if in_flight.is_empty() && node.is_idle() {
            return;
        }
        let only_others = node.is_idle() && in_flight.iter().all(|attempt| attempt.decided.load(Ordering::Acquire));
        if began.elapsed() >= if only_others { ENDING_ACKNOWLEDGED } else { ENDING_GRACE } {
            break;
        }
        sleep(ENDING_POLL).await;
    }
    say_what_is_left(node);
}

fn say_what_is_left(node: &Node) {
    for attempt in node.attempts_in_flight() {
        let (attempt_hex, phase) = (attempt.hex(), attempt.phase_now().map(|(phase, _)| phase).unwrap_or_default());
        if attempt.decided.load(Ordering::Acquire) {
            tracing::warn!(
                attempt = attempt_hex,
                phase,
                "decided, not acknowledged by everyone: their nodes carry it out by themselves"
            );
        } else {
            tracing::warn!(
                attempt = attempt_hex,
                phase,
                "not decided: it is aborted when this node runs again, or when its lock has run out"
            );
        }
    }
    let participants = flight::participants(&node.db).unwrap_or_default();
    for participant in participants {
        tracing::warn!(
            instance = participant.name,
            attempt = participant.attempt_id,
            step = participant.step,
            "left in an attempt: the next run of this node finishes or undoes it; until then its VM stays as it is"
        );
    }
}
