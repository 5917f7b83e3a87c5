//! A place in a log as a person writes it: an offset, or a time.

use std::{fmt, str::FromStr};

use strandline_storage::offset::Offset;

use crate::timestamp::{TimeText, parse_ms};

/// An offset, or a time in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// So many events are before it.
    Offset(Offset),
    /// All events of an earlier time are before it.
    TimeMs(u64),
}

impl Place {
    /// Whether this lies before another; of an offset and a time nobody knows.
    pub fn is_before(self, other: Place) -> bool {
        match (self, other) {
            (Place::Offset(this), Place::Offset(other)) => this < other,
            (Place::TimeMs(this), Place::TimeMs(other)) => this < other,
            _ => false,
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            let offset = text.parse().map(Offset::new).ok().filter(|offset| *offset <= Offset::MAX);
            return offset.map(Place::Offset).ok_or_else(|| "is too large an offset".to_owned());
        }
        parse_ms(text).map(Place::TimeMs).ok_or_else(|| {
            "is neither an offset nor a time such as 2026-11-21T09:08:08Z".to_owned()
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Offset(offset) => offset.fmt(formatter),
            Place::TimeMs(time_ms) => formatter.write_str(TimeText::default().format(*time_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_times() {
        assert_eq!("64000".parse(), Ok(Place::Offset(Offset::new(64_000))));
        let time: Place = "2025-11-21T04:40:00.007Z".parse().unwrap();
        assert_eq!(time, Place::TimeMs(1_763_700_000_007));
        assert_eq!(time.to_string(), "2025-11-21T04:40:00.007Z");
        for text in ["", "x", "-1", "1.5", "2025-11-21", "99999999999999999999"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
