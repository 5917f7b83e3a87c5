//! Where a reader stands in a log, its text form, and how a stream begins because of it.
//!
//! ```text
//! cursor      = offset [ "." tag ]        64000.k3f9q: everything up to offset 64000 has been seen
//! offset      = "-1" / "0" / digits       -1 is before the first; at most 2^63 - 1; no leading zeros
//! tag         = 1*16( a-z / 0-9 )         names one history of the log; without it nobody can notice
//!                                         that the cursor is another history's
//! from        = "earliest" / "latest" / offset (the first wanted) / "-" N (the last N) / RFC 3339 time
//! ```
//! [`resolve`] is the one place that decides between live, resumed and reset. It is pure: what the
//! log is like is an argument.

use std::fmt;

use strandline_storage::{offset::Offset, segment::Tag};

use crate::timestamp;

/// The most events that `from=-N` may ask for.
pub const LAST_EVENTS_MAX: u32 = 10_000;

/// Everything up to one offset has been seen, in the history that the tag names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    seen: Option<Offset>,
    tag: Option<Tag>,
}

/// A text that is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotACursor;

impl Cursor {
    /// The cursor of a reader that has seen the event at `offset`, and all before it.
    pub fn after(offset: Offset, tag: Tag) -> Cursor {
        Cursor { seen: Some(offset), tag: Some(tag) }
    }

    /// The cursor of a reader whose next event is the one at `offset` or later.
    pub fn before(offset: Offset, tag: Tag) -> Cursor {
        Cursor { seen: offset.previous(), tag: Some(tag) }
    }

    /// Parses a cursor, or a plain offset.
    pub fn parse(text: &str) -> Result<Cursor, NotACursor> {
        let (offset, tag) = match text.split_once('.') {
            Some((offset, tag)) => (offset, Some(Tag::parse(tag).map_err(|_| NotACursor)?)),
            None => (text, None),
        };
        let seen = match offset {
            "-1" => None,
            digits => Some(parse_offset(digits).ok_or(NotACursor)?),
        };
        Ok(Cursor { seen, tag })
    }

    /// The first offset that the reader has not seen.
    pub fn next(&self) -> Offset {
        self.seen.map_or(Offset::ZERO, |seen| seen.plus(1))
    }

    /// The last offset that the reader has seen, if any.
    pub fn seen(&self) -> Option<Offset> {
        self.seen
    }

    /// The history that the offset belongs to, if the cursor says so.
    pub fn tag(&self) -> Option<Tag> {
        self.tag
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seen {
            Some(seen) => write!(formatter, "{seen}")?,
            None => formatter.write_str("-1")?,
        }
        match self.tag {
            Some(tag) => write!(formatter, ".{tag}"),
            None => Ok(()),
        }
    }
}

/// Parses decimal digits without sign or leading zeros, at most [`Offset::MAX`].
pub fn parse_offset(text: &str) -> Option<Offset> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok().map(Offset::new).filter(|offset| *offset <= Offset::MAX)
}

/// Where a reader without a cursor wants to begin: the values of `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// The first event that is still kept.
    Earliest,
    /// What comes after the moment of the request.
    Latest,
    /// The event at this offset, and what follows.
    Offset(Offset),
    /// The last so many matching events, 1 to [`LAST_EVENTS_MAX`], and what follows.
    Last(u32),
    /// The first event at or after this time (milliseconds since 1970), and what follows.
    Time(u64),
}

impl StartFrom {
    /// Parses a value of `from`. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<StartFrom, String> {
        const FORMS: &str =
            "is none of earliest, latest, an offset, an RFC 3339 time, or -N for the last N events";
        match text {
            "earliest" => return Ok(StartFrom::Earliest),
            "latest" => return Ok(StartFrom::Latest),
            _ => {}
        }
        if let Some(last) = text.strip_prefix('-') {
            if last.is_empty() || !last.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(FORMS.into());
            }
            return match last.parse() {
                Ok(count @ 1..=LAST_EVENTS_MAX) => Ok(StartFrom::Last(count)),
                _ => Err(format!("asks for the last N events with N not 1 to {LAST_EVENTS_MAX}")),
            };
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let offset = parse_offset(text).ok_or_else(|| {
                format!("is not an offset: 0 to {} without leading zeros", Offset::MAX)
            })?;
            return Ok(StartFrom::Offset(offset));
        }
        parse_time_ms(text).map(StartFrom::Time).ok_or_else(|| FORMS.into())
    }
}

