//! Disk space that attempts were promised and have not taken yet: without it two of them would be told of the same
//! bytes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::limits::PROMISE_LIFE;

/// Attempt and instance, as ids in hex.
type Holder = (String, String);

/// Of one node.
#[derive(Debug, Default)]
pub(crate) struct Space {
    promised: Mutex<HashMap<Holder, (u64, Instant)>>,
}

/// Gives back what was promised when it is dropped: what it was for is written, or never will be.
pub(crate) struct Promised<'a> {
    space: &'a Space,
    attempt: &'a str,
    instance: &'a str,
}

impl Space {
    /// Promises `bytes` out of `free`, once for one instance in one attempt. The error is what others were promised.
    pub(crate) fn promise(&self, attempt: &str, instance: &str, bytes: u64, free: u64) -> Result<(), u64> {
        let holder = (attempt.to_owned(), instance.to_owned());
        let mut promised = self.promised();
        // An attempt that was given up before it came to anything does not say so to everyone.
        promised.retain(|_, (_, since)| since.elapsed() < PROMISE_LIFE);
        promised.remove(&holder);
        let others = promised.values().fold(0_u64, |sum, (bytes, _)| sum.saturating_add(*bytes));
        if free.saturating_sub(others) < bytes {
            return Err(others);
        }
        promised.insert(holder, (bytes, Instant::now()));
        Ok(())
    }

    /// Whether anybody was promised anything and has not taken it yet.
    pub(crate) fn is_promised(&self) -> bool {
        self.promised().values().any(|(_, since)| since.elapsed() < PROMISE_LIFE)
    }

    /// Holds the promise for as long as it is being used.
    pub(crate) fn held<'a>(&'a self, attempt: &'a str, instance: &'a str) -> Promised<'a> {
        Promised { space: self, attempt, instance }
    }

    fn promised(&self) -> MutexGuard<'_, HashMap<Holder, (u64, Instant)>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Promised<'_> {
    fn drop(&mut self) {
        self.space.promised().remove(&(self.attempt.to_owned(), self.instance.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_promised_once() {
        let space = Space::default();
        assert_eq!(space.promise("attempt", "b", 60, 100), Ok(()));
        assert_eq!(space.promise("attempt", "c", 60, 100), Err(60), "a sibling on the same node");
        assert_eq!(space.promise("attempt", "c", 40, 100), Ok(()));
        assert_eq!(space.promise("attempt", "b", 60, 100), Ok(()), "asked again, it is the same promise");
        assert!(space.is_promised());
        drop(space.held("attempt", "b"));
        assert_eq!(space.promise("other", "b", 60, 100), Ok(()));
        assert_eq!(space.promise("other", "d", 1, 100), Err(100));
        drop([space.held("attempt", "c"), space.held("other", "b")]);
        assert!(!space.is_promised());
    }
}
