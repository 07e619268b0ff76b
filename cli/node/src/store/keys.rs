//! Where each record lives.

pub(super) const INSTALLATION: &str = "installation";
pub(super) const INSTANCES: &str = "instances/";
pub(super) const CLUSTERS: &str = "clusters/";
pub(super) const NODES: &str = "nodes/";
pub(super) const UNSETTLED: &str = "unsettled/";

pub(super) fn instance(instance_id: &str) -> String {
    format!("{INSTANCES}{instance_id}")
}

pub(super) fn name(name: &str) -> String {
    format!("names/{name}")
}

pub(super) fn cluster(cluster_id: &str) -> String {
    format!("{CLUSTERS}{cluster_id}")
}

/// Hangs on the coordinator's lease.
pub(super) fn lock(cluster_id: &str) -> String {
    format!("locks/{cluster_id}")
}

pub(super) fn node(node_id: &str) -> String {
    format!("{NODES}{node_id}")
}

pub(super) fn grant(cluster_id: &str, address: &str) -> String {
    format!("{}{address}", grants(cluster_id))
}

pub(super) fn grants(cluster_id: &str) -> String {
    format!("grants/{cluster_id}/")
}

pub(super) fn attempt(attempt_id: &str) -> String {
    format!("attempts/{attempt_id}")
}

/// There from begin until the attempt is aborted, or is committed and every participant has said so.
pub(super) fn unsettled(attempt_id: &str) -> String {
    format!("{UNSETTLED}{attempt_id}")
}

pub(super) fn commit(commit_id: &str) -> String {
    format!("commits/{commit_id}")
}

/// Kept for ever.
pub(super) fn request(request_hash: &str) -> String {
    format!("requests/{request_hash}")
}
