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

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use strandline_storage::offset::Offset;

use super::encode::{self, Established};
use super::render::{SseRender, Wrapping, push_closing, retry_ms};
use crate::http::query::{Format, StreamRequest};
use crate::http::response::{Answer, AnswerTo, Framing};
use crate::local::Guard;
use crate::problem::CloseCode;
use crate::stream::compression::Encoding;
use crate::stream::live::LiveLog;
use crate::stream::pulse::connection_id;
use crate::stream::search;
use crate::stream::start::{self, StartPlace, StartState, StreamFacts};
use crate::stream::subscribers::StreamStart;
use crate::stream::view::{Rendering, ViewKey};
use crate::stream::wanted::Wanted;

/// Appends the head of an event stream; for HEAD that is the whole answer.
pub fn write_head(to: &AnswerTo, encoding: Encoding, out: &mut Vec<u8>) -> Framing {
    Answer::start(200, to, out).event_stream(encoding)
}

/// Appends the whole answer to a request for an event stream that cannot be served now. An
/// `EventSource` gives up for ever at 503, and comes back after this.
pub fn write_not_now(code: CloseCode, to: &AnswerTo, out: &mut Vec<u8>) {
    let framing = write_head(to, Encoding::Identity, out);
    let mut body = Vec::new();
    push_closing(&mut body, code);
    framing.write(&body, out);
    out.extend_from_slice(framing.end());
}

/// Serves `request` on `socket` from now on, in `encoding`; `guard` is dropped when the stream ends.
pub fn serve(
    socket: OwnedFd,
    to: &AnswerTo,
    request: StreamRequest,
    encoding: Encoding,
    live: &Rc<LiveLog>,
    guard: Guard,
) -> io::Result<()> {
    let log = live.log();
    let (tag, visible) = (*log.tag(), log.visible());
    let facts = StreamFacts { earliest: log.earliest(), visible, tag };
    let start = start::resolve(request.cursor, request.from, &facts);
    let mut text = Vec::with_capacity(512);
    let framing = write_head(to, encoding, &mut text);
    let wrapping = Wrapping { framing, encoding };
    let wanted = Wanted::new(request.topics, request.types).filtered(request.filter);
    let wanted = Rc::new(wanted);
    let rendering = Rendering::Sse {
        is_object: request.format == Format::Event,
        is_chunked: framing == Framing::Chunked,
        encoding,
    };
    let render = Rc::new(SseRender::new(request.format, wrapping, tag));
    let from = match start.place {
        StartPlace::Offset(from) => Some(from.max(facts.earliest)),
        StartPlace::Last(_) | StartPlace::Time(_) => None,
    };
    wrapping.begin(&mut text);
    if let Some(from) = from {
        push_established(live, wrapping, start.state, from, &facts, &mut text);
    }
    let begin = StreamStart {
        key: ViewKey { wanted: wanted.clone(), rendering },
        render,
        from,
        is_resumed: start.state == StartState::Resumed,
        text: text.into(),
        heartbeat_s: request.heartbeat_s,
        is_pinging: request.ping,
    };
    let id = live.subscribers().add_stream(socket, begin, guard)?;
    if from.is_none() {
        let live = live.clone();
        monoio::spawn(async move {
            let is_there = || live.subscribers().has(id);
            let (log, turns) = (live.log(), live.turns());
            match search::find(log, turns, wanted, start.place, visible, is_there).await {
                Ok(from) => {
                    // It may have taken a while.
                    let (earliest, visible) = (log.earliest(), log.visible());
                    let facts = StreamFacts { earliest, visible, ..facts };
                    let (from, mut text) = (from.max(facts.earliest), Vec::new());
                    push_established(&live, wrapping, start.state, from, &facts, &mut text);
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
    wrapping: Wrapping,
    state: StartState,
    from: Offset,
    facts: &StreamFacts,
    out: &mut Vec<u8>,
) {
    let established = Established {
        retry_ms: retry_ms(),
        connection_id: &connection_id(),
        beginning: facts.beginning(state, from, live.log().synced()),
    };
    let mut text = Vec::new();
    encode::push_established(&mut text, &established);
    wrapping.put(&text, out);
}
