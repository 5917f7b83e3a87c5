//! Events from a place up to an end, across sealed segments, in either direction.
//!
//! A [`Reader`] goes frame by frame. In each segment it decides by count how to find its frames:
//!
//! - The **filter** of the segment says that none of the topics is in it: it is passed without a read.
//! - **Topic lists**: the index tells in which frames the topics' events are, and only those frames
//!   are read; neighbours in one read.
//! - **Scan**: all frames, in reads of up to [`RUN_BYTES_MAX`]. Chosen when the lists would name
//!   at least half as many events as the segment has frames, or when no more than one read is left
//!   of it. (So the lists that are used are short, which bounds what has to be held of them.)
//!
//! Either way the picks are made from the frame itself by [`Selection::pick`], as they are for the
//! unsealed part: the index only says where to look. An index that cannot be read costs speed, not
//! events: the segment is scanned.
//!
//! What the disk does not give back, even when asked again, is a gap as well: of the block it is in.
//!
//! Every frame's header, body, base offset and incarnation (through the seed of its checksums) are
//! checked. What cannot be read is reported as [`ReadError::Gap`], never skipped in silence, and the
//! reader then stands behind it: the caller may go on.
//!
//! Each call of [`Reader::next`] ends soon after it has read [`STEP_BYTES_MAX`], so that a shard's
//! slice can end. Dropping its future is safe: what it was about to read is read by the next call.
//!
//! A reader has all segments of its set open, also when they have gone since, and then their space is not
//! given back. One that is used for long [follows](Reader::follow) what the log has now, and one that is
//! not used for a while [rests](Reader::rest).

use std::{collections::VecDeque, ops::Range, path::PathBuf, sync::Arc};

use crate::{
    error::{Corruption, ReadError},
    event::EventView,
    frame::Frame,
    io::{BlockingReads, Disk, ReadIo},
    offset::{Offset, Position},
    segment_set::{Blocks, SealedSegment, SegmentSet},
    selection::{Order, Picks, Selection},
    topic::TopicPattern,
};

mod count;
mod lookup;
mod rest;
mod run;
#[cfg(test)]
mod tests;
mod time;
mod walk;

pub(crate) use count::count_frames;
pub use count::{TopicCount, count_topics};
pub use rest::Resting;
pub use time::offset_at_time;

use lookup::{Asked, Lookup};
use run::{FrameAt, Run, blocks_to_scan, frames_to_fetch};
use walk::{Found, Gap};

/// How much one read of the log takes, if frames are not longer: sequential reads gain nothing
/// beyond it.
pub const RUN_BYTES_MAX: u64 = 256 << 10;
/// After reading so much, [`Reader::next`] returns even if it found nothing: about a millisecond.
pub const STEP_BYTES_MAX: u64 = 1 << 20;
/// And so much is read at once to find what a write of the disk may have put beside the blocks where it belongs.
const BESIDE_BYTES_MAX: u64 = 1 << 20;
/// Two frames that are wanted are fetched by one read if no more than this lies between them.
const RUN_HOLE_BYTES_MAX: u64 = 32 << 10;
/// What a frame that is looked at and a segment that is passed cost beyond their bytes, as bytes.
const LOOK_BYTES: u64 = 4096;

/// What a reader wants.
#[derive(Clone, Debug)]
pub struct ReadQuery {
    /// Events whose topic any of these matches; with none, all events, also of reserved topics.
    pub topics: Vec<TopicPattern>,
    /// The first offset wanted.
    pub from: Offset,
    /// The first offset not wanted any more; never past the visible offset.
    pub end: Offset,
    /// Which end is read first.
    pub order: Order,
}

/// What one step of a reader found.
#[derive(Clone, Debug)]
pub struct Hits {
    /// The frame with the events; `None` if there are none, because the step ended before.
    pub frame: Option<Arc<Frame>>,
    /// Which of its events.
    pub picks: Picks,
    /// Ascending: everything from the query's `from` up to here (not included) has been looked at.
    /// Descending: everything from here (included) up to the query's `end` has been.
    pub considered: Offset,
    /// The order of [`Hits::events`].
    pub order: Order,
}

