//! `begin(A)`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::store::error::Error;
use crate::store::keys;
use crate::store::kv::{Expect, LeaseId};
use crate::store::records::{
    AttemptRecord, AttemptState, ClusterRecord, InstanceRecord, LockRecord, Other, ParticipantRecord, RequestRecord,
};
use crate::store::txn::Txn;
use crate::store::typed::{Store, Tries, random_id};

/// What an attempt is begun with.
#[derive(Clone, Debug)]
pub struct BeginRequest {
    /// The cluster.
    pub cluster_id: String,
    /// The instance that is committed.
    pub source_instance: String,
    /// The source's current commit as the request met it, never read again after waiting.
    pub parent: Option<String>,
    /// SHA-256 of the signed message, 64 hex.
    pub request_hash: String,
    /// The node that begins.
    pub coordinator: String,
    /// Everyone who takes part, the source among them.
    pub participants: Vec<ParticipantRecord>,
    /// The membership that `participants` were taken from.
    pub membership_rev: u64,
    /// Now, Unix time.
    pub began_ms: u64,
    /// How long the lock lives without being kept alive.
    pub lease: Duration,
}

/// The answer to [`Store::begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The attempt is pending, and the lock is ours.
    Begun {
        /// As written; its id and epoch are new.
        attempt: Box<AttemptRecord>,
    },
    /// This very request was made before, and began this attempt.
    AlreadySeen {
        /// That attempt.
        attempt_id: String,
    },
    /// This very request was made before, and was none that begins an attempt.
    Replayed,
    /// The parent is not the head, or the source does not run the head.
    HeadMoved {
        /// The cluster's head.
        head: Option<String>,
    },
    /// Another attempt is under way.
    Busy {
        /// That attempt.
        attempt_id: String,
    },
    /// Members came or went since the participants were read: read them again.
    MembershipChanged,
}

impl Store {
    /// Begins an attempt under a new random id. An expired attempt that stands in the way is aborted by the same
    /// transaction. An answer that is lost is looked for once; after [`Error::Unknown`] ask again with the same request
    /// hash: the answer is the same attempt.
    pub async fn begin(&self, request: &BeginRequest) -> Result<Begin, Error> {
        if let Some(seen) = self.seen(&request.request_hash).await? {
            return Ok(seen);
        }
        let attempt_id = random_id()?;
        let lease = self.kv.grant(request.lease).await?;
        match self.begin_under(request, &attempt_id, lease).await {
            begun @ Ok(Begin::Begun { .. }) => begun,
            // Nobody else knows of it: left alone it would lock the cluster until the lease has run out.
            Err(unknown @ Error::Unknown { .. }) => match self.attempt(&attempt_id).await {
                Ok(Some(attempt)) if attempt.state == AttemptState::Pending => {
                    Ok(Begin::Begun { attempt: Box::new(attempt) })
                }
                _ => Err(unknown),
            },
            not_begun => {
                // A lease that can't be revoked expires, and no key hangs on it.
                let _ = self.kv.revoke(lease).await;
                not_begun
            }
        }
    }

    async fn begin_under(&self, request: &BeginRequest, attempt_id: &str, lease: LeaseId) -> Result<Begin, Error> {
        let mut tries = Tries::new("begin an attempt");
        loop {
            if let Some(outcome) = self.try_begin(request, attempt_id, lease).await? {
                return Ok(outcome);
            }
            tries.next().await?;
        }
    }

    /// The attempt that a request began, if it did: asked before anything else about a request that comes again.
    pub async fn attempt_of_request(&self, request_hash: &str) -> Result<Option<String>, Error> {
        let found = self.read::<RequestRecord>(&keys::request(request_hash)).await?;
        Ok(found.and_then(|request| request.value.attempt_id))
    }

    async fn seen(&self, request_hash: &str) -> Result<Option<Begin>, Error> {
        let found = self.read::<RequestRecord>(&keys::request(request_hash)).await?;
        Ok(found.map(|request| match request.value.attempt_id {
            Some(attempt_id) => Begin::AlreadySeen { attempt_id },
            None => Begin::Replayed,
        }))
    }

    /// `None`: overtaken.
    async fn try_begin(
        &self,
        request: &BeginRequest,
        attempt_id: &str,
        lease: LeaseId,
    ) -> Result<Option<Begin>, Error> {
        if let Some(seen) = self.seen(&request.request_hash).await? {
            return Ok(Some(seen));
        }
        let (cluster_key, source_key) = (keys::cluster(&request.cluster_id), keys::instance(&request.source_instance));
        let (request_key, lock_key) = (keys::request(&request.request_hash), keys::lock(&request.cluster_id));
        let cluster = self.read_some::<ClusterRecord>(&cluster_key).await?;
        let source = self.read_some::<InstanceRecord>(&source_key).await?;
        let head = &cluster.value.head;
        if request.parent != *head || source.value.current_commit != *head {
            return Ok(Some(Begin::HeadMoved { head: head.clone() }));
        }
        if request.membership_rev != cluster.value.membership_rev {
            return Ok(Some(Begin::MembershipChanged));
        }

        let mut txn = Txn::new()
            .expect(&request_key, Expect::Absent)
            .expect(&cluster_key, Expect::ModRevision(cluster.revision))
            .expect(&source_key, Expect::ModRevision(source.revision))
            .expect(&lock_key, Expect::Absent);
        if let Some(pending) = &cluster.value.pending {
            if self.kv.get(&lock_key).await?.is_some() {
                return Ok(Some(Begin::Busy { attempt_id: pending.clone() }));
            }
            let earlier_key = keys::attempt(pending);
            if let Some(mut earlier) = self.read::<AttemptRecord>(&earlier_key).await? {
                if earlier.value.state != AttemptState::Pending {
                    // Decided between the two reads.
                    return Ok(None);
                }
                earlier.value.state = AttemptState::Aborted;
                txn = txn
                    .expect(&earlier_key, Expect::ModRevision(earlier.revision))
                    .put(&earlier_key, &earlier.value)?
                    .delete(&keys::unsettled(pending));
            }
        }

        let attempt = AttemptRecord {
            attempt_id: attempt_id.to_owned(),
            cluster_id: request.cluster_id.clone(),
            epoch: cluster.value.epoch + 1,
            coordinator: request.coordinator.clone(),
            source_instance: request.source_instance.clone(),
            parent: request.parent.clone(),
            request_hash: request.request_hash.clone(),
            participants: request.participants.clone(),
            membership_rev: request.membership_rev,
            state: AttemptState::Pending,
            commit_id: None,
            acknowledged: BTreeSet::new(),
            began_ms: request.began_ms,
            other: Other::new(),
        };
        let mut after = cluster.value;
        after.epoch = attempt.epoch;
        after.pending = Some(attempt.attempt_id.clone());
        let seen = RequestRecord { attempt_id: Some(attempt.attempt_id.clone()), noted_ms: None, other: Other::new() };
        let lock = LockRecord {
            attempt_id: attempt.attempt_id.clone(),
            coordinator: attempt.coordinator.clone(),
            confirmed: 0,
        };
        let txn = txn
            .put(&cluster_key, &after)?
            .put(&keys::attempt(&attempt.attempt_id), &attempt)?
            .put(&keys::unsettled(&attempt.attempt_id), &attempt.coordinator)?
            .put(&request_key, &seen)?
            .put_leased(&lock_key, &lock, lease)?;
        Ok(self.apply(txn).await?.then_some(Begin::Begun { attempt: Box::new(attempt) }))
    }
}
