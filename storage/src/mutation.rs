//! Bugs planted on purpose, one at a time, to show that the tests find them.
//!
//! Only a build with `--cfg mutations` has them, and then only the one that [`VARIABLE`] names. In every
//! other build [`is_planted`] is the constant `false`, and nothing is left of a mutation's line.
//! `tests/mutations/run.py` plants each and runs the tests; one that none of them finds is a hole in
//! them.

/// The environment variable that names the planted bug.
pub const VARIABLE: &str = "STRANDLINE_MUTATION";

macro_rules! mutations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutation {
            $($(#[$doc])* $variant,)*
        }

        /// All of them, with the names that [`VARIABLE`] takes.
        pub const MUTATIONS: &[(Mutation, &str)] = &[$((Mutation::$variant, $name),)*];
    };
}

mutations! {
    /// A buffered write counts as synced when it completes.
    AcknowledgeBeforeSync = "acknowledge_before_sync",
    /// A sync that failed is tried again, and its second answer believed.
    SyncRetried = "sync_retried",
    /// Recovery cuts the last segment without looking for proof that more had been synced.
    NoHoleCheck = "no_hole_check",
    /// A new segment's name is not made durable.
    DirectoryNotSynced = "directory_not_synced",
    /// Frames that a file held in its life before count as the log's.
    StaleFrameTaken = "stale_frame_taken",
    /// Recovery writes the index before what it describes is durable.
    IndexAheadOfSegment = "index_ahead_of_segment",
    /// Recovery shows what it read without making it durable.
    RecoveryDoesNotSync = "recovery_does_not_sync",
    /// A segment is begun before the one before it is synced to its end.
    RollWithoutBarrier = "roll_without_barrier",
    /// An index is taken for that of whatever log file has its name.
    OldIndexBelieved = "old_index_believed",
    /// The next process goes on in the file of one that was killed.
    OldFileAppendedTo = "old_file_appended_to",
    /// A new segment's name that finds no space ends the log, though nothing of it is in doubt.
    NoSpaceForNameIsFinal = "no_space_for_name_is_final",
    /// What an event says about the log holds before that event is synced: work in the background starts
    /// from memory that a crash takes back.
    StateFromLiveMemory = "state_from_live_memory",
    /// A snapshot is made of what the running log knows, instead of what its sealed segments say.
    SnapshotFromLiveMemory = "snapshot_from_live_memory",
    /// What the index of a segment that has events adds to the state of the log is not taken in again at a start.
    DeltasNotReplayed = "deltas_not_replayed",
    /// The same of a segment whose events are gone.
    StubDeltasNotReplayed = "stub_deltas_not_replayed",
    /// How far limits had reached when a segment was rewritten is not known any more after a start.
    KeptForgotten = "kept_forgotten",
    /// What readers were told is gone before it was synced is not written down once it is.
    ReachNotFollowed = "reach_not_followed",
    /// A rewritten segment is synced while its last part is still being written.
    RewriteNotAwaited = "rewrite_not_awaited",
    /// The end mark says that what is on its way to the disk is synced.
    MarkAheadOfSync = "mark_ahead_of_sync",
    /// One shard alone learns of what became visible.
    VisibleToOneShard = "visible_to_one_shard",
}

/// Whether this bug is to be had.
#[cfg(not(mutations))]
#[inline(always)]
pub const fn is_planted(_: Mutation) -> bool {
    false
}

/// Whether this bug is to be had.
///
/// # Panics
///
/// If [`VARIABLE`] names none: a bug that is misspelt would be found by no test.
#[cfg(mutations)]
pub fn is_planted(mutation: Mutation) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Mutation>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let wanted = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
        let known = MUTATIONS.iter().find(|(_, name)| *name == wanted);
        Some(known.unwrap_or_else(|| panic!("{VARIABLE} of {wanted:?} names no mutation")).0)
    });
    *planted == Some(mutation)
}
