//! Settings as requests and answers have them: strict in, since a limit that is misspelt would keep
//! nothing or everything. Pure.
//!
//! ```text
//! log     {"retain":{"age_s":..,"bytes":..,"count":..},"sync":"commit"}
//! topic   {"retain":{"age_s":..,"count":..,"latest_per_key":true},"expire":{"age_s":..,"idle_s":..}}
//! ```
//! Every member may be absent, and a limit may be null: then there is none.

use std::ops::RangeInclusive;

use serde_json::value::RawValue;
use strandline_storage::{
    settings::{LogRetention, LogSettings, TopicExpiry, TopicRetention, TopicSettings},
    sync_mode::SyncMode,
};

use crate::{
    input::quoted,
    json::{
        check,
        members::{self, Members},
        write,
    },
    problem::{Problem, ProblemKind},
};

/// The longest body of settings.
pub const BODY_BYTES_MAX: u64 = 64 << 10;

/// An age: from a second to some 300 years, which no clock will see.
const SECONDS: RangeInclusive<u64> = 1..=10_000_000_000;

/// A number of events or bytes; no log has more.
const AMOUNT: RangeInclusive<u64> = 1..=i64::MAX as u64;

static LOG_NAMES: [&str; 2] = ["retain", "sync"];
static LOG_RETAIN_NAMES: [&str; 3] = ["age_s", "bytes", "count"];
static TOPIC_NAMES: [&str; 2] = ["retain", "expire"];
static TOPIC_RETAIN_NAMES: [&str; 3] = ["age_s", "count", "latest_per_key"];
static TOPIC_EXPIRE_NAMES: [&str; 2] = ["age_s", "idle_s"];

/// What a request sets of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenLogSettings {
    /// The settings.
    pub settings: LogSettings,
    /// The sync mode, if it is named.
    pub sync: Option<SyncMode>,
}

/// Reads the body of `PUT /api/v1/logs/{log}`.
pub fn parse_log(body: &[u8]) -> Result<GivenLogSettings, Problem> {
    let members = object(text_of(body)?, &LOG_NAMES, "the body")?;
    let retain = match members.get("retain") {
        Some(value) => {
            let place = "member \"retain\"";
            let members = object(value.get(), &LOG_RETAIN_NAMES, place)?;
            LogRetention {
                age_s: limit(&members, "age_s", place, SECONDS)?,
                bytes: limit(&members, "bytes", place, AMOUNT)?,
                count: limit(&members, "count", place, AMOUNT)?,
            }
        }
        None => LogRetention::default(),
    };
    let sync = match members.get("sync") {
        Some(value) => {
            let text =
                members::string(value).ok_or_else(|| invalid("member \"sync\" is not a string"))?;
            Some(text.parse::<SyncMode>().map_err(|_| {
                let modes = "`commit`, `interval:MS` and `never`";
                invalid(&format!("member \"sync\": {} is none of {modes}", quoted(&text)))
            })?)
        }
        None => None,
    };
    Ok(GivenLogSettings { settings: LogSettings { retain }, sync })
}

/// Reads the body of `PUT /api/v1/topics/{topic or pattern}`.
pub fn parse_topic(body: &[u8]) -> Result<TopicSettings, Problem> {
    let members = object(text_of(body)?, &TOPIC_NAMES, "the body")?;
    let retain = match members.get("retain") {
        Some(value) => {
            let place = "member \"retain\"";
            let members = object(value.get(), &TOPIC_RETAIN_NAMES, place)?;
            TopicRetention {
                age_s: limit(&members, "age_s", place, SECONDS)?,
                count: limit(&members, "count", place, AMOUNT)?,
                latest_per_key: truth(&members, "latest_per_key", place)?,
            }
        }
        None => TopicRetention::default(),
    };
    let expire = match members.get("expire") {
        Some(value) => {
            let place = "member \"expire\"";
            let members = object(value.get(), &TOPIC_EXPIRE_NAMES, place)?;
            TopicExpiry {
                age_s: limit(&members, "age_s", place, SECONDS)?,
                idle_s: limit(&members, "idle_s", place, SECONDS)?,
            }
        }
        None => TopicExpiry::default(),
    };
    Ok(TopicSettings { retain, expire })
}

