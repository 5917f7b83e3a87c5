//! Which hosts and origins may do what.
