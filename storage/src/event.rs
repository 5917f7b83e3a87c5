//! An event, and its archived form inside a frame.
