//! The load generator: one thread, one epoll, thousands of connections, every delivery checked.
//!
//! ```text
//! append, fan_out, replay, idle, storm     what is measured: one file a bench
//!         session                          connect, warm up, measure, drain, look at the server
//!         engine, load, link, net          the loop, the schedule, sockets
//!         subscriber, shared               what comes: compared with what others got, or parsed
//!         payload, check, record           what an event says, whether all came in order, how long it took
//!         standstill                       when the machine stood still, and nobody could have answered
//! target <- strandline (topics, sse, websocket, http, decompress)    how a server speaks
//! outcome, progress, page                  what was found
//! ```
//! It knows servers only as [`target::Target`], so that others can be measured by the same client.

pub mod append;
pub mod check;
pub mod decompress;
pub mod engine;
pub mod fan_out;
pub mod http;
pub mod idle;
pub mod link;
pub mod load;
pub mod net;
pub mod number;
pub mod options;
pub mod outcome;
pub mod page;
pub mod payload;
pub mod process;
pub mod progress;
pub mod record;
pub mod replay;
pub mod session;
pub mod shared;
pub mod sse;
pub mod standstill;
pub mod storm;
pub mod strandline;
pub mod subscriber;
pub mod target;
pub mod topics;
pub mod websocket;
