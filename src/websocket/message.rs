//! What clients and server say to each other over a WebSocket: one JSON object a text frame.
//!
//! ```text
//! -> subscribe    id topics types filter where from last_event_id log
//! -> unsubscribe  id subscription
//! -> publish      id topic event data | data_base64 event_id key headers content_type expected_offset
//! -> ping         id
//! <- connection.established, subscribed, event, cursor, reset, unsubscribed, ack, pong, error
//! ```
//! Strict in: a member that is unknown, repeated or of another message's is refused by name. An `id`
//! is a number or a string of at most 128 bytes; answers carry it as its bytes came.

mod client;
mod server;

pub use client::{ClientMessage, MessageError, MessageId, Subscribe, parse};
pub use server::{
    Subscribed, push_ack, push_cursor, push_error, push_established, push_pong, push_reset,
    push_subscribed, push_unsubscribed,
};
