//! What can go wrong with a log, by operation. A variant tells what can be done about it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{
    data_dir::MARKER_FILE_NAME,
    io::is_full,
    offset::{Offset, Position},
    shell,
};

/// Limits that cannot be met together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} of {value} must be {rule}")]
pub struct ConfigError {
    /// Which limit.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// What it must be.
    pub rule: &'static str,
}
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
    /// It holds logs and no marker, or none that says so: a person has to say that it is a data directory.
    #[error(
        "{} holds logs, but its STRANDLINE file {what}: if it is a data directory, bring the file back \
         (`echo 'strandline data 1' > {}`; docs/OPERATIONS.md)",
        dir.display(),
        shell::word(&dir.join(MARKER_FILE_NAME))
    )]
    MarkerLost {
        /// The directory.
        dir: PathBuf,
        /// What is with the file.
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
    /// all of it, `strandline repair` keeps what can be read.
    #[error("{0}; `strandline verify` lists the damage, `strandline repair` says what can be kept")]
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

    /// Whether it failed for want of space.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, OpenError::Io { source, .. } if is_full(source))
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
    /// Settings are kept of so many topics or patterns, and of no more: take some back.
    #[error("settings are kept of {count} {what} already, which is the most: take some back")]
    TooManySettings {
        /// How many.
        count: u64,
        /// Of what: `topics`, or `patterns`.
        what: &'static str,
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
    /// An event of this id is there, with another content: give the new one another id.
    #[error("event id `{id}` belongs to another event, at offset {offset}")]
    IdConflict {
        /// The id.
        id: String,
        /// Where the other event is.
        offset: Offset,
    },
    /// Two events of the append have this id, and other contents: give each its own.
    #[error("the append has two events of id `{id}`, with other contents")]
    IdTwice {
        /// The id.
        id: String,
    },
    /// An event of this id is on its way to the disk: wait, and ask again.
    #[error("an event of id `{id}` is being appended right now")]
    IdInFlight {
        /// The id.
        id: String,
    },
    /// The log or the topic has moved on: look at what came, and decide again.
    #[error("the next offset is {expected_offset}, not {given_offset}")]
    Unexpected {
        /// What would have been right.
        expected_offset: u64,
        /// What was given.
        given_offset: u64,
    },
    /// A later life of the producer has taken over: this one is to stop.
    #[error("epoch {given_epoch} of the producer has ended, it is in epoch {epoch}")]
    StaleEpoch {
        /// The epoch that holds.
        epoch: u64,
        /// What was given.
        given_epoch: u64,
    },
    /// Appends of the producer are missing before this one: send them first.
    #[error("sequence {given_seq} of the producer leaves a gap: {expected_seq} comes next")]
    ProducerGap {
        /// What comes next.
        expected_seq: u64,
        /// What was given.
        given_seq: u64,
    },
    /// A new epoch begins with sequence 0.
    #[error("an epoch of a producer begins with sequence 0, not {given_seq}")]
    EpochStart {
        /// What was given.
        given_seq: u64,
    },
    /// As many producers are known as may be: none of them is old enough to be forgotten.
    #[error("{producers_max} producers are known already, and none is old enough to be forgotten")]
    TooManyProducers {
        /// The limit.
        producers_max: u64,
    },
}

impl AppendError {
    /// Where the refusal rests on what others have appended: it may leave once that is durable. `next` is what the
    /// log gives next: all that may have been looked at lies below.
    pub fn rests_on(&self, next: Offset) -> Option<Offset> {
        match self {
            AppendError::IdConflict { offset, .. } => Some(offset.plus(1)),
            AppendError::Unexpected { .. }
            | AppendError::StaleEpoch { .. }
            | AppendError::ProducerGap { .. }
            | AppendError::EpochStart { .. } => Some(next),
            _ => None,
        }
    }
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
