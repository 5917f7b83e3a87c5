"""API §10: `/metrics`."""

import json
import re

import pytest

from harness import Server, wait_for
from wire import Sse

SAMPLE = re.compile(r'([a-z_][a-z0-9_]*)(\{[a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*\})? (\d+(?:\.\d+)?)')


def metrics(server):
    """Every sample by its name and labels, checked for form: HELP and TYPE first, each name once."""
    status, headers, body = server.request("GET", "/metrics")
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples, kinds, helped = {}, {}, set()
    assert body.endswith(b"\n")
    for line in body.decode().splitlines():
        if line.startswith("# HELP "):
            _, _, name, text = line.split(" ", 3)
            assert name not in helped and text.endswith(".")
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helped and name not in kinds and kind in ("counter", "gauge", "histogram")
            assert kind != "counter" or name.endswith("_total")
            kinds[name] = kind
        else:
            name, labels, value = SAMPLE.fullmatch(line).groups()
            family = re.sub("_(bucket|sum|count)$", "", name) if name not in kinds else name
            assert family in kinds and family.startswith("strandline_"), line
            assert name + (labels or "") not in samples
            samples[name + (labels or "")] = float(value)
    return samples


@pytest.fixture(params=["1", "2"], ids=["one-shard", "two-shards"])
def quiet(request):
    """A server of its own: requests of another test, whose client is gone, may be late."""
    with Server("--shards", request.param) as server:
        yield server


def test_what_is_counted(quiet, topic):
    """appends, commits and their time, disk, retention, compaction"""
    server = quiet
    before = metrics(server)
    for at in range(10):
        server.append(topic, str(at), Event_Id=f"{topic}-{at}")
    server.append(topic, "3", Event_Id=f"{topic}-3")
    assert server.request("POST", f"/api/v1/topics/{topic}/events", b"x", {"Expected-Offset": "0"})[0] == 412
    server.json("POST", "/api/v1/events", [{"topic": topic}] * 5)
    with Sse(server, {"topic": topic}) as stream:
        stream.established()
        after = metrics(server)
    grown = {name: value - before[name] for name, value in after.items()}
    assert grown["strandline_appends_total"] == 12 and grown["strandline_events_total"] == 16
    assert grown["strandline_duplicate_events_total"] == 1 and grown["strandline_refused_appends_total"] == 1
    assert grown["strandline_append_seconds_count"] == 12 and grown["strandline_append_seconds_sum"] > 0
    assert 2 <= grown["strandline_commit_write_seconds_count"] and grown["strandline_written_bytes_total"] >= 2 * 4096
    assert grown["strandline_requests_total"] == 15 and grown["strandline_streams_total"] == 1
    assert grown["strandline_log_visible_offset"] == 15 and after["strandline_log_durable_offset"] == after["strandline_log_visible_offset"]
    assert grown["strandline_log_ids"] == 10 and grown["strandline_log_topics"] == 1
    assert after["strandline_connections"] >= 2 and after["strandline_connections_max"] > 100
    assert after["strandline_disk_bytes"] > after["strandline_disk_free_bytes"] > 0
    assert after["strandline_disk_full"] == after["strandline_log_read_only"] == after["strandline_log_earliest_offset"] == 0
    for name in ("append", "commit_write", "commit_sync"):
        buckets = [value for sample, value in after.items() if sample.startswith(f"strandline_{name}_seconds_bucket")]
        assert len(buckets) == 17 and buckets == sorted(buckets) and buckets[-1] == after[f"strandline_{name}_seconds_count"]
    assert not [name for name, value in grown.items() if name.endswith("_total") and value < 0]


def test_metrics_for_a_head_and_with_other_methods(server):
    """HEAD gives the head alone; 405 carries `Allow`"""
    status, headers, body = server.request("HEAD", "/metrics")
    assert status == 200 and int(headers["Content-Length"]) > 0 and body == b""
    status, headers, _ = server.request("POST", "/metrics", b"")
    assert status == 405 and "GET" in headers["Allow"]


def test_many_ask_at_once(server):
    """however many ask, the disk is asked by one at a time"""
    one = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    raw = server.exchange((one * 300 + "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").encode(), wait_s=10)
    assert raw.count(b"HTTP/1.1 200") == 301
    assert json.loads(raw[raw.rindex(b"{\"status"):])["status"] == "ok"


def test_snapshots_are_counted():
    """a start reads what the newest snapshot of the state says, and the indexes behind it"""
    with Server("--segment-bytes", "1048576") as server:
        before = metrics(server)
        assert before["strandline_snapshots_total"] == before["strandline_snapshot_bytes"] == 0
        lines = f'{{"topic":"filler","data":"{"x" * 1000}"}}\n' * 1000
        for _ in range(9):
            assert server.request("POST", "/api/v1/events", lines, {"Content-Type": "application/x-ndjson"})[0] == 201
        wait_for(lambda: metrics(server)["strandline_snapshots_total"] > 0, 30, every_s=0.1)
        after = metrics(server)
        assert after["strandline_snapshot_bytes"] > 0 and after["strandline_snapshot_segments_behind"] < 8


def test_what_is_done_in_the_background_is_counted():
    """`GET /metrics` in a first form: retention, compaction, scrub"""
    names = [f"strandline_{name}_total" for name in ("compacted_segments", "retired_segments", "scrubbed_bytes", "scrub_passes")]
    with Server("--segment-bytes", "1048576", "--compress-after", "0", "--scrub-interval", "1") as server:
        assert all(metrics(server)[name] == 0 for name in names[:2])
        lines = f'{{"topic":"filler","data":"{"x" * 1000}"}}\n' * 1000
        for _ in range(5):
            assert server.request("POST", "/api/v1/events", lines, {"Content-Type": "application/x-ndjson"})[0] == 201

        def wait_until(is_so):
            def told():
                return {name: value for name, value in metrics(server).items() if name in names}

            wait_for(lambda: is_so(metrics(server)), 60, every_s=0.1, told=told)

        wait_until(lambda now: now[names[0]] >= 3 and now[names[2]] > 0 and now[names[3]] > 0)
        assert server.json("PUT", "/api/v1/logs/main", {"retain": {"count": 1}})[0] == 200
        wait_until(lambda now: now[names[1]] >= 3 and now["strandline_log_earliest_offset"] >= 4999)
