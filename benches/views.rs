//! What many views of one log cost its shard.
//!
//! ```text
//! cargo bench --bench views
//! ```
//! Inboxes: each view is one topic, has one member, and holds one old chunk. What they cost together must grow
//! with their number, and no faster: all of them forgotten, because a rewrite has dropped events; all of them
//! left at once; all of them told that a frame was lost. Of the first and last of these, what is done in a row
//! before others run, and all of it.
//!
//! Filters: each view wants other events of one busy topic, of which a frame holds 400. What publishing it takes
//! in a row, and the turns of all views together.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strandline::stream::chunk::{Render, Word};
use strandline::stream::compression::Encoding;
use strandline::stream::filter::{Filter, parse_text};
use strandline::stream::view::{Member, Rendering, ViewId, ViewKey};
use strandline::stream::views::Views;
use strandline::stream::wanted::Wanted;
use strandline_storage::buffer::DiskBuffer;
use strandline_storage::event::{EventView, NewEvent, StagedEvent};
use strandline_storage::frame::{self, Frame, FrameFlags, FrameMeta, Seed};
use strandline_storage::offset::Offset;
use strandline_storage::rules::Floors;
use strandline_storage::segment::Incarnation;
use strandline_storage::topic::{Topic, TopicNumber, TopicPattern};

const FRAME_EVENTS: usize = 400;

struct Data;

impl Render for Data {
    fn event(&self, event: &EventView<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(event.data());
    }

    fn say(&self, _: Word, _: &mut Vec<u8>) {}
}

/// A frame of events whose topics and data these are.
fn frame(base: u64, events: &[(String, String)]) -> Arc<Frame> {
    let events: Vec<StagedEvent> = (0..)
        .zip(events)
        .map(|(at, (topic, data))| StagedEvent {
            offset: Offset::new(base + u64::from(at)),
            time_ms: 1,
            // They are all of one topic, or each of its own.
            topic_number: TopicNumber::new(if *topic == events[0].0 { 0 } else { at }),
            event: NewEvent::json(Topic::parse(topic).expect("a topic"), Bytes::from(data.clone())),
        })
        .collect();
    let seed = Seed::of(&Incarnation::new([7; 16]));
    let meta = FrameMeta {
        base_offset: Offset::new(base),
        commit_time_ms: 1,
        synced_offset: Offset::ZERO,
        previous_checksum: seed.chain_start(),
        flags: FrameFlags::default(),
    };
    Arc::new(frame::encode(&meta, &events, seed, DiskBuffer::with_capacity(256 * 1024)))
}

fn key(wanted: Wanted) -> ViewKey {
    let (is_object, is_chunked, encoding) = (false, false, Encoding::Identity);
    let rendering = Rendering::Sse { is_object, is_chunked, encoding };
    ViewKey { wanted: Rc::new(wanted), rendering }
}

fn join(views: &mut Views, key: &ViewKey) -> ViewId {
    views.join(key, Member { slot: 0, number: 0 }, || Rc::new(Data)).0
}

/// Everything that is left to be done for them, but sending.
fn serve_all(views: &mut Views) {
    while views.is_going_round() {
        views.go_round();
    }
    while let Some(view_id) = views.first_due() {
        while views.look_at_next(view_id).is_some() {}
        views.served(true);
    }
}

/// So many views of a topic each, that hold an event each; and their end.
fn inboxes(count: usize) -> (Views, Vec<ViewId>, Offset) {
    let mut views = Views::new(Offset::ZERO);
    let topics: Vec<(String, String)> =
        (0..count).map(|at| (format!("inboxes/{at}"), "{\"from\":\"somebody\"}".into())).collect();
    let ids = topics
        .iter()
        .map(|(topic, _)| {
            let pattern = TopicPattern::parse(topic).expect("a pattern");
            join(&mut views, &key(Wanted::new(vec![pattern], vec![])))
        })
        .collect();
    let mut end = 0;
    for events in topics.chunks(FRAME_EVENTS) {
        views.publish(&frame(end, events));
        end += events.len() as u64;
    }
    serve_all(&mut views);
    (views, ids, Offset::new(end))
}

fn many(criterion: &mut Criterion) {
    for (count, text) in [(10_000, "10,000"), (100_000, "100,000")] {
        let mut group = criterion.benchmark_group(format!("{text} inboxes"));
        group.sample_size(10).measurement_time(Duration::from_secs(2));
        group.throughput(Throughput::Elements(count as u64));
        let rewrite = |views: &mut Views, end: Offset| {
            let mut floors = Floors::default();
            floors.settle_to(end);
            views.hide(&Arc::new(floors));
        };
        group.bench_function("a rewrite has dropped events, in a row", |bencher| {
            bencher.iter_batched_ref(
                || inboxes(count),
                |(views, _, end)| rewrite(views, *end),
                BatchSize::PerIteration,
            );
        });
        group.bench_function("a rewrite has dropped events", |bencher| {
            bencher.iter_batched_ref(
                || inboxes(count),
                |(views, _, end)| {
                    rewrite(views, *end);
                    serve_all(views);
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function("all hang up", |bencher| {
            bencher.iter_batched_ref(
                || inboxes(count),
                |(views, ids, _)| {
                    // Not in the order in which they came.
                    let (first, second) = ids.split_at(count / 2);
                    for view_id in second.iter().chain(first) {
                        black_box(views.leave(*view_id, 0));
                    }
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function("a frame was lost, in a row", |bencher| {
            bencher.iter_batched_ref(
                || inboxes(count),
                |(views, _, end)| views.advance(end.plus(1)),
                BatchSize::PerIteration,
            );
        });
        group.bench_function("a frame was lost", |bencher| {
            bencher.iter_batched_ref(
                || inboxes(count),
                |(views, _, end)| {
                    views.advance(end.plus(1));
                    serve_all(views);
                },
                BatchSize::PerIteration,
            );
        });
    }
}

/// So many views of one topic with filters of their own.
fn filtered(count: usize) -> Views {
    let mut views = Views::new(Offset::ZERO);
    let topic = TopicPattern::parse("ticks").expect("a pattern");
    for number in 0..count {
        let text = format!("data.symbol == \"symbol-{number}\"");
        let filter = Filter::new(vec![parse_text(&text).expect("a filter")]).expect("a short one");
        join(&mut views, &key(Wanted::new(vec![topic.clone()], vec![]).filtered(filter)));
    }
    views
}

fn filters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1,000 filters");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    let data = |number: usize| {
        format!("{{\"symbol\":\"symbol-{number}\",\"rest\":\"{}\"}}", "x".repeat(250))
    };
    let events: Vec<(String, String)> =
        (0..FRAME_EVENTS).map(|number| ("ticks".to_owned(), data(number))).collect();
    let frame = frame(0, &events);
    group.bench_function("a frame, in a row", |bencher| {
        bencher.iter_batched_ref(
            || filtered(1_000),
            |views| views.publish(&frame),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("a frame", |bencher| {
        bencher.iter_batched_ref(
            || filtered(1_000),
            |views| {
                views.publish(&frame);
                serve_all(views);
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, many, filters);
criterion_main!(benches);
