use std::fs::File;

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use crate::{
    Extent, Result,
    error::{Error, Object},
    limits::PREALLOCATE_BYTES_MIN,
};

/// Gets the blocks for what is about to be written into a hole. ext4 then writes several times faster than when it allocates by and by (1 GiB in 1.4 s instead
/// of 4 to 18 s, on a disk with other writers), and a disk that is too small says so at once. File systems that cannot do it need not.
pub(crate) fn preallocate(file: &File, extent: Extent, object: Object) -> Result<()> {
    if extent.len_bytes() < PREALLOCATE_BYTES_MIN {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, extent.start, extent.len_bytes()) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(Error::io("allocate", object)(error)),
    }
}
