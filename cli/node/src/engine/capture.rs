//! The source's part of a commit: freeze the guest for as long as it takes to copy what still differs, then find
//! out at leisure what changed.
//!
//! 1. A *shadow* of each image is made from the base and brought up to the running guest (warm).
//! 2. The guest is paused. Its device state is saved, and what has changed since is compared and copied into the
//!    shadows. Nothing is hashed, compressed or sent here. The guest goes on.
//! 3. The shadows are frozen files of ours: they are compared with the base, cut, hashed and encoded.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use form_delta::{Hash, Image, Manifest, refresh_shadow};
use form_proto::CommitId;
use form_transport::{Artifact, ArtifactKind, COMMIT_VERSION, Commit};
use form_vmm_hooks::ErrorKind;

use super::attempt::Attempt;
use super::bases::{self, staged_manifest};
use super::build::{chain, delta};
use super::encode::{self, Encodings};
use super::instance::{DEVICE, LocalInstance, MEMORY, file_name};
use super::layout::{Layout, create_file, make_dir, remove_dir, write_durably};
use super::lifecycle::vmm_error;
use super::preflight::{facts_text, process_facts, reserve_source};
use super::{Node, blocking};
use crate::api::types::AttemptEvent;
use crate::error::{ApiError, ErrorCode};

/// What was captured, and how it can be sent.
pub(crate) struct Capture {
    pub(crate) commit: Commit,
    pub(crate) commit_id: CommitId,
    pub(crate) encodings: Encodings,
}

/// One image that was captured.
pub(crate) struct Frozen {
    pub(crate) name: String,
    pub(crate) kind: ArtifactKind,
    pub(crate) path: PathBuf,
    /// The root that the parent commit has for it.
    pub(crate) base_root: Option<Hash>,
    pub(crate) image: Image,
    pub(crate) manifest: Manifest,
    pub(crate) root: Hash,
    pub(crate) changed_bytes: u64,
}

/// Bytes that were read and written while the guest stood still.
#[derive(Clone, Copy, Default)]
struct Paused {
    read: u64,
    written: u64,
}

/// Captures the source of an attempt and encodes it for its targets.
pub(crate) async fn capture(node: &Arc<Node>, attempt: &Arc<Attempt>) -> Result<CommitId, ApiError> {
    let _capturing = attempt.capturing.lock().await;
    let source = node.local(&attempt.record.source_instance)?;
    let bases = parent_roots(node, attempt.record.parent.as_deref()).await?;
    let staging = node.layout.staging(attempt.id, &source.instance_id);

    reserve_source(node, attempt.hex(), &source)?;
    let _promised = node.space.held(attempt.hex(), &source.instance_id);
    goes_on(attempt)?;
    attempt.enter("warm");
    let shadows = {
        let (layout, source, staging, bases) = (node.layout.clone(), source.clone(), staging.clone(), bases.clone());
        blocking("make the shadows", move || warm(&layout, &source, &staging, &bases)).await?
    };
    goes_on(attempt)?;
    attempt.enter("pause");
    pause(node, attempt, &source, &staging, &shadows).await?;

    attempt.enter("diff");
    let frozen = freeze(node, &source, &staging, &bases).await?;
    let commit = Commit {
        version: COMMIT_VERSION,
        cluster: source.cluster_id.clone(),
        parent: attempt.record.parent.as_deref().map(super::offer::commit_hash).transpose()?,
        artifacts: frozen
            .iter()
            .map(|f| Artifact {
                name: f.name.clone(),
                kind: f.kind,
                image_len_bytes: f.image.len_bytes(),
                root: f.root,
            })
            .collect(),
        author: *attempt.signer.as_bytes(),
        description: attempt.description.clone(),
        time_ms: super::lifecycle::unix_ms(),
        request_message: attempt.request.message.clone(),
        source_instance: source.instance_id.clone(),
        vmm: facts_text(&process_facts(node, &source).await?)?,
    };
    commit.validate().map_err(|e| ApiError::internal("make the commit", chain(&e)))?;
    let commit_id = CommitId(commit.id());

    goes_on(attempt)?;
    attempt.enter("encode");
    let encodings = encode::encode(node, attempt, &source.cluster_id, &staging, &frozen).await?;
    {
        let mut summary = attempt.summary();
        summary.snapshot_id = hex::encode(commit_id.0);
        for f in &frozen {
            match f.kind {
                ArtifactKind::Memory => summary.ram_allocated_bytes = f.image.allocated_bytes(),
                ArtifactKind::Disk => summary.disk_allocated_bytes += f.image.allocated_bytes(),
                ArtifactKind::DeviceState => {}
            }
        }
        summary.artifacts = encode::summaries(&frozen, &encodings);
    }
    attempt.events.push(AttemptEvent::Snapshot { snapshot_id: hex::encode(commit_id.0) });
    if attempt.capture.set(Capture { commit, commit_id, encodings }).is_err() {
        return Err(ApiError::internal("capture", "an attempt captures once"));
    }
    Ok(commit_id)
}

