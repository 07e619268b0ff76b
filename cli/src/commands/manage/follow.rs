//! Follows an attempt to its end: until it is settled, or until its outcome is known and somebody does not acknowledge.

use form_node::api::types::{AttemptEvent, AttemptView, CommitSummary};
use form_node::{ApiError, ErrorCode};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::replay::{RETRY_AFTER, Replay};
use crate::client::{Client, segment};
use crate::progress::Progress;
use crate::words::list;

/// Without a node for this long, the user is told where to look and the showing ends.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(30);

/// Once the outcome is known, nothing can change it: a participant that is gone is not waited for any longer than this.
pub(super) const SETTLE_WITHIN: Duration = Duration::from_secs(15);

/// Most attempts are settled before anybody need be told who is waited for.
const SAY_WHO_AFTER: Duration = Duration::from_secs(2);

/// What to follow.
pub(super) struct Follow<'a> {
    pub(super) client: &'a Client,
    pub(super) attempt_id: &'a str,
    /// Names of those who take part, the source among them.
    pub(super) participants: Vec<String>,
    /// The command that shows how it stands.
    pub(super) look: &'a str,
    pub(super) lost_after: Duration,
}

/// How the showing ended.
#[derive(Debug)]
pub(super) enum End {
    /// Committed, and everyone has acknowledged. No summary when only the outcome is known: the node was restarted and
    /// the measurements went with it.
    Settled(Option<Box<CommitSummary>>),
    /// The outcome is known, and these have not acknowledged it.
    Unsettled { outcome: Outcome, missing: Vec<String> },
}

/// As the events tell it.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// The store says so.
    Committed,
    /// Undone, or being undone.
    Failed(ApiError),
}

/// What is known so far.
struct Known {
    outcome: Option<Outcome>,
    decided: Option<Instant>,
    /// Those who have not acknowledged.
    missing: Vec<String>,
    who_was_said: bool,
}

impl Follow<'_> {
    /// Shows events until the end.
    ///
    /// # Errors
    /// That of an attempt that was undone and settled; `unavailable` when the node is gone and the outcome unknown.
    pub(super) async fn run(&self, progress: &mut Progress) -> Result<End, ApiError> {
        let mut replay = Replay::new(self.client, self.attempt_id, self.lost_after);
        let mut known = Known { outcome: None, decided: None, missing: self.participants.clone(), who_was_said: false };
        loop {
            let next = replay.next(progress);
            let event = match known.deadline() {
                None => next.await,
                Some(deadline) => match timeout_at(deadline, next).await {
                    Ok(event) => event,
                    Err(_) if known.who_was_said => return known.unsettled(),
                    Err(_) => {
                        known.who_was_said = true;
                        progress.note(&known.waiting());
                        continue;
                    }
                },
            };
            let event = match event {
                Ok(event) => event,
                Err(broke) if broke.code == ErrorCode::Unavailable => return Err(self.lost(&known, broke)),
                Err(refused) => match self.record().await.is_some_and(|record| known.learn(&record)) {
                    true => AttemptEvent::Settled { summary: None },
                    // It will not become another one.
                    false if known.outcome.is_some() => {
                        sleep(RETRY_AFTER).await;
                        continue;
                    }
                    false => return Err(refused),
                },
            };
            progress.event(&event);
            match event {
                AttemptEvent::Committed { .. } => known.decide(Outcome::Committed),
                AttemptEvent::Failed { error } => known.decide(Outcome::Failed(error)),
                AttemptEvent::Phase { target: Some(target), phase, .. } if phase == "settled" => {
                    known.missing.retain(|name| *name != target);
                }
                AttemptEvent::Settled { summary } => return known.settled(summary),
                _ => {}
            }
        }
    }

    /// What the node still knows of an attempt whose events it does not have any more.
    async fn record(&self) -> Option<AttemptView> {
        self.client.get(&format!("/api/v1/attempts/{}", segment(self.attempt_id))).await.ok()
    }

    fn lost(&self, known: &Known, broke: ApiError) -> ApiError {
        let state = match &known.outcome {
            Some(Outcome::Committed) => "it was committed, and is being settled".into(),
            Some(Outcome::Failed(error)) => format!("it had failed and was being undone: {error}"),
            None => "the commit may still go on, or be undone".to_owned(),
        };
        ApiError::new(
            ErrorCode::Unavailable,
            format!("nothing was heard of the attempt for {} s; {state}", self.lost_after.as_secs()),
        )
        .cause(broke.cause.unwrap_or(broke.message))
        .remedy(format!("look with: {}", self.look))
    }
}

