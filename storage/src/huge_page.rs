//! Memory in huge pages of the processor, for what is many and lies anywhere.
//!
//! To go to a place in memory the processor looks up its page first. It remembers some thousand of them: of
//! pages of 4 KiB those are a few MiB, of what a million topics take not a tenth, and looking one up takes as
//! long as fetching what lies there, also when it is only asked for ahead (`prefetch`). Of huge pages of
//! 2 MiB they are all that there is.
//!
//! Memory becomes a huge page once it is in use, so that little is as small as ever. Other memory of the
//! process does not, where so much would be kept for the sake of a few bytes.

use std::{
    sync::{
        OnceLock,
        mpsc::{Sender, channel},
    },
    thread,
};

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

    /// Has the kernel make it a huge page soon. Where it cannot, or has been told not to, nothing changes;
    /// nor where nothing was ever written.
    ///
    /// That takes 0.1 to 0.4 ms, and 4 where another core is busy and does not answer at once: a thread of
    /// its own waits for it.
    pub fn collapse_soon(&self) {
        static COLLAPSES: OnceLock<Option<Sender<usize>>> = OnceLock::new();
        let sender = COLLAPSES.get_or_init(|| {
            let (sender, pages) = channel();
            let thread = thread::Builder::new().name("huge-pages".to_owned());
            thread.spawn(move || pages.into_iter().for_each(collapse)).ok().map(|_| sender)
        });
        if let Some(sender) = sender {
            // The thread ends with the process.
            sender.send(std::ptr::from_ref(self).addr()).ok();
        }
    }
}

/// Makes the memory at an address a huge page.
fn collapse(address: usize) {
    #[cfg(not(miri))]
    // SAFETY: what is in the memory stays as it is, also if it belongs to somebody else by now, or to
    // nobody: where it lies in the machine changes.
    unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(address),
            HUGE_PAGE_BYTES,
            libc::MADV_COLLAPSE,
        );
    }
    #[cfg(miri)]
    let _ = address;
}
