//! A WebSocket's life after the handshake: one task, which answers, acknowledges and pushes.
//!
//! ```text
//!   socket --> decoder --> messages --> subscribe, unsubscribe, publish, ping
//!                                           |                      |
//!   socket <-- outlet <-- [ answers ] <-----+----- acks, in order <'
//!                    <--- chunks of each subscription's feed, in turn
//! ```
//! Answers gather in one buffer and leave in one write; what the feeds have follows. Both stand in
//! whole frames, so that any order between them is a valid one; an answer is never behind events
//! that its message brought about.
//!
//! Nothing is read while too much is unanswered ([`PUBLISHES_MAX`], [`PUBLISH_BYTES_MAX`]) or while the
//! answers are not taken (`ANSWER_BYTES_MAX`): the client's socket fills, and it waits.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use monoio::net::TcpStream;
use monoio::time::Instant;
use strandline_storage::error::ReadError;
use strandline_storage::event::{EventView, NewEvent};
use strandline_storage::offset::Offset;
use strandline_storage::segment::Tag;

use super::frames::{self, Accepted, Decoder, Received, push_text_frame};
use super::message::{self, ClientMessage, MessageId, Subscribe, Subscribed};
use crate::clock;
use crate::event_json::push_websocket_event;
use crate::http::query::StreamRequest;
use crate::http::response::write_switching_protocols;
use crate::input::{LogName, quoted};
use crate::log_handle::{AckFuture, Acked, AppendRefused};
use crate::problem::{CloseCode, Problem, ProblemKind};
use crate::runtime::Slice;
use crate::shutdown::Drain;
use crate::stream::chunk::Render;
use crate::stream::cursor::{self, Cursor, ResetReason, Start, StreamFacts};
use crate::stream::feed::{Fed, Feed};
use crate::stream::live::LiveLog;
use crate::stream::outlet::Outlet;
use crate::stream::pulse::{Alarm, connection_id};
use crate::stream::search;
use crate::stream::view::{Rendering, ViewKey, Wanted};
use crate::timestamp::TimeText;

/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX: u32 = 256;

/// Publishes without an answer, beyond which nothing is read.
pub const PUBLISHES_MAX: usize = 1000;

/// The bytes of their data, beyond which nothing is read.
pub const PUBLISH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Answers that the socket has not taken, beyond which nothing is read.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// So many bytes of answers leave without waiting for more of them.
const ANSWER_BYTES_FLUSH: usize = 32 * 1024;

/// A client that never stops sending gets its events all the same: after so many of its messages.
const RECEIVED_PER_FEED: u32 = 64;

/// A socket that has been full for so long is stalled: no events are kept for it any more.
const STALL_MS: u64 = 50;

/// At the end, publishes that were taken have so long to be acknowledged: a commit's time, many times.
const SETTLE_MS: u64 = 2000;

/// After a close frame the client has so long to end its side.
const CLOSING_MS: u64 = 1000;

/// A connection without a sign of life ends after two heartbeats, but not before.
const SILENCE_MS_MIN: u64 = 60_000;

const RECEIVE_BYTES: usize = 64 * 1024;

thread_local! {
    /// What has come in, until it is decoded: one buffer for all connections of a shard.
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECEIVE_BYTES].into());
}

/// Events as frames that name a subscription.
struct WebSocketRender {
    subscription: u32,
    time: RefCell<TimeText>,
}

impl Render for WebSocketRender {
    fn event(&self, event: &EventView<'_>, out: &mut Vec<u8>) {
        let time = &mut *self.time.borrow_mut();
        push_text_frame(out, |out| push_websocket_event(out, event, self.subscription, time));
    }
}

/// Speaks WebSocket on `stream` until one side ends it. `early_bytes` came behind the handshake. An
/// error is the client's hanging up, or what the socket said.
pub async fn serve(
    stream: TcpStream,
    accepted: Accepted,
    request: StreamRequest,
    early_bytes: Vec<u8>,
    live: Rc<LiveLog>,
    drain: Drain,
) -> io::Result<()> {
    let tag = *live.log().tag();
    let heartbeat = Duration::from_secs(request.heartbeat_s.into());
    let mut answers = Vec::with_capacity(512);
    write_switching_protocols(&accepted.accept, accepted.protocol, &mut answers);
    push_text_frame(&mut answers, |out| {
        message::push_established(out, &connection_id(), tag);
    });
    let mut decoder = Decoder::default();
    decoder.push(Bytes::from(early_bytes));
    let now = Instant::now();
    let mut session = Session {
        sync: live.log().sync().name(),
        live,
        tag,
        outlet: Outlet::new(stream),
        is_full: false,
        stall: None,
        decoder,
        answers,
        publishes: VecDeque::new(),
        publish_bytes: 0,
        subscriptions: BTreeMap::new(),
        next_fed: 1,
        received_since_fed: 0,
        heartbeat: Alarm::new(heartbeat),
        life: Life::new(now, heartbeat),
        draining: Box::pin(async move { drain.begun().await }),
        slice: Slice::begin(),
    };
    if request.subscribes {
        session.subscribe(Subscribe {
            id: None,
            log: None,
            topics: request.topics,
            types: request.types,
            from: request.from,
            cursor: request.cursor,
        });
    }
    session.run().await
}