/// Appends the members of a log's settings, behind others or a `{`; `sync` is its sync mode.
pub fn push_log(out: &mut Vec<u8>, settings: &LogSettings, sync: &str) {
    write::name(out, "retain");
    serde_json::to_writer(&mut *out, &settings.retain).expect("a vector takes every byte");
    write::name(out, "sync");
    write::string(out, sync);
}

/// Appends the settings of a topic as an object.
pub fn push_topic(out: &mut Vec<u8>, settings: &TopicSettings) {
    serde_json::to_writer(out, settings).expect("a vector takes every byte");
}

fn text_of(body: &[u8]) -> Result<&str, Problem> {
    check::utf8(body).map_err(|error| not_json(&error.to_string()))
}

fn object<'a, const N: usize>(
    text: &'a str,
    names: &'static [&'static str; N],
    place: &str,
) -> Result<Members<'a, N>, Problem> {
    let members =
        Members::parse(text, names).map_err(|error| match check::check(text.as_bytes()) {
            Ok(_) => invalid(&format!("{place} is not a JSON object")),
            Err(_) => not_json(&error.to_string()),
        })?;
    match members.fault() {
        Some(fault) => Err(invalid(&format!("{place}: {fault}"))),
        None => Ok(members),
    }
}

fn limit<const N: usize>(
    members: &Members<'_, N>,
    name: &str,
    place: &str,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, Problem> {
    let Some(value) = members.get(name).filter(|value| !is_null(value)) else { return Ok(None) };
    let digits = value.get();
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|number| is_plain && range.contains(number));
    number.map(Some).ok_or_else(|| {
        let (start, end) = range.into_inner();
        invalid(&format!("{place}: \"{name}\" is not a whole number from {start} to {end}"))
    })
}

