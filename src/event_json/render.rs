//! An event as readers get it, written straight from its frame.
//!
//! ```text
//! {"offset":42,"time":"2026-11-21T09:08:08.123Z","topic":"a/b","type":"trade",
//!  "id":..,"key":..,"headers":{..},                     each only if set
//!  "content_type":"application/json","data":{..}}       data_base64 where the data is binary
//!
//! {"type":"event","subscription":2,"event":"trade","offset":..,..}      over a WebSocket
//! ```
//! The order of members never changes. JSON data stands as itself, CR and LF between its tokens as
//! spaces, so that an object is always one line; text is a string; binary is padded base64.

use strandline_storage::event::{DataForm, EventView};

use crate::{json::write, timestamp::TimeText};

/// Appends the object of an event.
pub fn push_event(out: &mut Vec<u8>, event: &EventView<'_>, time: &mut TimeText) {
    out.push(b'{');
    push_place(out, event, time);
    out.extend_from_slice(b",\"type\":");
    write::string(out, event.event_type());
    push_rest(out, event);
}

/// Appends the WebSocket message of an event, which has `event` where the object has `type`.
pub fn push_websocket_event(
    out: &mut Vec<u8>,
    event: &EventView<'_>,
    subscription: u32,
    time: &mut TimeText,
) {
    out.extend_from_slice(b"{\"type\":\"event\",\"subscription\":");
    write::number(out, u64::from(subscription));
    out.extend_from_slice(b",\"event\":");
    write::string(out, event.event_type());
    out.push(b',');
    push_place(out, event, time);
    push_rest(out, event);
}

fn push_place(out: &mut Vec<u8>, event: &EventView<'_>, time: &mut TimeText) {
    out.extend_from_slice(b"\"offset\":");
    write::number(out, event.offset().get());
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time.format(event.time_ms()).as_bytes());
    out.extend_from_slice(b"\",\"topic\":");
    write::string(out, event.topic());
}

fn push_rest(out: &mut Vec<u8>, event: &EventView<'_>) {
    if let Some(id) = event.id() {
        out.extend_from_slice(b",\"id\":");
        write::string(out, id);
    }
    if let Some(key) = event.key() {
        out.extend_from_slice(b",\"key\":");
        write::string(out, key);
    }
    push_headers(out, event);
    out.extend_from_slice(b",\"content_type\":");
    write::string(out, event.content_type());
    push_data(out, event);
    out.push(b'}');
}

fn push_headers(out: &mut Vec<u8>, event: &EventView<'_>) {
    let headers = event.headers();
    if headers.len() == 0 {
        return;
    }
    out.extend_from_slice(b",\"headers\":");
    for (index, (name, value)) in headers.enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        write::string(out, name);
        out.push(b':');
        write::string(out, value);
    }
    out.push(b'}');
}

fn push_data(out: &mut Vec<u8>, event: &EventView<'_>) {
    let data = event.data();
    let text = match event.form() {
        DataForm::Json if !data.is_empty() => {
            out.extend_from_slice(b",\"data\":");
            return write::on_one_line(out, data);
        }
        // Text was UTF-8 when it came in; were it not, its bytes would still arrive.
        DataForm::Json | DataForm::Text => std::str::from_utf8(data).ok(),
        DataForm::Binary => None,
    };
    match text {
        Some(text) => {
            out.extend_from_slice(b",\"data\":");
            write::string(out, text);
        }
        None => {
            out.extend_from_slice(b",\"data_base64\":\"");
            write::base64(out, data);
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};
    use strandline_storage::event::{EventKey, EventType, NewEvent};

    use super::*;
    use crate::event_json::sample;

    fn rendered(event: NewEvent) -> String {
        let frame = sample::frame(42, 1_763_700_000_007, vec![event]);
        let mut out = Vec::new();
        push_event(&mut out, &frame.event(0), &mut TimeText::default());
        String::from_utf8(out).unwrap()
    }

    fn of(form: DataForm, content_type: &'static str, data: &'static [u8]) -> NewEvent {
        let content_type = content_type.into();
        NewEvent { form, content_type, ..sample::json("a/b", Bytes::from_static(data)) }
    }

    /// API §3: "Answer object, always: `offset`, `time`, `topic`, `type`, `content_type`, `data`".
    #[test]
    fn a_json_event() {
        assert_eq!(
            rendered(of(DataForm::Json, "", b"{\"x\":\r\n [1.50] }")),
            "{\"offset\":42,\"time\":\"2025-11-21T04:40:00.007Z\",\"topic\":\"a/b\",\"type\":\"message\",\
             \"content_type\":\"application/json\",\"data\":{\"x\":   [1.50] }}"
        );
    }

    /// API §3: "a string for text) or `data_base64`".
    #[test]
    fn text_and_binary_events() {
        let text = rendered(of(DataForm::Text, "text/plain", "\"a\"\r\n\0é".as_bytes()));
        assert!(
            text.ends_with("\"content_type\":\"text/plain\",\"data\":\"\\\"a\\\"\\r\\n\\u0000é\"}")
        );
        let binary = rendered(of(DataForm::Binary, "image/png", b"\xff\x00"));
        assert!(binary.ends_with("\"content_type\":\"image/png\",\"data_base64\":\"/wA=\"}"));
        let empty = rendered(of(DataForm::Text, "text/plain", b""));
        assert!(empty.ends_with("\"data\":\"\"}"));
        let empty = rendered(of(DataForm::Binary, "a/b", b""));
        assert!(empty.ends_with("\"data_base64\":\"\"}"));
    }

    /// API §3: "when set: `id`, `key`, `headers`".
    #[test]
    fn what_is_set_is_shown() {
        let event = NewEvent {
            event_type: EventType::parse("tr\"ade").unwrap(),
            key: Some(EventKey::parse("k\\").unwrap()),
            headers: vec![("a".into(), "1\n".into()), ("b".into(), String::new().into())],
            ..of(DataForm::Json, "application/ld+json", b"1")
        };
        let value: Value = serde_json::from_str(&rendered(event)).unwrap();
        assert_eq!(
            value,
            json!({"offset": 42, "time": "2025-11-21T04:40:00.007Z", "topic": "a/b",
                   "type": "tr\"ade", "key": "k\\", "headers": {"a": "1\n", "b": ""},
                   "content_type": "application/ld+json", "data": 1})
        );
    }

    /// API §5: "`event` .. the members of §3 but `type`".
    #[test]
    fn over_a_websocket() {
        let frame = sample::frame(42, 0, vec![of(DataForm::Json, "", b"[]")]);
        let mut out = Vec::new();
        push_websocket_event(&mut out, &frame.event(0), 2, &mut TimeText::default());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"type\":\"event\",\"subscription\":2,\"event\":\"message\",\"offset\":42,\
             \"time\":\"1970-01-01T00:00:00.000Z\",\"topic\":\"a/b\",\
             \"content_type\":\"application/json\",\"data\":[]}"
        );
    }
}
