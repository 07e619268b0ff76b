//! Repositories of many files: each run starts from a copy made of hard links, so that what the run added can be told apart.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use crate::Result;

/// Makes `to` a tree of hard links to the files of `from`.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    cp("-al", from, to)
}

/// Makes `to` a tree of copies, for files that may be changed in place.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    cp("-a", from, to)
}

fn cp(flags: &str, from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg(flags).arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(format!("cp {flags} {} {}", from.display(), to.display()).into()) }
}

/// Files below `dir` that are not hard links: those written since [`link`]. Calls `each` with them and sums up their lengths.
pub(super) fn added(dir: &Path, each: &mut dyn FnMut(&Path) -> Result<()>) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, meta) = (entry.path(), entry.metadata()?);
        if meta.is_dir() {
            sum += added(&path, each)?;
        } else if meta.is_file() && meta.nlink() == 1 {
            each(&path)?;
            sum += meta.len();
        }
    }
    Ok(sum)
}
