//! Server-Sent Events as a load generator reads them: the head, chunks or none, compression or none,
//! events.
//!
//! What is whole in the received bytes is read where it stands, without a copy. Only what a chunk or a
//! compressed block leaves unfinished is carried over to the next.

use memchr::memchr;

use super::{
    decompress::Decompressor,
    http::{Chunks, Head},
};

/// An event is at most this long: twice what a server takes.
const EVENT_BYTES_MAX: usize = 4 << 20;
/// A buffer for what is carried over is given back if it is longer.
const CARRY_BYTES_KEPT: usize = 64 << 10;

/// One event of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// Its own `id:`, empty if it has none.
    pub id: &'a [u8],
    /// `event:`, empty for the default.
    pub event: &'a [u8],
    /// From the first `data:` value to the end of the last; between lines it is as on the wire.
    pub data: &'a [u8],
    /// Where it ends in what was given to [`SseStream::take`]; `None` if it was carried over to there, or
    /// compressed.
    pub end: Option<usize>,
}

/// One answer that is an event stream.
#[derive(Debug, Default)]
pub struct SseStream {
    phase: Phase,
    /// Text that has come without the rest of its event.
    carry: Vec<u8>,
    decompressor: Option<Decompressor>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Head,
    Chunked(Chunks),
    UntilClose,
}

impl SseStream {
    /// Whether what was taken says nothing about what comes next.
    pub fn is_between(&self) -> bool {
        let is_between_chunks =
            matches!(self.phase, Phase::UntilClose | Phase::Chunked(Chunks::Size));
        is_between_chunks && self.carry.is_empty() && self.decompressor.is_none()
    }

    /// Takes received bytes, from the head on: returns how many it is done with. An error says why there
    /// is no stream, or that it has ended.
    #[inline]
    pub fn take(
        &mut self,
        input: &[u8],
        mut on_event: impl FnMut(SseEvent<'_>),
    ) -> Result<usize, String> {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            match &mut self.phase {
                Phase::Head => match Head::parse(rest)? {
                    None => break,
                    Some(head) => {
                        self.take_head(&head, rest)?;
                        at += head.bytes;
                    }
                },
                Phase::UntilClose => {
                    at += self.take_text(rest, at, false, &mut on_event)?;
                    break;
                }
                Phase::Chunked(chunks) => {
                    let frame_bytes = chunks.take_frame(rest)?;
                    at += frame_bytes;
                    let data_bytes = match *chunks {
                        Chunks::Data(data_bytes) => data_bytes,
                        Chunks::Ended => return Err("the stream ended".to_owned()),
                        _ => break,
                    };
                    let rest = &rest[frame_bytes..];
                    let is_whole = data_bytes <= rest.len();
                    let piece = &rest[..data_bytes.min(rest.len())];
                    let taken = self.take_text(piece, at, is_whole, &mut on_event)?;
                    if let Phase::Chunked(chunks) = &mut self.phase {
                        chunks.take_data(taken);
                    }
                    at += taken;
                    if taken < piece.len() {
                        break;
                    }
                }
            }
        }
        Ok(at)
    }

    fn take_head(&mut self, head: &Head<'_>, input: &[u8]) -> Result<(), String> {
        if head.status != 200 {
            return Err(format!("no event stream: {}", head.refusal(input)));
        }
        self.phase = match head.is_chunked() {
            true => Phase::Chunked(Chunks::default()),
            false => Phase::UntilClose,
        };
        if let Some(coding) = head.field("content-encoding") {
            self.decompressor = Decompressor::new(coding)?;
        }
        Ok(())
    }

