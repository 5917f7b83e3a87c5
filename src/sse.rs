//! Server-Sent Events: as bytes, and served.

pub mod encode;
pub mod render;
pub mod serve;
