//! Topics and the patterns that match them. Parsed once, at the edge; matched without allocation.
//!
//! A topic is 1 to 16 levels joined by `/`, each of 1 to 128 bytes, at most 512 bytes in all. A
//! level is not `.` or `..`, holds no `*` and no control character, and begins with `$` only in
//! reserved topics, which requests can neither name nor match. There is no normalisation: two topics
//! are the same when their bytes are.
//!
//! In a pattern `*` stands for one whole level, and `**`, as its last level, for any number of
//! levels, also none: `a/**` matches `a`, `a/b` and `a/b/c`.

use std::{borrow::Borrow, fmt, hash::Hasher, ops::Deref, sync::Arc};

/// The longest topic or pattern.
pub const TOPIC_BYTES_MAX: usize = 512;
/// The longest level.
pub const LEVEL_BYTES_MAX: usize = 128;
/// The most levels.
pub const LEVELS_MAX: usize = 16;

/// Why a text is no topic, or no pattern. Levels are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It is too long as a whole.
    #[error("has {bytes} bytes, more than {TOPIC_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It has too many levels.
    #[error("has {levels} levels, more than {LEVELS_MAX}")]
    TooManyLevels {
        /// How many it has.
        levels: usize,
    },
    /// A level is empty: a `/` at an end, or two in a row.
    #[error("level {level} is empty")]
    EmptyLevel {
        /// Which level, from 1.
        level: usize,
    },
    /// A level is too long.
    #[error("level {level} has {bytes} bytes, more than {LEVEL_BYTES_MAX}")]
    LevelTooLong {
        /// Which level, from 1.
        level: usize,
        /// Its length.
        bytes: usize,
    },
    /// A level is `.` or `..`, which proxies and browsers would take out of a path.
    #[error("level {level} is `.` or `..`")]
    DotLevel {
        /// Which level, from 1.
        level: usize,
    },
    /// A level begins with `$`.
    #[error("level {level} begins with `$`, which is reserved")]
    ReservedLevel {
        /// Which level, from 1.
        level: usize,
    },
    /// A level of a topic holds a `*`, or one of a pattern holds it beside other characters, or `**`
    /// is not the last.
    #[error("level {level} has a `*` where none can be")]
    Wildcard {
        /// Which level, from 1.
        level: usize,
    },
    /// A level holds a control character (Unicode Cc).
    #[error("level {level} holds a control character")]
    ControlCharacter {
        /// Which level, from 1.
        level: usize,
    },
}

/// The number of a topic in its log: given in the order in which topics first appeared, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicNumber(u32);

impl TopicNumber {
    /// The topic that has `number` topics before it.
    pub const fn new(number: u32) -> Self {
        TopicNumber(number)
    }

    /// How many topics appeared before it.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TopicNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Spreads topic numbers, which count up from 0, over a hash map; nobody outside chooses them.
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The name of a topic; a clone shares its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The topic that a request names; levels with a leading `$` are refused.
    pub fn parse(text: &str) -> Result<Topic, TopicError> {
        check(text, &Levels { reserved: false, wildcards: false })?;
        Ok(Topic(text.into()))
    }

    /// The topic that a log of ours names: its levels may begin with `$`.
    pub fn parse_reserved(text: &str) -> Result<Topic, TopicError> {
        check_name(text)?;
        Ok(Topic(text.into()))
    }

