//! The images that this node holds in full, by root. Nothing runs on them and nothing writes to them: a base is
//! what a diff compares with and a rebuild reads.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use form_delta::{BlockIndex, Hash, Image, Manifest};

use super::build::chain;
use super::instance::file_name;
use super::layout::{Layout, make_dir, names, sync_dir, write_durably};
use super::{Node, capture};
use crate::error::ApiError;

/// A base image with its manifest.
pub(crate) struct Base {
    pub(crate) root: Hash,
    pub(crate) path: std::path::PathBuf,
    pub(crate) image: Image,
    pub(crate) manifest: Manifest,
    /// Where its blocks stand by content, if that has been listed.
    pub(crate) blocks: Option<BlockIndex>,
    /// Keeps the file from becoming a standby, which is written to, as long as it is mapped.
    _mapped: File,
}

/// Opens a base; `None` if this node does not hold it. A manifest that does not hash to its own name is as good as
/// none: the image is then sent in full.
pub(crate) fn open(layout: &Layout, cluster: &str, root: Hash) -> Option<Base> {
    let manifest = std::fs::read(layout.base_manifest(cluster, root)).ok()?;
    let manifest = Manifest::decode(&manifest).ok().filter(|m| m.root() == root)?;
    let path = layout.base_image(cluster, root);
    let mapped = File::open(&path).ok()?;
    rustix::fs::flock(&mapped, rustix::fs::FlockOperation::NonBlockingLockShared).ok()?;
    let image = Image::from_file(mapped.try_clone().ok()?).ok()?;
    let blocks = std::fs::read(layout.base_blocks(cluster, root)).ok();
    let blocks = blocks.and_then(|bytes| BlockIndex::decode(&bytes).ok()).filter(|blocks| blocks.root() == root);
    let fits = image.len_bytes() == manifest.image_len_bytes();
    fits.then_some(Base { root, path, image, manifest, blocks, _mapped: mapped })
}

/// The roots of all bases of a cluster.
fn roots(layout: &Layout, cluster: &str) -> BTreeSet<Hash> {
    let Ok(dir) = std::fs::read_dir(layout.base(cluster)) else { return BTreeSet::new() };
    dir.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".img")?.parse().ok())
        .filter(|root| layout.base_manifest(cluster, *root).exists())
        .collect()
}

/// The roots of those bases of a cluster that can be built upon, as far as can be said without reading the images.
pub(crate) fn usable(layout: &Layout, cluster: &str) -> Vec<Hash> {
    roots(layout, cluster).into_iter().filter(|root| open(layout, cluster, *root).is_some()).collect()
}

/// After a rebuild that failed: reads a base in full, and removes it if it is not what its manifest says, so that
/// nothing is built upon it again.
pub(crate) fn drop_damaged(layout: &Layout, cluster: &str, base: &Base) -> bool {
    let read = File::open(&base.path).map(|file| form_delta::verify_image(&file, &base.manifest));
    let Ok(Err(error)) = read else { return false };
    tracing::error!(base = %base.path.display(), error = chain(&error), "a damaged base is dropped");
    for path in [layout.base_blocks(cluster, base.root), layout.base_manifest(cluster, base.root), base.path.clone()] {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "left over");
        }
    }
    true
}

/// Lists the blocks of the head's bases, for the next commit from here: a hint, made at leisure and missed by nobody.
pub(crate) fn list_blocks(layout: &Layout, cluster: &str) {
    for root in roots(layout, cluster) {
        let path = layout.base_blocks(cluster, root);
        let Some(base) = open(layout, cluster, root).filter(|base| base.blocks.is_none()) else { continue };
        let listed = BlockIndex::build(&base.image, root)
            .map_err(|error| chain(&error))
            .and_then(|blocks| write_durably(&path, &blocks.encode()).map_err(|error| error.to_string()));
        match listed {
            // Meanwhile the next base may have come.
            Ok(()) if !base.path.exists() => drop(std::fs::remove_file(&path)),
            Ok(()) => {}
            Err(error) => tracing::warn!(path = %path.display(), error, "the blocks of a base are not listed"),
        }
    }
}

/// Where the manifest of a staged artifact waits beside its image.
pub(crate) fn staged_manifest(staging: &Path, artifact: &str) -> std::path::PathBuf {
    staging.join(format!("{artifact}.manifest"))
}

/// The bases of what the other instances of a cluster run on this node: an attempt that one of them is in may have been
/// told that they are here.
pub(crate) async fn of_others(node: &Node, cluster: &str, instance: &str) -> Result<Vec<Hash>, ApiError> {
    let mut roots = Vec::new();
    for other in node.db.instances()?.iter().filter(|i| i.cluster_id == cluster && i.instance_id != instance) {
        let record = node.store.instance(&other.instance_id).await?;
        let commit = record.and_then(|record| record.current_commit);
        roots.extend(capture::parent_roots(node, commit.as_deref()).await?.0.into_values());
    }
    Ok(roots)
}

