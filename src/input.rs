//! Small things that every codec of input shares: how a piece of input is shown in an error, and
//! the names that requests carry beside topics.

use std::borrow::Cow;

use crate::problem::{Problem, ProblemKind};

/// The name of a log, as `?log=` has it: `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogName(Cow<'static, str>);

impl LogName {
    /// The longest name.
    pub const BYTES_MAX: usize = 64;

    /// Checks the name; a log of that name need not exist.
    pub fn parse(text: &str) -> Result<LogName, Problem> {
        let mut bytes = text.bytes();
        let letter_or_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let well_formed = bytes.next().is_some_and(letter_or_digit)
            && bytes.all(|byte| letter_or_digit(byte) || byte == b'_' || byte == b'-')
            && text.len() <= LogName::BYTES_MAX;
        if !well_formed {
            let detail = format!("log {} is not [a-z0-9][a-z0-9_-]{{0,63}}", quoted(text));
            return Err(Problem::new(ProblemKind::InvalidName, detail));
        }
        Ok(LogName(Cow::Owned(text.to_owned())))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogName {
    /// The log that every tenant has: `main`.
    fn default() -> Self {
        LogName(Cow::Borrowed("main"))
    }
}

/// A piece of input as it may stand in an error: quoted, printable and short.
pub fn quoted(input: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut text = String::from("\"");
    for (index, character) in input.chars().enumerate() {
        if index == CHARS_MAX {
            text.push('…');
            break;
        }
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            _ if character.is_control() => text.extend(character.escape_default()),
            _ => text.push(character),
        }
    }
    text.push('"');
    text
}

/// Refuses every log but the one that there is until others can be made.
pub fn check_log(name: &LogName) -> Result<(), Problem> {
    if *name == LogName::default() {
        return Ok(());
    }
    let only = LogName::default();
    let detail = format!(
        "there is no log {}: this version has one, {}, which is also meant where no log is named",
        quoted(name.as_str()),
        quoted(only.as_str())
    );
    Err(Problem::new(ProblemKind::LogNotFound, detail))
}

/// The 501 for `what` (as the client wrote it): part of the contract, but not of this version.
pub fn not_yet(what: &str) -> Problem {
    Problem::new(ProblemKind::NotYet, format!("{what} is not available in this version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API §1: "`?log=`, `[a-z0-9][a-z0-9_-]{0,63}`, default `main`".
    #[test]
    fn log_names() {
        let longest = "a".repeat(64);
        for name in ["main", "0", "a_b-c", "9-", &longest] {
            assert_eq!(LogName::parse(name).unwrap().as_str(), name);
        }
        let too_long = "a".repeat(65);
        for name in ["", "-a", "_a", "A", "a.b", "a/b", "é", "a ", &too_long] {
            assert_eq!(LogName::parse(name).unwrap_err().kind(), ProblemKind::InvalidName);
        }
        assert_eq!(LogName::default().as_str(), "main");
    }

    #[test]
    fn a_quoted_piece_is_short_and_printable() {
        assert_eq!(quoted("a\"b\r\n"), r#""a\"b\r\n""#);
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), 43);
    }
}
