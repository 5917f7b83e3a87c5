//! Server-Sent Events: as bytes, and served.

pub mod encode;
mod id_line;
pub mod render;
pub mod serve;
