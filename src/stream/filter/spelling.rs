//! What both spellings of a filter share: operators, literals, limits, and errors that name their place.

use serde_json::value::RawValue;

use super::{
    condition::Literal,
    condition::{COMPARISONS_MAX, Op, Relation, TEXT_BYTES_MAX, Test},
    decimal::Decimal,
    field::Field,
};
use crate::{
    input::quoted,
    json::members,
    problem::{Problem, ProblemKind},
    timestamp::Instant,
};

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{what}")]
pub struct FilterError {
    /// `column 7: ` or `all[1].op: `; empty for the whole of it.
    place: String,
    /// What is wrong there, and what to do.
    what: String,
}

impl FilterError {
    pub(super) fn new(place: impl std::fmt::Display, what: impl Into<String>) -> FilterError {
        let mut place = place.to_string();
        if !place.is_empty() {
            place.push_str(": ");
        }
        FilterError { place, what: what.into() }
    }

    /// The problem of a request; `source` is what the filter came in, such as `parameter "where"`.
    pub fn problem(&self, source: &str) -> Problem {
        Problem::new(ProblemKind::InvalidFilter, format!("{source}: {self}"))
    }
}

/// An operator by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpName {
    Is(Relation),
    In,
    Prefix,
    Suffix,
    Contains,
    Exists,
}

impl OpName {
    /// The operator that the JSON spelling calls so.
    pub fn parse(name: &str) -> Option<OpName> {
        Some(match name {
            "eq" => OpName::Is(Relation::Equal),
            "ne" => OpName::Is(Relation::Unequal),
            "gt" => OpName::Is(Relation::Greater),
            "ge" => OpName::Is(Relation::GreaterOrEqual),
            "lt" => OpName::Is(Relation::Less),
            "le" => OpName::Is(Relation::LessOrEqual),
            "in" => OpName::In,
            "prefix" => OpName::Prefix,
            "suffix" => OpName::Suffix,
            "contains" => OpName::Contains,
            "exists" => OpName::Exists,
            _ => return None,
        })
    }
}

/// The comparison `field op value`, `value` being any JSON and `op` not `exists`.
pub(super) fn comparison(field: Field, op: OpName, value: &RawValue) -> Result<Test, String> {
    let op = match op {
        OpName::Exists => unreachable!("it has no value"),
        OpName::In => {
            let elements = members::elements(value)
                .ok_or_else(|| format!("{} is not a list such as [1, 2]", shown(value)))?;
            let literals = elements
                .iter()
                .map(|element| literal(&field, element))
                .collect::<Result<_, _>>()?;
            return Ok(Test::is_in(field, literals));
        }
        OpName::Is(relation) => {
            let literal = literal(&field, value)?;
            let has_order = !matches!(literal, Literal::Null | Literal::Bool(_));
            if !has_order && !matches!(relation, Relation::Equal | Relation::Unequal) {
                let what = format!("{} has no order: only numbers and strings have", shown(value));
                return Err(what);
            }
            Op::Is(relation, literal)
        }
        OpName::Prefix | OpName::Suffix | OpName::Contains if field == Field::Time => {
            return Err("a time has no parts: compare it by == != > >= < <= or in".to_owned());
        }
        OpName::Prefix => Op::Prefix(text(value)?),
        OpName::Suffix => Op::Suffix(text(value)?),
        OpName::Contains => Op::Contains(literal(&field, value)?),
    };
    Ok(Test { field, op })
}

fn text(value: &RawValue) -> Result<Box<str>, String> {
    match members::string(value) {
        Some(text) => Ok(text.into()),
        None => Err(format!("{} is not a string", shown(value))),
    }
}

/// The literal that `field` is compared with.
fn literal(field: &Field, value: &RawValue) -> Result<Literal, String> {
    let literal = match value.get().as_bytes()[0] {
        b'n' => Literal::Null,
        b't' => Literal::Bool(true),
        b'f' => Literal::Bool(false),
        b'"' => Literal::Text(text(value)?),
        b'[' | b'{' => {
            let what = "is neither a number nor a string, true, false or null";
            return Err(format!("{} {what}", shown(value)));
        }
        _ => Literal::Number(
            Decimal::parse(value.get()).map_err(|what| format!("{} {what}", shown(value)))?,
        ),
    };
    if *field != Field::Time {
        return Ok(literal);
    }
    let time = match &literal {
        // A `+` that was not encoded in a URL has become a space.
        Literal::Text(text) => Instant::parse(&text.replace(' ', "+")),
        _ => None,
    };
    time.map(Literal::Time).ok_or_else(|| {
        format!("{} is not an RFC 3339 time, such as \"2026-11-21T09:08:08Z\"", shown(value))
    })
}

fn shown(value: &RawValue) -> String {
    match value.get().as_bytes()[0] {
        b'"' => quoted(&value.get()[1..value.get().len() - 1]),
        _ => {
            let text = quoted(value.get());
            text[1..text.len() - 1].to_owned()
        }
    }
}

/// Counts comparisons up to their limit.
#[derive(Default)]
pub(super) struct Comparisons(usize);

impl Comparisons {
    pub fn count(&mut self) -> Result<(), String> {
        self.0 += 1;
        match self.0 > COMPARISONS_MAX {
            true => Err(too_many(self.0)),
            false => Ok(()),
        }
    }
}

pub(super) fn too_many(comparisons: usize) -> String {
    format!("is comparison {comparisons}: a filter has at most {COMPARISONS_MAX}")
}

pub(super) fn check_length(text: &str) -> Result<(), FilterError> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let what = format!("has {} bytes, more than the {TEXT_BYTES_MAX} of a filter", text.len());
    Err(FilterError::new("", what))
}
