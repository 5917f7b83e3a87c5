//! What can go wrong with a log, by operation. A variant tells what can be done about it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{
    config::ConfigError,
    offset::{Offset, Position},
};

/// Why a log was not opened. Nothing in it was changed, but where a variant says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it: stop that one first.
    #[error("{} is in use by another process", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
    },
    /// It holds something else: give another directory.
    #[error("{} is not a data directory of strandline ({what})", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// What was found, or missed.
        what: &'static str,
    },
    /// A newer version wrote it: use that one.
    #[error("{} was written by a newer version (format {version}, this one knows up to {version_max})", file.display())]
    NewerVersion {
        /// The file that says so.
        file: PathBuf,
        /// Its format version.
        version: u32,
        /// The newest one that this program reads.
        version_max: u32,
    },
    /// Synced data is damaged, and only a person may decide to give it up: `strandline verify` names
    /// all of it, `strandline repair` cuts it off.
    #[error("{0}; `strandline verify` lists the damage, `strandline repair` cuts a damaged end")]
    Corrupt(Corruption),
    /// A file that must be there is missing: restore it, or repair.
    #[error("{} holds no events from {from} to {to}: a segment file is missing", dir.display())]
    MissingSegment {
        /// The log's directory.
        dir: PathBuf,
        /// The first missing offset.
        from: Offset,
        /// The first offset behind the gap.
        to: Offset,
    },
    /// The limits contradict each other: change them.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The disk refused: permissions, space or hardware. Recovery may have begun; opening again
    /// goes on from there.
    #[error("{action} {}: {source}", file.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or directory.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    /// Makes the error of `action` on `file` from what the kernel said.
    pub fn io(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> OpenError {
        move |source| OpenError::Io { action, file: file.to_owned(), source }
    }
}

/// Why an append was refused. A refused event has no offset and will never be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It can never fit: send a smaller event.
    #[error("event of {event_bytes} bytes exceeds the limit of {event_bytes_max} bytes")]
    EventTooLarge {
        /// The length of its data.
        event_bytes: u64,
        /// The limit.
        event_bytes_max: u64,
    },
    /// These events can never fit into one frame: append fewer at once.
    #[error(
        "batch of {events} events, {batch_bytes} bytes, exceeds the limit of {events_max} events \
         or {batch_bytes_max} bytes"
    )]
    BatchTooLarge {
        /// How many events.
        events: u64,
        /// The limit.
        events_max: u64,
        /// Their encoded bytes.
        batch_bytes: u64,
        /// The limit.
        batch_bytes_max: u64,
    },
    /// The commit queue is full: the same append may succeed after a pause.
    #[error("commit queue is full: {staged_bytes} bytes wait for the disk")]
    Overloaded {
        /// How many bytes wait.
        staged_bytes: u64,
    },
    /// The log takes no more writes until it is reopened: only recovery can tell what was kept.
    #[error(
        "log is read-only since a write failed ({reason}); offsets from {first_unsynced} on are in doubt"
    )]
    Poisoned {
        /// The first offset of which nobody knows whether it is on the device.
        first_unsynced: Offset,
        /// What failed.
        reason: String,
    },
    /// The disk has no space for what already waits: free some. The same append may succeed then.
    #[error("the disk is full")]
    DiskFull,
    /// An append that this one was to follow was refused: mend that one first.
    #[error("an append before this one was refused")]
    AfterRefused,
    /// The log is being closed: append after the restart.
    #[error("log is closing")]
    Closed,
}

/// Why a read gave no events.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Part of the log is damaged. Nothing in it was served; reading may go on from `to`.
    #[error("events from {from} to {to} are lost: {corruption}")]
    Gap {
        /// The first lost offset.
        from: Offset,
        /// The first offset behind the gap.
        to: Offset,
        /// What is damaged.
        corruption: Corruption,
    },
    /// Retention has passed the offset: read from `earliest`.
    #[error("events before {earliest} are gone")]
    Expired {
        /// The first offset still kept.
        earliest: Offset,
    },
    /// The disk failed: the same read may succeed later.
    #[error("reading {}: {source}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Damage to a file, where it is and what it is. One line, since `strandline verify` prints one line
/// a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// Which file.
    pub file: PathBuf,
    /// Where in it.
    pub position: Position,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Corruption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at position {}: {}", self.file.display(), self.position, self.what)
    }
}

impl std::error::Error for Corruption {}
