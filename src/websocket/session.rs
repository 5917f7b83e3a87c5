//! A WebSocket's life after the handshake: it answers, acknowledges and subscribes.
//!
//! ```text
//!   socket --> decoder --> messages --> subscribe, unsubscribe, publish, ping
//!                                           |                      |
//!   socket <-- [ answers ] <----------------+----- acks, in order <'
//!          <-- chunks of each subscription's view
//! ```
//! It has no task: its shard calls it when something has happened, and pushes for it
//! ([`Session`]). Answers gather in one buffer and leave before any further event. Both stand in whole
//! frames, so that any order between them is a valid one; an answer is never behind events that its
//! message brought about.
//!
//! What has come in is taken up for no longer than a slice of the shard's time, and the rest behind who else waits.
//! Nothing is read while too much is unanswered ([`PUBLISHES_MAX`], [`PUBLISH_BYTES_MAX`]) or while the
//! answers are not taken (`ANSWER_BYTES_MAX`): the client's socket fills, and it waits.

mod life;
mod numbers;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use strandline_storage::append::Append;
use strandline_storage::error::ReadError;
use strandline_storage::event::EventView;
use strandline_storage::offset::Offset;
use strandline_storage::segment::Tag;

use self::life::Life;
use self::numbers::{Numbers, SUBSCRIPTIONS_MAX};
use super::frames::{self, Accepted, Decoder, Received, push_text_frame};
use super::message::{self, ClientMessage, MessageId, Subscribe, Subscribed};
use crate::clock;
use crate::event_json::push_websocket_event;
use crate::http::query::StreamRequest;
use crate::http::response::write_switching_protocols;
use crate::input::check_log;
use crate::local::Guard;
use crate::log_calls::{AckFuture, Acked, AppendRefused};
use crate::log_handle::LogHandle;
use crate::problem::{CloseCode, Problem, ProblemKind};
use crate::stream::chunk::{Render, Word};
use crate::stream::cursor::Cursor;
use crate::stream::live::LiveLog;
use crate::stream::pulse::connection_id;
use crate::stream::start::{self, Start, StartPlace, StartState, StreamFacts};
use crate::stream::subscribers::{End, Port, Session};
use crate::stream::view::{Rendering, ViewKey};
use crate::stream::wanted::Wanted;
use crate::timestamp::TimeText;

/// Publishes without an answer, beyond which nothing is read.
pub const PUBLISHES_MAX: usize = 1000;

/// The bytes of their data, beyond which nothing is read.
pub const PUBLISH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Answers that the socket has not taken, beyond which nothing is read.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Events as frames that name a subscription, and what is said of it between them.
struct WebSocketRender {
    subscription: u16,
    tag: Tag,
    time: RefCell<TimeText>,
}

impl Render for WebSocketRender {
    fn event(&self, event: &EventView<'_>, out: &mut Vec<u8>) {
        let time = &mut *self.time.borrow_mut();
        let subscription = self.subscription.into();
        push_text_frame(out, |out| push_websocket_event(out, event, subscription, time));
    }

    fn say(&self, word: Word, out: &mut Vec<u8>) {
        let (subscription, tag) = (self.subscription.into(), self.tag);
        match word {
            Word::Reset { reason, from } => push_text_frame(out, |out| {
                message::push_reset(out, subscription, reason, from, tag);
            }),
            // The session pings, names cursors and closes for all its subscriptions.
            Word::Heartbeat | Word::Ping { .. } | Word::Closing(_) => {}
        }
    }
}

/// Speaks WebSocket on `socket` until one side ends it; `guard` is dropped then. `early_bytes` came
/// behind the handshake.
pub fn serve(
    socket: OwnedFd,
    accepted: &Accepted,
    request: StreamRequest,
    early_bytes: &[u8],
    live: &Rc<LiveLog>,
    guard: Guard,
) -> io::Result<()> {
    let log = live.log();
    let tag = *log.tag();
    let mut business = Box::<Business>::default();
    let answers = &mut business.answers;
    write_switching_protocols(&accepted.accept, accepted.protocol, answers);
    push_text_frame(answers, |out| {
        message::push_established(out, &connection_id(), tag);
    });
    let heartbeat_s = request.heartbeat_s;
    business.first = request.subscribes.then(|| {
        Box::new(Subscribe {
            id: None,
            log: None,
            topics: request.topics,
            types: request.types,
            filter: request.filter,
            from: request.from,
            cursor: request.cursor,
        })
    });
    let session = WebSocket {
        log: log.clone(),
        numbers: Numbers::default(),
        business: Some(business),
        life: Life::new(Instant::now(), heartbeat_s),
    };
    live.subscribers().add_session(socket, Box::new(session), early_bytes, heartbeat_s, guard)?;
    Ok(())
}

