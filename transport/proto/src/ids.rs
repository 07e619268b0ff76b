//! The few names that the machines know.

use core::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

/// Random, made before `begin`; names the attempt in messages, staging, locks and hints (16 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct AttemptId(pub [u8; 16]);

/// BLAKE3 of the commit; known only after the capture (32 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct CommitId(pub [u8; 32]);

/// Counts the attempts of a cluster; `begin` alone moves it, and only up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Epoch(pub u64);

/// A participant's place in the attempt's frozen list. The source is [`Member::SOURCE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Member(pub u16);

impl Member {
    /// The instance that is committed; it votes like any other.
    pub const SOURCE: Self = Self(0);
}

/// Milliseconds of a monotonic clock of the caller's; only differences mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// Later by `ms`.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// As hex, the first four bytes: enough to tell two apart in a log or a trace.
fn short(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(f, &self.0)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(f, &self.0)
    }
}

/// How an attempt ended, as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// Every participant runs the commit.
    Committed,
    /// Every participant runs what it ran before.
    Aborted,
}
