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
pub(crate) fn data_extents(file: &File, len_bytes: u64, object: Object) -> Result<Vec<Extent>> {
    data_within(file, &[Extent::new(0, len_bytes)], object)
}

/// The same within the extents of a normalised list: no question is asked about the rest of the file.
///
/// This moves the file's offset, which this crate uses nowhere else: all reads and writes name their place.
pub(crate) fn data_within(file: &File, within: &[Extent], object: Object) -> Result<Vec<Extent>> {
    let mut extents = Vec::new();
    for window in within {
        let mut position = window.start;
        while position < window.end {
            let start = match seek(file, SeekFrom::Data(position)) {
                Ok(start) => start,
                // No data up to the end.
                Err(Errno::NXIO) => return Ok(extents),
                Err(error) => return Err(Error::io("find data in", object)(error)),
            };
            if start >= window.end {
                break;
            }
            let end = match seek(file, SeekFrom::Hole(start)) {
                Ok(end) => end.min(window.end),
                // Someone cut the file short between the two calls.
                Err(Errno::NXIO) => return Ok(extents),
                Err(error) => return Err(Error::io("find holes in", object)(error)),
            };
            if start >= end {
                break;
            }
            extents.push(Extent::new(start, end));
            position = end;
        }
    }
    Ok(extents)
}
