//! Instances and their names.

use super::error::Error;
use super::keys;
use super::kv::Expect;
use super::limits::NAME_BYTES_MAX;
use super::records::{ClusterRecord, InstanceRecord, InstanceStatus, Other};
use super::txn::Txn;
use super::typed::{Store, Tries, now_s};
use crate::error::{ApiError, ErrorCode};

/// The answer to [`Store::create_instance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateInstance {
    /// It is the first of its new cluster.
    Created,
    /// Another instance has this name.
    NameTaken {
        /// That instance.
        instance_id: String,
    },
}

/// The answer to [`Store::delete_instance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteInstance {
    /// It is gone, or was never there.
    Deleted,
    /// It is in an attempt.
    Busy {
        /// That attempt.
        attempt_id: String,
    },
}

impl Store {
    /// Writes a new instance and its new cluster (its id is in the record), which it is the first member of. Its owner
    /// becomes the cluster's.
    pub async fn create_instance(&self, mut instance: InstanceRecord) -> Result<CreateInstance, Error> {
        let member = instance.as_member();
        instance.cluster.members.insert(instance.instance_id.clone(), member);
        instance.metadata.annotations.deployed_by = instance.instance_owner.to_string();
        let cluster = ClusterRecord {
            cluster_id: instance.cluster_id.clone(),
            owner: instance.instance_owner,
            head: None,
            epoch: 0,
            members: instance.cluster.members.clone(),
            membership_rev: 1,
            pending: None,
            other: Other::new(),
        };
        let (instance_key, name_key) = (keys::instance(&instance.instance_id), keys::name(&instance.name));
        let cluster_key = keys::cluster(&cluster.cluster_id);
        let mut tries = Tries::new("create an instance");
        loop {
            if let Some(taken) = self.read::<String>(&name_key).await? {
                return Ok(CreateInstance::NameTaken { instance_id: taken.value });
            }
            let txn = Txn::new()
                .expect(&name_key, Expect::Absent)
                .expect(&instance_key, Expect::Absent)
                .expect(&cluster_key, Expect::Absent)
                .put(&name_key, &instance.instance_id)?
                .put(&instance_key, &instance)?
                .put(&cluster_key, &cluster)?;
            if self.apply(txn).await? {
                return Ok(CreateInstance::Created);
            }
            tries.next().await?;
        }
    }

    /// An instance by its id.
    pub async fn instance(&self, instance_id: &str) -> Result<Option<InstanceRecord>, Error> {
        Ok(self.read(&keys::instance(instance_id)).await?.map(|found| found.value))
    }

    /// An instance by its id (0x and capitals are accepted) or its name.
    pub async fn find_instance(&self, id_or_name: &str) -> Result<Option<InstanceRecord>, Error> {
        if let Some(id) = normal_id(id_or_name) {
            return self.instance(&id).await;
        }
        match self.read::<String>(&keys::name(id_or_name)).await? {
            Some(id) => self.instance(&id.value).await,
            None => Ok(None),
        }
    }

    /// All instances, by id.
    pub async fn instances(&self) -> Result<Vec<InstanceRecord>, Error> {
        self.read_all(keys::INSTANCES).await
    }

    /// Changes an instance's record, from its newest state; `change` may run more than once. Name, cluster and members
    /// have methods of their own.
    pub async fn update_instance<R: Send>(
        &self,
        instance_id: &str,
        change: impl FnMut(&mut InstanceRecord) -> R + Send,
    ) -> Result<R, Error> {
        self.update("change an instance", &keys::instance(instance_id), change).await
    }

    /// Sets an instance's status.
    pub async fn set_instance_status(&self, instance_id: &str, status: InstanceStatus) -> Result<(), Error> {
        let now = now_s();
        self.update_instance(instance_id, |instance| {
            if instance.status != status {
                instance.status = status;
                instance.updated_at = now;
            }
        })
        .await
    }

    /// Counts an instance's lifecycle up and says what it is now.
    pub async fn bump_lifecycle_generation(&self, instance_id: &str) -> Result<u64, Error> {
        self.update_instance(instance_id, |instance| {
            instance.lifecycle_generation += 1;
            instance.lifecycle_generation
        })
        .await
    }

    /// Notes in an instance's record that it now runs a commit: history, `current_commit`, `last_snapshot`,
    /// `updated_at` and the annotation `build_commit`. `timestamp` is Unix time in seconds. Again with a commit of its
    /// history changes nothing: a late message never moves an instance back.
    pub async fn record_snapshot(
        &self,
        instance_id: &str,
        commit_id: &str,
        timestamp: i64,
        description: Option<&str>,
    ) -> Result<(), Error> {
        self.update_instance(instance_id, |instance| {
            instance.push_snapshot(commit_id, timestamp, description.map(str::to_owned));
        })
        .await
    }

    /// Deletes an instance with its name; the last of a cluster takes the cluster with it.
    pub async fn delete_instance(&self, instance_id: &str) -> Result<DeleteInstance, Error> {
        let instance_key = keys::instance(instance_id);
        let mut tries = Tries::new("delete an instance");
        loop {
            let Some(instance) = self.read::<InstanceRecord>(&instance_key).await? else {
                return Ok(DeleteInstance::Deleted);
            };
            let cluster_key = keys::cluster(&instance.value.cluster_id);
            let mut cluster = self.read_some::<ClusterRecord>(&cluster_key).await?;
            // An attempt whose lock has expired is void from here on: the membership is no longer as it froze it.
            if let Some(attempt_id) = &cluster.value.pending
                && self.kv.get(&keys::lock(&instance.value.cluster_id)).await?.is_some()
            {
                return Ok(DeleteInstance::Busy { attempt_id: attempt_id.clone() });
            }
            cluster.value.members.remove(instance_id);
            cluster.value.membership_rev += 1;
            let mut txn = Txn::new()
                .expect(&instance_key, Expect::ModRevision(instance.revision))
                .expect(&cluster_key, Expect::ModRevision(cluster.revision))
                .delete(&instance_key)
                .delete(&keys::name(&instance.value.name));
            if cluster.value.members.is_empty() {
                txn = txn.delete(&cluster_key);
            } else {
                txn = self.put_siblings(txn, &cluster.value).await?.put(&cluster_key, &cluster.value)?;
            }
            if self.apply(txn).await? {
                return Ok(DeleteInstance::Deleted);
            }
            tries.next().await?;
        }
    }
}

/// An instance id as the records write it, if `text` is one: 40 hex, `0x` and capitals accepted.
pub fn normal_id(text: &str) -> Option<String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let is_id = digits.len() == 40 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| digits.to_ascii_lowercase())
}

/// Refuses what can't be an instance's name: it is part of paths, of keys, and of what the VMM shows.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_' || b == b'.';
    let fits = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(allowed)
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_like_an_id = name.len() >= 40 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if fits && !is_like_an_id {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::BadRequest, format!("{name:?} can't be the name of an instance")).remedy(format!(
        "give 1 to {NAME_BYTES_MAX} characters of a-z, 0-9, '-', '_' and '.', the first a letter or digit, and not an id"
    )))
}
