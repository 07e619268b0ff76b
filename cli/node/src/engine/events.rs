//! What an attempt has said so far, for whoever listens now or later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use super::limits::PROGRESS_INTERVAL;
use crate::api::types::AttemptEvent;
use crate::error::ApiError;

/// Append-only; ends with [`AttemptEvent::Settled`].
#[derive(Clone)]
pub(crate) struct EventLog {
    inner: Arc<Mutex<Inner>>,
    count: watch::Sender<usize>,
    began: Instant,
}

#[derive(Default)]
struct Inner {
    events: Vec<AttemptEvent>,
    said: HashMap<(Option<String>, String), Instant>,
    failed: bool,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self { inner: Arc::default(), count: watch::Sender::new(0), began: Instant::now() }
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What comes after the end is nobody's concern: a target may still be telling how far it was.
    pub(crate) fn push(&self, event: AttemptEvent) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(inner.events.last(), Some(AttemptEvent::Settled { .. })) {
            return;
        }
        inner.events.push(event);
        self.count.send_replace(inner.events.len());
    }

    pub(crate) fn phase(&self, target: Option<&str>, phase: &str) {
        self.push(AttemptEvent::Phase {
            target: target.map(str::to_owned),
            phase: phase.to_owned(),
            at_ms: self.elapsed_ms(),
        });
    }

    pub(crate) fn bytes(&self, target: Option<&str>, phase: &str, done: u64, total: u64) {
        let key = (target.map(str::to_owned), phase.to_owned());
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let recent = inner.said.get(&key).is_some_and(|at| now.duration_since(*at) < PROGRESS_INTERVAL);
            if recent && done < total {
                return;
            }
            inner.said.insert(key.clone(), now);
        }
        self.push(AttemptEvent::Bytes { target: key.0, phase: key.1, done, total });
    }

    pub(crate) fn warn(&self, target: &str, message: &str) {
        self.push(AttemptEvent::Warning { target: target.to_owned(), message: message.to_owned() });
    }

    /// The first reason is the one that is told; what it drags along is only logged.
    pub(crate) fn failed(&self, error: ApiError) {
        let first = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            !std::mem::replace(&mut inner.failed, true)
        };
        if first {
            self.push(AttemptEvent::Failed { error });
        } else {
            tracing::info!(%error, cause = error.cause, "a further error of an attempt that has failed");
        }
    }

    pub(crate) fn last(&self) -> Option<AttemptEvent> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).events.last().cloned()
    }

    /// All events from the first on.
    pub(crate) fn stream(&self) -> BoxStream<'static, AttemptEvent> {
        let (inner, count) = (Arc::clone(&self.inner), self.count.subscribe());
        stream::unfold((inner, count, 0usize, false), |(inner, mut count, next, ended)| async move {
            if ended {
                return None;
            }
            count.wait_for(|n| *n > next).await.ok()?;
            let event = inner.lock().unwrap_or_else(PoisonError::into_inner).events.get(next).cloned()?;
            let ended = matches!(event, AttemptEvent::Settled { .. });
            Some((event, (inner, count, next + 1, ended)))
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_listens_hears_all_of_it_and_nothing_after_the_end() {
        let log = EventLog::new();
        let early = log.stream();
        log.phase(None, "stage");
        log.push(AttemptEvent::Settled { summary: None });
        log.bytes(Some("late"), "verify memory", 1, 2);
        assert_eq!(log.last(), Some(AttemptEvent::Settled { summary: None }));
        let (early, late): (Vec<_>, Vec<_>) = (early.collect().await, log.stream().collect().await);
        assert_eq!((early.len(), &early), (2, &late));
    }

    #[test]
    fn the_first_reason_is_the_one_that_is_told() {
        use crate::error::ErrorCode;
        let log = EventLog::new();
        for message in ["the cause", "what it dragged along"] {
            log.failed(ApiError::new(ErrorCode::Aborted, message));
        }
        let events = log.inner.lock().expect("lock").events.clone();
        assert!(matches!(&events[..], [AttemptEvent::Failed { error }] if error.message == "the cause"));
    }
}
