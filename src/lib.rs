//! Strandline: a durable event log that pushes. This library is the server; the binary is a thin shell.

pub mod append;
pub mod cli;
pub mod config;
pub mod connection;
pub mod event_json;
pub mod health;
pub mod history;
pub mod http;
pub mod input;
pub mod json;
pub mod listener;
pub mod local;
pub mod log_handle;
pub mod mesh;
pub mod ndjson;
pub mod owner;
pub mod pages;
pub mod problem;
pub mod runtime;
pub mod server;
pub mod shard;
pub mod shutdown;
pub mod sse;
pub mod stream;
pub mod timestamp;
pub mod websocket;
