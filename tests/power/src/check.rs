//! Reads the log of a running server and compares it with what its clients know.

use std::{collections::BTreeSet, fs, io, path::Path};

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
    ledger.check(from, &read, is_whole).map_err(|error| broken(error.to_string()))
}

/// What became of segments by the end, from the names of files: a run in which none was rewritten and
/// none removed shows less than it should.
pub fn rewritten(data: &Path) -> io::Result<String> {
    let (mut logs, mut indexes) = (BTreeSet::new(), BTreeSet::new());
    let mut generations = 0;
    for entry in fs::read_dir(data.join("default/main"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let parts: Vec<_> = name.split('.').collect();
        if let [base, generation, "log"] = parts[..] {
            logs.insert(base.to_owned());
            generations += u64::from(generation != "1");
        } else if let [base, _, "idx"] = parts[..] {
            indexes.insert(base.to_owned());
        }
    }
    let removed = indexes.difference(&logs).count();
    Ok(format!("{} segments, {generations} of them rewritten, {removed} removed", logs.len()))
}
