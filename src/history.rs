//! Pages of events, and NDJSON at the reader's pace.
//!
//! ```text
//! {"events":[..],"gap":{"from":500,"to":620},"cursor":"499.k3f9q",
//!  "next":"/api/v1/events/history?topic=a%2F*&from=620","earliest":0,"durable":64000,"tag":"k3f9q"}
//! ```
//! `gap` and `next` only where there is one. A page considers a range of offsets, ascending or
//! descending, until it is full, has searched for long enough, meets a part that cannot be read, or
//! is through; `next` names what is left of the range: by `from` when ascending, by `before` when
//! descending, which no one needs to write by hand.
//!
//! `cursor` is where a stream goes on: behind what an ascending page considered, and behind the range
//! of a descending one, which begins with the newest.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use monoio::time::Instant;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use strandline_storage::error::ReadError;
use strandline_storage::offset::Offset;
use strandline_storage::selection::Order;

use crate::event_json::push_event;
use crate::http::query::{self, Form, HistoryRequest};
use crate::http::response::{Answer, AnswerTo, write_problem};
use crate::json::write;
use crate::problem::{Problem, ProblemKind};
use crate::stream::cursor::Cursor;
use crate::stream::live::LiveLog;
use crate::stream::wanted::Wanted;
use crate::stream::whole_log::WholeLog;
use crate::timestamp::TimeText;
use crate::unsent::Held;

/// A page ends after so long a search, however little it found, so that nobody waits in the dark.
pub const PAGE_SEARCH_MS_MAX: u64 = 1000;

/// A part of a history in lines ends where what was read for it ends and it has so many bytes: the next one would
/// read, check and unpack the same frame again.
const LINES_BYTES: usize = 128 * 1024;
/// And ends anywhere with so many; with fewer where as much is held that a page would be shorter.
const LINES_BYTES_MAX: usize = 4 * LINES_BYTES;

const PATH: &str = "/api/v1/events/history";

/// What stands as it is in the URL of the next page.
const KEPT_IN_QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'*').remove(b':');

/// What a request wants to see.
struct Asked {
    range: Range<Offset>,
    order: Order,
    /// Matching events still to be passed over.
    skip: u64,
    limit: Option<u32>,
}

/// Where a page ended.
struct PageEnd {
    considered: Offset,
    skip: u64,
    gap: Option<Range<Offset>>,
}

/// The whole answer to HEAD: how far the log reaches, or why GET would be refused. `content_type` is
/// what GET would answer with.
pub async fn head(
    live: Rc<LiveLog>,
    request: HistoryRequest,
    content_type: &'static str,
    to: AnswerTo,
) -> Vec<u8> {
    let mut out = Vec::new();
    match resolve(&live, &request).await {
        Ok(_) => Answer::start(200, &to, &mut out)
            .number("Log-Earliest", live.log().earliest().get())
            .number("Log-Durable", live.log().synced().get())
            .field("Content-Type", content_type)
            .field("Cache-Control", "no-store")
            .no_content(),
        Err(problem) => write_problem(&problem, &to, &mut out),
    }
    out
}

/// The whole answer that is one page. `query` is the request's own, from which the next one's is made; `held`
/// says how long it may become, and counts it while it is made.
pub async fn page(
    live: Rc<LiveLog>,
    request: HistoryRequest,
    query: String,
    held: &mut Held,
    to: AnswerTo,
) -> Vec<u8> {
    let mut out = Vec::new();
    match page_body(&live, request, &query, held).await {
        Ok(body) => {
            let log = live.log();
            Answer::start(200, &to, &mut out)
                .number("Log-Earliest", log.earliest().get())
                .number("Log-Durable", log.synced().get())
                .json(&body);
        }
        Err(problem) => write_problem(&problem, &to, &mut out),
    }
    out
}