/// What is kept of an idle one is small: thousands are.
struct WebSocket {
    log: Rc<LogHandle>,
    numbers: Numbers,
    /// Absent while there is none.
    business: Option<Box<Business>>,
    life: Life,
}

const _: () = assert!(size_of::<WebSocket>() == 64);

/// What a session is in the middle of.
#[derive(Default)]
struct Business {
    /// Absent while no message is unfinished.
    decoder: Option<Box<Decoder>>,
    /// Whole frames for the client, before anything that the views have.
    answers: Vec<u8>,
    /// What the request's query subscribes to, until it is called first.
    first: Option<Box<Subscribe>>,
    /// Subscriptions of which it is still being looked up where they begin.
    starting: Vec<Starting>,
    /// Publishes without an answer, in the order in which they came.
    publishes: VecDeque<Publish>,
    publish_bytes: usize,
}

impl Business {
    fn is_done(&self) -> bool {
        self.decoder.is_none()
            && self.answers.is_empty()
            && self.first.is_none()
            && self.starting.is_empty()
            && self.publishes.is_empty()
    }

    /// Whether the client may say more before it has taken, and been given, its answers.
    fn has_room(&self) -> bool {
        self.publishes.len() < PUBLISHES_MAX
            && self.publish_bytes < PUBLISH_BYTES_MAX
            && self.answers.len() < ANSWER_BYTES_MAX
    }
}

/// A subscription that has not begun.
struct Starting {
    search: u32,
    number: u16,
    id: Option<MessageId>,
    wanted: Rc<Wanted>,
    start: Start,
    /// The client has ended it meanwhile.
    is_ended: bool,
}

struct Publish {
    id: Option<MessageId>,
    /// Handed out to whoever waits for it.
    ack: Option<AckFuture>,
    data_bytes: usize,
}

impl Session for WebSocket {
    fn receive(&mut self, bytes: &[u8], port: &mut Port<'_>) -> Result<(), End> {
        self.life.heard(Instant::now());
        let decoder = &mut self.business().decoder;
        decoder.get_or_insert_default().push(Bytes::copy_from_slice(bytes));
        self.resume(port)
    }

    fn resume(&mut self, port: &mut Port<'_>) -> Result<(), End> {
        if let Some(first) = self.business.as_mut().and_then(|business| business.first.take()) {
            self.subscribe(*first, port);
        }
        while let Some(message) = self.next_message() {
            self.take_message(message.map_err(End::Close)?, port)?;
            // Hundreds of subscribes can have come in at once, of which each takes its time.
            if port.is_over() {
                break;
            }
        }
        if let Some(business) = &mut self.business {
            business.decoder.take_if(|decoder| decoder.is_between_messages());
        }
        self.rest();
        Ok(())
    }

    fn may_receive(&self) -> bool {
        self.has_room() && !self.has_input()
    }

    fn has_input(&self) -> bool {
        let decoder = self.business.as_ref().and_then(|business| business.decoder.as_ref());
        decoder.is_some_and(|decoder| decoder.has_more())
    }

    fn lets_others_first(&self) -> bool {
        self.has_room() && self.has_input()
    }

    fn has_answers(&self) -> bool {
        self.business.as_ref().is_some_and(|business| !business.answers.is_empty())
    }

    fn take_answers(&mut self) -> Vec<u8> {
        let answers = self.business.as_mut().map(|business| std::mem::take(&mut business.answers));
        self.rest();
        answers.unwrap_or_default()
    }

