//! One file a command.

pub mod append;
pub mod client;
pub mod dump;
pub mod repair;
pub mod serve;
pub mod tail;
pub mod topics;
pub mod verify;
