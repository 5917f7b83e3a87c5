//! Prints events as they come.
