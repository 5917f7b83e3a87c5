//! The limits of a log, each with its unit, its default and its reason, checked once when a log is
//! opened with them.

pub use crate::sync_mode::SyncMode;
use crate::{
    buffer::ALIGN_BYTES, error::ConfigError, frame, index::delta::IDS_MAX, once::IdWindow,
};

/// Every limit of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is full at this length: small enough to scan in a fraction of a second after a
    /// crash, large enough that a terabyte is a few thousand files.
    pub segment_bytes: u64,
    /// A frame that gathers appends closes at this length: reading one event reads its frame.
    pub frame_bytes_target: usize,
    /// No frame is longer: it bounds what one read, and one atomic append, must hold in memory.
    pub frame_bytes_max: usize,
    /// An event's data is no longer: a subscriber must be able to hold it.
    pub event_bytes_max: usize,
    /// Appends that wait for the disk, in encoded bytes; beyond it they are refused as overloaded.
    pub staged_bytes_max: usize,
    /// Writes of frames that are under way at once: more hide the disk's latency but cost CPU, since
    /// each commits fewer events.
    pub writes_in_flight_max: usize,
    /// Where more is staged than full frames in flight take, one write has several, of about so many bytes at most:
    /// the disk gives more to fewer and larger ones, and whoever reads an event still reads a frame.
    pub write_bytes_max: usize,
    /// When an append counts as done.
    pub sync: SyncMode,
    /// After so long without a frame, an empty one records the synced offset, so that recovery can
    /// tell a torn write from damage to the last frames too.
    pub idle_frame_ms: u64,
    /// The first step of filling the file ahead of the tail, with zeroes or blocks; each step doubles it up
    /// to `preallocate_bytes_max`, so that a small log stays small.
    pub preallocate_bytes_min: u64,
    /// The largest step of that: longer ones would delay commits beside them.
    pub preallocate_bytes_max: u64,
    /// Where writes have at least so many bytes on average, the file may get blocks alone ahead of its tail, without
    /// zeroes, if that is measured to be faster. For shorter ones zeroes were, on every disk that was looked at.
    pub blocks_from_bytes: u64,
    /// So far ahead it is zeroed while the log rests, if it holds as much: about a second of commits at full speed
    /// has none of that beside it then. 0 leaves all of it to when it is needed.
    pub preallocate_rest_bytes_max: u64,
    /// Published frames kept in memory for subscribers that are a little behind, with all that their writes take there.
    pub recent_frames_bytes_max: usize,
    /// So many ids of events are remembered, 50 bytes each: a retry that comes after so many others
    /// is a new event.
    pub id_window_events: usize,
    /// At least so much space, but no more than a fiftieth of the disk where nothing needs more, is kept in a file
    /// and given back when the disk is full: what frees space needs some itself. It grows with the longest segment
    /// ([`crate::reserve`]). 0 keeps none.
    pub reserve_bytes: u64,
    /// A sealed segment is rewritten, compressed, once its last event is so old: those that read what
    /// came lately read it as it was written.
    pub compress_after_s: u64,
    /// The state of the log is written down once so many segments were sealed since, and they are longer than
    /// what was written: opening the log reads what these have added, and of those before no more than where
    /// things are.
    pub snapshot_segments: usize,
    /// Sealed segments are read again so often, to find rot while there still is a backup.
    pub scrub_interval_s: u64,
    /// And so fast at most: little enough that nobody notices.
    pub scrub_bytes_per_s: u64,
    /// Ids are remembered for so long: longer than any client retries.
    pub id_window_s: u64,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 256 << 20,
            frame_bytes_target: 128 * KIB,
            frame_bytes_max: 8 * MIB,
            event_bytes_max: MIB,
            staged_bytes_max: 64 * MIB,
            writes_in_flight_max: 4,
            write_bytes_max: MIB,
            sync: SyncMode::Commit,
            idle_frame_ms: 100,
            preallocate_bytes_min: 1 << 20,
            preallocate_bytes_max: 16 << 20,
            blocks_from_bytes: 64 << 10,
            preallocate_rest_bytes_max: 64 << 20,
            recent_frames_bytes_max: 16 * MIB,
            id_window_events: 1_000_000,
            id_window_s: 600,
            reserve_bytes: 16 << 20,
            snapshot_segments: 8,
            scrub_interval_s: 7 * 24 * 3600,
            scrub_bytes_per_s: 32 << 20,
            compress_after_s: 600,
        }
    }
}

