//! From bytes to request heads: bounded, strict, resumable.
//!
//! ```text
//! [CRLF]                             one empty line before a head is skipped (RFC 9112, 2.2)
//! method SP target SP version CRLF
//! *( name ":" OWS value OWS CRLF )   at most 64 fields
//! CRLF                               all of it within 16 KiB
//! ```
//! Two parsers that read the same bytes differently let one request hide in another. So whatever
//! RFC 9112 lets a server repair is refused here, and the connection ends: lines that end in a bare
//! LF, a bare CR anywhere, folded lines, a space before a colon, two lengths, lengths that are no
//! plain digits, a length beside a transfer coding, any coding but `chunked`.
//!
//! The parser looks at each byte of a head that comes slowly once for its line ends, and once more
//! as a whole when the head is complete: a head of 16 KiB that comes byte by byte costs no more than
//! twice one that comes at once.

use std::mem::MaybeUninit;

use super::head::{Head, Method, Span, Version, invalid};
use super::{framing, target};
use crate::problem::{Problem, ProblemKind};

/// The bytes that a head may have, its last empty line included: more than any browser sends with
/// all its cookies, little enough to hold for every connection that is being opened.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The fields that a head may have. A browser sends about 20, an append with all its
/// `Event-Header-*` fields 40.
pub const HEAD_FIELDS_MAX: usize = 64;

/// What the bytes that have come so far amount to.
#[derive(Debug)]
pub enum Parsed {
    /// Not a whole head yet: call again with these bytes and more behind them.
    Incomplete,
    /// A head, in the first `bytes` bytes. Its body, and then the next head, follow.
    Request {
        /// The head.
        head: Head,
        /// How many bytes of the input it took.
        bytes: usize,
    },
    /// Not a request that is served. The connection ends with this answer: nobody can tell where
    /// another request would begin.
    Refused(Problem),
}

/// Parses the heads of one connection, one after the other.
#[derive(Debug, Default)]
pub struct HeadParser {
    /// Up to here there is no end of the head, and every line ends in CR LF.
    scanned: usize,
    /// Where the line that holds `scanned` begins.
    line_start: usize,
    /// Where the head begins: 2 if an empty line came before it.
    head_start: usize,
}

impl HeadParser {
    /// Looks for a head at the start of `input`.
    ///
    /// After `Incomplete`, the next input must begin with the same bytes. After `Request`, the next
    /// must begin behind the request's body.
    pub fn parse(&mut self, input: &[u8]) -> Parsed {
        let mut head = Head::default();
        match self.parse_into(&mut head, input) {
            Ok(None) => Parsed::Incomplete,
            Ok(Some(bytes)) => Parsed::Request { head, bytes },
            Err(problem) => Parsed::Refused(problem),
        }
    }

    /// The same with the memory of a head that is no longer needed: returns how many bytes the head
    /// took, None if it has not come whole. Without a number, what is in `head` says nothing.
    pub fn parse_into(&mut self, head: &mut Head, input: &[u8]) -> Result<Option<usize>, Problem> {
        let outcome = match self.find_end(input) {
            Ok(None) => return Ok(None),
            Ok(Some(end)) => read(head, &input[self.head_start..end]).map(|()| Some(end)),
            Err(problem) => Err(problem),
        };
        (self.scanned, self.line_start, self.head_start) = (0, 0, 0);
        outcome.map_err(Problem::closing)
    }

    /// Whether a part of a head has come: then a deadline runs, and an end of the connection cuts it.
    pub fn is_amid(&self) -> bool {
        self.scanned > 0
    }

    /// Returns where the head ends, None while that has not come.
    fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, Problem> {
        let window = &input[..input.len().min(HEAD_BYTES_MAX)];
        while let Some(found) = memchr::memchr2(b'\r', b'\n', &window[self.scanned..]) {
            let at = self.scanned + found;
            check_first_byte(window, self.head_start)?;
            if window[at] == b'\n' {
                return Err(invalid("a line ends in a bare LF"));
            }
            self.scanned = at;
            match window.get(at + 1) {
                None => break,
                Some(b'\n') => {}
                Some(_) => return Err(invalid("a CR that is not followed by LF")),
            }
            let line_bytes = at - self.line_start;
            let is_first_line = self.line_start == self.head_start;
            (self.scanned, self.line_start) = (at + 2, at + 2);
            match (line_bytes, is_first_line) {
                (0, false) => return Ok(Some(at + 2)),
                (0, true) if self.head_start == 0 => self.head_start = 2,
                (0, true) => return Err(invalid("empty lines before the request line")),
                (1.., _) => {}
            }
        }
        check_first_byte(window, self.head_start)?;
        if window.len() == HEAD_BYTES_MAX {
            return Err(too_large(self.line_start == self.head_start));
        }
        // A CR that came last is looked at again with what follows it.
        self.scanned = window.len() - usize::from(window.ends_with(b"\r"));
        Ok(None)
    }
}

