//! What is wrong with an event object, as problems that name the place.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    json::{
        check::{self, JsonError},
        members,
    },
    problem::{Problem, ProblemKind},
};

/// The characters of a member that must be a string.
pub(super) fn text_of<'a>(name: &str, value: &'a RawValue) -> Result<Cow<'a, str>, Problem> {
    members::string(value)
        .ok_or_else(|| invalid(&format!("member \"{name}\" is not a string of characters")))
}

pub(super) fn member(name: &str) -> String {
    format!("member \"{name}\"")
}

pub(super) fn invalid(detail: &str) -> Problem {
    Problem::new(ProblemKind::InvalidEvent, detail.to_owned())
}

pub(super) fn not_json(what: &str, error: &JsonError) -> Problem {
    Problem::new(ProblemKind::InvalidJson, format!("{what} {error}"))
}

/// Tells JSON that is not `wanted` from what is not JSON.
pub(super) fn not_an_object(what: &str, wanted: &str, text: &str, error: &JsonError) -> Problem {
    match check::check(text.as_bytes()) {
        Ok(_) => invalid(&format!("{what} is not {wanted}")),
        Err(_) => not_json(what, error),
    }
}

/// The same problem with the place where it was found in front.
pub(super) fn within(place: &str, problem: &Problem) -> Problem {
    Problem::new(problem.kind(), format!("{place}: {}", problem.detail()))
}
