//! A target's steps: stage, activate, finalize, roll back. Each may run again after a crash and then does nothing
//! twice.

use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use form_delta::Hash;
use form_proto::{AttemptId, Work as Task};
use form_transport::PeerAddr;
use form_vmm_hooks::{Vm, VmState};

use super::attempt::add_ms;
use super::bases::staged_manifest;
use super::build::{Build, Progress, build};
use super::instance::{DEVICE, LocalInstance, file_name};
use super::layout::{make_dir, names, remove_dir, sync_dir};
use super::lifecycle::{free_bytes, vmm_error};
use super::limits::{FREE_BYTES_MIN, PROGRESS_INTERVAL};
use super::live_copy::{LiveCopy, verify};
use super::participate::{Work, post};
use super::peer::Packet;
use super::preflight::{facts_text, vmm_view};
use super::vms::Slot;
use super::work::WorkContext;
use super::{Node, blocking, hints, leftovers, offer, probation, saved, source, standby};
use crate::error::{ApiError, ErrorCode};
use crate::store::InstanceStatus;

/// The directory of the VM that an attempt would make.
pub(crate) fn live_name(attempt: AttemptId) -> String {
    let hex = hex::encode(attempt.0);
    format!("vm-{}", hex.get(..12).unwrap_or(&hex))
}

/// Builds and verifies every image, and the private copies that will run.
pub(crate) async fn stage(node: &Arc<Node>, instance: &str, task: &Task, shared: &Arc<Work>) -> Result<(), ApiError> {
    let attempt_hex = hex::encode(task.attempt.0);
    let _promised = node.space.held(&attempt_hex, instance);
    let local = node.local(instance)?;
    let from = shared.context().coordinator.parse().map_err(|e| ApiError::internal("read a node's id", e))?;
    let checked = offer::check(node, &local, task, from, &shared.payload).await?;
    {
        let mut context = shared.context();
        context.commit_id = hex::encode(task.commit.0);
        context.description.clone_from(&checked.commit.description);
        context.time_ms = checked.commit.time_ms;
        context.roots = checked.roots();
        context.vmm.clone_from(&checked.commit.vmm);
    }
    let staging = node.layout.staging(task.attempt, instance);
    let live = node.layout.live(instance, &live_name(task.attempt));
    remove_dir(&staging).and_then(|()| make_dir(&staging)).map_err(|e| ApiError::io("make", &staging, &e))?;
    remove_dir(&live).and_then(|()| make_dir(&live)).map_err(|e| ApiError::io("make", &live, &e))?;
    let saves_old = saved::plan(node, &local, &attempt_hex).await?;
    shared.context().saves_old = saves_old;
    if saves_old {
        saved::keep_space(&staging, &local.name)?;
    }

    let peer = node.peer(&checked.coordinator.to_string()).await?;
    let began = Instant::now();
    let builds = checked.commit.artifacts.iter().zip(&checked.indexes).map(|(artifact, index)| {
        let one = Build {
            cluster: local.cluster_id.clone(),
            instance: instance.to_owned(),
            session: task.attempt.0,
            from: peer,
            artifact: artifact.name.clone(),
            root: artifact.root,
            index: index.clone(),
            staging: staging.clone(),
        };
        build(node, one, progress(node, task.attempt, instance, peer, &artifact.name))
    });
    for built in futures_util::future::join_all(builds).await {
        built?;
    }
    add_ms(&mut shared.report().phases_ms, "build", began);

    let began = Instant::now();
    let artifacts = checked.commit.artifacts.iter().zip(&checked.indexes).filter(|(a, _)| a.name != DEVICE);
    let copies = artifacts.map(|(artifact, index)| {
        let copy = LiveCopy {
            layout: node.layout.clone(),
            local: local.clone(),
            artifact: artifact.name.clone(),
            root: artifact.root,
            base: index.base_roots.first().copied(),
            image: staging.join(file_name(&artifact.name)),
            manifest: staged_manifest(&staging, &artifact.name),
            to: live.join(file_name(&artifact.name)),
        };
        blocking("make the copy that will run", move || Ok((copy.artifact.clone(), copy.make()?)))
    });
    let copied = futures_util::future::join_all(copies).await;
    shared.context().hashed = copied.into_iter().collect::<Result<_, _>>()?;
    for dir in [staging, live] {
        sync_dir(&dir).map_err(|e| ApiError::io("sync", &dir, &e))?;
    }
    // What is promised from here on writes little, but it does write.
    node.db.keep_space()?;
    if free_bytes(node.layout.root())? < FREE_BYTES_MIN {
        return Err(ApiError::new(ErrorCode::TargetUnfit, format!("the node of target {} is full", local.name))
            .remedy("free some space where that node's data directory is, then commit again"));
    }
    let mut report = shared.report();
    add_ms(&mut report.phases_ms, "copy", began);
    report.engine = super::run::engine_name(node.engine).to_owned();
    report.staged_roots = checked.roots();
    Ok(())
}

