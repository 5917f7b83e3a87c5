//! Which topics there are.
//!
//! ```text
//! {"topics":[{"topic":"a/b","count":10,"first":0,"last":90,"time":".."}],"next":"/api/v1/topics?after=a%2Fb"}
//! ```

use std::rc::Rc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use strandline_storage::topic::Topic;
use strandline_storage::topics::TopicSummary;

use crate::http::query::TopicsRequest;
use crate::http::response::{Answer, AnswerTo, write_problem};
use crate::input::quoted;
use crate::json::write;
use crate::problem::{Problem, ProblemKind};
use crate::settings::no_event;
use crate::settings_json;
use crate::stream::live::LiveLog;
use crate::timestamp::TimeText;
use crate::unsent::Held;

/// The log's owner is asked for so many at once: long names make them 64 KiB, which is as short as a page gets.
const TOPICS_AT_ONCE: usize = 128;

const PATH: &str = "/api/v1/topics";

const KEPT_IN_QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The whole answer that is a page of topics, in byte order of their names. `held` says how long it may
/// become, and counts it until it is made.
pub async fn list(
    live: Rc<LiveLog>,
    request: TopicsRequest,
    mut held: Held,
    to: AnswerTo,
) -> Vec<u8> {
    let limit = usize::try_from(request.limit).expect("at most 10,000");
    let mut body = Vec::from(&b"{\"topics\":["[..]);
    let (mut count, mut last) = (0, None::<Topic>);
    let mut time = TimeText::default();
    let has_next = 'page: loop {
        // One more than the page has tells whether there is a next one.
        let asked = TOPICS_AT_ONCE.min(limit + 1 - count);
        let after = last.as_ref().map(|last| last.as_bytes()).or(request.after.as_deref());
        let Some(topics) = live.log().topics(&request.prefix, after, asked).await else {
            return draining(&to);
        };
        let is_end = topics.len() < asked;
        let bytes_max = held.page_bytes_max();
        for topic in topics {
            if count == limit || body.len() >= bytes_max {
                break 'page true;
            }
            if count > 0 {
                body.push(b',');
            }
            push_summary(&mut body, &topic, &mut time);
            body.push(b'}');
            count += 1;
            last = Some(topic.topic);
        }
        if is_end {
            break false;
        }
        held.resize(body.len());
    };
    body.push(b']');
    if has_next && let Some(last) = &last {
        write::name(&mut body, "next");
        write::string(&mut body, &next_url(&request, last.as_str()));
    }
    body.push(b'}');
    let mut out = Vec::new();
    Answer::start(200, &to, &mut out).json(&body);
    out
}

/// A part of the topics would look like all of them.
fn draining(to: &AnswerTo) -> Vec<u8> {
    let mut out = Vec::new();
    let problem = Problem::new(ProblemKind::Draining, "the server is stopping: ask again");
    write_problem(&problem, to, &mut out);
    out
}

/// The whole answer that is one topic and what holds for it: 404 if there is no event of it and nothing is set
/// for it.
pub async fn one(live: Rc<LiveLog>, topic: Topic, to: AnswerTo) -> Vec<u8> {
    let (log, mut out) = (live.log(), Vec::new());
    let found = log.topic_settings(topic.as_str()).await;
    let (own, holding) = found.map_or((None, None), |found| (found.own, found.holding));
    let mut body = Vec::new();
    match log.topic(topic.as_str()).await {
        Some(summary) => push_summary(&mut body, &summary, &mut TimeText::default()),
        None if own.is_some() => {
            body.extend_from_slice(b"{\"topic\":");
            write::string(&mut body, topic.as_str());
            body.extend_from_slice(b",\"count\":0");
        }
        None => {
            write_problem(&not_there(topic.as_str()), &to, &mut out);
            return out;
        }
    }
    write::name(&mut body, "settings");
    settings_json::push_topic(&mut body, &holding.unwrap_or_default());
    body.push(b'}');
    Answer::start(200, &to, &mut out).json(&body);
    out
}

/// Who has just appended to `.../events` looks for the events there first.
fn not_there(topic: &str) -> Problem {
    let Some(asked) = topic.strip_suffix("/events") else { return no_event(topic) };
    let encoded = percent_encode(asked.as_bytes(), KEPT_IN_QUERY);
    let detail = format!(
        "there is no event of topic {}; those of topic {} are at \
         /api/v1/events/history?topic={encoded} and, as they come, at \
         /api/v1/events/stream?topic={encoded}",
        quoted(topic),
        quoted(asked)
    );
    Problem::new(ProblemKind::TopicNotFound, detail)
}

/// Everything of a topic's object but its end.
fn push_summary(out: &mut Vec<u8>, summary: &TopicSummary, time: &mut TimeText) {
    out.extend_from_slice(b"{\"topic\":");
    write::string(out, summary.topic.as_str());
    let numbers =
        [("count", summary.count), ("first", summary.first.get()), ("last", summary.last.get())];
    for (name, number) in numbers {
        write::name(out, name);
        write::number(out, number);
    }
    write::name(out, "time");
    write::string(out, time.format(summary.last_time_ms));
}

fn next_url(request: &TopicsRequest, last: &str) -> String {
    let mut url = format!("{PATH}?");
    if request.log.as_str() != "main" {
        url.push_str(&format!("log={}&", request.log.as_str()));
    }
    if !request.prefix.is_empty() {
        url.push_str(&format!("prefix={}&", percent_encode(&request.prefix, KEPT_IN_QUERY)));
    }
    let after = percent_encode(last.as_bytes(), KEPT_IN_QUERY);
    url.push_str(&format!("after={after}&limit={}", request.limit));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_begins_behind_the_last_topic() {
        let request = TopicsRequest::parse(b"prefix=a%2F%e2%82&limit=3").expect("a request");
        assert_eq!(
            next_url(&request, "a/€ b"),
            "/api/v1/topics?prefix=a%2F%E2%82&after=a%2F%E2%82%AC%20b&limit=3"
        );
        let request = TopicsRequest::parse(b"").expect("a request");
        assert_eq!(next_url(&request, "x"), "/api/v1/topics?after=x&limit=100");
    }
}
