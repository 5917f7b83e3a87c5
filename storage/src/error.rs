//! What can go wrong with a log, by operation.
