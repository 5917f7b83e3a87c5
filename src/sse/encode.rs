//! Server-Sent Events as bytes.
//!
//! ```text
//! retry: 2000                       first of all, each connection its own
//! id: 63999.k3f9q                   the cursor just before what follows
//! event: connection.established
//! data: {..}
//! <empty line>
//! id: 64000.k3f9q                   only where a client that resumes from it misses nothing
//! event: trade                      not for `message`
//! data: first line of the data      CR, LF and CRLF each end a line of the data
//! data: second line
//! <empty line>
//! :                                 heartbeat: a comment, with *no* empty line after it
//! ```
//! A field's value never holds CR or LF: ids are ours, types have no control characters since they
//! were parsed, data is split. Everything ends with an empty line but the heartbeat, which may stand
//! anywhere between events (an empty line would make some clients yield an empty message).

use strandline_storage::{
    event::{DataForm, EventType, EventView},
    offset::Offset,
    segment::Tag,
};

use super::id_line::IdLine;
use crate::{
    event_json,
    http::query::Format,
    json::write,
    stream::{
        cursor::Cursor,
        start::{Beginning, ResetReason, StartState},
    },
    timestamp::TimeText,
};

/// What keeps a silent connection alive: to be sent between events, as it is.
pub const HEARTBEAT: &[u8] = b":\n";

/// Encodes the events of one log in one format; its output is the same for every subscriber of a view.
#[derive(Debug, Clone)]
pub struct EventEncoder {
    format: Format,
    id: IdLine,
    time: TimeText,
}

impl EventEncoder {
    /// An encoder for a log whose history is `tag`.
    pub fn new(format: Format, tag: Tag) -> EventEncoder {
        EventEncoder { format, id: IdLine::new(tag), time: TimeText::default() }
    }

    /// Appends one event. `resumable` says whether a client that resumes from its id misses nothing.
    pub fn push_event(&mut self, out: &mut Vec<u8>, event: &EventView<'_>, resumable: bool) {
        if resumable {
            out.extend_from_slice(self.id.of(event.offset()));
        }
        let event_type = event.event_type();
        if event_type != EventType::MESSAGE {
            debug_assert!(!event_type.bytes().any(|byte| byte == b'\r' || byte == b'\n'));
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(event_type.as_bytes());
            out.push(b'\n');
        }
        match (self.format, event.form()) {
            (Format::Event, _) => {
                out.extend_from_slice(b"data: ");
                event_json::push_event(out, event, &mut self.time);
                out.push(b'\n');
            }
            (Format::Data, DataForm::Binary) => {
                out.extend_from_slice(b"data: ");
                write::base64(out, event.data());
                out.push(b'\n');
            }
            (Format::Data, DataForm::Json | DataForm::Text) => push_lines(out, event.data()),
        }
        out.push(b'\n');
    }
}

/// Appends each line of `data` as a `data:` line; data without a line is one that is empty.
fn push_lines(out: &mut Vec<u8>, data: &[u8]) {
    if is_one_line(data) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(data);
        out.push(b'\n');
        return;
    }
    let mut rest = data;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
            out.extend_from_slice(rest);
            out.push(b'\n');
            return;
        };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let ending = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + ending..];
    }
}

/// Whether it is seen at once that data is one line, as most JSON is: no byte of it is as small as CR and LF are.
/// That is one instruction for 16 bytes; to search for both takes three times as long.
fn is_one_line(data: &[u8]) -> bool {
    data.iter().copied().fold(u8::MAX, u8::min) > b'\r'
}

/// How a stream begins.
#[derive(Debug, Clone, Copy)]
pub struct Established<'a> {
    /// Milliseconds after which this client is to reconnect.
    pub retry_ms: u32,
    /// The connection's name in logs.
    pub connection_id: &'a str,
    /// Where and how it begins; the client resumes from its cursor.
    pub beginning: Beginning,
}

