//! What the store has still to be told: an attempt that is durably carried out here.

use crate::limits::EFFECT;
use crate::{AttemptId, Millis, Settled};

/// At most one: the next attempt is recorded as settled when nothing is owed any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Owed {
    settled: Option<Settled>,
    /// When the store was told first, and when it is told again.
    since: Millis,
    next: Option<Millis>,
}

impl Owed {
    /// It is being told.
    pub(crate) fn begin(&mut self, settled: Settled, now: Millis) {
        *self = Self { settled: Some(settled), since: now, next: None };
    }

    pub(crate) fn is_none(&self) -> bool {
        self.settled.is_none()
    }

    /// The store knows.
    pub(crate) fn acknowledged(&mut self, attempt: AttemptId) -> Option<Settled> {
        let known = self.settled.filter(|settled| settled.attempt == attempt)?;
        *self = Self::default();
        Some(known)
    }

    /// It may not know.
    pub(crate) fn not_acknowledged(&mut self, attempt: AttemptId, now: Millis) {
        if self.settled.is_some_and(|settled| settled.attempt == attempt) {
            self.next = Some(EFFECT.after(self.since, now));
        }
    }

    pub(crate) fn deadline(&self) -> Option<Millis> {
        self.next
    }

    /// What is to be told again by now.
    pub(crate) fn due(&mut self, now: Millis) -> Option<Settled> {
        self.next.take_if(|at| now >= *at)?;
        self.settled
    }
}
