//! Walking over JSON in place: its values as the bytes that they stand in, without a tree and without
//! an allocation.
//!
//! This is for data that [`super::check`] let into the log. It is read once for every filter that
//! looks into it, so it is not checked again: bytes that are not JSON after all make the walk end with
//! `None` or at some value, never a panic and never a byte outside. What it costs, and what the well-known
//! parsers cost in its place, is in `docs/ARCHITECTURE.md`.

use std::borrow::Cow;

/// A place in a JSON text.
pub struct Walk<'a> {
    json: &'a [u8],
    at: usize,
}

/// The kinds of JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`, `false`
    Bool,
    /// A number
    Number,
    /// A string
    Text,
    /// An array
    Array,
    /// An object
    Object,
}

impl Kind {
    /// What the value is that begins with this byte.
    pub fn of(first: u8) -> Option<Kind> {
        match first {
            b'n' => Some(Kind::Null),
            b't' | b'f' => Some(Kind::Bool),
            b'-' | b'0'..=b'9' => Some(Kind::Number),
            b'"' => Some(Kind::Text),
            b'[' => Some(Kind::Array),
            b'{' => Some(Kind::Object),
            _ => None,
        }
    }
}

/// The inside of a JSON string, between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside<'a> {
    bytes: &'a [u8],
    is_escaped: bool,
}

impl<'a> Inside<'a> {
    /// The inside of a string that stands with its quotes.
    pub fn of(string: &'a [u8]) -> Option<Inside<'a>> {
        let bytes = string.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some(Inside { bytes, is_escaped: memchr::memchr(b'\\', bytes).is_some() })
    }

    /// Whether its characters are these.
    pub fn is(self, text: &str) -> bool {
        match self.is_escaped {
            false => self.bytes == text.as_bytes(),
            true => *self.characters() == *text.as_bytes(),
        }
    }

    /// Its characters in UTF-8. Half a surrogate pair becomes the three bytes that it would have if it
    /// were a character: they equal no text, and keep its place in the order.
    pub fn characters(self) -> Cow<'a, [u8]> {
        if self.is_escaped { unescape(self.bytes).into() } else { self.bytes.into() }
    }
}

impl<'a> Walk<'a> {
    /// At the beginning of `json`.
    pub fn new(json: &'a [u8]) -> Walk<'a> {
        Walk { json, at: 0 }
    }

    /// The kind of the value that comes next, behind white space.
    pub fn kind(&mut self) -> Option<Kind> {
        self.pass_space();
        Kind::of(*self.json.get(self.at)?)
    }

    /// Where it is. With [`Walk::since`], the bytes of a value.
    pub fn place(&self) -> usize {
        self.at
    }

    /// The bytes from `place` on.
    pub fn since(&self, place: usize) -> &'a [u8] {
        &self.json[place..self.at]
    }

