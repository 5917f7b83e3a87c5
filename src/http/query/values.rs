//! The values of parameters: strict, and each error names the parameter.

use crate::{
    input::quoted,
    problem::{Problem, ProblemKind},
    stream::cursor::{Cursor, GivenCursor, StartFrom, parse_offset, parse_time_ms},
};

use super::form::Parameter;

/// The most events of one history page.
pub const HISTORY_EVENTS_MAX: u32 = 10_000;

/// The value of a parameter that takes one.
pub(super) struct Once<T>(pub Option<T>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once(None)
    }
}

impl<T> Once<T> {
    pub fn set(&mut self, parameter: &Parameter<'_>, value: T) -> Result<(), Problem> {
        match self.0.replace(value) {
            None => Ok(()),
            Some(_) => {
                let detail = format!("parameter {} is given twice", quoted(&parameter.name));
                Err(Problem::new(ProblemKind::InvalidParameter, detail))
            }
        }
    }

    pub fn or_default(self) -> T
    where
        T: Default,
    {
        self.0.unwrap_or_default()
    }
}

pub(super) fn unknown(parameter: &Parameter<'_>) -> Problem {
    let detail = format!("unknown parameter {}", quoted(&parameter.name));
    Problem::new(ProblemKind::UnknownParameter, detail)
}

pub(super) fn invalid(parameter: &Parameter<'_>, what: &str) -> Problem {
    let value = quoted(&String::from_utf8_lossy(&parameter.value));
    let detail = format!("parameter {}: {value} {what}", quoted(&parameter.name));
    Problem::new(ProblemKind::InvalidParameter, detail)
}

pub(super) fn text<'a>(parameter: &'a Parameter<'_>) -> Result<&'a str, Problem> {
    std::str::from_utf8(&parameter.value).map_err(|_| invalid(parameter, "is not UTF-8"))
}

/// A number in plain decimal digits.
pub(super) fn whole_number(
    parameter: &Parameter<'_>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, Problem> {
    let wanted = || {
        let what = format!("is not a number from {} to {}", range.start(), range.end());
        invalid(parameter, &what)
    };
    let number = parse_offset(text(parameter)?).ok_or_else(wanted)?.get();
    if range.contains(&number) { Ok(number) } else { Err(wanted()) }
}

pub(super) fn event_limit(parameter: &Parameter<'_>) -> Result<u32, Problem> {
    let limit = whole_number(parameter, 1..=u64::from(HISTORY_EVENTS_MAX))?;
    Ok(u32::try_from(limit).expect("at most 10,000"))
}

pub(super) fn truth(parameter: &Parameter<'_>) -> Result<bool, Problem> {
    match text(parameter)? {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(parameter, "is neither true nor false")),
    }
}

pub(super) fn time_ms(parameter: &Parameter<'_>) -> Result<u64, Problem> {
    parse_time_ms(text(parameter)?)
        .ok_or_else(|| invalid(parameter, "is not an RFC 3339 time, such as 2026-11-21T09:08:08Z"))
}

pub(super) fn start_from(parameter: &Parameter<'_>) -> Result<StartFrom, Problem> {
    StartFrom::parse(text(parameter)?).map_err(|what| invalid(parameter, &what))
}

/// A cursor parameter; empty is absent.
pub(super) fn cursor(parameter: &Parameter<'_>) -> Result<GivenCursor, Problem> {
    let text = text(parameter)?;
    if text.is_empty() {
        return Ok(GivenCursor::None);
    }
    match Cursor::parse(text) {
        Ok(cursor) => Ok(GivenCursor::Cursor(cursor)),
        Err(_) => {
            let name = quoted(&parameter.name);
            let detail = format!("parameter {name}: {} is not a cursor", quoted(text));
            Err(Problem::new(ProblemKind::InvalidCursor, detail))
        }
    }
}
