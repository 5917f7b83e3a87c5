//! Memory in huge pages of the processor, for what is many and lies anywhere.
//!
//! To go to a place in memory the processor looks up its page first. It remembers some thousand of them: of
//! pages of 4 KiB those are a few MiB, of what a million topics take not a tenth, and looking one up takes as
//! long as fetching what lies there, also when it is only asked for ahead (`prefetch`). Of huge
//! pages of 2 MiB they are all that there is.
//!
//! Memory becomes a huge page once it is full, so that little is as small as ever; other memory of the
//! process does not, where so much would be kept for the sake of a few bytes.

use zerocopy::FromZeros;

/// The length of a huge page, on all processors that this runs on.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Something that takes one huge page, and lies on the border of one.
#[derive(Debug, FromZeros)]
#[repr(C, align(0x20_0000))]
pub(crate) struct HugePage<T>(pub T);

impl<T: FromZeros> HugePage<T> {
    const FITS: () =
        assert!(size_of::<Self>() == HUGE_PAGE_BYTES && align_of::<Self>() == HUGE_PAGE_BYTES);

    /// All zeroes, and small pages as yet.
    ///
    /// # Panics
    ///
    /// If there is no memory.
    pub fn zeroed() -> Box<HugePage<T>> {
        const { Self::FITS };
        HugePage::new_box_zeroed().expect("2 MiB of memory")
    }

    /// Asks the kernel to make it a huge page, now. Where it cannot, or has been told not to, nothing
    /// changes. Takes some 0.3 ms.
    pub fn collapse(&mut self) {
        #[cfg(not(miri))]
        // SAFETY: what is in the memory, which is borrowed, stays as it is; where it lies in the machine changes.
        unsafe {
            libc::madvise(std::ptr::from_mut(self).cast(), HUGE_PAGE_BYTES, libc::MADV_COLLAPSE);
        }
    }
}
