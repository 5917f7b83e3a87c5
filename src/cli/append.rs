//! Appends a file or a pipe.
