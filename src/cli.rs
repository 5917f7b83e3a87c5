//! The command line: one file a command.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

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
pub mod number;
pub mod pattern;
pub mod place;
pub mod progress;
pub mod reconnect;
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

/// The command line with all its commands.
fn command() -> clap::Command {
    take_negative_numbers(Arguments::command())
}

/// A negative number behind an option is its value, which it can refuse better than who takes it for another
/// option.
fn take_negative_numbers(command: clap::Command) -> clap::Command {
    let takes_value = |arg: &clap::Arg| arg.get_long().is_some() && arg.get_action().takes_values();
    command
        .mut_args(|arg| if takes_value(&arg) { arg.allow_negative_numbers(true) } else { arg })
        .mut_subcommands(take_negative_numbers)
}

/// Parses this process's arguments and does what they say.
pub fn run() -> ExitCode {
    let parsed = Arguments::from_arg_matches(&command().get_matches());
    let arguments = parsed.unwrap_or_else(|error| error.format(&mut command()).exit());
    match arguments.command {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        command().debug_assert();
    }

    /// What a parser makes is what its option takes, which is found out at its use.
    #[test]
    fn every_number_that_is_fine_is_taken() {
        let bench =
            "--url http://localhost:1 --server-pid 1 --client-core 0 --connecting 1 --bytes 100";
        for line in [
            "serve --shards 1 --connections-max 1 --segment-bytes 1048576 --compress-after 0 \
             --scrub-interval 1",
            "tail --limit 1",
            "verify x --threads 1",
            "dump x --from 1 --limit 1",
            "import --skip 1",
            &format!("bench append --publishers 1 --ndjson 1 --pipeline 1 {bench}"),
            "bench append --topics 1 --server-core 0,1 --shards 1",
            "bench fanout --subscribers 1 --publishers 1 --stall 1 --stall-buffer 1 --rates 1,2",
            "bench replay --events 1 --readers 1 --readings 1",
            "bench idle --subscribers 1 --hang-ups 1",
            "bench storm --subscribers 1 --history 1 --churn 1",
        ] {
            let words = ["strandline"].into_iter().chain(line.split_whitespace());
            let matches = command().try_get_matches_from(words).expect(line);
            Arguments::from_arg_matches(&matches).expect(line);
        }
    }

    /// It is said what is wanted, and not that there is no such option.
    #[test]
    fn negative_numbers_are_values() {
        for line in [
            "serve --shards -1",
            "serve --connections-max -1",
            "serve --segment-bytes -4096",
            "serve --compress-after -1",
            "serve --scrub-interval -1",
            "tail --limit -1",
            "verify x --threads -1",
            "dump x --from -1",
            "dump x --limit -1",
            "export --from -1",
            "import --skip -1",
            "bench append --rate -1",
            "bench idle --hang-ups -1",
            "bench storm --seconds -0.5",
        ] {
            let words = ["strandline"].into_iter().chain(line.split(' '));
            let error = command().try_get_matches_from(words).expect_err(line);
            assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation, "{line}: {error}");
            let text = error.to_string();
            assert!(text.contains("give ") || text.contains("neither an offset nor"), "{text}");
        }
    }
}
