//! A real file system in a file (a loop mount), that can lose its power: what the journal of ext4 or XFS makes of it is what
//! is found afterwards. [`crate::disk`] loses more than they do; this shows that they do not lose what it keeps, and XFS
//! shares blocks, which it can't.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }
}

/// A mounted one. Dropped, it is gone with all that is on it.
pub(crate) struct Volume {
    at: PathBuf,
    image: PathBuf,
}

fn run(program: &str, arguments: &[&OsStr]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} (needs root): {said}");
}

impl Volume {
    /// An empty one at a new directory.
    pub(crate) fn mount(at: &Path, kind: Kind, len_bytes: u64) -> Self {
        std::fs::create_dir(at).expect("make");
        let volume = Self { at: at.to_owned(), image: at.with_extension(kind.name()) };
        std::fs::File::create(&volume.image).and_then(|image| image.set_len(len_bytes)).expect("make");
        run(&format!("mkfs.{}", kind.name()), &["-q".as_ref(), volume.image.as_os_str()]);
        volume.attach();
        if kind == Kind::Ext4 {
            std::fs::remove_dir(at.join("lost+found")).expect("remove");
        }
        volume
    }

    fn attach(&self) {
        run("mount", &["-o".as_ref(), "loop".as_ref(), self.image.as_os_str(), self.at.as_os_str()]);
    }

    /// The power goes and comes back: whatever the journal holds is replayed, all else is lost. Nobody may have a file open.
    pub(crate) fn crash(&self) {
        // FS_IOC_SHUTDOWN, without a last write of the log.
        run(
            "xfs_io",
            &["-x", "-c", "shutdown"].map(OsStr::new).into_iter().chain([self.at.as_os_str()]).collect::<Vec<_>>(),
        );
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(error) = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::empty()) {
            assert!(Instant::now() < until, "somebody still has a file open: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.attach();
    }

    /// Leaves nothing for anybody; the file that has it all.
    pub(crate) fn fill(at: &Path) -> PathBuf {
        let path = at.join("filler");
        let file = std::fs::File::options().create(true).append(true).open(&path).expect("create");
        let mut len = file.metadata().expect("stat").len();
        // Down to single blocks: space is in pieces.
        for piece in [1 << 20, 64 << 10, 4096] {
            while statvfs(at).expect("stat").f_bavail > 0
                && fallocate(&file, FallocateFlags::empty(), len, piece).is_ok()
            {
                len += piece;
            }
        }
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // It is busy only if a test has failed.
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&self.image);
    }
}
