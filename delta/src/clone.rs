use std::{
    fs::{File, OpenOptions, remove_file},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::{
    fs::{copy_file_range, ioctl_ficlone},
    io::Errno,
};

use crate::{
    Extent, Result,
    error::{Error, Object},
    image::{data_extents, preallocate},
};

/// How [`clone_image`] made the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneKind {
    /// The file system shares the blocks: no byte was moved.
    Reflink,
    /// Data was copied, holes stayed holes.
    Copy {
        /// Bytes copied.
        bytes: u64,
    },
}

/// Makes `to`, which must not exist, a copy of the image at `from`, which nobody may be writing to. Mode 0600. Not durable yet: what is built on the copy ends
/// with an fsync. A copy that failed is removed.
pub fn clone_image(from: &Path, to: &Path) -> Result<CloneKind> {
    let source = File::open(from).map_err(Error::io("open", Object::Base))?;
    let target = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(Error::io("create", Object::Output))?;
    let cloned = clone_file(&source, &target);
    if cloned.is_err() {
        // The first error is the one that tells.
        let _ = remove_file(to);
    }
    cloned
}

/// The same, into a file that was just made and is empty.
pub fn clone_file(source: &File, target: &File) -> Result<CloneKind> {
    // Whatever the reason of a refusal (another file system, one without reflinks), copying answers it or meets it again.
    if ioctl_ficlone(target, source).is_ok() {
        return Ok(CloneKind::Reflink);
    }
    let len_bytes = source.metadata().map_err(Error::io("stat", Object::Base))?.len();
    target.set_len(len_bytes).map_err(Error::io("set the length of", Object::Output))?;
    let mut bytes = 0;
    for extent in data_extents(source, len_bytes, Object::Base)? {
        preallocate(target, extent, Object::Output)?;
        copy(source, target, extent)?;
        bytes += extent.len_bytes();
    }
    Ok(CloneKind::Copy { bytes })
}

fn copy(source: &File, target: &File, extent: Extent) -> Result<()> {
    let (mut from, mut to) = (extent.start, extent.start);
    while to < extent.end {
        let left = (extent.end - to) as usize;
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
            Ok(0) => {
                let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(Error::io("copy", Object::Base)(ended));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_through_memory(source, target, Extent::new(to, extent.end));
            }
            Err(error) => return Err(Error::io("copy", Object::Base)(error)),
        }
    }
    Ok(())
}

/// For kernels and file systems where `copy_file_range` does not reach.
fn copy_through_memory(source: &File, target: &File, extent: Extent) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = extent.start;
    while at < extent.end {
        let len = (extent.end - at).min(buffer.len() as u64) as usize;
        let bytes = &mut buffer[..len];
        source.read_exact_at(bytes, at).map_err(Error::io("read", Object::Base))?;
        target.write_all_at(bytes, at).map_err(Error::io("write", Object::Output))?;
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{image, memory_file, noise};

    #[test]
    fn the_slow_path_copies_the_same() {
        let bytes = noise(1, 3 << 20);
        let source = memory_file(&bytes).unwrap();
        let target = memory_file(&[]).unwrap();
        copy_through_memory(&source, &target, Extent::new(0, bytes.len() as u64)).unwrap();
        let copied = crate::Image::from_file(target).unwrap();
        assert!(copied.as_slice() == image(&bytes).unwrap().as_slice());
    }
}