fn truth<const N: usize>(
    members: &Members<'_, N>,
    name: &str,
    place: &str,
) -> Result<bool, Problem> {
    match members.get(name).map(RawValue::get) {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(invalid(&format!("{place}: \"{name}\" is neither true nor false"))),
    }
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

fn invalid(detail: &str) -> Problem {
    Problem::new(ProblemKind::InvalidSettings, detail.to_owned())
}

fn not_json(what: &str) -> Problem {
    Problem::new(ProblemKind::InvalidJson, format!("the body {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// API §8: `{"retain":{"age_s":..,"bytes":..,"count":..},"sync":"commit"}`.
    #[test]
    fn settings_of_a_log() {
        let given =
            parse_log(br#"{"retain":{"age_s":60,"bytes":1000,"count":null},"sync":"commit"}"#)
                .unwrap();
        let retain = LogRetention { age_s: Some(60), bytes: Some(1000), count: None };
        assert_eq!(given.settings, LogSettings { retain });
        assert_eq!(given.sync, Some(SyncMode::Commit));
        for empty in ["{}", " {\"retain\":{}}\n"] {
            assert_eq!(parse_log(empty.as_bytes()).unwrap().settings, LogSettings::default());
        }
        let mut out = b"{".to_vec();
        push_log(&mut out, &given.settings, "commit");
        assert_eq!(out, br#"{"retain":{"age_s":60,"bytes":1000},"sync":"commit""#);
    }

    /// API §8: `{"retain":{"age_s":..,"count":..,"latest_per_key":true},"expire":{"age_s":..,
    /// "idle_s":..}}`.
    #[test]
    fn settings_of_a_topic() {
        let text = r#"{"retain":{"age_s":1,"count":2,"latest_per_key":true},"expire":{"age_s":3,"idle_s":4}}"#;
        let settings = parse_topic(text.as_bytes()).unwrap();
        assert_eq!(
            settings,
            TopicSettings {
                retain: TopicRetention { age_s: Some(1), count: Some(2), latest_per_key: true },
                expire: TopicExpiry { age_s: Some(3), idle_s: Some(4) },
            }
        );
        let mut out = Vec::new();
        push_topic(&mut out, &settings);
        assert_eq!(String::from_utf8(out).unwrap(), text);
        assert_eq!(parse_topic(b"{}").unwrap(), TopicSettings::default());
    }

    /// API: "unknown JSON members of a *request* are refused by name".
    #[test]
    fn what_is_refused_is_named() {
        for (text, detail) in [
            (r#"{"retian":{}}"#, "the body: unknown member \"retian\""),
            (r#"{"retain":{"bytes":1}}"#, "member \"retain\": unknown member \"bytes\""),
            (
                r#"{"retain":{"count":1,"count":1}}"#,
                "member \"retain\": member \"count\" is given twice",
            ),
            (r#"{"expire":{"count":1}}"#, "member \"expire\": unknown member \"count\""),
            (r#"{"retain":[]}"#, "member \"retain\" is not a JSON object"),
            (r#"{"retain":null}"#, "member \"retain\" is not a JSON object"),
            (
                r#"{"retain":{"latest_per_key":1}}"#,
                "member \"retain\": \"latest_per_key\" is neither true nor false",
            ),
            ("[]", "the body is not a JSON object"),
        ] {
            let problem = parse_topic(text.as_bytes()).expect_err(text);
            assert_eq!((problem.kind(), problem.detail()), (ProblemKind::InvalidSettings, detail));
        }
        for number in ["0", "-1", "1.0", "1e3", "\"1\"", "true", "10000000001", "{}"] {
            let text = format!(r#"{{"retain":{{"age_s":{number}}}}}"#);
            for problem in [
                parse_topic(text.as_bytes()).expect_err(&text),
                parse_log(text.as_bytes()).expect_err(&text),
            ] {
                let detail =
                    "member \"retain\": \"age_s\" is not a whole number from 1 to 10000000000";
                assert_eq!(problem.detail(), detail, "{number}");
            }
        }
        let largest = format!(r#"{{"retain":{{"count":{}}}}}"#, i64::MAX);
        assert!(parse_topic(largest.as_bytes()).is_ok());
        assert!(parse_log(br#"{"sync":1}"#).is_err());
        let problem = parse_log(br#"{"sync":"comit"}"#).unwrap_err();
        assert_eq!(
            problem.detail(),
            "member \"sync\": \"comit\" is none of `commit`, `interval:MS` and `never`"
        );
        assert_eq!(problem.kind(), ProblemKind::InvalidSettings);
        for text in ["", "{", "{} x", "\u{feff}{}", "{\"retain\":{\"count\":01}}"] {
            let problem = parse_topic(text.as_bytes()).expect_err(text);
            assert_eq!(problem.kind(), ProblemKind::InvalidJson, "{text:?}");
        }
        assert_eq!(parse_topic(b"\xff").unwrap_err().kind(), ProblemKind::InvalidJson);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[\\[\\]{}:,\"a0_ ]{0,30}") {
            let _ = (parse_log(text.as_bytes()), parse_topic(text.as_bytes()));
        }

        #[test]
        fn what_is_written_is_read(
            age_s in prop::option::of(SECONDS), count in prop::option::of(AMOUNT),
            latest_per_key: bool, idle_s in prop::option::of(SECONDS),
        ) {
            let settings = TopicSettings {
                retain: TopicRetention { age_s, count, latest_per_key },
                expire: TopicExpiry { age_s, idle_s },
            };
            let mut out = Vec::new();
            push_topic(&mut out, &settings);
            prop_assert_eq!(parse_topic(&out), Ok(settings));
        }
    }
}
