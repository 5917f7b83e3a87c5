//! What many subscribers share.
