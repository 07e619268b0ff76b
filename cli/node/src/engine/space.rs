//! Disk space, or memory, that attempts were promised and have not taken yet: without it two of them would be told of the same
//! bytes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::limits::PROMISE_LIFE;

/// What one instance was promised. It is in one attempt at a time: what an earlier one was promised is void then.
#[derive(Debug)]
struct Promise {
    /// 32 hex.
    attempt: String,
    bytes: u64,
    since: Instant,
}

/// Of one node, by instance id.
#[derive(Debug, Default)]
pub(crate) struct Space {
    promised: Mutex<HashMap<String, Promise>>,
}

/// Gives back what was promised when it is dropped: what it was for is written, or never will be.
pub(crate) struct Promised<'a> {
    space: &'a Space,
    attempt: &'a str,
    instance: &'a str,
}

impl Space {
    /// Promises `bytes` out of `free`, to one instance for one attempt. The error is what others were promised.
    pub(crate) fn promise(&self, attempt: &str, instance: &str, bytes: u64, free: u64) -> Result<(), u64> {
        let mut promised = self.promised();
        // An attempt that was given up before it came to anything does not say so to everyone.
        promised.retain(|_, promise| promise.since.elapsed() < PROMISE_LIFE);
        promised.remove(instance);
        let others = promised.values().fold(0_u64, |sum, promise| sum.saturating_add(promise.bytes));
        if free.saturating_sub(others) < bytes {
            return Err(others);
        }
        promised.insert(instance.to_owned(), Promise { attempt: attempt.to_owned(), bytes, since: Instant::now() });
        Ok(())
    }

    /// What an instance was promised for an attempt. Who asks still needs it: it lives anew.
    pub(crate) fn promised_bytes(&self, attempt: &str, instance: &str) -> Option<u64> {
        let mut promised = self.promised();
        let alive = |p: &&mut Promise| p.attempt == attempt && p.since.elapsed() < PROMISE_LIFE;
        let promise = promised.get_mut(instance).filter(alive)?;
        promise.since = Instant::now();
        Some(promise.bytes)
    }

    /// Whether anybody was promised anything and has not taken it yet.
    pub(crate) fn is_promised(&self) -> bool {
        self.promised().values().any(|promise| promise.since.elapsed() < PROMISE_LIFE)
    }

    /// Holds the promise for as long as it is being used.
    pub(crate) fn held<'a>(&'a self, attempt: &'a str, instance: &'a str) -> Promised<'a> {
        Promised { space: self, attempt, instance }
    }

    fn promised(&self) -> MutexGuard<'_, HashMap<String, Promise>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Promised<'_> {
    fn drop(&mut self) {
        let mut promised = self.space.promised();
        if promised.get(self.instance).is_some_and(|promise| promise.attempt == self.attempt) {
            promised.remove(self.instance);
        }
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
        let asked = [("attempt", "b"), ("other", "b"), ("attempt", "d")];
        assert_eq!(asked.map(|(attempt, who)| space.promised_bytes(attempt, who)), [Some(60), None, None]);
        assert_eq!(space.promise("other", "b", 60, 100), Ok(()), "the next attempt; its own promise takes the place");
        drop(space.held("attempt", "b"));
        assert_eq!(space.promise("other", "d", 1, 100), Err(100), "the end of the earlier one gives nothing back");
        drop([space.held("attempt", "c"), space.held("other", "b")]);
        assert!(!space.is_promised());
    }
}
