//! The JSON spelling of a filter.
//!
//! ```text
//! {"field":"data.price","op":"gt","value":100}      {"field":["data","a.b"],"op":"exists"}
//! {"all":[filter, ..]}   {"any":[filter, ..]}   {"not":filter}   {}
//! ```
//! An error names its place by members and indexes: `all[1].value`.

use serde_json::value::RawValue;

use super::{
    condition::{Condition, DEPTH_MAX, Op, Test},
    field::Field,
    spelling::{Comparisons, FilterError, OpName, check_length, comparison},
};
use crate::{
    input::quoted,
    json::{
        check,
        members::{self, Members},
    },
};

static NAMES: [&str; 6] = ["field", "op", "value", "all", "any", "not"];

/// Parses `text`.
pub fn parse(text: &str) -> Result<Condition, FilterError> {
    check_length(text)?;
    check::check(text.as_bytes()).map_err(|error| FilterError::new("", error.to_string()))?;
    Parser { comparisons: Comparisons::default() }.condition(text, "", 0)
}

struct Parser {
    comparisons: Comparisons,
}

impl Parser {
    /// The condition `text`, which is JSON, at `place`, in `depth` groups.
    fn condition(
        &mut self,
        text: &str,
        place: &str,
        depth: usize,
    ) -> Result<Condition, FilterError> {
        let wrong = |what: &str| FilterError::new(place, what);
        let members = Members::parse(text, &NAMES).map_err(|_| {
            wrong("is not an object such as {\"field\":\"data.a\",\"op\":\"eq\",\"value\":1}")
        })?;
        if let Some(fault) = members.fault() {
            return Err(wrong(fault));
        }
        let mut groups =
            ["all", "any", "not"].into_iter().filter(|name| members.get(name).is_some());
        let Some(group) = groups.next() else {
            if members.first_outside(&[]).is_none() {
                return Ok(Condition::always());
            }
            return self.test(&members, place).map(Condition::Test);
        };
        if let Some(other) = members.first_outside(&[group]) {
            return Err(wrong(&format!(
                "has both {} and {}: put them into one \"all\" or \"any\"",
                quoted(group),
                quoted(other)
            )));
        }
        let inner = members.get(group).expect("the group was found");
        let place = within(place, group);
        if depth == DEPTH_MAX {
            let what = format!("is more than {DEPTH_MAX} groups deep");
            return Err(FilterError::new(place, what));
        }
        if group == "not" {
            let condition = self.condition(inner.get(), &place, depth + 1)?;
            return Ok(Condition::Not(Box::new(condition)));
        }
        let elements = members::elements(inner)
            .ok_or_else(|| FilterError::new(&place, "is not an array of filters"))?;
        let conditions = elements.iter().enumerate().map(|(index, element)| {
            self.condition(element.get(), &format!("{place}[{index}]"), depth + 1)
        });
        let conditions = conditions.collect::<Result<_, _>>()?;
        Ok(if group == "all" { Condition::All(conditions) } else { Condition::Any(conditions) })
    }

    fn test(&mut self, members: &Members<'_, 6>, place: &str) -> Result<Test, FilterError> {
        let at = |name: &str, what: String| FilterError::new(within(place, name), what);
        let member = |name: &str| {
            let missing = || FilterError::new(place, format!("member \"{name}\" is missing"));
            members.get(name).ok_or_else(missing)
        };
        self.comparisons.count().map_err(|what| FilterError::new(place, what))?;
        let field = field(member("field")?).map_err(|what| at("field", what))?;
        let op = member("op")?;
        let op = members::string(op).and_then(|name| OpName::parse(&name)).ok_or_else(|| {
            at("op", "is not one of eq ne gt ge lt le in prefix suffix contains exists".to_owned())
        })?;
        if op == OpName::Exists {
            return match members.get("value") {
                None => Ok(Test { field, op: Op::Exists }),
                Some(_) => Err(at(
                    "value",
                    "does not belong to exists; its opposite is \"not\"".to_owned(),
                )),
            };
        }
        comparison(field, op, member("value")?).map_err(|what| at("value", what))
    }
}

fn field(value: &RawValue) -> Result<Field, String> {
    if let Some(text) = members::string(value) {
        return Field::parse(&text);
    }
    let names: Vec<String> = serde_json::from_str(value.get())
        .map_err(|_| "is neither a string nor an array of strings".to_owned())?;
    Field::of_names(&names).map_err(|what| format!("field {} {what}", quoted(value.get())))
}