struct Session {
    live: Rc<LiveLog>,
    tag: Tag,
    sync: &'static str,
    outlet: Outlet,
    /// The socket takes nothing more now.
    is_full: bool,
    /// How long it has been full; none once the feeds have let go of everything for it.
    stall: Option<Alarm>,
    decoder: Decoder,
    /// Whole frames for the client, before anything that the feeds have.
    answers: Vec<u8>,
    /// Publishes without an answer, in the order in which they came.
    publishes: VecDeque<Publish>,
    publish_bytes: usize,
    subscriptions: BTreeMap<u32, Subscriber>,
    /// Whose feed is asked first.
    next_fed: u32,
    /// Messages that were answered since the feeds were asked.
    received_since_fed: u32,
    heartbeat: Alarm,
    life: Life,
    draining: Pin<Box<dyn Future<Output = ()>>>,
    slice: Slice,
}

struct Publish {
    id: Option<MessageId>,
    ack: AckFuture,
    data_bytes: usize,
}

/// The last sign of life from the client: something came in, or it took what was sent.
struct Life {
    seen: Instant,
    taken_bytes: u64,
    /// For so long neither may happen.
    silence_max: Duration,
}

impl Life {
    fn new(now: Instant, heartbeat: Duration) -> Self {
        let silence_max = (heartbeat * 2).max(Duration::from_millis(SILENCE_MS_MIN));
        Life { seen: now, taken_bytes: 0, silence_max }
    }

    /// Something came in.
    fn heard(&mut self, now: Instant) {
        self.seen = now;
    }

    /// Whether the client has gone without a word; `taken_bytes` is what it has taken in all.
    fn is_over(&mut self, taken_bytes: u64, now: Instant) -> bool {
        if taken_bytes > self.taken_bytes {
            self.taken_bytes = taken_bytes;
            self.seen = now;
        }
        now.duration_since(self.seen) >= self.silence_max
    }
}

enum Subscriber {
    /// Where it begins is still being looked up.
    Starting { id: Option<MessageId>, wanted: Wanted, start: Start, search: Search },
    /// It gets its events; whether any left since the last heartbeat.
    Live { feed: Box<Feed>, has_sent: bool },
}

type Search = Pin<Box<dyn Future<Output = Result<Offset, ReadError>>>>;

enum Wake {
    Draining,
    Received(io::Result<Bytes>),
    Message(Result<Received, CloseCode>),
    Answered(Result<Acked, AppendRefused>),
    Found(u32, Result<Offset, ReadError>),
    Space(io::Result<()>),
    Stalled,
    AnswersReady,
    Fed(u32, Fed),
    Heartbeat,
}

/// Why a session goes no further.
enum End {
    /// With this close frame.
    Close(CloseCode),
    /// The client closed, with this code.
    Closed(Option<u16>),
    /// Without a word: nobody is there.
    Lost(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Lost(error)
    }
}

impl Session {
    async fn run(mut self) -> io::Result<()> {
        loop {
            let mut has_slept = false;
            let wake = poll_fn(|context| {
                let wake = self.poll_wake(context);
                has_slept |= wake.is_pending();
                wake
            });
            let wake = wake.await;
            if let Err(end) = self.handle(wake) {
                return self.close(end).await;
            }
            if has_slept {
                self.slice = Slice::begin();
            } else {
                self.slice.end_if_over().await;
            }
        }
    }

