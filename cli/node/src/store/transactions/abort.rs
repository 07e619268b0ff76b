//! `abort(A)`.

use crate::store::error::Error;
use crate::store::keys;
use crate::store::kv::Expect;
use crate::store::records::{AttemptRecord, AttemptState, ClusterRecord};
use crate::store::txn::Txn;
use crate::store::typed::{Store, Tries};

/// The answer to [`Store::abort`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abort {
    /// It is aborted: now, by an earlier call, or because it never was.
    Aborted,
    /// Too late.
    AlreadyCommitted {
        /// The commit it made.
        commit_id: String,
    },
    /// Its coordinator is another node, whose lock is alive.
    Held {
        /// That node.
        coordinator: String,
    },
}

impl Store {
    /// Aborts an attempt in the name of a node. After [`Error::Unknown`] read [`Store::outcome`] before telling
    /// anyone anything.
    pub async fn abort(&self, attempt_id: &str, node_id: &str) -> Result<Abort, Error> {
        let mut tries = Tries::new("abort an attempt");
        loop {
            if let Some(outcome) = self.try_abort(attempt_id, node_id).await? {
                return Ok(outcome);
            }
            tries.next().await?;
        }
    }

    /// `None`: overtaken.
    async fn try_abort(&self, attempt_id: &str, node_id: &str) -> Result<Option<Abort>, Error> {
        let attempt_key = keys::attempt(attempt_id);
        let Some(mut attempt) = self.read::<AttemptRecord>(&attempt_key).await? else {
            return Ok(Some(Abort::Aborted));
        };
        match attempt.value.state {
            AttemptState::Pending => {}
            AttemptState::Aborted => return Ok(Some(Abort::Aborted)),
            AttemptState::Committed => {
                let commit_id = attempt.value.commit_id.unwrap_or_default();
                return Ok(Some(Abort::AlreadyCommitted { commit_id }));
            }
        }
        let mut txn = Txn::new().expect(&attempt_key, Expect::ModRevision(attempt.revision));
        let lock_key = keys::lock(&attempt.value.cluster_id);
        if attempt.value.coordinator != node_id {
            if self.kv.get(&lock_key).await?.is_some() {
                let coordinator = attempt.value.coordinator;
                return Ok(Some(Abort::Held { coordinator }));
            }
            txn = txn.expect(&lock_key, Expect::Absent);
        }
        let cluster_key = keys::cluster(&attempt.value.cluster_id);
        if let Some(mut cluster) = self.read::<ClusterRecord>(&cluster_key).await?
            && cluster.value.pending.as_deref() == Some(attempt_id)
        {
            cluster.value.pending = None;
            txn = txn
                .expect(&cluster_key, Expect::ModRevision(cluster.revision))
                .put(&cluster_key, &cluster.value)?
                .delete(&lock_key);
        }
        attempt.value.state = AttemptState::Aborted;
        let txn = txn.put(&attempt_key, &attempt.value)?.delete(&keys::unsettled(attempt_id));
        Ok(self.apply(txn).await?.then_some(Abort::Aborted))
    }
}
