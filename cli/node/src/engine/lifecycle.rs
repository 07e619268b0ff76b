//! Making, starting, stopping and deleting an instance of this node.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use form_vmm_hooks::{Vm, VmState};

use super::instance::{LocalInstance, MEMORY, file_name, mac_of};
use super::layout::{make_dir, remove_dir, sync_dir, sync_file};
use super::preflight::vmm_view;
use super::{Node, blocking, recover};
use crate::auth::Address;
use crate::error::{ApiError, ErrorCode};
use crate::spec::{InstanceSpec, QemuSpec, VmmSpec, path_of};
use crate::store::{CreateInstance, DeleteInstance, InstanceRecord, InstanceStatus};

/// The directory of an instance's first VM.
pub(crate) const FIRST_LIVE: &str = "vm-0";

/// The first instance of a new cluster: its disks are copies of the spec's templates.
pub(crate) async fn create(
    node: &Arc<Node>,
    owner: Address,
    name: &str,
    spec: InstanceSpec,
) -> Result<LocalInstance, ApiError> {
    let private = node.private_dirs();
    spec.check_boot_files(&private)?;
    let templates = spec.check_disk_templates(&private)?;
    let (instance_id, cluster_id) = (random_id()?, random_id()?);
    let local = local(&instance_id, name, &cluster_id, owner, spec);
    node.vmms.of(&local).host().await.map_err(vmm_error)?;
    let dir = node.layout.live(&instance_id, &local.live);
    let disks = local.spec.disks.iter().map(|disk| disk.name.as_str());
    let names = disks.chain(local.spec.memory_template().map(|_| MEMORY)).zip(templates);
    let copies: Vec<_> = names.map(|(name, template)| (name.to_owned(), template, dir.join(file_name(name)))).collect();
    let made = blocking("copy the disks", {
        let dir = dir.clone();
        move || {
            make_dir(&dir).map_err(|e| ApiError::io("make", &dir, &e))?;
            for (disk, template, to) in copies {
                // The very file that was checked, whatever its path names by now.
                form_delta::clone_image(&path_of(&template), &to).map_err(|e| super::build::delta(&disk, e))?;
                sync_file(&to).map_err(|e| ApiError::io("sync", &to, &e))?;
            }
            sync_dir(&dir).map_err(|e| ApiError::io("sync", &dir, &e))
        }
    })
    .await;
    let created = match made {
        Ok(()) => put(node, &local).await,
        Err(error) => Err(error),
    };
    if let Err(error) = created {
        undo(node, &local);
        return Err(error);
    }
    Ok(local)
}

async fn put(node: &Arc<Node>, local: &LocalInstance) -> Result<(), ApiError> {
    // Ours first: an instance that the store names and its node does not know could never be started.
    node.db.put_instance(local)?;
    match node.store.create_instance(record(node, local)).await? {
        CreateInstance::Created => Ok(()),
        CreateInstance::NameTaken { instance_id } => Err(name_taken(&local.name, &instance_id)),
    }
}

/// Removes what a failed creation has made.
pub(crate) fn undo(node: &Node, local: &LocalInstance) {
    let files = remove_dir(&node.layout.instance(&local.instance_id))
        .and_then(|()| remove_dir(&node.layout.standby(&local.instance_id)));
    if let Err(error) = files {
        tracing::warn!(instance = local.instance_id, %error, "left over");
    }
    if let Err(error) = node.db.delete_instance(&local.instance_id) {
        tracing::warn!(instance = local.instance_id, %error, "left over");
    }
}

pub(crate) fn name_taken(name: &str, instance_id: &str) -> ApiError {
    ApiError::new(ErrorCode::Conflict, format!("an instance is named {name} already: {instance_id}"))
        .remedy("choose another name")
}

pub(crate) fn local(
    instance_id: &str,
    name: &str,
    cluster_id: &str,
    owner: Address,
    spec: InstanceSpec,
) -> LocalInstance {
    LocalInstance {
        instance_id: instance_id.to_owned(),
        name: name.to_owned(),
        cluster_id: cluster_id.to_owned(),
        owner,
        mac: match &spec.vmm {
            VmmSpec::Qemu(QemuSpec { mac: Some(mac), .. }) => mac.clone(),
            _ => mac_of(instance_id),
        },
        spec,
        live: FIRST_LIVE.to_owned(),
        vmm: None,
        disbelieved: Default::default(),
    }
}

/// A new instance's record for the store.
pub(crate) fn record(node: &Node, local: &LocalInstance) -> InstanceRecord {
    let now = i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX);
    InstanceRecord::new(&local.instance_id, &local.name, &node.id().to_string(), &local.cluster_id, local.owner, now)
}

/// Boots a stopped instance from its own disks.
pub(crate) async fn start(node: &Arc<Node>, instance: &str) -> Result<(), ApiError> {
    let local = free(node, instance)?;
    if is_there(node, &local).await? {
        return Err(ApiError::new(ErrorCode::WrongState, format!("{} is running already", local.name)));
    }
    local.spec.check_boot_files(&node.private_dirs())?;
    boot(node, &local).await?;
    node.store.bump_lifecycle_generation(instance).await?;
    Ok(node.store.set_instance_status(instance, InstanceStatus::Started).await?)
}

