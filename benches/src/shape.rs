//! Images made for a benchmark.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use form_delta::generate::noise;

use crate::Result;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// An image, and which of its runs of 1 MiB of data are other ones in each version after the first.
pub(crate) struct Shape<F: Fn(u64) -> bool> {
    pub(crate) image_bytes: u64,
    pub(crate) data_mib: u64,
    pub(crate) is_changed: F,
}

impl<F: Fn(u64) -> bool> Shape<F> {
    /// The first version: data at equal distances, holes between them. It compresses about two to one.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path)?;
        file.set_len(self.image_bytes)?;
        self.write_runs(&file, 0, |_| true)
    }

    /// Makes an image of any version that one, durably.
    pub(crate) fn change(&self, path: &Path, version: u64) -> Result<()> {
        self.write_runs(&File::options().write(true).open(path)?, version, &self.is_changed)
    }

    /// Base and new image in files of these names.
    pub(crate) fn pair(&self, room: &Path) -> Result<(PathBuf, PathBuf)> {
        let (base, new) = (room.join("base"), room.join("new"));
        self.write(&base)?;
        self.write(&new)?;
        self.change(&new, 1)?;
        Ok((base, new))
    }

    fn write_runs(&self, file: &File, version: u64, wanted: impl Fn(u64) -> bool) -> Result<()> {
        let distance = self.image_bytes / self.data_mib;
        for number in (0..self.data_mib).filter(|number| wanted(*number)) {
            let bytes: Vec<u8> =
                noise(number | version << 32, MIB as usize).into_iter().map(|byte| byte & 15).collect();
            file.write_all_at(&bytes, number * distance)?;
        }
        Ok(file.sync_all()?)
    }
}
