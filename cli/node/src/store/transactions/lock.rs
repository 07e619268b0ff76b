//! The coordinator's lock: a hint that it is alive, never what makes a commit right.

use std::time::Duration;

use crate::store::error::Error;
use crate::store::keys;
use crate::store::kv::{Expect, LeaseId};
use crate::store::records::{AttemptRecord, AttemptState, LockRecord};
use crate::store::txn::Txn;
use crate::store::typed::{Store, Tries, Versioned};

/// The answer to [`Store::confirm_lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// The store took a write, and the lock lives at least as long as asked for.
    Confirmed {
        /// How long it lives unless kept alive.
        left: Duration,
    },
    /// The attempt is decided, its lock is gone or another's, or too little of it is left: abort.
    Lost,
}

impl Store {
    /// Lets the attempt's lock live on. False: it is lost.
    pub async fn keep_lock(&self, attempt_id: &str) -> Result<bool, Error> {
        let Some(attempt) = self.attempt(attempt_id).await? else { return Ok(false) };
        let Some((_, lease)) = self.own_lock(&attempt).await? else { return Ok(false) };
        Ok(self.keep(lease).await?.is_some())
    }

    /// Before anything is paused: writes to the store for real, under the condition that the attempt is pending and
    /// the lock ours, and asks how long the lock still lives.
    pub async fn confirm_lease(&self, attempt_id: &str, min_left: Duration) -> Result<Confirm, Error> {
        let attempt_key = keys::attempt(attempt_id);
        let mut tries = Tries::new("confirm a lock");
        loop {
            let Some(attempt) = self.read::<AttemptRecord>(&attempt_key).await? else { return Ok(Confirm::Lost) };
            if attempt.value.state != AttemptState::Pending {
                return Ok(Confirm::Lost);
            }
            let Some((mut lock, lease)) = self.own_lock(&attempt.value).await? else { return Ok(Confirm::Lost) };
            if self.keep(lease).await?.is_none() {
                return Ok(Confirm::Lost);
            }
            lock.value.confirmed += 1;
            let lock_key = keys::lock(&attempt.value.cluster_id);
            let txn = Txn::new()
                .expect(&attempt_key, Expect::ModRevision(attempt.revision))
                .expect(&lock_key, Expect::ModRevision(lock.revision))
                .put_leased(&lock_key, &lock.value, lease)?;
            if self.apply(txn).await? {
                return Ok(match self.kv.time_left(lease).await? {
                    Some(left) if left >= min_left => Confirm::Confirmed { left },
                    _ => Confirm::Lost,
                });
            }
            tries.next().await?;
        }
    }

    async fn own_lock(&self, attempt: &AttemptRecord) -> Result<Option<(Versioned<LockRecord>, LeaseId)>, Error> {
        let key = keys::lock(&attempt.cluster_id);
        let Some(entry) = self.kv.get(&key).await? else { return Ok(None) };
        let Some(lease) = entry.lease else { return Ok(None) };
        let value: LockRecord =
            serde_json::from_slice(&entry.value).map_err(|source| Error::Corrupt { key, source: source.into() })?;
        let own = value.attempt_id == attempt.attempt_id;
        Ok(own.then_some((Versioned { value, revision: entry.mod_revision }, lease)))
    }

    async fn keep(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        match self.kv.keep_alive(lease).await {
            Ok(left) => Ok(Some(left)),
            Err(Error::LeaseExpired { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
