//! What a head says about the message itself: how long its body is, whether the connection stays,
//! what the client waits for before it sends the body.

use super::head::{BodyLength, ConnectionOptions, Expectation, FieldName, Head, Version};
use crate::problem::{Problem, ProblemKind};

/// Settles where the body ends, or refuses to guess.
pub(super) fn body_length(head: &Head) -> Result<BodyLength, Problem> {
    let ambiguous = |detail| Err(Problem::new(ProblemKind::AmbiguousLength, detail));
    let codings = head.values(FieldName::TransferEncoding).count();
    let lengths = head.values(FieldName::ContentLength).count();
    match (codings, lengths) {
        (0, 0) => Ok(BodyLength::Unstated),
        (0, 1) => {
            let digits = head.value(FieldName::ContentLength).unwrap_or_default();
            match parse_length(digits) {
                Some(bytes) => Ok(BodyLength::Sized(bytes)),
                None => ambiguous("Content-Length is not a plain number"),
            }
        }
        (1, 0) if head.version == Version::Http10 => ambiguous("HTTP/1.0 has no Transfer-Encoding"),
        (1, 0) => {
            let coding = head.value(FieldName::TransferEncoding).unwrap_or_default();
            let is_chunked = |token: &[u8]| token.eq_ignore_ascii_case(b"chunked");
            match coding.iter().rposition(|byte| *byte == b',') {
                None if is_chunked(coding) => Ok(BodyLength::Chunked),
                Some(comma) if is_chunked(coding[comma + 1..].trim_ascii()) => {
                    let detail = "Transfer-Encoding must be `chunked` alone";
                    Err(Problem::new(ProblemKind::UnsupportedTransferCoding, detail))
                }
                _ => ambiguous("Transfer-Encoding does not end in `chunked`"),
            }
        }
        (0, _) => ambiguous("Content-Length stands more than once"),
        (_, 0) => ambiguous("Transfer-Encoding stands more than once"),
        _ => ambiguous("both Content-Length and Transfer-Encoding"),
    }
}

/// `1*DIGIT`: no sign, no space, no list, and it fits.
pub(crate) fn parse_length(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(super) fn connection_options(head: &Head) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    for token in head.tokens(FieldName::Connection) {
        options.close |= token.eq_ignore_ascii_case(b"close");
        options.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        options.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
    }
    options
}