impl Hits {
    /// What `selection` finds in a frame, for frames that no [`Reader`] gave: live and unsealed ones.
    pub fn of_frame(
        frame: &Arc<Frame>,
        selection: &Selection,
        range: Range<Offset>,
        order: Order,
    ) -> Hits {
        let considered = match order {
            Order::Ascending => frame.end_offset().clamp(range.start, range.end),
            Order::Descending => frame.base_offset().clamp(range.start, range.end),
        };
        let picks = selection.pick(frame, range);
        Hits { frame: (!picks.is_empty()).then(|| frame.clone()), picks, considered, order }
    }

    /// Nothing found up to `considered`.
    pub fn none(considered: Offset, order: Order) -> Hits {
        Hits { frame: None, picks: Picks::NONE, considered, order }
    }

    /// How many events were found.
    pub fn len(&self) -> usize {
        self.picks.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// The events found, in the order asked for.
    pub fn events(&self) -> impl ExactSizeIterator<Item = EventView<'_>> {
        let len = self.len();
        (0..len).map(move |nth| {
            let nth = if self.order == Order::Ascending { nth } else { len - 1 - nth };
            let frame = self.frame.as_ref().expect("there is a frame if there are picks");
            frame.event(self.picks.index(nth))
        })
    }
}

/// Reads the sealed part of a log; its owner has the rest.
pub struct Reader<D: Disk> {
    set: Arc<SegmentSet<D>>,
    selection: Arc<Selection>,
    order: Order,
    /// What has not been considered yet: shrinks from the end that is read first.
    left: Range<Offset>,
    /// The query began before the first offset that is kept; said once.
    expired: Option<Offset>,
    visit: Option<Visit<D>>,
}

/// The segment that the reader is in.
struct Visit<D: Disk> {
    segment: Arc<SealedSegment<D>>,
    plan: Plan,
    /// What was read and not handed out yet, in the order of the reader.
    run: Run,
}

/// Which frames of a segment are read.
enum Plan {
    /// Not known before the index has been asked.
    Ask(Lookup),
    /// All.
    Scan,
    /// These, ascending; what is done is taken off the end that is read first.
    Frames(VecDeque<FrameAt>),
}

impl<D: Disk> Reader<D> {
    /// A reader of what `set` holds of the query. What lies behind the sealed part is not its
    /// business: whoever has the rest is asked from [`Reader::end`] on.
    pub fn new(set: Arc<SegmentSet<D>>, query: &ReadQuery) -> Self {
        let selection = Arc::new(Selection::new(&query.topics));
        let end = query.end.min(set.end());
        let left = query.from.max(set.start()).min(end)..end;
        let expired = query.order == Order::Ascending && query.from < set.start().min(query.end);
        let expired = expired.then_some(set.start());
        Reader { set, selection, order: query.order, left, expired, visit: None }
    }

    /// The first offset that it does not read: the end of the query, or of the sealed part. (Of a
    /// descending reader: before its first step.)
    pub fn end(&self) -> Offset {
        self.left.end
    }

    /// What it has not looked at yet.
    pub fn left(&self) -> Range<Offset> {
        self.left.clone()
    }

    /// How it picks, for the frames behind the sealed part.
    pub fn selection(&self) -> &Arc<Selection> {
        &self.selection
    }

