//! Strandline: a durable event log that pushes. This library is the server; the binary is a thin shell.

// They panic where nobody takes what they print: `stderr::tell` does not.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod append;
#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
mod epoll;
pub mod event_json;
pub mod health;
pub mod history;
pub mod http;
pub mod input;
pub mod json;
pub mod listener;
pub mod local;
pub mod log_calls;
pub mod log_handle;
pub mod log_shared;
mod memory;
pub mod mesh;
pub mod metrics;
mod monitoring;
pub mod ndjson;
pub mod owner;
pub mod pages;
pub mod problem;
pub mod reading;
mod refusal;
pub mod runtime;
pub mod server;
pub mod settings;
pub mod settings_json;
pub mod shard;
pub mod shutdown;
pub mod socket;
pub mod sse;
#[cfg(feature = "cli")]
mod stderr;
pub mod stream;
pub mod timestamp;
pub mod topics;
pub mod unsent;
pub mod websocket;
pub mod workspace;
