//! `strandline topics`: what a log has, by prefix.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::client::{Client, ClientError, ServerAddress};
use crate::stderr::tell;

/// Lists topics: name, number of events, offset and time of the last.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  strandline topics
  strandline topics --prefix rooms/ --json

Exit codes: 0 fine, 1 failure, 2 usage.")]
pub struct TopicsArguments {
    #[command(flatten)]
    server: ServerAddress,
    /// Only topics that begin with these characters
    #[arg(long, default_value = "")]
    prefix: String,
    /// Prints the server's objects, one a line
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Page {
    topics: Vec<serde_json::Value>,
    next: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &TopicsArguments) -> ExitCode {
    match list(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list(arguments: &TopicsArguments) -> Result<(), ClientError> {
    let client = Client::new(&arguments.server);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let prefix = utf8_percent_encode(&arguments.prefix, NON_ALPHANUMERIC);
    let mut path = Some(format!("/api/v1/topics?prefix={prefix}&limit=1000"));
    while let Some(page_path) = path {
        let mut answer = client.get(&page_path, &[])?;
        let page: Page = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())
            .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
            .map_err(|what| ClientError::Connection(format!("an odd answer: {what}")))?;
        for topic in &page.topics {
            match print(&mut out, topic, arguments.json) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                printed => printed.map_err(not_written)?,
            }
        }
        path = page.next;
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(not_written(error)),
        _ => Ok(()),
    }
}

fn not_written(error: io::Error) -> ClientError {
    ClientError::Local(format!("standard output: {error}"))
}

fn print(out: &mut impl Write, topic: &serde_json::Value, json: bool) -> io::Result<()> {
    if json {
        return writeln!(out, "{topic}");
    }
    let name = topic["topic"].as_str().unwrap_or_default();
    let time = topic["time"].as_str().unwrap_or_default();
    // A JSON value pays no heed to a width.
    let (count, last) = (topic["count"].to_string(), topic["last"].to_string());
    writeln!(out, "{count:>10}  last {last:>10}  {time}  {name}")
}
