//! The way back where there is no memory for two VMs at once (rule 23): the old one is saved, hashed and durable before its
//! process is ended. Going back is a restore of that, and if it can't be believed, a boot from the old VM's own disk.
//!
//! Of memory nothing is copied: a guest's RAM is a file, which stands still with it. Device state and record lie in the
//! attempt's staging, and go with it. The record is written last, when all that it names is durable, and is gone, durably,
//! before the VM may run again: what it names is the old VM as it stood still, or is found to be something else by its
//! hashes. Under TCG a VM that was restored and has not run yet has changed nothing (QEMU writes the generation id that is there), so it
//! may be lost and be restored once more. KVM writes the guest's clock into its memory as vCPUs are loaded; lost after that, it boots.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use form_proto::{AttemptId, Work as Task};
use form_vmm_hooks::Vm;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attempt::add_ms;
use super::build::chain;
use super::instance::{DEVICE, LocalInstance, MEMORY, file_name};
use super::layout::{create_file, sync_dir, write_durably};
use super::lifecycle::{boot_again, vmm_error};
use super::limits::{MEMORY_BYTES_SLACK, RESTORES_MAX, SAVED_BYTES};
use super::live_copy::Hashed;
use super::participate::{Work, post};
use super::peer::Packet;
use super::preflight::{facts_text, process_facts, vmm_view};
use super::space::Space;
use super::{Node, blocking, serve, target};
use crate::error::{ApiError, ErrorCode};
use crate::spec::{VmmSpec, WayBack};

/// What was saved of a VM.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// What its process was.
    vmm: String,
    /// BLAKE3, 64 hex.
    memory: String,
    /// BLAKE3, 64 hex.
    device: String,
    /// The disks, as they were left.
    disks: BTreeMap<String, Hashed>,
}

fn record_path(staging: &Path) -> PathBuf {
    staging.join("saved.json")
}

fn device_path(staging: &Path) -> PathBuf {
    staging.join("saved-device.img")
}

/// Whether an instance's old VM is to be saved in an attempt. Asked first in the preflight, where memory for a second VM is
/// promised, or is not; asked again it is the same answer.
///
/// # Errors
/// It is to be, and could not be restored.
pub(crate) async fn plan(node: &Node, local: &LocalInstance, attempt: &str) -> Result<bool, ApiError> {
    let VmmSpec::Qemu(qemu) = &local.spec.vmm else { return Ok(false) };
    let free = match qemu.way_back {
        WayBack::Auto => node.vmms.of(local).free_memory_bytes(),
        // It takes its memory whatever is free.
        WayBack::Paused | WayBack::Saved => None,
    };
    let saves = match second_vm_bytes(local) {
        // Where nobody can say, the better way back.
        Some(needed) => lacks(&node.memory, attempt, &local.instance_id, needed, free.unwrap_or(u64::MAX)),
        None => true,
    };
    if saves {
        process_as_host(node, local).await?;
    }
    Ok(saves)
}

/// What has to be free for the old VM to wait in memory, if it may. It is one more VM at any time: one on probation has
/// ended before the new one is restored.
pub(crate) fn second_vm_bytes(local: &LocalInstance) -> Option<u64> {
    match &local.spec.vmm {
        VmmSpec::Qemu(qemu) if qemu.way_back != WayBack::Saved => {
            Some(qemu.memory_bytes.saturating_add(MEMORY_BYTES_SLACK))
        }
        _ => None,
    }
}

/// Whether there is no memory for a second VM. That it lacks is remembered as a promise of nothing.
fn lacks(memory: &Space, attempt: &str, instance: &str, needed: u64, free: u64) -> bool {
    match memory.promised_bytes(attempt, instance) {
        Some(bytes) => bytes == 0,
        None => {
            let lacks = memory.promise(attempt, instance, needed, free).is_err();
            lacks && memory.promise(attempt, instance, 0, free).is_ok()
        }
    }
}

