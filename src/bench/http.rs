//! HTTP/1.1 as a load generator reads it: heads, whole answers, chunks.

use memchr::memmem;
use serde::Deserialize;

/// A head is at most this long.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The line that says a chunk's size is at most this long.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// The body of an answer is at most this long.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its status.
    pub status: u16,
    /// Its fields, as they stand.
    fields: &'a [u8],
    /// How many bytes it takes, its empty line included.
    pub bytes: usize,
}

impl<'a> Head<'a> {
    /// The head at the start of `input`, `None` if it is not whole yet.
    pub fn parse(input: &'a [u8]) -> Result<Option<Head<'a>>, String> {
        let Some(end) = memmem::find(input, b"\r\n\r\n") else {
            if input.len() > HEAD_BYTES_MAX {
                return Err(format!("a head of more than {HEAD_BYTES_MAX} bytes"));
            }
            return Ok(None);
        };
        let odd = || format!("not an answer: {}", excerpt(input));
        let line = input[..end + 2].strip_prefix(b"HTTP/1.").ok_or_else(odd)?;
        let [_, b' ', status @ ..] = line else { return Err(odd()) };
        let digits = status.first_chunk::<3>().ok_or_else(odd)?;
        let status = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
        let fields = memmem::find(line, b"\r\n").map_or(&line[line.len()..], |at| &line[at + 2..]);
        Ok(Some(Head { status: status.ok_or_else(odd)?, fields, bytes: end + 4 }))
    }

    /// The value of a field, its name in any case.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        let mut rest = self.fields;
        while let Some(end) = memmem::find(rest, b"\r\n") {
            let line = &rest[..end];
            rest = &rest[end + 2..];
            let value = line.get(name.len() + 1..).filter(|_| line[name.len()] == b':');
            if let Some(value) = value
                && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
            {
                return Some(value.trim_ascii());
            }
        }
        None
    }

    /// Whether the body comes in chunks.
    pub fn is_chunked(&self) -> bool {
        let coding = self.field("transfer-encoding").unwrap_or_default();
        coding.to_ascii_lowercase().ends_with(b"chunked")
    }

    /// What `input`, which begins with this head, refuses, as far as it has come.
    pub fn refusal(&self, input: &[u8]) -> String {
        match &input[self.bytes..] {
            [] => excerpt(input),
            body => format!("{}: {}", self.status, excerpt(body)),
        }
    }
}

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body; of one in chunks, as it stands on the wire.
    pub body: &'a [u8],
    /// How many bytes of the input it takes.
    pub bytes: usize,
}

impl<'a> Answer<'a> {
    /// The answer at the start of `input`, `None` if it is not whole yet.
    pub fn parse(input: &'a [u8]) -> Result<Option<Answer<'a>>, String> {
        let Some(head) = Head::parse(input)? else { return Ok(None) };
        let rest = &input[head.bytes..];
        let body_bytes = if matches!(head.status, 100..200 | 204 | 304) {
            0
        } else if let Some(length) = head.field("content-length") {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
            length.ok_or_else(|| format!("no content length: {}", excerpt(input)))?
        } else if head.is_chunked() {
            match memmem::find(rest, b"0\r\n\r\n") {
                Some(at) => at + 5,
                None => rest.len() + 1,
            }
        } else {
            return Err(format!("an answer that only a close would end: {}", excerpt(input)));
        };
        if body_bytes > BODY_BYTES_MAX {
            return Err(format!("an answer of {body_bytes} bytes"));
        }
        let body = rest.get(..body_bytes);
        Ok(body.map(|body| Answer { status: head.status, body, bytes: head.bytes + body_bytes }))
    }
}

/// Takes answers to appends from the start of `input`: returns their bytes and their number. Any status
/// but those of `200..300` is an error that quotes the answer.
pub fn take_successes(input: &[u8]) -> Result<(usize, u32), String> {
    let (mut bytes, mut count) = (0, 0);
    while bytes < input.len()
        && let Some(answer) = Answer::parse(&input[bytes..])?
    {
        match answer.status {
            200..300 => count += 1,
            100..200 => {}
            status => return Err(format!("{status}: {}", excerpt(answer.body))),
        }
        bytes += answer.bytes;
    }
    Ok((bytes, count))
}

/// Follows the boundaries of a chunked body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunks {
    /// A line with a size comes next.
    #[default]
    Size,
    /// So many bytes of data come next.
    Data(usize),
    /// The line end behind the data comes next.
    DataEnd,
    /// The last chunk has come.
    Ended,
}

