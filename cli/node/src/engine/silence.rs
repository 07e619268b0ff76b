//! How long the state store has not answered this node: what everyone waits for in the one blocking window.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::{Error, ErrorKind};

/// Since when; `None` while it answers.
#[derive(Debug, Default)]
pub(crate) struct Silence(Mutex<Option<Instant>>);

impl Silence {
    /// It was asked. A refusal is an answer too.
    pub(crate) fn heard<T>(&self, answer: &Result<T, Error>) {
        let silent = matches!(answer, Err(error) if matches!(error.kind(), ErrorKind::Retryable | ErrorKind::Unknown));
        self.set(silent);
    }

    /// It was asked, and did not answer in time.
    pub(crate) fn goes_on(&self) {
        self.set(true);
    }

    fn set(&self, silent: bool) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *since = silent.then(|| since.unwrap_or_else(Instant::now));
    }

    /// For how long.
    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_begins_once_and_ends_with_an_answer() {
        let silence = Silence::default();
        let away = || Err::<(), _>(Error::Unavailable { operation: "read", source: "gone".into() });
        silence.heard(&away());
        let began = silence.0.lock().expect("lock").expect("silent");
        silence.heard(&away());
        silence.goes_on();
        assert_eq!(*silence.0.lock().expect("lock"), Some(began));
        assert!(silence.lasts().is_some());
        silence.heard(&Err::<(), _>(Error::Missing { key: "k".into() }));
        assert_eq!(silence.lasts(), None, "that it has no such record is an answer");
    }
}