fn progress(node: &Arc<Node>, attempt: AttemptId, instance: &str, to: PeerAddr, artifact: &str) -> Progress {
    let (node, instance, artifact) = (Arc::clone(node), instance.to_owned(), artifact.to_owned());
    let runtime = tokio::runtime::Handle::current();
    let last = std::sync::Mutex::new(None::<Instant>);
    Arc::new(move |phase, done, total| {
        // What arrives is counted where it is sent.
        if phase == "receive" {
            return;
        }
        {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|at| at.elapsed() < PROGRESS_INTERVAL) && done < total {
                return;
            }
            *last = Some(Instant::now());
        }
        let packet = Packet::Progress { phase: format!("{phase} {artifact}"), done, total };
        let (node, instance) = (Arc::clone(&node), instance.clone());
        runtime.spawn(async move {
            if to.id == node.id() {
                super::serve::progress(&node, node.id(), attempt, &instance, packet);
            } else if let Err(error) = post(&node, &to, attempt, &instance, packet).await {
                tracing::debug!(%error, "progress was not told");
            }
        });
    })
}

/// Pauses the old VM, tries the new one if its spec asks for it, and restores it: paused, its link down.
pub(crate) async fn activate(node: &Arc<Node>, instance: &str, task: &Task, shared: &Work) -> Result<(), ApiError> {
    let local = node.local(instance)?;
    let old = node.vms.current(instance).ok_or_else(|| {
        ApiError::new(ErrorCode::WrongState, format!("target {} has stopped meanwhile", local.name))
            .remedy("start it, then commit again")
    })?;
    let began = Instant::now();
    let staging = node.layout.staging(task.attempt, instance);
    let context = shared.context().clone();
    let not_restored = |error| not_restored(&local, error);
    let live = node.layout.live(instance, &live_name(task.attempt));
    let untouched =
        || context.hashed.iter().try_for_each(|(name, hashed)| hashed.check(name, &live.join(file_name(name))));
    let read_device = || context.roots.get(DEVICE).map(|root| device_state(&staging, root)).transpose();
    untouched().map_err(not_restored)?;
    let mut device = read_device().map_err(not_restored)?;
    old.pause().await.map_err(|error| not_restored(vmm_error(error)))?;
    *shared.paused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
    if context.saves_old {
        saved::save(node, &local, task.attempt, &old, shared).await.map_err(not_restored)?;
    }
    if let Some(health) = &local.spec.health {
        probation::stand(node, &local, health, task.attempt, device.take(), shared).await?;
    }
    if context.saves_old || local.spec.health.is_some() {
        // That took its time: what was verified, and asked about, is what will run.
        untouched().map_err(not_restored)?;
        device = read_device().map_err(not_restored)?;
    }
    let began = Instant::now();
    let restored = restore(node, &local, &live_name(task.attempt), device, &context.vmm).await;
    let new = restored.map_err(not_restored)?;
    node.vms.change(instance, |slot| slot.incoming = Some(new));
    add_ms(&mut shared.report().phases_ms, "restore", began);
    Ok(())
}

fn not_restored(local: &LocalInstance, error: ApiError) -> ApiError {
    ApiError {
        code: ErrorCode::Aborted,
        message: format!("the commit could not be restored on target {}", local.name),
        cause: Some(match error.cause {
            Some(cause) => format!("{}: {cause}", error.message),
            None => error.message,
        }),
        remedy: Some("every instance runs what it ran before; see that node's log, then commit again".into()),
    }
}

