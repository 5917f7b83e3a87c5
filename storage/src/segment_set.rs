//! The sealed segments of a log, in offset order.

use std::{ops::Range, sync::Arc};

use crate::{io::Disk, offset::Offset, segment::SegmentName};

mod sealed;

pub use sealed::SealedSegment;
pub(crate) use sealed::{Blocks, Edge};

/// The sealed part of a log. A clone shares the segments.
pub struct SegmentSet<D: Disk> {
    segments: Vec<Arc<SealedSegment<D>>>,
    /// What was taken out on purpose behind `start`, in offset order.
    retired: Vec<Range<Offset>>,
    /// Whatever was taken out before this offset may have gone by limits of the log: who was to read it lacks it.
    expired_to: Offset,
    start: Offset,
    end: Offset,
    longest: Longest,
}

/// The longest files of the segments of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Longest {
    /// With frames.
    pub(crate) log_bytes: u64,
    /// An index,
    pub(crate) index_bytes: u64,
    /// and one of a segment that was rewritten: names that its frames had may take more there than here.
    pub(crate) rewritten_index_bytes: u64,
}

impl Longest {
    fn add<D: Disk>(&mut self, segment: &SealedSegment<D>) {
        let header = segment.index().header();
        let is_rewritten = segment.name().generation > 1;
        self.log_bytes = self.log_bytes.max(header.end_position.get());
        self.index_bytes = self.index_bytes.max(header.index_bytes);
        let rewritten_bytes = if is_rewritten { header.index_bytes } else { 0 };
        self.rewritten_index_bytes = self.rewritten_index_bytes.max(rewritten_bytes);
    }
}

impl<D: Disk> Clone for SegmentSet<D> {
    fn clone(&self) -> Self {
        let SegmentSet { segments, retired, expired_to, start, end, longest } = self;
        SegmentSet {
            segments: segments.clone(),
            retired: retired.clone(),
            expired_to: *expired_to,
            start: *start,
            end: *end,
            longest: *longest,
        }
    }
}

impl<D: Disk> Default for SegmentSet<D> {
    fn default() -> Self {
        SegmentSet {
            segments: Vec::new(),
            retired: Vec::new(),
            expired_to: Offset::ZERO,
            start: Offset::ZERO,
            end: Offset::ZERO,
            longest: Longest::default(),
        }
    }
}

impl<D: Disk> SegmentSet<D> {
    /// The set of these segments, which are in offset order.
    pub fn new(segments: impl IntoIterator<Item = SealedSegment<D>>) -> Self {
        let mut set = SegmentSet::default();
        for segment in segments {
            set.push(segment);
        }
        set
    }

    /// Adds the segment behind the last.
    ///
    /// # Panics
    ///
    /// If it begins before the end of the last.
    pub fn push(&mut self, segment: impl Into<Arc<SealedSegment<D>>>) {
        let segment = segment.into();
        assert!(segment.base() >= self.end, "segments are in offset order");
        if self.segments.is_empty() && self.retired.is_empty() && self.start == self.end {
            self.start = segment.base();
        }
        self.end = segment.end();
        self.longest.add(&segment);
        self.segments.push(segment);
    }

    /// Adds offsets behind the last whose events are gone on purpose.
    pub fn push_retired(&mut self, offsets: Range<Offset>) {
        assert!(offsets.start >= self.end, "segments are in offset order");
        self.end = offsets.end;
        if self.segments.is_empty() {
            self.start = self.end;
        } else {
            self.retired.push(offsets);
        }
    }

    /// The set with one more segment, behind the last.
    #[must_use]
    pub fn with(&self, segment: impl Into<Arc<SealedSegment<D>>>) -> Self {
        let mut set = self.clone();
        set.push(segment);
        set
    }

    /// The set without the events of a segment that limits of the log have passed: readers on their way to them are told.
    #[must_use]
    pub fn expired(&self, name: SegmentName) -> Self {
        let mut set = self.without(name);
        let end = self.find(name.base_offset).map_or(Offset::ZERO, |segment| segment.end());
        set.expired_to = set.expired_to.max(end);
        set
    }

    /// The set of a log that keeps nothing before `to` any more: from now on segments may lack what they had before that.
    #[must_use]
    pub fn passed(mut self, to: Offset) -> Self {
        self.expired_to = self.expired_to.max(to);
        self
    }

