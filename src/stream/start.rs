//! How a stream begins because of where its reader stands.
//!
//! [`resolve`] is the one place that decides between live, resumed and reset. It is pure: what the
//! log is like is an argument.

use strandline_storage::{offset::Offset, segment::Tag};

use super::cursor::{Cursor, GivenCursor, StartFrom};

/// What decides how a stream begins, as the log's owner knows it.
#[derive(Debug, Clone, Copy)]
pub struct StreamFacts {
    /// The first offset still kept.
    pub earliest: Offset,
    /// The offset that readers see up to.
    pub visible: Offset,
    /// The log's history.
    pub tag: Tag,
}

impl StreamFacts {
    /// The cursor of a reader that goes on at `from`. There is none where that lies beyond the end: whoever
    /// came back with it would be told that it is ahead, and begin anew.
    pub fn cursor_before(&self, from: Offset) -> Option<Cursor> {
        (from <= self.visible).then(|| Cursor::before(from, self.tag))
    }

    /// What a reader is told whose stream begins at `from`. Everything below `durable` is on the device.
    pub fn beginning(&self, state: StartState, from: Offset, durable: Offset) -> Beginning {
        let (earliest, tag, cursor) = (self.earliest, self.tag, self.cursor_before(from));
        Beginning { state, from, earliest, durable, tag, cursor }
    }
}

/// How a stream begins, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// What the reader is told.
    pub state: StartState,
    /// What follows.
    pub place: StartPlace,
}

/// The `state` of a stream's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartState {
    /// There was no cursor.
    Live,
    /// It continues exactly after the cursor.
    Resumed,
    /// It cannot, and the reader must know.
    Reset(ResetReason),
}

impl StartState {
    /// Its text.
    pub fn as_str(self) -> &'static str {
        match self {
            StartState::Live => "live",
            StartState::Resumed => "resumed",
            StartState::Reset(_) => "reset",
        }
    }
}

/// Why a reader could not go on from where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// Retention has passed it.
    Expired,
    /// Its tag is not this log's.
    OtherLog,
    /// It lies beyond the end.
    Ahead,
    /// It is not a cursor.
    Unknown,
    /// In mid-stream: a part of the log is corrupt.
    Gap,
    /// In mid-stream: its topic was deleted.
    Deleted,
}

impl ResetReason {
    /// Its text.
    pub fn as_str(self) -> &'static str {
        match self {
            ResetReason::Expired => "expired",
            ResetReason::OtherLog => "other_log",
            ResetReason::Ahead => "ahead",
            ResetReason::Unknown => "unknown",
            ResetReason::Gap => "gap",
            ResetReason::Deleted => "deleted",
        }
    }
}

/// Where a stream begins; all but an offset has to be looked up in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPlace {
    /// With the event at this offset. It may lie beyond the end: then the stream waits for it.
    Offset(Offset),
    /// With the last so many matching events.
    Last(u32),
    /// With the first event at or after this time, in milliseconds since 1970.
    Time(u64),
}

/// What a reader is told of how its stream begins.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    /// What is said about the cursor.
    pub state: StartState,
    /// The first offset that may follow.
    pub from: Offset,
    /// The first offset still kept.
    pub earliest: Offset,
    /// The synced offset.
    pub durable: Offset,
    /// The log's history.
    pub tag: Tag,
    /// From where the client can resume, if it can: not where it waits beyond the end.
    pub cursor: Option<Cursor>,
}

/// Decides how a stream begins (API §4): a cursor wins over `from`, which is `latest` if absent.
pub fn resolve(given: GivenCursor, from: Option<StartFrom>, facts: &StreamFacts) -> Start {
    let reset = |reason| Start { state: StartState::Reset(reason), place: restart(from, facts) };
    match (given, from) {
        (GivenCursor::Unknown, _) => reset(ResetReason::Unknown),
        (GivenCursor::Cursor(cursor), _) => match check(&cursor, facts) {
            Some(reason) => reset(reason),
            None => Start { state: StartState::Resumed, place: StartPlace::Offset(cursor.next()) },
        },
        // An offset counts as the cursor before it, but beyond the end it waits.
        (GivenCursor::None, Some(StartFrom::Offset(offset))) => match offset < facts.earliest {
            true => reset(ResetReason::Expired),
            false => Start { state: StartState::Resumed, place: StartPlace::Offset(offset) },
        },
        (GivenCursor::None, from) => Start {
            state: StartState::Live,
            place: place(from.unwrap_or(StartFrom::Latest), facts),
        },
    }
}

