//! The time of events: never backwards, and slow to believe a leap.
