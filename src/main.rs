//! The `strandline` command.

#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::process::ExitCode;

/// A request makes some ten small allocations, which the system's allocator takes twice as long for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    strandline::cli::run()
}
