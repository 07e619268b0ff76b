//! Could a target take the commit? Asked before anything is paused.

use std::collections::BTreeMap;
use std::sync::Arc;

use form_delta::Hash;
use form_proto::Member;
use form_vmm_hooks::{HostFacts, VmState};

use super::attempt::Attempt;
use super::build::chain;
use super::instance::{LocalInstance, file_name};
use super::layout::Layout;
use super::limits::{FREE_BYTES_MIN, SAVED_BYTES};
use super::peer::{Answer, Fit, Preflight, Question};
use super::{Node, bases, lifecycle, probation, saved, standby};
use crate::api::types::VmmView;
use crate::error::{ApiError, ErrorCode};

/// What a person is to know of it beforehand.
const SAVES_OLD: &str = "its old VM is saved to disk and ended before the new one is restored: there is no memory for two, or \
    its spec says so. This way back is weaker: after an abort the old VM is restored from there, or boots from its own disk";

/// Asks one target; an error names it and says what to do.
pub(crate) async fn ask(node: &Arc<Node>, attempt: &Attempt, member: Member) -> Result<(), ApiError> {
    let target = attempt.member(member).ok_or_else(|| ApiError::internal("ask a target", "no such member"))?;
    let source = node.local(&attempt.record.source_instance)?;
    let (image_bytes, allocated_bytes) = images(&node.layout, &source)?;
    let question = Question::Preflight(Preflight {
        attempt: attempt.hex().to_owned(),
        cluster: source.cluster_id.clone(),
        instance: target.instance_id.clone(),
        vmm: process_facts(node, &source).await?,
        image_bytes,
        allocated_bytes,
        timeout_s: attempt.timeout.as_secs(),
    });
    let answer = super::serve::ask(node, &target.peer, &question).await.map_err(|error| ApiError {
        message: format!("target {} can't be reached: {}", target.name, error.message),
        ..error
    })?;
    match answer {
        Answer::Fit(fit) => {
            if fit.saves_old {
                attempt.events.warn(&target.name, SAVES_OLD);
            }
            attempt.fits().insert(member, fit);
            Ok(())
        }
        Answer::Refused { error } => Err(error),
        _ => Err(ApiError::internal("ask a target", "it answered another question")),
    }
}

/// The target's side.
pub(crate) async fn answer(node: &Arc<Node>, ask: &Preflight) -> Result<Fit, ApiError> {
    let local = node.local(&ask.instance)?;
    let name = &local.name;
    let unfit = |message: String| ApiError::new(ErrorCode::TargetUnfit, message);
    if local.cluster_id != ask.cluster {
        return Err(unfit(format!("target {name} is of another cluster")));
    }
    if let Some(other) = node.busy_with(&ask.instance) {
        let other = hex::encode(other.0);
        return Err(ApiError::new(ErrorCode::Conflict, format!("target {name} is in another commit, attempt {other}"))
            .remedy("wait until it is settled (`form manage status`), then commit again"));
    }
    let running = match node.vms.current(&ask.instance) {
        Some(vm) => vm.state().await.map_err(lifecycle::vmm_error)? == VmState::Running,
        None => false,
    };
    if !running {
        return Err(ApiError::new(ErrorCode::WrongState, format!("target {name} is not running"))
            .remedy(format!("start it: form manage start --name {name}")));
    }
    let mine = vmm_view(&node.vmms.of(&local).host().await.map_err(lifecycle::vmm_error)?);
    if mine != ask.vmm {
        return Err(unfit(format!("target {name} has another VMM or CPU model than the source"))
            .cause(format!("source: {}; target: {}", words(&ask.vmm), words(&mine)))
            .remedy("install the same QEMU on both hosts, and run both with KVM on like CPUs or both without"));
    }
    let live = node.layout.live(&local.instance_id, &local.live);
    if !local.images().iter().eq(ask.image_bytes.keys()) {
        return Err(unfit(format!("target {name} has not the same disks as the source")));
    }
    for (image, len) in &ask.image_bytes {
        if allocated(&live.join(file_name(image)))?.0 != *len {
            return Err(unfit(format!("{image} of target {name} is not of the source's size")));
        }
    }
    probation::fits(node, &local, ask.timeout_s).await?;
    let saves_old = saved::plan(node, &local, &ask.attempt).await?;
    // The verified images, and the copies of them that will run; a reflink makes it less, never more. The old VM's memory and
    // disks are there already.
    let saved_bytes = if saves_old { SAVED_BYTES } else { 0 };
    reserve(node, &ask.attempt, &local, ask.allocated_bytes.saturating_mul(2).saturating_add(saved_bytes), "target")?;
    let roots = bases::usable(&node.layout, &ask.cluster).iter().map(Hash::to_string).collect();
    Ok(Fit { roots, saves_old })
}

