//! Lines beside a disk that is full now and then, and beside others who append what has the same ids.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    config::ListenAddress,
    owner::testing::{OwnedLog, with_a_log},
    runtime::end_slice,
};

/// Lines of events of the topic `t`, in batches of as many bytes.
fn lines(batch_bytes: usize) -> LineAppends {
    let listen = ListenAddress::parse("127.0.0.1:0").expect("an address");
    let mut config = ServerConfig::new(listen, "");
    config.limits.line_batch_bytes = batch_bytes;
    config.limits.lines_in_flight_bytes_max = 4 * batch_bytes;
    let topic = Topic::parse("t").expect("a topic");
    LineAppends::of_objects(Some(topic), false, &config)
}

/// A line whose event has this data, and this id if any.
fn line(id: Option<&str>, data: &str) -> String {
    match id {
        Some(id) => format!("{{\"id\":\"{id}\",\"data\":\"{data}\"}}\n"),
        None => format!("{{\"data\":\"{data}\"}}\n"),
    }
}

/// Another client's append.
fn append_of_another(id: &str, data: &str, log: &LogHandle) -> AckFuture {
    let topic = Topic::parse("t").expect("a topic");
    let line = Bytes::from(line(Some(id), data));
    log.submit(vec![parse_event(&line, Some(&topic)).expect("an event")])
}

/// What came with one read.
fn take(lines: &mut LineAppends, piece: &str, log: &LogHandle) {
    lines.take(piece.as_bytes(), log).expect("lines");
    lines.submit(log);
}

/// The answer.
async fn finish(lines: LineAppends, outcome: Result<(), Problem>, log: &LogHandle) -> Value {
    let mut out = Vec::new();
    lines.finish(outcome, log, &AnswerTo::unreadable(None), &mut out).await;
    let text = String::from_utf8(out).expect("text");
    let (_, body) = text.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).expect("JSON")
}

fn number(answer: &Value, name: &str) -> u64 {
    answer[name].as_u64().unwrap_or_else(|| panic!("no {name} in {answer}"))
}

/// A line was refused for its id while the one before it was staged; then the disk was full, and that one refused. Once
/// there was space, what stood behind it was appended though `line` was the first.
#[test]
fn nothing_is_appended_behind_a_line_that_a_full_disk_refused() {
    for second in [line(Some("x"), "1"), line(Some("y"), "1") + &line(Some("y"), "2")] {
        let job = move |owned: OwnedLog| async move {
            let (mut lines, log) = (lines(64 << 10), &owned.log);
            for piece in [line(Some("x"), "1"), second, line(None, "3")] {
                take(&mut lines, &piece, log);
            }
            owned.find_full();
            finish(lines, Ok(()), log).await
        };
        let (answer, there) = with_a_log(job);
        assert_eq!(number(&answer, "status"), 507, "{answer}");
        assert_eq!((number(&answer, "line"), number(&answer, "appended")), (1, 0), "{answer}");
        assert_eq!(there, [""; 0]);
    }
}

/// A batch is appended in parts for one of its ids, and meanwhile others have appended what has another of them: the
/// answer named the first line of the part.
#[test]
fn a_conflict_is_that_of_its_line_also_where_it_came_between() {
    let job = |owned: OwnedLog| async move {
        let (mut lines, log) = (lines(64 << 10), &owned.log);
        let in_flight = append_of_another("b", "B", log);
        let piece = line(None, "1") + &line(Some("a"), "2") + &line(Some("b"), "B");
        take(&mut lines, &piece, log);
        let between = append_of_another("a", "A", log);
        let answer = finish(lines, Ok(()), log).await;
        let _ = (in_flight.await.expect("room"), between.await.expect("room"));
        answer
    };
    let (answer, there) = with_a_log(job);
    assert_eq!(number(&answer, "status"), 422, "{answer}");
    assert_eq!((number(&answer, "line"), number(&answer, "appended")), (2, 1), "{answer}");
    assert_eq!(there, ["\"B\"", "\"A\"", "\"1\""]);
}

#[derive(Clone, Debug)]
enum Step {
    /// Lines that come with one read: the id of each, and which of two events has it.
    Lines(Vec<Option<(u8, bool)>>),
    /// Another client appends an event with an id.
    Other(u8, bool),
    /// The disk is full for a moment.
    Full,
    /// It is, after so many slices.
    FullSoon(u8),
    /// What was appended so far is written.
    Written,
    /// The log is closed, as a server that stops does after a while.
    Closed,
}

