//! What is told to people: lines on standard error.
//!
//! Nobody may be there to take them: a pipe whose reader is gone, a log file on a disk that is full. What cannot be
//! told is lost, and no reason to end: so nothing here uses `eprintln!`, which panics then.

use std::{
    fmt,
    io::{self, Write},
};

/// Tells a line, given as to `format!`.
macro_rules! tell {
    ($($what:tt)*) => { $crate::stderr::tell_line(format_args!($($what)*)) };
}
pub(crate) use tell;

/// Tells a line, in one write: those of several threads do not mix.
pub fn tell_line(what: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{what}\n").as_bytes());
}