/// The source's own part: its shadows of the images, and what is encoded from them.
pub(crate) fn reserve_source(node: &Node, attempt: &str, source: &LocalInstance) -> Result<(), ApiError> {
    reserve(node, attempt, source, images(&node.layout, source)?.1, "source")
}

/// Promises an attempt space here, for one instance.
fn reserve(node: &Node, attempt: &str, local: &LocalInstance, bytes: u64, role: &str) -> Result<(), ApiError> {
    // What its standbys take is consumed by the attempt, or given up for it.
    let bytes = bytes.saturating_sub(standby::allocated_bytes(&node.layout, &local.instance_id));
    let needed = bytes.saturating_add(FREE_BYTES_MIN);
    let free = lifecycle::free_bytes(node.layout.root())?;
    node.space.promise(attempt, &local.instance_id, needed, free).map_err(|others| {
        let mib = [needed, free, others].map(|bytes| bytes >> 20);
        ApiError::new(ErrorCode::TargetUnfit, format!("the node of {role} {} has too little space", local.name))
            .cause(format!(
                "{} MiB are needed, {} MiB are free, other instances are promised {} MiB",
                mib[0], mib[1], mib[2]
            ))
            .remedy("free some space where that node's data directory is, then commit again")
    })
}

/// Length of each image of an instance by name, and what all of them take now.
pub(super) fn images(layout: &Layout, local: &LocalInstance) -> Result<(BTreeMap<String, u64>, u64), ApiError> {
    let live = layout.live(&local.instance_id, &local.live);
    let (mut image_bytes, mut allocated_bytes) = (BTreeMap::new(), 0);
    for image in local.images() {
        let (len, allocated) = allocated(&live.join(file_name(&image)))?;
        image_bytes.insert(image, len);
        allocated_bytes += allocated;
    }
    Ok((image_bytes, allocated_bytes))
}

/// Length and allocated bytes of a file.
fn allocated(path: &std::path::Path) -> Result<(u64, u64), ApiError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).map_err(|e| ApiError::io("look at", path, &e))?;
    Ok((metadata.len(), metadata.blocks() * 512))
}

pub(crate) fn vmm_view(facts: &HostFacts) -> VmmView {
    VmmView {
        vmm: facts.vmm.clone(),
        version: facts.version.clone(),
        machine_type: facts.machine_type.clone(),
        accelerator: facts.accelerator.clone(),
        cpu_model: facts.cpu_model.clone(),
    }
}

/// What the process of a running instance is, whatever the host would start now.
pub(crate) async fn process_facts(node: &Node, local: &LocalInstance) -> Result<VmmView, ApiError> {
    match &local.vmm {
        Some(facts) => Ok(facts.clone()),
        None => Ok(vmm_view(&node.vmms.of(local).host().await.map_err(lifecycle::vmm_error)?)),
    }
}

/// The facts as a commit carries them: one text for equal facts.
pub(crate) fn facts_text(facts: &VmmView) -> Result<String, ApiError> {
    serde_json::to_string(facts).map_err(|e| ApiError::internal("write the host's facts", chain(&e)))
}

fn words(v: &VmmView) -> String {
    format!("{} {} {} {} {}", v.vmm, v.version, v.machine_type, v.accelerator, v.cpu_model)
}
