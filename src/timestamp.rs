//! Times as text: RFC 3339, UTC, milliseconds (`2026-11-21T09:08:08.123Z`), and back.
//!
//! In memory a time is milliseconds since 1970-01-01T00:00:00Z, never negative. Years end at 9999:
//! RFC 3339 has no text for later ones, so formatting clamps there.

/// The largest time that has a text: `9999-12-31T23:59:59.999Z`.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// Bytes of every formatted time.
pub const TEXT_BYTES: usize = 24;

const MS_PER_DAY: u64 = 86_400_000;

/// Formats times; keeps the text of the last second, since events come in bursts.
#[derive(Debug, Clone)]
pub struct TimeText {
    second: u64,
    text: [u8; TEXT_BYTES],
}

impl Default for TimeText {
    fn default() -> Self {
        TimeText { second: 0, text: *b"1970-01-01T00:00:00.000Z" }
    }
}

impl TimeText {
    /// The text of `time_ms`, good until the next call.
    pub fn format(&mut self, time_ms: u64) -> &str {
        let time_ms = time_ms.min(TIME_MS_MAX);
        let (second, ms) = (time_ms / 1000, time_ms % 1000);
        if second != self.second {
            self.write_second(second);
        }
        write_digits(&mut self.text[20..23], ms);
        std::str::from_utf8(&self.text).expect("digits and punctuation are ASCII")
    }

    fn write_second(&mut self, second: u64) {
        let (year, month, day) = civil_from_days(second / 86_400);
        let second_of_day = second % 86_400;
        write_digits(&mut self.text[0..4], year);
        write_digits(&mut self.text[5..7], month);
        write_digits(&mut self.text[8..10], day);
        write_digits(&mut self.text[11..13], second_of_day / 3600);
        write_digits(&mut self.text[14..16], second_of_day / 60 % 60);
        write_digits(&mut self.text[17..19], second_of_day % 60);
        self.second = second;
    }
}

/// Writes the last digits of `number`, as many as `text` has room for.
fn write_digits(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit is below 10");
        number /= 10;
    }
}

/// The day `days` after 1970-01-01 as (year, month, day), in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is a year's last
/// (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to the given day; negative before it.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A moment as RFC 3339 can name it, for comparison with the times of events, which are whole
/// milliseconds: of what is finer only is kept that it lies between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    /// Milliseconds since 1970, rounded down; negative before it.
    pub ms: i64,
    /// Whether it is later than that, by less than a millisecond.
    pub is_later: bool,
}

impl Instant {
    /// The time of an event.
    pub fn of_ms(time_ms: u64) -> Instant {
        Instant { ms: i64::try_from(time_ms).unwrap_or(i64::MAX), is_later: false }
    }

    /// Parses an RFC 3339 time strictly (date, `T`, time, offset; any fraction). A leap second (`:60`)
    /// is the first moment of the next minute. `None` if it is not such a time.
    pub fn parse(text: &str) -> Option<Instant> {
        let text = text.as_bytes();
        let separator =
            |index: usize, wanted: &[u8]| text.get(index).filter(|b| wanted.contains(b));
        let (year, month, day) = (digits(text, 0, 4)?, digits(text, 5, 2)?, digits(text, 8, 2)?);
        let (hour, minute) = (digits(text, 11, 2)?, digits(text, 14, 2)?);
        let second = digits(text, 17, 2)?;
        separator(4, b"-")?;
        separator(7, b"-")?;
        separator(10, b"Tt")?;
        separator(13, b":")?;
        separator(16, b":")?;
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (fraction_ms, is_later, zone_at) = fraction_ms(text)?;
        let offset_minutes = zone_minutes(text.get(zone_at..)?)?;
        let days = days_from_civil(year, month, day);
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_minutes * 60;
        Some(Instant { ms: seconds * 1000 + fraction_ms, is_later })
    }

    /// The first whole millisecond since 1970 that is not before it.
    fn ms_rounded_up(self) -> u64 {
        u64::try_from(self.ms + i64::from(self.is_later)).unwrap_or(0)
    }
}

/// Parses an RFC 3339 time as [`Instant::parse`] does into milliseconds.
///
/// A part of a millisecond rounds up: events have whole milliseconds, so "at or after" and "before"
/// then mean the same as they did with the exact time. What lies before 1970 is 0.
pub fn parse_ms(text: &str) -> Option<u64> {
    Instant::parse(text).map(Instant::ms_rounded_up)
}

