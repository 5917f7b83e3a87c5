//! The answer to an append, the one that is written most often: into the buffer at once, without a
//! body of its own beside it.

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
    /// Whether the request could have had many, an array or lines: then the answer has `last`, also
    /// where it had one.
    pub is_many: bool,
    /// The tag of the log's history.
    pub tag: &'a str,
    /// What the acknowledgement promises: `commit`, `interval:MS` or `never`.
    pub sync: &'a str,
}

/// Appends `201` with `{"offset":42,"cursor":"42.k3f9q","count":1,"sync":"commit"}`, or `204` without
/// when `minimal` was preferred.
pub fn write_appended(appended: &Appended<'_>, minimal: bool, to: &AnswerTo, out: &mut Vec<u8>) {
    if minimal {
        Answer::start(204, to, out)
            .number("Event-Offset", appended.first)
            .field("Preference-Applied", "return=minimal")
            .no_content();
        return;
    }
    let answer = Answer::start(201, to, out)
        .number("Event-Offset", appended.first)
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
    out.extend_from_slice(b"\"}\n");
    debug_assert_eq!(u64::try_from(out.len() - body_start), Ok(appended_bytes(appended)));
}

/// How long the body of the answer is, so that it can be written in place behind its length.
fn appended_bytes(appended: &Appended<'_>) -> u64 {
    const FIXED: &str = "{\"offset\":,\"cursor\":\".\",\"count\":,\"sync\":\"\"}\n";
    let text_bytes = FIXED.len() + appended.tag.len() + appended.sync.len();
    let last_bytes = if appended.is_many { 8 + digits(appended.last) } else { 0 };
    let text_bytes = u64::try_from(text_bytes).expect("a length fits into 64 bits");
    let numbers = digits(appended.first) + digits(appended.last) + digits(appended.count);
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
        AnswerTo { version: Version::Http11, keep_alive: true, ..AnswerTo::unreadable() }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    const ONE: Appended<'_> =
        Appended { first: 42, last: 42, count: 1, is_many: false, tag: "k3f9q", sync: "commit" };

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
                for (count, is_many) in [(1, false), (1, true), (number, true)] {
                    let appended = Appended { first: number, last: number, count, is_many, ..ONE };
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
}
