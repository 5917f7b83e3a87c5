//! The two number lines of a log: an `Offset` counts events, a `Position` counts bytes of a file.
//!
//! At every moment `start <= synced <= visible <= written <= next`: the first offset still kept,
//! what is on the device, what readers see, what the kernel has accepted, and what the next append
//! gets. With `sync = commit` visible is synced. Ranges are half-open: an end is not included.

use std::fmt;

use zerocopy::FromZeros;

/// The place of an event in its log: 0, 1, 2, ... never reused under one tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromZeros)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every log.
    pub const ZERO: Offset = Offset(0);
    /// The largest offset that a log gives out: cursors carry offsets as signed 64-bit numbers.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// The offset of the event that has `offset` events before it.
    pub const fn new(offset: u64) -> Self {
        Offset(offset)
    }

    /// How many events lie before it.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `events` later; a log that reaches 2^63 events is a bug.
    #[must_use]
    pub fn plus(self, events: u64) -> Self {
        Offset(self.0.checked_add(events).expect("offsets stay below 2^63"))
    }

    /// How many offsets lie from `start` (included) to `self` (not included); 0 if it lies behind.
    pub fn since(self, start: Offset) -> u64 {
        self.0.saturating_sub(start.0)
    }

    /// The offset before, or `None` at the first.
    pub fn previous(self) -> Option<Offset> {
        self.0.checked_sub(1).map(Offset)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A byte offset from the start of a segment file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// The position `bytes` from the start of the file.
    pub const fn new(bytes: u64) -> Self {
        Position(bytes)
    }

    /// The number of bytes before it.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on; a file of 2^64 bytes is a bug.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Position(self.0.checked_add(bytes).expect("files stay below 2^64 bytes"))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
