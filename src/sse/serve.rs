//! How an event stream begins, and what it says.
//!
//! ```text
//!   head --> (searching) --> connection.established --> events, heartbeats, resets --> closing, end
//!   `latest` is fixed        where it begins
//!   before it leaves
//! ```
//! From the head on, the connection is a subscriber of its shard like thousands of others
//! ([`Subscribers`](crate::stream::subscribers::Subscribers)), which needs no task of its own. Heartbeats
//! run from then on, also while the beginning is still being found.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;
use strandline_storage::event::EventView;
use strandline_storage::offset::Offset;
use strandline_storage::segment::Tag;

use super::encode::{self, Established, EventEncoder};
use crate::http::query::{Format, StreamRequest};
use crate::http::response::{Answer, AnswerTo, CHUNK_SUFFIX, ChunkPrefix, Framing};
use crate::problem::CloseCode;
use crate::stream::chunk::{Render, Word};
use crate::stream::cursor::{self, Cursor, StartPlace, StartState, StreamFacts};
use crate::stream::live::LiveLog;
use crate::stream::pulse::{connection_id, random};
use crate::stream::search;
use crate::stream::subscribers::StreamStart;
use crate::stream::view::{Rendering, ViewKey, Wanted};

/// Reconnections spread over these milliseconds, so that a restart is no storm.
const RETRY_MS: Range<u64> = 1000..3000;

/// A server that stops, or has too much to do, needs a while longer.
const RETRY_LATER_MS: Range<u64> = 1000..5000;

/// Appends the head of an event stream; for HEAD that is the whole answer.
pub fn write_head(to: &AnswerTo, out: &mut Vec<u8>) -> Framing {
    Answer::start(200, to, out).event_stream()
}

/// Appends the whole answer to a request for an event stream that cannot be served now. An
/// `EventSource` gives up for ever at 503, and comes back after this.
pub fn write_not_now(code: CloseCode, to: &AnswerTo, out: &mut Vec<u8>) {
    let framing = write_head(to, out);
    let mut body = Vec::new();
    push_closing(&mut body, code);
    framing.write(&body, out);
    out.extend_from_slice(framing.end());
}

/// Ends a stream in words; the client comes back in a time of its own.
fn push_closing(out: &mut Vec<u8>, code: CloseCode) {
    let retry_ms = if code == CloseCode::CannotRead { RETRY_MS } else { RETRY_LATER_MS };
    encode::push_closing(out, Some(random_ms(retry_ms)), code.code(), code.entry().reason);
}

fn random_ms(range: Range<u64>) -> u32 {
    u32::try_from(random(range)).expect("a few seconds")
}

/// Events as a view's subscribers get them, and what a stream of it says between them.
struct SseRender {
    encoder: RefCell<EventEncoder>,
    framing: Framing,
    tag: Tag,
}

/// Room for the prefix of a chunk of less than 4 GiB.
const PREFIX_ROOM: &[u8; 10] = b"        \r\n";

impl Render for SseRender {
    fn open(&self, out: &mut Vec<u8>) {
        if self.framing == Framing::Chunked {
            out.extend_from_slice(PREFIX_ROOM);
        }
    }

    fn event(&self, event: &EventView<'_>, out: &mut Vec<u8>) {
        self.encoder.borrow_mut().push_event(out, event, true);
    }

    fn close(&self, out: &mut Vec<u8>) -> Range<usize> {
        match self.framing {
            Framing::UntilClose => 0..out.len(),
            Framing::Chunked => {
                let prefix = ChunkPrefix::new(out.len() - PREFIX_ROOM.len());
                let start = PREFIX_ROOM.len() - prefix.as_slice().len();
                out[start..PREFIX_ROOM.len()].copy_from_slice(prefix.as_slice());
                out.extend_from_slice(CHUNK_SUFFIX);
                start..out.len()
            }
        }
    }

    fn tail(&self, chunk: &Bytes, at: usize) -> Bytes {
        match self.framing {
            Framing::UntilClose => chunk.slice(at..),
            Framing::Chunked => {
                let mut tail = Vec::with_capacity(PREFIX_ROOM.len() + chunk.len() - at);
                self.framing.write(&chunk[at..chunk.len() - CHUNK_SUFFIX.len()], &mut tail);
                tail.into()
            }
        }
    }

