//! What a content type says about data: JSON, lines of JSON, text, or anything.

use crate::input::quoted;

/// The longest content type. Real ones have less than half of it.
pub const BYTES_MAX: usize = 256;

/// What a content type means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaClass {
    /// `application/json`, `text/json`, or a subtype that ends in `+json`.
    Json,
    /// `application/x-ndjson`.
    Lines,
    /// `application/x-www-form-urlencoded`: what `curl -d` says when it was not told.
    Form,
    /// `application/cloudevents*`: reserved for later.
    CloudEvents,
    /// Any other `text/*`.
    Text,
    /// Anything else.
    Other,
}

/// A well-formed content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// What it means.
    pub class: MediaClass,
    /// Its text, without outer spaces; empty if it is `application/json` and says no more.
    pub stored: &'a str,
}

impl<'a> MediaType<'a> {
    /// Parses a content type: `type "/" subtype` and perhaps parameters. The error says what is wrong.
    pub fn parse(text: &'a str) -> Result<MediaType<'a>, String> {
        let text = text.trim_matches([' ', '\t']);
        let (essence, parameters) = match text.split_once(';') {
            Some((essence, parameters)) => (essence.trim_end_matches([' ', '\t']), parameters),
            None => (text, ""),
        };
        let well_formed = text.len() <= BYTES_MAX
            && text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
            && essence.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
        if !well_formed {
            let text = quoted(text);
            return Err(format!("{text} is not a content type of at most {BYTES_MAX} bytes"));
        }
        let class = classify(essence);
        let plain_json = essence.eq_ignore_ascii_case("application/json")
            && (parameters.trim().is_empty()
                || parameters.trim().eq_ignore_ascii_case("charset=utf-8"));
        Ok(MediaType { class, stored: if plain_json { "" } else { text } })
    }
}

fn classify(essence: &str) -> MediaClass {
    let is = |other: &str| essence.eq_ignore_ascii_case(other);
    let begins = |prefix: &str| {
        essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let ends_in_json = essence
        .len()
        .checked_sub("+json".len())
        .and_then(|start| essence.get(start..))
        .is_some_and(|end| end.eq_ignore_ascii_case("+json"));
    if begins("application/cloudevents") {
        MediaClass::CloudEvents
    } else if is("application/json") || is("text/json") || ends_in_json {
        MediaClass::Json
    } else if is("application/x-ndjson") {
        MediaClass::Lines
    } else if is("application/x-www-form-urlencoded") {
        MediaClass::Form
    } else if begins("text/") {
        MediaClass::Text
    } else {
        MediaClass::Other
    }
}

/// Whether `text` is a token of RFC 9110.
pub fn is_token(text: &str) -> bool {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(in_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        for (text, class, stored) in [
            ("application/json", MediaClass::Json, ""),
            ("Application/JSON ; Charset=UTF-8", MediaClass::Json, ""),
            (
                "application/json; profile=\"a;b\"",
                MediaClass::Json,
                "application/json; profile=\"a;b\"",
            ),
            ("application/ld+JSON", MediaClass::Json, "application/ld+JSON"),
            ("text/json", MediaClass::Json, "text/json"),
            ("application/x-ndjson", MediaClass::Lines, "application/x-ndjson"),
            (
                "application/x-www-form-urlencoded",
                MediaClass::Form,
                "application/x-www-form-urlencoded",
            ),
            (" text/plain;charset=utf-8 ", MediaClass::Text, "text/plain;charset=utf-8"),
            (
                "application/cloudevents+json",
                MediaClass::CloudEvents,
                "application/cloudevents+json",
            ),
            ("image/png", MediaClass::Other, "image/png"),
            ("application/json-seq", MediaClass::Other, "application/json-seq"),
        ] {
            assert_eq!(MediaType::parse(text), Ok(MediaType { class, stored }), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_content_type_is_refused() {
        let long = format!("text/{}", "a".repeat(252));
        for text in
            ["", "json", "/", "a/", "/b", "a/b/c", "a b/c", "text/plain; é", "a/b\r\n", &long]
        {
            assert!(MediaType::parse(text).is_err(), "{text}");
        }
    }
}
