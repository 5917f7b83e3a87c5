//! One event stream, from its head to its end.
//!
//! ```text
//!   head --> (searching) --> connection.established --> events, heartbeats, resets --> closing, end
//!   `latest` is fixed        where it begins
//!   before it leaves
//! ```
//! Heartbeats run from the head on. Everything is pushed when it is there: the task sleeps until its
//! view has something, its socket has space, the client hangs up, the server drains, or it has been
//! silent for long enough.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use monoio::net::TcpStream;
use strandline_storage::event::EventView;
use strandline_storage::offset::Offset;
use strandline_storage::segment::Tag;

use super::encode::{self, Established, EventEncoder};
use crate::clock;
use crate::http::query::{Format, StreamRequest};
use crate::http::response::{Answer, AnswerTo, CHUNK_SUFFIX, ChunkPrefix, Framing};
use crate::problem::CloseCode;
use crate::shutdown::Drain;
use crate::stream::chunk::Render;
use crate::stream::cursor::{self, Cursor, ResetReason, StartPlace, StreamFacts};
use crate::stream::feed::{Fed, Feed};
use crate::stream::live::LiveLog;
use crate::stream::outlet::Outlet;
use crate::stream::pulse::{Alarm, connection_id, random};
use crate::stream::search;
use crate::stream::view::{Rendering, ViewKey, Wanted};

/// A socket that has been full for so long is stalled: nothing is kept for it any more.
const STALL_MS: u64 = 50;

/// At the end of the server a subscriber has so long to take what it is told.
const CLOSING_MS: u64 = 2000;

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
    push_closing(&mut body, code, RETRY_LATER_MS);
    framing.write(&body, out);
    out.extend_from_slice(framing.end());
}

/// Ends a stream in words; the client comes back in a time of its own.
fn push_closing(out: &mut Vec<u8>, code: CloseCode, retry_ms: Range<u64>) {
    encode::push_closing(out, Some(random_ms(retry_ms)), code.code(), code.entry().reason);
}

fn random_ms(range: Range<u64>) -> u32 {
    u32::try_from(random(range)).expect("a few seconds")
}

/// Events as a view's subscribers get them.
struct SseRender {
    encoder: RefCell<EventEncoder>,
    framing: Framing,
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
}

/// Serves `request` on `stream` until the client is gone or the server drains. An error is the
/// client's hanging up, or what the socket said.
pub async fn serve(
    stream: TcpStream,
    to: AnswerTo,
    request: StreamRequest,
    live: Rc<LiveLog>,
    drain: Drain,
) -> io::Result<()> {
    let log = live.log();
    let (tag, visible) = (*log.tag(), log.visible());
    let facts = StreamFacts { earliest: log.earliest(), visible, tag };
    let start = cursor::resolve(request.cursor, request.from, &facts);

    let mut head = Vec::with_capacity(512);
    let framing = write_head(&to, &mut head);
    let mut wire = Wire {
        outlet: Outlet::new(stream),
        framing,
        is_full: false,
        heartbeat: Alarm::new(Duration::from_secs(request.heartbeat_s.into())),
        draining: Box::pin(async move { drain.begun().await }),
    };
    let place = start.place;
    if !matches!(place, StartPlace::Offset(_)) {
        wire.send(Bytes::from(std::mem::take(&mut head))).await?;
    }
    let wanted = Wanted::new(request.topics, request.types);
    let search = search::find(live.clone(), Rc::new(wanted.clone()), place, visible);
    let from = match wire.heartbeats_until(search).await? {
        Some(Ok(from)) => from.max(facts.earliest),
        Some(Err(error)) => {
            tracing::error!(%error, "cannot find where a stream begins");
            return wire.close(CloseCode::CannotRead, RETRY_MS).await;
        }
        None => return wire.close(CloseCode::Drained, RETRY_LATER_MS).await,
    };

    let mut first = Vec::new();
    let established = Established {
        retry_ms: random_ms(RETRY_MS),
        connection_id: &connection_id(),
        state: start.state,
        from,
        earliest: facts.earliest,
        durable: log.synced(),
        tag,
    };
    encode::push_established(&mut first, &established);
    framing.write(&first, &mut head);
    wire.send(Bytes::from(head)).await?;

    let rendering = Rendering::Sse {
        is_object: request.format == Format::Event,
        is_chunked: framing == Framing::Chunked,
    };
    let encoder = RefCell::new(EventEncoder::new(request.format, tag));
    let render = Rc::new(SseRender { encoder, framing });
    let feed = Feed::new(&live, ViewKey { wanted, rendering }, render, from);
    Session { wire, feed, tag, is_pinging: request.ping, stall: None }.run().await
}

/// The socket of a stream, and what else it listens for.
struct Wire {
    outlet: Outlet,
    framing: Framing,
    /// The socket takes nothing more now.
    is_full: bool,
    heartbeat: Alarm,
    draining: Pin<Box<dyn Future<Output = ()>>>,
}

