//! `application/x-www-form-urlencoded`, decoded strictly.
//!
//! `+` is a space, `%hh` a byte; a `%` without two hexadecimal digits is 400, since whoever sent it
//! did not encode. An empty piece between two `&` is nothing. Names must be UTF-8; values may be
//! any bytes, and those that ask for text refuse what is not UTF-8.

use std::borrow::Cow;

use crate::{
    input::quoted,
    problem::{Problem, ProblemKind},
};

/// The parameters of a query, in the order in which they came.
#[derive(Debug, Clone)]
pub struct Form<'a> {
    rest: &'a [u8],
}

/// One parameter of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its name, decoded.
    pub name: Cow<'a, str>,
    /// Its value, decoded; empty if there was no `=`.
    pub value: Cow<'a, [u8]>,
}

impl<'a> Form<'a> {
    /// The parameters of `query`, which is what follows the `?`.
    pub fn new(query: &'a [u8]) -> Form<'a> {
        Form { rest: query }
    }
}

impl<'a> Iterator for Form<'a> {
    type Item = Result<Parameter<'a>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let end = memchr::memchr(b'&', self.rest).unwrap_or(self.rest.len());
            let piece = &self.rest[..end];
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !piece.is_empty() {
                return Some(parameter(piece));
            }
        }
    }
}

fn parameter(piece: &[u8]) -> Result<Parameter<'_>, Problem> {
    let (name, value) = match memchr::memchr(b'=', piece) {
        Some(at) => (&piece[..at], &piece[at + 1..]),
        None => (piece, &piece[piece.len()..]),
    };
    let invalid = |what: &str| {
        let detail = format!("{} in the query {what}", quoted(&String::from_utf8_lossy(piece)));
        Problem::new(ProblemKind::InvalidParameter, detail)
    };
    let bad_escape = || invalid("has a % that is not followed by two hexadecimal digits");
    let name = match decode_form(name).ok_or_else(bad_escape)? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    };
    let name = name.ok_or_else(|| invalid("has a name that is not UTF-8"))?;
    Ok(Parameter { name, value: decode_form(value).ok_or_else(bad_escape)? })
}

/// Decodes `%hh`, strictly: the form that header values have. `None` at a broken escape.
pub fn decode_percent(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if memchr::memchr(b'%', text).is_none() {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(*bytes.next()?)? << 4 | hex_digit(*bytes.next()?)?,
            _ => *byte,
        });
    }
    Some(Cow::Owned(decoded))
}

/// Decodes `%hh`, and `+` as a space.
fn decode_form(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if memchr::memchr(b'+', text).is_none() {
        return decode_percent(text);
    }
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    decode_percent(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(query: &str) -> Result<Vec<(String, Vec<u8>)>, Problem> {
        Form::new(query.as_bytes())
            .map(|item| item.map(|p| (p.name.into_owned(), p.value.into_owned())))
            .collect()
    }

    /// API: "Queries are form-decoded".
    #[test]
    fn pieces_are_form_decoded() {
        let pair = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
        assert_eq!(all(""), Ok(vec![]));
        assert_eq!(all("&&"), Ok(vec![]));
        assert_eq!(
            all("topic=a%2Fb+c&&x=%ff&flag&e=&=v&a=b=c&%74opic=%e2%82%AC"),
            Ok(vec![
                pair("topic", b"a/b c"),
                pair("x", b"\xff"),
                pair("flag", b""),
                pair("e", b""),
                pair("", b"v"),
                pair("a", b"b=c"),
                pair("topic", "€".as_bytes()),
            ])
        );
    }

    #[test]
    fn a_broken_escape_is_refused() {
        for query in ["a=%", "a=%4", "a=%zz", "%=1", "a=%+1", "%ff=1"] {
            let problem = all(query).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidParameter, "{query}");
        }
        assert_eq!(decode_percent(b"a+b%20c").as_deref(), Some(&b"a+b c"[..]));
        assert_eq!(decode_percent(b"100%"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(query in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Form::new(&query).collect::<Result<Vec<_>, _>>();
        }

        #[test]
        fn what_was_encoded_comes_back(value in prop::collection::vec(any::<u8>(), 0..60)) {
            let text: String = value.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(all(&format!("v={text}")).unwrap()[0].1.clone(), value);
        }
    }
}
