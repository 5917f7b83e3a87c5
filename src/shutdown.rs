//! The drain, in order.