/// Nobody waits any more for what is captured for an attempt that was aborted.
fn goes_on(attempt: &Attempt) -> Result<(), ApiError> {
    match attempt.decided.load(Ordering::Acquire) {
        false => Ok(()),
        true => Err(ApiError::new(ErrorCode::Aborted, "the attempt was aborted during its capture")),
    }
}

/// The roots that a commit has, by artifact.
pub(crate) async fn parent_roots(node: &Node, parent: Option<&str>) -> Result<BTreeMap<String, Hash>, ApiError> {
    let Some(parent) = parent else { return Ok(BTreeMap::new()) };
    let Some(record) = node.store.commit_record(parent).await? else { return Ok(BTreeMap::new()) };
    let commit = Commit::decode(&record.bytes).map_err(|e| ApiError::internal("read the parent commit", chain(&e)))?;
    Ok(commit.artifacts.into_iter().map(|a| (a.name, a.root)).collect())
}

/// A shadow and the live file that it follows.
struct Shadow {
    artifact: String,
    live: File,
    shadow: File,
}

fn warm(
    layout: &Layout,
    source: &LocalInstance,
    staging: &Path,
    bases: &BTreeMap<String, Hash>,
) -> Result<Vec<Shadow>, ApiError> {
    remove_dir(staging).and_then(|()| make_dir(staging)).map_err(|e| ApiError::io("make", staging, &e))?;
    let live_dir = layout.live(&source.instance_id, &source.live);
    let artifacts = std::iter::once(MEMORY).chain(source.spec.disks.iter().map(|d| d.name.as_str()));
    let mut shadows = Vec::new();
    for artifact in artifacts {
        let path = staging.join(file_name(artifact));
        let base = bases.get(artifact).and_then(|root| bases::open(layout, &source.cluster_id, *root));
        let shadow = match &base {
            Some(base) => {
                form_delta::clone_image(&base.path, &path).map_err(|e| delta(artifact, e))?;
                OpenOptions::new().read(true).write(true).open(&path)
            }
            None => create_file(&path),
        }
        .map_err(|e| ApiError::io("open", &path, &e))?;
        let live_path = live_dir.join(file_name(artifact));
        let live = File::open(&live_path).map_err(|e| ApiError::io("open", &live_path, &e))?;
        refresh_shadow(&live, &shadow).map_err(|e| delta(artifact, e))?;
        shadows.push(Shadow { artifact: artifact.to_owned(), live, shadow });
    }
    Ok(shadows)
}