/// Appends `retry:` and the first event of a stream.
pub fn push_established(out: &mut Vec<u8>, established: &Established<'_>) {
    let Established { retry_ms, connection_id, beginning } = *established;
    let Beginning { state, from, earliest, durable, tag, cursor } = beginning;
    push_retry(out, retry_ms);
    if let Some(cursor) = cursor {
        push_id(out, cursor);
    }
    out.extend_from_slice(b"event: connection.established\ndata: {\"connectionId\":");
    write::string(out, connection_id);
    out.extend_from_slice(b",\"state\":\"");
    out.extend_from_slice(state.as_str().as_bytes());
    out.push(b'"');
    if let StartState::Reset(reason) = state {
        out.extend_from_slice(b",\"reason\":\"");
        out.extend_from_slice(reason.as_str().as_bytes());
        out.push(b'"');
    }
    for (name, offset) in [("from", from), ("earliest", earliest), ("durable", durable)] {
        write::name(out, name);
        write::number(out, offset.get());
    }
    out.extend_from_slice(format!(",\"tag\":\"{tag}\"}}\n\n").as_bytes());
}

/// Appends a `ping`, the heartbeat of those who asked for it and of filtered streams that have seen
/// much go by: it moves the client's cursor. `cursor` is up to where the log has been looked through;
/// a stream that waits beyond the end has none.
pub fn push_ping(out: &mut Vec<u8>, cursor: Option<Cursor>, now_ms: u64) {
    if let Some(cursor) = cursor {
        push_id(out, cursor);
    }
    out.extend_from_slice(b"event: ping\ndata: {\"timestamp\":");
    write::number(out, now_ms);
    if let Some(cursor) = cursor {
        write::name(out, "offset");
        match cursor.seen() {
            Some(seen) => write::number(out, seen.get()),
            None => out.extend_from_slice(b"-1"),
        }
    }
    out.extend_from_slice(b"}\n\n");
}

/// Appends the event that says, in mid-stream, that something was passed over; `from` is the first
/// offset that may follow.
pub fn push_reset(out: &mut Vec<u8>, reason: ResetReason, from: Offset, tag: Tag) {
    push_id(out, Cursor::before(from, tag));
    out.extend_from_slice(b"event: connection.reset\ndata: {\"reason\":\"");
    out.extend_from_slice(reason.as_str().as_bytes());
    out.extend_from_slice(b"\",\"from\":");
    write::number(out, from.get());
    out.extend_from_slice(b"}\n\n");
}

/// Appends the last event of a stream, and when to reconnect if it differs from what was said first.
/// It has no `id:`, so that the client keeps its cursor.
pub fn push_closing(out: &mut Vec<u8>, retry_ms: Option<u32>, code: u16, reason: &str) {
    if let Some(retry_ms) = retry_ms {
        push_retry(out, retry_ms);
    }
    out.extend_from_slice(b"event: connection.closing\ndata: {\"code\":");
    write::number(out, u64::from(code));
    out.extend_from_slice(b",\"reason\":");
    write::string(out, reason);
    out.extend_from_slice(b"}\n\n");
}

fn push_retry(out: &mut Vec<u8>, retry_ms: u32) {
    out.extend_from_slice(b"retry: ");
    write::number(out, u64::from(retry_ms));
    out.push(b'\n');
}

