//! Who asks, and whether they may: keys, signed requests, rights.
//!
//! A request is signed with secp256k1 over the SHA-256 of a [`RequestMessage`]. The proof goes through
//! types that only the check can make: [`SignedRequest`] (bytes that arrived) becomes [`Recovered`]
//! (the message parsed, the signer known, the message compared with what is being asked) and then
//! [`Authorised`] (the signer's level is enough). Signature bytes are never a key of anything: the
//! request is named by the hash of its message.

mod address;
mod authorised;
mod check;
mod key;
mod level;
mod limits;
mod message;
mod signed;

pub use address::Address;
pub use authorised::{Authorised, authorise};
pub use check::{Expected, Recovered, check_again, check_entry, recover};
pub use key::SigningKey;
pub use level::{Level, held_level};
pub use limits::{MESSAGE_BYTES_MAX, REQUEST_AGE_MS_MAX};
pub use message::{NOTHING, RequestMessage, canonical_path};
pub use signed::{HEADER_MESSAGE, HEADER_RECOVERY_ID, HEADER_SIGNATURE, SignedRequest, sign};