fn step() -> impl Strategy<Value = Step> {
    let named = || (0_u8..4, prop::bool::weighted(0.1));
    prop_oneof![
        6 => prop::collection::vec(prop::option::of(named()), 1..4).prop_map(Step::Lines),
        2 => named().prop_map(|(id, is_second)| Step::Other(id, is_second)),
        1 => Just(Step::Full),
        1 => (0_u8..8).prop_map(Step::FullSoon),
        1 => Just(Step::Written),
        1 => prop_oneof![9 => Just(Step::Written), 1 => Just(Step::Closed)],
    ]
}

fn named((id, is_second): (u8, bool)) -> (String, String) {
    (format!("i{id}"), format!("i{id}{}", if is_second { "second" } else { "" }))
}

/// The lines of a body, one after the other: the data of each and its id.
#[derive(Debug, Default)]
struct Body {
    lines: Vec<(String, Option<String>)>,
    /// What others have appended, or tried to.
    of_others: BTreeSet<String>,
}

/// Sends a body, until it is refused or has ended.
async fn send(steps: Vec<Step>, batch_bytes: usize, owned: OwnedLog) -> (Body, Value) {
    let (mut lines, log) = (lines(batch_bytes), &owned.log);
    let (mut body, mut outcome) = (Body::default(), Ok(()));
    for step in steps {
        match step {
            Step::Lines(ids) => {
                let mut piece = String::new();
                for id in ids {
                    let (id, data) = match id.map(named) {
                        Some((id, data)) => (Some(id), data),
                        None => (None, (body.lines.len() + 1).to_string()),
                    };
                    piece += &line(id.as_deref(), &data);
                    body.lines.push((data, id));
                }
                take(&mut lines, &piece, log);
                outcome = lines.room(log).await;
            }
            Step::Other(id, is_second) => {
                let (id, data) = named((id, is_second));
                drop(append_of_another(&id, &data, log));
                body.of_others.insert(data);
            }
            Step::Full => owned.find_full(),
            Step::FullSoon(slices) => {
                let owned = owned.clone();
                monoio::spawn(async move {
                    for _ in 0..slices {
                        end_slice().await;
                    }
                    owned.find_full();
                });
            }
            Step::Written => {
                let _ = append_of_another("w", "written", log).await;
                body.of_others.insert("written".to_owned());
            }
            Step::Closed => owned.close(),
        }
        if outcome.is_err() {
            break;
        }
    }
    let answer = finish(lines, outcome, log).await;
    (body, answer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// "`line` .. what was appended stays": that is what stands before it, in this order and once, and nothing behind it.
    #[test]
    fn what_is_appended_stands_before_the_line_that_failed(
        steps in prop::collection::vec(step(), 1..16),
        batch_bytes in prop_oneof![Just(64 << 10), 1_usize..600],
    ) {
        let ((body, answer), there) =
            with_a_log(move |owned| send(steps, batch_bytes, owned));
        let there: Vec<_> = there.iter().map(|data| data.trim_matches('"')).collect();
        let failed = answer["line"].as_u64().and_then(|line| usize::try_from(line).ok());
        let (before, behind) = body.lines.split_at(failed.map_or(body.lines.len(), |line| line - 1));
        match failed {
            Some(_) => {
                let told = number(&answer, "appended") + number(&answer, "duplicates");
                prop_assert_eq!(told, before.len() as u64, "{} {:?}", answer, body);
                if matches!(number(&answer, "status"), 409 | 422) {
                    let id = behind[0].1.as_deref().unwrap_or("none");
                    let detail = answer["detail"].as_str().unwrap_or_default();
                    prop_assert!(detail.contains(&format!("\"{id}\"")), "{} {:?}", answer, body);
                }
            }
            None if body.lines.is_empty() => prop_assert_eq!(number(&answer, "status"), 400),
            None => prop_assert_eq!(number(&answer, "count"), before.len() as u64),
        }
        let mut expected: Vec<&str> = Vec::new();
        for (data, _) in before {
            prop_assert!(there.contains(&data.as_str()), "{data} {answer} {body:?} {there:?}");
            if !body.of_others.contains(data) && !expected.contains(&data.as_str()) {
                expected.push(data);
            }
        }
        let mut ours = there.clone();
        ours.retain(|data| !body.of_others.contains(*data));
        prop_assert_eq!(ours, expected, "{} {:?}", answer, body);
        let distinct: BTreeSet<_> = there.iter().collect();
        prop_assert_eq!(distinct.len(), there.len(), "once: {:?}", there);
    }
}