async fn page_body(
    live: &Rc<LiveLog>,
    request: HistoryRequest,
    query: &str,
    held: &mut Held,
) -> Result<Vec<u8>, Problem> {
    let mut asked = resolve(live, &request).await?;
    asked.limit = asked.limit.or(Some(HistoryRequest::LIMIT_DEFAULT));
    let is_from_earliest = is_from_earliest(&request);
    let wanted = Rc::new(Wanted::new(request.topics, request.types).filtered(request.filter));
    let (mut body, end) = loop {
        let mut body = Vec::from(&b"{\"events\":["[..]);
        match fill(live, &wanted, &asked, &mut body, held).await {
            Ok(end) => break (body, end),
            // It was the earliest when it was asked for: it is no longer.
            Err(ReadError::Expired { earliest }) if is_from_earliest => {
                asked.range.start = earliest.min(asked.range.end);
            }
            Err(error) => return Err(Problem::from(&error)),
        }
    };
    body.push(b']');
    if let Some(gap) = &end.gap {
        write::name(&mut body, "gap");
        push_range(&mut body, gap);
    }
    let (rest, seen) = match asked.order {
        Order::Ascending => {
            let place = end.gap.as_ref().map_or(end.considered, |gap| gap.end);
            (place..asked.range.end.max(place), end.considered)
        }
        Order::Descending => {
            let place = end.gap.as_ref().map_or(end.considered, |gap| gap.start);
            (asked.range.start.min(place)..place, asked.range.end)
        }
    };
    let log = live.log();
    write::name(&mut body, "cursor");
    write::string(&mut body, &Cursor::before(seen, *log.tag()).to_string());
    if !rest.is_empty() {
        write::name(&mut body, "next");
        write::string(&mut body, &next_url(query, asked.order, &rest, end.skip));
    }
    for (name, offset) in [("earliest", log.earliest()), ("durable", log.synced())] {
        write::name(&mut body, name);
        write::number(&mut body, offset.get());
    }
    write::name(&mut body, "tag");
    write::string(&mut body, log.tag().as_str());
    body.push(b'}');
    Ok(body)
}

fn push_range(out: &mut Vec<u8>, range: &Range<Offset>) {
    out.push(b'{');
    write::name(out, "from");
    write::number(out, range.start.get());
    write::name(out, "to");
    write::number(out, range.end.get());
    out.push(b'}');
}

/// Puts the events of a page into `body`.
async fn fill(
    live: &Rc<LiveLog>,
    wanted: &Rc<Wanted>,
    asked: &Asked,
    body: &mut Vec<u8>,
    held: &mut Held,
) -> Result<PageEnd, ReadError> {
    let mut turn = live.turns().wait().await.expect("turns outlive their waiters");
    let log = live.log().clone();
    let mut walk = WholeLog::new(log, wanted.clone(), asked.range.clone(), asked.order);
    let mut time = TimeText::default();
    let (mut count, mut skip) = (0, asked.skip);
    let start_bytes = body.len();
    let until = Instant::now() + Duration::from_millis(PAGE_SEARCH_MS_MAX);
    loop {
        turn.end_slice_if_over().await;
        let hits = match walk.next().await {
            Ok(Some(hits)) => hits,
            Ok(None) => {
                let considered = place(&walk.rest(), asked.order);
                return Ok(PageEnd { considered, skip, gap: None });
            }
            Err(error @ ReadError::Gap { from, to, .. }) => {
                live.gaps().report(from, to, &error);
                let gap = from.max(asked.range.start)..to.min(asked.range.end);
                let considered = if asked.order == Order::Ascending { gap.start } else { gap.end };
                return Ok(PageEnd { considered, skip, gap: Some(gap) });
            }
            Err(error) => return Err(error),
        };
        held.resize(body.len());
        let bytes_max = held.page_bytes_max();
        for event in hits.events().filter(|event| walk.wanted().takes(event)) {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            if count > 0 {
                body.push(b',');
            }
            push_event(body, &event, &mut time);
            count += 1;
            if Some(count) == asked.limit || body.len() - start_bytes >= bytes_max {
                let considered = match asked.order {
                    Order::Ascending => event.offset().plus(1),
                    Order::Descending => event.offset(),
                };
                return Ok(PageEnd { considered, skip, gap: None });
            }
        }
        if Instant::now() >= until {
            return Ok(PageEnd { considered: hits.considered, skip, gap: None });
        }
        drop(hits);
        if walk.is_between_parts() && turn.is_over() {
            walk = walk.anew();
            turn = turn.go_behind().await;
        }
    }
}

fn place(rest: &Range<Offset>, order: Order) -> Offset {
    match order {
        Order::Ascending => rest.start,
        Order::Descending => rest.end,
    }
}

