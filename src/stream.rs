//! From the log to its subscribers.
//!
//! ```text
//!   published frames --> follow --> views, each with a ring of chunks --> feeds --> outlets (sockets)
//!                                     (encoded once, shared)                ^
//!   the log on disk and in memory --> whole_log --> catch_up ---------------'
//! ```
//! What bytes a chunk holds is the edges' business ([`chunk::Render`]); here they are only carried.

pub mod catch_up;
pub mod chunk;
pub mod cursor;
pub mod feed;
pub mod follow;
pub mod live;
pub mod matching;
pub mod outlet;
pub mod pulse;
pub mod search;
pub mod subscription;
pub mod view;
pub mod whole_log;
