//! The new VM of a target on probation (rule 16): before the target says Active, it runs on what is thrown away and is
//! asked whether it is well. The old one is paused meanwhile: of an instance one VM runs at most.
//!
//! Nothing of it is in the participant's record but its step, *activating*: directory and process are found by their name,
//! which the attempt gives, and go with an activation that is undone.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use form_proto::AttemptId;
use form_vmm_hooks::{Error, Health, Machine};

use super::Node;
use super::attempt::add_ms;
use super::instance::LocalInstance;
use super::layout::{make_dir, remove_dir};
use super::lifecycle::vmm_error;
use super::participate::Work;
use super::target::live_name;
use crate::error::{ApiError, ErrorCode};

/// The directory of the VM that is tried.
fn name(attempt: AttemptId) -> String {
    format!("probation-{}", live_name(attempt))
}

/// The machine that is tried: the one that will be, in a directory of its own.
fn machine(node: &Node, local: &LocalInstance, attempt: AttemptId) -> Machine {
    let new = local.machine(&node.layout, &live_name(attempt), false);
    let own = local.machine(&node.layout, &name(attempt), false);
    Machine { ram_path: new.ram_path, disks: new.disks, ..own }
}

/// Could the question be asked here, and answered within the commit's time?
pub(crate) async fn fits(node: &Node, local: &LocalInstance, commit_timeout_s: u64) -> Result<(), ApiError> {
    let Some(health) = &local.spec.health else { return Ok(()) };
    let needed_s = u64::from(health.timeout_s);
    if needed_s >= commit_timeout_s {
        let message = format!("the health probe of target {} may take longer than the whole commit", local.name);
        return Err(ApiError::new(ErrorCode::TargetUnfit, message)
            .cause(format!("health.timeout_s is {needed_s} s in its spec, the commit may take {commit_timeout_s} s"))
            .remedy(format!("give the commit more time, as in --timeout {}", needed_s.saturating_add(60))));
    }
    let machine = local.machine(&node.layout, &local.live, false);
    node.vmms.of(local).can_probe(&machine, health).await.map_err(vmm_error)
}

/// Asks, and removes what was made for it. Only while the old VM is paused.
pub(crate) async fn stand(
    node: &Arc<Node>,
    local: &LocalInstance,
    health: &Health,
    attempt: AttemptId,
    device: Option<File>,
    shared: &Work,
) -> Result<(), ApiError> {
    let began = Instant::now();
    let dir = node.layout.live(&local.instance_id, &name(attempt));
    make_dir(&dir).map_err(|e| ApiError::io("make", &dir, &e))?;
    let asked = node.vmms.of(local).probe(&machine(node, local, attempt), device, health).await;
    // It has ended what it began, or says that it could not.
    let ended = end(node, local, attempt).await;
    add_ms(&mut shared.report().phases_ms, "probation", began);
    asked.map_err(|error| failed(local, &error))?;
    ended
}

fn failed(local: &LocalInstance, error: &Error) -> ApiError {
    let message = format!("the new VM of target {} did not stand its health probe", local.name);
    let (cause, remedy) = match error {
        Error::Unhealthy { probe, reason, .. } => (
            format!("{probe}: {reason}"),
            "every instance runs what it ran before; mend what was committed, or the probe, then commit again",
        ),
        other => (
            super::build::chain(other),
            "it could not be asked: every instance runs what it ran before; see that node's log, then commit again",
        ),
    };
    ApiError::new(ErrorCode::Aborted, message).cause(cause).remedy(remedy)
}

/// Ends what is still on probation, of a daemon that was lost, and removes its directory. Before anything else of the
/// instance may run.
pub(crate) async fn end(node: &Arc<Node>, local: &LocalInstance, attempt: AttemptId) -> Result<(), ApiError> {
    let dir = node.layout.live(&local.instance_id, &name(attempt));
    if !dir.exists() {
        return Ok(());
    }
    if let Some(vm) = node.vmms.of(local).adopt(&machine(node, local, attempt)).await.map_err(vmm_error)? {
        tracing::warn!(instance = local.name, pid = vm.pid(), "left on probation: ended");
        vm.quit().await.map_err(vmm_error)?;
    }
    remove_dir(&dir).map_err(|e| ApiError::io("remove", &dir, &e))
}