/// Answers with the events alone, one a line, as fast as `send` takes them; returns whether all of
/// them left. Without its proper end, an answer is known to have been cut. `held` counts what `send` has.
pub async fn lines(
    live: Rc<LiveLog>,
    request: HistoryRequest,
    mut held: Held,
    to: AnswerTo,
    mut send: impl AsyncFnMut(Vec<u8>) -> io::Result<()>,
) -> bool {
    let mut out = Vec::new();
    let asked = match resolve(&live, &request).await {
        Ok(asked) => asked,
        Err(problem) => {
            write_problem(&problem, &to, &mut out);
            return send(out).await.is_ok() && to.keep_alive && !problem.closes();
        }
    };
    let log = live.log();
    let framing = Answer::start(200, &to, &mut out)
        .number("Log-Earliest", log.earliest().get())
        .number("Log-Durable", log.synced().get())
        .ndjson();
    if send(out).await.is_err() {
        return false;
    }
    let mut is_begun = !is_from_earliest(&request);
    let wanted = Rc::new(Wanted::new(request.topics, request.types).filtered(request.filter));
    let limit = asked.limit.map_or(u64::MAX, u64::from);
    let place = Place { range: asked.range, order: asked.order, skip: asked.skip };
    let asked_skip = asked.skip;
    let mut rest = Lines { live, wanted, time: TimeText::default(), place, limit };
    while !rest.is_done() {
        let mut lines = Vec::new();
        let filled = rest.fill(&mut lines, held.page_bytes_max().min(LINES_BYTES_MAX)).await;
        let mut out = Vec::with_capacity(lines.len() + 16);
        framing.write(&lines, &mut out);
        // A reader that takes nothing for long has them once.
        drop(lines);
        held.resize(out.len());
        is_begun |= !out.is_empty();
        // What could be read leaves even if nothing behind it can be.
        if !out.is_empty() && send(out).await.is_err() {
            return false;
        }
        if let Err(error) = filled {
            match error {
                // It was the earliest when it was asked for, and nothing of it has been said yet.
                ReadError::Expired { earliest } if !is_begun => {
                    rest.place.begin_at(earliest, asked_skip);
                    continue;
                }
                ReadError::Gap { from, to, .. } => rest.live.gaps().report(from, to, &error),
                _ => tracing::warn!(%error, "a history is cut where the log cannot be read"),
            }
            return false;
        }
    }
    send(framing.end().to_vec()).await.is_ok()
}

/// What is left of a history in lines.
struct Lines {
    live: Rc<LiveLog>,
    wanted: Rc<Wanted>,
    time: TimeText,
    place: Place,
    limit: u64,
}

/// Where a history in lines goes on, and how many events it passes over first.
struct Place {
    range: Range<Offset>,
    order: Order,
    skip: u64,
}

impl Place {
    /// The log begins at `earliest` by now, and no line has been said: what was passed over so far has gone where that
    /// was at this end, and so many are anew; at the other end it is still there, and stays passed over.
    fn begin_at(&mut self, earliest: Offset, asked_skip: u64) {
        self.range.start = earliest.min(self.range.end);
        if self.order == Order::Ascending {
            self.skip = asked_skip;
        }
    }
}

impl Lines {
    fn is_done(&self) -> bool {
        self.place.range.is_empty() || self.limit == 0
    }

    /// Puts up to about `bytes_max` of lines into `out`, or what was found, perhaps nothing, when its turn is over.
    /// The turn is given back and every frame let go of before these are sent: a reader that takes nothing
    /// for hours holds them alone.
    async fn fill(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), ReadError> {
        let turn = self.live.turns().wait().await.expect("turns outlive their waiters");
        let log = self.live.log().clone();
        let mut walk =
            WholeLog::new(log, self.wanted.clone(), self.place.range.clone(), self.place.order);
        loop {
            turn.end_slice_if_over().await;
            let Some(hits) = walk.next().await? else { break };
            for event in hits.events().filter(|event| self.wanted.takes(event)) {
                if self.place.skip > 0 {
                    self.place.skip -= 1;
                    continue;
                }
                push_event(out, &event, &mut self.time);
                out.push(b'\n');
                self.limit -= 1;
                if self.limit == 0 || out.len() >= bytes_max {
                    match self.place.order {
                        Order::Ascending => self.place.range.start = event.offset().plus(1),
                        Order::Descending => self.place.range.end = event.offset(),
                    }
                    return Ok(());
                }
            }
            self.place.range = walk.rest();
            // Behind what was read for it: each turn gets on.
            if out.len() >= LINES_BYTES.min(bytes_max) || walk.is_between_parts() && turn.is_over()
            {
                return Ok(());
            }
        }
        self.place.range = walk.rest();
        Ok(())
    }
}

/// Whether a request takes what there is, wherever that begins by now: a time clamps.
fn is_from_earliest(request: &HistoryRequest) -> bool {
    request.cursor.is_none() && request.from.is_none()
}