    fn poll_wake(&mut self, context: &mut Context<'_>) -> Poll<Wake> {
        if self.draining.as_mut().poll(context).is_ready() {
            return Poll::Ready(Wake::Draining);
        }
        if !self.is_full && self.answers.len() >= ANSWER_BYTES_FLUSH {
            return Poll::Ready(Wake::AnswersReady);
        }
        if let Some(publish) = self.publishes.front_mut()
            && let Poll::Ready(result) = Pin::new(&mut publish.ack).poll(context)
        {
            return Poll::Ready(Wake::Answered(result));
        }
        for (number, subscriber) in &mut self.subscriptions {
            if let Subscriber::Starting { search, .. } = subscriber
                && let Poll::Ready(found) = search.as_mut().poll(context)
            {
                return Poll::Ready(Wake::Found(*number, found));
            }
        }
        let are_feeds_due = self.received_since_fed >= RECEIVED_PER_FEED;
        if self.may_read() && (self.is_full || !are_feeds_due) {
            if let Some(message) = self.decoder.next_message() {
                return Poll::Ready(Wake::Message(message));
            }
            if let Poll::Ready(received) = self.poll_receive(context) {
                return Poll::Ready(Wake::Received(received));
            }
        }
        if self.is_full {
            if let Poll::Ready(result) = self.outlet.poll_writable(context) {
                return Poll::Ready(Wake::Space(result));
            }
            if let Some(stall) = &mut self.stall
                && stall.poll(context).is_ready()
            {
                return Poll::Ready(Wake::Stalled);
            }
        } else {
            if !self.answers.is_empty() {
                return Poll::Ready(Wake::AnswersReady);
            }
            if let Poll::Ready((number, fed)) = self.poll_feeds(context) {
                self.received_since_fed = 0;
                return Poll::Ready(Wake::Fed(number, fed));
            }
            if are_feeds_due {
                self.received_since_fed = 0;
                return self.poll_wake(context);
            }
        }
        self.heartbeat.poll(context).map(|()| Wake::Heartbeat)
    }

    fn may_read(&self) -> bool {
        self.publishes.len() < PUBLISHES_MAX
            && self.publish_bytes < PUBLISH_BYTES_MAX
            && self.answers.len() < ANSWER_BYTES_MAX
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        RECEIVED.with_borrow_mut(|buffer| {
            let received = std::task::ready!(self.outlet.poll_receive(context, buffer));
            Poll::Ready(received.map(|count| Bytes::copy_from_slice(&buffer[..count])))
        })
    }

    /// Asks the feeds in turn, beginning behind the one that had something last.
    fn poll_feeds(&mut self, context: &mut Context<'_>) -> Poll<(u32, Fed)> {
        let next = self.next_fed;
        for range in [next..=SUBSCRIPTIONS_MAX, 1..=next.saturating_sub(1)] {
            if range.is_empty() {
                continue;
            }
            for (number, subscriber) in self.subscriptions.range_mut(range) {
                if let Subscriber::Live { feed, .. } = subscriber
                    && let Poll::Ready(fed) = feed.poll_next(context)
                {
                    self.next_fed = number % SUBSCRIPTIONS_MAX + 1;
                    return Poll::Ready((*number, fed));
                }
            }
        }
        Poll::Pending
    }

