//! A log read from one end of a range to the other, whatever holds it: sealed segments, the frames
//! that this shard got last, or the owner's memory and its unsealed segment.
//!
//! A place moves between the three while it is read: a segment is sealed, a frame is dropped from
//! memory. So each step looks anew where its place is, and takes from there; the range ends at what
//! was visible when it was made, which nothing ever takes back.
//!
//! A step reads the segments that the log has when it begins. So a walk that goes on for long keeps nothing
//! open that has gone from the log, and one that is [let go](WholeLog::let_go) keeps nothing open at all.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use strandline_storage::error::ReadError;
use strandline_storage::frame::Frame;
use strandline_storage::io::real::RealDisk;
use strandline_storage::offset::Offset;
use strandline_storage::reader::{Hits, ReadQuery, Reader, Resting};
use strandline_storage::rules::Floors;
use strandline_storage::selection::{Order, Selection};

use super::pages::Hidden;
use super::wanted::Wanted;
use crate::local::{Kept, Share, promise};
use crate::log_calls::UnsealedPart;
use crate::log_handle::LogHandle;
use crate::runtime::end_slice;

/// Steps in a row that get nowhere before something must be wrong with the log.
const STALLS_MAX: usize = 16;

/// How many bytes of frames are asked of the owner of the log at first, for a reader that may have all it
/// wants of them.
const UNSEALED_BYTES_MIN: usize = 256 * 1024;

/// The same for a reader that goes on where nothing was read ahead for it: others have all the bytes for that.
const UNSEALED_BYTES: usize = 1024 * 1024;

/// The same for a reader that goes on: it has these, and as many that it asked for ahead, as far as the shard
/// has bytes for that. Two reads of the disk, so that one is always under way: with one the disk gave 1.3 GiB
/// a second, of 1.7.
const UNSEALED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A walk over a range of a log.
pub struct WholeLog {
    log: Rc<LogHandle>,
    wanted: Rc<Wanted>,
    selection: Selection,
    rest: Range<Offset>,
    order: Order,
    /// A reader over sealed segments, and the place where it ends.
    sealed: Option<(Sealed, Offset)>,
    asked: VecDeque<Hits>,
    /// Of the bytes that this shard's readers may have ahead: what `asked` came with.
    share: Option<Share>,
    /// Whether the owner was asked before: then the reader wants more than a little.
    has_asked: bool,
    /// What was wanted of frames that were given, and is gone.
    hidden: Option<Hidden>,
    /// What comes behind `asked`: the disk reads it meanwhile.
    ahead: Option<Ahead>,
}

/// What reads sealed segments.
enum Sealed {
    Reading(Box<Reader<RealDisk>>),
    Resting(Box<Resting>),
}

/// A part of the log that is on its way.
struct Ahead {
    from: Offset,
    part: Kept<Result<UnsealedPart, ReadError>>,
    share: Share,
}

impl WholeLog {
    /// A walk over what is visible now of `range`.
    pub fn new(log: Rc<LogHandle>, wanted: Rc<Wanted>, range: Range<Offset>, order: Order) -> Self {
        let end = range.end.min(log.visible());
        let rest = range.start.min(end)..end;
        let selection = Selection::new(wanted.patterns());
        WholeLog {
            log,
            wanted,
            selection,
            rest,
            order,
            sealed: None,
            asked: VecDeque::new(),
            share: None,
            has_asked: false,
            hidden: None,
            ahead: None,
        }
    }

    /// What has not been considered yet.
    pub fn rest(&self) -> Range<Offset> {
        self.rest.clone()
    }

    /// Whether all that the owner of the log gave has been considered: this is where whoever lets go of the walk
    /// has the least read again.
    pub fn is_between_parts(&self) -> bool {
        self.asked.is_empty()
    }

    /// A walk over the rest of it, which holds nothing that was read. A descending one ends where the log
    /// begins by now, as this one would; to an ascending one the log is gone where it stands.
    #[must_use]
    pub fn anew(&self) -> WholeLog {
        let mut rest = self.rest();
        if self.order == Order::Descending {
            rest.start = rest.start.max(self.log.earliest()).min(rest.end);
        }
        WholeLog::new(self.log.clone(), self.wanted.clone(), rest, self.order)
    }

    /// Lets go of every file, until the walk goes on: whoever waits for a client keeps no space from others.
    pub fn let_go(&mut self) {
        self.sealed = self.sealed.take().map(|(sealed, place)| match sealed {
            Sealed::Reading(reader) => (Sealed::Resting(Box::new(reader.rest())), place),
            resting => (resting, place),
        });
    }

    /// Which events are wanted; the topics have been looked at already, the types have not.
    pub fn wanted(&self) -> &Rc<Wanted> {
        &self.wanted
    }