    /// Passes over the next value and returns its bytes.
    pub fn value(&mut self) -> Option<&'a [u8]> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::Text => {
                self.string()?;
            }
            Kind::Array | Kind::Object => {
                self.at += 1;
                self.pass_rest()?;
            }
            Kind::Null | Kind::Bool | Kind::Number => {
                let rest = &self.json[start..];
                let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}') || is_space(*byte);
                self.at += rest.iter().position(is_end).unwrap_or(rest.len());
            }
        }
        Some(self.since(start))
    }

    /// Calls `each` with the name of every member of the object that comes next; `each` must pass over
    /// the member's value.
    #[inline]
    pub fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, Inside<'a>) -> Option<()>,
    ) -> Option<()> {
        if !self.enter(b'{', b'}')? {
            return Some(());
        }
        loop {
            self.pass_space();
            let name = self.string()?;
            self.pass_space();
            if *self.json.get(self.at)? != b':' {
                return None;
            }
            self.at += 1;
            each(self, name)?;
            if !self.goes_on(b'}')? {
                return Some(());
            }
        }
    }

    /// Calls `each` with the index of every element of the array that comes next; `each` must pass over
    /// the element, and returns whether it wants more of them.
    pub fn array(&mut self, mut each: impl FnMut(&mut Self, usize) -> Option<bool>) -> Option<()> {
        if !self.enter(b'[', b']')? {
            return Some(());
        }
        for index in 0.. {
            let wants_more = each(self, index)?;
            if !wants_more {
                return self.pass_rest();
            }
            if !self.goes_on(b']')? {
                break;
            }
        }
        Some(())
    }

    /// Passes over the opening bracket, and over the closing one if nothing is between them: then false.
    fn enter(&mut self, open: u8, close: u8) -> Option<bool> {
        self.pass_space();
        if *self.json.get(self.at)? != open {
            return None;
        }
        self.at += 1;
        self.pass_space();
        let is_empty = *self.json.get(self.at)? == close;
        self.at += usize::from(is_empty);
        Some(!is_empty)
    }

    /// Passes over a comma, or over the closing bracket: then false.
    fn goes_on(&mut self, close: u8) -> Option<bool> {
        self.pass_space();
        let byte = *self.json.get(self.at)?;
        if byte != b',' && byte != close {
            return None;
        }
        self.at += 1;
        Some(byte == b',')
    }

    /// Passes over what is left of an array or object, its closing bracket included.
    fn pass_rest(&mut self) -> Option<()> {
        let mut depth = 1;
        loop {
            let rest = self.json.get(self.at..)?;
            let is_of_structure = |byte: &u8| matches!(byte, b'"' | b'[' | b']' | b'{' | b'}');
            self.at += rest.iter().position(is_of_structure)?;
            match self.json[self.at] {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                _ => depth -= 1,
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Passes over a string.
    fn string(&mut self) -> Option<Inside<'a>> {
        if *self.json.get(self.at)? != b'"' {
            return None;
        }
        let start = self.at + 1;
        let (mut end, mut is_escaped) = (start, false);
        loop {
            end += quote_or_escape(self.json.get(end..)?)?;
            if self.json[end] == b'"' {
                self.at = end + 1;
                return Some(Inside { bytes: &self.json[start..end], is_escaped });
            }
            is_escaped = true;
            end += 2;
        }
    }

    #[inline]
    fn pass_space(&mut self) {
        while self.json.get(self.at).is_some_and(|byte| is_space(*byte)) {
            self.at += 1;
        }
    }
}

/// Where the next `"` or `\` is. Most strings are short, names above all, and over before a search by wide
/// registers has begun: the first bytes are looked at eight at a time, in one register.
fn quote_or_escape(text: &[u8]) -> Option<usize> {
    const SHORT_BYTES: usize = 32;
    let mut at = 0;
    while at < SHORT_BYTES
        && let Some(eight) = text[at..].first_chunk::<8>()
    {
        let eight = u64::from_le_bytes(*eight);
        let found = zero_bytes(eight ^ (ONES * 0x22)) | zero_bytes(eight ^ (ONES * 0x5c));
        if found != 0 {
            return Some(at + (found.trailing_zeros() / u8::BITS) as usize);
        }
        at += 8;
    }
    Some(at + memchr::memchr2(b'"', b'\\', &text[at..])?)
}

const ONES: u64 = u64::from_le_bytes([1; 8]);

/// The highest bit of each byte that is 0; bytes above the first of them may be marked too.
fn zero_bytes(eight: u64) -> u64 {
    eight.wrapping_sub(ONES) & !eight & (ONES << 7)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The characters of a string with escapes. An escape that is none stands for itself.
fn unescape(inside: &[u8]) -> Vec<u8> {
    let mut characters = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        characters.extend_from_slice(&rest[..at]);
        let escape = &rest[at..];
        let (unit, length) = match escape.get(1) {
            Some(b'n') => (u32::from(b'\n'), 2),
            Some(b't') => (u32::from(b'\t'), 2),
            Some(b'r') => (u32::from(b'\r'), 2),
            Some(b'b') => (8, 2),
            Some(b'f') => (12, 2),
            Some(byte @ (b'"' | b'\\' | b'/')) => (u32::from(*byte), 2),
            Some(b'u') => match code_unit(escape) {
                Some(high @ 0xd800..0xdc00) => match code_unit(&escape[6..]) {
                    Some(low @ 0xdc00..0xe000) => {
                        (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12)
                    }
                    _ => (high, 6),
                },
                Some(unit) => (unit, 6),
                None => (u32::from(b'\\'), 1),
            },
            _ => (u32::from(b'\\'), 1),
        };
        push_code_point(&mut characters, unit);
        rest = &escape[length..];
    }
    characters.extend_from_slice(rest);
    characters
}

/// The number in `\uXXXX` at the start of `text`.
fn code_unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |number, digit| {
        char::from(*digit).to_digit(16).map(|digit| number << 4 | digit)
    })
}

