//! What a filter costs an event, and what it costs to make one.
//!
//! ```text
//! cargo bench --bench filter
//! ```
//! Each figure of `evaluate` is for one event, as a shard meets it in a frame; `read` sets the walk over
//! its data beside serde_json's ways to the same two fields.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use serde::de::IgnoredAny;
use serde_json::{Value, value::RawValue};
use strandline::{
    json::{members, walk::Walk},
    stream::filter::{self, Filter},
};
use strandline_storage::{
    buffer::DiskBuffer,
    event::{EventType, NewEvent, StagedEvent},
    frame::{self, Frame, FrameFlags, FrameMeta, Seed},
    offset::Offset,
    segment::Incarnation,
    topic::{Topic, TopicNumber},
};

/// A trade of 256 bytes; the price is second of five members.
fn trade() -> String {
    let start = "{\"symbol\":\"ACME\",\"price\":101.25,\"sizes\":[100,200,300],\"venue\":{\"id\":7,\"name\":\"X\"},\"note\":\"";
    format!("{start}{}\"}}", "n".repeat(256 - start.len() - 2))
}

/// 18 members in 220 bytes.
fn readings() -> String {
    let fields: String = (0..16).map(|at| format!("\"f{at}\":{},", at * 1234)).collect();
    format!("{{{fields}\"price\":101.25,\"venue\":{{\"id\":7,\"name\":\"X\"}}}}")
}

/// 14 KiB, most of it texts.
fn document() -> String {
    let field = |at: usize| {
        let text = "words and words ".repeat(20);
        format!("\"field{at}\":{{\"a\":[{at},{at}.5,true],\"text\":\"{text}\"}},")
    };
    let fields: String = (0..40).map(field).collect();
    format!("{{{fields}\"price\":101.25,\"venue\":{{\"id\":7,\"name\":\"X\"}}}}")
}

fn frame_of(data: String) -> Frame {
    let event = NewEvent {
        event_type: EventType::parse("trade").expect("a type"),
        ..NewEvent::json(Topic::parse("market/acme/trades").expect("a topic"), Bytes::from(data))
    };
    let staged = StagedEvent {
        offset: Offset::ZERO,
        time_ms: 1_763_700_000_000,
        topic_number: TopicNumber::new(0),
        event,
    };
    let meta = FrameMeta {
        base_offset: Offset::ZERO,
        commit_time_ms: staged.time_ms,
        synced_offset: Offset::ZERO,
        previous_checksum: 0,
        flags: FrameFlags::default(),
    };
    let seed = Seed::of(&Incarnation::new([7; 16]));
    frame::encode(&meta, &[staged], seed, DiskBuffer::with_capacity(1 << 16))
}

fn filter_of(text: &str) -> Filter {
    let condition = filter::parse_text(text).expect("a filter");
    Filter::new(vec![condition]).expect("within the limits").expect("it does not match all")
}

fn evaluate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("evaluate");
    let one = "data.price > 100";
    let three = "data.price > 100 and data.venue.name == \"X\" and data.sizes.1 == 200";
    let ten: Vec<String> = (0..10).map(|at| format!("data.f{at} == {}", at * 1234)).collect();
    let ten = ten.join(" and ");
    for (name, data, text) in [
        ("trade_256_bytes/type_is_another", trade(), "type == \"quote\" and data.price > 100"),
        ("trade_256_bytes/1_field", trade(), one),
        ("trade_256_bytes/3_fields", trade(), three),
        ("readings_220_bytes/1_field", readings(), one),
        ("readings_220_bytes/10_fields", readings(), &ten),
        ("document_14_kib/1_field", document(), one),
    ] {
        let (filter, frame) = (filter_of(text), frame_of(data));
        let is_met = !name.ends_with("another");
        assert_eq!(filter.matches(&frame.event(0)), is_met, "{name}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| filter.matches(&black_box(&frame).event(0)));
        });
    }
}

/// By the walk that filters use.
fn by_walk(json: &str) -> Option<(&[u8], &[u8])> {
    let (mut price, mut name) = (None, None);
    let mut walk = Walk::new(json.as_bytes());
    walk.object(|walk, member| {
        if member.is("price") {
            price = walk.value();
            return Some(());
        }
        if !member.is("venue") {
            return walk.value().map(|_| ());
        }
        walk.object(|walk, member| {
            let value = walk.value();
            if member.is("name") {
                name = value;
            }
            Some(())
        })
    })?;
    price.zip(name)
}

/// By serde_json's `RawValue`s.
fn by_members(json: &str) -> Option<(&str, &str)> {
    let (mut price, mut name) = (None, None);
    let object: &RawValue = serde_json::from_str(json).ok()?;
    let end = members::for_each_member(object, |member, value| {
        match member {
            "price" => price = Some(value.get()),
            "venue" => {
                let _ = members::for_each_member(value, |member, value| {
                    if member == "name" {
                        name = Some(value.get());
                    }
                    Ok::<(), ()>(())
                });
            }
            _ => {}
        }
        Ok::<(), ()>(())
    });
    end.and_then(|_| price.zip(name))
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    for (name, json) in [("trade", trade()), ("readings", readings()), ("document", document())] {
        assert_eq!(by_walk(&json), Some((&b"101.25"[..], &b"\"X\""[..])));
        assert_eq!(by_members(&json), Some(("101.25", "\"X\"")));
        group.bench_function(format!("{name}/walk"), |bencher| {
            bencher.iter(|| by_walk(black_box(&json)).is_some());
        });
        group.bench_function(format!("{name}/serde_json_raw_values"), |bencher| {
            bencher.iter(|| by_members(black_box(&json)).is_some());
        });
        group.bench_function(format!("{name}/serde_json_check_alone"), |bencher| {
            bencher.iter(|| serde_json::from_str::<IgnoredAny>(black_box(&json)).is_ok());
        });
        group.bench_function(format!("{name}/serde_json_tree"), |bencher| {
            bencher.iter(|| serde_json::from_str::<Value>(black_box(&json)).is_ok());
        });
    }
}

fn make(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("make");
    let text = "data.price > 100 and type == \"trade\"";
    let json = r#"{"all":[{"field":"data.price","op":"gt","value":100},{"field":"type","op":"eq","value":"trade"}]}"#;
    group.bench_function("from_text", |bencher| {
        bencher.iter(|| filter_of(black_box(text)));
    });
    let kept = filter_of(text);
    group.bench_function("from_json_known_already", |bencher| {
        bencher.iter(|| {
            let condition = filter::parse_json(black_box(json)).expect("a filter");
            Filter::new(vec![condition]).expect("within the limits")
        });
    });
    assert_eq!(kept, filter_of(text));
}

criterion_group!(benches, evaluate, read, make);
criterion_main!(benches);
