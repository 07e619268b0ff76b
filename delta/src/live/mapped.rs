use std::fs::File;

use memmap2::{MmapOptions, MmapRaw};

use super::{Refreshed, file_len, refresh_in};
use crate::{
    Extent, Result,
    error::{Error, Object},
};

/// A guest's memory and its shadow, mapped: [`Mapped::refresh`] does what [`refresh_shadow`](crate::refresh_shadow) does. From the second time on hardly a page has to
/// be mapped any more, and it takes little more than a compare of the two where they lie. The pages are the page cache's; what is the process's own are their
/// tables, 1/512 of the data of each.
///
/// A disk that gives nothing, or a file that is cut short meanwhile, is a SIGBUS here and not an error, in a pause too: the process ends, and who let it pause
/// the guest has to see that the guest goes on. So this is for memory, which its guest has mapped as well, and not for disks.
pub struct Mapped {
    live: File,
    shadow: File,
    maps: Maps,
}

impl Mapped {
    /// Maps both. The shadow may still be of another length.
    pub fn new(live: &File, shadow: &File) -> Result<Mapped> {
        let cloned = |file: &File, object| file.try_clone().map_err(Error::io("open again", object));
        let (live, shadow) = (cloned(live, Object::Live)?, cloned(shadow, Object::Shadow)?);
        let len_bytes = file_len(&live, Object::Live)?;
        let map = |file: &File, object| {
            MmapOptions::new().len(len_bytes as usize).map_raw_read_only(file).map_err(Error::io("map", object))
        };
        let maps = Maps { live: map(&live, Object::Live)?, shadow: map(&shadow, Object::Shadow)?, len_bytes };
        Ok(Mapped { live, shadow, maps })
    }

    /// Brings the shadow to equal the live file. One that is not as long as it was mapped is read as a file.
    pub fn refresh(&mut self) -> Result<Refreshed> {
        let all = Extent::new(0, file_len(&self.live, Object::Live)?);
        refresh_in(&self.live, &self.shadow, Some(&self.maps), &[all], &|| true)
    }
}

pub(super) struct Maps {
    live: MmapRaw,
    shadow: MmapRaw,
    /// Of each.
    pub(super) len_bytes: u64,
}

#[expect(
    unsafe_code,
    reason = "no reference may be made to memory that a guest writes to, nor to all of a file that we write to"
)]
impl Maps {
    /// Copies the live file's bytes from `at` on: what they are may change under our hands, what was copied does not.
    pub(super) fn read_live(&self, at: u64, bytes: &mut [u8]) {
        let from = place(&self.live, at, bytes.len());
        // SAFETY: so many bytes are mapped there, and `bytes` is no part of a mapping. A guest may be writing to them, from another process: any mixture of old
        // and new bytes is a valid value, and nothing is decided by what is read there, only by the copy.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) }
        // That nobody reads there again in place of the copy.
        std::hint::black_box(bytes);
    }

    /// Whether the shadow has these bytes at `at`.
    pub(super) fn shadow_has(&self, at: u64, bytes: &[u8]) -> bool {
        let ours = place(&self.shadow, at, bytes.len());
        // SAFETY: so many bytes are mapped there. Nobody but `refresh` writes to the shadow, one call at a time, and in it only the thread that has this slice, which is here.
        bytes == unsafe { std::slice::from_raw_parts(ours, bytes.len()) }
    }
}

/// Where so many bytes are, all of them mapped.
fn place(map: &MmapRaw, at: u64, len: usize) -> *const u8 {
    let start = at as usize;
    assert!(start.checked_add(len).is_some_and(|end| end <= map.len()), "{len} bytes at {start} are not mapped");
    map.as_ptr().wrapping_add(start)
}
