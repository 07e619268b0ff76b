//! What a node does before it takes requests: VMs that outlived the last daemon are adopted, half-done work is taken
//! up again, and leftovers are found by name and removed.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use form_proto::{AttemptId, Record};
use form_vmm_hooks::{Vm, VmState};

use super::build::chain;
use super::db::StoredParticipant;
use super::driver::Input;
use super::instance::LocalInstance;
use super::layout::{names, remove_dir};
use super::leftovers::{self, Known};
use super::lifecycle::vmm_error;
use super::participate::Work;
use super::{Node, target};
use crate::error::ApiError;
use crate::store::{self, InstanceStatus};

/// Runs once, before peers and users are heard.
pub(crate) async fn recover(node: &Arc<Node>) -> Result<(), ApiError> {
    let stored = node.db.participants()?;
    let mut live = HashSet::new();
    let mut staging = HashSet::new();
    for local in node.db.instances()? {
        live.insert((local.instance_id.clone(), local.live.clone()));
        let in_attempt = |p: &StoredParticipant| p.instance == local.instance_id && p.record.work.is_some();
        match adopt(node, &local, !stored.iter().any(in_attempt)).await {
            Ok(Some(_)) => {}
            Ok(None) => correct_status(node, &local, InstanceStatus::Started, InstanceStatus::Killed).await,
            // One VM that does not answer keeps nobody else from running.
            Err(error) => {
                tracing::error!(instance = local.name, %error, cause = error.cause, "its VM can't be talked to");
                correct_status(node, &local, InstanceStatus::Started, InstanceStatus::CriticalError).await;
            }
        }
    }
    for participant in stored {
        let (instance, record) = (participant.instance, participant.record);
        let local = node.db.instance(&instance)?;
        if let Some(local) = &local {
            check_store(node, local, &record).await?;
        }
        let attempt = record.work.map(|(_, w)| w.attempt).or(record.settled.map(|s| s.attempt));
        if let (Some(attempt), Some(context)) = (attempt, participant.context) {
            if let Some((step, work)) = record.work {
                tracing::info!(instance, ?step, attempt = hex::encode(work.attempt.0), "taken up again");
                let name = target::live_name(work.attempt);
                if let Some(local) = local.filter(|l| l.live != name) {
                    match node.vmms.of(&local).adopt(&local.machine(&node.layout, &name, false)).await {
                        Ok(incoming) => node.vms.change(&instance, |slot| slot.incoming = incoming),
                        // Whoever goes on with the attempt asks for it again.
                        Err(error) => tracing::error!(instance, error = chain(&error), "its new VM can't be talked to"),
                    }
                }
                live.insert((instance.clone(), name));
                staging.insert(node.layout.staging(work.attempt, &instance));
            }
            node.add_work(&instance, attempt, Work::new(context, Vec::new()));
        }
        node.set_busy(&instance, record.work.map(|(_, work)| work.attempt));
        node.input(Input::Recover(instance, record));
    }
    sweep(node, &live, staging).await?;
    for attempt in node.store.unsettled_attempts().await? {
        // Nobody continues a coordinator's attempt, itself included: pending ones are aborted.
        if attempt.coordinator == node.id().to_string() {
            let outcome = node.store.abort(&attempt.attempt_id, &attempt.coordinator).await?;
            tracing::info!(attempt = attempt.attempt_id, ?outcome, "an attempt of before the restart");
        }
    }
    Ok(())
}

/// Refuses a store that knows less than this node has seen: it would decide again what was decided.
async fn check_store(node: &Node, local: &LocalInstance, record: &Record) -> Result<(), ApiError> {
    let settled = record.settled.map(|s| s.epoch.0);
    let Some(seen) = settled.max(record.work.map(|(_, w)| w.epoch.0)) else { return Ok(()) };
    match node.store.check_epoch(&local.cluster_id, seen).await {
        Err(error @ store::Error::Missing { .. }) => {
            tracing::error!(instance = local.name, %error, "the state store does not know its cluster");
            Ok(())
        }
        checked => Ok(checked.map(drop)?),
    }
}

