//! What a filter means, the slow and obvious way, for tests and the fuzz target: the data becomes a
//! tree, numbers become strings of digits, and the condition is followed as it was written.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de::Visitor};
use serde_json::value::RawValue;
use strandline_storage::event::{DataForm, EventView};

use super::{
    condition::{Condition, Literal, Op, Relation, Test},
    field::Field,
};
use crate::timestamp::Instant;

/// Whether an event meets a condition.
pub fn holds(condition: &Condition, event: &EventView<'_>) -> bool {
    match condition {
        Condition::Test(test) => tested(test, event),
        Condition::Not(inner) => !holds(inner, event),
        Condition::All(inner) => inner.iter().all(|inner| holds(inner, event)),
        Condition::Any(inner) => inner.iter().any(|inner| holds(inner, event)),
    }
}

fn tested(test: &Test, event: &EventView<'_>) -> bool {
    let Some(value) = value(&test.field, event) else { return false };
    let equals = |literal: &Literal| order(&value, literal) == Some(Ordering::Equal);
    let text = match &value {
        Value::Text(text) => Some(&**text),
        _ => None,
    };
    match &test.op {
        Op::Exists => true,
        Op::Is(relation, literal) => match (order(&value, literal), relation) {
            (None, _) => false,
            (Some(order), Relation::Equal) => order == Ordering::Equal,
            (Some(order), Relation::Unequal) => order != Ordering::Equal,
            (Some(order), Relation::Greater) => order == Ordering::Greater,
            (Some(order), Relation::GreaterOrEqual) => order != Ordering::Less,
            (Some(order), Relation::Less) => order == Ordering::Less,
            (Some(order), Relation::LessOrEqual) => order != Ordering::Greater,
        },
        Op::In(literals) => literals.iter().any(equals),
        Op::Prefix(part) => text.is_some_and(|text| text.starts_with(part.as_bytes())),
        Op::Suffix(part) => text.is_some_and(|text| text.ends_with(part.as_bytes())),
        Op::Contains(literal) => match (&value, literal) {
            (Value::Array(elements), literal) => elements
                .iter()
                .any(|element| order(&read(element), literal) == Some(Ordering::Equal)),
            (Value::Text(text), Literal::Text(part)) => {
                part.is_empty() || text.windows(part.len()).any(|piece| piece == part.as_bytes())
            }
            _ => false,
        },
    }
}

enum Value<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Vec<u8>),
    Time(Instant),
    Array(Vec<&'a RawValue>),
    Object(BTreeMap<Characters, &'a RawValue>),
}

fn value<'a>(field: &Field, event: &EventView<'a>) -> Option<Value<'a>> {
    let text = |text: &str| Value::Text(text.as_bytes().to_vec());
    match field {
        Field::Topic => Some(text(event.topic())),
        Field::Type => Some(text(event.event_type())),
        Field::Key => event.key().map(text),
        Field::Id => event.id().map(text),
        Field::Time => {
            let ms = i64::try_from(event.time_ms()).expect("48 bits");
            Some(Value::Time(Instant { ms, is_later: false }))
        }
        Field::Header(wanted) => {
            event.headers().find(|(name, _)| **name == **wanted).map(|(_, value)| text(value))
        }
        Field::Data(_) if event.form() != DataForm::Json => None,
        Field::Data(path) => {
            let mut value = read(serde_json::from_slice(event.data()).expect("valid JSON"));
            for name in path {
                let next = match &value {
                    Value::Object(members) => {
                        *members.get(&Characters(name.as_bytes().to_vec()))?
                    }
                    Value::Array(elements) => {
                        let index: usize = name.parse().ok()?;
                        if index.to_string() != **name {
                            return None;
                        }
                        *elements.get(index)?
                    }
                    _ => return None,
                };
                value = read(next);
            }
            Some(value)
        }
    }
}

fn read(value: &RawValue) -> Value<'_> {
    let text = value.get();
    let parsed = "what begins so is whole";
    match text.as_bytes()[0] {
        b'n' => Value::Null,
        b't' => Value::Bool(true),
        b'f' => Value::Bool(false),
        b'"' => Value::Text(serde_json::from_str::<Characters>(text).expect(parsed).0),
        b'[' => Value::Array(serde_json::from_str(text).expect(parsed)),
        b'{' => Value::Object(serde_json::from_str(text).expect(parsed)),
        _ => Value::Number(text),
    }
}

fn order(value: &Value<'_>, literal: &Literal) -> Option<Ordering> {
    match (value, literal) {
        (Value::Null, Literal::Null) => Some(Ordering::Equal),
        (Value::Bool(value), Literal::Bool(literal)) => Some(value.cmp(literal)),
        (Value::Number(value), Literal::Number(literal)) => {
            Some(number_order(value, &literal.to_string()))
        }
        (Value::Text(value), Literal::Text(literal)) => Some((**value).cmp(literal.as_bytes())),
        (Value::Time(value), Literal::Time(literal)) => {
            Some((value.ms, value.is_later).cmp(&(literal.ms, literal.is_later)))
        }
        _ => None,
    }
}

