//! The source's part of a commit: freeze the guest for as long as it takes to copy what still differs, then find
//! out at leisure what changed.
//!
//! 1. A *shadow* of each image is made from the base and brought up to the running guest, cut and hashed (warm).
//! 2. The guest is paused. Its device state is saved, and what has changed since is compared and copied into the
//!    shadows. Nothing is hashed, compressed or sent here. The guest goes on.
//! 3. The shadows are frozen files of ours: what was written since they were hashed is hashed again, and what differs
//!    from the base is encoded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use form_delta::{Extent, Hash, Image, Manifest};
use form_proto::CommitId;
use form_transport::{Artifact, ArtifactKind, COMMIT_VERSION, Commit};
use form_vmm_hooks::{ErrorKind, Vm};

use super::attempt::Attempt;
use super::bases;
use super::build::{chain, delta};
use super::encode::{self, Encodings};
use super::hints::{self, Hints};
use super::instance::{DEVICE, LocalInstance, MEMORY, file_name};
use super::layout::create_file;
use super::lifecycle::vmm_error;
use super::preflight::{facts_text, process_facts, reserve_source};
use super::shadow::{self, Shadow, Still};
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
    /// Where it differs from that base; `None` without one.
    pub(crate) changed: Option<Vec<Extent>>,
}

/// What the pause works on, and what it did.
struct Paused {
    shadows: Vec<Shadow>,
    read_bytes: u64,
    written_bytes: u64,
    /// Disks of which a hint was wrong.
    lied: Vec<String>,
}

