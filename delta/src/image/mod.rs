mod allocate;
mod extent;
mod holes;
mod window;

use std::{fs::File, os::unix::fs::MetadataExt, path::Path};

use memmap2::Mmap;

pub(crate) use allocate::preallocate;
pub use extent::{Extent, normalise};
pub(crate) use extent::{Piece, batches, clip, intersects, pieces, slices, whole_blocks};
pub(crate) use holes::{data_extents, data_within};

use crate::{
    Result,
    error::{Error, Object},
    hash::is_zero,
    limits::IMAGE_BYTES_MAX,
};

const _: () = assert!(usize::BITS >= 64, "images are mapped whole");

/// A frozen image: a file that nobody writes or truncates while this value lives, mapped read-only, with a list of where it has data.
///
/// A file that a guest writes to must never become an `Image`; `refresh_shadow` makes a frozen copy of it.
pub struct Image {
    map: Mmap,
    data: Vec<Extent>,
    allocated_bytes: u64,
}

impl Image {
    /// Opens and maps the file at `path`.
    pub fn open(path: &Path) -> Result<Image> {
        Image::from_file(File::open(path).map_err(Error::io("open", Object::Image))?)
    }

    /// Maps a file that is open already. The descriptor itself may be closed afterwards.
    pub fn from_file(file: File) -> Result<Image> {
        let stat = file.metadata().map_err(Error::io("stat", Object::Image))?;
        if stat.len() > IMAGE_BYTES_MAX {
            return Err(Error::Limit {
                object: Object::Image,
                what: "length",
                value: stat.len(),
                limit: IMAGE_BYTES_MAX,
            });
        }
        let map = map(&file).map_err(Error::io("map", Object::Image))?;
        Ok(Image {
            data: data_extents(&file, map.len() as u64, Object::Image)?,
            map,
            allocated_bytes: stat.blocks() * 512,
        })
    }

    /// Length of the image.
    pub fn len_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// What the file occupies on its file system: less than its length where it has holes.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }

    /// All its bytes, holes as zeros. Reading a hole costs memory (of the page cache; on tmpfs it even allocates the page): ask [`Image::data`] first.
    pub fn as_slice(&self) -> &[u8] {
        &self.map
    }

    /// Where the file has data, ascending; everything else is a hole and reads as zeros.
    pub fn data(&self) -> &[Extent] {
        &self.data
    }

    /// The bytes of `extent`, or `None` where it leaves the image.
    pub(crate) fn get(&self, extent: Extent) -> Option<&[u8]> {
        let start = usize::try_from(extent.start).ok()?;
        let end = usize::try_from(extent.end).ok()?;
        self.map.get(start..end)
    }

    /// The bytes of `extent`, or `None` where it leaves the image. Where it has holes, data and zeros are put together in `scratch`: no page of a hole is
    /// touched, which would cost a fault and memory for each.
    pub(crate) fn read<'b>(&'b self, extent: Extent, scratch: &'b mut Vec<u8>) -> Option<&'b [u8]> {
        if clip(&self.data, extent).next() == Some(extent) {
            return self.get(extent);
        }
        scratch.clear();
        scratch.resize(self.get(extent)?.len(), 0);
        for data in clip(&self.data, extent) {
            let start = (data.start - extent.start) as usize;
            let bytes = self.get(data)?;
            scratch.get_mut(start..start + bytes.len())?.copy_from_slice(bytes);
        }
        Some(scratch)
    }

    /// Whether the image has exactly these bytes at `extent`.
    pub(crate) fn has(&self, extent: Extent, bytes: &[u8]) -> bool {
        match self.is_hole(extent) {
            true => extent.end <= self.len_bytes() && is_zero(bytes),
            false => self.get(extent) == Some(bytes),
        }
    }

    /// Whether no byte of `extent` is allocated.
    pub(crate) fn is_hole(&self, extent: Extent) -> bool {
        !intersects(&self.data, extent)
    }

    /// Whether `extent` reads as zeros. Holes in it are not touched.
    pub(crate) fn is_zero(&self, extent: Extent) -> bool {
        clip(&self.data, extent).all(|data| self.get(data).is_some_and(is_zero))
    }
}

#[expect(unsafe_code, reason = "mapping a file is unsafe by nature")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the contract of `Image` is that nobody changes the file while it is mapped. Images are bases, shadows and staged files of our own, with mode
    // 0600, and never what a virtual machine runs on; or files that a user names for `form delta`, and their indexes, which a newer one replaces by rename. Were it
    // broken all the same, hashes would not match, or a read behind a truncated end raise SIGBUS.
    unsafe { Mmap::map(file) }
}