    /// A topic whose name was checked before.
    pub(crate) fn of_known(text: &str) -> Topic {
        debug_assert!(check_name(text).is_ok(), "`{text}` was checked");
        Topic(text.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks what [`Topic::parse_reserved`] does, without making a topic.
pub fn check_name(text: &str) -> Result<(), TopicError> {
    check(text, &Levels { reserved: true, wildcards: false })
}

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Which topics a reader asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPattern {
    text: Arc<str>,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Shape {
    /// No wildcard.
    Exact,
    /// `**` alone.
    All,
    /// Wildcards among its levels; all matches begin with the first `prefix_bytes` of the text.
    Levels { prefix_bytes: usize },
}

impl TopicPattern {
    /// The pattern that a request names.
    pub fn parse(text: &str) -> Result<TopicPattern, TopicError> {
        check(text, &Levels { reserved: false, wildcards: true })?;
        let shape = match text.find('*') {
            None => Shape::Exact,
            Some(0) if text == "**" => Shape::All,
            // `a/**` matches `a` as well, so the slash is in the prefix only before a `*`.
            Some(at) if text[at..].starts_with("**") => {
                Shape::Levels { prefix_bytes: at.saturating_sub(1) }
            }
            Some(at) => Shape::Levels { prefix_bytes: at },
        };
        Ok(TopicPattern { text: text.into(), shape })
    }

    /// `**`: every topic that is not reserved.
    pub fn all() -> TopicPattern {
        TopicPattern { text: "**".into(), shape: Shape::All }
    }

    /// The pattern that matches this topic alone, reserved or not.
    pub fn of_topic(topic: &Topic) -> TopicPattern {
        TopicPattern { text: topic.0.clone(), shape: Shape::Exact }
    }

    /// Whether it matches a topic. Wildcards never match a level with a leading `$`.
    pub fn matches(&self, topic: &str) -> bool {
        match self.shape {
            Shape::Exact => *self.text == *topic,
            Shape::All => !has_reserved_level(topic),
            Shape::Levels { .. } => matches_levels(&self.text, topic),
        }
    }

    /// The one topic that it matches, if it has no wildcard.
    pub fn exact(&self) -> Option<&str> {
        (self.shape == Shape::Exact).then_some(&*self.text)
    }

    /// Whether it matches every topic that is not reserved.
    pub fn is_all(&self) -> bool {
        self.shape == Shape::All
    }

    /// The bytes that every topic it matches begins with; all of it if it is exact.
    pub fn literal_prefix(&self) -> &str {
        match self.shape {
            Shape::Exact => &self.text,
            Shape::All => "",
            Shape::Levels { prefix_bytes } => &self.text[..prefix_bytes],
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(formatter)
    }
}

fn matches_levels(pattern: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in pattern.split('/') {
        if wanted == "**" {
            return levels.all(|level| !level.starts_with('$'));
        }
        match levels.next() {
            Some(level) if wanted == "*" && !level.starts_with('$') => {}
            Some(level) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

fn has_reserved_level(topic: &str) -> bool {
    topic.starts_with('$') || topic.contains("/$")
}

/// What the levels may hold beyond plain characters.
struct Levels {
    reserved: bool,
    wildcards: bool,
}

fn check(text: &str, allowed: &Levels) -> Result<(), TopicError> {
    if is_plain(text) { Ok(()) } else { check_levels(text, allowed) }
}

/// What keeps [`is_plain`] from saying so.
const ODD: u8 = 1;
/// The same where a level begins.
const ODD_FIRST: u8 = 2;
/// What ends a level.
const SLASH: u8 = 4;

static CLASSES: [u8; 256] = {
    let mut classes = [ODD; 256];
    let mut byte = 0x20_u8;
    while byte < 0x7f {
        classes[byte as usize] = match byte {
            b'*' | b'$' => ODD,
            b'/' => SLASH | ODD_FIRST,
            b'.' => ODD_FIRST,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Whether it is a topic and a pattern without a doubt, as nearly all are: nothing but printed ASCII, and no
/// character that means something.
fn is_plain(text: &str) -> bool {
    // Without a branch for each byte: where each event has a topic of its own, each is looked at here.
    let (mut odd, mut slashes, mut refused) = (0, 0, ODD | ODD_FIRST);
    for byte in text.bytes() {
        let class = CLASSES[usize::from(byte)];
        odd |= class & refused;
        let slash = (class & SLASH) / SLASH;
        slashes += usize::from(slash);
        refused = ODD | (slash * ODD_FIRST);
    }
    let ends_a_level = refused == ODD;
    odd == 0 && ends_a_level && slashes < LEVELS_MAX && text.len() <= LEVEL_BYTES_MAX
}

fn check_levels(text: &str, allowed: &Levels) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { bytes: text.len() });
    }
    let levels = text.bytes().filter(|byte| *byte == b'/').count() + 1;
    if levels > LEVELS_MAX {
        return Err(TopicError::TooManyLevels { levels });
    }
    for (level, part) in (1..).zip(text.split('/')) {
        if part.is_empty() {
            return Err(TopicError::EmptyLevel { level });
        }
        if part.len() > LEVEL_BYTES_MAX {
            return Err(TopicError::LevelTooLong { level, bytes: part.len() });
        }
        if part == "." || part == ".." {
            return Err(TopicError::DotLevel { level });
        }
        if part.starts_with('$') && !allowed.reserved {
            return Err(TopicError::ReservedLevel { level });
        }
        let wildcard = part == "*" || (part == "**" && level == levels);
        if part.contains('*') && !(allowed.wildcards && wildcard) {
            return Err(TopicError::Wildcard { level });
        }
        if part.chars().any(char::is_control) {
            return Err(TopicError::ControlCharacter { level });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_met_and_passed_by_one() {
        let level = "l".repeat(LEVEL_BYTES_MAX);
        assert!(Topic::parse(&level).is_ok());
        assert_eq!(
            Topic::parse(&format!("a/{level}l")),
            Err(TopicError::LevelTooLong { level: 2, bytes: 129 })
        );
        let whole = [&level[..127]; 4].join("/");
        assert_eq!(whole.len(), 511);
        assert!(Topic::parse(&format!("x{whole}")).is_ok());
        assert_eq!(Topic::parse(&format!("x{whole}/")), Err(TopicError::TooLong { bytes: 513 }));
        assert!(Topic::parse(&["a"; 16].join("/")).is_ok());
        assert_eq!(
            Topic::parse(&["a"; 17].join("/")),
            Err(TopicError::TooManyLevels { levels: 17 })
        );
        assert_eq!(Topic::parse(""), Err(TopicError::Empty));
    }

    #[test]
    fn levels_are_checked_one_by_one() {
        for (text, error) in [
            ("/a", TopicError::EmptyLevel { level: 1 }),
            ("a//b", TopicError::EmptyLevel { level: 2 }),
            ("a/", TopicError::EmptyLevel { level: 2 }),
            ("a/../b", TopicError::DotLevel { level: 2 }),
            (".", TopicError::DotLevel { level: 1 }),
            ("$groups/a", TopicError::ReservedLevel { level: 1 }),
            ("a/$b", TopicError::ReservedLevel { level: 2 }),
            ("a/*", TopicError::Wildcard { level: 2 }),
            ("a*", TopicError::Wildcard { level: 1 }),
            ("a/b\u{0}", TopicError::ControlCharacter { level: 2 }),
            ("a\u{85}", TopicError::ControlCharacter { level: 1 }),
        ] {
            assert_eq!(Topic::parse(text), Err(error), "{text:?}");
        }
        for text in ["a", "...", "a$", "ä/ö ü", " a ", "a/.b"] {
            assert!(Topic::parse(text).is_ok(), "{text:?}");
        }
        assert!(Topic::parse_reserved("$groups/a").is_ok());
    }

    /// All texts of up to five of these, and long ones.
    #[test]
    fn what_is_plain_is_without_a_doubt_a_topic() {
        let letters = ["a", "/", ".", "*", "$", " ", "\u{1f}", "\u{7f}", "é"];
        let mut texts = vec![String::new()];
        let (mut from, mut plain) = (0, 0);
        for _ in 0..5 {
            let end = texts.len();
            for at in from..end {
                texts.extend(letters.map(|letter| format!("{}{letter}", texts[at])));
            }
            from = end;
        }
        texts.extend([15, 16, 17, 64, 65].map(|levels| vec!["a"; levels].join("/")));
        texts.extend([127, 128, 129].map(|bytes| "a".repeat(bytes)));
        for text in texts.iter().filter(|text| is_plain(text)) {
            for (reserved, wildcards) in [(false, false), (true, true)] {
                assert_eq!(check_levels(text, &Levels { reserved, wildcards }), Ok(()), "{text:?}");
            }
            plain += 1;
        }
        assert!(plain > 200 && is_plain(&"a".repeat(128)) && is_plain(&["a"; 16].join("/")));
    }

    #[test]
    fn patterns_match_whole_levels() {
        for (pattern, topic, matches) in [
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("**", "$a", false),
            ("**", "a/$b", false),
            ("*", "a", true),
            ("*", "$a", false),
            ("*", "a/b", false),
            ("a/*", "a/b", true),
            ("a/*", "a", false),
            ("a/*", "a/b/c", false),
            ("a/*", "a/$b", false),
            ("a/**", "a", true),
            ("a/**", "a/b/c", true),
            ("a/**", "ab", false),
            ("a/**", "a/$b", false),
            ("*/b/**", "a/b", true),
            ("*/b/**", "a/c", false),
            ("a/*/c", "a/b/c", true),
            ("a/b", "a/b", true),
            ("a/b", "a", false),
        ] {
            let parsed = TopicPattern::parse(pattern).expect(pattern);
            assert_eq!(parsed.matches(topic), matches, "{pattern} {topic}");
            assert!(!matches || topic.starts_with(parsed.literal_prefix()), "{pattern} {topic}");
        }
    }

    #[test]
    fn misplaced_wildcards_are_refused() {
        for (text, level) in [("**/a", 1), ("a*", 1), ("a/b*c", 2), ("***", 1), ("a/***", 2)] {
            assert_eq!(TopicPattern::parse(text), Err(TopicError::Wildcard { level }), "{text}");
        }
        assert_eq!(TopicPattern::parse("$a"), Err(TopicError::ReservedLevel { level: 1 }));
        assert_eq!(TopicPattern::parse("a//*"), Err(TopicError::EmptyLevel { level: 2 }));
    }

    #[test]
    fn prefixes_are_what_all_matches_begin_with() {
        for (pattern, prefix) in
            [("**", ""), ("*", ""), ("a/**", "a"), ("a/*", "a/"), ("a/b", "a/b"), ("a/*/b", "a/")]
        {
            let pattern = TopicPattern::parse(pattern).expect(pattern);
            assert_eq!(pattern.literal_prefix(), prefix);
        }
        assert_eq!(TopicPattern::parse("a/b").expect("parses").exact(), Some("a/b"));
        assert!(TopicPattern::parse("**").expect("parses").is_all());
        assert_eq!(TopicPattern::parse("**").expect("parses"), TopicPattern::all());
    }
}
