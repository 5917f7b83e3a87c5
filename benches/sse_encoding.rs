//! What one event of 256 bytes costs at the edges: checked as it comes in, encoded for its readers.
//!
//! ```text
//! cargo bench --bench sse_encoding
//! ```
//! Each figure is for 100 events; the encoders write into a vector that is kept, as a shard does.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strandline::{
    event_json::{self, RawAppend},
    http::query::Format,
    json::check,
    sse::encode::EventEncoder,
    timestamp::TimeText,
    websocket::{frames, message},
};
use strandline_storage::{
    buffer::DiskBuffer,
    event::{DataForm, NewEvent, StagedEvent},
    frame::{self, Frame, FrameFlags, FrameMeta, Seed},
    offset::Offset,
    segment::{Incarnation, Tag},
    topic::{Topic, TopicNumber},
};

const EVENTS: u64 = 100;
const DATA_BYTES: usize = 256;

fn json() -> Bytes {
    let start = "{\"symbol\":\"ACME\",\"price\":101.25,\"sizes\":[100,200,300],\"venue\":{\"id\":7,\"name\":\"X\"},\"note\":\"";
    let fill = DATA_BYTES - start.len() - 2;
    Bytes::from(format!("{start}{}\"}}", "n".repeat(fill)))
}

fn text() -> Bytes {
    Bytes::from("four lines of sixty-three characters each, as a log file has them\n".repeat(4))
}

fn frame_of(data: &Bytes, form: DataForm) -> Frame {
    let content_type = if form == DataForm::Json { "" } else { "text/plain" };
    let event = NewEvent {
        form,
        content_type: content_type.into(),
        ..NewEvent::json(Topic::parse("market/acme/trades").expect("a topic"), data.clone())
    };
    let events: Vec<_> = (0..EVENTS)
        .map(|offset| StagedEvent {
            offset: Offset::new(1_000_000 + offset),
            time_ms: 1_763_700_000_000 + offset,
            topic_number: TopicNumber::new(0),
            event: event.clone(),
        })
        .collect();
    let meta = FrameMeta {
        base_offset: Offset::new(1_000_000),
        commit_time_ms: 1_763_700_000_000,
        synced_offset: Offset::ZERO,
        previous_checksum: 0,
        flags: FrameFlags::default(),
    };
    let seed = Seed::of(&Incarnation::new([7; 16]));
    frame::encode(&meta, &events, seed, DiskBuffer::with_capacity(1 << 16))
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_100_events");
    group.throughput(Throughput::Elements(EVENTS));
    let tag = Tag::parse("k3f9q").expect("a tag");
    let json_frame = frame_of(&json(), DataForm::Json);
    let text_frame = frame_of(&text(), DataForm::Text);
    let mut out = Vec::new();
    for (name, frame, format) in [
        ("sse_data_json", &json_frame, Format::Data),
        ("sse_data_text_lines", &text_frame, Format::Data),
        ("sse_event_json", &json_frame, Format::Event),
        ("sse_event_text", &text_frame, Format::Event),
    ] {
        let mut encoder = EventEncoder::new(format, tag);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                for event in frame.events() {
                    encoder.push_event(&mut out, &event, true);
                }
                black_box(out.len())
            });
        });
    }
    let mut time = TimeText::default();
    group.bench_function("websocket_json", |bencher| {
        bencher.iter(|| {
            out.clear();
            for event in json_frame.events() {
                frames::push_text_frame(&mut out, |out| {
                    event_json::push_websocket_event(out, &event, 1, &mut time);
                });
            }
            black_box(out.len())
        });
    });
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("take_in_1_event");
    let topic = Topic::parse("market/acme/trades").expect("a topic");
    let data = json();
    group.bench_function("check_json_256_bytes", |bencher| {
        bencher.iter(|| check::check(black_box(&data)).is_ok());
    });
    group.bench_function("raw_append_256_bytes", |bencher| {
        let fields: [(&str, &[u8]); 5] = [
            ("Host", b"localhost:7400"),
            ("User-Agent", b"curl/8"),
            ("Accept", b"*/*"),
            ("Content-Type", b"application/json"),
            ("Content-Length", b"256"),
        ];
        bencher.iter(|| {
            let append = RawAppend::from_fields(black_box(fields).into_iter()).expect("valid");
            append.event(topic.clone(), data.clone()).expect("valid")
        });
    });
    let object =
        [b"{\"topic\":\"market/acme/trades\",\"type\":\"trade\",\"data\":", &data[..], b"}"];
    let object = Bytes::from(object.concat());
    group.bench_function("event_object_256_bytes", |bencher| {
        bencher.iter(|| event_json::parse_event(black_box(&object), None).expect("valid"));
    });
    let publish = [
        b"{\"type\":\"publish\",\"id\":8,\"topic\":\"market/acme/trades\",\"data\":",
        &data[..],
        b"}",
    ];
    let publish = Bytes::from(publish.concat());
    group.bench_function("websocket_publish_256_bytes", |bencher| {
        bencher.iter(|| message::parse(black_box(&publish)).expect("valid"));
    });
    group.bench_function("websocket_frame_256_bytes", |bencher| {
        let mut bytes = vec![0x81, 0x80 | 126, 1, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&data);
        let bytes = Bytes::from(bytes);
        let mut decoder = frames::Decoder::default();
        bencher.iter(|| {
            decoder.push(bytes.clone());
            decoder.next_message().expect("one message").expect("valid")
        });
    });
}

criterion_group!(benches, encode, parse);
criterion_main!(benches);