/// Whether an instance has a process: a guest may have switched itself off.
async fn is_there(node: &Arc<Node>, local: &LocalInstance) -> Result<bool, ApiError> {
    match vm_of(node, local).await? {
        Some(vm) => Ok(vm.state().await.map_err(vmm_error)? != VmState::Gone),
        None => Ok(false),
    }
}

/// The VM of an instance that no attempt holds. One that did not answer when the node started is asked for again.
async fn vm_of(node: &Arc<Node>, local: &LocalInstance) -> Result<Option<Arc<dyn Vm>>, ApiError> {
    match node.vms.current(&local.instance_id) {
        Some(vm) => Ok(Some(vm)),
        None => recover::adopt(node, local, true).await,
    }
}

async fn boot(node: &Arc<Node>, local: &LocalInstance) -> Result<(), ApiError> {
    let facts = vmm_view(&node.vmms.of(local).host().await.map_err(vmm_error)?);
    node.db.put_instance(&LocalInstance { vmm: Some(facts), ..local.clone() })?;
    let vm = node.vmms.of(local).boot(&local.machine(&node.layout, &local.live, true)).await.map_err(vmm_error)?;
    node.vms.change(&local.instance_id, |slot| slot.current = Some(vm));
    Ok(())
}

/// Boots an instance whose VM was lost during an attempt that is undone.
pub(crate) async fn boot_again(node: &Arc<Node>, instance: &str) -> Result<(), ApiError> {
    boot(node, &node.local(instance)?).await
}

/// Ends an instance's VM: as pulling the plug, its disks are flushed but nobody asks the guest.
pub(crate) async fn stop(node: &Arc<Node>, instance: &str) -> Result<(), ApiError> {
    let local = free(node, instance)?;
    let Some(vm) = vm_of(node, &local).await? else {
        return Err(ApiError::new(ErrorCode::WrongState, format!("{} is not running", local.name)));
    };
    vm.quit().await.map_err(vmm_error)?;
    node.vms.forget(instance);
    node.store.bump_lifecycle_generation(instance).await?;
    Ok(node.store.set_instance_status(instance, InstanceStatus::Stopped).await?)
}

/// Deletes a stopped instance with its files; the last of a cluster on this node takes the bases along.
pub(crate) async fn delete(node: &Arc<Node>, instance: &str) -> Result<(), ApiError> {
    let local = free(node, instance)?;
    if is_there(node, &local).await? {
        return Err(ApiError::new(ErrorCode::WrongState, format!("{} is running", local.name))
            .remedy(format!("stop it first: form manage stop --name {}", local.name)));
    }
    if let DeleteInstance::Busy { attempt_id } = node.store.delete_instance(instance).await? {
        return Err(in_attempt(&local.name, &attempt_id));
    }
    undo(node, &local);
    let siblings = node.db.instances()?.iter().any(|other| other.cluster_id == local.cluster_id);
    if siblings { Ok(()) } else { remove_bases(node, &local.cluster_id) }
}

/// Removes all that this node has of a cluster that none of its instances is in.
pub(crate) fn remove_bases(node: &Node, cluster: &str) -> Result<(), ApiError> {
    let base = node.layout.base(cluster);
    let dir = base.parent().unwrap_or(&base);
    remove_dir(dir).map_err(|e| ApiError::io("remove", dir, &e))
}

/// An instance of this node whose lifecycle no attempt holds.
fn free(node: &Node, instance: &str) -> Result<LocalInstance, ApiError> {
    let local = node.local(instance)?;
    match node.busy_with(instance) {
        None => Ok(local),
        Some(attempt) => Err(in_attempt(&local.name, &hex::encode(attempt.0))),
    }
}

pub(crate) fn in_attempt(name: &str, attempt: &str) -> ApiError {
    ApiError::new(ErrorCode::Conflict, format!("{name} is in a commit, attempt {attempt}"))
        .remedy("wait until it is settled: form manage status")
}

/// 20 random bytes, hex.
pub(crate) fn random_id() -> Result<String, ApiError> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|e| ApiError::internal("draw a random id", e))?;
    Ok(hex::encode(bytes))
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes that we may still write where `path` is.
pub(crate) fn free_bytes(path: &std::path::Path) -> Result<u64, ApiError> {
    let stat = rustix::fs::statvfs(path).map_err(|e| ApiError::io("look at the space of", path, &e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The VMM's own error, as a user meets it.
pub(crate) fn vmm_error(error: form_vmm_hooks::Error) -> ApiError {
    use form_vmm_hooks::ErrorKind;
    let code = match error.kind() {
        ErrorKind::MissingDependency => ErrorCode::MissingDependency,
        ErrorKind::Refused => ErrorCode::Unsupported,
        ErrorKind::WrongState => ErrorCode::WrongState,
        _ => ErrorCode::Internal,
    };
    let mut told = ApiError::new(code, error.to_string());
    if let Some(source) = std::error::Error::source(&error) {
        told = told.cause(super::build::chain(source));
    }
    match error {
        form_vmm_hooks::Error::File { .. } => told.remedy("put the file there, one that the node may open or run"),
        _ if code == ErrorCode::MissingDependency => told
            .remedy("install QEMU (Debian: apt-get install qemu-system-x86), or name it: form node init --qemu PATH"),
        _ => told,
    }
}
