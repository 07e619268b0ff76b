//! What a node may make us hold or wait for.

use std::time::Duration;

/// Longest answer that is read whole.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Longest single event.
pub(super) const EVENT_BYTES_MAX: usize = 4 << 20;

/// To reach a node.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For an answer that needs no work.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// For an answer after work: booting a guest, seeding a node with a cluster's images.
pub(super) const WORK_TIMEOUT: Duration = Duration::from_secs(3600);

/// Silence on an event stream after which it is asked for again. A phase may well be longer; asking again is harmless.
pub(super) const EVENT_SILENCE: Duration = Duration::from_secs(60);
