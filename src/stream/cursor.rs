//! Where a reader stands in a log, or wants to begin, and the text forms of both.
//!
//! ```text
//! cursor      = offset [ "." tag ]        64000.k3f9q: everything up to offset 64000 has been seen
//! offset      = "-1" / "0" / digits       -1 is before the first; at most 2^63 - 1; no leading zeros
//! tag         = 1*16( a-z / 0-9 )         names one history of the log; without it nobody can notice
//!                                         that the cursor is another history's
//! from        = "earliest" / "latest" / offset (the first wanted) / "-" N (the last N) / RFC 3339 time
//! ```

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag(text: &str) -> Tag {
        Tag::parse(text).unwrap()
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

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,30}") {
            let _ = (Cursor::parse(&text), StartFrom::parse(&text), parse_time_ms(&text));
        }
    }
}