/// Refuses at once what will never become a head, such as a TLS handshake.
fn check_first_byte(window: &[u8], head_start: usize) -> Result<(), Problem> {
    match window.get(head_start) {
        Some(0x16) => Err(invalid("this looks like TLS, and this port speaks plain HTTP")),
        Some(byte) if !byte.is_ascii_alphanumeric() && !b"\r\n!#$%&'*+-.^_`|~".contains(byte) => {
            Err(invalid("a request begins with a method"))
        }
        _ => Ok(()),
    }
}

/// Reads a whole head, whose lines all end in CR LF and hold no other CR or LF.
fn read(head: &mut Head, bytes: &[u8]) -> Result<(), Problem> {
    let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(invalid("the head is not one request")),
        Err(error) => return Err(explain(error, bytes)),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(invalid("the request line is not whole"));
    };
    head.reset(bytes);
    head.method = Method::of(method);
    head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let span = |part: &[u8]| {
        let start = part.as_ptr().addr() - bytes.as_ptr().addr();
        Span::new(start..start + part.len())
    };
    for field in request.headers.iter() {
        // A field without a value may point anywhere.
        let value = if field.value.is_empty() { Span::default() } else { span(field.value) };
        head.push_field(span(field.name.as_bytes()), value);
    }
    let host = target::read_target(head, target, &span)?;
    target::read_host(head, host.map(&span))?;
    head.body_length = framing::body_length(head)?;
    head.connection = framing::connection_options(head);
    head.expectation = framing::expectation(head);
    Ok(())
}

fn too_large(amid_request_line: bool) -> Problem {
    let (kind, what) = match amid_request_line {
        true => (ProblemKind::TargetTooLong, "request line"),
        false => (ProblemKind::HeadTooLarge, "request head"),
    };
    Problem::new(kind, format!("the {what} exceeds the limit of {HEAD_BYTES_MAX} bytes"))
}

/// Says what is wrong with a head that httparse refused.
#[cold]
fn explain(error: httparse::Error, bytes: &[u8]) -> Problem {
    match error {
        httparse::Error::TooManyHeaders => {
            let detail = format!("the head exceeds the limit of {HEAD_FIELDS_MAX} fields");
            Problem::new(ProblemKind::HeadTooLarge, detail)
        }
        httparse::Error::Version if names_other_version(bytes) => {
            let detail = "the server speaks HTTP/1.1 and HTTP/1.0";
            Problem::new(ProblemKind::UnsupportedVersion, detail)
        }
        httparse::Error::HeaderName => invalid(explain_field(bytes)),
        httparse::Error::HeaderValue => invalid("a field's value holds a control character"),
        _ => invalid("the request line is not `method target HTTP/1.1`"),
    }
}

/// Whether the request line ends in ` HTTP/<digit>.<digit>`, and not in one that we speak.
fn names_other_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let is_version =
        matches!(version, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']);
    is_version && !matches!(version, b"HTTP/1.1" | b"HTTP/1.0")
}

