//! From the log to the live edge.
