//! A subscriber: catching up, live, closed.
