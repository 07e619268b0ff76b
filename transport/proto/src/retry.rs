//! When to try again: after as long as it has taken so far, within bounds.

use crate::Millis;

/// Doubles the time between tries by itself: no count of them has to be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    /// The first wait, in ms.
    pub(crate) first_ms: u64,
    /// The longest wait, in ms.
    pub(crate) longest_ms: u64,
}

impl Retry {
    /// The next try of what was begun at `since`.
    pub(crate) fn after(self, since: Millis, now: Millis) -> Millis {
        now.after(now.0.saturating_sub(since.0).clamp(self.first_ms, self.longest_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound() {
        let (retry, since) = (Retry { first_ms: 1_000, longest_ms: 30_000 }, Millis(5_000));
        let mut now = since;
        let mut waits = [0; 8];
        for wait in &mut waits {
            let next = retry.after(since, now);
            *wait = next.0 - now.0;
            now = next;
        }
        assert_eq!(waits, [1_000, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    }
}
