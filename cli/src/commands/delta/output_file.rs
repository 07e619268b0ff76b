//! A file that is there whole or not at all: built under another name in the same directory, renamed.

use std::fs::{File, rename};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use form_node::{ApiError, ErrorCode};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::failure;
use super::interrupt::Workplace;

/// A file under its temporary name. Dropped before it is published, it is gone.
pub(super) struct OutputFile<'a> {
    pub(super) file: File,
    temporary: PathBuf,
    path: PathBuf,
    workplace: &'a Workplace,
}

impl<'a> OutputFile<'a> {
    /// A new file that will be `path`.
    pub(super) fn create(path: &Path, workplace: &'a Workplace) -> Result<Self, ApiError> {
        let name = path
            .file_name()
            .ok_or_else(|| ApiError::new(ErrorCode::BadRequest, format!("{} does not name a file", path.display())))?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        // What a killed command left must not be in the way of the next one.
        let mut random = [0; 4];
        let _ = getrandom::fill(&mut random);
        temporary.push(format!(".{:08x}.part", u32::from_le_bytes(random)));
        let temporary = path.with_file_name(temporary);
        let file = workplace.create(&temporary).map_err(|error| failure::io("made", path, &error))?;
        Ok(Self { file, temporary, path: path.to_owned(), workplace })
    }

    /// The file is whole: gives it its name, which must be free.
    pub(super) fn publish(self) -> Result<(), ApiError> {
        let step = || rename_new(&self.temporary, &self.path);
        self.workplace.publish(step).map_err(|error| failure::io("made", &self.path, &error))
    }

    /// Gives it its name in place of what has that now.
    pub(super) fn replace(self) -> Result<(), ApiError> {
        let step = || rename(&self.temporary, &self.path);
        self.workplace.publish(step).map_err(|error| failure::io("made", &self.path, &error))
    }
}

impl Drop for OutputFile<'_> {
    fn drop(&mut self) {
        self.workplace.discard();
    }
}

/// Refuses a name that is taken, before any work is done for it.
pub(super) fn must_be_free(path: &Path) -> Result<(), ApiError> {
    match path.symlink_metadata() {
        Ok(_) => Err(failure::io("made", path, &io::ErrorKind::AlreadyExists.into())),
        Err(_) => Ok(()),
    }
}

/// Renames, but over nothing.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that can't promise it: looked at before, then.
        Err(Errno::INVAL | Errno::NOSYS) => match to.symlink_metadata() {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => rename(from, to),
        },
        renamed => Ok(renamed?),
    }
}

/// Makes a name durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), ApiError> {
    let directory = directory(path);
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| failure::io("made durable", path, &error))
}

/// Whether a file can be renamed to `path`: both are on one file system.
pub(super) fn on_the_same_file_system(file: &File, path: &Path) -> bool {
    let device = |stat: io::Result<std::fs::Metadata>| stat.ok().map(|stat| stat.dev());
    device(file.metadata()) == device(directory(path).metadata())
}

/// The directory that a name is in.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