fn number_order(left: &str, right: &str) -> Ordering {
    let (left, right) = (number(left), number(right));
    let (is_left_negative, is_right_negative) = (left.0, right.0);
    match (is_left_negative, is_right_negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => (left.1, left.2).cmp(&(right.1, right.2)),
        (true, true) => (right.1, right.2).cmp(&(left.1, left.2)),
    }
}

/// Whether it is negative, the power of ten behind the first digit that is not 0, and the digits.
fn number(text: &str) -> (bool, i128, String) {
    const FAR: i128 = 10i128.pow(30);
    let lower = text.to_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_negative = whole.starts_with('-');
    let whole = whole.trim_start_matches('-');
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return (false, -10 * FAR, String::new());
    }
    let far = if exponent.starts_with('-') { -FAR } else { FAR };
    let exponent = exponent.parse().unwrap_or(far).clamp(-FAR, FAR);
    let zeros = digits.len() - significant.len();
    let places =
        i128::try_from(whole.len()).expect("short") - i128::try_from(zeros).expect("short");
    (is_negative, exponent + places, significant.trim_end_matches('0').to_owned())
}

/// The characters of a string as serde_json has them; half a surrogate pair as three bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Characters(Vec<u8>);

impl<'de> Deserialize<'de> for Characters {
    fn deserialize<D: Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Characters;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Characters, E> {
                Ok(Characters(bytes.to_vec()))
            }
        }

        parser.deserialize_bytes(Bytes)
    }
}

/// The JSON spelling of a condition.
pub fn to_json(condition: &Condition) -> String {
    let list = |name: &str, inner: &[Condition]| {
        let inner: Vec<String> = inner.iter().map(to_json).collect();
        format!("{{\"{name}\":[{}]}}", inner.join(","))
    };
    match condition {
        Condition::Not(inner) => format!("{{\"not\":{}}}", to_json(inner)),
        Condition::All(inner) => list("all", inner),
        Condition::Any(inner) => list("any", inner),
        Condition::Test(Test { field, op }) => {
            let (op, value) = spelt(op, &["eq", "ne", "gt", "ge", "lt", "le"]);
            let value = value.map(|value| format!(",\"value\":{value}")).unwrap_or_default();
            format!("{{\"field\":{field},\"op\":\"{op}\"{value}}}")
        }
    }
}

/// The spelling of a condition for `where`; its groups must have two members or more.
pub fn to_text(condition: &Condition) -> String {
    let list = |word: &str, inner: &[Condition]| {
        let inner: Vec<String> = inner.iter().map(to_text).collect();
        format!("({})", inner.join(word))
    };
    match condition {
        Condition::Not(inner) => format!("not {}", to_text(inner)),
        Condition::All(inner) => list(" and ", inner),
        Condition::Any(inner) => list(" or ", inner),
        Condition::Test(Test { field, op }) => {
            let (op, value) = spelt(op, &["==", "!=", ">", ">=", "<", "<="]);
            format!("{field} {op} {}", value.unwrap_or_default())
        }
    }
}

fn spelt(op: &Op, relations: &[&'static str; 6]) -> (&'static str, Option<String>) {
    let text = |text: &str| Some(serde_json::to_string(text).expect("a string"));
    match op {
        Op::Exists => ("exists", None),
        Op::Is(relation, literal) => (relations[*relation as usize], Some(literal_text(literal))),
        Op::In(literals) => {
            let literals: Vec<String> = literals.iter().map(literal_text).collect();
            ("in", Some(format!("[{}]", literals.join(","))))
        }
        Op::Prefix(part) => ("prefix", text(part)),
        Op::Suffix(part) => ("suffix", text(part)),
        Op::Contains(literal) => ("contains", Some(literal_text(literal))),
    }
}

fn literal_text(literal: &Literal) -> String {
    match literal {
        Literal::Null => "null".to_owned(),
        Literal::Bool(value) => value.to_string(),
        Literal::Number(number) => number.to_string(),
        Literal::Text(text) => serde_json::to_string(text).expect("a string"),
        Literal::Time(instant) => {
            // Before the year 0 there is text only by way of an offset.
            let is_early = instant.ms < -62_167_219_200_000;
            let (shift_ms, zone) = if is_early { (86_340_000, "+23:59") } else { (0, "Z") };
            let time = jiff::Timestamp::from_millisecond(instant.ms + shift_ms).expect("in range");
            let text = format!("{time:.3}");
            let finer = if instant.is_later { "1" } else { "" };
            format!("\"{}{finer}{zone}\"", text.trim_end_matches('Z'))
        }
    }
}
