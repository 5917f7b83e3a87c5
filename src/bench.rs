//! The load generator: one thread, one epoll, thousands of connections, every delivery checked.

pub mod target;
