//! From a path and a method to an operation.
