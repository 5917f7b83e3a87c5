//! A log of which a part is rotten: that is named, and all else is served.

use std::io::Read;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use serde_json::json;
use strandline::clock;
use strandline_storage::io::real::RealDisk;
use strandline_storage::repair::repair;

use crate::client::{self, Sse, WebSocket, append_lines, ask, get_json, get_pages, read_to_end};
use crate::fill;
use crate::patience::Patience;
use crate::running::Running;

/// The offsets that a history's pages have, from the first to the last, and the gaps that they name.
fn offsets_and_gaps(address: SocketAddr, target: &str) -> (Vec<u64>, Vec<serde_json::Value>) {
    let pages = get_pages(address, target);
    let events = pages.iter().flat_map(|page| page["events"].as_array().expect("events"));
    let offsets = events.map(|event| event["offset"].as_u64().expect("an offset"));
    let mut offsets: Vec<u64> = offsets.collect();
    offsets.sort_unstable();
    (offsets, pages.iter().filter_map(|page| page.get("gap").cloned()).collect())
}

/// API §4: "in mid-stream `event: connection.reset` .. `gap` (corruption)"; §5: `reset`; §7: "the JSON page
/// ends before it and carries `gap`", "a failure cuts it without a proper end".
#[test]
fn a_rotten_part_is_named_and_passed_over_and_never_served() {
    let running = Running::start("gap", 1);
    let count = fill(running.address(), 8000);
    let running = running.restart("gap-copy", |dir| {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(dir.join("default/main"))
            .expect("a log")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        let mut bytes = std::fs::read(&logs[1]).expect("a segment");
        let middle = bytes.len() / 2;
        let rotten = middle + bytes[middle..].iter().position(|byte| *byte == b'y').expect("data");
        bytes[rotten] ^= 1;
        std::fs::write(&logs[1], bytes).expect("a segment");
    });
    let address = running.address();

    let mut sse = Sse::open(address, "topic=**&from=earliest&format=event", "");
    sse.established();
    let (mut before, mut behind, mut gap) = (Vec::new(), Vec::new(), None);
    while before.len() + behind.len() < 10_000 {
        let event = sse.next().expect("it goes on");
        if event.event.as_deref() == Some("connection.reset") {
            assert_eq!((event.json()["reason"].as_str(), &gap), (Some("gap"), &None));
            let from = event.json()["from"].as_u64().expect("an offset");
            assert_eq!(event.offset() + 1, from);
            gap = Some(from);
            continue;
        }
        let offset = event.offset();
        if gap.is_some() {
            behind.push(offset)
        } else {
            before.push(offset)
        }
        if offset + 1 == count {
            break;
        }
    }
    let from = u64::try_from(before.len()).expect("a small log");
    let to = gap.expect("there is a gap");
    assert!(to > from, "{from}..{to}");
    assert_eq!(before, (0..from).collect::<Vec<_>>());
    assert_eq!(behind, (to..count).collect::<Vec<_>>());

    let mut socket = WebSocket::open(address, "topic=**&from=earliest");
    let reset = socket.json_of("reset");
    assert_eq!((&reset["reason"], &reset["from"]), (&json!("gap"), &json!(to)));
    assert_eq!(socket.json_of("event")["offset"], to);

    for order in ["asc", "desc"] {
        let target = format!("/api/v1/events/history?limit=5000&order={order}");
        let (offsets, gaps) = offsets_and_gaps(address, &target);
        assert_eq!(gaps, [json!({"from": from, "to": to})], "{order}");
        assert_eq!(offsets, before.iter().chain(&behind).copied().collect::<Vec<_>>());
    }

    let mut stream = ask(address, "/api/v1/events/history", "application/x-ndjson");
    let answer = read_to_end(&mut stream).expect("it ends");
    assert!(!answer.ends_with(b"0\r\n\r\n"), "cut without a proper end");
    let answer = String::from_utf8(answer).expect("text");
    let offsets = answer.lines().filter_map(|line| line.strip_prefix("{\"offset\":"));
    let offsets: Vec<u64> = offsets
        .map(|rest| rest.split(',').next().unwrap_or_default().parse().expect("an offset"))
        .collect();
    assert_eq!(offsets, before, "all that stands before it leaves");
}

