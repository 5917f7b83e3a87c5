//! HTTP/1.1 as bytes: knows neither shards nor logs.
//!
//! ```text
//! bytes --request--> Head --route--> Operation        Head --origin--> may it, and CORS fields
//! bytes --body-----> data of sized and chunked bodies
//! values --response--> bytes           Appended --appended--> its answer
//! ```

pub mod accept;
pub mod admission;
pub mod appended;
pub mod authority;
pub mod body;
pub mod cors;
pub(crate) mod framing;
pub mod head;
pub mod operation;
pub mod origin;
pub mod query;
pub mod request;
pub mod response;
pub mod route;
mod target;
pub(crate) mod topic_path;
