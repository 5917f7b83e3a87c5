//! Reads the log of a running server and compares it with what its clients know, and looks at its files.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{self, PATIENCE},
    ledger::{EventName, Ledger},
    let_go::LetGo,
    server::Server,
};

/// What is read once more behind what was read before, to see that it has stayed.
const OVERLAP_EVENTS: u64 = 2000;

/// What becomes of segments is waited for so often, so long.
const WAITS_MAX: u32 = 600;
const WAIT: Duration = Duration::from_millis(100);

/// Compares the log, or its end if not `is_whole`, with what was acknowledged and seen. An error of the kind
/// `InvalidData` says that they differ, any other that the log could not be read.
pub fn check(server: &Server, ledger: &Ledger, is_whole: bool) -> io::Result<()> {
    let broken = |what| io::Error::new(io::ErrorKind::InvalidData, with_last_words(server, what));
    // What is promised now must be found afterwards; more may come in between.
    let promised = ledger.promised().map_err(|error| broken(error.to_string()))?;
    let from = ledger.read_from(if is_whole { u64::MAX } else { OVERLAP_EVENTS });
    let Read { from, gone, events, end } = read_kept(server, ledger, from)
        .map_err(|error| io::Error::other(with_last_words(server, format!("reading: {error}"))))?;
    if end < promised {
        return Err(broken(format!(
            "the log says {end}, but {promised} were acknowledged or seen"
        )));
    }
    let checked = ledger.check(from, &events, is_whole);
    checked
        .and_then(|()| ledger.check_gone(&gone, &events))
        .map_err(|error| broken(error.to_string()))
}

fn with_last_words(server: &Server, what: String) -> String {
    format!("{what} ({})", server.last_words())
}

/// What was read.
struct Read {
    from: u64,
    /// What was let go when that began.
    gone: LetGo,
    events: Vec<(u64, EventName)>,
    end: u64,
}

/// Reads all from `from` on, or from where a log begins that is limited.
fn read_kept(server: &Server, ledger: &Ledger, from: u64) -> io::Result<Read> {
    let began = Instant::now();
    loop {
        let (is_limited, passed_to) = (ledger.is_limited(), ledger.passed_to());
        let earliest = if is_limited { client::earliest(server.address)? } else { 0 };
        if is_limited {
            ledger.begins_at(earliest, passed_to);
        }
        let (from, gone) = (from.max(earliest), ledger.gone());
        match client::read_log(server.address, from) {
            Ok((events, end)) => return Ok(Read { from, gone, events, end }),
            Err(error) => {
                // More may have gone meanwhile.
                let has_gone = is_limited && client::earliest(server.address)? > from;
                if !has_gone || began.elapsed() > PATIENCE {
                    return Err(error);
                }
            }
        }
    }
}

/// What has become of segments, from the names of files that were looked at now and then.
#[derive(Debug, Default)]
pub struct Segments {
    /// By the offset at which they begin: those that had an index of their own, and so were synced to their end,
    sealed: BTreeSet<String>,
    /// those that were there anew, with an index,
    rewritten: BTreeSet<String>,
    /// and those whose log file was gone.
    removed: BTreeSet<String>,
}

impl Segments {
    /// Looks at them.
    pub fn look(&mut self, data: &Path) -> io::Result<()> {
        let (mut logs, mut indexes) = (BTreeSet::new(), BTreeSet::new());
        for entry in fs::read_dir(data.join("default/main"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            match name.split('.').collect::<Vec<_>>()[..] {
                [base, generation, "log"] => logs.insert((base.to_owned(), generation.to_owned())),
                [base, generation, "idx"] => {
                    indexes.insert((base.to_owned(), generation.to_owned()))
                }
                _ => continue,
            };
        }
        let anew = logs.intersection(&indexes).filter(|(_, generation)| generation != "1");
        self.rewritten.extend(anew.map(|(base, _)| base.clone()));
        self.sealed.extend(indexes.into_iter().map(|(base, _)| base));
        let there: BTreeSet<String> = logs.into_iter().map(|(base, _)| base).collect();
        self.removed.extend(self.sealed.difference(&there).cloned());
        Ok(())
    }

    /// Whether none was rewritten yet.
    pub fn lack_rewritten(&self) -> bool {
        self.rewritten.is_empty()
    }

    /// Gives a server that runs the time to rewrite some and to remove some: a busy machine had none for that.
    pub fn wait(&mut self, data: &Path) -> io::Result<()> {
        for _ in 0..WAITS_MAX {
            self.look(data)?;
            if self.check().is_ok() {
                break;
            }
            thread::sleep(WAIT);
        }
        Ok(())
    }

    /// A run in which none was rewritten, or none removed, shows less than it should.
    pub fn check(&self) -> io::Result<()> {
        if self.rewritten.is_empty() || self.removed.is_empty() {
            return Err(io::Error::other(format!("not all has become of them: {self}")));
        }
        Ok(())
    }
}

impl fmt::Display for Segments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Segments { sealed, rewritten, removed } = self;
        let [sealed, rewritten, removed] = [sealed, rewritten, removed].map(BTreeSet::len);
        write!(formatter, "{sealed} segments sealed, {rewritten} rewritten, {removed} removed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_segments_is_seen_in_the_names_of_files() {
        let data = std::env::temp_dir().join(format!("strandline-segments-{}", std::process::id()));
        let dir = data.join("default/main");
        fs::create_dir_all(&dir).expect("a directory");
        let mut segments = Segments::default();
        let mut look = |names: &[&str]| {
            for entry in fs::read_dir(&dir).expect("there").flatten() {
                fs::remove_file(entry.path()).expect("removed");
            }
            names.iter().for_each(|name| fs::write(dir.join(name), "").expect("written"));
            segments.look(&data).expect("readable");
            (segments.to_string(), segments.check().is_ok())
        };
        let seen = |text: &str, is_all| (format!("{text} removed"), is_all);
        // One that has no index yet may go by its name: an empty one does.
        assert_eq!(look(&["0.1.log"]), seen("0 segments sealed, 0 rewritten, 0", false));
        assert_eq!(look(&["0.1.log", "0.1.idx"]), seen("1 segments sealed, 0 rewritten, 0", false));
        let begun = ["0.1.log", "0.1.idx", "0.2.log", "9.1.log"];
        assert_eq!(look(&begun), seen("1 segments sealed, 0 rewritten, 0", false));
        let rewritten = ["0.2.log", "0.2.idx", "9.1.log", "9.1.idx"];
        assert_eq!(look(&rewritten), seen("2 segments sealed, 1 rewritten, 0", false));
        assert_eq!(
            look(&["0.2.idx", "9.1.idx", "9.1.log"]),
            seen("2 segments sealed, 1 rewritten, 1", true)
        );
        fs::remove_dir_all(data).expect("removed");
    }
}
