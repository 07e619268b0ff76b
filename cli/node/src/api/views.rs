//! Records as the API shows them.

use std::collections::BTreeMap;

use super::routes::Api;
use super::types::{InstanceView, SnapshotView};
use crate::error::ApiError;
use crate::store::{AttemptRecord, ClusterRecord, InstanceRecord};

impl Api {
    /// One instance, with its history.
    pub(super) async fn instance_view(
        &self,
        instance: &InstanceRecord,
        cluster: &ClusterRecord,
    ) -> Result<InstanceView, ApiError> {
        let mut names = BTreeMap::new();
        for instance_id in cluster.members.keys() {
            if let Some(member) = self.core.store().instance(instance_id).await? {
                names.insert(instance_id.clone(), member.name);
            }
        }
        let unsettled = self.core.store().unsettled_attempts().await?;
        let mut view = self.short_view(instance, Some(cluster), &names, &unsettled);
        view.snapshots = history(instance);
        Ok(view)
    }

    /// All instances, without history.
    pub(super) async fn instance_views(&self) -> Result<Vec<InstanceView>, ApiError> {
        let store = self.core.store();
        let clusters: BTreeMap<String, ClusterRecord> =
            store.clusters().await?.into_iter().map(|c| (c.cluster_id.clone(), c)).collect();
        let instances = store.instances().await?;
        let unsettled = store.unsettled_attempts().await?;
        let names = instances.iter().map(|i| (i.instance_id.clone(), i.name.clone())).collect();
        let mut views: Vec<_> =
            instances.iter().map(|i| self.short_view(i, clusters.get(&i.cluster_id), &names, &unsettled)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(views)
    }

    fn short_view(
        &self,
        instance: &InstanceRecord,
        cluster: Option<&ClusterRecord>,
        names: &BTreeMap<String, String>,
        unsettled: &[AttemptRecord],
    ) -> InstanceView {
        let mut members: Vec<String> =
            cluster.map(|c| c.members.keys().filter_map(|id| names.get(id).cloned()).collect()).unwrap_or_default();
        members.sort();
        // Decided, and somebody has still to hear of it.
        let takes_part = |a: &&AttemptRecord| a.participants.iter().any(|p| p.instance_id == instance.instance_id);
        let not_settled = unsettled.iter().filter(takes_part).max_by_key(|a| a.epoch).map(|a| a.attempt_id.clone());
        InstanceView {
            instance_id: instance.instance_id.clone(),
            name: instance.name.clone(),
            node_id: instance.node_id.clone(),
            cluster_id: instance.cluster_id.clone(),
            owner: instance.instance_owner.to_string(),
            status: instance.status.to_string(),
            snapshot_id: instance.current_commit.clone(),
            local: instance.node_id == self.core.node_id(),
            members,
            snapshots: Vec::new(),
            attempt_id: cluster.and_then(|c| c.pending.clone()).or(not_settled),
        }
    }
}

/// Oldest first.
fn history(instance: &InstanceRecord) -> Vec<SnapshotView> {
    let mut views: Vec<_> = instance
        .history()
        .map(|s| SnapshotView {
            snapshot_id: s.snapshot_id.clone(),
            timestamp_ms: u64::try_from(s.timestamp).unwrap_or(0).saturating_mul(1000),
            description: s.description.clone().unwrap_or_default(),
            previous_snapshot: s.previous_snapshot.as_ref().as_ref().map(|p| p.snapshot_id.clone()),
        })
        .collect();
    views.reverse();
    views
}