    /// The set without the events of a segment, which nobody lacks: topics' own rules have removed each.
    #[must_use]
    pub fn without(&self, name: SegmentName) -> Self {
        let mut set = SegmentSet { expired_to: self.expired_to, ..SegmentSet::default() };
        let mut retired = self.retired.iter().cloned().peekable();
        for segment in &self.segments {
            while let Some(offsets) = retired.next_if(|offsets| offsets.start < segment.base()) {
                set.push_retired(offsets);
            }
            if segment.name() == name {
                set.push_retired(segment.base()..segment.end());
            } else {
                set.push(Arc::clone(segment));
            }
        }
        retired.for_each(|offsets| set.push_retired(offsets));
        set.end = self.end;
        if set.segments.is_empty() {
            set.start = set.end;
        }
        set
    }

    /// The set with another generation of a segment in its place.
    ///
    /// # Panics
    ///
    /// If no segment of the set stands for the same offsets.
    #[must_use]
    pub fn with_replaced(&self, segment: Arc<SealedSegment<D>>) -> Self {
        let mut set = self.clone();
        let place = set.segments.iter().position(|known| known.base() == segment.base());
        let known = &mut set.segments[place.expect("a segment is replaced by its own like")];
        assert_eq!(known.end(), segment.end(), "and stands for the same offsets");
        *known = segment;
        set.longest = Longest::default();
        set.segments.iter().for_each(|segment| set.longest.add(segment));
        set
    }

    /// The longest files there are.
    pub(crate) fn longest(&self) -> Longest {
        self.longest
    }

    /// Whether these offsets were taken out on purpose.
    pub fn is_retired(&self, offsets: &Range<Offset>) -> bool {
        let mut from = offsets.start;
        for retired in &self.retired {
            if retired.start <= from && from < retired.end {
                from = retired.end;
            }
        }
        from >= offsets.end
    }

    /// Whether offsets that were taken out may have been taken by limits of the log.
    pub(crate) fn is_expired(&self, offsets: &Range<Offset>) -> bool {
        offsets.start < self.expired_to
    }

    /// What a segment no longer has because limits of the log had passed it when it was rewritten, for a reader at `from`.
    pub(crate) fn passed_in(
        &self,
        segment: &SealedSegment<D>,
        from: Offset,
    ) -> Option<Range<Offset>> {
        let kept_from = segment.index().kept_from()?.min(self.expired_to);
        (from < kept_from).then_some(from..kept_from)
    }

    /// How many segments.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The segments in offset order.
    pub fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = &Arc<SealedSegment<D>>> + ExactSizeIterator {
        self.segments.iter()
    }

    /// The first offset that is kept; [`SegmentSet::end`] if no segment is.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// The first offset that the log kept when its segments were rewritten, as far as they say: what was before it
    /// is gone, or some of it is.
    pub fn kept_from(&self) -> Offset {
        let kept = self.segments.iter().filter_map(|segment| segment.index().kept_from());
        kept.max().unwrap_or(self.start)
    }

    /// The first offset behind the sealed part; 0 if there is none.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The offset from which on the sealed part holds events of `oldest_ms` or later, and at most one
    /// block of older ones; `None` if it holds none.
    pub fn kept_at_time(&self, oldest_ms: u64) -> Option<Offset> {
        let segment = self.first_at_time(oldest_ms)?;
        let blocks = segment.blocks();
        Some(blocks.edge(blocks.at_time(oldest_ms)).offset)
    }

    /// The segment that holds an offset.
    pub fn find(&self, offset: Offset) -> Option<&Arc<SealedSegment<D>>> {
        self.first_ending_behind(offset).filter(|segment| segment.base() <= offset)
    }

    /// The first segment that ends behind an offset: the one that holds it, or the next.
    pub(crate) fn first_ending_behind(&self, offset: Offset) -> Option<&Arc<SealedSegment<D>>> {
        self.segments.get(self.segments.partition_point(|segment| segment.end() <= offset))
    }

    /// The last segment that begins before an offset.
    pub(crate) fn last_beginning_before(&self, offset: Offset) -> Option<&Arc<SealedSegment<D>>> {
        let behind = self.segments.partition_point(|segment| segment.base() < offset);
        self.segments.get(behind.checked_sub(1)?)
    }

