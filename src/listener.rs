//! How connections come in: the claim to an address, accepting, and refusing where there is no place.

mod accept;
mod claim;
mod refuse;

pub(crate) use accept::Door;
pub use claim::{Claim, ClaimError, ClaimLock};