/// What the old VM's process is, which is what would restore it.
async fn process_as_host(node: &Node, local: &LocalInstance) -> Result<String, ApiError> {
    let process = facts_text(&process_facts(node, local).await?)?;
    let host = facts_text(&vmm_view(&node.vmms.of(local).host().await.map_err(vmm_error)?))?;
    match process == host {
        true => Ok(process),
        false => Err(ApiError::new(
            ErrorCode::TargetUnfit,
            format!("the old VM of target {} would have to be saved, and could not be restored", local.name),
        )
        .cause(format!("it runs in {process}, its host has {host}"))
        .remedy("stop and start it, or let its spec say way_back = \"paused\"")),
    }
}

/// Takes the space that saving will need.
pub(crate) fn keep_space(staging: &Path, name: &str) -> Result<(), ApiError> {
    let path = device_path(staging);
    let file = create_file(&path).map_err(|e| ApiError::io("make", &path, &e))?;
    match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, SAVED_BYTES) {
        // Nothing can be kept where space can't be taken.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(ApiError::new(ErrorCode::TargetUnfit, format!("the node of target {name} is full"))
            .cause(io::Error::from(error))
            .remedy("free some space where that node's data directory is, then commit again")),
    }
}

/// Saves the old VM, which is paused, and ends its process. Nothing has ended if this fails before that.
pub(crate) async fn save(
    node: &Arc<Node>,
    local: &LocalInstance,
    attempt: AttemptId,
    old: &Arc<dyn Vm>,
    shared: &Work,
) -> Result<(), ApiError> {
    let began = Instant::now();
    let vmm = process_as_host(node, local).await?;
    let staging = node.layout.staging(attempt, &local.instance_id);
    let device = device_path(&staging);
    // Not emptied: its space would be given up.
    let state = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&device);
    old.save(state.map_err(|e| ApiError::io("open", &device, &e))?).await.map_err(vmm_error)?;
    let live = node.layout.live(&local.instance_id, &local.live);
    let disks: Vec<_> = local.images().into_iter().filter(|name| name != MEMORY).collect();
    blocking("save the old VM", move || write(&staging, &live, vmm, &disks)).await?;
    old.quit().await.map_err(vmm_error)?;
    node.vms.change(&local.instance_id, |slot| slot.current = None);
    add_ms(&mut shared.report().phases_ms, "save", began);
    tracing::info!(instance = local.name, "the old VM is saved, and its process ended");
    Ok(())
}