impl Wire {
    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        self.outlet.send(bytes).await?;
        self.heartbeat.restart();
        Ok(())
    }

    /// Hands over `text` where the socket has space, as what it is sent in one piece.
    fn offer(&mut self, text: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(text.len() + 16);
        self.framing.write(text, &mut bytes);
        let is_taken = self.outlet.offer(&Bytes::from(bytes))?;
        assert!(is_taken, "only offered where nothing waits");
        self.is_full = !self.outlet.is_drained();
        self.heartbeat.restart();
        Ok(())
    }

    /// Sends heartbeats until `work` is done, `None` if the server drains.
    async fn heartbeats_until<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> io::Result<Option<T>> {
        let mut work = std::pin::pin!(work);
        loop {
            let done = poll_fn(|context| {
                if let Poll::Ready(value) = work.as_mut().poll(context) {
                    return Poll::Ready(Ok(Some(Some(value))));
                }
                if let Poll::Ready(error) = self.outlet.poll_hang_up(context) {
                    return Poll::Ready(Err(error));
                }
                if self.draining.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Ok(Some(None)));
                }
                self.heartbeat.poll(context).map(|()| Ok(None))
            });
            match done.await? {
                Some(end) => return Ok(end),
                None => {
                    let mut bytes = Vec::new();
                    self.framing.write(encode::HEARTBEAT, &mut bytes);
                    self.send(Bytes::from(bytes)).await?;
                }
            }
        }
    }

    /// Tells the client that this is the end, and when to come back; then ends properly.
    async fn close(mut self, code: CloseCode, retry_ms: Range<u64>) -> io::Result<()> {
        let mut text = Vec::new();
        push_closing(&mut text, code, retry_ms);
        let mut bytes = Vec::new();
        self.framing.write(&text, &mut bytes);
        bytes.extend_from_slice(self.framing.end());
        let patience = Duration::from_millis(CLOSING_MS);
        match monoio::time::timeout(patience, self.outlet.send(Bytes::from(bytes))).await {
            Ok(sent) => sent?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        self.outlet.shut_down()
    }
}

struct Session {
    wire: Wire,
    feed: Feed,
    tag: Tag,
    is_pinging: bool,
    /// How long the socket has been full; none once the feed has let go of everything for it.
    stall: Option<Alarm>,
}

enum Wake {
    Fed(Fed),
    Space(io::Result<()>),
    Stalled,
    Silent,
    HungUp(io::Error),
    Draining,
}

impl Session {
    async fn run(mut self) -> io::Result<()> {
        loop {
            match poll_fn(|context| self.poll_wake(context)).await {
                Wake::Fed(Fed::Chunks) => {
                    let sent = self.wire.outlet.push(self.feed.pending())?;
                    self.feed.taken(sent.chunks);
                    self.wire.heartbeat.restart();
                    self.wire.is_full = sent.is_full;
                    if sent.is_full {
                        self.stall = Some(Alarm::new(Duration::from_millis(STALL_MS)));
                    }
                }
                Wake::Fed(Fed::Gap { from, to, why }) => {
                    tracing::warn!(%from, %to, %why, "a subscriber passes over a gap");
                    self.reset(ResetReason::Gap, to)?;
                }
                Wake::Fed(Fed::Expired { earliest }) => {
                    self.reset(ResetReason::Expired, earliest)?;
                }
                Wake::Fed(Fed::Failed(error)) => {
                    tracing::error!(%error, "a subscriber's part of the log cannot be read");
                    return self.wire.close(CloseCode::CannotRead, RETRY_MS).await;
                }
                Wake::Space(result) => {
                    result?;
                    self.wire.is_full = self.wire.outlet.push(&[])?.is_full;
                }
                Wake::Stalled => {
                    self.stall = None;
                    self.feed.stalled();
                }
                Wake::Silent => self.heartbeat()?,
                Wake::HungUp(error) => return Err(error),
                Wake::Draining => {
                    return self.wire.close(CloseCode::Drained, RETRY_LATER_MS).await;
                }
            }
        }
    }

    fn poll_wake(&mut self, context: &mut Context<'_>) -> Poll<Wake> {
        let wire = &mut self.wire;
        if let Poll::Ready(error) = wire.outlet.poll_hang_up(context) {
            return Poll::Ready(Wake::HungUp(error));
        }
        if wire.draining.as_mut().poll(context).is_ready() {
            return Poll::Ready(Wake::Draining);
        }
        if wire.is_full {
            if let Poll::Ready(result) = wire.outlet.poll_writable(context) {
                return Poll::Ready(Wake::Space(result));
            }
            return match &mut self.stall {
                Some(stall) => stall.poll(context).map(|()| Wake::Stalled),
                None => Poll::Pending,
            };
        }
        if let Poll::Ready(fed) = self.feed.poll_next(context) {
            return Poll::Ready(Wake::Fed(fed));
        }
        wire.heartbeat.poll(context).map(|()| Wake::Silent)
    }

    /// A heartbeat: with a cursor if the client's would take it back over what held nothing for it.
    fn heartbeat(&mut self) -> io::Result<()> {
        let place = self.feed.place();
        if !self.is_pinging && !place.has_moved_silently() {
            return self.wire.offer(encode::HEARTBEAT);
        }
        let cursor = Cursor::before(place.next(), self.tag);
        place.told();
        let mut text = Vec::new();
        encode::push_ping(&mut text, cursor, clock::unix_ms());
        self.wire.offer(&text)
    }

    fn reset(&mut self, reason: ResetReason, from: Offset) -> io::Result<()> {
        let mut text = Vec::new();
        encode::push_reset(&mut text, reason, from, self.tag);
        self.wire.offer(&text)
    }
}
