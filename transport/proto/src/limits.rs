//! What a peer may not exceed.

/// No message is longer (bytes, encoded): checked before decoding.
pub const MESSAGE_BYTES_MAX: usize = 128;