    /// The next frame with events that are wanted; `None` once everything has been considered.
    /// Hits without a frame mean that the step has read its share and found nothing: call again.
    ///
    /// [`ReadError::Gap`] and [`ReadError::Expired`] are said once, and the next call goes on behind
    /// them. After [`ReadError::Io`] the next call tries the same again.
    pub async fn next<I: ReadIo<D>>(&mut self, io: &I) -> Result<Option<Hits>, ReadError> {
        if let Some(earliest) = self.expired.take() {
            return Err(ReadError::Expired { earliest });
        }
        let mut spent_bytes = 0;
        while !self.left.is_empty() {
            if spent_bytes >= STEP_BYTES_MAX {
                return Ok(Some(Hits::none(self.considered(), self.order)));
            }
            spent_bytes += LOOK_BYTES;
            let Some(visit) = &mut self.visit else {
                self.enter()?;
                continue;
            };
            if let Some(found) = visit.run.found.front() {
                let offsets = found.offsets();
                if offsets.end <= self.left.start || offsets.start >= self.left.end {
                    visit.run.found.pop_front();
                    continue;
                }
                let frame = match found {
                    Found::Gap(gap) => Err(gap.clone()),
                    Found::Frame { header, position } => {
                        visit.run.frame(&visit.segment, io, header, *position).await?
                    }
                };
                visit.run.found.pop_front();
                match frame {
                    Ok(frame) => {
                        let (frame, left) = (Arc::new(frame), self.left.clone());
                        let hits = Hits::of_frame(&frame, &self.selection, left, self.order);
                        self.move_past(&offsets);
                        if !hits.is_empty() {
                            return Ok(Some(hits));
                        }
                    }
                    Err(gap) => {
                        let file = visit.segment.log_path();
                        return Err(self.pass(gap, file));
                    }
                }
                continue;
            }
            let selection = &self.selection;
            let refill =
                visit.refill(io, selection, &self.left, self.order, &mut spent_bytes).await?;
            if refill == Refill::Done {
                let passed = visit.segment.base()..visit.segment.end();
                self.move_past(&passed);
                self.visit = None;
            }
        }
        Ok(None)
    }

    /// [`Reader::next`] by blocking reads, for tools and tests.
    pub fn next_blocking(&mut self) -> Result<Option<Hits>, ReadError> {
        BlockingReads::run(self.next(&BlockingReads))
    }

    /// Goes to the segment that holds what is read next, and decides how to read it.
    fn enter(&mut self) -> Result<(), ReadError> {
        let (left, order) = (&self.left, self.order);
        let segment = match order {
            Order::Ascending => self.set.first_ending_behind(left.start),
            Order::Descending => self.set.last_beginning_before(left.end),
        };
        let Some(segment) = segment.cloned() else {
            // Behind the last segment, or before the first, is what was taken out on purpose.
            return self.pass_retired(left.clone());
        };
        let hole = match order {
            Order::Ascending => left.start..segment.base().min(left.end),
            Order::Descending => segment.end().max(left.start)..left.end,
        };
        if !hole.is_empty() {
            if self.set.is_retired(&hole) {
                return self.pass_retired(hole);
            }
            let file = segment.log_path();
            let side = if order == Order::Ascending { "before" } else { "behind" };
            let what = format!("a segment {side} this one is missing");
            return Err(self.pass(Gap { offsets: hole, position: Position::default(), what }, file));
        }
        if order == Order::Ascending
            && let Some(passed) = self.set.passed_in(&segment, left.start)
        {
            self.move_past(&passed);
            return Err(ReadError::Expired { earliest: passed.end });
        }
        let index = segment.index();
        let selection = &self.selection;
        // Events of any topic may be among what a repair found to be lost: no list names them.
        let has_gap = index.gaps().any(|lost| lost.start < left.end && lost.end > left.start);
        let is_all = selection.is_all() || has_gap;
        if !is_all
            && selection.sources().iter().all(|pattern| index.topic_blocks(pattern).is_empty())
        {
            self.move_past(&(segment.base()..segment.end()));
            return Ok(());
        }
        let lookup = if is_all || is_one_run(segment.blocks(), left) {
            None
        } else {
            Lookup::new(&segment, selection, left)
        };
        let plan = lookup.map_or(Plan::Scan, Plan::Ask);
        self.visit = Some(Visit { segment, plan, run: Run::empty() });
        Ok(())
    }