fn within(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    fn nested(depth: usize) -> String {
        format!("{}{{}}{}", "{\"not\":".repeat(depth), "}".repeat(depth))
    }

    /// API §6: "At most 32 comparisons, depth 8, 4 KiB."
    #[test]
    fn limits_are_met_and_passed_by_one() {
        assert!(parse(&nested(8)).is_ok());
        assert_eq!(
            refused(&nested(9)),
            "not.not.not.not.not.not.not.not.not: is more than 8 groups deep"
        );
        let many = |count: usize| {
            format!("{{\"any\":[{}]}}", vec![r#"{"field":"key","op":"exists"}"#; count].join(","))
        };
        assert_eq!(parse(&many(32)).unwrap().comparisons(), 32);
        assert_eq!(refused(&many(33)), "any[32]: is comparison 33: a filter has at most 32");
        assert!(parse(&format!("{{}}{}", " ".repeat(4094))).is_ok());
        assert_eq!(
            refused(&format!("{{}}{}", " ".repeat(4095))),
            "has 4097 bytes, more than the 4096 of a filter"
        );
    }

    /// API §6: "An error names the place."
    #[test]
    fn errors_name_the_place_and_what_to_do() {
        for (text, error) in [
            ("", "is empty, which is not JSON"),
            ("{", "is not JSON: EOF while parsing an object at line 1, column 1"),
            ("[]", "is not an object such as"),
            ("1", "is not an object such as"),
            (r#"{"colour":1}"#, "unknown member \"colour\""),
            (r#"{"all":[],"all":[]}"#, "member \"all\" is given twice"),
            (r#"{"all":{}}"#, "all: is not an array of filters"),
            (r#"{"all":[1]}"#, "all[0]: is not an object such as"),
            (r#"{"all":[],"field":"key"}"#, "has both \"all\" and \"field\""),
            (r#"{"not":{"any":[{},{"op":"eq"}]}}"#, "not.any[1]: member \"field\" is missing"),
            (r#"{"field":"data.a"}"#, "member \"op\" is missing"),
            (r#"{"field":"data.a","op":"=="}"#, "op: is not one of eq ne"),
            (r#"{"field":"data.a","op":1}"#, "op: is not one of eq ne"),
            (r#"{"field":"data.a","op":"eq"}"#, "member \"value\" is missing"),
            (r#"{"field":"price","op":"exists"}"#, "field: field \"price\" does not exist"),
            (r#"{"field":["price"],"op":"exists"}"#, "field: field \"[\\\"price\\\"]\" does not"),
            (r#"{"field":["data",0],"op":"exists"}"#, "field: is neither a string nor an array"),
            (r#"{"field":"key","op":"exists","value":true}"#, "value: does not belong to exists"),
            (r#"{"field":"key","op":"eq","value":[1]}"#, "value: [1] is neither a number nor"),
            (r#"{"field":"key","op":"eq","value":{}}"#, "value: {} is neither a number nor"),
            (
                r#"{"field":"key","op":"eq","value":"\ud800"}"#,
                "value: \"\\\\ud800\" is not a string",
            ),
            (r#"{"field":"key","op":"gt","value":null}"#, "value: null has no order"),
            (r#"{"field":"data","op":"le","value":true}"#, "value: true has no order"),
            (r#"{"field":"data.a","op":"in","value":1}"#, "value: 1 is not a list such as [1, 2]"),
            (r#"{"field":"data.a","op":"in","value":[[]]}"#, "value: [] is neither a number nor"),
            (r#"{"field":"data.a","op":"prefix","value":1}"#, "value: 1 is not a string"),
            (
                r#"{"field":"data.a","op":"eq","value":1e9999999999}"#,
                "value: 1e9999999999 has an exp",
            ),
            (r#"{"field":"time","op":"gt","value":5}"#, "value: 5 is not an RFC 3339 time"),
            (
                r#"{"field":"time","op":"gt","value":"today"}"#,
                "value: \"today\" is not an RFC 3339",
            ),
            (r#"{"field":"time","op":"prefix","value":"2"}"#, "value: a time has no parts"),
        ] {
            let got = refused(text);
            assert!(got.starts_with(error), "{text}: {got}");
        }
    }

    #[test]
    fn every_operator_has_a_name() {
        for op in ["eq", "ne", "gt", "ge", "lt", "le", "prefix", "suffix", "contains"] {
            parse(&format!(r#"{{"field":"data.a","op":"{op}","value":"x"}}"#)).expect(op);
        }
        parse(r#" {"field":["data","a.b","0"],"op":"in","value":["x",1,null,true]} "#).unwrap();
        parse(r#"{"value":1,"op":"\u0065q","field":"data"}"#).unwrap();
        parse(r#"{"field":"time","op":"ge","value":"2026-11-21T10:08:08 01:00"}"#).unwrap();
        assert_eq!(parse("{}"), Ok(Condition::always()));
    }
}
