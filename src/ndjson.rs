//! Lines out of a body that arrives in pieces, within limits. Sans-I/O: chunks in, lines out.
//!
//! ```text
//! chunk --push--> Lines --next--> Line { number, bytes } ... None: needs the next chunk
//!                       --finish--> the last line, if it had no LF and the body ended properly
//! ```
//! A line ends with LF; a CR before it is dropped. Lines are numbered from 1, and blank ones (nothing
//! but spaces, tabs and CR) are counted and passed over. Within a chunk a line is a slice of it; only
//! what a chunk leaves unfinished is copied, and never more than the limit of a line.

use bytes::{Bytes, BytesMut};

use crate::problem::{Problem, ProblemKind};

/// A line that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its place in the body, from 1; blank lines count.
    pub number: u64,
    /// What it holds, without CR LF.
    pub bytes: Bytes,
}

/// A line that cannot be taken; everything after it is out of reach.
#[derive(Debug, Clone, PartialEq)]
pub struct LineError {
    /// Which line, from 1.
    pub number: u64,
    /// Why.
    pub problem: Problem,
}

/// Splits a body into lines.
#[derive(Debug)]
pub struct Lines {
    line_bytes_max: usize,
    /// Lines that have ended so far.
    ended: u64,
    /// The beginning of a line whose end has not come yet: at most the limit and a CR.
    started: BytesMut,
    /// What has not been looked at yet.
    chunk: Bytes,
}

impl Lines {
    /// Lines of at most `line_bytes_max` bytes, not counting their CR LF.
    pub fn new(line_bytes_max: usize) -> Lines {
        Lines { line_bytes_max, ended: 0, started: BytesMut::new(), chunk: Bytes::new() }
    }

    /// Takes the next piece of the body. All lines of the piece before must have been taken.
    pub fn push(&mut self, chunk: Bytes) {
        assert!(self.chunk.is_empty(), "lines are taken until there is none");
        self.chunk = chunk;
    }

    /// The next line, or `None` if the next piece of the body is needed.
    pub fn next_line(&mut self) -> Option<Result<Line, LineError>> {
        while !self.chunk.is_empty() {
            let Some(end) = memchr::memchr(b'\n', &self.chunk) else {
                let rest = std::mem::take(&mut self.chunk);
                // One byte more may be the CR of a line that is just not too long.
                if self.started.len() + rest.len() > self.line_bytes_max + 1 {
                    return Some(Err(self.too_long()));
                }
                self.started.extend_from_slice(&rest);
                return None;
            };
            let mut line = self.chunk.split_to(end + 1);
            line.truncate(end);
            if !self.started.is_empty() {
                if self.started.len() + line.len() > self.line_bytes_max + 1 {
                    return Some(Err(self.too_long()));
                }
                self.started.extend_from_slice(&line);
                line = std::mem::take(&mut self.started).freeze();
            }
            if let Some(result) = self.end_line(line) {
                return Some(result);
            }
        }
        None
    }

    /// The last line if it had no LF, once the body has ended properly. Of a body that was cut short
    /// this is not called: what it began to say is not known.
    pub fn finish(&mut self) -> Option<Result<Line, LineError>> {
        assert!(self.chunk.is_empty(), "lines are taken until there is none");
        match self.started.is_empty() {
            true => None,
            false => {
                let line = std::mem::take(&mut self.started).freeze();
                self.end_line(line)
            }
        }
    }

    /// The number of the line that comes next or is under way, from 1.
    pub fn line_number(&self) -> u64 {
        self.ended + 1
    }

    /// Whether all that came has been taken, and ends with a line.
    pub fn is_between(&self) -> bool {
        self.chunk.is_empty() && self.started.is_empty()
    }

    fn end_line(&mut self, mut line: Bytes) -> Option<Result<Line, LineError>> {
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if line.len() > self.line_bytes_max {
            return Some(Err(self.too_long()));
        }
        self.ended += 1;
        let blank = line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        (!blank).then_some(Ok(Line { number: self.ended, bytes: line }))
    }

