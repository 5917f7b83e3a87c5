//! Histories, by pages and by lines.

use std::net::SocketAddr;

use crate::client::{SILENT, Sse, get_pages, request};
use crate::fill;
use crate::running::Running;

/// The events of all pages.
fn pages(address: SocketAddr, target: &str) -> Vec<serde_json::Value> {
    let pages = get_pages(address, target);
    pages.iter().flat_map(|page| page["events"].as_array().expect("events")).cloned().collect()
}

/// API §7: pages, lines and streams show the same events, in either order.
#[test]
fn history_by_pages_by_lines_and_by_stream_is_the_same() {
    let running = Running::start("history", 2);
    let address = running.address();
    let count = fill(address, 8000);
    for pattern in ["topic=**", "topic=race/a", "topic=race/*", "topic=other&topic=race/c/*"] {
        let path = format!("/api/v1/events/history?{pattern}");
        let ascending = pages(address, &format!("{path}&limit=777"));
        let mut descending = pages(address, &format!("{path}&limit=999&order=desc"));
        descending.reverse();
        assert_eq!(ascending.len(), descending.len(), "{pattern}");
        assert_eq!(ascending, descending, "{pattern}");
        for (order, wanted) in [("asc", &ascending), ("desc", &descending)] {
            let head = format!("GET {path}&order={order} HTTP/1.1\r\nAccept: application/x-ndjson");
            let (status, _, body) = request(address, &head, b"");
            assert_eq!(status, 200);
            let mut lines: Vec<serde_json::Value> = String::from_utf8(body)
                .expect("UTF-8")
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect();
            if order == "desc" {
                lines.reverse();
            }
            assert_eq!(&lines, wanted, "{pattern} {order}");
        }
        let mut sse =
            Sse::open(address, &format!("{pattern}&from=earliest&format=event&{SILENT}"), "");
        sse.established();
        for event in &ascending {
            assert_eq!(&sse.next().expect("it goes on").json(), event);
        }
        let mut last =
            Sse::open(address, &format!("{pattern}&from=-1234&format=event&{SILENT}"), "");
        last.established();
        for event in &ascending[ascending.len().saturating_sub(1234)..] {
            assert_eq!(&last.next().expect("it goes on").json(), event);
        }
    }
    assert_eq!(pages(address, "/api/v1/events/history?limit=10000").len() as u64, count);
}

/// API §7: "`offset` skips that many matching events", over as many pages as it takes.
#[test]
fn skipping_goes_on_with_the_next_page() {
    let running = Running::start("skip", 1);
    let address = running.address();
    fill(address, 2000);
    let all = pages(address, "/api/v1/events/history?topic=race/b");
    for order in ["asc", "desc"] {
        let target =
            format!("/api/v1/events/history?topic=race/b&offset=123&limit=10&order={order}");
        let mut wanted = all.clone();
        if order == "desc" {
            wanted.reverse();
        }
        assert_eq!(pages(address, &target), wanted[123..]);
    }
}