impl Chunks {
    /// Takes what stands before the next data at the start of `input`: returns its length. Afterwards
    /// `self` is [`Chunks::Data`], or more bytes are needed, or the body has ended.
    #[inline]
    pub fn take_frame(&mut self, input: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self {
                Chunks::DataEnd => {
                    if rest.len() < 2 {
                        return Ok(at);
                    }
                    if !rest.starts_with(b"\r\n") {
                        return Err(format!("a chunk that does not end: {}", excerpt(rest)));
                    }
                    at += 2;
                    *self = Chunks::Size;
                }
                Chunks::Size => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        if rest.len() > SIZE_LINE_BYTES_MAX {
                            return Err(format!("not a chunk: {}", excerpt(rest)));
                        }
                        return Ok(at);
                    };
                    let size = chunk_size(&rest[..end])?;
                    at += end + 1;
                    *self = if size == 0 { Chunks::Ended } else { Chunks::Data(size) };
                }
                Chunks::Data(_) | Chunks::Ended => return Ok(at),
            }
        }
    }

    /// Takes `bytes` of the data that is under way.
    #[inline]
    pub fn take_data(&mut self, bytes: usize) {
        if let Chunks::Data(left) = self {
            *left -= bytes;
            if *left == 0 {
                *self = Chunks::DataEnd;
            }
        }
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, String> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let size = std::str::from_utf8(size).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
    size.ok_or_else(|| format!("not a chunk: {}", excerpt(line)))
}

/// How `bytes` begin, for a message: of a problem what it is here, of anything else its text, in one line.
pub fn excerpt(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 200;
    if let Ok(Problem { detail }) = serde_json::from_slice(bytes) {
        return shown(&detail, BYTES_MAX);
    }
    shown(&String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES_MAX)]), BYTES_MAX)
}

/// What a message tells of a problem's members.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

fn shown(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for character in text.trim().chars().take(chars_max) {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_wherever_they_are_cut() {
        let one = "HTTP/1.1 201 Created\r\ncontent-LENGTH: 5\r\nEvent-Offset: 4\r\n\r\nhello";
        let none = "HTTP/1.1 204 No Content\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let all = format!("{one}{none}{chunked}");
        assert_eq!(take_successes(all.as_bytes()), Ok((all.len(), 3)));
        for cut in 0..all.len() {
            let (first, count) = take_successes(&all.as_bytes()[..cut]).unwrap();
            assert!(first <= cut);
            assert_eq!(
                take_successes(&all.as_bytes()[first..]),
                Ok((all.len() - first, 3 - count))
            );
        }
    }

    #[test]
    fn a_refusal_is_quoted() {
        let refusal = "HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\n\r\nfull";
        assert_eq!(take_successes(refusal.as_bytes()), Err("503: full".to_owned()));
        assert!(take_successes(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(take_successes(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
    }

    #[test]
    fn a_problem_is_told_as_it_reads() {
        let problem = "{\"type\":\"/problems/invalid-topic\",\"title\":\"..\",\"status\":400,\
                       \"detail\":\"the topic \\\"a\\\\b\\\" é\\u0007\"}\n";
        let refusal = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n{problem}",
            problem.len()
        );
        let told = "400: the topic \"a\\b\" é\\u{7}";
        assert_eq!(take_successes(refusal.as_bytes()), Err(told.to_owned()));
        let head = Head::parse(refusal.as_bytes()).unwrap().unwrap();
        assert_eq!(head.refusal(refusal.as_bytes()), told);
        let cut = &refusal.as_bytes()[..head.bytes + 8];
        assert_eq!(head.refusal(cut), "400: {\"type\":");
        let cut = &refusal.as_bytes()[..head.bytes];
        assert!(head.refusal(cut).starts_with("HTTP/1.1 400 Bad Request\\r\\nContent-Length"));
        assert_eq!(excerpt(&[b'"'; 500]), "\"".repeat(200));
    }

    #[test]
    fn fields_are_found_by_name() {
        let head = b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Encoding:  zstd \r\n\r\n";
        let head = Head::parse(head).unwrap().unwrap();
        assert_eq!(head.field("content-encoding"), Some(&b"zstd"[..]));
        assert_eq!(head.field("content"), None);
        assert_eq!(head.field("a"), Some(&b"1"[..]));
    }

    #[test]
    fn chunks_are_followed() {
        let mut chunks = Chunks::default();
        assert_eq!(chunks.take_frame(b"5;x=y\r\nhe"), Ok(7));
        assert_eq!(chunks, Chunks::Data(5));
        chunks.take_data(2);
        chunks.take_data(3);
        assert_eq!(chunks.take_frame(b"\r"), Ok(0));
        assert_eq!(chunks.take_frame(b"\r\n0\r\n\r\n"), Ok(5));
        assert_eq!(chunks, Chunks::Ended);
        assert!(Chunks::Size.take_frame(b"xyz\r\n").is_err());
    }
}