    fn too_long(&mut self) -> LineError {
        let detail = format!("the line exceeds the limit of {} bytes", self.line_bytes_max);
        self.chunk = Bytes::new();
        self.started = BytesMut::new();
        LineError {
            number: self.line_number(),
            problem: Problem::new(ProblemKind::EventTooLarge, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All lines of a body that arrives in these pieces, with `None` for one that is too long.
    fn split(pieces: &[&[u8]], line_bytes_max: usize, ends: bool) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut lines = Lines::new(line_bytes_max);
        let mut all = Vec::new();
        let mut take = |result: Result<Line, LineError>| {
            let too_long = result.is_err();
            all.push(match result {
                Ok(line) => (line.number, Some(line.bytes.to_vec())),
                Err(error) => (error.number, None),
            });
            too_long
        };
        for piece in pieces {
            lines.push(Bytes::copy_from_slice(piece));
            while let Some(result) = lines.next_line() {
                if take(result) {
                    return all;
                }
            }
        }
        if ends && let Some(result) = lines.finish() {
            take(result);
        }
        all
    }

    fn line(number: u64, text: &str) -> (u64, Option<Vec<u8>>) {
        (number, Some(text.as_bytes().to_vec()))
    }

    /// API §2: "`line` (from 1, blank lines count) .. A trailing CR is dropped, blank lines are
    /// skipped".
    #[test]
    fn lines_are_numbered_and_blank_ones_skipped() {
        let body: &[u8] = b"\n1\r\n\r\n \t\n 2 \n3\r\r\n\xff\n";
        let wanted = [line(2, "1"), line(5, " 2 "), line(6, "3\r"), (7, Some(vec![0xff]))];
        assert_eq!(split(&[body], 100, true), wanted);
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(split(&bytes, 100, true), wanted, "chunks of one byte each");
    }

    /// API §2: "a last line without LF counts only if the body ended properly".
    #[test]
    fn the_last_line_counts_only_in_a_whole_body() {
        assert_eq!(split(&[b"1\n2"], 100, true), [line(1, "1"), line(2, "2")]);
        assert_eq!(split(&[b"1\n2\r"], 100, true), [line(1, "1"), line(2, "2")]);
        assert_eq!(split(&[b"1\n2"], 100, false), [line(1, "1")]);
        assert_eq!(split(&[b"1\n", b""], 100, true), [line(1, "1")]);
        assert_eq!(split(&[b"1\n "], 100, true), [line(1, "1")]);
    }

    /// API §9: "one NDJSON line as one event": the limit is met, and passed by one byte.
    #[test]
    fn a_line_that_is_too_long_ends_it() {
        for ending in ["\n", "\r\n", ""] {
            let fits = format!("1\n1234{ending}");
            assert_eq!(split(&[fits.as_bytes()], 4, true), [line(1, "1"), line(2, "1234")]);
            let too_long = format!("1\n12345{ending}");
            assert_eq!(split(&[too_long.as_bytes()], 4, true), [line(1, "1"), (2, None)]);
            let bytes: Vec<&[u8]> = too_long.as_bytes().chunks(1).collect();
            assert_eq!(split(&bytes, 4, true), [line(1, "1"), (2, None)]);
        }
    }

    #[test]
    fn a_line_without_end_holds_bounded_memory() {
        let mut lines = Lines::new(1000);
        for _ in 0..10 {
            lines.push(Bytes::from_static(&[b'x'; 100]));
            assert!(lines.next_line().is_none());
        }
        assert_eq!(lines.started.len(), 1000);
        lines.push(Bytes::from_static(b"xx"));
        let error = lines.next_line().unwrap().unwrap_err();
        assert_eq!((error.number, error.problem.status()), (1, 413));
        assert_eq!(error.problem.detail(), "the line exceeds the limit of 1000 bytes");
    }

    #[test]
    fn between_lines_nothing_is_kept() {
        let mut lines = Lines::new(100);
        assert!(lines.is_between());
        for (piece, is_between) in [
            ("1\n", true),
            ("\r\n", true),
            ("2", false),
            ("\r", false),
            ("\n \n", true),
            (" ", false),
        ] {
            lines.push(Bytes::from_static(piece.as_bytes()));
            assert!(!lines.is_between(), "{piece:?} has not been looked at");
            while lines.next_line().is_some() {}
            assert_eq!(lines.is_between(), is_between, "{piece:?}");
        }
    }

    #[test]
    fn a_line_inside_a_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"{\"a\":1}\n");
        let mut lines = Lines::new(100);
        lines.push(chunk.clone());
        let line = lines.next_line().unwrap().unwrap();
        assert_eq!(line.bytes.as_ptr(), chunk.as_ptr());
    }

    proptest! {
        /// However a body is cut into chunks, its lines are those of the whole.
        #[test]
        fn cuts_do_not_matter(
            body in "[a\r\n ]{0,40}",
            cuts in prop::collection::vec(0usize..40, 0..6),
            line_bytes_max in 1usize..8,
        ) {
            let body = body.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(&pieces, line_bytes_max, true), split(&[body], line_bytes_max, true));
        }
    }
}
