//! Is this JSON? RFC 8259 to the letter, UTF-8 without a byte order mark, one value and white space,
//! at most [`DEPTH_MAX`] arrays and objects inside each other.
//!
//! The grammar is serde_json's: its skipping of values keeps a stack of its own, so that no depth
//! of input overflows ours. What it costs an event is measured by `cargo bench --bench sse_encoding`.
//! A `\ud800` without its other half is within the grammar, and events keep the bytes that they
//! came with, so it is let through; where a *string* is asked for (a topic, text data) it is not.
//! Numbers of any size and repeated members are within the grammar too.

use serde::{Deserialize, de::IgnoredAny};

/// The most arrays and objects inside each other.
pub const DEPTH_MAX: usize = 64;

/// Why bytes are not JSON as we take it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// There is nothing but white space.
    #[error("is empty, which is not JSON")]
    Empty,
    /// It begins with a byte order mark.
    #[error("begins with a byte order mark, which JSON must not")]
    ByteOrderMark,
    /// It is not UTF-8.
    #[error("is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The first byte that is wrong, from 0.
        at: usize,
    },
    /// It breaks the grammar.
    #[error("is not JSON: {what} at line {line}, column {column}")]
    Syntax {
        /// What was expected.
        what: Box<str>,
        /// The line, from 1.
        line: usize,
        /// The byte in the line, from 1.
        column: usize,
    },
    /// It is nested too deeply.
    #[error("is JSON nested more than {DEPTH_MAX} deep, at byte {at}")]
    TooDeep {
        /// The bracket that is one too many, from 0.
        at: usize,
    },
}

/// Returns `bytes` as text if they are one JSON value.
pub fn check(bytes: &[u8]) -> Result<&str, JsonError> {
    let text = utf8(bytes)?;
    let mut parser = serde_json::Deserializer::from_str(text);
    IgnoredAny::deserialize(&mut parser)
        .and_then(|_| parser.end())
        .map_err(|error| syntax_error(text, &error))?;
    check_depth(text)?;
    Ok(text)
}

/// Returns `bytes` as text if they are UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<&str, JsonError> {
    std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8 { at: error.valid_up_to() })
}

/// Checks the depth of `text`, which is known to be JSON.
pub fn check_depth(text: &str) -> Result<(), JsonError> {
    // Most values have fewer brackets in all than may be open at once.
    if count_opening(text.as_bytes()) <= DEPTH_MAX {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' if depth == DEPTH_MAX => return Err(JsonError::TooDeep { at }),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    Ok(())
}

/// How many brackets open in `bytes`, those in strings included. Counts in bytes, sixteen at a time: with
/// counters of eight bytes this took 17 % of the server's time under an NDJSON load.
fn count_opening(bytes: &[u8]) -> usize {
    let count = |part: &[u8]| part.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    bytes.chunks(usize::from(u8::MAX)).map(|part| usize::from(count(part))).sum()
}

/// What a parser of ours found wrong with `text`.
pub fn syntax_error(text: &str, error: &serde_json::Error) -> JsonError {
    if text.starts_with('\u{feff}') {
        return JsonError::ByteOrderMark;
    }
    if text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
        return JsonError::Empty;
    }
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = error.to_string();
    JsonError::Syntax {
        what: what.strip_suffix(&place).unwrap_or(&what).into(),
        line: error.line(),
        column: error.column(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Byte by byte, and all of them brackets: no counter overflows.
    #[test]
    fn opening_brackets_are_counted() {
        let every: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(count_opening(&every), 2);
        assert_eq!(count_opening(&[b'['; 1000]), 1000);
        assert_eq!(count_opening(b"]}x;{[\\[z"), 3);
    }

    fn nested(depth: usize) -> String {
        format!("{}0{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn json_is_taken_as_it_stands() {
        for text in [
            "0",
            "-0",
            "1e999",
            "1.5E-3",
            "\"\"",
            "null",
            " true\r\n\t",
            "[]",
            "{}",
            "[1,{\"a\":[]}]",
            "{\"a\":1,\"a\":2}",
            "\"\\ud800\"",
            "\"\\u0000\"",
            "\"\u{2028}\"",
            "\"\u{7f}\"",
            "123456789012345678901234567890",
        ] {
            assert_eq!(check(text.as_bytes()), Ok(text));
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "'a'",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "NaN",
            "Infinity",
            "nul",
            "1 2",
            "[] []",
            "\"a",
            "\"\n\"",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12\"",
            "// 1",
            "1,",
            "\u{a0}1",
            "\u{0}",
            "1\u{0}",
        ] {
            let error = check(text.as_bytes()).expect_err(text);
            assert!(matches!(error, JsonError::Syntax { .. }), "{text:?}: {error}");
        }
        assert_eq!(check(b""), Err(JsonError::Empty));
        assert_eq!(check(b" \r\n\t"), Err(JsonError::Empty));
        assert_eq!(check(b"\xef\xbb\xbf{}"), Err(JsonError::ByteOrderMark));
        assert_eq!(check(b"\"a\xff\""), Err(JsonError::NotUtf8 { at: 2 }));
        assert_eq!(
            check(b"\"\xed\xa0\x80\""),
            Err(JsonError::NotUtf8 { at: 1 }),
            "a raw surrogate"
        );
        let error = check(b"{\"a\":\n  x}").unwrap_err();
        assert_eq!(error.to_string(), "is not JSON: expected value at line 2, column 3");
    }

    /// API §2: "JSON types must be valid JSON (depth at most 64)".
    #[test]
    fn depth_is_64_at_most() {
        assert!(check(nested(64).as_bytes()).is_ok());
        assert_eq!(check(nested(65).as_bytes()), Err(JsonError::TooDeep { at: 64 }));
        assert!(check(nested(100_000).as_bytes()).is_err(), "no stack of ours grows");
        let wide = format!("[{}]", vec!["{\"a\":[]}"; 100].join(","));
        assert!(check(wide.as_bytes()).is_ok(), "many brackets, but not inside each other");
        let brackets_in_strings = format!("[\"{}\\\"[\",[1]]", "[".repeat(200));
        assert!(check(brackets_in_strings.as_bytes()).is_ok());
    }

    proptest! {
        /// Agrees with a parser that builds values, where that one takes surrogates and size alike.
        #[test]
        fn agrees_with_a_full_parser(text in "[\\[\\]{}:,\"\\\\a0-9.eE+ tru-]{0,24}") {
            let full = serde_json::from_str::<serde_json::Value>(&text);
            match check(text.as_bytes()) {
                Ok(_) => prop_assert!(
                    full.is_ok() || full.unwrap_err().to_string().starts_with("number out of range")
                ),
                Err(_) => prop_assert!(full.is_err()),
            }
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = check(&bytes);
        }
    }
}
