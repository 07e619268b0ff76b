//! The proof that a request may be carried out. It stands alone, so that nothing else can make one.

use super::address::Address;
use super::check::Recovered;
use super::level::Level;
use crate::error::{ApiError, ErrorCode};

/// A request whose signer holds the level that it needs. Only [`authorise`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorised {
    signer: Address,
    request_hash: [u8; 32],
    time_ms: u64,
}

impl Authorised {
    /// Who signed.
    pub fn signer(&self) -> Address {
        self.signer
    }

    /// SHA-256 of the message; unique for ever in the store.
    pub fn request_hash(&self) -> [u8; 32] {
        self.request_hash
    }

    /// When it was signed, Unix time.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }
}

/// Compares what is needed with what the signer holds ([`held_level`](super::held_level)). For a request that anyone
/// with a key may make (a new cluster, whose owner the signer becomes), need and pass [`Level::Owner`].
///
/// # Errors
/// `not_allowed`, naming the signer and both levels.
pub fn authorise(recovered: &Recovered, needed: Level, held: Option<Level>) -> Result<Authorised, ApiError> {
    if held < Some(needed) {
        let held = held.map_or_else(|| "no right".to_owned(), |level| level.to_string());
        return Err(ApiError::new(ErrorCode::NotAllowed, format!("{} may not do this", recovered.signer()))
            .cause(format!("it needs {needed} and holds {held} on the instance"))
            .remedy("sign with a key that may, or ask the owner for `form account grant`"));
    }
    Ok(Authorised {
        signer: recovered.signer(),
        request_hash: recovered.request_hash(),
        time_ms: recovered.message().time_ms,
    })
}
