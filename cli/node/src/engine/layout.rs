//! Where things are in a node's data directory. Directories 0700, files 0600.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use form_delta::Hash;
use form_proto::AttemptId;

/// The data directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("node.toml")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.root.join("node.key")
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.root.join("node.db")
    }

    /// Space that is kept for `node.db`.
    pub(crate) fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Held with `flock` by the one process that runs this node.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    pub(crate) fn instance(&self, instance: &str) -> PathBuf {
        self.instances().join(instance)
    }

    /// Everything that one VM process of an instance has: its RAM, disks, sockets and log.
    pub(crate) fn live(&self, instance: &str, live: &str) -> PathBuf {
        self.instance(instance).join(live)
    }

    /// The programs that the commands of machines of files may run; whoever operates the node puts them there.
    pub(crate) fn commands(&self) -> PathBuf {
        self.root.join("commands")
    }

    /// A link for each running machine of files, of its name, to where its files are.
    pub(crate) fn live_links(&self) -> PathBuf {
        self.root.join("live")
    }

    /// Made by whoever wants to know what the machines are told.
    pub(crate) fn traces(&self) -> PathBuf {
        self.root.join("traces")
    }

    pub(crate) fn staging_root(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn staging_attempt(&self, attempt: AttemptId) -> PathBuf {
        self.staging_root().join(hex::encode(attempt.0))
    }

    /// What is being built for one instance by one attempt.
    pub(crate) fn staging(&self, attempt: AttemptId, instance: &str) -> PathBuf {
        self.staging_attempt(attempt).join(instance)
    }

    pub(crate) fn standby_root(&self) -> PathBuf {
        self.root.join("standby")
    }

    /// Files that are kept near the head's images for one instance, to become its next ones.
    pub(crate) fn standby(&self, instance: &str) -> PathBuf {
        self.standby_root().join(instance)
    }

    pub(crate) fn standby_image(&self, instance: &str, artifact: &str, slot: usize) -> PathBuf {
        self.standby(instance).join(format!("{artifact}.{slot}.img"))
    }

    /// The manifest of an image that an artifact's standbys are or were.
    pub(crate) fn standby_manifest(&self, instance: &str, artifact: &str, root: Hash) -> PathBuf {
        self.standby(instance).join(format!("{artifact}.{root}.manifest"))
    }

    pub(crate) fn clusters(&self) -> PathBuf {
        self.root.join("clusters")
    }

    /// The images of a cluster that this node holds in full, each named by its root.
    pub(crate) fn base(&self, cluster: &str) -> PathBuf {
        self.clusters().join(cluster).join("base")
    }

    pub(crate) fn base_image(&self, cluster: &str, root: Hash) -> PathBuf {
        self.base(cluster).join(format!("{root}.img"))
    }

    pub(crate) fn base_manifest(&self, cluster: &str, root: Hash) -> PathBuf {
        self.base(cluster).join(format!("{root}.manifest"))
    }

    pub(crate) fn base_blocks(&self, cluster: &str, root: Hash) -> PathBuf {
        self.base(cluster).join(format!("{root}.blocks"))
    }
}

/// Makes a directory and its parents, 0700. The names that it has made are durable: what is fsynced in it can be found.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match (DirBuilder::new().mode(0o700).create(path), parent) {
        (Ok(()), parent) => parent.map_or(Ok(()), sync_dir),
        (Err(e), _) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        (Err(e), Some(parent)) if e.kind() == io::ErrorKind::NotFound => {
            make_dir(parent)?;
            make_dir(path)
        }
        (Err(e), _) => Err(e),
    }
}

/// A new, empty file for reading and writing, 0600.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// What a file is called behind its name until it is whole.
const TEMPORARY: &str = ".new";

/// What a directory that is being removed is called, with a number.
const GONE: &str = ".gone-";

/// Data, then the name: a reader finds all of it or nothing.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Of its own: files that differ in their extension alone are written beside one another.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    let temporary = PathBuf::from(temporary);
    let mut file = create_file(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the data of a file durable, whoever wrote it.
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a directory with what is in it; fine if it is not there. It gets another name first: work that can't be called
/// back may still be putting files into it, and then finds it no more. What an earlier try could not remove goes with it.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let fine = |done: io::Result<()>| match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    loop {
        let gone = path.with_file_name(format!("{GONE}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        match std::fs::rename(path, &gone) {
            // One of an earlier life.
            Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
            done => break fine(done)?,
        }
    }
    let Some(dir) = path.parent() else { return Ok(()) };
    let gone = names(dir).into_iter().filter(|name| name.starts_with(GONE));
    gone.map(|name| fine(std::fs::remove_dir_all(dir.join(name)))).fold(Ok(()), io::Result::and)
}

/// Whether a file of that name was being written when the node was lost; whole ones are renamed.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.ends_with(TEMPORARY) || name.ends_with(".record-new")
}

/// What is in a directory; nothing if it is not there.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_while_others_write_into_it_for_ever() {
        let dir = tempfile::tempdir().expect("tempdir");
        for round in 0..50 {
            let path = dir.path().join(round.to_string());
            make_dir(&path).expect("make");
            let writers = [0, 1].map(|writer| {
                let path = path.clone();
                std::thread::spawn(move || {
                    (0..).take_while(|n| File::create(path.join(format!("{writer}-{n}"))).is_ok()).count()
                })
            });
            remove_dir(&path).expect("remove");
            for writer in writers {
                writer.join().expect("no panic");
            }
            assert_eq!(names(dir.path()), [""; 0]);
        }
    }

    #[test]
    fn what_an_earlier_life_left_half_removed_is_not_in_the_way() {
        let dir = tempfile::tempdir().expect("tempdir");
        for number in 0..10 {
            make_dir(&dir.path().join(format!(".gone-{number}/vm-0"))).expect("make");
        }
        make_dir(&dir.path().join("one/vm-1")).expect("make");
        remove_dir(&dir.path().join("one")).expect("remove");
        assert!(!dir.path().join("one").exists());
        names(dir.path()).iter().for_each(|name| remove_dir(&dir.path().join(name)).expect("remove"));
        assert_eq!(names(dir.path()), [""; 0]);
        remove_dir(&dir.path().join("nothing")).expect("fine");
    }
}
