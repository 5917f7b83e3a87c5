//! The `strandline` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    strandline::cli::run()
}
