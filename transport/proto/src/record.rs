//! What a participant must know again after a crash: one record per instance, replaced whole.

use alloc::vec::Vec;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::{AttemptId, CommitId, Epoch, Outcome};

/// First byte of every encoded record.
pub const RECORD_VERSION: u8 = 1;

/// The attempt that a participant works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Work {
    /// Which.
    pub attempt: AttemptId,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it would run.
    pub commit: CommitId,
}

/// How far it has durably come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Step {
    /// Images verified and durable. From here on the instance is locked to the attempt.
    Prepared,
    /// About to pause the old VM and start the new one: written before a process is started.
    Activating,
    /// The new VM is restored and paused; only the store's outcome moves it now.
    Active,
    /// Committed; the new VM may have run since.
    Resuming,
    /// Aborted; the old VM may have run since.
    RollingBack,
}

/// The last attempt that was carried out here, whichever way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Settled {
    /// Which.
    pub attempt: AttemptId,
    /// Nothing at or below this epoch has an effect any more.
    pub epoch: Epoch,
    /// How it ended.
    pub outcome: Outcome,
}

/// All that is durable of a participant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Record {
    /// The last settled attempt.
    pub settled: Option<Settled>,
    /// The one under way.
    pub work: Option<(Step, Work)>,
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError;

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "not a participant's record of version {RECORD_VERSION}")
    }
}

impl core::error::Error for RecordError {}

impl Record {
    /// Version byte, then borsh.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = alloc::vec![RECORD_VERSION];
        let written = self.serialize(&mut out);
        debug_assert!(written.is_ok());
        out
    }

    /// # Errors
    /// Bytes that this version did not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((&RECORD_VERSION, rest)) => Self::try_from_slice(rest).map_err(|_| RecordError),
            _ => Err(RecordError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let work = Work { attempt: AttemptId([2; 16]), epoch: Epoch(3), commit: CommitId([4; 32]) };
        let record = Record { settled: None, work: Some((Step::Active, work)) };
        let mut golden = alloc::vec![1u8, 0, 1, 2];
        golden.extend([2; 16]);
        golden.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([4; 32]);
        assert_eq!(record.encode(), golden);
        assert_eq!(Record::decode(&golden), Ok(record));
        assert_eq!(Record::decode(&golden[..20]), Err(RecordError));
    }
}
