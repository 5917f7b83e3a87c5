//! Server-Sent Events as bytes: knows neither shards nor logs.

pub mod encode;
