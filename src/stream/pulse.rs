//! Chance, as subscribers need it: to spread them, and to name them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

/// A number in `range`: unpredictable enough to spread clients and to name connections.
pub fn random(range: Range<u64>) -> u64 {
    let bits = RandomState::new().build_hasher().finish();
    range.start + bits % (range.end - range.start)
}

/// A name for a connection, by which logs can tell it from others.
pub fn connection_id() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
