//! Events as they come in (raw bodies and event objects), and as readers get them.
//!
//! ```text
//! body + head ------- raw ----> NewEvent        POST /api/v1/topics/{topic}/events
//! JSON object(s) --- object --> NewEvent        POST /api/v1/events, WebSocket publish
//! EventView -------- render --> JSON object     history, SSE format=event, WebSocket
//! ```
//! Invariants:
//! 1. Data is kept as its bytes stand, never parsed into a tree and never written anew; what stands
//!    inside another JSON text is a slice of it.
//! 2. How data is shown (JSON itself, a string, base64) is decided here, once, when it comes in.
//!    JSON that is stored is valid and at most 64 deep, so that rendering need not look into it.
//! 3. Strict in: what is unknown, repeated or contradictory is refused by name.

mod data;
mod faults;
mod fields;
mod form;
mod headers;
mod media_type;
mod object;
mod raw;
mod render;
#[cfg(test)]
pub(crate) mod sample;
mod terms;
mod values;

pub use form::{EventsForm, check_json_body};
pub use media_type::{MediaClass, MediaType};
pub use object::{
    ARRAY_EVENTS_MAX, EventFields, ParsedEvents, new_event, parse_event, parse_events,
};
pub use raw::RawAppend;
pub use render::{push_event, push_websocket_event};
pub use terms::{AppendTerms, TermField, producer_and_id};
pub use values::{FieldUse, FieldValues, ValueField};