/// The device state, read in full just before a VMM reads it: that would take any bytes.
fn device_state(staging: &Path, root: &str) -> Result<File, ApiError> {
    let image = staging.join(file_name(DEVICE));
    let root: Hash = root.parse().map_err(|e| ApiError::internal("read a root", e))?;
    verified(DEVICE, &image, &staged_manifest(staging, DEVICE), root)
}

/// An image of which every byte was read, at its begin.
fn verified(name: &str, image: &Path, manifest: &Path, root: Hash) -> Result<File, ApiError> {
    let mut file = File::open(image).map_err(|e| ApiError::io("open", image, &e))?;
    verify(name, &file, manifest, root)?;
    file.rewind().map_err(|e| ApiError::io("read", image, &e))?;
    Ok(file)
}

pub(crate) async fn restore(
    node: &Arc<Node>,
    local: &LocalInstance,
    live: &str,
    device: Option<File>,
    vmm: &str,
) -> Result<Arc<dyn Vm>, ApiError> {
    // It may have been replaced since the offer was checked, and would not say that it can't make sense of this state.
    let now = facts_text(&vmm_view(&node.vmms.of(local).host().await.map_err(vmm_error)?))?;
    if now != vmm {
        return Err(ApiError::new(ErrorCode::TargetUnfit, format!("the host of {} got another VMM", local.name))
            .cause(format!("the commit was captured by {vmm}, this is {now}"))
            .remedy("install the VMM that the commit was captured by"));
    }
    node.vmms.of(local).restore(&local.machine(&node.layout, live, false), device).await.map_err(vmm_error)
}

