//! Clusters and who belongs to them.

use super::error::Error;
use super::keys;
use super::kv::Expect;
use super::limits::MEMBERS_MAX;
use super::records::{ClusterMember, ClusterRecord, InstanceRecord};
use super::txn::Txn;
use super::typed::{Store, Tries};

/// The answer to [`Store::join_cluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Join {
    /// It is a member.
    Joined {
        /// Of this membership.
        membership_rev: u64,
    },
    /// Another instance has this name.
    NameTaken {
        /// That instance.
        instance_id: String,
    },
    /// The new instance's commit is not the cluster's head: seed it again.
    HeadMoved {
        /// The head.
        head: Option<String>,
    },
    /// An attempt is under way; joining would void it.
    Busy {
        /// That attempt.
        attempt_id: String,
    },
    /// The cluster has as many members as there may be.
    Full,
}

impl Store {
    /// A cluster by its id.
    pub async fn cluster(&self, cluster_id: &str) -> Result<Option<ClusterRecord>, Error> {
        Ok(self.read(&keys::cluster(cluster_id)).await?.map(|found| found.value))
    }

    /// All clusters, by id.
    pub async fn clusters(&self) -> Result<Vec<ClusterRecord>, Error> {
        self.read_all(keys::CLUSTERS).await
    }

    /// How many attempts a cluster has seen.
    pub async fn epoch(&self, cluster_id: &str) -> Result<u64, Error> {
        Ok(self.read_some::<ClusterRecord>(&keys::cluster(cluster_id)).await?.value.epoch)
    }

    /// As [`Store::epoch`]; refuses a store that is behind what this node has seen: a restored backup.
    pub async fn check_epoch(&self, cluster_id: &str, seen: u64) -> Result<u64, Error> {
        let epoch = self.epoch(cluster_id).await?;
        if epoch < seen {
            return Err(Error::Behind { cluster_id: cluster_id.to_owned(), epoch, seen });
        }
        Ok(epoch)
    }

    /// Writes a new instance as a member of the cluster that its record names. Its `current_commit` must be the head;
    /// its owner becomes the cluster's, and its history that of a sibling.
    pub async fn join_cluster(&self, instance: &InstanceRecord) -> Result<Join, Error> {
        let (instance_key, name_key) = (keys::instance(&instance.instance_id), keys::name(&instance.name));
        let cluster_key = keys::cluster(&instance.cluster_id);
        let mut tries = Tries::new("join a cluster");
        loop {
            if let Some(taken) = self.read::<String>(&name_key).await? {
                return Ok(Join::NameTaken { instance_id: taken.value });
            }
            let mut cluster = self.read_some::<ClusterRecord>(&cluster_key).await?;
            if cluster.value.head != instance.current_commit {
                return Ok(Join::HeadMoved { head: cluster.value.head });
            }
            if let Some(attempt_id) = &cluster.value.pending
                && self.kv.get(&keys::lock(&instance.cluster_id)).await?.is_some()
            {
                return Ok(Join::Busy { attempt_id: attempt_id.clone() });
            }
            if cluster.value.members.len() >= MEMBERS_MAX {
                return Ok(Join::Full);
            }
            let mut joining = instance.clone();
            joining.instance_owner = cluster.value.owner;
            joining.metadata.annotations.deployed_by = cluster.value.owner.to_string();
            if let Some(sibling) = self.sibling_at_head(&cluster.value).await? {
                joining.snapshots = sibling.snapshots;
                joining.last_snapshot = sibling.last_snapshot;
                joining.metadata.annotations.build_commit = sibling.metadata.annotations.build_commit;
            }
            let mut txn = Txn::new()
                .expect(&name_key, Expect::Absent)
                .expect(&instance_key, Expect::Absent)
                .expect(&cluster_key, Expect::ModRevision(cluster.revision));
            txn = self.put_siblings_with(txn, &mut cluster.value, &mut joining).await?;
            let txn = txn
                .put(&name_key, &joining.instance_id)?
                .put(&instance_key, &joining)?
                .put(&cluster_key, &cluster.value)?;
            if self.apply(txn).await? {
                return Ok(Join::Joined { membership_rev: cluster.value.membership_rev });
            }
            tries.next().await?;
        }
    }

    async fn put_siblings_with(
        &self,
        txn: Txn,
        cluster: &mut ClusterRecord,
        joining: &mut InstanceRecord,
    ) -> Result<Txn, Error> {
        // Siblings first: the joining instance has no record yet.
        let before: Vec<String> = cluster.members.keys().cloned().collect();
        cluster.members.insert(joining.instance_id.clone(), joining.as_member());
        cluster.membership_rev += 1;
        joining.cluster.members = cluster.members.clone();
        self.put_members(txn, &before, cluster).await
    }

    /// Adds the members of `cluster` to the record of each of them.
    pub(super) async fn put_siblings(&self, txn: Txn, cluster: &ClusterRecord) -> Result<Txn, Error> {
        let all: Vec<String> = cluster.members.keys().cloned().collect();
        self.put_members(txn, &all, cluster).await
    }

    async fn put_members(&self, mut txn: Txn, of: &[String], cluster: &ClusterRecord) -> Result<Txn, Error> {
        for instance_id in of {
            let key = keys::instance(instance_id);
            let mut sibling = self.read_some::<InstanceRecord>(&key).await?;
            sibling.value.cluster.members = cluster.members.clone();
            txn = txn.expect(&key, Expect::ModRevision(sibling.revision)).put(&key, &sibling.value)?;
        }
        Ok(txn)
    }

    async fn sibling_at_head(&self, cluster: &ClusterRecord) -> Result<Option<InstanceRecord>, Error> {
        for instance_id in cluster.members.keys() {
            if let Some(sibling) = self.instance(instance_id).await?
                && sibling.current_commit == cluster.head
            {
                return Ok(Some(sibling));
            }
        }
        Ok(None)
    }
}

impl InstanceRecord {
    /// As a member of its cluster.
    pub(super) fn as_member(&self) -> ClusterMember {
        ClusterMember::new(&self.node_id, &self.instance_id, self.created_at)
    }
}