/// Appends a code point in UTF-8, half a surrogate pair too.
fn push_code_point(out: &mut Vec<u8>, code_point: u32) {
    match char::from_u32(code_point) {
        Some(character) => {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        None => {
            let byte = |marker: u32, shift: u32| {
                u8::try_from(marker | code_point >> shift & 0x3f).expect("a byte by its mask")
            };
            out.extend_from_slice(&[byte(0xe0, 12), byte(0x80, 6), byte(0x80, 0)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn text(string: &str) -> Vec<u8> {
        Inside::of(string.as_bytes()).unwrap().characters().into_owned()
    }

    /// Reads a value by walking, all the way down.
    fn tree(walk: &mut Walk<'_>) -> Option<Value> {
        Some(match walk.kind()? {
            Kind::Object => {
                let mut members = serde_json::Map::new();
                walk.object(|walk, name| {
                    let name = String::from_utf8(name.characters().into_owned()).ok()?;
                    members.insert(name, tree(walk)?);
                    Some(())
                })?;
                Value::Object(members)
            }
            Kind::Array => {
                let mut elements = Vec::new();
                walk.array(|walk, index| {
                    assert_eq!(index, elements.len());
                    elements.push(tree(walk)?);
                    Some(true)
                })?;
                Value::Array(elements)
            }
            Kind::Text => {
                let inside = Inside::of(walk.value()?)?;
                Value::String(String::from_utf8(inside.characters().into_owned()).ok()?)
            }
            Kind::Null | Kind::Bool | Kind::Number => serde_json::from_slice(walk.value()?).ok()?,
        })
    }

    #[test]
    fn values_keep_their_bytes() {
        let json = br#" { "a" : [ 1.50 , "]}\"" ,{}] , "b\n":{"c":null} , "d":-0 } "#;
        let mut seen = Vec::new();
        let mut walk = Walk::new(json);
        walk.object(|walk, name| {
            let name = String::from_utf8(name.characters().into_owned()).unwrap();
            seen.push((name, String::from_utf8(walk.value()?.to_vec()).unwrap()));
            Some(())
        })
        .unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            seen,
            [pair("a", r#"[ 1.50 , "]}\"" ,{}]"#), pair("b\n", "{\"c\":null}"), pair("d", "-0")]
        );
        assert_eq!(walk.place(), json.len() - 1);
    }

    #[test]
    fn an_array_may_be_left_early() {
        let mut walk = Walk::new(br#"{"a":[1,["x]"],3,{"b":[4]}],"c":5}"#);
        let (mut first, mut last) = (None, None);
        walk.object(|walk, name| match &*name.characters() {
            b"a" => walk.array(|walk, index| {
                first = walk.value();
                Some(index < 1)
            }),
            _ => {
                last = walk.value();
                Some(())
            }
        })
        .unwrap();
        assert_eq!((first, last), (Some(&br#"["x]"]"#[..]), Some(&b"5"[..])));
    }

    #[test]
    fn escapes_become_characters() {
        assert_eq!(text(r#""\u0070rice""#), b"price");
        assert_eq!(text(r#""\"\\\/\b\f\n\r\t€""#), "\"\\/\u{8}\u{c}\n\r\t€".as_bytes());
        assert_eq!(text(r#""\uD83D\uDE00\u20ac""#), "😀€".as_bytes());
        assert_eq!(text(r#""\ud83d""#), b"\xed\xa0\xbd");
        assert_eq!(text(r#""\ud83d\ud83d\ude00""#), b"\xed\xa0\xbd\xf0\x9f\x98\x80");
        assert_eq!(text(r#""\ude00x\ud83d\n""#), b"\xed\xb8\x80x\xed\xa0\xbd\n");
    }

    #[test]
    fn what_is_not_json_ends_the_walk() {
        for json in
            ["", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "[", "[1", "{1:2}", "{\"a\" 1}", "[1 2]"]
        {
            assert_eq!(tree(&mut Walk::new(json.as_bytes())), None, "{json}");
        }
        assert_eq!(text(r#""\u12""#), br"\u12");
        assert_eq!(Inside::of(b"\""), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1000i32..1000).prop_map(|number| Value::from(f64::from(number) / 8.0)),
            "[a\"\\\\\n€/]{0,5}".prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("[ab\"\\\\€]{0,3}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_parser_that_builds_values(value in any_json(), pretty: bool) {
            let json = match pretty {
                true => serde_json::to_string_pretty(&value).unwrap(),
                false => value.to_string(),
            };
            prop_assert_eq!(tree(&mut Walk::new(json.as_bytes())), Some(value));
            let mut walk = Walk::new(json.as_bytes());
            prop_assert_eq!(walk.value(), Some(json.as_bytes()));
        }

        #[test]
        fn any_bytes_are_walked_without_panic(
            json in "[\\[\\]{}\",:\\\\u0d8a ]{0,40}",
        ) {
            let _ = tree(&mut Walk::new(json.as_bytes()));
            let _ = Walk::new(json.as_bytes()).value();
        }
    }
}