    /// Takes a piece of the body, which begins at `place`; returns how much. What is left is given again with more behind it,
    /// unless `is_whole`: then nothing is left.
    #[inline]
    fn take_text(
        &mut self,
        piece: &[u8],
        place: usize,
        is_whole: bool,
        on_event: &mut impl FnMut(SseEvent<'_>),
    ) -> Result<usize, String> {
        if self.decompressor.is_none() && self.carry.is_empty() {
            let taken = take_events(piece, Some(place), on_event);
            if is_whole && taken < piece.len() {
                self.carry.extend_from_slice(&piece[taken..]);
            }
            return Ok(if is_whole { piece.len() } else { taken });
        }
        match &mut self.decompressor {
            Some(decompressor) => decompressor.decompress(piece, &mut self.carry)?,
            None => self.carry.extend_from_slice(piece),
        }
        let taken = take_events(&self.carry, None, on_event);
        self.carry.drain(..taken);
        if self.carry.len() > EVENT_BYTES_MAX {
            return Err(format!("an event of more than {EVENT_BYTES_MAX} bytes"));
        }
        if self.carry.is_empty() && self.carry.capacity() > CARRY_BYTES_KEPT {
            self.carry = Vec::new();
        }
        Ok(piece.len())
    }
}

/// Calls `on_event` for each whole event at the start of `text`, which begins at `place` if that is known;
/// returns where the first that is not whole begins.
#[inline]
fn take_events(
    text: &[u8],
    place: Option<usize>,
    on_event: &mut impl FnMut(SseEvent<'_>),
) -> usize {
    let (mut begin, mut at) = (0, 0);
    let mut event = SseEvent::default();
    // From the first data value to the end of the last.
    let mut data: Option<(usize, usize)> = None;
    while let Some(length) = memchr(b'\n', &text[at..]) {
        let start = at;
        at += length + 1;
        let end = start + length - usize::from(length > 0 && text[start + length - 1] == b'\r');
        let line = &text[start..end];
        match line.first() {
            None => {
                if let Some((from, to)) = data.take() {
                    event.data = &text[from..to];
                    event.end = place.map(|place| place + at);
                    on_event(event);
                }
                event = SseEvent::default();
                begin = at;
            }
            Some(b'd') => {
                if let Some(value) = value(line, b"data:") {
                    let from = data.map_or(end - value.len(), |(from, _)| from);
                    data = Some((from, end));
                }
            }
            Some(b'i') => event.id = value(line, b"id:").unwrap_or(event.id),
            Some(b'e') => event.event = value(line, b"event:").unwrap_or(event.event),
            // A heartbeat between events is done with; one within an event is passed over.
            Some(_) if start == begin => begin = at,
            Some(_) => {}
        }
    }
    begin
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    const TEXT: &str = "retry: 2000\nid: 4.a\nevent: open\ndata: {}\n\n:\nid: 5.a\ndata: one\n\n\
                        data:two\r\ndata: lines\r\n\r\nid: 7.a\n:\ndata: four\n\n";

    fn told(event: SseEvent<'_>) -> String {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        format!("{}|{}|{}", text(event.id), text(event.event), text(event.data))
    }

    const TOLD: [&str; 4] = ["4.a|open|{}", "5.a||one", "||two\r\ndata: lines", "7.a||four"];

    /// Gives `bytes` in pieces of at most `piece`, as a connection would.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, String> {
        let (mut stream, mut all) = (SseStream::default(), Vec::new());
        let mut pending = Vec::new();
        for piece in bytes.chunks(piece) {
            pending.extend_from_slice(piece);
            let taken = stream.take(&pending, |event| all.push(told(event)))?;
            pending.drain(..taken);
        }
        Ok(all)
    }

    /// The body in chunks of at most `chunk` bytes.
    fn chunked(body: &[u8], chunk: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for chunk in body.chunks(chunk) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    #[test]
    fn events_are_read_wherever_chunks_and_reads_cut_them() {
        let until_close = format!("{HEAD}\r\n{TEXT}");
        for piece in 1..until_close.len() {
            assert_eq!(read(until_close.as_bytes(), piece).unwrap(), TOLD, "{piece}");
        }
        for chunk in 1..TEXT.len() {
            let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
            let all = [head.as_bytes(), &chunked(TEXT.as_bytes(), chunk)].concat();
            for piece in [1, 2, 3, 7, 50, 1000] {
                assert_eq!(read(&all, piece).unwrap(), TOLD, "chunks of {chunk}, reads of {piece}");
            }
        }
    }

    #[test]
    fn compressed_streams_are_read_as_the_server_writes_them() {
        use std::io::Write;
        // Gzip: one member whose blocks end with a full flush.
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut zstd = Vec::new();
        let mut pieces = Vec::new();
        for line in TEXT.split_inclusive('\n') {
            gzip.write_all(line.as_bytes()).unwrap();
            gzip.flush().unwrap();
            pieces.push(std::mem::take(gzip.get_mut()));
            zstd.extend_from_slice(&super::super::decompress::zstd_frame(line.as_bytes()));
        }
        for (coding, body) in [("gzip", pieces.concat()), ("zstd", zstd)] {
            let head =
                format!("{HEAD}Content-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n");
            for chunk in [1, 10, 1000] {
                let all = [head.as_bytes(), &chunked(&body, chunk)].concat();
                for piece in [1, 5, 1000] {
                    assert_eq!(read(&all, piece).unwrap(), TOLD, "{coding} {chunk} {piece}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_stream_is_said() {
        assert!(read(b"HTTP/1.1 404 Not Found\r\n\r\nno", 100).unwrap_err().contains("404"));
        let ended = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        assert_eq!(read(ended.as_bytes(), 100).unwrap_err(), "the stream ended");
    }
}
