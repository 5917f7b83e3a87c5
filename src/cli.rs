//! The command line: one file a command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod append;
pub mod backup;
pub mod bench;
pub mod client;
pub mod counted;
pub mod destination;
pub mod directory;
pub mod dump;
pub mod export;
pub mod import;
pub mod place;
pub mod progress;
pub mod records;
pub mod repair;
pub mod restore;
pub mod serve;
pub mod source;
pub mod staged;
pub mod tail;
pub mod topics;
pub mod verify;

/// A durable event log that pushes: append over HTTP or WebSocket, stream over SSE and WebSocket from
/// any offset.
#[derive(Debug, Parser)]
#[command(
    name = "strandline",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 fine, 1 failure, 2 usage.\n\nStart with: strandline serve"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArguments),
    Append(append::AppendArguments),
    Tail(tail::TailArguments),
    Topics(topics::TopicsArguments),
    Verify(verify::VerifyArguments),
    Dump(dump::DumpArguments),
    Repair(repair::RepairArguments),
    Backup(backup::BackupArguments),
    Restore(restore::RestoreArguments),
    Export(export::ExportArguments),
    Import(import::ImportArguments),
    Bench(bench::BenchArguments),
}

/// Parses this process's arguments and does what they say.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Append(arguments) => append::run(&arguments),
        Command::Tail(arguments) => tail::run(&arguments),
        Command::Topics(arguments) => topics::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Dump(arguments) => dump::run(&arguments),
        Command::Repair(arguments) => repair::run(&arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    }
}
