//! What is not needed any more. [`discard`] removes it at once, or when the disk lets it; what a daemon that was lost has left
//! is found at the next start by its name: whatever is not of an instance, a cluster or an attempt that the node knows, and
//! every file that was not whole yet.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{Layout, is_unfinished, names, remove_dir};
use super::limits::PERSIST_RETRY;
use crate::error::ApiError;

/// What is to stay.
pub(crate) struct Known {
    /// Ids of the instances of this node.
    pub(crate) instances: HashSet<String>,
    /// Ids of their clusters.
    pub(crate) clusters: HashSet<String>,
    /// Directories of attempts that are taken up again.
    pub(crate) staging: HashSet<PathBuf>,
}

/// Removes all else. Nobody uses the directory yet.
pub(crate) fn remove(layout: &Layout, known: &Known) -> Result<(), ApiError> {
    let places = [
        (layout.instances(), &known.instances),
        (layout.standby_root(), &known.instances),
        (layout.clusters(), &known.clusters),
    ];
    for (dir, kept) in places {
        for name in names(&dir).into_iter().filter(|name| !kept.contains(name)) {
            remove_any(&dir.join(name))?;
        }
    }
    for attempt in names(&layout.staging_root()).iter().map(|name| layout.staging_root().join(name)) {
        if !known.staging.iter().any(|dir| dir.starts_with(&attempt)) {
            remove_any(&attempt)?;
            continue;
        }
        for path in names(&attempt).iter().map(|name| attempt.join(name)).filter(|path| !known.staging.contains(path)) {
            remove_any(&path)?;
        }
    }
    for link in names(&layout.live_links()).iter().map(|name| layout.live_links().join(name)) {
        // `exists` follows it.
        if !link.exists() {
            remove_any(&link)?;
        }
    }
    let standbys = known.instances.iter().map(|instance| layout.standby(instance));
    let bases = known.clusters.iter().map(|cluster| layout.base(cluster));
    for dir in standbys.chain(bases).chain([layout.root().to_owned()]) {
        for name in names(&dir).into_iter().filter(|name| is_unfinished(name)) {
            remove_any(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Removes directories, and then, if it is empty, one above them. A disk that does not let it now may do so later: it is tried
/// until it is done.
pub(crate) fn discard(dirs: Vec<PathBuf>, above: PathBuf) {
    let removed = move || -> io::Result<()> {
        dirs.iter().try_for_each(|dir| remove_dir(dir))?;
        match std::fs::remove_dir(&above) {
            // Another instance of this node is in the same attempt; or it is gone.
            Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
            removed => removed,
        }
    };
    let Err(error) = removed() else { return };
    tracing::warn!(%error, "what was built can't be removed yet; tried again every second");
    tokio::spawn(async move {
        while removed().is_err() {
            tokio::time::sleep(PERSIST_RETRY).await;
        }
    });
}

fn remove_any(path: &Path) -> Result<(), ApiError> {
    tracing::info!(path = %path.display(), "left over, removed");
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_dir(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(|e| ApiError::io("remove", path, &e))
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    fn all_below(dir: &Path, found: &mut Vec<PathBuf>) {
        for path in names(dir).iter().map(|name| dir.join(name)) {
            found.push(path.clone());
            all_below(&path, found);
        }
    }

    #[test]
    fn what_is_known_stays_and_nothing_else() {
        let dir = tempfile::tempdir().expect("tempdir");
        let layout = Layout::new(dir.path());
        let at = |path: &str| dir.path().join(path);
        let kept = [
            "instances/i/vm-0/memory.img",
            "standby/i/root.0.img",
            "standby/i/root.0.img.record",
            "clusters/c/base/r.img",
            "clusters/c/base/r.manifest",
            "staging/a/i/root.img",
            "node.db",
            "node.db-wal",
        ];
        let planted = [
            "instances/j/vm-0/memory.img",
            "instances/.gone-3/vm-0/x",
            "standby/j/root.0.img",
            "standby/probe",
            "standby/probe-clone",
            "standby/i/root.r.manifest.new",
            "standby/i/root.0.img.record-new",
            "clusters/d/base/r.img",
            "clusters/.gone-0/base/r.img",
            "clusters/c/base/r.manifest.new",
            "staging/file",
            "staging/a/j/root.img",
            "staging/b/i/root.img",
            "staging/a/.gone-1/root.img",
            "node.toml.new",
        ];
        for path in kept.iter().chain(&planted).map(|path| at(path)) {
            create_dir_all(path.parent().expect("a parent")).expect("make");
            write(path, "x").expect("write");
        }
        create_dir_all(at("live")).expect("make");
        std::os::unix::fs::symlink(at("instances/i/vm-0"), at("live/i")).expect("link");
        std::os::unix::fs::symlink(at("instances/j/vm-0"), at("live/j")).expect("link");
        let known = Known {
            instances: HashSet::from(["i".to_owned()]),
            clusters: HashSet::from(["c".to_owned()]),
            staging: HashSet::from([at("staging/a/i")]),
        };
        remove(&layout, &known).expect("remove");
        let mut left = Vec::new();
        all_below(dir.path(), &mut left);
        let wanted: HashSet<_> =
            kept.iter().flat_map(|path| Path::new(path).ancestors().map(|part| dir.path().join(part))).collect();
        for path in left {
            let known = wanted.contains(&path) || path.starts_with(at("live/i")) || path == at("live");
            assert!(known, "left over: {}", path.display());
        }
        kept.iter().for_each(|path| assert!(at(path).exists(), "{path} is gone"));
        assert!(!at("live/j").is_symlink() && at("live/i").is_symlink());
    }
}