fn explain_field(bytes: &[u8]) -> &'static str {
    let lines = bytes.split(|byte| *byte == b'\n').skip(1);
    for line in lines {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return "a field is folded over two lines, or begins with a space";
        }
        let colon = line.iter().position(|byte| *byte == b':');
        if colon
            .is_some_and(|colon| line[..colon].ends_with(b" ") || line[..colon].ends_with(b"\t"))
        {
            return "a space stands before the colon of a field";
        }
    }
    "a field has no name, no colon, or a name that is not a token"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::head::{BodyLength, FieldName};

    /// Parses `input` as a whole, and again with one byte more each time: both must agree.
    fn parse(input: &[u8]) -> Parsed {
        let whole = HeadParser::default().parse(input);
        let mut parser = HeadParser::default();
        for end in 0..=input.len() {
            match (parser.parse(&input[..end]), &whole) {
                (Parsed::Incomplete, Parsed::Incomplete) if end == input.len() => {}
                (Parsed::Incomplete, _) => assert!(end < input.len(), "it never ends"),
                (Parsed::Request { head, bytes }, Parsed::Request { head: other, bytes: same }) => {
                    assert_eq!((&head, bytes), (other, *same));
                    break;
                }
                (Parsed::Refused(problem), Parsed::Refused(other)) => {
                    assert_eq!(&problem, other);
                    break;
                }
                (slow, whole) => panic!("{slow:?} byte by byte, {whole:?} at once"),
            }
        }
        whole
    }

    fn accepted(input: &[u8]) -> Head {
        match parse(input) {
            Parsed::Request { head, bytes } => {
                assert_eq!(bytes, input.len());
                head
            }
            other => panic!("{:?}: {other:?}", input.escape_ascii().to_string()),
        }
    }

    fn refused(input: &[u8]) -> Problem {
        match parse(input) {
            Parsed::Refused(problem) => {
                assert!(problem.closes(), "nobody can tell where the next request begins");
                problem
            }
            other => panic!("{:?}: {other:?}", input.escape_ascii().to_string()),
        }
    }

    const APPEND: &[u8] = b"POST /api/v1/topics/a/b/events?log=main HTTP/1.1\r\nHost: localhost:7400\r\n\
        Content-Type: application/json\r\ncontent-LENGTH: 17\r\nEvent-Type:\ttrade \r\nX-Empty:\r\n\r\n";

    #[test]
    fn a_head_gives_its_parts() {
        let head = accepted(APPEND);
        assert_eq!(head.method(), Method::Post);
        assert_eq!(head.version(), Version::Http11);
        assert_eq!(head.path(), "/api/v1/topics/a/b/events");
        assert_eq!(head.query(), Some("log=main"));
        let host = head.host().unwrap();
        assert_eq!((host.name, host.port), ("localhost", Some(7400)));
        assert_eq!(head.body_length(), BodyLength::Sized(17));
        assert_eq!(head.value(FieldName::EventType), Some(&b"trade"[..]));
        assert_eq!(head.text(FieldName::ContentType), Ok(Some("application/json")));
        assert_eq!(head.value(FieldName::EventKey), None);
        assert!(head.keep_alive() && !head.expects_continue());
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields.len(), 5);
        assert_eq!(fields[4], ("X-Empty", &b""[..]));
    }

    /// RFC 9112, 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore
    /// at least one empty line (CRLF) received prior to the request-line".
    #[test]
    fn one_empty_line_before_a_head_is_skipped() {
        let with_line = [b"\r\n", APPEND].concat();
        assert_eq!(accepted(&with_line).path(), accepted(APPEND).path());
        let problem = refused(&[b"\r\n\r\n", APPEND].concat());
        assert_eq!(problem.detail(), "empty lines before the request line");
    }

    /// What is ambiguous is refused and the connection closed: both Content-Length and Transfer-Encoding, two lengths,
    /// obs-fold, bare CR, space before the colon, bad chunk sizes.
    #[test]
    fn what_breaks_the_grammar_is_refused() {
        let cases: &[(&[u8], u16, &str)] = &[
            // Line ends.
            (b"GET / HTTP/1.1\nHost: a\n\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "invalid-head"),
            (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, "invalid-head"),
            // Folded lines, and spaces where none may be.
            (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nContent-Length : 5\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            // Names and values.
            (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nb@d: c\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nn\xc3\xa4me: c\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 400, "invalid-head"),
            // The request line.
            (b"GET /\r\n\r\n", 400, "invalid-head"),
            (b"GET\r\n\r\n", 400, "invalid-head"),
            (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"GET / HTTP/1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid-head"),
            (b"\0", 400, "invalid-head"),
            (b"{\"topic\":\"a\"}", 400, "invalid-head"),
            // Other versions.
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported-version"),
            (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, "unsupported-version"),
            (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "unsupported-version"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported-version"),
        ];
        for (input, status, slug) in cases {
            let problem = refused(input);
            let shown = input.escape_ascii();
            assert_eq!((problem.status(), problem.slug()), (*status, *slug), "{shown}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        let cases: &[(&[u8], &str)] = &[
            (b"\x16\x03\x01\x02\x00\x01", "this looks like TLS, and this port speaks plain HTTP"),
            (b"GET / HTTP/1.1\n", "a line ends in a bare LF"),
            (b"GET / HTTP/1.1\rX", "a CR that is not followed by LF"),
            (
                b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
                "a field is folded over two lines, or begins with a space",
            ),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", "a space stands before the colon of a field"),
            (b"GET / HTTP/1.1\r\nA: \0\r\n\r\n", "a field's value holds a control character"),
        ];
        for (input, detail) in cases {
            assert_eq!(refused(input).detail(), *detail);
        }
    }

    /// API §9: "Defaults: request head 16 KiB and 64 fields".
    #[test]
    fn a_head_of_16_kib_is_served_and_one_byte_more_is_431() {
        let head_of = |bytes: usize| {
            let start = b"GET / HTTP/1.1\r\nHost: a\r\nX: ";
            let filling = vec![b'x'; bytes - start.len() - 4];
            [&start[..], &filling, b"\r\n\r\n"].concat()
        };
        assert_eq!(accepted(&head_of(HEAD_BYTES_MAX)).path(), "/");
        let problem = refused(&head_of(HEAD_BYTES_MAX + 1));
        assert_eq!((problem.status(), problem.slug()), (431, "head-too-large"));
        assert_eq!(problem.detail(), "the request head exceeds the limit of 16384 bytes");
    }

    /// API §9: "414".
    #[test]
    fn a_request_line_that_is_too_long_is_414() {
        let line = [b"GET /", &vec![b'x'; HEAD_BYTES_MAX][..]].concat();
        let problem = refused(&line);
        assert_eq!((problem.status(), problem.slug()), (414, "target-too-long"));
        // As long as there is room, the rest may still come.
        assert!(matches!(parse(&line[..HEAD_BYTES_MAX - 1]), Parsed::Incomplete));
    }

    /// API §9: "64 fields".
    #[test]
    fn a_head_of_64_fields_is_served_and_one_more_is_431() {
        let head_of = |fields: usize| {
            let filling = "x-a: 1\r\n".repeat(fields - 1);
            format!("GET / HTTP/1.1\r\nHost: a\r\n{filling}\r\n").into_bytes()
        };
        assert_eq!(accepted(&head_of(HEAD_FIELDS_MAX)).fields().count(), 64);
        let problem = refused(&head_of(HEAD_FIELDS_MAX + 1));
        assert_eq!((problem.status(), problem.slug()), (431, "head-too-large"));
        assert_eq!(problem.detail(), "the head exceeds the limit of 64 fields");
    }

    #[test]
    fn a_head_that_comes_slowly_is_scanned_once() {
        let mut parser = HeadParser::default();
        for end in 1..APPEND.len() {
            assert!(matches!(parser.parse(&APPEND[..end]), Parsed::Incomplete));
            assert!(parser.scanned + 1 >= end, "{end} bytes came, {} are done", parser.scanned);
            assert!(parser.is_amid());
        }
        assert!(matches!(parser.parse(APPEND), Parsed::Request { .. }));
        assert!(!parser.is_amid());
    }

    #[test]
    fn a_recycled_head_keeps_its_memory_and_nothing_else() {
        let (mut parser, mut head) = (HeadParser::default(), Head::default());
        let next = b"GET / HTTP/1.0\r\n\r\n";
        for input in [APPEND, next] {
            assert_eq!(parser.parse_into(&mut head, input), Ok(Some(input.len())));
        }
        assert_eq!(head, accepted(next));
    }

    fn head_text() -> impl Strategy<Value = String> {
        let field = ("[A-Za-z-]{1,12}", "[ -~]{0,20}").prop_map(|(name, value)| {
            // Fields with a meaning of their own are not made up.
            format!("X-{name}: {value}\r\n")
        });
        let fields = prop::collection::vec(field, 0..6);
        ("/[a-z/%?=]{0,20}", fields).prop_map(|(target, fields)| {
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", fields.concat())
        })
    }

    proptest! {
        /// Many requests in one read are parsed together, and however the bytes are cut they are the same.
        #[test]
        fn requests_do_not_depend_on_where_the_bytes_are_cut(
            heads in prop::collection::vec(head_text(), 1..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream = heads.concat().into_bytes();
            let mut ends: Vec<usize> =
                cuts.iter().map(|cut| cut.index(stream.len() + 1)).chain([stream.len()]).collect();
            ends.sort_unstable();
            let mut parser = HeadParser::default();
            let (mut start, mut found) = (0, Vec::new());
            for end in ends {
                loop {
                    match parser.parse(&stream[start..end]) {
                        Parsed::Incomplete => break,
                        Parsed::Request { head, bytes } => {
                            start += bytes;
                            found.push(head);
                        }
                        Parsed::Refused(problem) => prop_assert!(false, "{}", problem),
                    }
                }
            }
            prop_assert_eq!(start, stream.len());
            let expected: Vec<Head> = heads.iter().map(|head| accepted(head.as_bytes())).collect();
            prop_assert_eq!(found, expected);
        }

        /// The server never panics.
        #[test]
        fn any_bytes_are_answered_alike_however_they_come(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            parse(&bytes);
            let mut damaged = APPEND.to_vec();
            for (place, byte) in edits {
                let place = place.index(damaged.len());
                damaged[place] = byte;
            }
            parse(&damaged);
        }
    }
}
