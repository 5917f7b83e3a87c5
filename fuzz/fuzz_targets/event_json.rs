//! Events from any bytes, as raw data, as event objects and as lines: each is refused, or keeps what
//! the rest of the server relies on; the query and the cursor codecs ride along.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strandline::event_json::{RawAppend, parse_event, parse_events};
use strandline::http::query::{
    HistoryRequest, StreamRequest, TopicsRequest, Transport, TrimRequest,
};
use strandline::json::check;
use strandline::ndjson::Lines;
use strandline::settings_json;
use strandline_storage::append::PRODUCER_NUMBER_MAX;
use strandline_storage::event::{DataForm, NewEvent};
use strandline_storage::topic::Topic;

fn check_event(event: &NewEvent) {
    match event.form {
        DataForm::Json => assert!(check::check(&event.data).is_ok()),
        DataForm::Text => assert!(std::str::from_utf8(&event.data).is_ok()),
        DataForm::Binary => {}
    }
    assert!(!event.event_type.contains(char::is_control));
    assert!(event.headers.len() <= 32);
    assert!(Topic::parse(&event.topic).is_ok());
}

fn lines(body: &Bytes, piece_bytes: usize) -> Vec<(u64, Option<Bytes>)> {
    let (mut lines, mut all) = (Lines::new(64), Vec::new());
    for start in (0..body.len()).step_by(piece_bytes) {
        lines.push(body.slice(start..(start + piece_bytes).min(body.len())));
        while let Some(result) = lines.next_line() {
            match result {
                Ok(line) => all.push((line.number, Some(line.bytes))),
                Err(error) => {
                    all.push((error.number, None));
                    return all;
                }
            }
        }
    }
    if let Some(result) = lines.finish() {
        all.push(match result {
            Ok(line) => (line.number, Some(line.bytes)),
            Err(error) => (error.number, None),
        });
    }
    all
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let body = Bytes::copy_from_slice(rest);
    let topic = Topic::parse("fuzz").expect("a topic");

    for content_type in [None, Some("application/json"), Some("text/plain"), Some("image/png")] {
        let field = content_type.map(|value| ("content-type", value.as_bytes()));
        let append = RawAppend::from_fields(field.into_iter()).expect("valid fields");
        if let Ok(event) = append.event(topic.clone(), body.clone()) {
            assert_eq!(event.data, body, "byte for byte");
            check_event(&event);
        }
    }
    let _ = RawAppend::from_fields([("event-type", rest), ("event-header-a", rest)].into_iter());
    let _ = RawAppend::from_fields([("content-type", rest)].into_iter());
    for name in ["event-id", "idempotency-key", "expected-offset"] {
        let _ = RawAppend::from_fields([(name, rest)].into_iter());
    }
    let (id, number) = rest.split_at(rest.len() / 2);
    let producer = [("producer-id", id), ("producer-epoch", number), ("producer-seq", number)];
    if let Ok(append) = RawAppend::from_fields(producer.into_iter()) {
        let claim = append.terms().and_then(|terms| terms.producer.as_ref()).expect("a claim");
        assert!(claim.epoch <= PRODUCER_NUMBER_MAX && claim.epoch == claim.seq);
    }

    if let Ok(parsed) = parse_events(&body, Some(&topic)) {
        assert!(!parsed.events.is_empty());
        parsed.events.iter().for_each(check_event);
    }
    for (_, line) in lines(&body, usize::MAX >> 1) {
        if let Some(Ok(event)) = line.map(|line| parse_event(&line, None)) {
            check_event(&event);
        }
    }
    assert_eq!(lines(&body, usize::from(*first) + 1), lines(&body, usize::MAX >> 1));

    let _ = StreamRequest::parse(rest, Some(rest), Transport::Sse);
    let _ = (HistoryRequest::parse(rest), TopicsRequest::parse(rest), TrimRequest::parse(rest));

    let _ = settings_json::parse_log(rest);
    if let Ok(settings) = settings_json::parse_topic(rest) {
        let mut text = Vec::new();
        settings_json::push_topic(&mut text, &settings);
        assert_eq!(settings_json::parse_topic(&text), Ok(settings));
    }
});