/// Takes over the process that an instance is, if there is one. Outside of an attempt (`free`) it is to run: a VM stands
/// still during a capture alone, and a daemon that was lost may have left it like that.
pub(crate) async fn adopt(
    node: &Arc<Node>,
    local: &LocalInstance,
    free: bool,
) -> Result<Option<Arc<dyn Vm>>, ApiError> {
    let machine = local.machine(&node.layout, &local.live, true);
    let Some(vm) = node.vmms.of(local).adopt(&machine).await.map_err(vmm_error)? else { return Ok(None) };
    tracing::info!(instance = local.name, pid = vm.pid(), "adopted");
    if free {
        let resumed = match vm.state().await {
            Ok(VmState::Paused) => vm.resume().await,
            other => other.map(drop),
        };
        if let Err(error) = resumed {
            tracing::error!(instance = local.name, error = chain(&error), "it may still be paused");
        }
    }
    node.vms.change(&local.instance_id, |slot| slot.current = Some(Arc::clone(&vm)));
    correct_status(node, local, InstanceStatus::CriticalError, InstanceStatus::Started).await;
    Ok(Some(vm))
}

/// The store may still say what was true before.
async fn correct_status(node: &Arc<Node>, local: &LocalInstance, was: InstanceStatus, is: InstanceStatus) {
    let corrected = async {
        if node.store.instance(&local.instance_id).await?.is_some_and(|i| i.status == was) {
            node.store.set_instance_status(&local.instance_id, is).await?;
        }
        Ok::<_, store::Error>(())
    };
    if let Err(error) = corrected.await {
        tracing::warn!(instance = local.name, %error, "its status could not be corrected");
    }
}

async fn sweep(node: &Arc<Node>, live: &HashSet<(String, String)>, staging: HashSet<PathBuf>) -> Result<(), ApiError> {
    for local in node.db.instances()? {
        for name in names(&node.layout.instance(&local.instance_id)) {
            if live.contains(&(local.instance_id.clone(), name.clone())) {
                continue;
            }
            // A VM of an attempt that was undone may still be there.
            let dir = node.layout.live(&local.instance_id, &name);
            let ended = match node.vmms.of(&local).adopt(&local.machine(&node.layout, &name, false)).await {
                Ok(Some(vm)) => vm.quit().await,
                other => other.map(drop),
            };
            if let Err(error) = ended {
                tracing::error!(path = %dir.display(), error = chain(&error), "left over, and its VM can't be ended");
                continue;
            }
            tracing::info!(path = %dir.display(), "left over, removed");
            remove_dir(&dir).map_err(|e| ApiError::io("remove", &dir, &e))?;
        }
    }
    end_others(node, live).await?;
    let known = node.db.instances()?;
    let known = Known {
        instances: known.iter().map(|local| local.instance_id.clone()).collect(),
        clusters: known.into_iter().map(|local| local.cluster_id).collect(),
        staging,
    };
    leftovers::remove(&node.layout, &known)
}

/// VM processes on files of this node that are none of its VMs: their directories, where they would be looked for, are gone.
async fn end_others(node: &Node, live: &HashSet<(String, String)>) -> Result<(), ApiError> {
    let mut uuids = HashSet::new();
    for local in node.db.instances()? {
        let own = live.iter().filter(|(instance, _)| *instance == local.instance_id);
        uuids.extend(own.map(|(_, name)| local.machine(&node.layout, name, false).uuid));
    }
    let ended = node.vmms.qemu.end_others(&node.layout.instances(), &uuids).await.map_err(vmm_error)?;
    if ended > 0 {
        tracing::warn!(ended, "VM processes were left over");
    }
    Ok(())
}

/// An attempt's id from its hex form.
pub(crate) fn attempt_id(text: &str) -> Result<AttemptId, ApiError> {
    let mut id = [0; 16];
    hex::decode_to_slice(text, &mut id).map_err(|_| {
        ApiError::new(crate::error::ErrorCode::NotFound, format!("{text} is not an attempt's id"))
            .remedy("an attempt's id is 32 hex digits, as `form manage commit` prints it")
    })?;
    Ok(AttemptId(id))
}
