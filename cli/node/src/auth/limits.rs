//! Bounds of what a client may send as proof.

/// Longest message that is parsed, in bytes; the longest legal one is well below it.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Longest installation, cluster or instance id in a message, in bytes.
pub(super) const ID_BYTES_MAX: usize = 64;

/// Longest method in a message, in bytes.
pub(super) const METHOD_BYTES_MAX: usize = 8;

/// Longest path with its query in a message, in bytes.
pub(super) const PATH_BYTES_MAX: usize = 2048;

/// How far a request's time may be from the node's, either way.
pub const REQUEST_AGE_MS_MAX: u64 = 60_000;