/// Why a stream cannot continue after `cursor`, if it cannot.
fn check(cursor: &Cursor, facts: &StreamFacts) -> Option<ResetReason> {
    if cursor.tag().is_some_and(|tag| tag != facts.tag) {
        Some(ResetReason::OtherLog)
    } else if cursor.next() > facts.visible {
        Some(ResetReason::Ahead)
    } else if cursor.next() < facts.earliest {
        Some(ResetReason::Expired)
    } else {
        None
    }
}

/// Where a reset continues: at `from` if it names a place that always exists, else at the earliest.
fn restart(from: Option<StartFrom>, facts: &StreamFacts) -> StartPlace {
    match from {
        Some(from @ (StartFrom::Earliest | StartFrom::Latest | StartFrom::Last(_))) => {
            place(from, facts)
        }
        Some(StartFrom::Offset(_) | StartFrom::Time(_)) | None => {
            StartPlace::Offset(facts.earliest)
        }
    }
}

fn place(from: StartFrom, facts: &StreamFacts) -> StartPlace {
    match from {
        StartFrom::Earliest => StartPlace::Offset(facts.earliest),
        StartFrom::Latest => StartPlace::Offset(facts.visible),
        StartFrom::Offset(offset) => StartPlace::Offset(offset),
        StartFrom::Last(count) => StartPlace::Last(count),
        StartFrom::Time(time_ms) => StartPlace::Time(time_ms),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag(text: &str) -> Tag {
        Tag::parse(text).unwrap()
    }

    fn facts(earliest: u64, visible: u64) -> StreamFacts {
        StreamFacts {
            earliest: Offset::new(earliest),
            visible: Offset::new(visible),
            tag: tag("k3f9q"),
        }
    }

    fn given(text: &str) -> GivenCursor {
        GivenCursor::of_header(text.as_bytes())
    }

    fn at(state: StartState, offset: u64) -> Start {
        Start { state, place: StartPlace::Offset(Offset::new(offset)) }
    }

    /// API §4: "`id:` stands only where a client that resumes from it misses nothing".
    #[test]
    fn a_cursor_that_is_handed_out_is_taken_back() {
        let facts = facts(10, 100);
        for from in [10, 50, 100, 101, 5_000] {
            let from = Offset::new(from);
            let cursor = facts.cursor_before(from);
            assert_eq!(cursor.is_some(), from <= facts.visible, "{from}");
            if let Some(cursor) = cursor {
                let start = resolve(GivenCursor::Cursor(cursor), None, &facts);
                assert_eq!(start, at(StartState::Resumed, from.get()));
            }
        }
    }

    /// API §4: "`live` (no cursor)".
    #[test]
    fn without_a_cursor_a_stream_is_live() {
        let facts = facts(10, 100);
        let live = |from| resolve(GivenCursor::None, from, &facts);
        assert_eq!(live(None), at(StartState::Live, 100));
        assert_eq!(live(Some(StartFrom::Latest)), at(StartState::Live, 100));
        assert_eq!(live(Some(StartFrom::Earliest)), at(StartState::Live, 10));
        let last = Start { state: StartState::Live, place: StartPlace::Last(5) };
        assert_eq!(live(Some(StartFrom::Last(5))), last);
        let time = Start { state: StartState::Live, place: StartPlace::Time(7) };
        assert_eq!(live(Some(StartFrom::Time(7))), time);
        assert_eq!(resolve(given(""), None, &facts), at(StartState::Live, 100), "empty is absent");
    }

    /// API §4: "`resumed` (continues exactly after the cursor; `from=<offset>` counts as the cursor
    /// before it, but beyond the end it waits)".
    #[test]
    fn a_cursor_of_this_log_resumes_exactly_after_it() {
        let facts = facts(10, 100);
        let resumed = |offset| at(StartState::Resumed, offset);
        assert_eq!(resolve(given("41.k3f9q"), None, &facts), resumed(42));
        assert_eq!(resolve(given("41"), None, &facts), resumed(42));
        assert_eq!(
            resolve(given("9.k3f9q"), None, &facts),
            resumed(10),
            "just before the first kept"
        );
        assert_eq!(resolve(given("99.k3f9q"), None, &facts), resumed(100), "the last event");
        let from = |offset| Some(StartFrom::Offset(Offset::new(offset)));
        assert_eq!(resolve(GivenCursor::None, from(42), &facts), resumed(42));
        assert_eq!(resolve(GivenCursor::None, from(10), &facts), resumed(10));
        assert_eq!(resolve(GivenCursor::None, from(100), &facts), resumed(100));
        assert_eq!(resolve(GivenCursor::None, from(5000), &facts), resumed(5000), "it waits");
        assert_eq!(resolve(given("41.k3f9q"), from(7), &facts), resumed(42), "cursors win");
        assert_eq!(resolve(given("-1.k3f9q"), None, &self::facts(0, 0)), resumed(0), "empty log");
    }

    /// API §4: "`reset` with `reason` `expired` (retention passed it), `other_log` (another tag),
    /// `ahead` (beyond the end, as the log's owner knows it), `unknown` (not a cursor ..)".
    #[test]
    fn a_cursor_that_cannot_be_continued_resets() {
        let facts = facts(10, 100);
        let reason = |text| resolve(given(text), None, &facts);
        let reset = |reason| at(StartState::Reset(reason), 10);
        assert_eq!(reason("8.k3f9q"), reset(ResetReason::Expired));
        assert_eq!(reason("-1.k3f9q"), reset(ResetReason::Expired));
        assert_eq!(reason("41.other"), reset(ResetReason::OtherLog));
        assert_eq!(reason("5000.other"), reset(ResetReason::OtherLog));
        assert_eq!(reason("100.k3f9q"), reset(ResetReason::Ahead));
        assert_eq!(reason("9223372036854775807"), reset(ResetReason::Ahead));
        assert_eq!(reason("msg-77"), reset(ResetReason::Unknown));
        assert_eq!(GivenCursor::of_header(b"\xff\x00"), GivenCursor::Unknown);
        let from = Some(StartFrom::Offset(Offset::new(9)));
        assert_eq!(resolve(GivenCursor::None, from, &facts), reset(ResetReason::Expired));
    }

    /// API §4: "A reset continues at `from` if one was given as `earliest`, `latest` or `-N`, else
    /// at `earliest`."
    #[test]
    fn a_reset_continues_at_from_or_at_the_earliest() {
        let facts = facts(10, 100);
        let place = |from| resolve(given("1.other"), Some(from), &facts).place;
        assert_eq!(place(StartFrom::Earliest), StartPlace::Offset(Offset::new(10)));
        assert_eq!(place(StartFrom::Latest), StartPlace::Offset(Offset::new(100)));
        assert_eq!(place(StartFrom::Last(3)), StartPlace::Last(3));
        assert_eq!(place(StartFrom::Time(3)), StartPlace::Offset(Offset::new(10)));
        let offset = StartFrom::Offset(Offset::new(50));
        assert_eq!(place(offset), StartPlace::Offset(Offset::new(10)));
    }

    proptest! {
        /// Whatever is resumed lies within the log, and nothing is passed over in silence.
        #[test]
        fn a_resumed_stream_misses_nothing(seen in -1i64..200, earliest in 0u64..100, len in 0u64..100) {
            let facts = facts(earliest, earliest + len);
            let start = resolve(given(&format!("{seen}.k3f9q")), None, &facts);
            match start.state {
                StartState::Resumed => {
                    let next = Offset::new(u64::try_from(seen + 1).unwrap());
                    prop_assert_eq!(start.place, StartPlace::Offset(next));
                    prop_assert!(facts.earliest <= next && next <= facts.visible);
                }
                StartState::Reset(_) => {
                    prop_assert_eq!(start.place, StartPlace::Offset(facts.earliest));
                }
                StartState::Live => prop_assert!(false),
            }
        }
    }
}
