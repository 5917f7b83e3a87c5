//! The body of a frame: the events of one commit as an rkyv archive, read in place.
//!
//! rkyv 0.8 with the features `little_endian`, `pointer_width_32` and `aligned`, which must be set
//! explicitly because they unify over the whole build; golden files pin the bytes. A `text` is rkyv's
//! archived string: 8 bytes, which hold it if it has at most 8 bytes and else its length and where it
//! is; a `list` is 4 bytes of where and 4 of how many. "Where" is relative and points backwards, as
//! what is pointed to is written first. Everything is aligned to 4 bytes.
//! ```text
//! body     | names and topic records | data, texts, details of each event | event records | root |
//!
//! root     16 bytes  0 topics: list of topic records   8 events: list of event records
//! topic    12 bytes  0 number u32   4 name text
//! event    36 bytes  0 offset - the frame's base offset u32   4 time in ms, low 32 bits u32
//!                    8 time, high 16 bits u16   10 index into topics u16   12 form u8   13 kind u8
//!                    14 zero u16   16 type text, empty is `message`   24 data list of bytes
//!                    32 details: where, or 1 if there are none
//! details  32 bytes  0 id text   8 key text   16 content type text, empty is `application/json`
//!                    24 headers: list of header records           (an empty id or key is none)
//! header   16 bytes  0 name text   8 value text
//! ```
//! Form is 0 JSON, 1 text, 2 binary; kind is 0 data, 1 settings of the log, 2 settings of a topic or
//! pattern, 3 topics deleted, 4 topic trimmed. A header whose name begins with `:` is none of the
//! publisher's (whose names are tokens) and stands behind those: `:producer` says whose append begins
//! with the event. An event without id, key, headers and content
//! type costs 36 bytes and its data. Times are whole, not deltas to the frame: a clock that was set
//! between two events of a frame may put decades between them.
//!
//! Invariants, beyond what bytecheck sees: offsets ascend, times do not descend, every topic index is
//! in the table, forms and kinds are known.

use std::mem;

use rkyv::{
    Portable,
    bytecheck::CheckBytes,
    niche::option_box::ArchivedOptionBox,
    rend::{u16_le, u32_le},
    string::ArchivedString,
    vec::ArchivedVec,
};

use crate::event::{DataForm, EventKind};

mod encode;
mod view;

pub(crate) use encode::{BODY_OVERHEAD_BYTES_MAX, encode_body, share_bytes_max};
pub(crate) use view::{Body, BodyBounds, topics};
pub use view::{BodyError, EventView};

/// The header by which the first event of a producer's append says whose it is.
pub const PRODUCER_HEADER: &str = ":producer";

/// A time of an event is below this: 48 bits, the year 10889.
pub const TIME_MS_END: u64 = 1 << 48;

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct BodyRecord {
    topics: ArchivedVec<TopicRecord>,
    events: ArchivedVec<EventRecord>,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct TopicRecord {
    number: u32_le,
    name: ArchivedString,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct EventRecord {
    offset_delta: u32_le,
    time_low_ms: u32_le,
    time_high_ms: u16_le,
    topic_index: u16_le,
    form: u8,
    kind: u8,
    reserved: u16_le,
    event_type: ArchivedString,
    data: ArchivedVec<u8>,
    details: ArchivedOptionBox<DetailsRecord>,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct DetailsRecord {
    id: ArchivedString,
    key: ArchivedString,
    content_type: ArchivedString,
    headers: ArchivedVec<HeaderRecord>,
}

#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
struct HeaderRecord {
    name: ArchivedString,
    value: ArchivedString,
}

/// The alignment of a body, and so of where it begins in memory.
pub(crate) const BODY_ALIGN_BYTES: usize = mem::align_of::<BodyRecord>();

const ROOT_BYTES: usize = mem::size_of::<BodyRecord>();

const _: () = assert!(BODY_ALIGN_BYTES == 4);
const _: () = assert!(ROOT_BYTES == 16);
const _: () = assert!(mem::size_of::<TopicRecord>() == 12);
const _: () = assert!(mem::size_of::<EventRecord>() == 36);
const _: () = assert!(mem::size_of::<DetailsRecord>() == 32);
const _: () = assert!(mem::size_of::<HeaderRecord>() == 16);

/// Where the event records begin in a body of so many bytes and events: its end is they and the root.
pub(crate) fn records_at(body_bytes: usize, events: usize) -> usize {
    body_bytes - ROOT_BYTES - events * mem::size_of::<EventRecord>()
}

pub(crate) fn kind_code(kind: EventKind) -> u8 {
    match kind {
        EventKind::Data => 0,
        EventKind::LogSettings => 1,
        EventKind::TopicSettings => 2,
        EventKind::TopicsDeleted => 3,
        EventKind::TopicTrimmed => 4,
    }
}

pub(crate) fn kind_of(code: u8) -> Option<EventKind> {
    match code {
        0 => Some(EventKind::Data),
        1 => Some(EventKind::LogSettings),
        2 => Some(EventKind::TopicSettings),
        3 => Some(EventKind::TopicsDeleted),
        4 => Some(EventKind::TopicTrimmed),
        _ => None,
    }
}

fn form_code(form: DataForm) -> u8 {
    match form {
        DataForm::Json => 0,
        DataForm::Text => 1,
        DataForm::Binary => 2,
    }
}

fn form_of(code: u8) -> Option<DataForm> {
    match code {
        0 => Some(DataForm::Json),
        1 => Some(DataForm::Text),
        2 => Some(DataForm::Binary),
        _ => None,
    }
}