impl LogConfig {
    /// The smallest `segment_bytes`.
    pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;

    /// How long ids are remembered.
    pub fn id_window(&self) -> IdWindow {
        let time_ms = self.id_window_s.saturating_mul(1_000);
        IdWindow { events: self.id_window_events, time_ms }
    }

    /// Checks that the limits fit each other. Tests may use segments far below
    /// [`LogConfig::SEGMENT_BYTES_MIN`]; the command line may not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let align_bytes = ALIGN_BYTES as u64;
        let rules = [
            (
                "segment_bytes",
                self.segment_bytes,
                self.segment_bytes >= 2 * align_bytes
                    && self.segment_bytes.is_multiple_of(align_bytes),
                "a multiple of 4096, and at least 8192",
            ),
            (
                "frame_bytes_max",
                self.frame_bytes_max as u64,
                (ALIGN_BYTES..=frame::FRAME_BYTES_MAX).contains(&self.frame_bytes_max),
                "between 4096 and 16 MiB",
            ),
            (
                "frame_bytes_target",
                self.frame_bytes_target as u64,
                (1..=self.frame_bytes_max).contains(&self.frame_bytes_target),
                "between 1 and frame_bytes_max",
            ),
            (
                "event_bytes_max",
                self.event_bytes_max as u64,
                self.event_bytes_max <= self.frame_bytes_max,
                "at most frame_bytes_max",
            ),
            (
                "staged_bytes_max",
                self.staged_bytes_max as u64,
                self.staged_bytes_max >= self.frame_bytes_max,
                "at least frame_bytes_max",
            ),
            (
                "writes_in_flight_max",
                self.writes_in_flight_max as u64,
                (1..=64).contains(&self.writes_in_flight_max),
                "between 1 and 64",
            ),
            (
                "write_bytes_max",
                self.write_bytes_max as u64,
                (1..=frame::FRAME_BYTES_MAX).contains(&self.write_bytes_max),
                "between 1 and 16 MiB",
            ),
            (
                "preallocate_bytes_min",
                self.preallocate_bytes_min,
                self.preallocate_bytes_min > 0
                    && self.preallocate_bytes_min.is_multiple_of(align_bytes),
                "a multiple of 4096 above 0",
            ),
            (
                "preallocate_bytes_max",
                self.preallocate_bytes_max,
                self.preallocate_bytes_max >= self.preallocate_bytes_min
                    && self.preallocate_bytes_max.is_multiple_of(align_bytes),
                "a multiple of 4096, and at least preallocate_bytes_min",
            ),
        ];
        let rules = rules.into_iter().chain([
            (
                "blocks_from_bytes",
                self.blocks_from_bytes,
                self.blocks_from_bytes > 0,
                "above 0: nothing would ever be measured otherwise",
            ),
            (
                "reserve_bytes",
                self.reserve_bytes,
                self.reserve_bytes.is_multiple_of(align_bytes),
                "a multiple of 4096",
            ),
            (
                "id_window_events",
                self.id_window_events as u64,
                self.id_window_events <= IDS_MAX,
                "at most 1,000,000: an index holds no more",
            ),
        ]);
        for (name, value, holds, rule) in rules {
            if !holds {
                return Err(ConfigError { name, value, rule });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_contradictions_do_not() {
        assert_eq!(LogConfig::default().check(), Ok(()));
        let config = LogConfig { frame_bytes_target: 9 * MIB, ..LogConfig::default() };
        assert_eq!(config.check().map_err(|error| error.name), Err("frame_bytes_target"));
        let config = LogConfig { segment_bytes: 10_000, ..LogConfig::default() };
        assert_eq!(config.check().map_err(|error| error.name), Err("segment_bytes"));
    }
}
