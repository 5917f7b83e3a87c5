//! How connections come in: the claim to an address, and accepting.

mod accept;
mod claim;

pub(crate) use accept::accept;
pub use claim::{Claim, ClaimError, ClaimLock};
