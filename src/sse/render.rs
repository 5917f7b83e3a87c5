//! How the events of a view, and what its streams say between them, stand on the wire.
//!
//! ```text
//!   text --> compressed, if the client takes that --> an HTTP/1.1 chunk, unless the end is the connection's
//! ```
//! Both are done once for all subscribers of a view. A chunk of plain text can be joined at any of its
//! events; a compressed one only at its beginning.

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;
use strandline_storage::event::EventView;
use strandline_storage::segment::Tag;

use super::encode::{self, EventEncoder};
use crate::http::query::Format;
use crate::http::response::{CHUNK_SUFFIX, ChunkPrefix, Framing};
use crate::problem::CloseCode;
use crate::stream::chunk::{Render, Word};
use crate::stream::compression::{Compressor, Encoding};
use crate::stream::cursor::Cursor;
use crate::stream::pulse::random;

/// Reconnections spread over these milliseconds, so that a restart is no storm.
const RETRY_MS: Range<u64> = 1000..3000;

/// A server that stops, or has too much to do, needs a while longer.
const RETRY_LATER_MS: Range<u64> = 1000..5000;

/// Room for the prefix of a chunk of less than 4 GiB.
const PREFIX_ROOM: &[u8; 10] = b"        \r\n";

/// When a client is to come back whose connection is lost, in milliseconds: each in a time of its own.
pub(super) fn retry_ms() -> u32 {
    random_ms(RETRY_MS)
}

/// Ends a stream in words.
pub(super) fn push_closing(out: &mut Vec<u8>, code: CloseCode) {
    let retry_ms = if code == CloseCode::CannotRead { RETRY_MS } else { RETRY_LATER_MS };
    encode::push_closing(out, Some(random_ms(retry_ms)), code.code(), code.entry().reason);
}

fn random_ms(range: Range<u64>) -> u32 {
    u32::try_from(random(range)).expect("a few seconds")
}

/// What makes chunks of a shard, one for each encoding, and what they are made in.
struct Presses {
    gzip: Compressor,
    zstd: Compressor,
    packed: Vec<u8>,
}

thread_local! {
    static PRESSES: RefCell<Option<Box<Presses>>> = const { RefCell::new(None) };
}

/// Hands what `plain` becomes in `encoding` to `take`.
fn compressed(encoding: Encoding, plain: &[u8], take: impl FnOnce(&[u8])) {
    PRESSES.with_borrow_mut(|presses| {
        let presses = presses.get_or_insert_with(|| {
            Box::new(Presses {
                gzip: Compressor::new(Encoding::Gzip),
                zstd: Compressor::new(Encoding::Zstd),
                packed: Vec::new(),
            })
        });
        let Presses { gzip, zstd, packed } = &mut **presses;
        packed.clear();
        match encoding {
            Encoding::Identity => return take(plain),
            Encoding::Gzip => gzip.compress(plain, packed),
            Encoding::Zstd => zstd.compress(plain, packed),
        }
        take(packed);
    });
}

/// How the text of a stream is wrapped.
#[derive(Clone, Copy, Debug)]
pub struct Wrapping {
    /// How the answer tells its parts and its end.
    pub framing: Framing,
    /// How it is compressed.
    pub encoding: Encoding,
}

impl Wrapping {
    /// Appends what each subscriber is sent once, before everything else.
    pub fn begin(self, out: &mut Vec<u8>) {
        self.framing.write(self.encoding.stream_head(), out);
    }

    /// Appends a text, whole.
    pub fn put(self, text: &[u8], out: &mut Vec<u8>) {
        match self.encoding {
            Encoding::Identity => self.framing.write(text, out),
            encoding => compressed(encoding, text, |packed| self.framing.write(packed, out)),
        }
    }

    /// Appends what ends the answer properly.
    pub fn end(self, out: &mut Vec<u8>) {
        self.framing.write(self.encoding.stream_end(), out);
        out.extend_from_slice(self.framing.end());
    }
}

/// The events of one log in one format, wrapped.
pub struct SseRender {
    encoder: RefCell<EventEncoder>,
    wrapping: Wrapping,
    tag: Tag,
}

impl SseRender {
    /// Renders events of the history `tag`.
    pub fn new(format: Format, wrapping: Wrapping, tag: Tag) -> Self {
        SseRender { encoder: RefCell::new(EventEncoder::new(format, tag)), wrapping, tag }
    }
}

impl Render for SseRender {
    fn open(&self, out: &mut Vec<u8>) {
        if self.wrapping.framing == Framing::Chunked {
            out.extend_from_slice(PREFIX_ROOM);
        }
    }