/// `count` ASCII digits at `start`.
fn digits(text: &[u8], start: usize, count: usize) -> Option<i64> {
    text.get(start..start + count)?.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// The fraction of a second behind the seconds in milliseconds, rounded down, whether there was something
/// to round, and where it ends.
fn fraction_ms(text: &[u8]) -> Option<(i64, bool, usize)> {
    const START: usize = 19;
    if text.get(START) != Some(&b'.') {
        return Some((0, false, START));
    }
    let fraction = &text[START + 1..];
    let count = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let digit = |index: usize| if index < count { i64::from(fraction[index] - b'0') } else { 0 };
    let rest = fraction[..count].iter().skip(3).any(|byte| *byte != b'0');
    Some((digit(0) * 100 + digit(1) * 10 + digit(2), rest, START + 1 + count))
}

/// `Z` or `+hh:mm` or `-hh:mm`, to the end of the text, in minutes east of UTC.
fn zone_minutes(zone: &[u8]) -> Option<i64> {
    let sign = match zone {
        b"Z" | b"z" => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let (hours, minutes) = (digits(zone, 1, 2)?, digits(zone, 4, 2)?);
    let well_formed = zone.len() == 6 && zone[3] == b':' && hours <= 23 && minutes <= 59;
    well_formed.then_some(sign * (hours * 60 + minutes))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const _: () = assert!(TIME_MS_MAX % MS_PER_DAY == MS_PER_DAY - 1);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Contract: "times are RFC 3339 UTC with milliseconds".
    #[test]
    fn known_times() {
        let mut text = TimeText::default();
        for (time_ms, wanted) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_763_700_000_007, "2025-11-21T04:40:00.007Z"),
            (1_763_700_000_999, "2025-11-21T04:40:00.999Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (TIME_MS_MAX, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(text.format(time_ms), wanted);
            assert_eq!(parse_ms(wanted), Some(time_ms.min(TIME_MS_MAX)));
        }
    }

    #[test]
    fn offsets_fractions_and_clamping() {
        assert_eq!(parse_ms("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_ms("1970-01-01T00:00:00-00:30"), Some(1_800_000));
        assert_eq!(parse_ms("1970-01-01t00:00:00.5z"), Some(500));
        assert_eq!(parse_ms("1970-01-01T00:00:00.0010Z"), Some(1));
        assert_eq!(parse_ms("1970-01-01T00:00:00.0010001Z"), Some(2));
        assert_eq!(parse_ms("0000-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_ms("2016-12-31T23:59:60Z"), parse_ms("2017-01-01T00:00:00Z"));
    }

    /// API §6: "`time` compares as an instant".
    #[test]
    fn instants_compare_exactly() {
        let instant = |text: &str| Instant::parse(text).unwrap();
        let event = Instant::of_ms(1);
        assert_eq!(instant("1970-01-01T01:00:00.001+01:00"), event);
        assert_eq!(instant("1970-01-01T00:00:00.00100Z"), event);
        assert!(instant("1970-01-01T00:00:00.0009Z") < event);
        assert!(instant("1970-01-01T00:00:00.0011Z") > event);
        assert!(instant("1970-01-01T00:00:00.0011Z") < Instant::of_ms(2));
        assert!(instant("1969-12-31T23:59:59.9999Z") < Instant::of_ms(0));
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused() {
        for text in [
            "",
            "2026",
            "2026-11-21",
            "2026-11-21T09:08:08",
            "2026-11-21 09:08:08Z",
            "2026-11-21+09:08:08Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T00:60:00Z",
            "2026-11-21T00:00:61Z",
            "2026-11-21T00:00:00.Z",
            "2026-11-21T00:00:00+0200",
            "2026-11-21T00:00:00+24:00",
            "2026-11-21T00:00:00Zx",
            "2026-11-21T00:00:00+02:00 ",
            "+026-11-21T00:00:00Z",
        ] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }

    proptest! {
        /// Agrees with an independent calendar, and reads back what it wrote.
        #[test]
        fn round_trip(times in prop::collection::vec(
            prop_oneof![9 => 0..=TIME_MS_MAX, 1 => TIME_MS_MAX - MS_PER_DAY..=TIME_MS_MAX],
            1..20,
        )) {
            let mut text = TimeText::default();
            for time_ms in times {
                let ours = text.format(time_ms).to_owned();
                let since = jiff::SignedDuration::from_millis(i64::try_from(time_ms).unwrap());
                // Of its `Timestamp` the last day of the year 9999 is none, since elsewhere it may be a day later.
                let theirs = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0) + since;
                prop_assert_eq!(&ours, &format!("{theirs:.3}Z"));
                prop_assert_eq!(parse_ms(&ours), Some(time_ms));
            }
        }

        #[test]
        fn parsing_never_panics(text in "[-0-9TZ:.+ ]{0,40}") {
            let _ = parse_ms(&text);
        }
    }
}
