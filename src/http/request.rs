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

use super::authority::Authority;
use super::head::{BodyLength, ConnectionOptions, FieldName, Head, Method, Span, Version};
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
        /// The head. Hand it to [`HeadParser::recycle`] when done.
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
    spare: Option<Head>,
}

impl HeadParser {
    /// Looks for a head at the start of `input`.
    ///
    /// After `Incomplete`, the next input must begin with the same bytes. After `Request`, the next
    /// must begin behind the request's body.
    pub fn parse(&mut self, input: &[u8]) -> Parsed {
        let outcome = match self.find_end(input) {
            Ok(None) => return Parsed::Incomplete,
            Ok(Some(end)) => {
                let mut head = self.spare.take().unwrap_or_default();
                read(&mut head, &input[self.head_start..end])
                    .map(|()| Parsed::Request { head, bytes: end })
            }
            Err(problem) => Err(problem),
        };
        (self.scanned, self.line_start, self.head_start) = (0, 0, 0);
        outcome.unwrap_or_else(|problem| Parsed::Refused(problem.closing()))
    }

    /// Takes back a head that is no longer needed, so that the next one uses its memory.
    pub fn recycle(&mut self, head: Head) {
        self.spare = Some(head);
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
    let host = read_target(head, target, &span)?;
    read_host(head, host.map(&span))?;
    head.body_length = body_length(head)?;
    head.connection = connection_options(head);
    head.expects_continue = expects_continue(head)?;
    Ok(())
}

/// Reads the target into path and query; returns the authority of one in absolute form.
fn read_target<'a>(
    head: &mut Head,
    target: &'a str,
    span: &impl Fn(&[u8]) -> Span,
) -> Result<Option<&'a [u8]>, Problem> {
    if target.contains('#') {
        return Err(invalid("the request target has a fragment"));
    }
    let (authority, rest) = if target.starts_with('/') {
        (None, target)
    } else if target == "*" {
        if head.method != Method::Options {
            return Err(invalid("the target `*` is for OPTIONS"));
        }
        (None, target)
    } else if let Some(after) = strip_scheme(target) {
        let end = after.find(['/', '?']).unwrap_or(after.len());
        (Some(&after[..end]), &after[end..])
    } else {
        return Err(invalid("the request target is neither a path nor an http URL"));
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    head.query = query.map(|query| span(query.as_bytes()));
    // An absolute target may have no path at all: it then means `/`, which stands in every such
    // target, in `http://`.
    head.path = match (path, authority) {
        ("", Some(_)) => {
            let scheme_end = target.len() - strip_scheme(target).map_or(0, str::len);
            span(&target.as_bytes()[scheme_end - 1..scheme_end])
        }
        _ => span(path.as_bytes()),
    };
    Ok(authority.map(str::as_bytes))
}

fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Checks the Host field, and settles which host is meant: that of an absolute target wins over the
/// field (RFC 9112, 3.2.2).
fn read_host(head: &mut Head, authority: Option<Span>) -> Result<(), Problem> {
    let invalid_host = |detail| Err(Problem::new(ProblemKind::InvalidHost, detail));
    match head.values(FieldName::Host).count() {
        0 if head.version == Version::Http11 => return invalid_host("the Host field is missing"),
        0 | 1 => {}
        _ => return invalid_host("the Host field stands more than once"),
    }
    let field = head.span(FieldName::Host);
    for span in [authority, field].into_iter().flatten() {
        let text = std::str::from_utf8(head.bytes_at(span)).unwrap_or_default();
        if Authority::parse(text).is_none() {
            return invalid_host("the Host field, or the target's host, is not a host");
        }
    }
    head.host = authority.or(field);
    Ok(())
}

/// Settles where the body ends, or refuses to guess.
fn body_length(head: &Head) -> Result<BodyLength, Problem> {
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
fn parse_length(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn connection_options(head: &Head) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    for token in head.tokens(FieldName::Connection) {
        options.close |= token.eq_ignore_ascii_case(b"close");
        options.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        options.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
    }
    options
}

fn expects_continue(head: &Head) -> Result<bool, Problem> {
    let mut expects = false;
    for token in head.tokens(FieldName::Expect) {
        if !token.eq_ignore_ascii_case(b"100-continue") {
            let detail = "the only expectation that is known is `100-continue`";
            return Err(Problem::new(ProblemKind::ExpectationFailed, detail));
        }
        expects = true;
    }
    // RFC 9110 (10.1.1): an HTTP/1.0 client cannot mean it, and without a body nobody waits.
    let has_body = !matches!(head.body_length, BodyLength::Unstated | BodyLength::Sized(0));
    Ok(expects && has_body && head.version == Version::Http11)
}

fn invalid(detail: &'static str) -> Problem {
    Problem::new(ProblemKind::InvalidHead, detail)
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

/// Whether the request line ends in ` HTTP/<digit>.<digit>`.
fn names_other_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
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
