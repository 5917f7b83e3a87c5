//! The answer to an append, the one that is written most often: into the buffer at once, without a
//! body of its own beside it.

use strandline_storage::once::IdWindow;

use super::response::{Answer, AnswerTo};
use crate::json::write;

/// What was appended, as its answer tells it.
#[derive(Clone, Copy, Debug)]
pub struct Appended<'a> {
    /// Offset of the first event.
    pub first: u64,
    /// Offset of the last event.
    pub last: u64,
    /// How many events; others' may lie between them.
    pub count: u64,
    /// How many of them were there already.
    pub duplicates: u64,
    /// Whether the request could have had many, an array or lines: then the answer has `last`, also
    /// where it had one.
    pub is_many: bool,
    /// The tag of the log's history.
    pub tag: &'a str,
    /// What the acknowledgement promises: `commit`, `interval:MS` or `never`.
    pub sync: &'a str,
    /// How long an id is remembered, where the request had one.
    pub id_window: Option<IdWindow>,
    /// How far the producer has come, where the request named one.
    pub producer: Option<ProducerAnswer>,
}

/// The name of the field that says how long ids are remembered.
pub const ID_WINDOW_FIELD: &str = "Event-Id-Window";

/// Its value.
pub fn id_window_text(window: IdWindow) -> String {
    let mut text = Vec::new();
    push_id_window(window, &mut text);
    String::from_utf8(text).expect("digits and letters")
}

fn push_id_window(window: IdWindow, out: &mut Vec<u8>) {
    out.extend_from_slice(b"events=");
    write::number(out, window.events as u64);
    out.extend_from_slice(b", seconds=");
    write::number(out, window.time_ms / 1_000);
}

/// What the answer to an append of a producer says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerAnswer {
    /// Its epoch.
    pub epoch: u64,
    /// The last sequence that was accepted.
    pub seq: u64,
    /// Whether that is the append that this answers, so that its offset is known.
    pub is_last: bool,
}

impl Appended<'_> {
    /// Whether nothing of it is new.
    fn is_duplicate(&self) -> bool {
        self.duplicates > 0 && self.duplicates == self.count
    }
}

/// Appends `201` with `{"offset":42,"cursor":"42.k3f9q","count":1,"sync":"commit"}`, or `204` without
/// when `minimal` was preferred, and for what a producer repeats.
pub fn write_appended(appended: &Appended<'_>, minimal: bool, to: &AnswerTo, out: &mut Vec<u8>) {
    let is_repeated = appended.is_duplicate() && appended.producer.is_some();
    let status = if minimal || is_repeated { 204 } else { 201 };
    let mut answer = Answer::start(status, to, out);
    if !is_repeated || appended.producer.is_some_and(|producer| producer.is_last) {
        answer = answer.number("Event-Offset", appended.first);
    }
    if let Some(ProducerAnswer { epoch, seq, .. }) = appended.producer {
        answer = answer.number("Producer-Epoch", epoch).number("Producer-Seq", seq);
    }
    if let Some(window) = appended.id_window {
        answer = answer.written(ID_WINDOW_FIELD, |out| push_id_window(window, out));
    }
    if status == 204 {
        if appended.is_duplicate() {
            answer = answer.field("Event-Duplicate", "true");
        }
        if minimal {
            answer = answer.field("Preference-Applied", "return=minimal");
        }
        return answer.no_content();
    }
    let answer = answer
        .field("Content-Type", "application/json")
        .number("Content-Length", appended_bytes(appended));
    let out = answer.end_head(false);
    let body_start = out.len();
    out.extend_from_slice(b"{\"offset\":");
    write::number(out, appended.first);
    if appended.is_many {
        out.extend_from_slice(b",\"last\":");
        write::number(out, appended.last);
    }
    out.extend_from_slice(b",\"cursor\":\"");
    write::number(out, appended.last);
    out.push(b'.');
    out.extend_from_slice(appended.tag.as_bytes());
    out.extend_from_slice(b"\",\"count\":");
    write::number(out, appended.count);
    out.extend_from_slice(b",\"sync\":\"");
    out.extend_from_slice(appended.sync.as_bytes());
    out.push(b'"');
    if appended.duplicates > 0 {
        if appended.is_many {
            out.extend_from_slice(DUPLICATES.as_bytes());
            write::number(out, appended.duplicates);
        } else {
            out.extend_from_slice(DUPLICATE.as_bytes());
        }
    }
    out.extend_from_slice(b"}\n");
    debug_assert_eq!(u64::try_from(out.len() - body_start), Ok(appended_bytes(appended)));
}

const DUPLICATE: &str = ",\"duplicate\":true";
const DUPLICATES: &str = ",\"duplicates\":";

/// How long the body of the answer is, so that it can be written in place behind its length.
fn appended_bytes(appended: &Appended<'_>) -> u64 {
    const FIXED: &str = "{\"offset\":,\"cursor\":\".\",\"count\":,\"sync\":\"\"}\n";
    let mut text_bytes = FIXED.len() + appended.tag.len() + appended.sync.len();
    let last_bytes = if appended.is_many { 8 + digits(appended.last) } else { 0 };
    let mut numbers = digits(appended.first) + digits(appended.last) + digits(appended.count);
    match (appended.duplicates, appended.is_many) {
        (0, _) => {}
        (_, false) => text_bytes += DUPLICATE.len(),
        (duplicates, true) => {
            text_bytes += DUPLICATES.len();
            numbers += digits(duplicates);
        }
    }
    let text_bytes = u64::try_from(text_bytes).expect("a length fits into 64 bits");
    text_bytes + numbers + last_bytes
}

