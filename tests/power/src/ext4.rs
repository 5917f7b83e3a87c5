//! ext4 with a journal, on a loop device: kills, and a disk that is full.

use std::{io, path::Path};

/// Runs everything that a small ext4 is for.
pub fn run(_program: &Path, _work: &Path, _kills: u64, _seed: u64) -> io::Result<()> {
    Err(io::Error::other("to come"))
}