/// Captures the source of an attempt and encodes it for its targets.
pub(crate) async fn capture(node: &Arc<Node>, attempt: &Arc<Attempt>) -> Result<CommitId, ApiError> {
    let _capturing = attempt.capturing.lock().await;
    let source = node.local(&attempt.record.source_instance)?;
    let (bases, base_attempt) = parent_roots(node, attempt.record.parent.as_deref()).await?;
    let hints = attempt.hints.get_or_init(|| Hints::new(attempt.hex(), &source, &bases, base_attempt.as_deref()));
    let vm = node.vms.current(&source.instance_id).ok_or_else(|| {
        ApiError::new(ErrorCode::WrongState, format!("{} is not running", source.name))
            .remedy("start it, then commit again")
    })?;
    let staging = node.layout.staging(attempt.id, &source.instance_id);

    reserve_source(node, attempt.hex(), &source)?;
    let _promised = node.space.held(attempt.hex(), &source.instance_id);
    goes_on(attempt)?;
    attempt.enter("warm");
    let shadows = {
        let (layout, source, staging, bases) = (node.layout.clone(), source.clone(), staging.clone(), bases.clone());
        let (hints, written) = (hints.clone(), vm.cut(&hints.warm_cuts()).await);
        let warm = move || shadow::warm(&layout, &source, &staging, &bases, (&hints, &written));
        blocking("make the shadows", warm).await?
    };
    attempt.summary().warm_rounds = shadows.rounds;
    goes_on(attempt)?;
    attempt.enter("pause");
    let shadows = pause(node, attempt, &*vm, &source, &staging, shadows.shadows).await?;

    attempt.enter("diff");
    let frozen = freeze(node, &source, &staging, &bases, shadows).await?;
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

/// The roots that a commit has, by artifact, and the attempt that made it.
pub(crate) async fn parent_roots(
    node: &Node,
    parent: Option<&str>,
) -> Result<(BTreeMap<String, Hash>, Option<String>), ApiError> {
    let Some(parent) = parent else { return Ok(Default::default()) };
    let Some(record) = node.store.commit_record(parent).await? else { return Ok(Default::default()) };
    let commit = Commit::decode(&record.bytes).map_err(|e| ApiError::internal("read the parent commit", chain(&e)))?;
    Ok((commit.artifacts.into_iter().map(|a| (a.name, a.root)).collect(), Some(record.attempt_id)))
}

async fn pause(
    node: &Arc<Node>,
    attempt: &Attempt,
    vm: &dyn Vm,
    source: &LocalInstance,
    staging: &Path,
    shadows: Vec<Shadow>,
) -> Result<Vec<Shadow>, ApiError> {
    let cuts = attempt.hints.get().map(Hints::pause_cuts).unwrap_or_default();
    let device = staging.join(file_name(DEVICE));
    let state_out = source.has_device().then(|| create_file(&device).map_err(|e| ApiError::io("make", &device, &e)));
    let state_out = state_out.transpose()?;
    let paused = Arc::new(Mutex::new(Paused { shadows, read_bytes: 0, written_bytes: 0, lied: Vec::new() }));
    let copy = Box::new({
        let paused = Arc::clone(&paused);
        move |written| {
            let mut paused = paused.lock().unwrap_or_else(PoisonError::into_inner);
            let Paused { shadows, read_bytes, written_bytes, lied } = &mut *paused;
            for shadow in shadows {
                let (done, wrong) = shadow.follow_hint(&written).map_err(|e| {
                    std::io::Error::other(format!("{}: {}", shadow.artifact, e.cause.unwrap_or(e.message)))
                })?;
                *read_bytes += done.bytes_read;
                *written_bytes += done.bytes_written;
                shadow.wrote(done.changed);
                lied.extend(wrong.then(|| shadow.artifact.clone()));
            }
            Ok(())
        }
    });
    let captured = match vm.capture(state_out, cuts, copy).await {
        Ok(captured) => captured,
        // Whatever becomes of the commit, the guest is to run.
        Err(error) if error.kind() == ErrorKind::StillPaused && vm.resume().await.is_ok() => {
            let message = format!("{} could be resumed only at the second try: its capture is void", source.name);
            return Err(ApiError::new(ErrorCode::Aborted, message).cause(chain(&error)));
        }
        Err(error @ form_vmm_hooks::Error::Voided { .. }) => {
            tracing::error!(instance = source.name, error = chain(&error), "the capture is void");
            return Err(ApiError::new(ErrorCode::Aborted, format!("{} stood still for too long", source.name))
                .cause(chain(&error))
                .remedy("it runs again, and nothing else changed; commit when its host is less busy"));
        }
        Err(error) => {
            tracing::error!(instance = source.name, error = chain(&error), "the capture failed");
            return Err(vmm_error(error));
        }
    };
    let mut paused = paused.lock().unwrap_or_else(PoisonError::into_inner);
    hints::disbelieve(node, &source.instance_id, std::mem::take(&mut paused.lied))?;
    let mut summary = attempt.summary();
    summary.pause_ns = captured.pause_ns;
    let parts = [("stop", captured.stop_ns), ("device state", captured.state_ns), ("copy", captured.copy_ns)];
    let cont_ns = parts.iter().fold(captured.pause_ns, |rest, (_, ns)| rest.saturating_sub(*ns));
    let parts = parts.into_iter().chain([("cont", cont_ns)]);
    summary.pause_parts_ns = parts.map(|(part, ns)| (part.to_owned(), ns)).collect();
    summary.paused_read_bytes = paused.read_bytes;
    summary.paused_written_bytes = paused.written_bytes;
    Ok(std::mem::take(&mut paused.shadows))
}

/// All that was captured, each manifest beside its image. Sorted by name, as a commit lists them.
async fn freeze(
    node: &Arc<Node>,
    source: &LocalInstance,
    staging: &Path,
    bases: &BTreeMap<String, Hash>,
    shadows: Vec<Shadow>,
) -> Result<Vec<Frozen>, ApiError> {
    let (layout, cluster) = (node.layout.clone(), source.cluster_id.clone());
    let (in_staging, base_root) = (staging.to_owned(), bases.get(DEVICE).copied());
    let device = blocking("find what changed", move || {
        let base = base_root.and_then(|root| bases::open(&layout, &cluster, root));
        device_state(&in_staging, base)
    });
    let mut frozen = if source.has_device() { vec![device.await?] } else { Vec::new() };
    let tasks = shadows.into_iter().map(|shadow| {
        let staging = staging.to_owned();
        blocking("find what changed", move || {
            let (name, still) = (shadow.artifact.clone(), shadow.freeze(&staging)?);
            let kind = if name == MEMORY { ArtifactKind::Memory } else { ArtifactKind::Disk };
            Ok(frozen_of(name, kind, still))
        })
    });
    for task in futures_util::future::join_all(tasks).await {
        frozen.push(task?);
    }
    frozen.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(frozen)
}

/// It is small, new each time, and there only since the pause.
fn device_state(staging: &Path, base: Option<bases::Base>) -> Result<Frozen, ApiError> {
    let path = staging.join(file_name(DEVICE));
    let failed = |e| delta(DEVICE, e);
    let image = Image::open(&path).map_err(failed)?;
    let (manifest, changed) = match &base {
        Some(base) => {
            let diff = form_delta::diff(&base.image, &base.manifest, &image).map_err(failed)?;
            (diff.manifest, Some(diff.changed))
        }
        None => (form_delta::scan(&image), None),
    };
    let still = Still { path, base_root: base.map(|b| b.root), image, manifest, changed };
    still.write_manifest(staging, DEVICE)?;
    Ok(frozen_of(DEVICE.to_owned(), ArtifactKind::DeviceState, still))
}

fn frozen_of(name: String, kind: ArtifactKind, still: Still) -> Frozen {
    let Still { path, base_root, image, manifest, changed } = still;
    let root = manifest.root();
    Frozen { name, kind, path, base_root, image, manifest, root, changed }
}
