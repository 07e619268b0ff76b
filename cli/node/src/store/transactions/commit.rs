//! `commit(A)`: the commit point.

use crate::store::error::Error;
use crate::store::keys;
use crate::store::kv::Expect;
use crate::store::records::{AttemptRecord, AttemptState, ClusterRecord, CommitRecord, Other};
use crate::store::txn::Txn;
use crate::store::typed::{Store, Tries};

/// The answer to [`Store::commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It is committed, now or by an earlier call.
    Committed,
    /// It is not, and never will be; the attempt has still to be aborted unless it is.
    Refused(Refusal),
}

/// Why an attempt can't be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is aborted, or never was.
    Aborted,
    /// It is committed, as another commit.
    OtherCommit {
        /// That one.
        commit_id: String,
    },
    /// A later attempt has begun.
    EpochMoved {
        /// The cluster's epoch.
        epoch: u64,
    },
    /// The head is not the parent.
    HeadMoved {
        /// The cluster's head.
        head: Option<String>,
    },
    /// Members came or went, or the cluster is gone.
    MembershipChanged,
}

impl Store {
    /// Makes `commit_id` the head. After [`Error::Unknown`] read [`Store::outcome`] before telling anyone anything.
    pub async fn commit(&self, attempt_id: &str, commit_id: &str, bytes: &[u8]) -> Result<Commit, Error> {
        let mut tries = Tries::new("commit an attempt");
        loop {
            if let Some(outcome) = self.try_commit(attempt_id, commit_id, bytes).await? {
                return Ok(outcome);
            }
            tries.next().await?;
        }
    }

    /// `None`: overtaken.
    async fn try_commit(&self, attempt_id: &str, commit_id: &str, bytes: &[u8]) -> Result<Option<Commit>, Error> {
        let attempt_key = keys::attempt(attempt_id);
        let Some(mut attempt) = self.read::<AttemptRecord>(&attempt_key).await? else {
            return Ok(Some(Commit::Refused(Refusal::Aborted)));
        };
        match (attempt.value.state, &attempt.value.commit_id) {
            (AttemptState::Pending, _) => {}
            (AttemptState::Committed, Some(other)) if other != commit_id => {
                return Ok(Some(Commit::Refused(Refusal::OtherCommit { commit_id: other.clone() })));
            }
            (AttemptState::Committed, _) => return Ok(Some(Commit::Committed)),
            (AttemptState::Aborted, _) => return Ok(Some(Commit::Refused(Refusal::Aborted))),
        }
        let cluster_key = keys::cluster(&attempt.value.cluster_id);
        let Some(mut cluster) = self.read::<ClusterRecord>(&cluster_key).await? else {
            return Ok(Some(Commit::Refused(Refusal::MembershipChanged)));
        };
        let refusal = if attempt.value.epoch != cluster.value.epoch {
            Some(Refusal::EpochMoved { epoch: cluster.value.epoch })
        } else if attempt.value.parent != cluster.value.head {
            Some(Refusal::HeadMoved { head: cluster.value.head.clone() })
        } else if attempt.value.membership_rev != cluster.value.membership_rev {
            Some(Refusal::MembershipChanged)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            // The two records were read one after the other: only what still stands together counts.
            let unchanged = Txn::new()
                .expect(&attempt_key, Expect::ModRevision(attempt.revision))
                .expect(&cluster_key, Expect::ModRevision(cluster.revision));
            return Ok(self.apply(unchanged).await?.then_some(Commit::Refused(refusal)));
        }

        attempt.value.state = AttemptState::Committed;
        attempt.value.commit_id = Some(commit_id.to_owned());
        cluster.value.head = Some(commit_id.to_owned());
        cluster.value.pending = None;
        let commit = CommitRecord {
            commit_id: commit_id.to_owned(),
            bytes: bytes.to_owned(),
            attempt_id: attempt_id.to_owned(),
            other: Other::new(),
        };
        let txn = Txn::new()
            .expect(&attempt_key, Expect::ModRevision(attempt.revision))
            .expect(&cluster_key, Expect::ModRevision(cluster.revision))
            .put(&attempt_key, &attempt.value)?
            .put(&cluster_key, &cluster.value)?
            .put(&keys::commit(commit_id), &commit)?
            .delete(&keys::lock(&attempt.value.cluster_id));
        Ok(self.apply(txn).await?.then_some(Commit::Committed))
    }
}
