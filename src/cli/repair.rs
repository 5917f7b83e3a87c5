//! Cuts a damaged last segment.
