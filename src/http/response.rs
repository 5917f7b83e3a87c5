//! Answers, written into the buffer that the connection sends next.
//!
//! An [`Answer`] is started with a status, given fields, and finished with a body: there is no way to
//! finish one without saying how long it is. What all answers to one request share (does the
//! connection stay, is it HEAD, which CORS fields) is in [`AnswerTo`].

use super::cors::Cors;
use super::head::{Head, Method, Version};
use crate::json::write;
use crate::problem::Problem;
use crate::stream::compression::Encoding;

/// What an answer depends on in its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerTo {
    /// The client's version.
    pub version: Version,
    /// Whether only the head of the answer is sent.
    pub head_only: bool,
    /// Whether the connection stays when this answer has been sent.
    pub keep_alive: bool,
    /// Which CORS fields the answer has.
    pub cors: Cors,
    /// The time, if it is to be told.
    pub date: Option<HttpDate>,
}

impl AnswerTo {
    /// For a request that was understood. CORS fields are none until [`AnswerTo::cors`] is set.
    pub fn new(head: &Head) -> Self {
        Self {
            version: head.version(),
            head_only: head.method() == Method::Head,
            keep_alive: head.keep_alive(),
            cors: Cors::default(),
            date: None,
        }
    }

    /// For bytes that were not understood: the connection ends.
    pub fn unreadable(date: Option<HttpDate>) -> Self {
        Self {
            version: Version::Http11,
            head_only: false,
            keep_alive: false,
            cors: Cors::default(),
            date,
        }
    }
}

/// A time in the form of the Date field, such as `Sun, 06 Nov 1994 08:49:37 GMT`. It is the same for
/// a whole second: make one a second at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpDate([u8; 29]);

impl HttpDate {
    /// The date of this second since 1970; None beyond the year 9999.
    pub fn at(unix_s: i64) -> Option<Self> {
        let time = jiff::Timestamp::from_second(unix_s).ok()?;
        let text = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        text.as_bytes().try_into().ok().map(Self)
    }
}

/// How the bytes of an answer of unknown length are told from what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// In chunks; the connection can stay.
    Chunked,
    /// The end of the connection is the end of the answer: HTTP/1.0, which is what nginx speaks to
    /// its upstreams by default.
    UntilClose,
}

/// What goes before the data of a chunk: `CRLF`-ended size of up to 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct ChunkPrefix {
    bytes: [u8; 18],
    start: usize,
}

impl ChunkPrefix {
    /// The prefix of a chunk of `data_bytes` bytes. A chunk has data: an empty one ends the answer.
    pub fn new(data_bytes: usize) -> Self {
        debug_assert!(data_bytes > 0, "an empty chunk ends the answer");
        let mut bytes = *b"0000000000000000\r\n";
        let (mut start, mut left) = (16, data_bytes);
        while start == 16 || left > 0 {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[left & 15];
            left >>= 4;
        }
        Self { bytes, start }
    }

    /// The prefix as it is sent.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Framing {
    /// Appends `data` as it stands in the answer. Empty data is nothing.
    pub fn write(self, data: &[u8], out: &mut Vec<u8>) {
        if self == Self::UntilClose || data.is_empty() {
            out.extend_from_slice(data);
            return;
        }
        out.extend_from_slice(ChunkPrefix::new(data.len()).as_slice());
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_SUFFIX);
    }

    /// What ends the answer properly. Without it, a client knows that the answer was cut.
    pub fn end(self) -> &'static [u8] {
        match self {
            Self::Chunked => b"0\r\n\r\n",
            Self::UntilClose => b"",
        }
    }
}

/// What goes behind the data of a chunk.
pub const CHUNK_SUFFIX: &[u8] = b"\r\n";

/// What tells a client to send the body that it holds back.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer whose head is being written.
#[must_use = "an answer without a body never ends"]
pub struct Answer<'a> {
    out: &'a mut Vec<u8>,
    to: &'a AnswerTo,
    /// Whether another protocol was named.
    has_upgrade: bool,
}

