//! A log: append, publish, seal, close.
