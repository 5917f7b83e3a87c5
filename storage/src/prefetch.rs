//! Asking for memory before it is needed, without waiting for it.
//!
//! Reading it would do that too, and is what the rest of this crate does where many places are read at
//! once (`look`). Where there is one alone and some 0.1 µs of other work, it is not enough: the processor
//! ends no instruction behind a read that has no answer, and has room for some hundred of them.

/// Tells the processor that `place` is about to be read or written: it comes nearer meanwhile.
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch changes nothing that a program sees, and is allowed anywhere; here it is
        // of a value that is borrowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = place;
}