    fn handle(&mut self, wake: Wake) -> Result<(), End> {
        match wake {
            Wake::Draining => return Err(End::Close(CloseCode::Drained)),
            Wake::Received(received) => {
                let bytes = received?;
                if bytes.is_empty() {
                    return Err(End::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
                self.life.heard(Instant::now());
                self.decoder.push(bytes);
            }
            Wake::Message(Ok(received)) => {
                self.received_since_fed += 1;
                self.receive(received)?;
            }
            Wake::Message(Err(code)) => return Err(End::Close(code)),
            Wake::Answered(result) => self.answer_publish(result),
            Wake::Found(number, found) => self.begin(number, found)?,
            Wake::Space(result) => {
                result?;
                self.is_full = self.outlet.push(&[])?.is_full;
            }
            Wake::Stalled => {
                self.stall = None;
                for subscriber in self.subscriptions.values_mut() {
                    if let Subscriber::Live { feed, .. } = subscriber {
                        feed.stalled();
                    }
                }
            }
            Wake::AnswersReady => {
                let answers = Bytes::from(std::mem::take(&mut self.answers));
                let is_taken = self.outlet.offer(&answers)?;
                assert!(is_taken, "only offered where nothing waits");
                self.note_full(!self.outlet.is_drained());
            }
            Wake::Fed(number, fed) => self.feed(number, fed)?,
            Wake::Heartbeat => self.beat()?,
        }
        Ok(())
    }

    fn note_full(&mut self, is_full: bool) {
        self.is_full = is_full;
        self.stall = is_full.then(|| Alarm::new(Duration::from_millis(STALL_MS)));
    }

    fn answer(&mut self, render: impl FnOnce(&mut Vec<u8>)) {
        push_text_frame(&mut self.answers, render);
    }

    fn refuse(&mut self, id: Option<&MessageId>, problem: &Problem) {
        self.answer(|out| message::push_error(out, id, problem));
    }

    fn receive(&mut self, received: Received) -> Result<(), End> {
        let text = match received {
            Received::Text(text) => text,
            Received::Ping(payload) => {
                frames::push_pong(&mut self.answers, &payload);
                return Ok(());
            }
            Received::Pong => return Ok(()),
            Received::Close(code) => return Err(End::Closed(code)),
        };
        match message::parse(&text) {
            Ok(ClientMessage::Subscribe(subscribe)) => self.subscribe(subscribe),
            Ok(ClientMessage::Unsubscribe { id, subscription }) => {
                self.unsubscribe(id.as_ref(), subscription);
            }
            Ok(ClientMessage::Publish { id, event }) => self.publish(id, *event),
            Ok(ClientMessage::Ping { id }) => {
                self.answer(|out| message::push_pong(out, id.as_ref(), clock::unix_ms()));
            }
            Err(error) => self.refuse(error.id.as_ref(), &error.problem),
        }
        Ok(())
    }

    fn subscribe(&mut self, subscribe: Subscribe) {
        let Subscribe { id, log, topics, types, from, cursor } = subscribe;
        if let Some(name) = log.filter(|name| *name != LogName::default()) {
            let detail = format!("there is no log {}", quoted(name.as_str()));
            return self.refuse(id.as_ref(), &Problem::new(ProblemKind::LogNotFound, detail));
        }
        let is_free = |number: &u32| !self.subscriptions.contains_key(number);
        let Some(number) = (1..=SUBSCRIPTIONS_MAX).find(is_free) else {
            let detail = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return self.refuse(id.as_ref(), &Problem::new(ProblemKind::InvalidMessage, detail));
        };
        let log = self.live.log();
        let (earliest, visible) = (log.earliest(), log.visible());
        let start =
            cursor::resolve(cursor, from, &StreamFacts { earliest, visible, tag: self.tag });
        let wanted = Wanted::new(topics, types);
        let search = search::find(self.live.clone(), Rc::new(wanted.clone()), start.place, visible);
        let search = Box::pin(search);
        self.subscriptions.insert(number, Subscriber::Starting { id, wanted, start, search });
    }

    /// It is known where a subscription begins: says so, and begins.
    fn begin(&mut self, number: u32, found: Result<Offset, ReadError>) -> Result<(), End> {
        let from = found.map_err(|error| {
            tracing::error!(%error, "cannot find where a subscription begins");
            End::Close(CloseCode::CannotRead)
        })?;
        let Some(Subscriber::Starting { id, wanted, start, .. }) =
            self.subscriptions.remove(&number)
        else {
            unreachable!("what was searched for is still starting");
        };
        let log = self.live.log();
        let from = from.max(log.earliest());
        let subscribed = Subscribed {
            id: id.as_ref(),
            subscription: number,
            state: start.state,
            from,
            earliest: log.earliest(),
            durable: log.synced(),
            tag: self.tag,
        };
        push_text_frame(&mut self.answers, |out| message::push_subscribed(out, &subscribed));
        let subscription = u16::try_from(number).expect("at most 256");
        let key = ViewKey { wanted, rendering: Rendering::WebSocket { subscription } };
        let time = RefCell::default();
        let render = Rc::new(WebSocketRender { subscription: number, time });
        let feed = Box::new(Feed::new(&self.live, key, render, from));
        self.subscriptions.insert(number, Subscriber::Live { feed, has_sent: false });
        Ok(())
    }

    fn unsubscribe(&mut self, id: Option<&MessageId>, number: u32) {
        if self.subscriptions.remove(&number).is_none() {
            let detail = format!("there is no subscription {number}");
            return self.refuse(id, &Problem::new(ProblemKind::SubscriptionNotFound, detail));
        }
        self.answer(|out| message::push_unsubscribed(out, id, number));
    }

    fn publish(&mut self, id: Option<MessageId>, event: NewEvent) {
        let data_bytes = event.data.len();
        let ack = self.live.log().submit(vec![event]);
        self.publish_bytes += data_bytes;
        self.publishes.push_back(Publish { id, ack, data_bytes });
    }

    fn answer_publish(&mut self, result: Result<Acked, AppendRefused>) {
        let publish = self.publishes.pop_front().expect("the first one was answered");
        self.publish_bytes -= publish.data_bytes;
        match (result, &publish.id) {
            (Ok(acked), Some(id)) => {
                let (tag, sync) = (self.tag, self.sync);
                push_text_frame(&mut self.answers, |out| {
                    message::push_ack(out, id, acked.first, tag, sync);
                });
            }
            (Ok(_), None) => (),
            (Err(error), id) => self.refuse(id.as_ref(), &Problem::from(&error)),
        }
    }

    fn feed(&mut self, number: u32, fed: Fed) -> Result<(), End> {
        let Some(Subscriber::Live { feed, has_sent }) = self.subscriptions.get_mut(&number) else {
            unreachable!("only who has a feed is fed");
        };
        let (reason, from) = match fed {
            Fed::Chunks => {
                let sent = self.outlet.push(feed.pending())?;
                feed.taken(sent.chunks);
                *has_sent = true;
                self.note_full(sent.is_full);
                return Ok(());
            }
            Fed::Gap { from, to, why } => {
                tracing::warn!(%from, %to, %why, "a subscriber passes over a gap");
                (ResetReason::Gap, to)
            }
            Fed::Expired { earliest } => (ResetReason::Expired, earliest),
            Fed::Failed(error) => {
                tracing::error!(%error, "a subscriber's part of the log cannot be read");
                return Err(End::Close(CloseCode::CannotRead));
            }
        };
        *has_sent = true;
        let tag = self.tag;
        self.answer(|out| message::push_reset(out, number, reason, from, tag));
        Ok(())
    }

    /// Pings, tells silent subscriptions how far they have come, and looks for signs of life.
    fn beat(&mut self) -> Result<(), End> {
        let taken_bytes = self.outlet.taken_bytes()?;
        if self.life.is_over(taken_bytes, Instant::now()) {
            return Err(End::Lost(io::ErrorKind::TimedOut.into()));
        }
        if self.is_full {
            // It has enough to read.
            return Ok(());
        }
        frames::push_ping(&mut self.answers);
        let (now_ms, tag) = (clock::unix_ms(), self.tag);
        for (number, subscriber) in &mut self.subscriptions {
            let Subscriber::Live { feed, has_sent } = subscriber else { continue };
            if !std::mem::take(has_sent) {
                let cursor = Cursor::before(feed.place().next(), tag);
                feed.place().told();
                push_text_frame(&mut self.answers, |out| {
                    message::push_cursor(out, *number, cursor, now_ms);
                });
            }
        }
        Ok(())
    }

    /// Answers every publish that was taken. Without its ack, a client would publish once more what is
    /// in the log already.
    async fn settle(&mut self) {
        while let Some(publish) = self.publishes.front_mut() {
            let result = poll_fn(|context| Pin::new(&mut publish.ack).poll(context)).await;
            self.answer_publish(result);
        }
    }

    /// Says goodbye if somebody is there, and waits a while for the client to end its side, so that it
    /// reads what was sent last.
    async fn close(mut self, end: End) -> io::Result<()> {
        if !matches!(end, End::Lost(_)) {
            let patience = Duration::from_millis(SETTLE_MS);
            if monoio::time::timeout(patience, self.settle()).await.is_err() {
                tracing::warn!(unanswered = self.publishes.len(), "publishes end without an ack");
            }
        }
        let mut last = std::mem::take(&mut self.answers);
        match end {
            End::Close(code) => frames::push_close(&mut last, code.code(), code.entry().reason),
            End::Closed(code) => frames::push_close_reply(&mut last, code),
            End::Lost(error) => return Err(error),
        }
        let mut outlet = self.outlet;
        let goodbye = async {
            outlet.send(Bytes::from(last)).await?;
            outlet.shut_down()?;
            Err(poll_fn(|context| outlet.poll_hang_up(context)).await)
        };
        match monoio::time::timeout(Duration::from_millis(CLOSING_MS), goodbye).await {
            Ok(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            Ok(Ok(())) | Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API §5: "a connection ends for silence only when for the longer of 2 heartbeats and 60 s nothing
    /// came in *and* none of its queued bytes was taken (a slow reader is not a dead one)".
    #[test]
    fn a_connection_ends_after_two_heartbeats_or_a_minute_without_a_sign_of_life() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut life = Life::new(began, Duration::from_secs(15));
        assert!(!life.is_over(0, after(59)));
        assert!(life.is_over(0, after(60)), "a minute is longer than two heartbeats");

        let mut life = Life::new(began, Duration::from_secs(100));
        assert!(!life.is_over(0, after(199)), "two heartbeats are longer than a minute");
        assert!(life.is_over(0, after(200)));

        let mut life = Life::new(began, Duration::from_secs(15));
        life.heard(after(50));
        assert!(!life.is_over(0, after(109)), "something came in");
        assert!(!life.is_over(1, after(110)), "a slow reader took a byte");
        assert!(!life.is_over(1, after(169)));
        assert!(life.is_over(1, after(170)), "what was taken before is no sign");
    }
}