    fn event(&self, event: &EventView<'_>, out: &mut Vec<u8>) {
        self.encoder.borrow_mut().push_event(out, event, true);
    }

    fn close(&self, out: &mut Vec<u8>) -> Range<usize> {
        let Wrapping { framing, encoding } = self.wrapping;
        let room = if framing == Framing::Chunked { PREFIX_ROOM.len() } else { 0 };
        if encoding != Encoding::Identity {
            let plain = std::mem::take(out);
            compressed(encoding, &plain[room..], |packed| {
                out.extend_from_slice(&plain[..room]);
                out.extend_from_slice(packed);
            });
        }
        match framing {
            Framing::UntilClose => 0..out.len(),
            Framing::Chunked => {
                let prefix = ChunkPrefix::new(out.len() - room);
                let start = room - prefix.as_slice().len();
                out[start..room].copy_from_slice(prefix.as_slice());
                out.extend_from_slice(CHUNK_SUFFIX);
                start..out.len()
            }
        }
    }

    fn is_divisible(&self) -> bool {
        self.wrapping.encoding == Encoding::Identity
    }

    fn tail(&self, chunk: &Bytes, at: usize) -> Bytes {
        match self.wrapping.framing {
            Framing::UntilClose => chunk.slice(at..),
            Framing::Chunked => {
                let mut tail = Vec::with_capacity(PREFIX_ROOM.len() + chunk.len() - at);
                let end = chunk.len() - CHUNK_SUFFIX.len();
                self.wrapping.framing.write(&chunk[at..end], &mut tail);
                tail.into()
            }
        }
    }

    fn say(&self, word: Word, out: &mut Vec<u8>) {
        let mut text = Vec::new();
        match word {
            Word::Heartbeat => text.extend_from_slice(encode::HEARTBEAT),
            Word::Ping { next, now_ms } => {
                let cursor = next.map(|next| Cursor::before(next, self.tag));
                encode::push_ping(&mut text, cursor, now_ms);
            }
            Word::Reset { reason, from } => {
                encode::push_reset(&mut text, reason, from, self.tag);
            }
            Word::Closing(code) => push_closing(&mut text, code),
        }
        self.wrapping.put(&text, out);
        if matches!(word, Word::Closing(_)) {
            self.wrapping.end(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(framing: Framing, encoding: Encoding) -> SseRender {
        let tag = Tag::parse("k3f9q").expect("a tag");
        SseRender::new(Format::Data, Wrapping { framing, encoding }, tag)
    }

    fn chunk(render: &SseRender, text: &[u8]) -> Bytes {
        let mut out = Vec::new();
        render.open(&mut out);
        out.extend_from_slice(text);
        let range = render.close(&mut out);
        Bytes::copy_from_slice(&out[range])
    }

    #[test]
    fn a_chunk_that_is_joined_in_its_middle_is_a_chunk() {
        let render = render(Framing::Chunked, Encoding::Identity);
        let chunk = chunk(&render, b"first event, and the second");
        assert_eq!(chunk[..], *b"1b\r\nfirst event, and the second\r\n");
        assert_eq!(render.tail(&chunk, 15)[..], *b"10\r\n, and the second\r\n");
    }

    #[test]
    fn the_last_word_ends_the_answer() {
        for (framing, end) in
            [(Framing::Chunked, "}\n\n\r\n0\r\n\r\n"), (Framing::UntilClose, "}\n\n")]
        {
            let mut out = Vec::new();
            render(framing, Encoding::Identity).say(Word::Closing(CloseCode::Drained), &mut out);
            let text = String::from_utf8(out).expect("UTF-8");
            assert!(text.contains("event: connection.closing\ndata: {\"code\":4000,"), "{text}");
            assert!(text.ends_with(end), "{text}");
        }
    }

    #[test]
    fn a_compressed_stream_is_its_head_its_chunks_and_its_words_in_any_order() {
        let wrapping = Wrapping { framing: Framing::UntilClose, encoding: Encoding::Zstd };
        let render = render(wrapping.framing, wrapping.encoding);
        assert!(!render.is_divisible());
        let mut stream = Vec::new();
        wrapping.begin(&mut stream);
        wrapping.put(b"established, ", &mut stream);
        stream.extend_from_slice(&chunk(&render, b"events, "));
        render.say(Word::Heartbeat, &mut stream);
        stream.extend_from_slice(&chunk(&render, b"more events, "));
        wrapping.end(&mut stream);
        let mut plain = [0; 100];
        let count = zstd_safe::decompress(&mut plain[..], &stream).expect("whole frames");
        assert_eq!(plain[..count], *b"established, events, :\nmore events, ");
    }
}