/// Moves verified, durable images out of staging into the base, then removes all that is neither theirs nor of `others`.
/// The journal is the participant's record, which names the attempt and so the staging: as long as it is not settled
/// this may be cut short anywhere and run again. A rename is atomic, and what has moved already is left alone.
pub(crate) fn advance<'a>(
    layout: &Layout,
    cluster: &str,
    staging: &Path,
    artifacts: impl Iterator<Item = (&'a str, Hash)>,
    others: impl IntoIterator<Item = Hash>,
) -> Result<(), ApiError> {
    let installed = install(layout, cluster, staging, artifacts)?;
    keep_only(layout, cluster, installed.into_iter().chain(others))
}

/// Moves verified, durable images out of staging into the base, beside what is there. The roots that are there then.
pub(crate) fn install<'a>(
    layout: &Layout,
    cluster: &str,
    staging: &Path,
    artifacts: impl Iterator<Item = (&'a str, Hash)>,
) -> Result<Vec<Hash>, ApiError> {
    let dir = layout.base(cluster);
    let io = |what: &'static str| move |e: std::io::Error| ApiError::internal(what, e);
    make_dir(&dir).map_err(io("make the base directory"))?;
    let mut installed = Vec::new();
    for (artifact, root) in artifacts {
        // Neither takes space that was not taken before the promise. Each is looked for by itself: a host that loses its
        // power may have kept either of the two renames.
        let manifest = staged_manifest(staging, artifact);
        if manifest.exists() {
            std::fs::rename(&manifest, layout.base_manifest(cluster, root))
                .map_err(io("advance the base's manifest"))?;
        }
        let image = staging.join(file_name(artifact));
        if image.exists() {
            std::fs::rename(&image, layout.base_image(cluster, root)).map_err(io("advance the base"))?;
        }
        match layout.base_image(cluster, root).exists() {
            true => installed.push(root),
            // The commit does not depend on it: the next one sends this image in full.
            false => tracing::error!(artifact, %root, "neither staged nor in the base: it is lost"),
        }
    }
    sync_dir(&dir).map_err(io("sync the base directory"))?;
    Ok(installed)
}

/// Removes all of a cluster's base but these.
pub(crate) fn keep_only(layout: &Layout, cluster: &str, roots: impl IntoIterator<Item = Hash>) -> Result<(), ApiError> {
    let dir = layout.base(cluster);
    let kept: BTreeSet<_> =
        roots.into_iter().flat_map(|root| ["img", "manifest", "blocks"].map(|kind| format!("{root}.{kind}"))).collect();
    for name in names(&dir).into_iter().filter(|name| !kept.contains(name)) {
        let path = dir.join(name);
        std::fs::remove_file(&path).map_err(|e| ApiError::io("remove", &path, &e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_put_beside_the_others_and_only_a_head_replaces_them() {
        let dir = tempfile::tempdir().expect("tempdir");
        let layout = Layout::new(dir.path());
        let staging = dir.path().join("staged");
        let stage = |byte: u8| {
            make_dir(&staging).expect("make");
            std::fs::write(staging.join(file_name("memory")), [byte; 8192]).expect("write");
            let manifest = form_delta::scan(&Image::open(&staging.join(file_name("memory"))).expect("open"));
            std::fs::write(staged_manifest(&staging, "memory"), manifest.encode()).expect("write");
            manifest.root()
        };
        let install = |root| install(&layout, "c", &staging, [("memory", root)].into_iter()).expect("install");
        let newer = stage(1);
        assert_eq!(install(newer), [newer]);
        let older = stage(2);
        assert_eq!(install(older), [older]);
        assert_eq!(usable(&layout, "c").len(), 2, "what a sibling stands on is still there");
        keep_only(&layout, "c", [newer]).expect("keep");
        assert_eq!(usable(&layout, "c"), [newer]);
        assert_eq!(install(older), [], "it is not staged any more");
        let torn = stage(4);
        std::fs::rename(staging.join(file_name("memory")), layout.base_image("c", torn)).expect("rename");
        assert_eq!(install(torn), [torn], "the power went between the two renames, and kept the second");
        assert_eq!(BTreeSet::from_iter(usable(&layout, "c")), BTreeSet::from([newer, torn]));
        keep_only(&layout, "c", [newer]).expect("keep");
        let newest = stage(3);
        advance(&layout, "c", &staging, [("memory", newest)].into_iter(), [newer]).expect("advance");
        assert_eq!(
            BTreeSet::from_iter(usable(&layout, "c")),
            BTreeSet::from([newer, newest]),
            "a sibling runs the newer"
        );
        advance(&layout, "c", &staging, [("memory", newest)].into_iter(), []).expect("once more");
        assert_eq!(usable(&layout, "c"), [newest]);
    }
}
