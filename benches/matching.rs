//! What it costs to find the views of an event by its topic.
//!
//! ```text
//! cargo bench --bench matching
//! ```
//! 100,000 exact topics such as `tenant-17/rooms/4242/messages`, each with a view, and 1,000 patterns of
//! the kinds that are used: a room's everything, a tenant's everything, one kind of thing of a tenant,
//! one kind of thing of all. The topics of events come in an order that leaves no cache warm by chance.
//! The figure that is promised: below 1 us an event. Then the sets that cost the most.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strandline::stream::matching::TopicMatcher;
use strandline_storage::topic::TopicPattern;

const TENANTS: u32 = 100;
const ROOMS: u32 = 1_000;
const KINDS: [&str; 4] = ["messages", "presence", "typing", "receipts"];
/// A step through the topics that meets all of them and is far from any of the last ones.
const STRIDE: usize = 7_919;

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::parse(text).expect(text)
}

fn exact_topics() -> Vec<String> {
    let room = |number: u32| {
        let tenant = number % TENANTS;
        format!("tenant-{tenant}/rooms/{}/messages", number / TENANTS)
    };
    (0..TENANTS * ROOMS).map(room).collect()
}

fn patterns() -> Vec<String> {
    let one = |number: u32| {
        let (tenant, room) = (number % TENANTS, number * 17 % ROOMS);
        match number % 10 {
            0 => format!("tenant-{tenant}/**"),
            1..3 => format!("tenant-{tenant}/rooms/*/{}", KINDS[number as usize / 100 % 4]),
            _ => format!("tenant-{tenant}/rooms/{room}/**"),
        }
    };
    let mut all: Vec<String> = (0..998).map(one).collect();
    all.extend(["*/rooms/*/audit".to_owned(), "**".to_owned()]);
    all
}

fn matcher<'a>(patterns: impl IntoIterator<Item = &'a String>) -> TopicMatcher<u32> {
    let mut matcher = TopicMatcher::new();
    for (view, text) in (0..).zip(patterns) {
        matcher.insert(&pattern(text), view);
    }
    matcher
}

fn usual(criterion: &mut Criterion) {
    let (exact, patterns) = (exact_topics(), patterns());
    let mut group = criterion.benchmark_group("matching");
    group.throughput(Throughput::Elements(1));
    for (name, mut matcher, topics) in [
        ("100,000 exact", matcher(&exact), exact.clone()),
        ("1,000 patterns", matcher(&patterns), exact.clone()),
        ("100,000 exact, 1,000 patterns", matcher(exact.iter().chain(&patterns)), exact.clone()),
        (
            "100,000 exact, 1,000 patterns, topics of nobody",
            matcher(exact.iter().chain(&patterns[..999])),
            (0..100_000).map(|number| format!("devices/{number}/state")).collect(),
        ),
    ] {
        let (mut at, mut out) = (0, Vec::new());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at = (at + STRIDE) % topics.len();
                matcher.matches_distinct(black_box(&topics[at]), &mut out);
                black_box(out.len())
            });
        });
    }
    let mut matcher = matcher(exact.iter().chain(&patterns));
    let mut at = 0;
    group.bench_function("insert and remove", |bencher| {
        bencher.iter_batched(
            || {
                at = (at + STRIDE) % exact.len();
                pattern(&exact[at])
            },
            |pattern| {
                matcher.insert(&pattern, u32::MAX);
                assert!(matcher.remove(&pattern, u32::MAX));
            },
            BatchSize::SmallInput,
        );
    });
}

/// Every mix of `*` and the names of a topic, for its first levels: a trie that it visits whole.
fn mixes(levels: u32, rest: &str) -> Vec<String> {
    let mix = |bits: u32| {
        let level = |at: u32| {
            if bits & (1 << at) == 0 { "*".into() } else { format!("level-{at}") }
        };
        (0..levels).map(level).collect::<Vec<String>>().join("/") + rest
    };
    (0..1 << levels).map(mix).collect()
}

fn hostile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matching, hostile");
    let topic = (0..16).map(|at| format!("level-{at}")).collect::<Vec<_>>().join("/");
    let stars: Vec<String> = (1..=16).map(|levels| ["*"; 16][..levels].join("/")).collect();
    let open = |text: &String| format!("{text}/**");
    let ends: Vec<String> = (0..1_000).map(|number| format!("*/*/x{number}")).collect();
    for (name, patterns, topic) in [
        ("*/*/x, 1,000 of them, and **", [ends, vec!["**".into()]].concat(), "a/b/x500"),
        ("*/*/.. of every length, open", stars[..15].iter().map(open).collect(), &*topic),
        // What one connection could ask for: 256 subscriptions of 64 patterns.
        ("16,384 mixes that match", mixes(14, "/**"), &*topic),
        ("16,384 mixes that do not match", mixes(14, "/x/*"), &*topic),
        ("65,535 mixes that match", mixes(16, "")[..65_535].to_vec(), &*topic),
    ] {
        let mut matcher = matcher(&patterns);
        group.throughput(Throughput::Elements(matcher.visits_max() as u64));
        let mut out = Vec::new();
        // What follows it finds what the first walk found.
        group.bench_function(format!("{name}, again"), |bencher| {
            bencher.iter(|| {
                matcher.matches_distinct(black_box(topic), &mut out);
                black_box(out.len())
            });
        });
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                matcher.matches(black_box(topic), &mut out);
                black_box(out.len())
            });
        });
    }
}

criterion_group!(benches, usual, hostile);
criterion_main!(benches);