    fn say(&self, word: Word, out: &mut Vec<u8>) {
        let mut text = Vec::new();
        match word {
            Word::Heartbeat => text.extend_from_slice(encode::HEARTBEAT),
            Word::Ping { next, now_ms } => {
                encode::push_ping(&mut text, Cursor::before(next, self.tag), now_ms);
            }
            Word::Reset { reason, from } => {
                encode::push_reset(&mut text, reason, from, self.tag);
            }
            Word::Closing(code) => push_closing(&mut text, code),
        }
        self.framing.write(&text, out);
        if matches!(word, Word::Closing(_)) {
            out.extend_from_slice(self.framing.end());
        }
    }
}

/// Serves `request` on `socket` from now on; `guard` is dropped when the stream ends.
pub fn serve(
    socket: OwnedFd,
    to: &AnswerTo,
    request: StreamRequest,
    live: &Rc<LiveLog>,
    guard: Box<dyn Any>,
) -> io::Result<()> {
    let log = live.log();
    let (tag, visible) = (*log.tag(), log.visible());
    let facts = StreamFacts { earliest: log.earliest(), visible, tag };
    let start = cursor::resolve(request.cursor, request.from, &facts);
    let mut text = Vec::with_capacity(512);
    let framing = write_head(to, &mut text);
    let wanted = Wanted::new(request.topics, request.types).filtered(request.filter);
    let wanted = Rc::new(wanted);
    let rendering = Rendering::Sse {
        is_object: request.format == Format::Event,
        is_chunked: framing == Framing::Chunked,
    };
    let encoder = RefCell::new(EventEncoder::new(request.format, tag));
    let render = Rc::new(SseRender { encoder, framing, tag });
    let from = match start.place {
        StartPlace::Offset(from) => Some(from.max(facts.earliest)),
        StartPlace::Last(_) | StartPlace::Time(_) => None,
    };
    if let Some(from) = from {
        push_established(live, framing, start.state, from, &facts, &mut text);
    }
    let begin = StreamStart {
        key: ViewKey { wanted: wanted.clone(), rendering },
        render,
        from,
        text: text.into(),
        heartbeat_s: request.heartbeat_s,
        is_pinging: request.ping,
    };
    let id = live.subscribers().add_stream(socket, begin, guard)?;
    if from.is_none() {
        let live = live.clone();
        monoio::spawn(async move {
            let found = search::find(live.log(), live.turns(), wanted, start.place, visible);
            match found.await {
                Ok(from) => {
                    let (from, mut text) = (from.max(facts.earliest), Vec::new());
                    push_established(&live, framing, start.state, from, &facts, &mut text);
                    live.subscribers().begin(id, from, &text);
                }
                Err(error) => {
                    tracing::error!(%error, "cannot find where a stream begins");
                    live.subscribers().close(id, CloseCode::CannotRead);
                }
            }
        });
    }
    Ok(())
}

fn push_established(
    live: &LiveLog,
    framing: Framing,
    state: StartState,
    from: Offset,
    facts: &StreamFacts,
    out: &mut Vec<u8>,
) {
    let established = Established {
        retry_ms: random_ms(RETRY_MS),
        connection_id: &connection_id(),
        state,
        from,
        earliest: facts.earliest,
        durable: live.log().synced(),
        tag: facts.tag,
    };
    let mut text = Vec::new();
    encode::push_established(&mut text, &established);
    framing.write(&text, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(framing: Framing) -> SseRender {
        let tag = Tag::parse("k3f9q").expect("a tag");
        SseRender { encoder: RefCell::new(EventEncoder::new(Format::Data, tag)), framing, tag }
    }

    #[test]
    fn a_chunk_that_is_joined_in_its_middle_is_a_chunk() {
        let render = render(Framing::Chunked);
        let mut out = Vec::new();
        render.open(&mut out);
        out.extend_from_slice(b"first event, and the second");
        let range = render.close(&mut out);
        let chunk = Bytes::copy_from_slice(&out[range]);
        assert_eq!(chunk[..], *b"1b\r\nfirst event, and the second\r\n");
        assert_eq!(render.tail(&chunk, 15)[..], *b"10\r\n, and the second\r\n");
    }

    #[test]
    fn the_last_word_ends_the_answer() {
        for (framing, end) in
            [(Framing::Chunked, "}\n\n\r\n0\r\n\r\n"), (Framing::UntilClose, "}\n\n")]
        {
            let mut out = Vec::new();
            render(framing).say(Word::Closing(CloseCode::Drained), &mut out);
            let text = String::from_utf8(out).expect("UTF-8");
            assert!(text.contains("event: connection.closing\ndata: {\"code\":4000,"), "{text}");
            assert!(text.ends_with(end), "{text}");
        }
    }
}
