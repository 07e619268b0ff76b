use std::{fmt, str::FromStr, sync::OnceLock};

use crate::limits::CHUNK_BYTES_MAX;

/// A BLAKE3 hash. Text form: 64 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

/// A text that is not 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hex digits")]
pub struct ParseHashError;

impl Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }

    /// The hash of that many zeros. Cached for the largest chunk, of which an empty image is made.
    pub(crate) fn of_zeros(len_bytes: u32) -> Hash {
        static LARGEST: OnceLock<Hash> = OnceLock::new();
        if len_bytes == CHUNK_BYTES_MAX {
            *LARGEST.get_or_init(|| Hash::of(&ZEROS))
        } else {
            Hash::of(&ZEROS[..len_bytes.min(CHUNK_BYTES_MAX) as usize])
        }
    }

    /// Takes 32 bytes as a hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Hash {
        Hash(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// As many zeros as the largest chunk has bytes.
pub(crate) static ZEROS: [u8; CHUNK_BYTES_MAX as usize] = [0; CHUNK_BYTES_MAX as usize];

/// Whether all bytes are zero. `memcmp` with known zeros is several times faster than a loop.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|block| block == &ZEROS[..block.len()])
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Hash, ParseHashError> {
        blake3::Hash::from_hex(text).map(|hash| Hash(*hash.as_bytes())).map_err(|_| ParseHashError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_goes_both_ways() {
        let hash = Hash::of(b"form");
        let text = hash.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(text[1..].parse::<Hash>(), Err(ParseHashError));
        assert_eq!(format!("g{}", &text[1..]).parse::<Hash>(), Err(ParseHashError));
    }

    #[test]
    fn zeros_are_known_by_their_hash() {
        for len in [0, 1, 4096, CHUNK_BYTES_MAX] {
            assert_eq!(Hash::of_zeros(len), Hash::of(&vec![0; len as usize]));
        }
    }
}
