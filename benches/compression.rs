//! What compressing shared chunks costs and saves: one event a chunk (low rate), 16 KiB (high rate), 32 and
//! 128 KiB (history and catching up), gzip and zstd.
//!
//! ```sh
//! apt-cache dumpavail | python3 tests/clients/dataset.py > target/packages.ndjson
//! cargo bench --bench compression
//! ```
//! Of the records of the Debian package index, and of trades of 240 bytes, as an event stream carries them;
//! and as WebSocket messages, of which `permessage-deflate` would compress each alone.
//! `STRANDLINE_PACKAGES` names another file. It prints a table; the time is the best of three rounds.

use std::fs;
use std::hint::black_box;
use std::time::Instant;

use strandline::stream::compression::{Compressor, Encoding};

fn main() {
    let path = std::env::var("STRANDLINE_PACKAGES")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/target/packages.ndjson").into());
    let Ok(packages) = fs::read_to_string(&path) else {
        println!("{path} is not there: the head of this file says how to make it");
        return;
    };
    println!("| events | chunks of | coding | ratio | µs an event | µs a chunk |");
    println!("|---|---|---|---|---|---|");
    let (packages, trades) = (package_data(&packages), trades());
    for (name, kind, data) in
        [("package index", "message", &packages), ("trades", "trade", &trades)]
    {
        let texts: Vec<_> =
            data.iter().enumerate().map(|(at, data)| event_text(at, kind, data)).collect();
        for (label, target_bytes) in
            [("one event", 1), ("16 KiB", 16 << 10), ("32 KiB", 32 << 10), ("128 KiB", 128 << 10)]
        {
            let chunks = chunks(&texts, target_bytes);
            measure(name, label, Encoding::Gzip, &chunks);
            measure(name, label, Encoding::Zstd, &chunks);
        }
        let messages: Vec<_> =
            data.iter().enumerate().map(|(at, data)| (message_text(at, kind, data), 1)).collect();
        measure(name, "one WebSocket message", Encoding::Gzip, &messages);
    }
}

/// The data of `{"topic":..,"data":..}` lines.
fn package_data(lines: &str) -> Vec<String> {
    let data = |line: &str| {
        let (_, data) = line.split_once(",\"data\":").expect("a line of the data set");
        data.strip_suffix('}').expect("an object").to_owned()
    };
    lines.lines().map(data).collect()
}

fn trades() -> Vec<String> {
    let mut noise = 1u64;
    let event = |at: u64| {
        noise =
            noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (price, size, maker) = (noise >> 50, (noise >> 20) % 1000, (noise >> 10) % 9999);
        format!(
            "{{\"symbol\":\"ACME\",\"price\":{}.{:02},\"size\":{size},\"side\":\"buy\",\"venue\":\"XNAS\",\
             \"order_id\":\"{noise:016x}\",\"maker\":\"account-{maker}\",\"ts\":{},\"flags\":[\"iso\"]}}",
            price / 100,
            price % 100,
            1_763_700_000_000 + at * 7,
        )
    };
    (0..60_000).map(event).collect()
}

fn event_text(at: usize, kind: &str, data: &str) -> String {
    let kind = if kind == "message" { String::new() } else { format!("event: {kind}\n") };
    format!("id: {at}.k3f9q\n{kind}data: {data}\n\n")
}

fn message_text(at: usize, kind: &str, data: &str) -> Vec<u8> {
    format!(
        "{{\"type\":\"event\",\"subscription\":1,\"event\":\"{kind}\",\"offset\":{at},\
         \"time\":\"2026-11-21T10:00:00.000Z\",\"topic\":\"market/acme/trades\",\
         \"content_type\":\"application/json\",\"data\":{data}}}"
    )
    .into_bytes()
}

fn measure(name: &str, label: &str, encoding: Encoding, chunks: &[(Vec<u8>, usize)]) {
    let best = (0..3).map(|_| round(encoding, chunks)).min_by(|a, b| a.us.total_cmp(&b.us));
    let Round { us, events, chunks, plain_bytes, sent_bytes } = best.expect("three rounds");
    println!(
        "| {name} | {label} | {} | {:.2} | {:.2} | {:.1} |",
        encoding.content_coding().expect("it has a name"),
        plain_bytes as f64 / sent_bytes as f64,
        us / events as f64,
        us / chunks as f64,
    );
}

/// Runs of events that reach `target_bytes`, each with the number of its events.
fn chunks(events: &[String], target_bytes: usize) -> Vec<(Vec<u8>, usize)> {
    let mut chunks = vec![(Vec::new(), 0)];
    for event in events {
        if chunks.last().is_some_and(|(bytes, _)| bytes.len() >= target_bytes) {
            chunks.push((Vec::new(), 0));
        }
        let (bytes, count) = chunks.last_mut().expect("there is one");
        bytes.extend_from_slice(event.as_bytes());
        *count += 1;
    }
    chunks
}

struct Round {
    us: f64,
    events: usize,
    chunks: usize,
    plain_bytes: usize,
    sent_bytes: usize,
}

fn round(encoding: Encoding, all: &[(Vec<u8>, usize)]) -> Round {
    let mut compressor = Compressor::new(encoding);
    let mut out = Vec::new();
    let (mut events, mut chunks, mut plain_bytes, mut sent_bytes) = (0, 0, 0, 0);
    let begun = Instant::now();
    for (plain, count) in all {
        out.clear();
        compressor.compress(black_box(plain), &mut out);
        events += count;
        chunks += 1;
        plain_bytes += plain.len();
        sent_bytes += black_box(&out).len();
    }
    Round { us: begun.elapsed().as_secs_f64() * 1e6, events, chunks, plain_bytes, sent_bytes }
}