    fn found(
        &mut self,
        search: u32,
        from: Result<Offset, ReadError>,
        port: &mut Port<'_>,
    ) -> Result<(), End> {
        // It may have been ended meanwhile, and its number may be another's.
        let Some(business) = &mut self.business else { return Ok(()) };
        let at = business.starting.iter().position(|starting| starting.search == search);
        let Some(at) = at else { return Ok(()) };
        let starting = business.starting.swap_remove(at);
        self.rest();
        if starting.is_ended {
            self.numbers.give_back(starting.number);
            return Ok(());
        }
        let from = from.map_err(|error| {
            tracing::error!(%error, "cannot find where a subscription begins");
            End::Close(CloseCode::CannotRead)
        })?;
        // It may have taken a while.
        let facts = self.facts();
        self.begin(starting, from, &facts, port);
        Ok(())
    }

    fn next_append(&mut self) -> Option<AckFuture> {
        self.business.as_mut()?.publishes.front_mut()?.ack.take()
    }

    fn acknowledged(&mut self, result: Result<Acked, AppendRefused>) {
        let business = self.business.as_mut().expect("it waits for an answer");
        let publish = business.publishes.pop_front().expect("the first one was answered");
        business.publish_bytes -= publish.data_bytes;
        match (result, &publish.id) {
            (Ok(acked), Some(id)) => {
                let (tag, sync) = (*self.log.tag(), self.log.sync().name());
                let is_duplicate = acked.duplicates > 0;
                self.answer(|out| {
                    message::push_ack(out, id, acked.first, is_duplicate, tag, sync);
                });
            }
            (Ok(_), None) => (),
            (Err(error), id) => self.refuse(id.as_ref(), &Problem::from(&error)),
        }
        self.rest();
    }

    fn has_appends(&self) -> bool {
        self.business.as_ref().is_some_and(|business| !business.publishes.is_empty())
    }

    fn was_kept_waiting(&mut self) {
        self.life.was_kept_waiting(Instant::now());
    }

    /// Pings, tells silent subscriptions how far they have come, and looks for signs of life.
    fn beat(&mut self, port: &mut Port<'_>) -> Result<(), End> {
        let taken_bytes = port.taken_bytes().ok_or(End::Lost)?;
        if self.life.is_over(taken_bytes, Instant::now()) {
            return Err(End::Lost);
        }
        if port.is_full() {
            // It has enough to read.
            return Ok(());
        }
        frames::push_ping(self.answers());
        let (now_ms, tag) = (clock::unix_ms(), *self.log.tag());
        for (number, next) in port.silent() {
            let cursor = Cursor::before(next, tag);
            self.answer(|out| message::push_cursor(out, number.into(), cursor, now_ms));
        }
        Ok(())
    }

    fn close(&mut self, end: End) {
        match end {
            End::Close(code) => {
                frames::push_close(self.answers(), code.code(), code.entry().reason);
            }
            End::Closed(code) => frames::push_close_reply(self.answers(), code),
            End::Lost => {}
        }
    }
}

impl WebSocket {
    fn has_room(&self) -> bool {
        self.business.as_deref().is_none_or(Business::has_room)
    }

    fn business(&mut self) -> &mut Business {
        self.business.get_or_insert_default()
    }

    /// Keeps nothing for business that is done.
    fn rest(&mut self) {
        self.business.take_if(|business| business.is_done());
    }

    /// The next whole message, while there is room for what comes of it.
    fn next_message(&mut self) -> Option<Result<Received, CloseCode>> {
        let business = self.business.as_mut().filter(|business| business.has_room())?;
        business.decoder.as_mut()?.next_message()
    }

    fn answers(&mut self) -> &mut Vec<u8> {
        &mut self.business().answers
    }

    fn answer(&mut self, render: impl FnOnce(&mut Vec<u8>)) {
        push_text_frame(self.answers(), render);
    }

    fn refuse(&mut self, id: Option<&MessageId>, problem: &Problem) {
        self.answer(|out| message::push_error(out, id, problem));
    }