    /// The first segment that holds an event appended at `time_ms` or later, or held one that is lost. Segments of lost
    /// events of which nobody knows the time are as old as what comes behind them: [`SegmentSet::timeless_segments_at_end`],
    /// if nothing sealed does.
    pub(crate) fn first_at_time(&self, time_ms: u64) -> Option<&Arc<SealedSegment<D>>> {
        let (place, _) = self.place_at_time(time_ms)?;
        self.segments.get(place)
    }

    /// Where the lost events begin with which the segment before [`SegmentSet::first_at_time`] ends, if nothing of that one
    /// is older: who reads from that time on is told of them. For limits by age they are as old as the events before them.
    pub(crate) fn lost_before_time(&self, time_ms: u64) -> Option<Offset> {
        let (place, _) = self.place_at_time(time_ms).filter(|(_, is_its_first)| *is_its_first)?;
        self.lost_at_end_before(place)
    }

    /// The place of that segment, and whether nothing of it is older.
    fn place_at_time(&self, time_ms: u64) -> Option<(usize, bool)> {
        let place = self.segments.iter().position(|segment| {
            let header = segment.index().header();
            (header.event_count > 0 || is_gap(segment)) && header.last_time_ms >= time_ms
        })?;
        let found = self.segments.get(place)?;
        let is_its_first = is_gap(found) || found.index().header().first_time_ms >= time_ms;
        let place = if is_its_first { self.timeless_gaps_before(place) } else { place };
        Some((place, is_its_first))
    }

    /// Where the lost events begin with which the sealed part ends, if nobody knows their time: they are as old as the first
    /// event that is not sealed.
    pub fn timeless_gaps_at_end(&self) -> Option<Offset> {
        let place = self.timeless_gaps_before(self.segments.len());
        self.lost_at_end_before(place).or_else(|| self.timeless_segments_at_end())
    }

    /// The same of segments that hold nothing else: for limits by age the others are as old as the events before them.
    pub(crate) fn timeless_segments_at_end(&self) -> Option<Offset> {
        let place = self.timeless_gaps_before(self.segments.len());
        self.segments.get(place).map(|segment| segment.base())
    }

    /// Behind lost events of which nobody knows whether all are younger than what stands before an offset, if no others stand
    /// between that and them: who reads up to a time is told of them.
    pub fn behind_timeless_gaps(&self, offset: Offset) -> Offset {
        let first = self.segments.partition_point(|segment| segment.end() <= offset);
        let mut behind = offset;
        for segment in &self.segments[first..] {
            if has_no_time(segment) {
                if is_gap(segment) {
                    behind = segment.end();
                }
                continue;
            }
            if is_gap(segment) {
                // The last of them is not older than the time, or what is behind it would be asked for: others may be.
                behind = segment.end();
                break;
            }
            let from = offset.max(segment.base());
            let end = segment.behind_lost(from);
            if end > from {
                behind = end;
            }
            if end < segment.end() {
                break;
            }
        }
        behind
    }

    /// The first of the segments of lost events before a place whose time nobody knows, if no others stand between them and
    /// that; the place if there is none.
    fn timeless_gaps_before(&self, place: usize) -> usize {
        let before = self.segments[..place].iter().enumerate().rev();
        let timeless = before.take_while(|(_, segment)| has_no_time(segment));
        timeless.filter(|(_, segment)| is_gap(segment)).last().map_or(place, |(gap, _)| gap)
    }

    /// Where the lost events begin with which the last segment before a place ends that holds events; whether their time is
    /// known is not.
    fn lost_at_end_before(&self, place: usize) -> Option<Offset> {
        let segment = self.segments[..place].iter().rev().find(|segment| !has_no_time(segment))?;
        let from = segment.lost_before(segment.end());
        (segment.index().header().event_count > 0 && from < segment.end()).then_some(from)
    }
}

/// Whether all events of a segment are lost.
fn is_gap<D: Disk>(segment: &SealedSegment<D>) -> bool {
    segment.index().header().event_count == 0 && segment.index().gaps().len() > 0
}

/// Whether it holds no event, and had none of which anybody knows the time: all are lost, or gone, and only how far
/// limits had reached is left.
fn has_no_time<D: Disk>(segment: &SealedSegment<D>) -> bool {
    let header = segment.index().header();
    header.event_count == 0 && (!is_gap(segment) || header.last_time_ms == 0)
}
