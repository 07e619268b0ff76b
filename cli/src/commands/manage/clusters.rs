//! All clusters at a glance.

use std::collections::{BTreeMap, BTreeSet};

use form_node::ApiError;
use form_node::api::types::{AttemptView, InstanceView};
use serde::Serialize;

use super::attempt;
use crate::client::Client;
use crate::table::Table;
use crate::units::short;

/// One cluster and its instances.
#[derive(Serialize)]
pub(super) struct Cluster {
    cluster_id: String,
    /// The commit that the next one stands on; `None` before the first.
    head: Option<String>,
    /// The attempt in flight.
    attempt_id: Option<String>,
    /// What the node knows of it.
    attempt: Option<AttemptView>,
    instances: Vec<InstanceView>,
}

impl Cluster {
    /// All clusters, by the names of their instances.
    pub(super) async fn all(client: &Client) -> Result<Vec<Self>, ApiError> {
        let instances: Vec<InstanceView> = client.get("/api/v1/instances").await?;
        let mut by_id: BTreeMap<String, Vec<InstanceView>> = BTreeMap::new();
        for instance in instances {
            by_id.entry(instance.cluster_id.clone()).or_default().push(instance);
        }
        let mut clusters = Vec::new();
        for (cluster_id, instances) in by_id {
            let attempt_id = instances.iter().find_map(|instance| instance.attempt_id.clone());
            let attempt = match &attempt_id {
                Some(id) => attempt::ask(client, id).await?,
                None => None,
            };
            let head = head(client, &instances).await?;
            clusters.push(Self { cluster_id, head, attempt_id, attempt, instances });
        }
        clusters.sort_by(|a, b| names(a).cmp(names(b)));
        Ok(clusters)
    }
}

fn names(cluster: &Cluster) -> impl Iterator<Item = &str> {
    cluster.instances.iter().map(|instance| instance.name.as_str())
}

/// The head is what its instances run, but for those that a commit left out: it is the commit with the longest history.
async fn head(client: &Client, instances: &[InstanceView]) -> Result<Option<String>, ApiError> {
    let commits: BTreeSet<&String> = instances.iter().filter_map(|instance| instance.snapshot_id.as_ref()).collect();
    if commits.len() < 2 {
        return Ok(commits.into_iter().next().cloned());
    }
    let mut longest: Option<InstanceView> = None;
    for commit in commits {
        if let Some(runs_it) = instances.iter().find(|instance| instance.snapshot_id.as_ref() == Some(commit)) {
            let view = client.instance(&runs_it.instance_id).await?;
            if longest.as_ref().is_none_or(|longest| longest.snapshots.len() < view.snapshots.len()) {
                longest = Some(view);
            }
        }
    }
    Ok(longest.and_then(|view| view.snapshot_id))
}

/// A paragraph for each.
pub(super) fn text(clusters: &[Cluster]) -> String {
    if clusters.is_empty() {
        return "no instances yet: make one with form manage create".into();
    }
    clusters.iter().map(paragraph).collect::<Vec<_>>().join("\n\n")
}

fn paragraph(cluster: &Cluster) -> String {
    let head = cluster.head.as_deref().map_or("none yet", short);
    let mut text = format!("cluster {}, head {head}\n", short(&cluster.cluster_id));
    text += &match (&cluster.attempt_id, &cluster.attempt) {
        (Some(id), Some(attempt)) => format!("attempt {}: {}\n", short(id), attempt::describe(attempt)),
        (Some(id), None) => format!("attempt {}: not known to this node\n", short(id)),
        (None, _) => "no attempt in flight\n".into(),
    };
    let mut table = Table::new(["name", "status", "commit", "node", "id"]);
    for instance in &cluster.instances {
        let commit = match &instance.snapshot_id {
            None => "-".into(),
            commit if *commit == cluster.head => "head".into(),
            Some(commit) => format!("{}, behind", short(commit)),
        };
        table.row([
            instance.name.clone(),
            instance.status.clone(),
            commit,
            format!("{}{}", short(&instance.node_id), if instance.local { " (this one)" } else { "" }),
            instance.instance_id.clone(),
        ]);
    }
    text + &table.to_string()
}