    /// Passes offsets that were taken out. What is before them may stay, as a damaged segment does, so that the start of
    /// the log says nothing of them.
    fn pass_retired(&mut self, offsets: Range<Offset>) -> Result<(), ReadError> {
        let is_told = self.order == Order::Ascending && self.set.is_expired(&offsets);
        self.move_past(&offsets);
        if is_told { Err(ReadError::Expired { earliest: offsets.end }) } else { Ok(()) }
    }

    /// Everything in `offsets` has been considered.
    fn move_past(&mut self, offsets: &Range<Offset>) {
        match self.order {
            Order::Ascending => {
                self.left.start = self.left.start.max(offsets.end).min(self.left.end);
            }
            Order::Descending => {
                self.left.end = self.left.end.min(offsets.start).max(self.left.start);
            }
        }
    }

    fn pass(&mut self, gap: Gap, file: PathBuf) -> ReadError {
        let (from, to) =
            (gap.offsets.start.max(self.left.start), gap.offsets.end.min(self.left.end));
        self.move_past(&gap.offsets);
        let corruption = Corruption { file, position: gap.position, what: gap.what };
        ReadError::Gap { from, to, corruption }
    }

    fn considered(&self) -> Offset {
        match self.order {
            Order::Ascending => self.left.start,
            Order::Descending => self.left.end,
        }
    }
}

/// Whether one read fetches all that is left of a segment.
fn is_one_run(blocks: Blocks<'_>, left: &Range<Offset>) -> bool {
    let end = blocks.edge(blocks.count());
    let bounds = left.start.max(blocks.edge(0).offset)..left.end.min(end.offset);
    let run = blocks_to_scan(blocks, &bounds, Order::Ascending);
    run.is_none_or(|run| run[run.len() - 1].offset >= bounds.end)
}

#[derive(PartialEq, Eq)]
enum Refill {
    More,
    /// The segment has nothing more.
    Done,
}

impl<D: Disk> Visit<D> {
    /// Reads what comes next, or finds out what does. What it changes it changes after the last
    /// await.
    async fn refill<I: ReadIo<D>>(
        &mut self,
        io: &I,
        selection: &Selection,
        left: &Range<Offset>,
        order: Order,
        spent_bytes: &mut u64,
    ) -> Result<Refill, ReadError> {
        match &mut self.plan {
            Plan::Ask(lookup) => match lookup.step(&self.segment, selection, io, spent_bytes).await
            {
                Asked::More => {}
                Asked::Scan => self.plan = Plan::Scan,
                Asked::Frames(frames) => self.plan = Plan::Frames(frames),
            },
            Plan::Scan => {
                let Some(blocks) = blocks_to_scan(self.segment.blocks(), left, order) else {
                    return Ok(Refill::Done);
                };
                self.run = Run::of_readable_blocks(&self.segment, io, &blocks, order).await?;
                *spent_bytes += self.run.read_bytes();
            }
            Plan::Frames(frames) if frames.is_empty() => return Ok(Refill::Done),
            Plan::Frames(frames) => {
                let guess_bytes = 2 * self.segment.mean_frame_bytes();
                let blocks = self.segment.blocks();
                let mut run = Run::empty();
                if let Some((chosen, span)) = frames_to_fetch(blocks, frames, guess_bytes, order) {
                    let chosen = &frames.make_contiguous()[chosen];
                    // Where it cannot be read, the blocks are tried one by one.
                    run = match Run::of_frames(&self.segment, io, chosen, span, order).await {
                        Err(ReadError::Io { .. }) => Run::empty(),
                        run => run?,
                    };
                }
                *spent_bytes += run.read_bytes();
                let read = run.found.len();
                match order {
                    Order::Ascending => drop(frames.drain(..read)),
                    Order::Descending => frames.truncate(frames.len() - read),
                }
                if read == 0 {
                    // The first header is rotten, or the index lies: the blocks know what is where.
                    self.plan = Plan::Scan;
                }
                self.run = run;
            }
        }
        Ok(Refill::More)
    }
}
