//! Space that is kept for the node's own records. A participant that has promised something writes a few small records until
//! the end, and must not find the disk full then: guests, and everybody else, may have filled it meanwhile.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::limits::BALLAST_BYTES;

/// A file that holds nothing but space.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&self.path)
    }

    /// Takes the space, if it has not got it.
    ///
    /// # Errors
    /// There is none: nothing more should be promised.
    pub(crate) fn take_on(&self) -> io::Result<()> {
        let file = self.open()?;
        if file.metadata()?.blocks() * 512 >= BALLAST_BYTES {
            return Ok(());
        }
        match fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES) {
            Ok(()) => file.sync_all(),
            // Nothing can be kept where space can't be taken.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the space up. False: it had none.
    pub(crate) fn drop_it(&self) -> io::Result<bool> {
        let file = self.open()?;
        if file.metadata()?.blocks() == 0 {
            return Ok(false);
        }
        file.set_len(0)?;
        // A journalling file system hands the blocks out again once it has written that down.
        file.sync_all()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_on_and_dropped() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ballast = Ballast::new(&dir.path().join("ballast"));
        assert!(!ballast.drop_it().expect("nothing to drop"));
        for _ in 0..2 {
            ballast.take_on().expect("space");
            assert!(std::fs::metadata(&ballast.path).expect("stat").blocks() * 512 >= BALLAST_BYTES);
        }
        assert!(ballast.drop_it().expect("drop"));
        assert!(!ballast.drop_it().expect("nothing to drop any more"));
    }
}
