//! Standbys: where the file system can't share blocks, files near the head's images wait beside each instance, to become its next images. A commit writes into
//! them what changed, instead of copying whole images first.
//!
//! A target consumes two of each artifact: one becomes the verified image, the other the copy that runs. The source consumes one, as its shadow. What the commit
//! replaces, the old base and the old VM's files, takes their place. Between attempts one task of the node brings them up to the head; it ends at once
//! when an attempt begins. Whatever is missing or not ready only makes a commit slower: it copies.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use form_delta::{CloneKind, Hash, Manifest, Standby};
use tokio_util::sync::CancellationToken;

use super::build::{chain, delta};
use super::instance::{LocalInstance, file_name};
use super::layout::{Layout, create_file, make_dir, names, remove_dir, write_durably};
use super::lifecycle::free_bytes;
use super::limits::{FREE_BYTES_MIN, STANDBYS};
use super::{Node, bases, blocking, capture};
use crate::error::ApiError;

/// A file that holds a base's bytes and is to become another image.
pub(crate) struct Start {
    pub(crate) file: File,
    /// All its bytes were hashed after they were written last.
    pub(crate) is_hashed: bool,
}

/// Makes the file `to`, equal to a base: of a standby, or else by cloning the base.
pub(crate) fn start_from(
    layout: &Layout,
    instance: &str,
    artifact: &str,
    base: &bases::Base,
    to: &Path,
) -> Result<Start, ApiError> {
    if let Some(file) = take(layout, instance, artifact, base.root, to) {
        return Ok(Start { file, is_hashed: true });
    }
    make_room(layout, instance, artifact, base.image.allocated_bytes())?;
    let kind = form_delta::clone_image(&base.path, to).map_err(|e| delta(artifact, e))?;
    if let CloneKind::Copy { bytes } = kind {
        tracing::debug!(instance, artifact, bytes, "no reflink and no standby: the base was copied");
    }
    let file = OpenOptions::new().read(true).write(true).open(to).map_err(|e| ApiError::io("open", to, &e))?;
    Ok(Start { file, is_hashed: false })
}

/// Before a copy of that many bytes: standbys that are of no use to this commit give up their space, which it was promised.
pub(crate) fn make_room(layout: &Layout, instance: &str, artifact: &str, bytes: u64) -> Result<(), ApiError> {
    if free_bytes(layout.root())? < bytes.saturating_add(FREE_BYTES_MIN) {
        slots(layout, instance, artifact).for_each(|path| remove(&path));
    }
    Ok(())
}

/// Makes a standby that is exactly the image of that root the file `to`, if there is one.
pub(crate) fn take(layout: &Layout, instance: &str, artifact: &str, root: Hash, to: &Path) -> Option<File> {
    let ready = slots(layout, instance, artifact).filter(|path| path.exists()).find_map(|path| {
        // One that is being brought up can't be opened; it is not of this root in any case.
        Standby::open(&path).ok().filter(|standby| standby.root() == Some(root))
    })?;
    match ready.consume(to) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!(instance, artifact, error = chain(&error), "a standby can't be used");
            None
        }
    }
}

fn slots(layout: &Layout, instance: &str, artifact: &str) -> impl Iterator<Item = PathBuf> {
    (0..STANDBYS).map(|slot| layout.standby_image(instance, artifact, slot))
}

fn remove(path: &Path) {
    if path.exists()
        && let Err(error) = Standby::open(path).and_then(Standby::remove)
    {
        tracing::warn!(path = %path.display(), error = chain(&error), "a standby stays");
    }
}

/// What the standbys of an instance take.
pub(crate) fn allocated_bytes(layout: &Layout, instance: &str) -> u64 {
    let dir = layout.standby(instance);
    let files = names(&dir).into_iter().filter_map(|name| std::fs::metadata(dir.join(name)).ok());
    files.map(|metadata| metadata.blocks() * 512).sum()
}

/// Before the base advances: images that it gives up become standbys of the instance. Those of `others` stay.
pub(crate) fn keep_bases(
    layout: &Layout,
    cluster: &str,
    instance: &str,
    staging: &Path,
    new: &[(&str, Hash)],
    others: &[Hash],
) {
    for (artifact, root) in new.iter().filter(|(artifact, _)| staging.join(file_name(artifact)).exists()) {
        let old =
            manifests(layout, instance, artifact).into_iter().chain([*root]).filter(|root| !others.contains(root));
        for (root, path) in old.map(|root| (root, layout.base_image(cluster, root))).filter(|(_, path)| path.exists()) {
            keep(layout, instance, artifact, &path, Some(root));
        }
    }
}

/// Before the directory of a VM that has ended is removed: its files become standbys. What its guest wrote is not known, so they are compared in full.
pub(crate) fn keep_live(node: &Node, local: &LocalInstance, dir: &Path) {
    for artifact in local.images().iter().filter(|_| node.keeps_standbys()) {
        let path = dir.join(file_name(artifact));
        if path.exists() {
            keep(&node.layout, &local.instance_id, artifact, &path, None);
        }
    }
}

fn keep(layout: &Layout, instance: &str, artifact: &str, from: &Path, root: Option<Hash>) {
    let Some(slot) = slots(layout, instance, artifact).find(|path| !path.exists()) else { return };
    let kept = make_dir(&layout.standby(instance)).map_err(|e| ApiError::io("make", &slot, &e));
    if let Err(error) = kept.and_then(|()| Standby::adopt(&slot, from, root).map_err(|e| delta(artifact, e))) {
        // It goes the way it would have gone.
        tracing::debug!(instance, artifact, %error, cause = error.cause, "not kept");
    }
}

