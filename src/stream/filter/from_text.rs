//! The spelling of a filter for people: `data.price > 100 and type == "trade"`.
//!
//! ```text
//! or         = and {"or" and}
//! and        = not {"and" not}
//! not        = "not" not | "(" or ")" | comparison
//! comparison = field ("==" | "!=" | ">" | ">=" | "<" | "<=" | "prefix" | "suffix" | "contains") literal
//!            | field "in" "[" literal {"," literal} "]"
//!            | field "exists" | "exists" field | "exists" "(" field ")"
//! field      = a name with dots, of letters, digits and _ - $ @ :       data.venue.0.name
//!            | a JSON array of names                                    ["data", "a.b"]
//! literal    = a JSON string, number, true, false or null
//! ```
//! Words are in lower case. An error names its place by the column, in characters from 1.

use serde_json::value::RawValue;

use super::{
    condition::{Condition, DEPTH_MAX, Op, Relation, Test},
    field::Field,
    spelling::{Comparisons, FilterError, OpName, check_length, comparison},
};
use crate::{input::quoted, json::walk::Walk};

const A_COMPARISON: &str = "a comparison such as data.price > 100";
const AN_OPERATOR: &str = "== != > >= < <= in prefix suffix contains or exists";

/// Parses `text`.
pub fn parse(text: &str) -> Result<Condition, FilterError> {
    check_length(text)?;
    let mut parser = Parser { text, at: 0, depth: 0, comparisons: Comparisons::default() };
    let condition = parser.any()?;
    match parser.peek() {
        None => Ok(condition),
        Some(b')') => Err(parser.wrong("this ) closes nothing")),
        Some(_) => Err(parser.expected("and, or or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Parentheses and `not`s that are open.
    depth: usize,
    comparisons: Comparisons,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Condition, FilterError> {
        let mut conditions = vec![self.all()?];
        while self.take_word("or") {
            conditions.push(self.all()?);
        }
        Ok(one_or(conditions, Condition::Any))
    }

    fn all(&mut self) -> Result<Condition, FilterError> {
        let mut conditions = vec![self.not()?];
        while self.take_word("and") {
            conditions.push(self.not()?);
        }
        Ok(one_or(conditions, Condition::All))
    }

    fn not(&mut self) -> Result<Condition, FilterError> {
        self.pass_space();
        let start = self.at;
        if self.take_word("not") {
            self.enter(start)?;
            let condition = self.not()?;
            self.depth -= 1;
            return Ok(Condition::Not(Box::new(condition)));
        }
        if self.take("(") {
            self.enter(start)?;
            let condition = self.any()?;
            if !self.take(")") {
                return Err(
                    self.expected(&format!("and, or or the ) of column {}", self.column(start)))
                );
            }
            self.depth -= 1;
            return Ok(condition);
        }
        self.comparison().map(Condition::Test)
    }

    fn enter(&mut self, start: usize) -> Result<(), FilterError> {
        self.depth += 1;
        match self.depth > DEPTH_MAX {
            true => Err(self.wrong_at(start, format!("is more than {DEPTH_MAX} deep"))),
            false => Ok(()),
        }
    }

    fn comparison(&mut self) -> Result<Test, FilterError> {
        self.pass_space();
        let start = self.at;
        self.comparisons.count().map_err(|what| self.wrong_at(start, what))?;
        if self.take_word("exists") {
            let is_open = self.take("(");
            let field = self.field()?;
            if is_open && !self.take(")") {
                return Err(self.expected(")"));
            }
            return Ok(Test { field, op: Op::Exists });
        }
        let field = self.field()?;
        let op = self.operator()?;
        if op == OpName::Exists {
            return Ok(Test { field, op: Op::Exists });
        }
        let first = self.peek();
        let value_at = self.at;
        if op == OpName::In && first != Some(b'[') {
            return Err(self.expected("a list such as [1, 2]"));
        }
        let value = self.value()?;
        comparison(field, op, value).map_err(|what| self.wrong_at(value_at, what))
    }

    fn field(&mut self) -> Result<Field, FilterError> {
        match self.peek() {
            None => Err(self.expected(A_COMPARISON)),
            Some(b'[') => {
                let start = self.at;
                let list = self.json()?;
                let wrong = |what: String| self.wrong_at(start, what);
                let names: Vec<String> = serde_json::from_str(list.get())
                    .map_err(|_| wrong("a field is a name or a list of names".to_owned()))?;
                Field::of_names(&names)
                    .map_err(|what| wrong(format!("field {} {what}", list.get())))
            }
            Some(_) => {
                let start = self.at;
                let word = self.word();
                if word.is_empty() || word.starts_with(|first: char| first.is_ascii_digit()) {
                    self.at = start;
                    return Err(self.expected(A_COMPARISON));
                }
                if is_of_language(&word.to_ascii_lowercase()) {
                    self.at = start;
                    return Err(self.expected(A_COMPARISON));
                }
                Field::parse(word).map_err(|what| self.wrong_at(start, what))
            }
        }
    }

    fn operator(&mut self) -> Result<OpName, FilterError> {
        self.pass_space();
        let signs = [
            ("==", Relation::Equal),
            ("!=", Relation::Unequal),
            (">=", Relation::GreaterOrEqual),
            ("<=", Relation::LessOrEqual),
            (">", Relation::Greater),
            ("<", Relation::Less),
        ];
        for (sign, relation) in signs {
            if self.rest().starts_with("<>") {
                return Err(self.wrong("write != for <>"));
            }
            if self.take(sign) {
                return Ok(OpName::Is(relation));
            }
        }
        if self.rest().starts_with('=') {
            return Err(self.wrong("write == for ="));
        }
        let start = self.at;
        match self.word() {
            "in" => return Ok(OpName::In),
            "prefix" => return Ok(OpName::Prefix),
            "suffix" => return Ok(OpName::Suffix),
            "contains" => return Ok(OpName::Contains),
            "exists" => return Ok(OpName::Exists),
            "not" => {
                return Err(
                    self.wrong_at(start, "not stands before a comparison: not data.a in [1]")
                );
            }
            _ => {}
        }
        self.at = start;
        Err(self.expected(AN_OPERATOR))
    }

    fn value(&mut self) -> Result<&'a RawValue, FilterError> {
        match self.peek() {
            None => Err(self.expected("a literal, such as 100 or \"trade\"")),
            Some(b'\'') => Err(self.wrong("a string stands in double quotes")),
            Some(b'"' | b'[' | b'{') => self.json(),
            Some(_) => {
                let start = self.at;
                let rest = self.rest();
                let is_end = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.'));
                let length = rest.find(is_end).unwrap_or(rest.len());
                self.at += length;
                serde_json::from_str(&rest[..length]).map_err(|_| {
                    self.at = start;
                    let literal = "a literal: \"text\", 100, -0.5, true, false or null";
                    self.expected(literal)
                })
            }
        }
    }

    /// A string, array or object of JSON.
    fn json(&mut self) -> Result<&'a RawValue, FilterError> {
        let start = self.at;
        let Some(value) = Walk::new(self.rest().as_bytes()).value() else {
            return Err(self.wrong("this does not end"));
        };
        self.at += value.len();
        let value = &self.text[start..self.at];
        serde_json::from_str(value).map_err(|error| {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            // The parser counts bytes from 1, and anew in each line.
            let line_at: usize =
                value.split_inclusive('\n').take(error.line() - 1).map(str::len).sum();
            let at = value.floor_char_boundary(line_at + error.column().saturating_sub(1));
            self.wrong_at(start + at, format!("is not JSON: {what}"))
        })
    }

    /// A run of letters, digits and what else stands in names; perhaps empty.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let is_end = |character: char| !is_of_word(character);
        let word = &rest[..rest.find(is_end).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn take(&mut self, sign: &str) -> bool {
        self.pass_space();
        let is_there = self.rest().starts_with(sign);
        self.at += if is_there { sign.len() } else { 0 };
        is_there
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        self.pass_space();
        let start = self.at;
        let is_there = self.word() == wanted;
        if !is_there {
            self.at = start;
        }
        is_there
    }

    fn peek(&mut self) -> Option<u8> {
        self.pass_space();
        self.rest().bytes().next()
    }

    fn pass_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn column(&self, at: usize) -> usize {
        self.text[..at].chars().count() + 1
    }

    fn wrong(&self, what: &str) -> FilterError {
        self.wrong_at(self.at, what)
    }

    fn wrong_at(&self, at: usize, what: impl Into<String>) -> FilterError {
        FilterError::new(format_args!("column {}", self.column(at)), what)
    }

    /// Says what was expected here, and what stands here.
    fn expected(&self, wanted: &str) -> FilterError {
        let rest = self.rest();
        let signs = [("&&", "and"), ("||", "or"), ("!", "not")];
        if let Some((sign, word)) = signs.into_iter().find(|(sign, _)| rest.starts_with(sign)) {
            return self.wrong(&format!("write {word} for {sign}"));
        }
        let word = &rest[..rest.find(|character| !is_of_word(character)).unwrap_or(rest.len())];
        if let Some(hint) = lower_case(word) {
            return self.wrong(&hint);
        }
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest.find([' ', '(', ')', ',']).unwrap_or(rest.len()).max(first);
        let found = if rest.is_empty() { "the end".to_owned() } else { quoted(&rest[..end]) };
        self.wrong(&format!("expected {wanted}, found {found}"))
    }
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '$' | '@' | ':' | '.')
}

/// What to say of a word of the language that is not in lower case.
fn lower_case(word: &str) -> Option<String> {
    let lower = word.to_ascii_lowercase();
    (lower != word && is_of_language(&lower)).then(|| format!("write {lower} in lower case"))
}

fn is_of_language(word: &str) -> bool {
    matches!(
        word,
        "and"
            | "or"
            | "not"
            | "in"
            | "exists"
            | "prefix"
            | "suffix"
            | "contains"
            | "true"
            | "false"
            | "null"
    )
}

fn one_or(
    mut conditions: Vec<Condition>,
    group: impl FnOnce(Vec<Condition>) -> Condition,
) -> Condition {
    if conditions.len() == 1 { conditions.swap_remove(0) } else { group(conditions) }
}

#[cfg(test)]
mod tests {
    use super::super::from_json;
    use super::*;

    fn refused(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    fn same(text: &str, json: &str) {
        assert_eq!(parse(text), from_json::parse(json), "{text}");
        assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
    }

    /// API §6: "`where=data.price > 100 and type == "trade"` (`and or not in exists`,
    /// `== != > >= < <=`, parentheses, JSON literals)".
    #[test]
    fn both_spellings_say_the_same() {
        same(
            r#"data.price > 100 and type == "trade""#,
            r#"{"all":[{"field":"data.price","op":"gt","value":100},{"field":"type","op":"eq","value":"trade"}]}"#,
        );
        for (sign, name) in
            [("==", "eq"), ("!=", "ne"), (">", "gt"), (">=", "ge"), ("<", "lt"), ("<=", "le")]
        {
            let json = format!(r#"{{"field":"data.a","op":"{name}","value":-1.5e3}}"#);
            same(&format!("data.a{sign}-1.5e3"), &json);
            same(&format!("\tdata.a  {sign} -1.5e3\n"), &json);
        }
        for name in ["prefix", "suffix", "contains"] {
            same(
                &format!(r#"topic {name} "a b\"\u00e9""#),
                &format!(r#"{{"field":"topic","op":"{name}","value":"a b\"é"}}"#),
            );
        }
        let exists = r#"{"field":"headers.x-y","op":"exists"}"#;
        for text in [
            "exists headers.x-y",
            "headers.X-Y exists",
            "exists(headers.x-y)",
            "(headers.x-y exists)",
        ] {
            same(text, exists);
        }
        same(
            r#"["data","a.b"]in["x",1,null,true]"#,
            r#"{"field":["data","a.b"],"op":"in","value":["x",1,null,true]}"#,
        );
        same(
            "data.größe.0.$ref == false",
            r#"{"field":"data.größe.0.$ref","op":"eq","value":false}"#,
        );
        same("data contains null", r#"{"field":"data","op":"contains","value":null}"#);
    }

    #[test]
    fn not_binds_before_and_before_or() {
        let exists = |name: &str| format!(r#"{{"field":"data.{name}","op":"exists"}}"#);
        let (a, b, c) = (exists("a"), exists("b"), exists("c"));
        same(
            "exists data.a or exists data.b and not exists data.c",
            &format!(r#"{{"any":[{a},{{"all":[{b},{{"not":{c}}}]}}]}}"#),
        );
        same(
            "not(exists data.a or exists data.b)and exists data.c",
            &format!(r#"{{"all":[{{"not":{{"any":[{a},{b}]}}}},{c}]}}"#),
        );
        same("not not data.a exists", &format!(r#"{{"not":{{"not":{a}}}}}"#));
        same("not data.a exists and data.b exists", &format!(r#"{{"all":[{{"not":{a}}},{b}]}}"#));
    }

    /// API §6: "At most 32 comparisons, depth 8, 4 KiB."
    #[test]
    fn limits_are_met_and_passed_by_one() {
        let many = |count: usize| vec!["exists key"; count].join(" or ");
        assert_eq!(parse(&many(32)).unwrap().comparisons(), 32);
        assert_eq!(refused(&many(33)), "column 449: is comparison 33: a filter has at most 32");
        let nested = |depth: usize| format!("{}exists key{}", "(".repeat(depth), ")".repeat(depth));
        assert!(parse(&nested(8)).is_ok());
        assert_eq!(refused(&nested(9)), "column 9: is more than 8 deep");
        assert!(parse(&format!("{}exists key", "not ".repeat(8))).is_ok());
        assert_eq!(
            refused(&format!("{}exists key", "not ".repeat(9))),
            "column 33: is more than 8 deep"
        );
        assert!(refused(&format!("exists key{}", " ".repeat(4087))).starts_with("has 4097 bytes"));
        parse(&format!("{} and {}", nested(8), nested(8))).expect("what is closed does not count");
    }

    /// API §6: "An error names the place."
    #[test]
    fn errors_name_the_place_and_what_to_do() {
        for (text, error) in [
            ("", "column 1: expected a comparison such as data.price > 100, found the end"),
            ("true", "column 1: expected a comparison such as data.price > 100, found \"true\""),
            (
                "100 < data.a",
                "column 1: expected a comparison such as data.price > 100, found \"100\"",
            ),
            ("price > 1", "column 1: field \"price\" does not exist: there are topic, type"),
            ("data.a", "column 7: expected == != > >= < <= in prefix"),
            (
                "data.a ~ 1",
                "column 8: expected == != > >= < <= in prefix suffix contains or exists, found \"~\"",
            ),
            ("data.a = 1", "column 8: write == for ="),
            ("data.a <> 1", "column 8: write != for <>"),
            ("data.a == 1 && data.b == 2", "column 13: write and for &&"),
            ("data.a == 1 || data.b == 2", "column 13: write or for ||"),
            ("!data.a == 1", "column 1: write not for !"),
            ("data.a == 1 AND data.b == 2", "column 13: write and in lower case"),
            ("NOT data.a == 1", "column 1: write not in lower case"),
            ("data.a IN [1]", "column 8: write in in lower case"),
            ("data.a not in [1]", "column 8: not stands before a comparison"),
            ("data.a == 'x'", "column 11: a string stands in double quotes"),
            (
                "data.a == x",
                "column 11: expected a literal: \"text\", 100, -0.5, true, false or null, found \"x\"",
            ),
            ("data.a == 01", "column 11: expected a literal"),
            ("data.a == .5", "column 11: expected a literal"),
            ("data.a ==", "column 10: expected a literal, such as 100 or \"trade\", found the end"),
            ("data.a == data.b", "column 11: expected a literal"),
            ("data.a == \"x", "column 11: this does not end"),
            ("data.a == \"\\x\"", "column 13: is not JSON: invalid escape"),
            ("data.a in 1", "column 11: expected a list such as [1, 2], found \"1\""),
            ("data.a in [1,]", "column 14: is not JSON: expected value"),
            ("data.a in [1", "column 11: this does not end"),
            ("(data.a == 1", "column 13: expected and, or or the ) of column 1, found the end"),
            ("data.a == 1)", "column 12: this ) closes nothing"),
            ("data.a == 1 data.b == 2", "column 13: expected and, or or the end, found \"data.b\""),
            ("data.ü == 1 and", "column 16: expected a comparison"),
            ("data.ü == 1 and ü", "column 17: field \"ü\" does not exist"),
            ("exists", "column 7: expected a comparison"),
            ("exists(key", "column 11: expected ), found the end"),
            ("[1] == 1", "column 1: a field is a name or a list of names"),
            ("[\"x\"] == 1", "column 1: field [\"x\"] does not exist"),
            ("key > true", "column 7: true has no order"),
            ("time > 1", "column 8: 1 is not an RFC 3339 time"),
        ] {
            let got = refused(text);
            assert!(got.starts_with(error), "{text}: {got}");
        }
    }
}
