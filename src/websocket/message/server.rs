//! Messages to clients, appended as JSON text. Events themselves are
//! [`push_websocket_event`](crate::event_json::push_websocket_event).

use strandline_storage::{offset::Offset, segment::Tag};

use super::client::MessageId;
use crate::{
    json::write,
    problem::Problem,
    stream::{
        cursor::Cursor,
        start::{Beginning, ResetReason, StartState},
    },
};

/// Appends the first message of a connection.
pub fn push_established(out: &mut Vec<u8>, connection_id: &str, tag: Tag) {
    out.extend_from_slice(b"{\"type\":\"connection.established\",\"connectionId\":");
    write::string(out, connection_id);
    push_text(out, "tag", tag.as_str());
    out.push(b'}');
}

/// How a subscription begins.
#[derive(Debug, Clone, Copy)]
pub struct Subscribed<'a> {
    /// The `id` of the message that asked for it.
    pub id: Option<&'a MessageId>,
    /// Its number in this connection.
    pub subscription: u32,
    /// Where and how it begins.
    pub beginning: Beginning,
}

/// Appends `subscribed`, which precedes the subscription's events.
pub fn push_subscribed(out: &mut Vec<u8>, subscribed: &Subscribed<'_>) {
    let Subscribed { id, subscription, beginning } = *subscribed;
    let Beginning { state, from, earliest, durable, tag, cursor } = beginning;
    push_type(out, "subscribed");
    push_id(out, id);
    push_number(out, "subscription", u64::from(subscription));
    push_text(out, "state", state.as_str());
    if let StartState::Reset(reason) = state {
        push_text(out, "reason", reason.as_str());
    }
    push_number(out, "from", from.get());
    push_number(out, "earliest", earliest.get());
    push_number(out, "durable", durable.get());
    push_text(out, "tag", tag.as_str());
    if let Some(cursor) = cursor {
        push_text(out, "cursor", &cursor.to_string());
    }
    out.push(b'}');
}

/// Appends `cursor`: on every silent heartbeat of a subscription, it says how far it has come.
pub fn push_cursor(out: &mut Vec<u8>, subscription: u32, cursor: Cursor, now_ms: u64) {
    push_type(out, "cursor");
    push_number(out, "subscription", u64::from(subscription));
    push_text(out, "cursor", &cursor.to_string());
    push_number(out, "timestamp", now_ms);
    out.push(b'}');
}

/// Appends `reset`: in mid-stream, something was passed over; `from` is what may follow.
pub fn push_reset(
    out: &mut Vec<u8>,
    subscription: u32,
    reason: ResetReason,
    from: Offset,
    tag: Tag,
) {
    push_type(out, "reset");
    push_number(out, "subscription", u64::from(subscription));
    push_text(out, "reason", reason.as_str());
    push_number(out, "from", from.get());
    push_text(out, "cursor", &Cursor::before(from, tag).to_string());
    out.push(b'}');
}

/// Appends `unsubscribed`, a subscription's last message.
pub fn push_unsubscribed(out: &mut Vec<u8>, id: Option<&MessageId>, subscription: u32) {
    push_type(out, "unsubscribed");
    push_id(out, id);
    push_number(out, "subscription", u64::from(subscription));
    out.push(b'}');
}

/// Appends the acknowledgement of a `publish`; `sync` is the log's sync mode.
pub fn push_ack(
    out: &mut Vec<u8>,
    id: &MessageId,
    offset: Offset,
    is_duplicate: bool,
    tag: Tag,
    sync: &str,
) {
    push_type(out, "ack");
    push_id(out, Some(id));
    push_number(out, "offset", offset.get());
    push_text(out, "cursor", &Cursor::after(offset, tag).to_string());
    push_text(out, "sync", sync);
    if is_duplicate {
        out.extend_from_slice(b",\"duplicate\":true");
    }
    out.push(b'}');
}

/// Appends the answer to a `ping`.
pub fn push_pong(out: &mut Vec<u8>, id: Option<&MessageId>, now_ms: u64) {
    push_type(out, "pong");
    push_id(out, id);
    push_number(out, "timestamp", now_ms);
    out.push(b'}');
}

/// Appends the error that answers one message, or none if it had no `id`.
pub fn push_error(out: &mut Vec<u8>, id: Option<&MessageId>, problem: &Problem) {
    push_type(out, "error");
    push_id(out, id);
    out.push(b',');
    problem.write_websocket_members(out);
    out.push(b'}');
}