impl<'a> Answer<'a> {
    /// Appends the status line and the fields that every answer has.
    pub fn start(status: u16, to: &'a AnswerTo, out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(b"HTTP/1.1 ");
        write::number(out, status.into());
        out.push(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(date) = &to.date {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(&date.0);
            out.extend_from_slice(b"\r\n");
        }
        to.cors.write(out);
        Self { out, to, has_upgrade: false }
    }

    /// Names a protocol that the connection may be used for instead (RFC 9110 section 7.8).
    pub fn upgrade(self, protocol: &str) -> Self {
        Answer { has_upgrade: true, ..self.field("Upgrade", protocol) }
    }

    /// Adds a field. `value` is ours, or was checked to hold no control character.
    pub fn field(self, name: &str, value: &str) -> Self {
        debug_assert!(!value.bytes().any(|byte| byte.is_ascii_control()), "{name}: {value:?}");
        for part in [name, ": ", value, "\r\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
        self
    }

    /// Adds a field whose value is a number.
    pub fn number(self, name: &str, value: u64) -> Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        write::number(self.out, value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a field whose value is written in place.
    pub(super) fn written(self, name: &str, write_value: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        write_value(self.out);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Adds the fields that keep a browser from taking the body for anything but `content_type`, and
    /// every cache from keeping it.
    fn typed(self, content_type: &str) -> Self {
        self.field("Content-Type", content_type)
            .field("X-Content-Type-Options", "nosniff")
            .field("Cache-Control", "no-store")
    }

    /// Ends the answer with a body of this type.
    pub fn body(self, content_type: &str, body: &[u8]) {
        self.body_and(content_type, body, b"");
    }

    /// Ends the answer with a body of JSON, and that with a newline: a prompt would stand behind it else.
    pub fn json(self, body: &[u8]) {
        self.body_and("application/json", body, b"\n");
    }

    /// Ends the answer with a problem's JSON; else like [`Answer::json`].
    fn problem_json(self, body: &[u8]) {
        self.body_and("application/problem+json", body, b"\n");
    }

    fn body_and(self, content_type: &str, body: &[u8], end: &[u8]) {
        let length = u64::try_from(body.len() + end.len()).expect("a length fits into 64 bits");
        let answer = self.typed(content_type).number("Content-Length", length);
        let head_only = answer.to.head_only;
        let out = answer.end_head(false);
        if !head_only {
            out.extend_from_slice(body);
            out.extend_from_slice(end);
        }
    }

    /// Ends an answer that has no body by its status, such as 204.
    pub fn no_content(self) {
        self.end_head(false);
    }

    /// Ends the head of an event stream, and says how its bytes, coded in `encoding`, are framed.
    /// After the head of an answer to HEAD nothing may follow.
    pub fn event_stream(self, encoding: Encoding) -> Framing {
        let answer = self
            .field("Content-Type", "text/event-stream")
            .field("Cache-Control", "no-store, no-transform")
            .field("X-Accel-Buffering", "no")
            .field("X-Content-Type-Options", "nosniff")
            .field("Vary", "Accept-Encoding");
        match encoding.content_coding() {
            Some(coding) => answer.field("Content-Encoding", coding).unsized_body(),
            None => answer.unsized_body(),
        }
    }

    /// Ends the head of a stream of JSON lines; else like [`Answer::event_stream`].
    pub fn ndjson(self) -> Framing {
        self.typed("application/x-ndjson").field("X-Accel-Buffering", "no").unsized_body()
    }

    fn unsized_body(self) -> Framing {
        let framing = match self.to.version {
            Version::Http11 => Framing::Chunked,
            Version::Http10 => Framing::UntilClose,
        };
        match framing {
            Framing::Chunked => self.field("Transfer-Encoding", "chunked").end_head(false),
            // An answer to HEAD ends with its head: nothing is left for the end of the connection to tell.
            Framing::UntilClose => {
                let closes = !self.to.head_only;
                self.end_head(closes)
            }
        };
        framing
    }

    pub(super) fn end_head(self, closes: bool) -> &'a mut Vec<u8> {
        let stays = match (self.to.keep_alive && !closes, self.to.version) {
            (true, Version::Http11) => None,
            (true, Version::Http10) => Some("keep-alive"),
            (false, _) => Some("close"),
        };
        // One field: some clients read the first alone.
        let options: [&str; 3] = match (self.has_upgrade, stays) {
            (false, None) => ["", "", ""],
            (false, Some(stays)) => ["Connection: ", stays, "\r\n"],
            (true, None) => ["Connection: ", "Upgrade", "\r\n"],
            (true, Some(stays)) => ["Connection: Upgrade, ", stays, "\r\n"],
        };
        options.iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
        self.out.extend_from_slice(b"\r\n");
        self.out
    }
}

/// Appends the answer that states a problem. Afterwards the connection ends if it was to end anyway,
/// or if [`Problem::closes`]; the answer says so.
pub fn write_problem(problem: &Problem, to: &AnswerTo, out: &mut Vec<u8>) {
    let to = &AnswerTo { keep_alive: to.keep_alive && !problem.closes(), ..to.clone() };
    let mut answer = Answer::start(problem.status(), to, out);
    if let Some(seconds) = problem.retry_after_s() {
        answer = answer.number("Retry-After", seconds.into());
    }
    if let Some(methods) = problem.allow() {
        answer = answer.field("Allow", methods);
    }
    for (name, value) in problem.fields() {
        answer = answer.field(name, value);
    }
    if problem.status() == 426 {
        answer = answer.upgrade("websocket").field("Sec-WebSocket-Version", "13");
    }
    let mut body = Vec::with_capacity(256);
    problem.write_json(&mut body);
    answer.problem_json(&body);
}

/// Appends the answer to a preflight, or to another OPTIONS: 204, with what the path takes.
pub fn write_options(head: &Head, allow: &str, to: &AnswerTo, out: &mut Vec<u8>) {
    let plain = AnswerTo { cors: Cors::Absent, ..to.clone() };
    let answer = Answer::start(204, &plain, out).field("Allow", allow);
    to.cors.write_preflight(head, allow, answer.out);
    answer.no_content();
}

/// Appends `101 Switching Protocols`: `accept` is the answer to the client's key.
pub fn write_switching_protocols(accept: &str, protocol: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
    out.extend_from_slice(accept.as_bytes());
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{HeadParser, Parsed};
    use crate::problem::ProblemKind;

    fn to(text: &str) -> AnswerTo {
        let Parsed::Request { head, .. } = HeadParser::default().parse(text.as_bytes()) else {
            panic!("{text:?} is no request")
        };
        AnswerTo::new(&head)
    }

    fn modern() -> AnswerTo {
        to("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_connection_field_says_whether_the_connection_stays() {
        for (request, field) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Some("Connection: close")),
            ("GET / HTTP/1.0\r\n\r\n", Some("Connection: close")),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some("Connection: keep-alive")),
        ] {
            let text = written(|out| Answer::start(200, &to(request), out).json(b"{}"));
            let found = text.lines().find(|line| line.starts_with("Connection"));
            assert_eq!(found, field, "{request:?}");
        }
    }

    #[test]
    fn head_has_the_fields_of_get_and_no_body() {
        let head = to("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answered = written(|out| Answer::start(200, &head, out).json(b"{}"));
        let full = written(|out| Answer::start(200, &modern(), out).json(b"{}"));
        assert_eq!(format!("{answered}{{}}\n"), full);
        assert!(full.contains("Content-Length: 3\r\n"));
    }

    /// API §9: "`application/problem+json` (RFC 9457)"; §2: "**Early refusal** answers at once,
    /// `Connection: close`".
    #[test]
    fn a_problem_as_an_answer() {
        let problem = Problem::new(ProblemKind::Overloaded, "the queue is full").with("line", 2);
        let text = written(|out| write_problem(&problem, &modern(), out));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"));
        assert!(head.contains("Content-Type: application/problem+json\r\n"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(!head.contains("Connection"));
        let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&parsed["line"], &parsed["status"]), (&2.into(), &503.into()));
        let text = written(|out| write_problem(&problem.closing(), &modern(), out));
        assert!(text.contains("Connection: close\r\n"));
    }

    #[test]
    fn an_upgrade_required_says_to_what() {
        let problem = Problem::new(ProblemKind::UpgradeRequired, "no handshake");
        let text = written(|out| write_problem(&problem, &modern(), out));
        assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"));
        assert!(text.contains("\r\nConnection: Upgrade\r\n"), "{text}");
        let text = written(|out| write_problem(&problem.closing(), &modern(), out));
        assert!(text.contains("\r\nConnection: Upgrade, close\r\n"), "{text}");
        assert_eq!(text.matches("Connection: ").count(), 1, "{text}");
    }

    /// API §4: "`text/event-stream`, `Cache-Control: no-store, no-transform`, `X-Accel-Buffering:
    /// no`; chunked, or close-delimited for HTTP/1.0".
    #[test]
    fn the_head_of_an_event_stream() {
        let mut out = Vec::new();
        let framing = Answer::start(200, &modern(), &mut out).event_stream(Encoding::Identity);
        assert_eq!(framing, Framing::Chunked);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
             Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n\
             X-Content-Type-Options: nosniff\r\nVary: Accept-Encoding\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        for (encoding, coding) in [(Encoding::Gzip, "gzip"), (Encoding::Zstd, "zstd")] {
            let text = written(|out| {
                Answer::start(200, &modern(), out).event_stream(encoding);
            });
            assert!(text.contains(&format!("\r\nContent-Encoding: {coding}\r\n")));
            assert!(text.contains("\r\nVary: Accept-Encoding\r\n"));
        }
        let mut out = Vec::new();
        let old = to("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let framing = Answer::start(200, &old, &mut out).event_stream(Encoding::Identity);
        assert_eq!(framing, Framing::UntilClose);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("Connection: close\r\n\r\n") && !text.contains("chunked"));
        let old = to("HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let text = written(|out| {
            Answer::start(200, &old, out).event_stream(Encoding::Identity);
        });
        assert!(text.ends_with("Connection: keep-alive\r\n\r\n"), "{text}");
    }

    #[test]
    fn chunks_carry_their_length() {
        for (bytes, prefix) in [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (4096, "1000\r\n")] {
            assert_eq!(ChunkPrefix::new(bytes).as_slice(), prefix.as_bytes());
        }
        let longest = ChunkPrefix::new(usize::MAX);
        assert_eq!(longest.as_slice(), format!("{:x}\r\n", usize::MAX).as_bytes());
        let text = written(|out| {
            Framing::Chunked.write(b"hello", out);
            Framing::Chunked.write(b"", out);
            out.extend_from_slice(Framing::Chunked.end());
        });
        assert_eq!(text, "5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(written(|out| Framing::UntilClose.write(b"hello", out)), "hello");
    }

    /// RFC 9110, 5.6.7: "Sun, 06 Nov 1994 08:49:37 GMT".
    #[test]
    fn the_date_field() {
        let date = HttpDate::at(784_111_777).unwrap();
        assert_eq!(&date.0, b"Sun, 06 Nov 1994 08:49:37 GMT");
        let dated = AnswerTo { date: Some(date), ..modern() };
        let text = written(|out| Answer::start(200, &dated, out).json(b"{}"));
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
    }

    #[test]
    fn switching_protocols() {
        let text = written(|out| write_switching_protocols("abc=", Some("strandline.v1"), out));
        assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"));
        assert!(text.ends_with("Accept: abc=\r\nSec-WebSocket-Protocol: strandline.v1\r\n\r\n"));
    }

    #[test]
    fn every_status_of_a_problem_has_a_phrase() {
        for entry in crate::problem::PROBLEMS {
            assert_ne!(reason(entry.status), "", "{}", entry.status);
        }
    }
}
