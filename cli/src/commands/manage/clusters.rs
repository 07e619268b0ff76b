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
    /// All clusters, by the names of their instances, with what is known of their attempts.
    pub(super) async fn all(client: &Client) -> Result<Vec<Self>, ApiError> {
        let mut clusters = Self::list(client).await?;
        for cluster in &mut clusters {
            cluster.attempt = match &cluster.attempt_id {
                Some(id) => attempt::ask(client, id).await?,
                None => None,
            };
        }
        Ok(clusters)
    }

    /// The same, and nobody but the node that is asked has to answer.
    pub(super) async fn list(client: &Client) -> Result<Vec<Self>, ApiError> {
        let instances: Vec<InstanceView> = client.get("/api/v1/instances").await?;
        let mut by_id: BTreeMap<String, Vec<InstanceView>> = BTreeMap::new();
        for instance in instances {
            by_id.entry(instance.cluster_id.clone()).or_default().push(instance);
        }
        let mut clusters: Vec<Self> = by_id.into_values().map(Self::of).collect();
        for cluster in &mut clusters {
            cluster.head = head(client, &cluster.instances).await?;
        }
        clusters.sort_by(|a, b| names(a).cmp(names(b)));
        Ok(clusters)
    }

    /// The cluster that these instances are; they are of one.
    pub(super) fn of(instances: Vec<InstanceView>) -> Self {
        let cluster_id = instances.first().map(|instance| instance.cluster_id.clone()).unwrap_or_default();
        let attempt_id = instances.iter().find_map(|instance| instance.attempt_id.clone());
        Self { cluster_id, head: None, attempt_id, attempt: None, instances }
    }

    pub(super) fn id(&self) -> &str {
        &self.cluster_id
    }

    pub(super) fn attempt_id(&self) -> Option<&str> {
        self.attempt_id.as_deref()
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.attempt_id.is_some()
    }

    /// Name, id and node of each instance.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.instances.iter().map(|i| (i.name.as_str(), i.instance_id.as_str(), i.node_id.as_str()))
    }

    /// The nodes that its instances are on.
    pub(super) fn nodes(&self) -> impl Iterator<Item = String> {
        self.instances.iter().map(|instance| instance.node_id.clone())
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
    let attempt = match (&cluster.attempt_id, &cluster.attempt) {
        (Some(id), Some(attempt)) => format!("attempt {}: {}", short(id), attempt::describe(attempt)),
        (Some(id), None) => format!("attempt {}: not known to this node", short(id)),
        (None, _) => "no attempt in flight".into(),
    };
    format!("{}\n{attempt}\n{}", heading(cluster), table(cluster))
}

/// One line.
pub(super) fn heading(cluster: &Cluster) -> String {
    format!("cluster {}, head {}", short(&cluster.cluster_id), cluster.head.as_deref().map_or("none yet", short))
}

/// What an instance runs, beside the head.
fn commit(cluster: &Cluster, instance: &InstanceView) -> String {
    match &instance.snapshot_id {
        None => "-".into(),
        commit if *commit == cluster.head => "head".into(),
        Some(commit) => format!("{}, behind", short(commit)),
    }
}

/// Its instances, a row each.
pub(super) fn table(cluster: &Cluster) -> String {
    let mut table = Table::new(["name", "status", "commit", "node", "id"]);
    for instance in &cluster.instances {
        table.row([
            instance.name.clone(),
            instance.status.clone(),
            commit(cluster, instance),
            format!("{}{}", short(&instance.node_id), if instance.local { " (this one)" } else { "" }),
            instance.instance_id.clone(),
        ]);
    }
    table.to_string()
}

/// The same, each a line that stands by itself.
pub(super) fn instance_lines(cluster: &Cluster) -> Vec<String> {
    let line = |instance: &InstanceView| {
        let runs = match commit(cluster, instance) {
            none if none == "-" => "no commit yet".to_owned(),
            head if head == "head" => format!("head {}", cluster.head.as_deref().map_or("none", short)),
            behind => behind,
        };
        format!("{}: {}, {runs}, on node {}", instance.name, instance.status, short(&instance.node_id))
    };
    cluster.instances.iter().map(line).collect()
}
