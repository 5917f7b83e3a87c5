//! A header field's value: its text, once, and how it is refused.

use std::borrow::Cow;

use strandline_storage::event::NameError;

use crate::{
    http::query::form::decode_percent,
    input::quoted,
    problem::{Problem, ProblemKind},
};

/// Keeps the value of a field that may stand once.
pub fn set<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(invalid(name, "stands more than once")),
    }
}

/// The problem of a field.
pub fn invalid(name: &str, what: &str) -> Problem {
    Problem::new(ProblemKind::InvalidHeader, format!("{} {what}", shown(name)))
}

/// A field as a message names it: its name, which is a token, or how that begins.
pub fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 64;
    match name.char_indices().nth(CHARS_MAX) {
        None => format!("the header field {name}"),
        Some((end, _)) => format!("the header field {}…", &name[..end]),
    }
}

/// The characters of a field's value, which is percent-encoded UTF-8.
pub fn decoded<'a>(name: &str, value: &'a [u8]) -> Result<Cow<'a, str>, Problem> {
    let decoded = decode_percent(value).and_then(|bytes| match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    });
    decoded.ok_or_else(|| invalid(name, "is not percent-encoded UTF-8"))
}

/// The problem of a type or key that is none; `place` is the field or member that it stands in.
pub fn name_problem(place: &str, text: &str, error: &NameError) -> Problem {
    Problem::new(error.into(), format!("{place}: {} {error}", quoted(text)))
}
