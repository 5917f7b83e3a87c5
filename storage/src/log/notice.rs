//! What a log tells of itself: news for an operator, and why it takes no more writes.

use crate::{clock::ClockNotice, error::Corruption, offset::Offset, segment::SegmentName};

/// Why a log takes no more writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// The first offset of which nobody knows whether it is on the device.
    pub first_unsynced: Offset,
    /// What failed.
    pub reason: String,
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// About the clock.
    Clock(ClockNotice),
    /// The log has become read-only.
    Poisoned(Poison),
    /// The disk has no space for what waits; it is tried again.
    DiskFull,
    /// There is space again.
    DiskSpaceBack,
    /// A full segment could not be indexed; it is tried again, and stays readable.
    SealFailed {
        /// What failed.
        reason: String,
    },
    /// A segment whose events are gone could not be removed; it is tried again.
    RetireFailed {
        /// What failed.
        reason: String,
    },
    /// A topic that is over cannot be deleted, as no event may be so long as to say so: it stays. Said of the first.
    ExpiryRefused {
        /// Its name.
        topic: String,
        /// Why not.
        reason: String,
    },
    /// A segment has been rewritten.
    Compacted {
        /// Which, by its new name; of one that is a stub now, its old one.
        name: SegmentName,
        /// How many events went; `None` if all did.
        dropped: Option<u64>,
        /// The length of its files before.
        bytes_before: u64,
        /// And after.
        bytes_after: u64,
    },
    /// Rewriting failed; it is tried again.
    CompactFailed {
        /// What failed.
        reason: String,
    },
    /// All sealed segments have been read again.
    Scrubbed {
        /// How many bytes.
        bytes: u64,
        /// How many segments are damaged.
        damaged: usize,
    },
    /// A sealed segment is damaged: it is neither rewritten nor removed by itself.
    Damaged {
        /// Which.
        name: SegmentName,
        /// What was found.
        reason: String,
    },
    /// A sealed segment that was damaged has been read again, whole, and all of it is right.
    SoundAgain {
        /// Which.
        name: SegmentName,
    },
    /// A snapshot is damaged: the one before it is enough, and the next takes its place.
    SnapshotDamaged(Corruption),
    /// A pass over the sealed segments could not read the snapshots, as nobody could say which there are. The next one tries
    /// it again.
    SnapshotsUnread {
        /// What failed.
        reason: String,
    },
    /// The state could not be written down; it is tried again.
    SnapshotFailed {
        /// What failed.
        reason: String,
    },
    /// The mark of how far the log had been synced was damaged: what it would have shown to be missing at the end
    /// of the log nobody knows. It was written anew.
    EndMarkDamaged(Corruption),
    /// What it says of steps of the clock was damaged: ids and producers may be forgotten early. It was written anew.
    StepsDamaged(Corruption),
    /// How far the log has been synced could not be written down; it is tried again.
    MarkFailed {
        /// What failed.
        reason: String,
    },
    /// The reserve for a full disk could not be made, but not for want of space; it is tried again. Said once until it is made.
    ReserveFailed {
        /// What failed.
        reason: String,
    },
    /// The next segment's file could not be prepared; it is tried again.
    PrepareFailed {
        /// What failed.
        reason: String,
    },
}