    fn take_message(&mut self, received: Received, port: &mut Port<'_>) -> Result<(), End> {
        let text = match received {
            Received::Text(text) => text,
            Received::Ping(payload) => {
                frames::push_pong(self.answers(), &payload);
                return Ok(());
            }
            Received::Pong => return Ok(()),
            Received::Close(code) => return Err(End::Closed(code)),
        };
        match message::parse(&text) {
            Ok(ClientMessage::Subscribe(subscribe)) => self.subscribe(subscribe, port),
            Ok(ClientMessage::Unsubscribe { id, subscription }) => {
                self.unsubscribe(id.as_ref(), subscription, port);
            }
            Ok(ClientMessage::Publish { id, append }) => self.publish(id, *append),
            Ok(ClientMessage::Ping { id }) => {
                self.answer(|out| message::push_pong(out, id.as_ref(), clock::unix_ms()));
            }
            Err(error) => self.refuse(error.id.as_ref(), &error.problem),
        }
        Ok(())
    }

    fn subscribe(&mut self, subscribe: Subscribe, port: &mut Port<'_>) {
        let Subscribe { id, log, topics, types, filter, from, cursor } = subscribe;
        if let Err(problem) = check_log(&log.unwrap_or_default()) {
            return self.refuse(id.as_ref(), &problem);
        }
        let Some(number) = self.numbers.take() else {
            let detail = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return self.refuse(id.as_ref(), &Problem::new(ProblemKind::InvalidMessage, detail));
        };
        let facts = self.facts();
        let start = start::resolve(cursor, from, &facts);
        let wanted = Rc::new(Wanted::new(topics, types).filtered(filter));
        let wanted_too = wanted.clone();
        let mut starting =
            Starting { search: 0, number, id, wanted: wanted_too, start, is_ended: false };
        match start.place {
            StartPlace::Offset(from) => self.begin(starting, from, &facts, port),
            place => {
                starting.search = port.search(wanted, place, facts.visible);
                self.business().starting.push(starting);
            }
        }
    }

    fn facts(&self) -> StreamFacts {
        let log = &self.log;
        StreamFacts { earliest: log.earliest(), visible: log.visible(), tag: *log.tag() }
    }

    /// It is known where a subscription begins: says so, and begins. `facts` are those by which that was found:
    /// what retention has passed since, its reader is told of where it meets that.
    fn begin(
        &mut self,
        starting: Starting,
        from: Offset,
        facts: &StreamFacts,
        port: &mut Port<'_>,
    ) {
        let Starting { number, id, wanted, start, .. } = starting;
        let from = from.max(facts.earliest);
        let subscribed = Subscribed {
            id: id.as_ref(),
            subscription: number.into(),
            beginning: facts.beginning(start.state, from, self.log.synced()),
        };
        self.answer(|out| message::push_subscribed(out, &subscribed));
        let key = ViewKey { wanted, rendering: Rendering::WebSocket { subscription: number } };
        let time = RefCell::default();
        let render = Rc::new(WebSocketRender { subscription: number, tag: facts.tag, time });
        port.join(number, &key, render, from, start.state == StartState::Resumed);
    }

    fn unsubscribe(&mut self, id: Option<&MessageId>, number: u32, port: &mut Port<'_>) {
        // One whose beginning is still looked for keeps its number until that has ended: so a
        // connection has no more searches than subscriptions.
        let starting = self.business.as_mut().and_then(|business| {
            let mut starting = business.starting.iter_mut();
            starting.find(|starting| u32::from(starting.number) == number && !starting.is_ended)
        });
        let is_known = match (starting, u16::try_from(number)) {
            (Some(starting), _) => {
                starting.is_ended = true;
                true
            }
            (None, Ok(number)) => port.leave(number) && self.numbers.give_back(number),
            (None, Err(_)) => false,
        };
        if !is_known {
            let detail = format!(
                "this connection has no subscription {number}: a `subscribed` message tells the number, \
                 which ends with `unsubscribed`"
            );
            return self.refuse(id, &Problem::new(ProblemKind::SubscriptionNotFound, detail));
        }
        self.answer(|out| message::push_unsubscribed(out, id, number));
    }

    fn publish(&mut self, id: Option<MessageId>, append: Append) {
        let data_bytes = append.events.iter().map(|event| event.data.len()).sum();
        let ack = Some(self.log.submit(append));
        let business = self.business();
        business.publish_bytes += data_bytes;
        business.publishes.push_back(Publish { id, ack, data_bytes });
    }
}