/// Parses an RFC 3339 time out of a form-decoded query, where `+` has become a space.
pub fn parse_time_ms(text: &str) -> Option<u64> {
    match text.contains(' ') {
        true => timestamp::parse_ms(&text.replace(' ', "+")),
        false => timestamp::parse_ms(text),
    }
}

/// What a reader brought along to be resumed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GivenCursor {
    /// Nothing.
    #[default]
    None,
    /// A cursor.
    Cursor(Cursor),
    /// A `Last-Event-ID` header that is not a cursor: perhaps another server's.
    Unknown,
}

impl GivenCursor {
    /// What a `Last-Event-ID` header gives; empty is absent.
    pub fn of_header(value: &[u8]) -> GivenCursor {
        if value.is_empty() {
            return GivenCursor::None;
        }
        match std::str::from_utf8(value).map_err(|_| NotACursor).and_then(Cursor::parse) {
            Ok(cursor) => GivenCursor::Cursor(cursor),
            Err(NotACursor) => GivenCursor::Unknown,
        }
    }
}

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
    use super::*;
    use proptest::prelude::*;

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

    /// API §1: "`<offset>.<tag>`, e.g. `64000.k3f9q`: everything up to that offset has been seen;
    /// `-1.k3f9q` is before the first"; "a plain offset is too".
    #[test]
    fn cursors_in_and_out() {
        for text in ["64000.k3f9q", "-1.k3f9q", "0.a", "64000", "-1", "9223372036854775807.0"] {
            assert_eq!(Cursor::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Cursor::parse("-1.k3f9q").unwrap().next(), Offset::ZERO);
        assert_eq!(Cursor::parse("41.k3f9q").unwrap().next(), Offset::new(42));
        assert_eq!(Cursor::before(Offset::ZERO, tag("a")).to_string(), "-1.a");
        assert_eq!(Cursor::before(Offset::new(42), tag("a")).to_string(), "41.a");
        assert_eq!(Cursor::after(Offset::new(42), tag("a")).to_string(), "42.a");
    }

    #[test]
    fn what_is_not_a_cursor_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".a",
            "1.A",
            "1.a.b",
            "1.12345678901234567",
            "-2.a",
            "--1",
            "-0",
            "+1",
            "01.a",
            " 1",
            "1 ",
            "1\n",
            "0x1",
            "1e3",
            "9223372036854775808",
            "18446744073709551616",
            "latest",
            "١",
        ] {
            assert_eq!(Cursor::parse(text), Err(NotACursor), "{text:?}");
        }
    }

    /// API §4: "`from` | `earliest`, `latest`, an offset (the first wanted), an RFC 3339 time, or
    /// `-N` (the last N matching, N at most 10,000)"; "a space in a time counts as `+`".
    #[test]
    fn from_has_five_forms() {
        let time_ms = timestamp::parse_ms("2026-11-21T09:08:08+02:00").unwrap();
        for (text, wanted) in [
            ("earliest", StartFrom::Earliest),
            ("latest", StartFrom::Latest),
            ("0", StartFrom::Offset(Offset::ZERO)),
            ("9223372036854775807", StartFrom::Offset(Offset::MAX)),
            ("-1", StartFrom::Last(1)),
            ("-10000", StartFrom::Last(10_000)),
            ("2026-11-21T09:08:08+02:00", StartFrom::Time(time_ms)),
            ("2026-11-21T09:08:08 02:00", StartFrom::Time(time_ms)),
        ] {
            assert_eq!(StartFrom::parse(text), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "-",
            "-0",
            "-10001",
            "-99999999999999999999",
            "-1x",
            "--1",
            "+1",
            "01",
            "1.5",
            "9223372036854775808",
            "18446744073709551616",
            "18446744073709551617",
            "Earliest",
            "now",
            "2026-11-21",
            "5.k3f9q",
        ] {
            assert!(StartFrom::parse(text).is_err(), "{text}");
        }
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
        #[test]
        fn parsing_never_panics(text in "\\PC{0,30}") {
            let _ = (Cursor::parse(&text), StartFrom::parse(&text), parse_time_ms(&text));
        }

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
