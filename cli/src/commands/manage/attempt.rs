//! How an attempt stands, in words: its phase, and who waits for whom, as far as its last event tells.

use form_node::ApiError;
use form_node::ErrorCode;
use form_node::api::types::{AttemptEvent, AttemptView};

use crate::client::{Client, segment};
use crate::units::{bytes, short};

/// The attempt that an instance is in; `None` when the node that is asked does not know it.
pub(super) async fn ask(client: &Client, id: &str) -> Result<Option<AttemptView>, ApiError> {
    match client.get(&format!("/api/v1/attempts/{}", segment(id))).await {
        Ok(attempt) => Ok(Some(attempt)),
        // Settled meanwhile and forgotten.
        Err(error) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// One line.
pub(super) fn describe(attempt: &AttemptView) -> String {
    let outcome = match (attempt.outcome.as_str(), attempt.settled) {
        (outcome @ "pending", _) => outcome.to_owned(),
        (outcome, true) => format!("{outcome} and settled"),
        (outcome, false) => format!("{outcome}, not settled yet"),
    };
    match &attempt.last_event {
        // Nothing that the outcome does not say.
        Some(AttemptEvent::Settled { .. }) => outcome,
        None if attempt.waits_for.is_empty() => outcome,
        None => format!("{outcome}; waits for {}", attempt.waits_for.join("; ")),
        Some(event) => format!("{outcome}; {}", words(event)),
    }
}

fn words(event: &AttemptEvent) -> String {
    match event {
        AttemptEvent::Phase { target: None, phase, .. } => format!("{phase}: {}", of_all(phase)),
        AttemptEvent::Phase { target: Some(who), phase, .. } => match phase.as_str() {
            "ready" => format!("{who} has built its images, and waits for those that have not"),
            "active" => format!("{who} has the new VM at hand, paused, and waits for those that have not"),
            "settled" => format!("{who} has acknowledged the outcome; those that have not are waited for"),
            other => format!("{who}: {other}"),
        },
        AttemptEvent::Bytes { target: None, phase, done, total } => amount(phase, *done, *total),
        AttemptEvent::Bytes { target: Some(who), phase, done, total } => {
            format!("{who}: {}; all wait for it", amount(phase, *done, *total))
        }
        AttemptEvent::Warning { target, message } => format!("{target}: {message}"),
        AttemptEvent::Snapshot { snapshot_id } => format!("the commit's id is {}", short(snapshot_id)),
        AttemptEvent::Committed { .. } => "everyone is waited for to acknowledge it".into(),
        AttemptEvent::Failed { error } => format!("failed: {}; being undone", error.message),
        AttemptEvent::Settled { .. } => "settled".into(),
    }
}

fn amount(phase: &str, done: u64, total: u64) -> String {
    match total {
        0 => format!("{phase}, {}", bytes(done)),
        _ => format!("{phase}, {} of {}", bytes(done), bytes(total)),
    }
}

/// What goes on in a phase of the whole attempt, and who is waited for in it.
pub(super) fn of_all(phase: &str) -> &'static str {
    match phase {
        "preflight" => "waits for each target to say whether it can take the commit",
        "warm" => "copies what changed while the guest runs",
        "pause" => "the guest is paused while it is captured",
        "diff" => "finds what changed",
        "encode" => "makes recipes of what changed",
        "stage" => "waits for everyone to have the images built",
        "confirm" => "waits for the state store: is the lock still held?",
        "activate" => "waits for everyone to have the new VM at hand, paused",
        "commit" => "waits for the state store, which decides",
        "abort" => "waits for the state store to say that it is undone",
        "finalize" => "waits for everyone to acknowledge the commit",
        "undo" => "waits for everyone to have undone it",
        _ => "under way",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(outcome: &str, settled: bool, event: Option<AttemptEvent>) -> String {
        let attempt = AttemptView {
            attempt_id: "a7".into(),
            instance_id: "01".into(),
            outcome: outcome.into(),
            settled,
            last_event: event,
            waits_for: vec![],
        };
        describe(&attempt)
    }

    #[test]
    fn phase_and_who_waits_for_whom() {
        let phase = |target: Option<&str>, phase: &str| {
            Some(AttemptEvent::Phase { target: target.map(str::to_owned), phase: phase.into(), at_ms: 0 })
        };
        for (shown, outcome, event) in [
            ("pending; stage: waits for everyone to have the images built", "pending", phase(None, "stage")),
            (
                "pending; demo-2 has built its images, and waits for those that have not",
                "pending",
                phase(Some("demo-2"), "ready"),
            ),
            (
                "committed, not settled yet; demo-2 has acknowledged the outcome; those that have not are waited for",
                "committed",
                phase(Some("demo-2"), "settled"),
            ),
            ("pending", "pending", None),
        ] {
            assert_eq!(line(outcome, false, event), shown);
        }
        let settled = Some(AttemptEvent::Settled { summary: None });
        assert_eq!(line("aborted", true, settled), "aborted and settled");
    }
}
