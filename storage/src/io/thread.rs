//! The disk thread: names, locks, zeroing; every commit where there is no io_uring.
