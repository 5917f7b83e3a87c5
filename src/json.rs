//! JSON as bytes: checked where it comes in, written where it goes out, never a tree in between.

pub mod check;
pub mod members;
pub mod walk;
pub mod write;
