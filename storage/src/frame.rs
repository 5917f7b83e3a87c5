//! A frame: what one commit writes.
