//! Reading outcomes, and saying that they were heard.

use futures_util::StreamExt as _;

use crate::store::error::Error;
use crate::store::keys;
use crate::store::kv::Expect;
use crate::store::records::{AttemptRecord, AttemptState, CommitRecord};
use crate::store::txn::Txn;
use crate::store::typed::{Store, Tries};

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not decided.
    Pending,
    /// The store says so: it is final.
    Committed {
        /// The commit it made.
        commit_id: String,
    },
    /// It is aborted, or never was.
    Aborted,
}

impl Store {
    /// An attempt's record.
    pub async fn attempt(&self, attempt_id: &str) -> Result<Option<AttemptRecord>, Error> {
        Ok(self.read(&keys::attempt(attempt_id)).await?.map(|found| found.value))
    }

    /// What became of it, by a linearizable read.
    pub async fn outcome(&self, attempt_id: &str) -> Result<Outcome, Error> {
        Ok(outcome_of(self.attempt(attempt_id).await?))
    }

    /// Waits until an attempt is decided; never answers [`Outcome::Pending`].
    pub async fn decided(&self, attempt_id: &str) -> Result<Outcome, Error> {
        let key = keys::attempt(attempt_id);
        // The watch is from before the read, so that no decision falls between them.
        let revision = self.kv.list(&key).await?.revision;
        let mut changes = self.kv.watch(&key, revision).await?;
        loop {
            let outcome = self.outcome(attempt_id).await?;
            if outcome != Outcome::Pending {
                return Ok(outcome);
            }
            changes.next().await.transpose()?;
        }
    }

    /// Notes that an instance has heard the outcome and done what follows from it. True once every participant has.
    /// An attempt that is not decided has no outcome to acknowledge: false, and nothing is written.
    pub async fn acknowledge(&self, attempt_id: &str, instance_id: &str) -> Result<bool, Error> {
        let key = keys::attempt(attempt_id);
        let mut tries = Tries::new("acknowledge an outcome");
        loop {
            let Some(mut attempt) = self.read::<AttemptRecord>(&key).await? else { return Ok(true) };
            if attempt.value.state == AttemptState::Pending {
                return Ok(false);
            }
            let new = attempt.value.acknowledged.insert(instance_id.to_owned());
            let settled = attempt.value.is_settled();
            if !new {
                return Ok(settled);
            }
            let mut txn = Txn::new().expect(&key, Expect::ModRevision(attempt.revision)).put(&key, &attempt.value)?;
            if settled {
                txn = txn.delete(&keys::unsettled(attempt_id));
            }
            if self.apply(txn).await? {
                return Ok(settled);
            }
            tries.next().await?;
        }
    }

    /// Attempts that are pending, or committed and not yet acknowledged by everyone.
    pub async fn unsettled_attempts(&self) -> Result<Vec<AttemptRecord>, Error> {
        let mut attempts = Vec::new();
        for entry in self.kv.list(keys::UNSETTLED).await?.entries {
            if let Some(attempt_id) = entry.key.strip_prefix(keys::UNSETTLED)
                && let Some(attempt) = self.attempt(attempt_id).await?
            {
                attempts.push(attempt);
            }
        }
        Ok(attempts)
    }

    /// A commit's record.
    pub async fn commit_record(&self, commit_id: &str) -> Result<Option<CommitRecord>, Error> {
        Ok(self.read(&keys::commit(commit_id)).await?.map(|found| found.value))
    }
}

fn outcome_of(attempt: Option<AttemptRecord>) -> Outcome {
    match attempt {
        Some(AttemptRecord { state: AttemptState::Pending, .. }) => Outcome::Pending,
        Some(AttemptRecord { state: AttemptState::Committed, commit_id, .. }) => {
            Outcome::Committed { commit_id: commit_id.unwrap_or_default() }
        }
        Some(AttemptRecord { state: AttemptState::Aborted, .. }) | None => Outcome::Aborted,
    }
}
