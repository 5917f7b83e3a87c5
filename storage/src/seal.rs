//! From a full segment to a sealed one.
