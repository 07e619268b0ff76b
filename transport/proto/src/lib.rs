//! The commit protocol as a pure state machine.
//!
//! Two machines: a [`Coordinator`] per attempt, on the source's node, and a [`Participant`] per instance, on the
//! node that hosts it. Each has one way in (`handle(input, now)`), one way out (`poll_output()`) and one
//! `deadline()`. They cannot name a clock, a file or a socket (`no_std` + `alloc`), and they see ids and counts
//! only: what is copied, restored or signed is the node's business.
//!
//! # Invariants
//!
//! * State changes only inside `handle`.
//! * A message that promises durability ([`Body::Ready`], [`Body::Active`], [`Body::Settled`]) leaves only after
//!   the [`ParticipantInput::Persisted`] of the record that holds the promise.
//! * Until it has persisted [`Step::Active`] a participant may abort alone; from then on it obeys only the
//!   outcome that the state store holds.
//! * The coordinator announces an outcome only after it has *read* that outcome from the store: a reply that was
//!   lost says nothing.
//! * No timeout decides between the last `Active` and the outcome.
#![no_std]

extern crate alloc;

mod coordinator;
mod ids;
mod limits;
mod message;
mod owed;
mod participant;
mod record;
mod retry;
mod trace;

pub use coordinator::{
    Coordinator, CoordinatorInput, CoordinatorOutput, OutcomeRead, Phase, Plan, Progress, StoreReply,
};
pub use ids::{AttemptId, CommitId, Epoch, Member, Millis, Outcome};
pub use limits::MESSAGE_BYTES_MAX;
pub use message::{Body, MESSAGE_VERSION, Message, MessageError, Refusal};
pub use participant::{Participant, ParticipantInput, ParticipantOutput};
pub use record::{RECORD_VERSION, Record, RecordError, Settled, Step, Work};
pub use trace::{Machine, TRACE_VERSION, TraceError, TraceProblem, replay, trace_line, trace_start};
