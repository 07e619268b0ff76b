#![expect(unsafe_code, reason = "an image is compared where it lies, in the page cache")]

use std::{fs::File, path::Path};

use memmap2::{Advice, Mmap};
use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

use super::blocks::{BLOCK_BYTES, Run};
use crate::Result;

/// A file in memory, and where it has data.
pub(super) struct Mapped {
    map: Mmap,
    pub(super) data: Vec<Run>,
}

impl Mapped {
    pub(super) fn open(path: &Path) -> Result<Mapped> {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let len_bytes = file.metadata()?.len();
        if !len_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(format!("{} is not a whole number of blocks", path.display()).into());
        }
        // SAFETY: the images of a benchmark are files of ours that nobody truncates while they are compared.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Mapped { map, data: data(&file, len_bytes)? })
    }

    pub(super) fn len_blocks(&self) -> u64 {
        self.map.len() as u64 / BLOCK_BYTES
    }

    pub(super) fn bytes(&self, start: u64, end: u64) -> &[u8] {
        &self.map[start as usize..end as usize]
    }

    pub(super) fn blocks(&self, run: Run) -> &[u8] {
        &self.map[(run.start * BLOCK_BYTES) as usize..(run.end * BLOCK_BYTES) as usize]
    }

    /// Reads what is not in the page cache. To compare, faults are cheaper: they map 16 pages each, and this walks page by page.
    pub(super) fn populate(&self, run: Run) {
        let (offset, len) = (run.start * BLOCK_BYTES, (run.end - run.start) * BLOCK_BYTES);
        let _ = self.map.advise_range(Advice::PopulateRead, offset as usize, len as usize);
    }
}

fn data(file: &File, len_bytes: u64) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < len_bytes {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(start))?;
        runs.push(Run { start: start / BLOCK_BYTES, end: at.div_ceil(BLOCK_BYTES) });
    }
    Ok(runs)
}
