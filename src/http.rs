//! HTTP/1.1 as bytes: knows neither shards nor logs.

pub mod origin;
pub mod query;
pub mod request;
pub mod response;
pub mod route;
