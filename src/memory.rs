//! What was freed goes back to the system. The allocator does so by itself where memory is asked for and
//! freed again and again; after a start nothing may be for hours, and what recovery took is much.

// Links the allocator, whoever uses this.
use mimalloc as _;

unsafe extern "C" {
    fn mi_collect(force: bool);
}

/// Gives back what this thread has freed: some milliseconds.
pub(crate) fn give_back() {
    // SAFETY: it takes no pointer, may be called by any thread at any time, and touches no memory that is
    // in use; where another allocator serves the program it finds nothing to do.
    unsafe { mi_collect(true) }
}