fn push_id(out: &mut Vec<u8>, cursor: Cursor) {
    out.extend_from_slice(format!("id: {cursor}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use strandline_storage::event::NewEvent;

    use super::*;
    use crate::event_json::sample;

    fn tag() -> Tag {
        Tag::parse("k3f9q").unwrap()
    }

    fn encoded(format: Format, event: NewEvent, resumable: bool) -> String {
        let frame = sample::frame(64_000, 0, vec![event]);
        let mut out = Vec::new();
        EventEncoder::new(format, tag()).push_event(&mut out, &frame.event(0), resumable);
        String::from_utf8(out).unwrap()
    }

    fn text(data: &str) -> NewEvent {
        let event = sample::json("a", Bytes::copy_from_slice(data.as_bytes()));
        NewEvent { form: DataForm::Text, content_type: "text/plain".into(), ..event }
    }

    fn data_lines(data: &str) -> String {
        let all = encoded(Format::Data, text(data), false);
        all.strip_suffix("\n").unwrap().to_owned()
    }

    /// API §4, the example: `id:`, `event:` "left out when it is `message`", `data:`, an empty line.
    #[test]
    fn an_event() {
        let event = sample::json("a", Bytes::from_static(b"{\"x\":1}"));
        let trade = NewEvent { event_type: EventType::parse("trade").unwrap(), ..event.clone() };
        assert_eq!(
            encoded(Format::Data, trade, true),
            "id: 64000.k3f9q\nevent: trade\ndata: {\"x\":1}\n\n"
        );
        assert_eq!(
            encoded(Format::Data, event.clone(), true),
            "id: 64000.k3f9q\ndata: {\"x\":1}\n\n"
        );
        assert_eq!(encoded(Format::Data, event, false), "data: {\"x\":1}\n\n", "no id: not safe");
    }

    /// API §4: "lines become `data:` lines (so CR and CRLF arrive as LF in `format=data` ..); empty
    /// data is one empty `data:` line".
    #[test]
    fn lines_of_data() {
        for (data, wanted) in [
            ("", "data: \n"),
            ("a", "data: a\n"),
            (" a", "data:  a\n"),
            ("a\nb", "data: a\ndata: b\n"),
            ("a\rb\r\nc", "data: a\ndata: b\ndata: c\n"),
            ("a\n", "data: a\ndata: \n"),
            ("\n\r", "data: \ndata: \ndata: \n"),
            ("\r\n", "data: \ndata: \n"),
            ("id: 1\nevent: error\n\n:x", "data: id: 1\ndata: event: error\ndata: \ndata: :x\n"),
            ("\u{2028}\u{85}\u{b}", "data: \u{2028}\u{85}\u{b}\n"),
            ("\t\u{c}\u{e}\0", "data: \t\u{c}\u{e}\0\n"),
        ] {
            assert_eq!(data_lines(data), wanted, "{data:?}");
        }
    }

    /// API §4: "binary is padded base64"; `format=event`: "the object of §3", which is one line.
    #[test]
    fn binary_and_whole_events() {
        let event = sample::json("a", Bytes::from_static(b"\xff\n"));
        let binary = NewEvent { form: DataForm::Binary, content_type: "a/b".into(), ..event };
        assert_eq!(encoded(Format::Data, binary, false), "data: /wo=\n\n");
        let json = sample::json("a", Bytes::from_static(b"[1,\r\n2]"));
        assert_eq!(
            encoded(Format::Event, json, true),
            "id: 64000.k3f9q\ndata: {\"offset\":64000,\"time\":\"1970-01-01T00:00:00.000Z\",\
             \"topic\":\"a\",\"type\":\"message\",\"content_type\":\"application/json\",\
             \"data\":[1,  2]}\n\n"
        );
        let lines = encoded(Format::Event, text("a\r\nb\n"), false);
        assert!(lines.ends_with("\"data\":\"a\\r\\nb\\n\"}\n\n"), "{lines}");
    }

    /// API §4: the first lines of a stream.
    #[test]
    fn the_first_event() {
        let mut established = Established {
            retry_ms: 2000,
            connection_id: "c-1",
            beginning: Beginning {
                state: StartState::Live,
                from: Offset::new(64_000),
                earliest: Offset::ZERO,
                durable: Offset::new(64_000),
                tag: tag(),
                cursor: Some(Cursor::before(Offset::new(64_000), tag())),
            },
        };
        let mut out = Vec::new();
        push_established(&mut out, &established);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "retry: 2000\nid: 63999.k3f9q\nevent: connection.established\n\
             data: {\"connectionId\":\"c-1\",\"state\":\"live\",\"from\":64000,\"earliest\":0,\
             \"durable\":64000,\"tag\":\"k3f9q\"}\n\n"
        );
        established.beginning.state = StartState::Reset(ResetReason::OtherLog);
        established.beginning.from = Offset::ZERO;
        established.beginning.cursor = Some(Cursor::before(Offset::ZERO, tag()));
        let mut out = Vec::new();
        push_established(&mut out, &established);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("id: -1.k3f9q\n"));
        assert!(out.contains("\"state\":\"reset\",\"reason\":\"other_log\",\"from\":0,"));
        established.beginning.cursor = None;
        let mut out = Vec::new();
        push_established(&mut out, &established);
        assert!(out.starts_with(b"retry: 2000\nevent: connection.established\n"), "it waits");
    }

    /// API §4: ping "`id:` + `event: ping` + `data: {"timestamp":...,"offset":...}`";
    /// `connection.reset` "(with `id:`, `reason` .., `from`)"; `connection.closing` "(`code` .., `reason`)".
    #[test]
    fn control_events() {
        let mut out = Vec::new();
        push_ping(&mut out, Some(Cursor::after(Offset::new(5), tag())), 1_763_700_000_000);
        push_ping(&mut out, Some(Cursor::before(Offset::ZERO, tag())), 1);
        push_ping(&mut out, None, 2);
        push_reset(&mut out, ResetReason::Gap, Offset::new(500), tag());
        push_closing(&mut out, Some(2500), 4000, "draining\n");
        push_closing(&mut out, None, 1001, "");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "id: 5.k3f9q\nevent: ping\ndata: {\"timestamp\":1763700000000,\"offset\":5}\n\n\
             id: -1.k3f9q\nevent: ping\ndata: {\"timestamp\":1,\"offset\":-1}\n\n\
             event: ping\ndata: {\"timestamp\":2}\n\n\
             id: 499.k3f9q\nevent: connection.reset\ndata: {\"reason\":\"gap\",\"from\":500}\n\n\
             retry: 2500\nevent: connection.closing\ndata: {\"code\":4000,\"reason\":\"draining\\n\"}\n\n\
             event: connection.closing\ndata: {\"code\":1001,\"reason\":\"\"}\n\n"
        );
    }

    /// API §4: "the single line `:` and *no* empty line after it".
    #[test]
    fn a_heartbeat_is_a_comment_alone() {
        assert_eq!(HEARTBEAT, b":\n");
    }

    /// What a client that keeps to the standard makes of a stream (WHATWG HTML, 9.2.6).
    fn client(stream: &str) -> Vec<(String, String, String)> {
        let (mut id, mut event, mut data) = (String::new(), String::new(), None::<String>);
        let mut all = Vec::new();
        let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
        for line in stream.split('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                _ if line.is_empty() => {
                    if let Some(data) = data.take() {
                        let name = if event.is_empty() { "message" } else { &event };
                        all.push((id.clone(), name.to_owned(), data));
                    }
                    event.clear();
                }
                "id" => id = value.to_owned(),
                "event" => event = value.to_owned(),
                "data" => match &mut data {
                    None => data = Some(value.to_owned()),
                    Some(data) => *data = format!("{data}\n{value}"),
                },
                _ => {}
            }
        }
        all
    }

    proptest! {
        /// Whatever the data, a client gets one event with just this data, lines ended by LF.
        #[test]
        fn no_data_breaks_out_of_its_event(data in "[a: \r\n\u{0}id]{0,20}", name in "[a-z:]{1,8}") {
            prop_assume!(EventType::parse(&name).is_ok());
            let event_type = EventType::parse(&name).unwrap();
            let mut stream = String::from_utf8(HEARTBEAT.to_vec()).unwrap();
            stream += &encoded(Format::Data, NewEvent { event_type, ..text(&data) }, true);
            stream += ":\n";
            let lines = data.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(client(&stream), vec![("64000.k3f9q".to_owned(), name, lines)]);
        }
    }
}
