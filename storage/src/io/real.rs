//! The real disk, by blocking calls.
