//! Request heads from any bytes: what the parser makes of them does not depend on how they come, and
//! everything that a head can be asked has an answer.
//!
//! The low bits of the first byte say in how large pieces the rest comes; its highest puts a request
//! line and a Host before it, so that also the fields are reached soon.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strandline::http::head::{FieldName, Head};
use strandline::http::origin::OriginRules;
use strandline::http::request::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX, HeadParser, Parsed};
use strandline::http::response::{AnswerTo, write_options, write_problem};
use strandline::http::route::route;
use strandline::problem::Problem;

/// The heads of a stream of requests without bodies, and how it ended.
fn parse_all(input: &[u8], piece_bytes: usize) -> (Vec<Head>, usize, Option<Problem>) {
    let (mut parser, mut heads) = (HeadParser::default(), Vec::new());
    let (mut start, mut end) = (0, piece_bytes.min(input.len()));
    loop {
        match parser.parse(&input[start..end]) {
            Parsed::Incomplete if end == input.len() => return (heads, start, None),
            Parsed::Incomplete => end = (end + piece_bytes).min(input.len()),
            Parsed::Request { head, bytes } => {
                assert!(0 < bytes && bytes <= HEAD_BYTES_MAX && bytes <= end - start);
                start += bytes;
                heads.push(head);
            }
            Parsed::Refused(problem) => {
                assert!(problem.closes());
                return (heads, start, Some(problem));
            }
        }
    }
}

fn ask(head: &Head) {
    assert!(head.fields().count() <= HEAD_FIELDS_MAX);
    assert!(head.path().starts_with('/') || head.path() == "*");
    assert!(!head.path().contains(['?', '#', ' ', '\r', '\n', '\0']));
    for (name, value) in head.fields() {
        assert!(!name.is_empty() && !name.contains([' ', ':', '\r', '\n']));
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
    for name in [FieldName::Accept, FieldName::EventType, FieldName::LastEventId] {
        let _ = head.text(name);
        head.tokens(name).for_each(drop);
    }
    let address = "127.0.0.1:7400".parse().expect("an address");
    let allowed = ["https://app.example".to_string()];
    let rules = OriginRules::new(address, None, &allowed).expect("an origin");
    let mut out = Vec::new();
    let mut to = AnswerTo::new(head);
    let refused = rules.check_host(head).and_then(|()| {
        to.cors = rules.check_origin(head, true)?;
        route(head.method(), head.path()).map(drop)
    });
    match refused {
        Err(problem) => write_problem(&problem, &to, &mut out),
        Ok(()) => write_options(head, "GET", &to, &mut out),
    }
    let text = String::from_utf8(out).expect("an answer is UTF-8 whatever was asked");
    let (answer_head, _) = text.split_once("\r\n\r\n").expect("a head ends");
    assert!(!answer_head.replace("\r\n", "").contains(['\r', '\n', '\0']), "fields stay whole");
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let start: &[u8] = match first & 0x80 {
        0 => b"",
        _ => b"GET /api/v1/topics/a HTTP/1.1\r\nHost: localhost\r\n",
    };
    let input = [start, rest].concat();
    let whole = parse_all(&input, input.len().max(1));
    assert_eq!(parse_all(&input, usize::from(first & 0x7f).max(1)), whole);
    whole.0.iter().for_each(ask);
});
