//! Checks every frame, index and chain of a directory, and changes nothing.
