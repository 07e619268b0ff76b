#![expect(
    unsafe_code,
    reason = "taking pages out of a mapping is unsafe in general, and harmless in one of a frozen file"
)]

use memmap2::{Advice, UncheckedAdvice};

use super::{Extent, Image};
use crate::limits::POPULATE_BYTES_MIN;

/// An image is mapped whole, but no more of it is to be in the memory of the process than is being worked on: whoever goes through one takes it in
/// slices, and populates each before and releases it after. The kernel keeps what it has read in its page cache, which is not the process's memory.
impl Image {
    /// Maps the pages of `extent` in one call instead of a fault for every few of them. Only where there is data: populating a hole would fill it.
    pub(crate) fn populate(&self, extent: Extent) {
        if extent.len_bytes() < POPULATE_BYTES_MIN {
            return;
        }
        let extent = extent.and(Extent::new(0, self.len_bytes()));
        // Whatever the kernel says (too old, a device error), the read that follows meets it again.
        let _ = self.map.advise_range(Advice::PopulateRead, extent.start as usize, extent.len_bytes() as usize);
    }

    /// Takes the pages of `extent` out of the process's memory. Reading them again costs a fault each.
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
