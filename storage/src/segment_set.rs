//! The sealed segments of a log, in offset order.
