//! Which events are old enough to go. Pure.
//!
//! What the rules let go is *gone* for readers at once: [`crate::log::Log::start`] moves there, to an
//! event for a limit by count, to a frame for one by age, to a segment for one by bytes (to a block of one that
//! is longer than half of the limit, as one from before it may be). Files follow:
//! a sealed segment all of whose events are gone is removed, and leaves a stub.

use crate::{
    io::Disk,
    offset::Offset,
    segment_set::{SealedSegment, SegmentSet},
    settings::LogRetention,
};

/// A segment is full at this share of what a log may have in bytes: so that something can go.
const SEGMENTS_KEPT: u64 = 8;

/// How long a segment may become where the log as a whole may have so many bytes.
pub fn segment_bytes(configured: u64, retain: &LogRetention, bytes_min: u64) -> u64 {
    let Some(bytes) = retain.bytes else { return configured };
    let share = (bytes / SEGMENTS_KEPT) & !4095;
    configured.min(share.max(bytes_min))
}

/// The first offset that limits by count and bytes keep, and what age keeps of the sealed part: `None`
/// for the last if all of it is too old. `unsealed_bytes` is the length of the files without an index.
pub fn sealed_keep_from<D: Disk>(
    retain: &LogRetention,
    segments: &SegmentSet<D>,
    visible: Offset,
    unsealed_bytes: u64,
    oldest_ms: Option<u64>,
) -> (Offset, Option<Offset>) {
    let mut from = Offset::ZERO;
    if let Some(count) = retain.count {
        from = Offset::new(visible.get().saturating_sub(count));
    }
    if let Some(bytes_max) = retain.bytes {
        let mut left_bytes = bytes_max.saturating_sub(unsealed_bytes);
        for segment in segments.iter().rev() {
            let bytes = segment.file_bytes();
            if bytes > left_bytes {
                let is_long = bytes > bytes_max / 2;
                let kept = if is_long { last_block(segment, left_bytes) } else { segment.end() };
                from = from.max(kept);
                break;
            }
            left_bytes -= bytes;
        }
    }
    let by_age = match oldest_ms {
        None => Some(Offset::ZERO),
        Some(oldest_ms) => segments.kept_at_time(oldest_ms),
    };
    (from, by_age)
}

/// Where the last blocks of a segment begin that have so many bytes together with its index: at least one, if
/// there is room at all.
fn last_block<D: Disk>(segment: &SealedSegment<D>, bytes: u64) -> Offset {
    let header = segment.index().header();
    let frame_bytes = bytes.saturating_sub(header.index_bytes);
    let from = header.end_position.get().saturating_sub(frame_bytes);
    let blocks = segment.index().frames();
    let fits = blocks.partition_point(|block| block.position.get() < from);
    match blocks.get(fits.min(blocks.len().saturating_sub(1))) {
        Some(block) if bytes > 0 => block.base_offset,
        _ => segment.end(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestLog;

    fn retain(count: Option<u64>, bytes: Option<u64>) -> LogRetention {
        LogRetention { age_s: None, bytes, count }
    }

    #[test]
    fn counts_are_exact_and_bytes_go_by_segments() {
        let mut log = TestLog::new(1);
        for _ in 0..3 {
            log.add_sealed(&vec![vec![("a", vec![1])]; 10]);
        }
        let set = log.set();
        let from = |retain: &LogRetention, unsealed_bytes| {
            sealed_keep_from(retain, &set, Offset::new(30), unsealed_bytes, None).0.get()
        };
        assert_eq!(from(&retain(None, None), 0), 0);
        assert_eq!((from(&retain(Some(7), None), 0), from(&retain(Some(99), None), 0)), (23, 0));
        let bytes = set.iter().next().expect("a segment").file_bytes();
        assert_eq!(from(&retain(None, Some(3 * bytes)), 0), 0);
        assert_eq!(from(&retain(None, Some(3 * bytes)), 1), 10);
        assert_eq!(from(&retain(None, Some(bytes)), bytes), 30);
        assert_eq!(from(&retain(Some(7), Some(2 * bytes)), 0), 23);
        assert_eq!(segment_bytes(256 << 20, &retain(None, Some(64 << 20)), 1 << 20), 8 << 20);
        assert_eq!(segment_bytes(256 << 20, &retain(None, Some(1)), 1 << 20), 1 << 20);
    }

    /// A log that was closed, or had no limit before, may be one long segment.
    #[test]
    fn of_a_segment_that_is_too_long_the_newest_events_stay() {
        let mut log = TestLog::new(1);
        log.add_sealed(&vec![vec![("a", vec![1; 20_000])]; 100]);
        let set = log.set();
        let segment = set.iter().next().expect("a segment");
        let mut last = 0;
        for bytes_max in (1..segment.file_bytes()).rev().step_by(10_000) {
            let from =
                sealed_keep_from(&retain(None, Some(bytes_max)), &set, Offset::new(100), 0, None).0;
            assert!((last..100).contains(&from.get()), "{from} with {bytes_max}");
            last = from.get();
            let at = log.segments[0].1.iter().find(|frame| frame.base == last).expect("a frame");
            let kept_bytes = segment.file_bytes() - at.position;
            assert!(kept_bytes <= bytes_max.max(150_000), "{kept_bytes} of {bytes_max}");
            assert!(
                kept_bytes + 150_000 > bytes_max.saturating_sub(4096),
                "{kept_bytes} of {bytes_max}"
            );
        }
        assert!(last > 90);
        let none =
            sealed_keep_from(&retain(None, Some(1 << 20)), &set, Offset::new(100), 1 << 20, None).0;
        assert_eq!(none.get(), 100, "the unsealed part takes all");
    }

    #[test]
    fn age_keeps_the_block_of_the_first_young_event() {
        let mut log = TestLog::new(1);
        log.add_sealed(&vec![vec![("a", vec![1; 5_000])]; 40]);
        log.add_sealed(&vec![vec![("a", vec![1])]; 10]);
        let set = log.set();
        let by_age = |oldest_ms| {
            sealed_keep_from(&retain(None, None), &set, Offset::new(50), 0, Some(oldest_ms)).1
        };
        for (offset, event) in log.events.iter().enumerate() {
            let from = by_age(event.time_ms).expect("kept");
            assert!(from.get() <= offset as u64, "nothing young goes");
            assert!(offset as u64 - from.get() <= 40, "and little old stays");
        }
        assert_eq!(by_age(0), Some(Offset::ZERO));
        assert_eq!(by_age(u64::MAX), None);
        assert!(by_age(log.events[39].time_ms).expect("kept").get() > 20);
    }
}
