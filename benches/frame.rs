//! What a frame costs: encoding a commit's events, and parsing and reading them again.
//!
//! Throughput is in events, of which a frame of 128 KiB holds about 400 of 256 bytes.
//! Run with `cargo bench --bench frame`.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strandline_storage::{
    buffer::DiskBuffer,
    config::SyncMode,
    event::{EventId, EventKey, EventType, NewEvent, StagedEvent},
    frame::{self, Frame, FrameFlags, FrameMeta, Seed, Trust},
    index::IndexBuilder,
    offset::Offset,
    segment::{FIRST_FRAME_POSITION, Incarnation, SegmentHeader, Tag},
    topic::{Topic, TopicNumber},
};

const EVENTS: u32 = 400;

struct Case {
    name: &'static str,
    topics: u32,
    data_bytes: usize,
    details: bool,
}

const CASES: [Case; 4] = [
    Case { name: "one topic", topics: 1, data_bytes: 256, details: false },
    Case { name: "a topic each", topics: EVENTS, data_bytes: 256, details: false },
    Case { name: "id, key, type, header", topics: 10, data_bytes: 256, details: true },
    Case { name: "16 bytes", topics: 10, data_bytes: 16, details: false },
];

fn header() -> SegmentHeader {
    SegmentHeader {
        version: 1,
        base_offset: Offset::ZERO,
        created_at_ms: 0,
        incarnation: Incarnation::new([7; 16]),
        tag: Tag::parse("bench").expect("a tag"),
        sync: SyncMode::Commit,
    }
}

fn events(case: &Case) -> Vec<StagedEvent> {
    let event = |number: u32| {
        let topic_number = number % case.topics;
        let topic = Topic::parse(&format!("rooms/{topic_number}/messages")).expect("a topic");
        let mut event = NewEvent::json(topic, Bytes::from(vec![b'1'; case.data_bytes]));
        if case.details {
            event.id = Some(EventId::parse(&format!("event-number-{number}")).expect("an id"));
            event.key = Some(EventKey::parse("key").expect("a key"));
            event.event_type = EventType::parse("message.created").expect("a type");
            event.headers = vec![("trace-id".into(), "0123456789abcdef".into())];
        }
        StagedEvent {
            offset: Offset::new(u64::from(number)),
            time_ms: 1_763_700_000_000,
            topic_number: TopicNumber::new(topic_number),
            event,
        }
    };
    (0..EVENTS).map(event).collect()
}

fn frames(criterion: &mut Criterion) {
    let seed = Seed::of(&header().incarnation);
    let meta = FrameMeta {
        base_offset: Offset::ZERO,
        commit_time_ms: 1_763_700_000_000,
        synced_offset: Offset::ZERO,
        previous_checksum: seed.chain_start(),
        flags: FrameFlags::NONE,
    };
    for case in &CASES {
        let events = events(case);
        let mut group = criterion.benchmark_group(case.name);
        group.throughput(Throughput::Elements(u64::from(EVENTS)));
        let mut spare = Some(DiskBuffer::default());
        group.bench_function("encode", |bencher| {
            bencher.iter(|| {
                let buffer = spare.take().expect("the buffer came back");
                spare = black_box(frame::encode(&meta, &events, seed, buffer)).into_buffer();
            });
        });
        let frame = frame::encode(&meta, &events, seed, DiskBuffer::default());
        group.bench_function("parse", |bencher| {
            bencher.iter(|| Frame::parse_at(black_box(frame.buffer()), 0, seed, Trust::Checksum));
        });
        group.bench_function("read", |bencher| {
            bencher.iter(|| {
                let lengths = frame.events().map(|event| event.topic().len() + event.data().len());
                black_box(lengths.sum::<usize>())
            });
        });
        group.bench_function("index", |bencher| {
            bencher.iter_batched(
                || IndexBuilder::new(&header()),
                |mut builder| {
                    builder.add(&frame, FIRST_FRAME_POSITION).expect("a frame of ours");
                    builder
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
