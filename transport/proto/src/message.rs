//! What coordinator and participants say to each other. Payloads (the signed commit, the text of a refusal)
//! travel beside a message and never enter a machine.

use alloc::vec::Vec;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::limits::MESSAGE_BYTES_MAX;
use crate::{AttemptId, CommitId, Epoch, Outcome};

/// First byte of every encoded message.
pub const MESSAGE_VERSION: u8 = 1;

/// One message; the attempt and its epoch are in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Message {
    /// The attempt it is about.
    pub attempt: AttemptId,
    /// Its epoch: what is at or below a participant's last settled one has no effect.
    pub epoch: Epoch,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Body {
    /// Coordinator: here is a commit; build and verify its images.
    Offer {
        /// The commit's id.
        commit: CommitId,
    },
    /// Coordinator: everyone is ready; restore it, paused.
    Activate,
    /// Coordinator: the store holds this outcome.
    Decided(Outcome),
    /// Participant: verified, durable, and every byte of space it needs is allocated.
    Ready,
    /// Participant: restored and paused; what can fail for a local reason has happened.
    Active,
    /// Participant: no; it runs what it ran before, or will.
    Refused(Refusal),
    /// Participant: the outcome is carried out here, and the store has been told so. `Settled(Aborted)` before any
    /// outcome was announced means that it could not restore the images and has undone the attempt alone.
    Settled(Outcome),
}

/// Why a participant says no. The text for people travels beside the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Refusal {
    /// It is in an earlier attempt, which it settles first. No reason to abort: the offer is made again.
    Busy(AttemptId),
    /// The offer does not stand up to the participant's own checks, or the images could not be built.
    Stage,
    /// The message is of an earlier epoch than this participant has come to: it holds nothing of that attempt any more.
    Stale,
    /// Asked to activate what was never made ready here.
    NotPrepared,
    /// It could not restore the images, and is undoing that. Said at once: the others stand still meanwhile.
    Activate,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    TooLong(usize),
    /// Of another version than [`MESSAGE_VERSION`].
    Version(u8),
    /// Not the encoding of a message, or followed by more bytes.
    Malformed,
}

impl core::fmt::Display for MessageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong(len) => write!(f, "a message of {len} bytes; at most {MESSAGE_BYTES_MAX} are read"),
            Self::Version(v) => write!(f, "a message of version {v}; this node speaks {MESSAGE_VERSION}"),
            Self::Malformed => write!(f, "not a message of the commit protocol"),
        }
    }
}

impl core::error::Error for MessageError {}

impl Message {
    /// Version byte, then borsh.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MESSAGE_BYTES_MAX);
        out.push(MESSAGE_VERSION);
        // Writing to a Vec does not fail.
        let written = self.serialize(&mut out);
        debug_assert!(written.is_ok());
        out
    }

    /// # Errors
    /// Too long, of another version, or malformed (trailing bytes included).
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLong(bytes.len()));
        }
        match bytes.split_first() {
            Some((&MESSAGE_VERSION, rest)) => Self::try_from_slice(rest).map_err(|_| MessageError::Malformed),
            Some((&version, _)) => Err(MessageError::Version(version)),
            None => Err(MessageError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let message =
            Message { attempt: AttemptId([0xaa; 16]), epoch: Epoch(7), body: Body::Decided(Outcome::Aborted) };
        let mut golden = alloc::vec![1u8];
        golden.extend([0xaa; 16]);
        golden.extend([7, 0, 0, 0, 0, 0, 0, 0, 2, 1]);
        assert_eq!(message.encode(), golden);
        assert_eq!(Message::decode(&golden), Ok(message));
    }

    #[test]
    fn damage_is_refused() {
        let bytes = Message { attempt: AttemptId([1; 16]), epoch: Epoch(1), body: Body::Ready }.encode();
        for cut in 0..bytes.len() {
            assert!(Message::decode(&bytes[..cut]).is_err());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Message::decode(&longer), Err(MessageError::Malformed));
        longer.resize(MESSAGE_BYTES_MAX + 1, 0);
        assert_eq!(Message::decode(&longer), Err(MessageError::TooLong(MESSAGE_BYTES_MAX + 1)));
        let mut other = bytes;
        other[0] = 9;
        assert_eq!(Message::decode(&other), Err(MessageError::Version(9)));
    }
}