/// All that the record names is durable before it is.
fn write(staging: &Path, live: &Path, vmm: String, disks: &[String]) -> Result<(), ApiError> {
    let durable_hash = |path: &Path| {
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.and_then(|()| hash(path)).map_err(|e| ApiError::io("save", path, &e))
    };
    let memory = durable_hash(&live.join(file_name(MEMORY)))?;
    let device = durable_hash(&device_path(staging))?;
    let mut saved = Saved { vmm, memory, device, disks: BTreeMap::new() };
    for name in disks {
        let path = live.join(file_name(name));
        let file = File::open(&path).and_then(|file| file.sync_all().map(|()| file));
        let as_left = file.and_then(|file| Hashed::of(&file)).map_err(|e| ApiError::io("save", &path, &e))?;
        saved.disks.insert(name.clone(), as_left);
    }
    let text = serde_json::to_vec(&saved).map_err(|e| ApiError::internal("write what was saved", chain(&e)))?;
    let path = record_path(staging);
    let made_durable = [staging, live].into_iter().try_for_each(sync_dir);
    made_durable.and_then(|()| write_durably(&path, &text)).map_err(|e| ApiError::io("write", &path, &e))
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The old VM whose process is gone: it was saved first, or was lost with its host, or ended by itself. Paused, if something
/// to be believed was saved. Else its disk is all there is of it: it boots from that.
pub(crate) async fn restore_or_boot(
    node: &Arc<Node>,
    local: &LocalInstance,
    task: &Task,
    shared: &Work,
) -> Result<Option<Arc<dyn Vm>>, ApiError> {
    let instance = local.instance_id.as_str();
    let restored = async {
        match read(node, local, task.attempt).await? {
            Found::Whole { vmm, device } => target::restore(node, local, &local.live, Some(device), &vmm).await.map(Ok),
            Found::Lost(reason) => Ok(Err(reason)),
        }
    };
    let lost = match restored.await {
        Ok(Ok(old)) => {
            node.vms.change(instance, |slot| slot.current = Some(Arc::clone(&old)));
            return Ok(Some(old));
        }
        Ok(Err(reason)) => reason,
        Err(error) if shared.restores_failed.fetch_add(1, Ordering::Relaxed) + 1 < RESTORES_MAX => return Err(error),
        Err(error) => error.cause.map_or(error.message.clone(), |cause| format!("{}: {cause}", error.message)),
    };
    tracing::error!(instance, cause = lost, "the old VM can't be restored: it boots from its disk, its memory is lost");
    forget(node, local, task.attempt)?;
    boot_again(node, instance).await?;
    warn(node, task.attempt, instance, shared, format!("booted from its own disk, its memory is lost: {lost}")).await;
    Ok(None)
}

/// What there is to restore an old VM from.
enum Found {
    /// Nothing, for good, and why.
    Lost(String),
    /// Every byte is what was saved.
    Whole { vmm: String, device: File },
}

async fn read(node: &Arc<Node>, local: &LocalInstance, attempt: AttemptId) -> Result<Found, ApiError> {
    let staging = node.layout.staging(attempt, &local.instance_id);
    let live = node.layout.live(&local.instance_id, &local.live);
    blocking("read what was saved", move || {
        let path = record_path(&staging);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It may have run since it was saved, or was lost before it was.
                return Ok(Found::Lost("nothing of it is saved".into()));
            }
            Err(error) => return Err(ApiError::io("read", &path, &error)),
        };
        let saved: Saved = match serde_json::from_slice(&text) {
            Ok(saved) => saved,
            Err(error) => return Ok(Found::Lost(format!("the record of what was saved is damaged: {error}"))),
        };
        let device = device_path(&staging);
        for (name, path, wanted) in
            [(MEMORY, live.join(file_name(MEMORY)), &saved.memory), (DEVICE, device.clone(), &saved.device)]
        {
            if hash(&path).map_err(|e| ApiError::io("read", &path, &e))? != *wanted {
                return Ok(Found::Lost(format!("{name} is not what was saved")));
            }
        }
        for (name, as_left) in &saved.disks {
            let path = live.join(file_name(name));
            if Hashed::at(&path).map_err(|e| ApiError::io("look at", &path, &e))? != *as_left {
                return Ok(Found::Lost(format!("{name} was written to since")));
            }
        }
        let device = File::open(&device).map_err(|e| ApiError::io("open", &device, &e))?;
        Ok(Found::Whole { vmm: saved.vmm, device })
    })
    .await
}

/// The old VM is about to run, by whatever way: what was saved is not what it is any more. Durable when it returns, also if an
/// earlier call failed half way.
pub(crate) fn forget(node: &Node, local: &LocalInstance, attempt: AttemptId) -> Result<(), ApiError> {
    let staging = node.layout.staging(attempt, &local.instance_id);
    if !staging.exists() {
        return Ok(());
    }
    let removed = match std::fs::remove_file(record_path(&staging)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_dir(&staging),
    };
    removed.map_err(|e| ApiError::io("remove what was saved in", &staging, &e))
}

/// Tells whoever follows the attempt, if anybody can be told.
async fn warn(node: &Arc<Node>, attempt: AttemptId, instance: &str, shared: &Work, message: String) {
    let coordinator = shared.context().coordinator.clone();
    let packet = Packet::Warning { message };
    let told = match node.peer(&coordinator).await {
        Ok(peer) if peer.id == node.id() => {
            serve::progress(node, node.id(), attempt, instance, packet);
            Ok(())
        }
        Ok(peer) => post(node, &peer, attempt, instance, packet).await,
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        tracing::warn!(instance, %error, "the coordinator was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_23_memory_is_promised_once_and_the_answer_stays() {
        let memory = Space::default();
        assert!(!lacks(&memory, "attempt", "b", 60, 100));
        assert!(lacks(&memory, "attempt", "c", 60, 100), "a sibling on the same node");
        assert!(lacks(&memory, "attempt", "c", 60, 1000), "more is free since, but a person was told");
        assert!(!lacks(&memory, "attempt", "b", 60, 0), "its VM has taken it");
        assert!(!lacks(&memory, "attempt", "d", 40, 100), "who saves takes nothing");
        drop(memory.held("attempt", "b"));
        assert!(!lacks(&memory, "next", "c", 60, 100), "it was given back");
    }
}