fn digits(number: u64) -> u64 {
    u64::from(number.checked_ilog10().unwrap_or(0)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Version;

    fn modern() -> AnswerTo {
        AnswerTo { version: Version::Http11, keep_alive: true, ..AnswerTo::unreadable(None) }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    const ONE: Appended<'_> = Appended {
        first: 42,
        last: 42,
        count: 1,
        duplicates: 0,
        is_many: false,
        tag: "k3f9q",
        sync: "commit",
        id_window: None,
        producer: None,
    };

    /// API §2: "`201`, `Event-Offset: 42`, `{"offset":42,"cursor":"42.k3f9q","count":1,
    /// "sync":"commit"}`".
    #[test]
    fn the_answer_to_an_append() {
        assert_eq!(
            written(|out| write_appended(&ONE, false, &modern(), out)),
            "HTTP/1.1 201 Created\r\nEvent-Offset: 42\r\nContent-Type: application/json\r\n\
             Content-Length: 60\r\n\r\n\
             {\"offset\":42,\"cursor\":\"42.k3f9q\",\"count\":1,\"sync\":\"commit\"}\n"
        );
    }

    /// API §2: "for many, `offset` is the first and `last` the last (others' events may lie between)".
    #[test]
    fn the_answer_to_an_append_of_many() {
        let many = Appended {
            first: 9,
            last: 1_000_000,
            count: 10,
            is_many: true,
            tag: "a",
            sync: "interval:50",
            ..ONE
        };
        let text = written(|out| write_appended(&many, false, &modern(), out));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            body,
            "{\"offset\":9,\"last\":1000000,\"cursor\":\"1000000.a\",\"count\":10,\
             \"sync\":\"interval:50\"}\n"
        );
        assert!(head.contains("Event-Offset: 9\r\n"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }

    #[test]
    fn lengths_are_right_at_every_power_of_ten() {
        for power in 0..20 {
            for number in [10_u64.pow(power) - 1, 10_u64.pow(power), u64::MAX] {
                for (count, is_many, duplicates) in
                    [(1, false, 0), (1, false, 1), (1, true, 0), (number, true, number)]
                {
                    let (first, last) = (number, number);
                    let appended = Appended { first, last, count, is_many, duplicates, ..ONE };
                    let text = written(|out| write_appended(&appended, false, &modern(), out));
                    let (head, body) = text.split_once("\r\n\r\n").unwrap();
                    assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
                    assert!(body.starts_with(&format!("{{\"offset\":{number},")));
                }
            }
        }
    }

    /// API §2: "`Prefer: return=minimal`: `204` and the headers alone".
    #[test]
    fn the_minimal_answer_to_an_append() {
        assert_eq!(
            written(|out| write_appended(&ONE, true, &modern(), out)),
            "HTTP/1.1 204 No Content\r\nEvent-Offset: 42\r\nPreference-Applied: return=minimal\r\n\r\n"
        );
    }

    /// API §2: "the first answer again, plus `"duplicate":true` (a number, `duplicates`, for many; `204`
    /// has `Event-Duplicate: true`)"; "`Event-Id-Window: events=1000000, seconds=600`".
    #[test]
    fn the_answer_to_a_duplicate() {
        let id_window = Some(IdWindow { events: 1_000_000, time_ms: 600_000 });
        let one = Appended { duplicates: 1, id_window, ..ONE };
        let text = written(|out| write_appended(&one, false, &modern(), out));
        assert!(text.starts_with("HTTP/1.1 201 Created\r\nEvent-Offset: 42\r\n"));
        assert!(text.contains("\r\nEvent-Id-Window: events=1000000, seconds=600\r\n"));
        assert!(text.ends_with("\"count\":1,\"sync\":\"commit\",\"duplicate\":true}\n"));
        let text = written(|out| write_appended(&one, true, &modern(), out));
        assert!(text.starts_with("HTTP/1.1 204 No Content\r\nEvent-Offset: 42\r\n"));
        assert!(text.contains("\r\nEvent-Duplicate: true\r\n"));

        let some = Appended { count: 3, duplicates: 2, is_many: true, ..ONE };
        let text = written(|out| write_appended(&some, false, &modern(), out));
        assert!(text.ends_with("\"count\":3,\"sync\":\"commit\",\"duplicates\":2}\n"));
        let text = written(|out| write_appended(&some, true, &modern(), out));
        assert!(!text.contains("Event-Duplicate"), "something of it is new");
    }

    /// Durable Streams: 204 for a duplicate, with the highest sequence that was accepted.
    #[test]
    fn the_answer_to_a_producer() {
        let of = |duplicates, seq, is_last| {
            let producer = Some(ProducerAnswer { epoch: 3, seq, is_last });
            let appended = Appended { duplicates, producer, ..ONE };
            written(|out| write_appended(&appended, false, &modern(), out))
        };
        let text = of(0, 8, true);
        assert!(text.starts_with(
            "HTTP/1.1 201 Created\r\nEvent-Offset: 42\r\nProducer-Epoch: 3\r\nProducer-Seq: 8\r\n"
        ));
        assert_eq!(
            of(1, 8, true),
            "HTTP/1.1 204 No Content\r\nEvent-Offset: 42\r\nProducer-Epoch: 3\r\n\
             Producer-Seq: 8\r\nEvent-Duplicate: true\r\n\r\n"
        );
        assert!(!of(1, 8, false).contains("Event-Offset"), "nobody knows it any more");
    }
}
