//! The events of an attempt, each once, over as many connections as that takes.

use form_node::api::types::AttemptEvent;
use form_node::{ApiError, ErrorCode};
use tokio::time::{Duration, Instant, sleep};

use crate::client::{Client, EventStream};
use crate::progress::Progress;

/// Between two tries.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Where the reading stands. A node replays the events from the first one on every connection.
pub(super) struct Replay<'a> {
    client: &'a Client,
    attempt_id: &'a str,
    lost_after: Duration,
    stream: Option<EventStream>,
    /// Of the event that the open connection brought last.
    number: usize,
    given: Given,
    /// When a connection that had brought news broke.
    heard: Instant,
    news: bool,
}

/// What was given out already.
#[derive(Default)]
struct Given {
    count: usize,
    committed: bool,
    failed: bool,
}

impl<'a> Replay<'a> {
    pub(super) fn new(client: &'a Client, attempt_id: &'a str, lost_after: Duration) -> Self {
        let heard = Instant::now();
        Self { client, attempt_id, lost_after, stream: None, number: 0, given: Given::default(), heard, news: false }
    }

    /// The next event.
    ///
    /// # Errors
    /// `unavailable` when nothing was heard for `lost_after`; anything else is the node's refusal to give events.
    pub(super) async fn next(&mut self, progress: &mut Progress) -> Result<AttemptEvent, ApiError> {
        loop {
            let broke = match self.receive().await {
                Ok(Some(event)) => {
                    self.number += 1;
                    if self.given.is_new(self.number, &event) {
                        self.news = true;
                        return Ok(event);
                    }
                    continue;
                }
                Ok(None) => {
                    ApiError::new(ErrorCode::Unavailable, "the node ended the events before the attempt was settled")
                }
                Err(error) if error.code == ErrorCode::Unavailable => error,
                Err(error) => return Err(error),
            };
            self.stream = None;
            if std::mem::take(&mut self.news) {
                self.heard = Instant::now();
                progress.note(&format!("{broke}; trying again"));
            }
            if self.heard.elapsed() >= self.lost_after {
                return Err(broke);
            }
            sleep(RETRY_AFTER.min(self.lost_after)).await;
        }
    }

    async fn receive(&mut self) -> Result<Option<AttemptEvent>, ApiError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                self.number = 0;
                none.insert(self.client.events(self.attempt_id).await?)
            }
        };
        stream.next().await
    }
}

impl Given {
    /// Counts an event; false when an earlier connection brought it. What decides the end is never missed, even if a
    /// restarted node replays fewer events than there were.
    fn is_new(&mut self, number: usize, event: &AttemptEvent) -> bool {
        let decides = match event {
            AttemptEvent::Committed { .. } => !std::mem::replace(&mut self.committed, true),
            AttemptEvent::Failed { .. } => !std::mem::replace(&mut self.failed, true),
            AttemptEvent::Settled { .. } => true,
            _ => false,
        };
        let counted = number > self.count;
        self.count = self.count.max(number);
        counted || decides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_given_once_and_its_end_never_missed() {
        let phase = |phase: &str| AttemptEvent::Phase { target: None, phase: phase.into(), at_ms: 0 };
        let committed = AttemptEvent::Committed { snapshot_id: "00".into() };
        let mut given = Given::default();
        let new = |given: &mut Given, events: &[&AttemptEvent]| -> Vec<bool> {
            events.iter().enumerate().map(|(number, event)| given.is_new(number + 1, event)).collect()
        };
        let (warm, diff, stage) = (phase("warm"), phase("diff"), phase("stage"));
        assert_eq!(new(&mut given, &[&warm, &diff]), [true, true]);
        assert_eq!(new(&mut given, &[&warm, &diff, &stage]), [false, false, true]);
        // A shorter replay, after a restart: the outcome comes as number two.
        assert_eq!(new(&mut given, &[&warm, &committed]), [false, true]);
        assert_eq!(new(&mut given, &[&warm, &committed]), [false, false]);
    }
}