pub(super) fn expectation(head: &Head) -> Expectation {
    let mut expects = false;
    for token in head.tokens(FieldName::Expect) {
        if !token.eq_ignore_ascii_case(b"100-continue") {
            return Expectation::Unknown;
        }
        expects = true;
    }
    // RFC 9110 (10.1.1): an HTTP/1.0 client cannot mean it, and without a body nobody waits.
    let has_body = !matches!(head.body_length, BodyLength::Unstated | BodyLength::Sized(0));
    match expects && has_body && head.version == Version::Http11 {
        true => Expectation::Continue,
        false => Expectation::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{HeadParser, Parsed};

    fn parse(start: &str, fields: &str) -> Result<Head, Problem> {
        let text = format!("{start}\r\nHost: a\r\n{fields}\r\n");
        match HeadParser::default().parse(text.as_bytes()) {
            Parsed::Request { head, .. } => Ok(head),
            Parsed::Refused(problem) => Err(problem),
            Parsed::Incomplete => panic!("{text:?} is not whole"),
        }
    }

    fn length(fields: &str) -> Result<BodyLength, (u16, &'static str)> {
        let length = parse("POST / HTTP/1.1", fields).map(|head| head.body_length());
        length.map_err(|problem| {
            assert!(problem.closes());
            (problem.status(), problem.slug())
        })
    }

    #[test]
    fn one_plain_length_or_chunked() {
        for (fields, expected) in [
            ("", BodyLength::Unstated),
            ("Content-Length: 0\r\n", BodyLength::Sized(0)),
            ("Content-Length: 42\r\n", BodyLength::Sized(42)),
            ("Content-Length: 18446744073709551615\r\n", BodyLength::Sized(u64::MAX)),
            ("Transfer-Encoding: chunked\r\n", BodyLength::Chunked),
            ("transfer-encoding: CHUNKED\r\n", BodyLength::Chunked),
        ] {
            assert_eq!(length(fields), Ok(expected), "{fields:?}");
        }
    }

    /// Both Content-Length and Transfer-Encoding, or two lengths: one parser may go by this, another by that.
    #[test]
    fn lengths_that_two_parsers_could_read_differently_are_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5,6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5.0\r\n",
            "Content-Length:\r\n",
            "Content-Length: five\r\n",
            "Content-Length: \u{665}\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            assert_eq!(length(fields), Err((400, "ambiguous-length")), "{fields:?}");
        }
        let with_vertical_tab = "Transfer-Encoding: \x0bchunked\r\n";
        assert_eq!(length(with_vertical_tab), Err((400, "invalid-head")));
    }

    /// RFC 9112, 6.1: a coding that a server does not understand is 501.
    #[test]
    fn a_coding_beside_chunked_is_501() {
        for fields in
            ["Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: chunked, chunked\r\n"]
        {
            assert_eq!(length(fields), Err((501, "unsupported-transfer-coding")), "{fields:?}");
        }
    }

    #[test]
    fn http_1_0_has_no_transfer_codings() {
        let problem = parse("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n").unwrap_err();
        assert_eq!((problem.status(), problem.slug()), (400, "ambiguous-length"));
    }

    #[test]
    fn the_connection_stays_as_its_version_and_options_say() {
        for (start, fields, stays) in [
            ("GET / HTTP/1.1", "", true),
            ("GET / HTTP/1.1", "Connection: keep-alive\r\n", true),
            ("GET / HTTP/1.1", "Connection: close\r\n", false),
            ("GET / HTTP/1.1", "Connection: Foo, CLOSE\r\n", false),
            ("GET / HTTP/1.1", "Connection: foo\r\nConnection: close\r\n", false),
            ("GET / HTTP/1.1", "Connection: closed\r\n", true),
            ("GET / HTTP/1.0", "", false),
            ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("GET / HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            assert_eq!(parse(start, fields).unwrap().keep_alive(), stays, "{start} {fields:?}");
        }
    }

    /// API §2: "`100 Continue` only once the head is accepted"; §9: "417".
    #[test]
    fn only_100_continue_can_be_expected() {
        let sized = "Content-Length: 5\r\n";
        for (start, fields, expects) in [
            ("POST / HTTP/1.1", "Content-Length: 5\r\nExpect: 100-continue\r\n", true),
            ("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\n", true),
            ("POST / HTTP/1.1", sized, false),
            ("POST / HTTP/1.1", "Expect: 100-continue\r\n", false),
            ("POST / HTTP/1.1", "Content-Length: 0\r\nExpect: 100-continue\r\n", false),
            ("POST / HTTP/1.0", "Content-Length: 5\r\nExpect: 100-continue\r\n", false),
        ] {
            let head = parse(start, fields).unwrap();
            assert_eq!(head.expects_continue(), expects, "{start} {fields:?}");
            assert_eq!(head.check_expectation(), Ok(()), "{start} {fields:?}");
        }
        for fields in ["Expect: 200-ok\r\n", "Expect: 100-continue, more\r\n"] {
            let head = parse("POST / HTTP/1.1", fields).unwrap();
            let problem = head.check_expectation().unwrap_err();
            assert_eq!((problem.status(), problem.slug()), (417, "expectation-failed"));
            assert!(problem.closes());
        }
    }

    #[test]
    fn websocket_is_asked_for_by_connection_and_upgrade_together() {
        let both = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
        for (start, fields, asks) in [
            ("GET / HTTP/1.1", both, true),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n", true),
            ("GET / HTTP/1.1", "Upgrade: websocket\r\n", false),
            ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c\r\n", false),
            ("GET / HTTP/1.0", both, false),
            ("POST / HTTP/1.1", both, false),
        ] {
            let head = parse(start, fields).unwrap();
            assert_eq!(head.asks_for_websocket(), asks, "{start} {fields:?}");
        }
    }
}