    /// The next frame that may hold something, perhaps without a pick; `None` at the end of the range.
    /// Behind a [`ReadError::Gap`] the walk goes on with the next call.
    pub async fn next(&mut self) -> Result<Option<Hits>, ReadError> {
        let mut stalls = 0;
        while self.rest.start < self.rest.end {
            let before = self.rest();
            match self.step().await {
                Ok(Some((hits, floors))) => {
                    self.move_to(hits.considered);
                    self.note_hidden(&hits, &floors);
                    return Ok(Some(floors.filter(hits)));
                }
                Ok(None) => (),
                Err(mut error) => {
                    if let ReadError::Expired { earliest } = &mut error {
                        // The log may keep less by now than the segment says that was met first.
                        *earliest = self.log.earliest().max(*earliest);
                    }
                    self.sealed = None;
                    self.asked.clear();
                    self.ahead = None;
                    match (&error, self.order) {
                        (ReadError::Gap { to: place, .. }, Order::Ascending)
                        | (ReadError::Gap { from: place, .. }, Order::Descending)
                        | (ReadError::Expired { earliest: place }, Order::Ascending) => {
                            self.move_to(*place);
                        }
                        _ => (),
                    }
                    return Err(error);
                }
            }
            // A place that is sealed while the owner is asked for it is found one step later.
            stalls = if before == self.rest { stalls + 1 } else { 0 };
            if stalls > STALLS_MAX {
                return Err(ReadError::Io {
                    file: std::path::PathBuf::new(),
                    source: std::io::Error::other(format!("nobody has offset {}", before.start)),
                });
            }
        }
        Ok(None)
    }

    /// What was wanted of the frames given since this was asked last, and was deleted or trimmed.
    pub fn take_hidden(&mut self) -> Option<Hidden> {
        self.hidden.take()
    }

    fn note_hidden(&mut self, hits: &Hits, floors: &Floors) {
        if !hits.frame.as_ref().is_some_and(|frame| floors.concern(frame)) {
            return;
        }
        for event in hits.events().filter(|event| floors.hide(event) && self.wanted.takes(event)) {
            let (offset, said_at) = (event.offset(), floors.said_at(event.topic()));
            let this = Hidden { first: offset, last: offset, said_at };
            self.hidden = Some(self.hidden.map_or(this, |known| known.and(this)));
        }
    }

    /// Takes from wherever the place is now, with the floors that say what of it is gone; without hits, the
    /// place may have moved.
    async fn step(&mut self) -> Result<Option<(Hits, Arc<Floors>)>, ReadError> {
        if let Some((sealed, place)) = self.sealed.take() {
            let mut reader = sealed.awake(&self.log);
            let Some(hits) = reader.next(self.log.reads()).await? else {
                self.move_to(place);
                return Ok(None);
            };
            self.sealed = Some((Sealed::Reading(reader), place));
            // None of them was forgotten while the reader has segments open that hold what they hide.
            return Ok(Some((hits, self.log.floors())));
        }
        // Before the segments are looked at: these then reach at least up to what is settled. And once: a frame
        // that is in memory is held against the very floors that hide what it has lost.
        let floors = self.log.floors();
        let settled = floors.settled();
        if let Some(hits) = self.asked.pop_front() {
            if hits.frame.as_ref().is_none_or(|frame| frame.base_offset() >= settled) {
                return Ok(Some((hits, floors)));
            }
            // What it holds may be gone: the segments know.
            self.asked.clear();
            self.ahead = None;
        }
        if let Some(frame) = self.recent().filter(|frame| frame.base_offset() >= settled) {
            let hits = Hits::of_frame(&frame, &self.selection, self.rest(), self.order);
            return Ok(Some((hits, floors)));
        }
        let segments = self.log.segments();
        let sealed_end = segments.end();
        let (is_sealed, range) = match self.order {
            Order::Ascending => {
                (self.rest.start < sealed_end, self.rest.start..self.rest.end.min(sealed_end))
            }
            Order::Descending => (self.rest.end <= sealed_end, self.rest()),
        };
        if is_sealed {
            let place = if self.order == Order::Ascending { range.end } else { range.start };
            let reader = Reader::new(segments, &self.query(range));
            self.sealed = Some((Sealed::Reading(Box::new(reader)), place));
            return Ok(None);
        }
        let start = match self.order {
            Order::Ascending => self.rest.start,
            Order::Descending => self.rest.start.max(sealed_end),
        };
        self.share = None;
        let part = match self.ahead.take().filter(|ahead| ahead.from == start) {
            Some(Ahead { part, share, .. }) => {
                self.share = Some(share);
                part.await.expect("whoever reads ahead says what came of it")?
            }
            None => {
                // The first part alone may be all that is wanted.
                let bytes = if self.has_asked { UNSEALED_BYTES } else { UNSEALED_BYTES_MIN };
                self.log.unsealed(self.query(start..self.rest.end), bytes).await?
            }
        };
        if part.hits.is_empty() {
            self.move_to(part.considered);
        }
        let is_going_on = std::mem::replace(&mut self.has_asked, true);
        let from = part.considered;
        self.asked = part.hits.into();
        if is_going_on && self.order == Order::Ascending && from > start && from < self.rest.end {
            self.ask_ahead(from).await;
        }
        Ok(None)
    }

