//! Follows an attempt to its end, over as many connections as that takes.

use form_node::api::types::{AttemptEvent, AttemptView, CommitSummary};
use form_node::{ApiError, ErrorCode};
use tokio::time::{Duration, Instant, sleep};

use crate::client::{Client, segment};
use crate::progress::Progress;

/// Without a node for this long, the user is told where to look and the showing ends.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(30);

/// Between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What to follow.
pub(super) struct Follow<'a> {
    pub(super) client: &'a Client,
    pub(super) attempt_id: &'a str,
    /// The command that shows how it stands.
    pub(super) look: &'a str,
    pub(super) lost_after: Duration,
}

/// What was shown already: events replay from the first one on every connection.
#[derive(Default)]
struct Seen {
    count: usize,
    committed: bool,
    error: Option<ApiError>,
}

/// How the attempt ended.
type End = Result<Option<Box<CommitSummary>>, ApiError>;

impl Follow<'_> {
    /// Shows events until the attempt is settled. The summary is `None` when only the outcome is known: the node was
    /// restarted and the measurements went with it.
    ///
    /// # Errors
    /// That of the attempt; `unavailable` when the node is gone.
    pub(super) async fn run(&self, progress: &mut Progress) -> End {
        let mut seen = Seen::default();
        let mut heard = Instant::now();
        loop {
            let before = seen.count;
            let broke = match self.one_connection(&mut seen, progress).await {
                Ok(Some(end)) => return end,
                Ok(None) => {
                    ApiError::new(ErrorCode::Unavailable, "the node ended the events before the attempt was settled")
                }
                Err(error) if error.code == ErrorCode::Unavailable => error,
                Err(error) => match self.settled_without_events().await {
                    Some(end) => {
                        progress.event(&AttemptEvent::Settled { summary: None });
                        return end;
                    }
                    None => error,
                },
            };
            if seen.count > before {
                heard = Instant::now();
                progress.note(&format!("{broke}; trying again"));
            }
            if heard.elapsed() >= self.lost_after {
                return Err(self.lost(&seen, broke));
            }
            sleep(RETRY_AFTER.min(self.lost_after)).await;
        }
    }

    /// `Some` when the attempt ended.
    async fn one_connection(&self, seen: &mut Seen, progress: &mut Progress) -> Result<Option<End>, ApiError> {
        let mut events = self.client.events(self.attempt_id).await?;
        let mut number = 0;
        while let Some(event) = events.next().await? {
            number += 1;
            if seen.is_new(number, &event) {
                progress.event(&event);
            }
            if let AttemptEvent::Settled { summary } = event {
                return Ok(Some(match (summary, seen.error.take()) {
                    (_, Some(error)) => Err(error),
                    (Some(summary), None) => Ok(Some(summary)),
                    (None, None) if seen.committed => Ok(None),
                    (None, None) => Err(undone()),
                }));
            }
        }
        Ok(None)
    }

    /// What the node still knows of an attempt whose events it does not have any more.
    async fn settled_without_events(&self) -> Option<End> {
        let path = format!("/api/v1/attempts/{}", segment(self.attempt_id));
        let attempt: AttemptView = self.client.get(&path).await.ok()?;
        match (attempt.settled, attempt.outcome.as_str()) {
            (true, "committed") => Some(Ok(None)),
            (true, "aborted") => Some(Err(match attempt.last_event {
                Some(AttemptEvent::Failed { error }) => error,
                _ => undone(),
            })),
            _ => None,
        }
    }

    fn lost(&self, seen: &Seen, broke: ApiError) -> ApiError {
        let known = match (&seen.error, seen.committed) {
            (Some(error), _) => format!("it had failed and was being undone: {error}"),
            (None, true) => "it was committed, and is being settled".into(),
            (None, false) => "the commit may still go on, or be undone".into(),
        };
        let cause = broke.cause.unwrap_or(broke.message);
        ApiError::new(
            ErrorCode::Unavailable,
            format!("nothing was heard of the attempt for {} s; {known}", self.lost_after.as_secs()),
        )
        .cause(cause)
        .remedy(format!("look with: {}", self.look))
    }
}

impl Seen {
    /// Counts an event; false when an earlier connection brought it. What decides the end is never missed, even if a
    /// restarted node replays fewer events than there were.
    fn is_new(&mut self, number: usize, event: &AttemptEvent) -> bool {
        let decides = match event {
            AttemptEvent::Committed { .. } => !std::mem::replace(&mut self.committed, true),
            AttemptEvent::Failed { error } => self.error.replace(error.clone()).is_none(),
            AttemptEvent::Settled { .. } => true,
            _ => false,
        };
        let counted = number > self.count;
        self.count = self.count.max(number);
        counted || decides
    }
}

fn undone() -> ApiError {
    ApiError::new(ErrorCode::Aborted, "the commit was undone; every instance runs what it ran before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    #[tokio::test]
    async fn a_node_that_is_gone_is_told_with_where_to_look() {
        // A port that was free a moment ago and that nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::new(format!("http://127.0.0.1:{port}").parse().unwrap());
        let follow =
            Follow { client: &client, attempt_id: "00", look: "form manage status --id 7", lost_after: Duration::ZERO };
        let error = follow.run(&mut Progress::new(Output::new(true), "demo-1")).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert_eq!(error.remedy.as_deref(), Some("look with: form manage status --id 7"));
    }

    #[test]
    fn a_replay_is_shown_once_and_its_end_never_missed() {
        let phase = |phase: &str| AttemptEvent::Phase { target: None, phase: phase.into(), at_ms: 0 };
        let committed = AttemptEvent::Committed { snapshot_id: "00".into() };
        let mut seen = Seen::default();
        let shown = |seen: &mut Seen, events: &[&AttemptEvent]| -> Vec<bool> {
            events.iter().enumerate().map(|(number, event)| seen.is_new(number + 1, event)).collect()
        };
        let (warm, diff, stage) = (phase("warm"), phase("diff"), phase("stage"));
        assert_eq!(shown(&mut seen, &[&warm, &diff]), [true, true]);
        assert_eq!(shown(&mut seen, &[&warm, &diff, &stage]), [false, false, true]);
        // A shorter replay, after a restart: the outcome comes as number two.
        assert_eq!(shown(&mut seen, &[&warm, &committed]), [false, true]);
        assert_eq!(shown(&mut seen, &[&warm, &committed]), [false, false]);
    }
}
