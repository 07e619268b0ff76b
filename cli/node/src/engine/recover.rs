//! What a node does before it takes requests: VMs that outlived the last daemon are adopted, half-done work is taken
//! up again, and leftovers are found by name and removed.

use std::collections::HashSet;
use std::sync::Arc;

use form_proto::{AttemptId, Participant};

use super::driver::Input;
use super::layout::{names, remove_dir};
use super::lifecycle::vmm_error;
use super::participate::Work;
use super::{Node, target};
use crate::error::ApiError;
use crate::store::InstanceStatus;

/// Runs once, after the transport is up and before the API is.
pub(crate) async fn recover(node: &Arc<Node>) -> Result<(), ApiError> {
    let stored = node.db.participants()?;
    let mut live = HashSet::new();
    let mut staging = HashSet::new();
    for local in node.db.instances()? {
        live.insert((local.instance_id.clone(), local.live.clone()));
        let machine = local.machine(&node.layout, &local.live, true);
        match node.vmm.adopt(&machine).await.map_err(vmm_error)? {
            Some(vm) => {
                tracing::info!(instance = local.name, pid = vm.pid(), "adopted");
                node.vms.change(&local.instance_id, |slot| slot.current = Some(vm));
            }
            None => gone(node, &local.instance_id).await,
        }
    }
    for participant in stored {
        let (instance, record) = (participant.instance, participant.record);
        let attempt = record.work.map(|(_, w)| w.attempt).or(record.settled.map(|s| s.attempt));
        if let (Some(attempt), Some(context)) = (attempt, participant.context) {
            if let Some((step, work)) = record.work {
                tracing::info!(instance, ?step, attempt = hex::encode(work.attempt.0), "taken up again");
                let name = target::live_name(work.attempt);
                if let Some(local) = node.db.instance(&instance)?.filter(|l| l.live != name) {
                    let incoming =
                        node.vmm.adopt(&local.machine(&node.layout, &name, false)).await.map_err(vmm_error)?;
                    node.vms.change(&instance, |slot| slot.incoming = incoming);
                }
                live.insert((instance.clone(), name));
                staging.insert(hex::encode(work.attempt.0));
            }
            node.add_work(&instance, attempt, Work::new(context, Vec::new()));
        }
        let machine = Participant::recover(record, node.now());
        node.set_busy(&instance, machine.attempt());
        node.input(Input::Recover(instance, Box::new(machine)));
    }
    sweep(node, &live, &staging).await?;
    for attempt in node.store.unsettled_attempts().await? {
        // Nobody continues a coordinator's attempt, itself included: pending ones are aborted.
        if attempt.coordinator == node.id().to_string() {
            let outcome = node.store.abort(&attempt.attempt_id, &attempt.coordinator).await?;
            tracing::info!(attempt = attempt.attempt_id, ?outcome, "an attempt of before the restart");
        }
    }
    Ok(())
}

/// The store may still say that it runs.
async fn gone(node: &Arc<Node>, instance: &str) {
    let killed = async {
        if node.store.instance(instance).await?.is_some_and(|i| i.status == InstanceStatus::Started) {
            node.store.set_instance_status(instance, InstanceStatus::Killed).await?;
        }
        Ok::<_, crate::store::Error>(())
    };
    if let Err(error) = killed.await {
        tracing::warn!(instance, %error, "its status could not be corrected");
    }
}

async fn sweep(node: &Arc<Node>, live: &HashSet<(String, String)>, staging: &HashSet<String>) -> Result<(), ApiError> {
    for local in node.db.instances()? {
        for name in names(&node.layout.instance(&local.instance_id)) {
            if live.contains(&(local.instance_id.clone(), name.clone())) {
                continue;
            }
            // A VM of an attempt that was undone may still be there.
            if let Some(vm) = node.vmm.adopt(&local.machine(&node.layout, &name, false)).await.map_err(vmm_error)? {
                vm.quit().await.map_err(vmm_error)?;
            }
            let dir = node.layout.live(&local.instance_id, &name);
            tracing::info!(path = %dir.display(), "left over, removed");
            remove_dir(&dir).map_err(|e| ApiError::io("remove", &dir, &e))?;
        }
    }
    let known: HashSet<_> = node.db.instances()?.into_iter().map(|l| l.instance_id).collect();
    for name in names(&node.layout.instances()).into_iter().filter(|name| !known.contains(name)) {
        let dir = node.layout.instance(&name);
        remove_dir(&dir).map_err(|e| ApiError::io("remove", &dir, &e))?;
    }
    for name in names(&node.layout.staging_root()).into_iter().filter(|name| !staging.contains(name)) {
        let dir = node.layout.staging_root().join(name);
        remove_dir(&dir).map_err(|e| ApiError::io("remove", &dir, &e))?;
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