    /// Asks for what comes behind what is there already, and sees to it that the disk begins with it.
    async fn ask_ahead(&mut self, from: Offset) {
        let share = self.log.ahead().take(UNSEALED_BYTES_MAX, UNSEALED_BYTES_MIN);
        let Some(share) = share else { return };
        let budget_bytes = share.amount();
        let (log, query) = (self.log.clone(), self.query(from..self.rest.end));
        let (promise, part) = promise();
        monoio::spawn(async move {
            promise.keep(log.unsealed(query, budget_bytes).await);
        });
        self.ahead = Some(Ahead { from, part, share });
        // The ring submits when nothing else can run.
        end_slice().await;
    }

    fn query(&self, range: Range<Offset>) -> ReadQuery {
        ReadQuery {
            topics: self.wanted.patterns().to_vec(),
            from: range.start,
            end: range.end,
            order: self.order,
        }
    }

    /// The frame at the place, if this shard got it lately.
    fn recent(&self) -> Option<Arc<Frame>> {
        let at = match self.order {
            Order::Ascending => self.rest.start,
            Order::Descending => self.rest.end.previous()?,
        };
        self.log.recent().frame_at(at)
    }

    fn move_to(&mut self, place: Offset) {
        match self.order {
            Order::Ascending => self.rest.start = place.clamp(self.rest.start, self.rest.end),
            Order::Descending => self.rest.end = place.clamp(self.rest.start, self.rest.end),
        }
    }
}

impl Sealed {
    /// The reader, over what the log has now.
    fn awake(self, log: &LogHandle) -> Box<Reader<RealDisk>> {
        match self {
            Sealed::Reading(mut reader) => {
                if let Some(segments) = log.segments_since(reader.set()) {
                    reader.follow(segments);
                }
                reader
            }
            Sealed::Resting(resting) => Box::new(resting.wake(log.segments())),
        }
    }
}

#[cfg(test)]
mod tests {
    use strandline_storage::{
        config::SyncMode, io::uring::UringReads, log::WriteMode, once::IdWindow, segment::Tag,
        segment_set::SegmentSet,
    };

    use super::*;
    use crate::{
        log_calls::Guest,
        log_handle::Seat,
        log_shared::{LogFacts, LogShared},
        mesh::{CallLimits, Doorbell, MailboxLimits, call_pair, mailbox},
        runtime::{Driver, block_on},
    };

    /// A log of a hundred events, of which those before `gone_to` have no segment any more, and which keeps those from
    /// `earliest` on.
    fn log(gone_to: Offset, earliest: Offset) -> Rc<LogHandle> {
        let mut segments = SegmentSet::default();
        segments.push_retired(Offset::ZERO..gone_to);
        let end = Offset::new(100);
        let facts = LogFacts {
            tag: Tag::random(),
            sync: SyncMode::Commit,
            write_mode: WriteMode::Direct,
            id_window: IdWindow { events: 0, time_ms: 0 },
            visible: end,
            synced: end,
            earliest,
            segments: Arc::new(segments),
            floors: Arc::default(),
        };
        let limits = MailboxLimits { messages_max: 1, bytes_max: 1 };
        let calls = CallLimits { requests: limits, unanswered_max: 1 };
        let [ours, owners] = [(); 2].map(|()| Arc::new(Doorbell::new()));
        let (caller, _) = call_pair(calls, ours.clone(), owners);
        let (_, frames) = mailbox(limits, ours);
        let seat = Seat::Guest(Guest::new(caller, frames));
        let shared = Arc::new(LogShared::new(facts, 1));
        Rc::new(LogHandle::new(0, shared, seat, 0, UringReads::new(Rc::default())))
    }

    /// The segment that was met says how far limits had come when it was rewritten, or the one before it went; they may have
    /// come farther since. Who went on at that place was told a second time.
    #[test]
    fn who_is_told_that_events_are_gone_is_told_where_the_log_begins_by_now() {
        let (gone_to, earliest) = (Offset::new(40), Offset::new(60));
        let wanted = Rc::new(Wanted::new(Vec::new(), Vec::new()));
        let range = Offset::ZERO..Offset::new(100);
        let mut walk = WholeLog::new(log(gone_to, earliest), wanted, range, Order::Ascending);
        let told = block_on(Driver::Epoll, true, walk.next()).expect("a runtime");
        let error = told.expect_err("they are gone");
        assert!(
            matches!(error, ReadError::Expired { earliest: told } if told == earliest),
            "{error:?}"
        );
        assert_eq!(walk.rest().start, earliest, "it goes on where it has said");
    }
}