/// Roots of which there is a manifest beside the standbys of an artifact.
fn manifests(layout: &Layout, instance: &str, artifact: &str) -> Vec<Hash> {
    let root = |name: String| name.strip_prefix(artifact)?.strip_prefix('.')?.strip_suffix(".manifest")?.parse().ok();
    names(&layout.standby(instance)).into_iter().filter_map(root).collect()
}

/// Brings standbys up to the head whenever no attempt is under way, until `stop`.
pub(crate) async fn follow(node: Arc<Node>, stop: CancellationToken) {
    // Work on blocking threads ends with this task, however that ends.
    let stop = stop.child_token();
    let _guard = stop.clone().drop_guard();
    let layout = node.layout.clone();
    match blocking("look for reflinks", move || shares_blocks(&layout)).await {
        Ok(false) => node.keep_standbys(),
        Ok(true) => return,
        Err(error) => return tracing::warn!(%error, cause = error.cause, "no standbys are kept"),
    }
    loop {
        if let Err(error) = bring_all(&node, &stop).await {
            tracing::warn!(%error, cause = error.cause, "standbys stay behind; commits copy instead");
        }
        tokio::select! {
            () = node.standbys.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Whether a clone in the data directory costs nothing. Standbys of before are then given up.
fn shares_blocks(layout: &Layout) -> Result<bool, ApiError> {
    let dir = layout.standby_root();
    let (from, to) = (dir.join("probe"), dir.join("probe-clone"));
    let io = |e: std::io::Error| ApiError::io("make a file in", &dir, &e);
    let gone = |path: &Path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    make_dir(&dir).and_then(|()| gone(&to)).map_err(io)?;
    create_file(&from).and_then(|file| file.set_len(4096)).map_err(io)?;
    let kind = form_delta::clone_image(&from, &to).map_err(|e| delta("a probe", e))?;
    gone(&from).and_then(|()| gone(&to)).map_err(io)?;
    if kind == CloneKind::Reflink {
        remove_dir(&dir).map_err(io)?;
    }
    Ok(kind == CloneKind::Reflink)
}

async fn bring_all(node: &Arc<Node>, stop: &CancellationToken) -> Result<(), ApiError> {
    for local in node.db.instances()? {
        let Some(record) = node.store.instance(&local.instance_id).await? else { continue };
        let (roots, _) = capture::parent_roots(node, record.current_commit.as_deref()).await?;
        for artifact in local.images() {
            let Some(root) = roots.get(&artifact).copied() else { continue };
            let (node, stop) = (Arc::clone(node), stop.clone());
            let local = local.clone();
            blocking("bring up standbys", move || {
                let go_on = || !stop.is_cancelled() && node.is_idle();
                bring(&node, &local, &artifact, root, &go_on)
            })
            .await?;
        }
    }
    Ok(())
}

fn bring(
    node: &Node,
    local: &LocalInstance,
    artifact: &str,
    root: Hash,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<(), ApiError> {
    let (layout, instance) = (&node.layout, &local.instance_id);
    // It goes on after the next commit.
    let Some(base) = bases::open(layout, &local.cluster_id, root).filter(|_| go_on()) else { return Ok(()) };
    let file = File::open(&base.path).map_err(|e| ApiError::io("open", &base.path, &e))?;
    let dir = layout.standby(instance);
    let kept = layout.standby_manifest(instance, artifact, root);
    // It says whose the base is when that becomes a standby, and what has changed since.
    make_dir(&dir).map_err(|e| ApiError::io("make", &dir, &e))?;
    if !kept.exists() {
        write_durably(&kept, &base.manifest.encode()).map_err(|e| ApiError::io("write", &kept, &e))?;
    }
    for path in slots(layout, instance, artifact) {
        // A new one takes space, which an attempt may have been promised that has not come here yet.
        let is_new = !path.exists();
        let go_on = || go_on() && !(is_new && node.space.is_promised());
        let needed = base.image.allocated_bytes().saturating_add(FREE_BYTES_MIN);
        if is_new && (!go_on() || free_bytes(&dir)? < needed) {
            tracing::debug!(instance, artifact, "no space for a standby");
            return Ok(());
        }
        // Somebody has it, and will tell when that is over.
        let Ok(mut standby) = Standby::open(&path) else { continue };
        let older = standby.near().and_then(|near| {
            let manifest = std::fs::read(layout.standby_manifest(instance, artifact, near)).ok()?;
            Manifest::decode(&manifest).ok().filter(|manifest| manifest.root() == near)
        });
        match standby.bring_to(&file, &base.manifest, older.as_ref(), &go_on) {
            Ok(moved) if moved.bytes_read > 0 => {
                tracing::debug!(instance, artifact, read = moved.bytes_read, written = moved.bytes_written, "followed");
            }
            Ok(_) => {}
            Err(form_delta::Error::Cancelled) => return Ok(()),
            Err(error) => {
                // A full disk above all: others need the space more.
                drop(standby);
                remove(&path);
                return Err(delta(artifact, error));
            }
        }
    }
    // Nothing here is near another image any more.
    for old in manifests(layout, instance, artifact).into_iter().filter(|old| *old != root) {
        let path = layout.standby_manifest(instance, artifact, old);
        std::fs::remove_file(&path).map_err(|e| ApiError::io("remove", &path, &e))?;
    }
    Ok(())
}