/// Runs the new VM, ends the old one, advances the base.
pub(crate) async fn finalize(node: &Arc<Node>, instance: &str, task: &Task, shared: &Work) -> Result<(), ApiError> {
    let context = shared.context().clone();
    let mut local = node.local(instance)?;
    let live = live_name(task.attempt);
    let began = Instant::now();
    let slot = both(node, &local, &live).await?;
    let switched = local.live == live;
    let made = slot.incoming.or_else(|| slot.current.clone().filter(|_| switched));
    let new = match made {
        Some(made) if made.state().await.map_err(vmm_error)? != VmState::Gone => made,
        // Its process or its host was lost after the commit point.
        _ => restore_again(node, &local, task, &context).await?,
    };
    node.vms.change(instance, |slot| slot.incoming = Some(Arc::clone(&new)));
    if new.state().await.map_err(vmm_error)? == VmState::Paused {
        hints::begin(&new, &local, &context.roots, &hex::encode(task.attempt.0)).await;
    }
    new.resume().await.map_err(vmm_error)?;
    let paused_at = shared.paused_at.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(paused_at) = paused_at {
        shared.report().downtime_ns = u64::try_from(paused_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }
    new.set_link(true).await.map_err(vmm_error)?;

    if !switched {
        if let Some(old) = slot.current {
            old.quit().await.map_err(vmm_error)?;
        }
        local.live = live;
        local.vmm = serde_json::from_str(&context.vmm).ok();
        node.db.put_instance(&local)?;
    }
    node.vms.change(instance, |slot| {
        slot.current = Some(new);
        slot.incoming = None;
    });
    for old in names(&node.layout.instance(instance)).into_iter().filter(|name| *name != local.live) {
        let dir = node.layout.live(instance, &old);
        standby::keep_live(node, &local, &dir);
        remove_dir(&dir).map_err(|e| ApiError::io("remove", &dir, &e))?;
    }
    source::note(node, instance, &context).await?;
    source::advance(node, instance, task, &context).await?;
    node.store.set_instance_status(instance, InstanceStatus::Started).await?;
    leftovers::discard(vec![node.layout.staging(task.attempt, instance)], node.layout.staging_attempt(task.attempt));
    add_ms(&mut shared.report().phases_ms, "finalize", began);
    Ok(())
}

/// The VMs that an attempt has to do with. One that could not be talked to when the node started is asked for again.
async fn both(node: &Arc<Node>, local: &LocalInstance, live: &str) -> Result<Slot, ApiError> {
    let mut slot = node.vms.slot(&local.instance_id);
    if slot.current.is_none() {
        slot.current =
            node.vmms.of(local).adopt(&local.machine(&node.layout, &local.live, true)).await.map_err(vmm_error)?;
    }
    if slot.incoming.is_none() && local.live != live {
        slot.incoming =
            node.vmms.of(local).adopt(&local.machine(&node.layout, live, false)).await.map_err(vmm_error)?;
    }
    node.vms.change(&local.instance_id, |known| known.clone_from(&slot));
    Ok(slot)
}

/// The new VM once more, from the verified images.
async fn restore_again(
    node: &Arc<Node>,
    local: &LocalInstance,
    task: &Task,
    context: &WorkContext,
) -> Result<Arc<dyn Vm>, ApiError> {
    let live = live_name(task.attempt);
    let (dir, layout) = (node.layout.live(&local.instance_id, &live), node.layout.clone());
    let staging = node.layout.staging(task.attempt, &local.instance_id);
    let (roots, again) = (context.roots.clone(), local.clone());
    let device = blocking("copy the verified images again", move || {
        remove_dir(&dir).and_then(|()| make_dir(&dir)).map_err(|e| ApiError::io("make", &dir, &e))?;
        let mut device = None;
        for (name, root) in &roots {
            let root: Hash = root.parse().map_err(|e| ApiError::internal("read a root", e))?;
            // The base's advance may have been cut short between the two.
            let found = |staged: PathBuf, base: PathBuf| if staged.exists() { staged } else { base };
            let image = found(staging.join(file_name(name)), layout.base_image(&again.cluster_id, root));
            let manifest = found(staged_manifest(&staging, name), layout.base_manifest(&again.cluster_id, root));
            if name == DEVICE {
                device = Some(verified(name, &image, &manifest, root)?);
            } else {
                let (layout, local, artifact) = (layout.clone(), again.clone(), name.clone());
                let to = dir.join(file_name(name));
                LiveCopy { layout, local, artifact, root, base: None, image, manifest, to }.make()?;
            }
        }
        Ok(device)
    })
    .await?;
    restore(node, local, &live, device, &context.vmm).await
}

/// Drops the new VM and everything that was built; the old one runs on.
pub(crate) async fn roll_back(node: &Arc<Node>, instance: &str, task: &Task, shared: &Work) -> Result<(), ApiError> {
    let local = node.local(instance)?;
    probation::end(node, &local, task.attempt).await?;
    let slot = both(node, &local, &live_name(task.attempt)).await?;
    if let Some(new) = slot.incoming {
        new.quit().await.map_err(vmm_error)?;
        node.vms.change(instance, |slot| slot.incoming = None);
    }
    let old = match &slot.current {
        Some(old) => old.state().await.map_err(vmm_error)?,
        None => VmState::Gone,
    };
    let old = match (old, slot.current) {
        (VmState::Running, _) => None,
        (VmState::Paused, old @ Some(_)) => old,
        _ => saved::restore_or_boot(node, &local, task, shared).await?,
    };
    if let Some(old) = old {
        // One that was restored has it down. First: whoever finds it running finds it whole.
        old.set_link(true).await.map_err(vmm_error)?;
        saved::forget(node, &local, task.attempt)?;
        old.resume().await.map_err(vmm_error)?;
    }
    if let Err(error) = node.store.set_instance_status(instance, InstanceStatus::Started).await {
        tracing::warn!(instance, %error, "it runs, but the store was not told");
    }
    discard(node, instance, task.attempt, &shared.context());
    Ok(())
}

/// Removes what staging has built.
pub(crate) fn discard(node: &Node, instance: &str, attempt: AttemptId, context: &WorkContext) {
    let mut built = vec![node.layout.staging(attempt, instance)];
    if !context.live.is_empty() {
        built.push(node.layout.live(instance, &context.live));
    }
    leftovers::discard(built, node.layout.staging_attempt(attempt));
}
