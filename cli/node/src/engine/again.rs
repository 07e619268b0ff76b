//! What may fail for hours is said aloud, and does not fill the log.

use std::sync::atomic::{AtomicU32, Ordering};

/// Counts what happens again and again.
#[derive(Debug, Default)]
pub(crate) struct Again(AtomicU32);

impl Again {
    /// It has happened once more. True the first time, the second, the fourth, the eighth …
    pub(crate) fn worth_a_line(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1).is_power_of_two()
    }

    /// It is over; the next time is the first.
    pub(crate) fn over(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_failures_are_ten_lines() {
        let again = Again::default();
        assert_eq!((0..1000).filter(|_| again.worth_a_line()).count(), 10);
        again.over();
        assert!(again.worth_a_line());
    }
}