fn push_type(out: &mut Vec<u8>, message_type: &str) {
    out.push(b'{');
    push_text(out, "type", message_type);
}

fn push_id(out: &mut Vec<u8>, id: Option<&MessageId>) {
    if let Some(id) = id {
        write::name(out, "id");
        out.extend_from_slice(id.as_json().as_bytes());
    }
}

fn push_number(out: &mut Vec<u8>, name: &str, number: u64) {
    write::name(out, name);
    write::number(out, number);
}

fn push_text(out: &mut Vec<u8>, name: &str, text: &str) {
    write::name(out, name);
    write::string(out, text);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        problem::ProblemKind,
        websocket::message::{ClientMessage, parse},
    };

    fn tag() -> Tag {
        Tag::parse("k3f9q").unwrap()
    }

    fn id(json: &'static str) -> MessageId {
        let message = format!("{{\"type\":\"ping\",\"id\":{json}}}");
        match parse(&Bytes::from(message)) {
            Ok(ClientMessage::Ping { id: Some(id) }) => id,
            other => panic!("{other:?}"),
        }
    }

    fn pushed(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).expect(&text);
        text
    }

    /// API §5, the examples in their order.
    #[test]
    fn messages_are_as_the_contract_has_them() {
        let (id7, text_id) = (id("7"), id("\"a\\u0062\""));
        assert_eq!(
            pushed(|out| push_established(out, "c-1", tag())),
            r#"{"type":"connection.established","connectionId":"c-1","tag":"k3f9q"}"#
        );
        let mut subscribed = Subscribed {
            id: Some(&id7),
            subscription: 2,
            beginning: Beginning {
                state: StartState::Resumed,
                from: Offset::new(42),
                earliest: Offset::ZERO,
                durable: Offset::new(64_000),
                tag: tag(),
                cursor: Some(Cursor::before(Offset::new(42), tag())),
            },
        };
        assert_eq!(
            pushed(|out| push_subscribed(out, &subscribed)),
            r#"{"type":"subscribed","id":7,"subscription":2,"state":"resumed","from":42,"earliest":0,"durable":64000,"tag":"k3f9q","cursor":"41.k3f9q"}"#
        );
        (subscribed.id, subscribed.beginning.cursor) = (None, None);
        subscribed.beginning.state = StartState::Reset(ResetReason::OtherLog);
        assert!(pushed(|out| push_subscribed(out, &subscribed)).starts_with(
            r#"{"type":"subscribed","subscription":2,"state":"reset","reason":"other_log","#
        ));
        assert!(!pushed(|out| push_subscribed(out, &subscribed)).contains("cursor"), "it waits");
        assert_eq!(
            pushed(|out| {
                let cursor = Cursor::after(Offset::new(64_000), tag());
                push_cursor(out, 2, cursor, 1_763_700_000_000);
            }),
            r#"{"type":"cursor","subscription":2,"cursor":"64000.k3f9q","timestamp":1763700000000}"#
        );
        assert_eq!(
            pushed(|out| push_reset(out, 2, ResetReason::Expired, Offset::new(500), tag())),
            r#"{"type":"reset","subscription":2,"reason":"expired","from":500,"cursor":"499.k3f9q"}"#
        );
        assert_eq!(
            pushed(|out| push_unsubscribed(out, Some(&text_id), 2)),
            r#"{"type":"unsubscribed","id":"a\u0062","subscription":2}"#
        );
        let ack = |is_duplicate| {
            pushed(|out| {
                push_ack(out, &id("8"), Offset::new(64_001), is_duplicate, tag(), "commit");
            })
        };
        assert_eq!(
            ack(false),
            r#"{"type":"ack","id":8,"offset":64001,"cursor":"64001.k3f9q","sync":"commit"}"#
        );
        assert_eq!(
            ack(true),
            r#"{"type":"ack","id":8,"offset":64001,"cursor":"64001.k3f9q","sync":"commit","duplicate":true}"#
        );
        assert_eq!(
            pushed(|out| push_pong(out, None, 1_763_700_000_000)),
            r#"{"type":"pong","timestamp":1763700000000}"#
        );
        let problem = Problem::new(ProblemKind::EventTooLarge, "too \"large\"");
        assert_eq!(
            pushed(|out| push_error(out, Some(&id("8")), &problem)),
            r#"{"type":"error","id":8,"status":413,"problem":"event-too-large","message":"too \"large\""}"#
        );
    }
}
