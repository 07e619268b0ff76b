#![expect(
    unsafe_code,
    reason = "taking pages out of a mapping is unsafe in general, and harmless in one of a frozen file"
)]

use memmap2::UncheckedAdvice;

use super::{Extent, Image};

impl Image {
    /// Takes the pages of `extent` out of the process's memory; the kernel keeps them in its page cache. An image is mapped whole, and whoever goes through one
    /// lets go of each slice behind it, so that no more of it is the process's than is being worked on. Reading a page again costs a fault for it and its
    /// neighbours.
    ///
    /// There is nothing to do *before* a slice: faults map 64 KiB at a time, and cost a tenth of comparing that; `MADV_POPULATE_READ` walks page by page and costs
    /// as much as the compare itself, `MADV_WILLNEED` gained nothing from a cold cache.
    pub(crate) fn release(&self, extent: Extent) {
        let extent = extent.and(Extent::new(0, self.len_bytes()));
        if extent.is_empty() {
            return;
        }
        // SAFETY: the mapping is shared and read-only, and its file does not change: a page that is read again has the same bytes. References into it stay
        // valid, since the mapping itself stays.
        let released = unsafe {
            let (start, len) = (extent.start as usize, extent.len_bytes() as usize);
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, len)
        };
        // It only costs memory.
        debug_assert!(released.is_ok(), "{released:?}");
    }
}
