//! What a peer may not exceed, and how long things wait.

use crate::retry::Retry;

/// No message is longer (bytes, encoded): checked before decoding.
pub const MESSAGE_BYTES_MAX: usize = 128;

/// How often a participant that waits for an outcome asks the store, in ms. It does not grow: VMs may stand still
/// meanwhile.
pub(crate) const ASK_STORE_MS: u64 = 3_000;
/// A participant's effect that must succeed in the end.
pub(crate) const EFFECT: Retry = Retry { first_ms: 1_000, longest_ms: 30_000 };
/// A coordinator's message that was not answered.
pub(crate) const RESEND: Retry = Retry { first_ms: 2_000, longest_ms: 15_000 };
/// A transaction whose outcome is unknown.
pub(crate) const TRANSACTION: Retry = Retry { first_ms: 500, longest_ms: 5_000 };