impl Known {
    /// A commit that the store says was made was made, whatever failed on the way to it.
    fn decide(&mut self, outcome: Outcome) {
        if !matches!(self.outcome, Some(Outcome::Committed)) {
            self.outcome = Some(outcome);
        }
        self.decided.get_or_insert_with(Instant::now);
    }

    /// When something has to be said if nothing is heard.
    fn deadline(&self) -> Option<Instant> {
        let patience = if self.who_was_said { SETTLE_WITHIN } else { SAY_WHO_AFTER };
        self.decided.map(|at| at + patience)
    }

    fn waiting(&self) -> String {
        let outcome = match &self.outcome {
            Some(Outcome::Committed) => "committed",
            _ => "failed",
        };
        format!("{outcome}; waiting up to {} s for {} to acknowledge", SETTLE_WITHIN.as_secs(), list(&self.missing))
    }

    /// Takes the outcome from a record; true when it is settled.
    fn learn(&mut self, record: &AttemptView) -> bool {
        match (record.outcome.as_str(), &record.last_event) {
            ("committed", _) => self.decide(Outcome::Committed),
            ("aborted", Some(AttemptEvent::Failed { error })) => self.decide(Outcome::Failed(error.clone())),
            ("aborted", _) => self.decide(Outcome::Failed(undone())),
            _ => {}
        }
        record.settled
    }

    fn settled(self, summary: Option<Box<CommitSummary>>) -> Result<End, ApiError> {
        match (summary, self.outcome) {
            (Some(summary), _) => Ok(End::Settled(Some(summary))),
            (None, Some(Outcome::Committed)) => Ok(End::Settled(None)),
            (None, Some(Outcome::Failed(error))) => Err(error),
            (None, None) => Err(undone()),
        }
    }

    fn unsettled(self) -> Result<End, ApiError> {
        match self.outcome {
            // Everyone has acknowledged: that is what settled means, though the node did not get to say the word.
            _ if self.missing.is_empty() => self.settled(None),
            Some(outcome) => Ok(End::Unsettled { outcome, missing: self.missing }),
            None => Err(undone()),
        }
    }
}

fn undone() -> ApiError {
    ApiError::new(ErrorCode::Aborted, "the commit was undone; every instance runs what it ran before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    fn known() -> Known {
        let missing = vec!["demo-1".to_owned(), "demo-2".to_owned()];
        Known { outcome: None, decided: None, missing, who_was_said: false }
    }

    #[tokio::test]
    async fn a_node_that_is_gone_is_told_with_where_to_look() {
        // A port that was free a moment ago and that nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::new(format!("http://127.0.0.1:{port}").parse().unwrap());
        let follow = Follow {
            client: &client,
            attempt_id: "00",
            participants: vec![],
            look: "form manage status --id 7",
            lost_after: Duration::ZERO,
        };
        let error = follow.run(&mut Progress::new(Output::new(true), "demo-1", &[])).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert_eq!(error.remedy.as_deref(), Some("look with: form manage status --id 7"));
    }

    #[test]
    fn what_the_store_says_counts_more_than_what_failed_on_the_way() {
        let mut known = known();
        known.decide(Outcome::Failed(undone()));
        let decided = known.decided;
        known.decide(Outcome::Committed);
        known.decide(Outcome::Failed(undone()));
        assert_eq!(known.decided, decided, "the wait is not begun anew");
        assert!(matches!(known.settled(None), Ok(End::Settled(None))));
    }

    #[test]
    fn settled_is_when_everyone_has_acknowledged() {
        let mut one_missing = known();
        one_missing.decide(Outcome::Committed);
        one_missing.missing.remove(0);
        assert_eq!(one_missing.waiting(), "committed; waiting up to 15 s for demo-2 to acknowledge");
        let Ok(End::Unsettled { outcome: Outcome::Committed, missing }) = one_missing.unsettled() else {
            panic!("one has not acknowledged")
        };
        assert_eq!(missing, ["demo-2"]);
        let mut none_missing = known();
        none_missing.decide(Outcome::Committed);
        none_missing.missing.clear();
        assert!(matches!(none_missing.unsettled(), Ok(End::Settled(None))));
    }
}