/// Which offsets a request is about.
async fn resolve(live: &LiveLog, request: &HistoryRequest) -> Result<Asked, Problem> {
    let log = live.log();
    let (earliest, visible) = (log.earliest(), log.visible());
    let gone = |detail: String| {
        Problem::new(ProblemKind::Expired, detail)
            .with("earliest", earliest.get())
            .with("tag", log.tag().as_str())
    };
    let from = match (&request.cursor, request.from) {
        (Some(cursor), _) => {
            if cursor.tag().is_some_and(|tag| tag != *log.tag()) {
                return Err(gone(format!("cursor {cursor} belongs to another history of the log")));
            }
            if cursor.next() > visible {
                return Err(gone(format!(
                    "cursor {cursor} lies beyond the end of the log, {visible}"
                )));
            }
            Some(cursor.next())
        }
        (None, from) => from,
    };
    if let Some(from) = from
        && from < earliest
    {
        return Err(gone(format!("events before {earliest} are gone")));
    }
    let mut start = from.unwrap_or(earliest);
    let mut end = visible.min(request.before.unwrap_or(visible));
    if let Some(since_ms) = request.since_ms {
        start =
            start.max(log.offset_at_time(since_ms).await.map_err(|error| Problem::from(&error))?);
    }
    if let Some(until_ms) = request.until_ms {
        let until = log.offset_at_time(until_ms).await.map_err(|error| Problem::from(&error))?;
        end = end.min(log.segments().behind_timeless_gaps(until));
    }
    let order = match request.order {
        query::Order::Ascending => Order::Ascending,
        query::Order::Descending => Order::Descending,
    };
    Ok(Asked { range: start.min(end)..end, order, skip: request.skip, limit: request.limit })
}

/// The URL of the page that goes on with `rest`, with all of the request's other parameters.
fn next_url(query: &str, order: Order, rest: &Range<Offset>, skip: u64) -> String {
    let mut url = String::from(PATH);
    let mut separator = '?';
    let mut push = |name: &str, value: &[u8]| {
        url.push(separator);
        separator = '&';
        url.extend(percent_encode(name.as_bytes(), KEPT_IN_QUERY));
        url.push('=');
        url.extend(percent_encode(value, KEPT_IN_QUERY));
    };
    for parameter in Form::new(query.as_bytes()).flatten() {
        let is_replaced = match order {
            Order::Ascending => matches!(&*parameter.name, "from" | "last_event_id" | "offset"),
            Order::Descending => matches!(&*parameter.name, "before" | "offset"),
        };
        if !is_replaced {
            push(&parameter.name, &parameter.value);
        }
    }
    match order {
        Order::Ascending => push("from", rest.start.to_string().as_bytes()),
        Order::Descending => push("before", rest.end.to_string().as_bytes()),
    }
    if skip > 0 {
        push("offset", skip.to_string().as_bytes());
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(query: &str, order: Order, skip: u64) -> String {
        next_url(query, order, &(Offset::new(620)..Offset::new(900)), skip)
    }

    #[test]
    fn the_next_page_keeps_every_other_parameter() {
        assert_eq!(next("", Order::Ascending, 0), "/api/v1/events/history?from=620");
        assert_eq!(
            next("topic=a%2F%2A&topic=%C3%A9+b&limit=5&from=3&offset=9&_=1", Order::Ascending, 2),
            "/api/v1/events/history?topic=a%2F*&topic=%C3%A9%20b&limit=5&_=1&from=620&offset=2"
        );
        assert_eq!(
            next("last_event_id=41.k3f9q&order=asc", Order::Ascending, 0),
            "/api/v1/events/history?order=asc&from=620"
        );
        assert_eq!(
            next("where=data.a+%3E%3D+%22%2B%22&filter=%7B%7D", Order::Ascending, 0),
            "/api/v1/events/history?where=data.a%20%3E%3D%20%22%2B%22&filter=%7B%7D&from=620"
        );
        assert_eq!(
            next("order=desc&from=600&before=1000&offset=7", Order::Descending, 0),
            "/api/v1/events/history?order=desc&from=600&before=900"
        );
    }

    /// Retention overtakes a history that has only passed events over so far. What it still has to pass over depends on
    /// whether those are gone: from the newest on they are not, and none is passed over twice, nor too few.
    #[test]
    fn a_history_that_retention_overtakes_passes_over_what_is_left_to_be() {
        let begun_at = |order, range: Range<u64>, skip, earliest| {
            let range = Offset::new(range.start)..Offset::new(range.end);
            let mut place = Place { range, order, skip };
            place.begin_at(Offset::new(earliest), 300);
            (place.range.start.get()..place.range.end.get(), place.skip)
        };
        // Of 1,000 events 250 were passed over, and 50 are still to be.
        assert_eq!(begun_at(Order::Descending, 0..750, 50, 100), (100..750, 50));
        assert_eq!(begun_at(Order::Descending, 0..750, 50, 900), (750..750, 50), "all is gone");
        assert_eq!(begun_at(Order::Ascending, 250..1_000, 50, 400), (400..1_000, 300));
    }
}
