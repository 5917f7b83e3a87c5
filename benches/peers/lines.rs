//! The lines of an HTTP answer that goes on and on, whatever its framing.
//!
//! A peer may put everything that a reader missed into a single Server-Sent Event of a hundred megabytes; so
//! lines are handed out one by one, where they stand, and only one that a chunk's end divides is copied.

use memchr::memchr;
use strandline::bench::http::{Chunks, Head, excerpt};

/// A line is at most this long.
const LINE_BYTES_MAX: usize = 4 << 20;

/// One answer, line by line.
#[derive(Debug, Default)]
pub struct Lines {
    framing: Option<Framing>,
    /// The beginning of a line that the next chunk goes on with.
    divided: Vec<u8>,
}

#[derive(Debug)]
enum Framing {
    UntilClose,
    Chunked(Chunks),
}

impl Lines {
    /// Whether the head has come.
    pub fn has_begun(&self) -> bool {
        self.framing.is_some()
    }

    /// Whether what was taken says nothing about what comes next.
    pub fn is_between(&self) -> bool {
        let is_between_chunks =
            matches!(self.framing, Some(Framing::UntilClose | Framing::Chunked(Chunks::Size)));
        is_between_chunks && self.divided.is_empty()
    }

    /// Calls `on_line` for each whole line in `input`, without its end, and with the place behind it; returns how many bytes it is done
    /// with. An error says why there is no stream, or that it has ended.
    #[inline]
    pub fn take(
        &mut self,
        input: &[u8],
        mut on_line: impl FnMut(&[u8], usize),
    ) -> Result<usize, String> {
        let mut at = 0;
        if self.framing.is_none() {
            let Some(head) = Head::parse(input)? else { return Ok(0) };
            if head.status != 200 {
                return Err(format!("no event stream: {}", excerpt(input)));
            }
            at = head.bytes;
            self.framing = Some(match head.is_chunked() {
                true => Framing::Chunked(Chunks::default()),
                false => Framing::UntilClose,
            });
        }
        let Self { framing: Some(framing), divided } = self else { return Ok(at) };
        let chunks = match framing {
            Framing::UntilClose => return Ok(whole_lines(input, at, &mut on_line)),
            Framing::Chunked(chunks) => chunks,
        };
        loop {
            at += chunks.take_frame(&input[at..])?;
            let data_bytes = match *chunks {
                Chunks::Data(data_bytes) => data_bytes,
                Chunks::Ended => return Err("the stream ended".to_owned()),
                _ => return Ok(at),
            };
            let rest = &input[at..];
            let is_whole = data_bytes <= rest.len();
            let piece = &rest[..data_bytes.min(rest.len())];
            let taken = take_piece(piece, at, is_whole, divided, &mut on_line)?;
            chunks.take_data(taken);
            at += taken;
            if !is_whole {
                return Ok(at);
            }
        }
    }
}

/// Takes a piece of a chunk, which begins at `place`; returns how much. Of one that `is_whole`, the end of
/// its chunk, nothing is left.
fn take_piece(
    piece: &[u8],
    place: usize,
    is_whole: bool,
    divided: &mut Vec<u8>,
    on_line: &mut impl FnMut(&[u8], usize),
) -> Result<usize, String> {
    let mut taken = 0;
    if !divided.is_empty() {
        let Some(end) = memchr(b'\n', piece) else {
            divided.extend_from_slice(piece);
            return match divided.len() > LINE_BYTES_MAX {
                true => Err(format!("a line of more than {LINE_BYTES_MAX} bytes")),
                false => Ok(piece.len()),
            };
        };
        divided.extend_from_slice(&piece[..end]);
        taken = end + 1;
        on_line(divided, place + taken);
        divided.clear();
    }
    taken = whole_lines(piece, taken, &mut |line, end| on_line(line, place + end));
    if is_whole {
        divided.extend_from_slice(&piece[taken..]);
        taken = piece.len();
    }
    Ok(taken)
}

/// Hands out whole lines from `done` on; returns where the first that is not whole begins.
#[inline]
fn whole_lines(input: &[u8], mut done: usize, on_line: &mut impl FnMut(&[u8], usize)) -> usize {
    while let Some(length) = memchr(b'\n', &input[done..]) {
        let end = done + length;
        on_line(&input[done..end], end + 1);
        done = end + 1;
    }
    done
}
