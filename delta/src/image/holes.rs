use std::fs::File;

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

use crate::{
    Result,
    error::{Error, Object},
    image::Extent,
};

/// Lists where `file` has data. A file system that knows no holes answers "everything", which is right too.
///
/// This moves the file's offset, which this crate uses nowhere else: all reads and writes name their place.
pub(crate) fn data_extents(file: &File, len_bytes: u64, object: Object) -> Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < len_bytes {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            // No data up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(Error::io("find data in", object)(error)),
        };
        let end = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(len_bytes),
            // Someone cut the file short between the two calls.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(Error::io("find holes in", object)(error)),
        };
        if start >= end {
            break;
        }
        extents.push(Extent::new(start, end));
        position = end;
    }
    Ok(extents)
}
