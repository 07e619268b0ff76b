//! The three transactions of the commit protocol, and what is read and written around them.
//!
//! ```text
//! begin(A)   IF request_hash never seen AND source.current_commit == head AND membership_rev as frozen
//!               AND (no attempt pending OR the pending one's lock has expired)
//!            THEN pending one := aborted; epoch += 1; attempt[A] := pending; lock(lease)
//! commit(A)  IF attempt[A] == pending AND its epoch == epoch AND head == parent AND membership_rev as frozen
//!            THEN head := new; commit record; attempt[A] := committed; unlock
//! abort(A)   IF attempt[A] == pending AND (I am its coordinator OR its lock has expired)
//!            THEN attempt[A] := aborted; unlock
//! ```
//!
//! Each reads, decides, and writes under the condition that what it read still stands; overtaken, it reads again. An
//! attempt that is not there is aborted: only `begin` makes one.

mod abort;
mod begin;
mod commit;
mod lock;
mod outcome;

pub use abort::Abort;
pub use begin::{Begin, BeginRequest};
pub use commit::{Commit, Refusal};
pub use lock::Confirm;
pub use outcome::Outcome;
