//! The bytes on the disk: pinned, written and read again, indexed, and opened by later versions.

mod common;
mod frame_round_trip;
mod golden;
mod index_model;
mod upgrade;
