//! Bounds of what a client may send.

use std::time::Duration;

/// Longest body of a request, in bytes: a spec and what is around it, escaped.
pub const BODY_BYTES_MAX: usize = form_transport::limits::REQUEST_BODY_BYTES_MAX as usize;
/// How long a body may take to come.
pub(super) const BODY_WAIT: Duration = Duration::from_secs(30);
/// A comment is sent when there was no event for so long, so that nobody in between takes the connection for dead.
pub(super) const SSE_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long another node may take to begin its answer. A start or a seeding create comes after the work.
pub(super) const FORWARD_WAIT: Duration = Duration::from_secs(15 * 60);
