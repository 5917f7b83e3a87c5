//! From the log to its subscribers.

pub mod catch_up;
pub mod cursor;
pub mod follow;
pub mod subscription;
pub mod view;
