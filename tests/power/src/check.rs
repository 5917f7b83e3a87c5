//! Reads the log of a running server and compares it with what its clients know.

use std::io;

use crate::{client, ledger::Ledger, server::Server};

/// What is read once more behind what was read before, to see that it has stayed.
const OVERLAP_EVENTS: u64 = 2000;

/// Compares the log, or its end if not `is_whole`, with what was acknowledged and seen.
pub fn check(server: &Server, ledger: &Ledger, is_whole: bool) -> io::Result<()> {
    let broken = |what: String| io::Error::other(format!("{what} ({})", server.last_words()));
    // What is promised now must be found afterwards; more may come in between.
    let promised = ledger.promised().map_err(|error| broken(error.to_string()))?;
    let from = ledger.read_from(if is_whole { u64::MAX } else { OVERLAP_EVENTS });
    let (read, end) = client::read_log(server.address, from)
        .map_err(|error| broken(format!("reading: {error}")))?;
    if end < promised {
        return Err(broken(format!(
            "the log says {end}, but {promised} were acknowledged or seen"
        )));
    }
    ledger.check(from, &read, promised).map_err(|error| broken(error.to_string()))
}