/// The same in a segment that still grows: what stands before the damage is served before it is named.
#[test]
fn a_rotten_part_of_the_live_segment_hides_nothing_else() {
    let running =
        Running::start_with("gap-live", 1, |config| config.log.recent_frames_bytes_max = 1);
    let address = running.address();
    let path = running.dir.join("default/main/00000000000000000000.1.log");
    // The server writes past the page cache: what this keeps of the last read there may be older.
    let read = || {
        let mut file = std::fs::File::open(&path).expect("the segment");
        fadvise(&file, 0, None, Advice::DontNeed).expect("the kernel takes advice");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("the segment");
        bytes
    };
    for appends in 1..=3 {
        append_lines(address, "a", "\"yyyy\"\n");
        // An empty frame records that it is synced, and so the frames are read one by one: behind the header two blocks
        // of each append.
        let patience = Patience::new(client::PATIENCE);
        let is_written = |block: &&[u8]| block.iter().any(|byte| *byte != 0);
        while read().chunks(4096).filter(is_written).count() < 1 + 2 * appends {
            assert!(!patience.is_over(), "{appends} appends");
            thread::sleep(Duration::from_millis(10));
        }
    }
    let bytes = read();
    let data: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"yyyy")).collect();
    assert_eq!(data.len(), 3);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the segment");
    std::os::unix::fs::FileExt::write_all_at(&file, b"n", data[1] as u64).expect("written");

    for order in ["asc", "desc"] {
        let target = format!("/api/v1/events/history?order={order}");
        let (offsets, gaps) = offsets_and_gaps(address, &target);
        assert_eq!((offsets, gaps), (vec![0, 2], vec![json!({"from": 1, "to": 2})]), "{order}");
    }
    let mut sse = Sse::open(address, "topic=**&from=earliest", "");
    sse.established();
    assert_eq!(sse.next().expect("what stands before").offset(), 0);
    assert_eq!(sse.next().expect("the gap").event.as_deref(), Some("connection.reset"));
    assert_eq!(sse.next().expect("what stands behind").offset(), 2);
}

/// Appends an event that has another time than the one before it; returns its offset and its time.
fn append_later(address: SocketAddr, before: &str) -> (u64, String) {
    loop {
        let offset = append_lines(address, "a", "1\n");
        let time = time_of(address, offset);
        if time != before {
            return (offset, time);
        }
    }
}

fn time_of(address: SocketAddr, offset: u64) -> String {
    let page = get_json(address, &format!("/api/v1/events/history?from={offset}&limit=1"));
    assert_eq!(page["events"][0]["offset"], offset);
    page["events"][0]["time"].as_str().expect("a time").to_owned()
}

/// A repair has left gaps, and nobody knows when it was that what is lost was appended: it is as old as what comes behind it,
/// for who reads from then on and for who reads up to then; and no younger than what is not sealed yet.
#[test]
fn who_reads_from_a_time_on_or_up_to_one_is_told_of_what_was_lost_at_any() {
    let running = Running::start("timeless", 1);
    let count = fill(running.address(), 12_000);
    let running = running.restart("timeless-copy", |dir| {
        let log = dir.join("default/main");
        let mut files: Vec<PathBuf> = std::fs::read_dir(&log)
            .expect("a log")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        files.sort();
        assert!(files.len() > 4, "{files:?}");
        for file in [&files[1], &files[2], files.last().expect("there are some")] {
            std::fs::remove_file(file).expect("a segment");
            let _ = std::fs::remove_file(file.with_extension("idx"));
        }
        let repaired = repair(&RealDisk, &log, clock::now()).expect("not in use");
        assert_eq!(repaired.expect("it is repaired").plan.beyond, []);
    });
    let address = running.address();
    let history = |what: &str| {
        offsets_and_gaps(address, &format!("/api/v1/events/history?limit=10000{what}"))
    };
    let (all, gaps) = history("");
    let [middle, end] = &gaps[..] else { panic!("{gaps:?}") };
    let [from, to] = ["from", "to"].map(|side| middle[side].as_u64().expect("an offset"));
    let end_from = end["from"].as_u64().expect("an offset");
    assert_eq!(end["to"], count);
    let kept = |range: Range<u64>| {
        all.iter().copied().filter(|offset| range.contains(offset)).collect::<Vec<_>>()
    };

    let behind = time_of(address, to);
    let since_behind = (kept(to..count), gaps.clone());
    assert_eq!(history(&format!("&since={behind}")), since_behind);
    assert_eq!(history(&format!("&until={behind}")), (kept(0..from), vec![middle.clone()]));

    // Nothing that is sealed comes behind the last of them.
    let before = time_of(address, *kept(0..end_from).last().expect("there are some"));
    let (first, first_time) = append_later(address, &before);
    assert_eq!(first, count);
    let (second, second_time) = append_later(address, &first_time);
    let (offsets, told) = history(&format!("&since={first_time}"));
    assert_eq!((offsets[0], told), (first, vec![end.clone()]));
    assert_eq!(history(&format!("&until={first_time}")), (kept(0..end_from), gaps.clone()));
    assert_eq!(history(&format!("&since={second_time}")), (vec![second], vec![]));
    let (offsets, told) = history(&format!("&until={second_time}"));
    assert_eq!((offsets.last().copied(), told), (Some(second - 1), gaps));
}
