//! The log engine of Strandline: one totally ordered, durable sequence of events in a directory.
//!
//! A **log** is a directory of **segments**; a segment is a file of **frames**; a frame is what one
//! commit writes: a header and one archive of a batch of **events**. An event's place is its
//! **offset**; a byte's place in a file is its **position**. See `docs/ARCHITECTURE.md` for the map
//! and `docs/ON_DISK_FORMAT.md` for the bytes.

// They panic where nobody takes what they print.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod active_file;
pub mod append;
pub mod backup;
pub mod buffer;
pub mod clock;
pub mod compact;
pub mod compaction;
pub mod config;
pub mod control;
pub mod data_dir;
pub mod earliest;
pub mod end_mark;
pub mod error;
pub mod event;
mod fields;
pub mod frame;
pub mod group_commit;
mod huge_page;
pub mod index;
pub mod io;
mod line_table;
mod listing;
pub mod log;
mod misplaced;
pub mod mutation;
mod new_segment;
pub mod offset;
pub mod once;
pub mod op;
mod pace;
mod packer;
mod parts;
mod pieces;
mod prefetch;
mod read_ahead;
pub mod reader;
pub mod recovery;
pub mod remains;
pub mod repair;
pub mod reserve;
pub mod restore;
pub mod retention;
pub mod retire;
mod rewrite;
pub mod rules;
pub mod scan;
pub mod scrub;
pub mod seal;
pub mod segment;
pub mod segment_set;
pub mod selection;
pub mod settings;
mod settle;
pub mod shell;
pub mod snapshot;
pub mod staging;
pub mod state;
pub mod stopped;
mod stored_index;
mod stored_producers;
pub mod sync_mode;
#[cfg(test)]
mod testing;
pub mod topic;
pub mod topics;
pub mod unsealed;
pub mod verify;