async fn pause(
    node: &Arc<Node>,
    attempt: &Attempt,
    source: &LocalInstance,
    staging: &Path,
    shadows: &[Shadow],
) -> Result<(), ApiError> {
    let vm = node.vms.current(&source.instance_id).ok_or_else(|| {
        ApiError::new(ErrorCode::WrongState, format!("{} is not running", source.name))
            .remedy("start it, then commit again")
    })?;
    let device = staging.join(file_name(DEVICE));
    let state_out = create_file(&device).map_err(|e| ApiError::io("make", &device, &e))?;
    let pairs = shadows
        .iter()
        .map(|s| Ok((s.artifact.clone(), s.live.try_clone()?, s.shadow.try_clone()?)))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(|e| ApiError::internal("open the shadows", e))?;
    let counted = Arc::new(Mutex::new(Paused::default()));
    let counter = Arc::clone(&counted);
    let copy = Box::new(move || {
        for (artifact, live, shadow) in &pairs {
            let done = refresh_shadow(live, shadow)
                .map_err(|e| std::io::Error::other(format!("{artifact}: {}", chain(&e))))?;
            let mut paused = counter.lock().unwrap_or_else(PoisonError::into_inner);
            paused.read += done.bytes_read;
            paused.written += done.bytes_written;
        }
        Ok(())
    });
    let captured = match vm.capture(state_out, copy).await {
        Ok(captured) => captured,
        // Whatever becomes of the commit, the guest is to run.
        Err(error) if error.kind() == ErrorKind::StillPaused && vm.resume().await.is_ok() => {
            let message = format!("{} could be resumed only at the second try: its capture is void", source.name);
            return Err(ApiError::new(ErrorCode::Aborted, message).cause(chain(&error)));
        }
        Err(error) => {
            tracing::error!(instance = source.name, error = chain(&error), "the capture failed");
            return Err(vmm_error(error));
        }
    };
    let paused = *counted.lock().unwrap_or_else(PoisonError::into_inner);
    let mut summary = attempt.summary();
    summary.pause_ns = captured.pause_ns;
    summary.paused_read_bytes = paused.read;
    summary.paused_written_bytes = paused.written;
    Ok(())
}

/// Manifests of the frozen images, each beside its image. Sorted by name, as a commit lists them.
async fn freeze(
    node: &Arc<Node>,
    source: &LocalInstance,
    staging: &Path,
    bases: &BTreeMap<String, Hash>,
) -> Result<Vec<Frozen>, ApiError> {
    let disks = source.spec.disks.iter().map(|d| (d.name.clone(), ArtifactKind::Disk));
    let mut artifacts: Vec<_> =
        [(MEMORY.to_owned(), ArtifactKind::Memory), (DEVICE.to_owned(), ArtifactKind::DeviceState)]
            .into_iter()
            .chain(disks)
            .collect();
    artifacts.sort_by(|a, b| a.0.cmp(&b.0));
    let tasks: Vec<_> = artifacts
        .into_iter()
        .map(|(name, kind)| {
            let (layout, cluster) = (node.layout.clone(), source.cluster_id.clone());
            let (staging, base_root) = (staging.to_owned(), bases.get(&name).copied());
            blocking("find what changed", move || {
                let path = staging.join(file_name(&name));
                let image = Image::open(&path).map_err(|e| delta(&name, e))?;
                let base = base_root.and_then(|root| bases::open(&layout, &cluster, root));
                let (manifest, changed_bytes) = match &base {
                    Some(base) => {
                        let diff =
                            form_delta::diff(&base.image, &base.manifest, &image).map_err(|e| delta(&name, e))?;
                        (diff.manifest, diff.changed.iter().map(|e| e.len_bytes()).sum())
                    }
                    None => (form_delta::scan(&image), image.allocated_bytes()),
                };
                let root = manifest.root();
                let manifest_path = staged_manifest(&staging, &name);
                write_durably(&manifest_path, &manifest.encode())
                    .map_err(|e| ApiError::io("write", &manifest_path, &e))?;
                let base_root = base.map(|b| b.root);
                Ok(Frozen { name, kind, path, base_root, image, manifest, root, changed_bytes })
            })
        })
        .collect();
    let mut frozen = Vec::new();
    for task in futures_util::future::join_all(tasks).await {
        frozen.push(task?);
    }
    Ok(frozen)
}
