//! Appends that wait for the next frame.
