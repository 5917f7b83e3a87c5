//! Answers, written in order.
