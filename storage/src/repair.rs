//! Cuts a damaged last segment, and keeps what was cut.
