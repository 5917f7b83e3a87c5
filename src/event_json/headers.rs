//! The headers of an event while they are gathered: tokens in lower case, each once, within limits.

use super::media_type::is_token;
use crate::input::quoted;

/// The most headers of an event.
pub const COUNT_MAX: usize = 32;
/// The most bytes of all names and values of an event's headers.
pub const BYTES_MAX: usize = 8 * 1024;

/// Names and values, in the order of names: a retry may have them in another one, and is the same event.
pub type HeaderList = Vec<(Box<str>, Box<str>)>;

/// Headers that keep the rules so far.
#[derive(Debug, Default)]
pub struct Headers {
    headers: HeaderList,
    bytes: usize,
}

impl Headers {
    /// Adds one. The error says what is wrong with it.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), String> {
        if !is_token(name) {
            return Err(format!("header name {} is not a token", quoted(name)));
        }
        let name = name.to_ascii_lowercase();
        if self.headers.iter().any(|(other, _)| **other == *name) {
            return Err(format!("header {} is given twice", quoted(&name)));
        }
        self.bytes += name.len() + value.len();
        if self.headers.len() == COUNT_MAX || self.bytes > BYTES_MAX {
            return Err(format!("an event has at most {COUNT_MAX} headers in {BYTES_MAX} bytes"));
        }
        self.headers.push((name.into(), value.into()));
        Ok(())
    }

    /// What was gathered.
    pub fn finish(mut self) -> HeaderList {
        self.headers.sort_unstable();
        self.headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API §2: "`headers` (string to string, at most 32 in 8 KiB, names are tokens, lower-cased)".
    #[test]
    fn limits_are_met_and_passed_by_one() {
        let mut headers = Headers::default();
        for index in 0..COUNT_MAX {
            headers.push(&format!("X-{index}"), "v").unwrap();
        }
        assert!(headers.push("one-more", "v").is_err());
        let all = headers.finish();
        assert!(all.len() == COUNT_MAX && all.is_sorted());
        assert!(all.iter().any(|(name, _)| **name == *"x-31"));

        let fits = "v".repeat(BYTES_MAX - 1);
        assert!(Headers::default().push("a", &fits).is_ok());
        assert!(Headers::default().push("ab", &fits).is_err());
    }

    #[test]
    fn names_are_tokens_and_come_once() {
        let mut headers = Headers::default();
        headers.push("Trace-Id", "").unwrap();
        assert_eq!(headers.push("TRACE-ID", "").unwrap_err(), "header \"trace-id\" is given twice");
        for name in ["", "a b", "a:b", "é", "a\0"] {
            assert!(headers.push(name, "").is_err(), "{name}");
        }
    }
}
