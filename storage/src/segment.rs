//! A segment file: its name and its header.
