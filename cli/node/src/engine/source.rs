//! The source as a participant: its images are made durable before it is ready; then there is nothing to restore.

use std::sync::Arc;

use form_proto::Work as Task;

use super::bases;
use super::instance::file_name;
use super::layout::{sync_dir, sync_file};
use super::participate::Work;
use super::{Node, blocking, leftovers, standby};
use crate::error::ApiError;

/// Makes what was captured durable.
pub(crate) async fn stage(node: &Arc<Node>, instance: &str, task: &Task) -> Result<(), ApiError> {
    node.db.keep_space()?;
    let staging = node.layout.staging(task.attempt, instance);
    let shared = node.work(instance, task.attempt);
    let names: Vec<_> = shared.iter().flat_map(|w| w.context().roots.keys().cloned().collect::<Vec<_>>()).collect();
    blocking("make the capture durable", move || {
        for name in names {
            let path = staging.join(file_name(&name));
            sync_file(&path).map_err(|e| ApiError::io("sync", &path, &e))?;
        }
        sync_dir(&staging).map_err(|e| ApiError::io("sync", &staging, &e))
    })
    .await
}

/// What was captured becomes this node's base.
pub(crate) async fn finalize(node: &Arc<Node>, instance: &str, task: &Task, shared: &Work) -> Result<(), ApiError> {
    let context = shared.context().clone();
    // First: whoever advances the base after this one, on this node, is to know what this instance stands on.
    note(node, instance, &context).await?;
    advance(node, instance, task, &context).await?;
    shared.report().staged_roots = context.roots;
    roll_back(node, instance, task)
}

/// Nothing changed here but in staging.
pub(crate) fn roll_back(node: &Arc<Node>, instance: &str, task: &Task) -> Result<(), ApiError> {
    leftovers::discard(vec![node.layout.staging(task.attempt, instance)], node.layout.staging_attempt(task.attempt));
    Ok(())
}

/// The staged images of a committed attempt become the base.
pub(crate) async fn advance(
    node: &Arc<Node>,
    instance: &str,
    task: &Task,
    context: &super::work::WorkContext,
) -> Result<(), ApiError> {
    let (layout, staging) = (node.layout.clone(), node.layout.staging(task.attempt, instance));
    let (cluster, roots, instance) = (context.cluster.clone(), context.roots.clone(), instance.to_owned());
    let keeps = node.keeps_standbys();
    let alone = node.base_lock.lock().await;
    let others = bases::of_others(node, &cluster, &instance).await?;
    let advanced = blocking("advance the base", move || {
        let mut parsed = Vec::new();
        for (name, root) in &roots {
            let root = root.parse().map_err(|e| ApiError::internal("read a root", e))?;
            parsed.push((name.as_str(), root));
        }
        if keeps {
            standby::keep_bases(&layout, &cluster, &instance, &staging, &parsed, &others);
        }
        bases::advance(&layout, &cluster, &staging, parsed.into_iter(), others)
    })
    .await;
    drop(alone);
    list_blocks(node, &context.cluster);
    advanced
}

/// Lists the blocks of the new base in the background.
pub(crate) fn list_blocks(node: &Arc<Node>, cluster: &str) {
    let (node, cluster) = (Arc::clone(node), cluster.to_owned());
    tokio::spawn(async move {
        let _alone = node.base_lock.lock().await;
        let layout = node.layout.clone();
        // A hint: what failed has been told by a warning.
        let _ = blocking("list the blocks of the base", move || {
            bases::list_blocks(&layout, &cluster);
            Ok(())
        })
        .await;
    });
}

/// Tells the store that the instance runs the commit now.
pub(crate) async fn note(node: &Arc<Node>, instance: &str, context: &super::work::WorkContext) -> Result<(), ApiError> {
    let seconds = i64::try_from(context.time_ms / 1000).unwrap_or(i64::MAX);
    let description = Some(context.description.as_str()).filter(|d| !d.is_empty());
    Ok(node.store.record_snapshot(instance, &context.commit_id, seconds, description).await?)
}
