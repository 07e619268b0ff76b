//! What the node shares with others: the state store, and the time.

use std::path::Path;
use std::time::Duration;

use super::{Findings, Patient};
use crate::config::NodeConfig;
use crate::engine::lifecycle::unix_ms;
use crate::error::ApiError;
use crate::store::{Error, Store};

/// The store of a node that does not run, without making it.
pub(super) async fn open(findings: &mut Findings, config: &NodeConfig) -> Option<Store> {
    if let Some(path) = config.store.strip_prefix("sqlite:").map(Path::new).filter(|path| !path.exists()) {
        findings.problem(
            "store",
            format!("there is no state store {}", path.display()),
            "put the file back, or mend `store` in node.toml; a node that makes a new one would be of another installation",
        );
        return None;
    }
    match Store::open(&config.store).await {
        Ok(store) => Some(store),
        Err(error) => {
            findings.failed("store", &error.into(), "see that the node's user may read and write the file");
            None
        }
    }
}

/// Reachable, writable, of this installation, and not older than what this node has seen.
pub(super) async fn store(findings: &mut Findings, patient: &Patient<'_>) {
    let Some(store) = &patient.store else { return };
    if store.installation_id() != patient.config.installation_id {
        let (is, was) = (store.installation_id(), &patient.config.installation_id);
        findings.problem(
            "store",
            format!("it is of installation {is}, this node of {was}"),
            "give the node its own store back, or make it anew",
        );
        return;
    }
    // A lease of its own is written, and goes again.
    let written = async {
        let lease = store.kv().grant(Duration::from_secs(1)).await?;
        store.kv().revoke(lease).await
    };
    if let Err(error) = written.await {
        let remedy =
            "bring it back: space on its disk, the file's owner, its host. Until then no commit begins or ends";
        findings.failed("store", &ApiError { remedy: None, ..error.into() }, remedy);
        return;
    }
    for participant in patient.db.iter().flat_map(|db| db.participants().unwrap_or_default()) {
        let settled = participant.record.settled.map(|settled| settled.epoch.0);
        let seen = settled.max(participant.record.work.map(|(_, work)| work.epoch.0));
        let local = patient.instances.iter().find(|local| local.instance_id == participant.instance);
        let Some((local, seen)) = local.zip(seen) else { continue };
        match store.check_epoch(&local.cluster_id, seen).await {
            Err(error @ Error::Missing { .. }) => findings.problem(
                "store",
                format!("it does not know the cluster of {}: {error}", local.name),
                "bring back the store that this node knew",
            ),
            Err(error) => findings.failed("store", &error.into(), "bring back the store that this node knew"),
            Ok(_) => {}
        }
    }
    if !findings.has_problem("store") {
        findings.ok("store", format!("answers and takes writes; installation {}", store.installation_id()));
    }
}

/// Signed requests are refused when they are further than this from a node's clock, ms.
const SKEW_MS_MAX: u64 = 60_000;
/// Clocks that are kept by NTP are nearer than this, ms; records are dated in whole seconds.
const SKEW_MS_SMALL: u64 = 2_000;

/// A clock that is behind shows in records that others have dated into its future.
pub(super) async fn clock(findings: &mut Findings, patient: &Patient<'_>) {
    let Some(store) = &patient.store else { return };
    let newest = async {
        let instances = store.instances().await?.into_iter().map(|i| u64::try_from(i.updated_at).unwrap_or(0) * 1000);
        let nodes = store.nodes().await?.into_iter().map(|node| node.enrolled_at);
        let attempts = store.unsettled_attempts().await?.into_iter().map(|attempt| attempt.began_ms);
        Ok::<_, Error>(instances.chain(nodes).chain(attempts).max())
    };
    // Not read: said of the store already.
    let Ok(Some(newest)) = newest.await else { return };
    let ahead_ms = newest.saturating_sub(unix_ms());
    let message = || format!("the store's newest record is {} s ahead of this host's clock", ahead_ms.div_ceil(1000));
    let remedy = "set the hosts' clocks right (chrony, systemd-timesyncd): nodes refuse requests that are 60 s off";
    match ahead_ms {
        0..SKEW_MS_SMALL => findings.ok("clock", "not behind the store's newest record"),
        SKEW_MS_SMALL..SKEW_MS_MAX => findings.note("clock", message(), remedy),
        _ => findings.problem("clock", message(), remedy),
    }
}
