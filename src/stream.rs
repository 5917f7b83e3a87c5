//! From the log to its subscribers.
//!
//! ```text
//!   published frames --> views, each with a ring of chunks ----> subscribers (sockets)
//!                          (encoded once, shared)                     ^
//!   the log on disk and in memory --> whole_log --> catch_up --> pages of chunks
//! ```
//! What bytes a chunk holds is the edges' business ([`chunk::Render`]); here they are only carried.

pub mod catch_up;
pub mod chunk;
pub mod compression;
pub mod cursor;
pub mod filter;
pub mod gaps;
pub mod live;
pub mod matching;
mod pages;
pub mod pulse;
pub mod search;
pub mod start;
pub mod subscribers;
pub mod subscription;
pub mod view;
pub mod views;
pub mod wanted;
pub mod whole_log;
