//! `/metrics`: what the server has counted, and how its log stands.

use std::rc::Rc;

use crate::{
    http::response::{Answer, AnswerTo},
    log_calls::LogStats,
    log_handle::LogHandle,
    metrics::text::{CONTENT_TYPE, MetricsText},
    shard::Shard,
};

/// The whole answer.
pub(crate) async fn answer(shard: Rc<Shard>, to: AnswerTo) -> Vec<u8> {
    let mut text = MetricsText::default();
    push_server(&mut text, &shard);
    push_log_counters(&mut text, shard.log());
    // Without an owner there is nothing to ask: the server is ending.
    if let Some(stats) = shard.log().stats().await {
        push_log(&mut text, &stats);
    }
    let mut out = Vec::new();
    Answer::start(200, &to, &mut out).body(CONTENT_TYPE, text.finish().as_bytes());
    out
}

fn push_server(text: &mut MetricsText, shard: &Shard) {
    let (metrics, limit) = (shard.counts().all(), shard.connections().limit());
    let log = shard.log();
    text.info(
        "strandline_info",
        "What runs.",
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("sync", &log.sync().to_string()),
            ("write", &log.write_mode().to_string()),
        ],
    );
    let requests = metrics.sum(|shard| &shard.requests);
    text.counter("strandline_requests_total", "HTTP requests whose head was understood.", requests);
    text.counter(
        "strandline_reported_gaps_total",
        "Damaged parts of the log that readers passed over and the server's log names, up to 1,024.",
        shard.live().gaps().count() as u64,
    );
    let streams = metrics.sum(|shard| &shard.streams);
    text.counter("strandline_streams_total", "Event streams and WebSockets begun.", streams);
    text.gauge("strandline_connections", "Connections that are open.", limit.taken() as u64);
    text.gauge(
        "strandline_connections_max",
        "Connections for which there is room.",
        limit.max() as u64,
    );
}

fn push_log_counters(text: &mut MetricsText, log: &LogHandle) {
    let metrics = log.metrics();
    for (name, help, counter) in [
        (
            "strandline_appends_total",
            "Appends that were acknowledged, settings, deletions and trims among them.",
            &metrics.appends,
        ),
        (
            "strandline_events_total",
            "Events of acknowledged appends, one for each setting, deletion and trim.",
            &metrics.events,
        ),
        (
            "strandline_duplicate_events_total",
            "Those of them that were there already, by id or producer.",
            &metrics.duplicates,
        ),
        ("strandline_refused_appends_total", "Appends that the log refused.", &metrics.refused),
        ("strandline_written_bytes_total", "Bytes of frames written.", &metrics.written_bytes),
        (
            "strandline_failed_jobs_total",
            "Failures to prepare, index, rewrite or remove a segment; each is tried again.",
            &metrics.failed_jobs,
        ),
    ] {
        text.counter(name, help, counter.get());
    }
    for (name, help, histogram) in [
        (
            "strandline_append_seconds",
            "From an append to its acknowledgement, as the log's owner sees it.",
            &metrics.append_time,
        ),
        (
            "strandline_commit_write_seconds",
            "One write of a frame; with write=direct this is the commit.",
            &metrics.write_time,
        ),
        ("strandline_commit_sync_seconds", "One sync of a segment.", &metrics.sync_time),
    ] {
        text.histogram(name, help, histogram);
    }
    let is_poisoned = u64::from(log.poisoned().is_some());
    text.gauge("strandline_log_read_only", "1 after a failed write, until a restart.", is_poisoned);
    let is_full = u64::from(log.is_disk_full());
    text.gauge("strandline_disk_full", "1 while appends are refused for want of space.", is_full);
}

fn push_log(text: &mut MetricsText, stats: &LogStats) {
    for (name, help, value) in [
        ("strandline_log_earliest_offset", "The first offset that is kept.", stats.earliest),
        (
            "strandline_log_visible_offset",
            "The first offset that readers do not see.",
            stats.visible,
        ),
        (
            "strandline_log_durable_offset",
            "The first that may not be on the device.",
            stats.durable,
        ),
        ("strandline_log_staged_bytes", "Bytes that wait for the disk.", stats.staged_bytes),
        ("strandline_log_segments", "Sealed segments.", stats.segments),
        ("strandline_log_segment_bytes", "The length of their files.", stats.segment_bytes),
        ("strandline_log_damaged_segments", "Those known to be damaged.", stats.damaged_segments),
        (
            "strandline_log_topics",
            "Topics that have events, as far as they were counted.",
            stats.topics,
        ),
        ("strandline_log_ids", "Ids of events that are remembered.", stats.ids),
        ("strandline_log_producers", "Producers that are remembered.", stats.producers),
        (
            "strandline_snapshot_bytes",
            "The length of the newest snapshot of the log's state; 0 before the first.",
            stats.snapshots.bytes,
        ),
        (
            "strandline_snapshot_segments_behind",
            "Segments sealed since it was made, whose indexes a start reads as well.",
            stats.snapshots.segments_behind,
        ),
    ] {
        text.gauge(name, help, value);
    }
    for (name, help, value) in [
        (
            "strandline_compacted_segments_total",
            "Segments that compaction has rewritten or removed since the start.",
            stats.compaction.segments,
        ),
        (
            "strandline_compaction_read_bytes_total",
            "The length of their files before.",
            stats.compaction.bytes_before,
        ),
        (
            "strandline_compaction_written_bytes_total",
            "The length of their files after.",
            stats.compaction.bytes_after,
        ),
        (
            "strandline_retired_segments_total",
            "Segments removed whole since the start, by limits of the log or by compaction.",
            stats.retired_segments,
        ),
        (
            "strandline_scrubbed_bytes_total",
            "Bytes of sealed segments read again since the start.",
            stats.scrub.bytes,
        ),
        ("strandline_scrub_passes_total", "How often all of them have been.", stats.scrub.passes),
        (
            "strandline_snapshots_total",
            "Snapshots of the log's state made since the start.",
            stats.snapshots.made,
        ),
    ] {
        text.counter(name, help, value);
    }
    if let Some(disk) = stats.disk {
        text.gauge("strandline_disk_bytes", "The size of the log's disk.", disk.total_bytes);
        text.gauge("strandline_disk_free_bytes", "What of it is left to us.", disk.free_bytes);
    }
}
