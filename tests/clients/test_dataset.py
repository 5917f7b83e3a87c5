"""The Debian package index, appended whole and read back whole by every client: equal bytes, in order.

`STRANDLINE_RECORDS=n` takes only the first n records.
"""

import hashlib
import json
import os
import urllib.parse

import httpx
import pytest

from dataset import compact, load
from harness import HANGS_S, Server
from readers import CLIENTS, ReaderProcess

# What a page of history may hold at most (API §7).
PAGE_EVENTS = 10_000


def digest(datas) -> str:
    """A hash over data texts in order."""
    whole = hashlib.sha256()
    for data in datas:
        whole.update(data.encode() + b"\n")
    return whole.hexdigest()


@pytest.fixture(scope="module")
def index():
    return load(int(os.environ.get("STRANDLINE_RECORDS", "0")) or None)


@pytest.fixture(scope="module")
def server(index):
    with Server() as server:
        body = "".join(f'{{"topic":{compact(topic)},"data":{data}}}\n' for topic, data in index).encode()
        parts = (body[at:at + 100_000] for at in range(0, len(body), 100_000))
        answer = httpx.post(f"{server.base}/api/v1/events", content=parts, timeout=HANGS_S,
                            headers={"Content-Type": "application/x-ndjson"})
        assert answer.status_code == 201, answer.text
        assert answer.json()["count"] == len(index)
        assert answer.json()["offset"] == 0 and answer.json()["last"] == len(index) - 1
        yield server


@pytest.fixture(scope="module")
def one_topic(index):
    """The topic with the most records, so that a single topic has several."""
    counts = {}
    for topic, _ in index:
        counts[topic] = counts.get(topic, 0) + 1
    return max(counts, key=counts.get)


def expected(index, pattern: str):
    """(offset, data) of the records that a pattern matches."""
    if pattern == "**":
        return list(enumerate(data for _, data in index))
    if pattern.endswith("/*"):
        prefix = pattern[:-1]
        return [(at, data) for at, (topic, data) in enumerate(index)
                if topic.startswith(prefix) and "/" not in topic[len(prefix):]]
    return [(at, data) for at, (topic, data) in enumerate(index) if topic == pattern]


def check(index, pattern, got):
    want = expected(index, pattern)
    assert [offset for offset, _ in got] == [offset for offset, _ in want]
    assert digest(data for _, data in got) == digest(data for _, data in want)


@pytest.mark.parametrize("client", CLIENTS)
def test_whole_index(server, index, tmp_path, client):
    reader = ReaderProcess(client, server.base, tmp_path / "out", count=len(index))
    check(index, "**", reader.wait(180))


@pytest.mark.parametrize("client", CLIENTS)
def test_one_section_by_pattern(server, index, tmp_path, client):
    pattern = "packages/python/*"
    reader = ReaderProcess(client, server.base, tmp_path / "out", pattern, len(expected(index, pattern)))
    check(index, pattern, reader.wait(90))


@pytest.mark.parametrize("client", CLIENTS)
def test_one_topic(server, index, one_topic, tmp_path, client):
    reader = ReaderProcess(client, server.base, tmp_path / "out", one_topic, len(expected(index, one_topic)))
    check(index, one_topic, reader.wait(60))


@pytest.mark.parametrize("pattern", ["**", "packages/python/*", None])
def test_history_by_pages(server, index, one_topic, pattern):
    pattern = pattern or one_topic
    got, path = [], f"/api/v1/events/history?limit={PAGE_EVENTS}&topic={urllib.parse.quote(pattern)}"
    while path:
        status, page = server.json("GET", path)
        assert status == 200, page
        got += [(event["offset"], compact(event["data"])) for event in page["events"]]
        path = page.get("next")
    check(index, pattern, got)


@pytest.mark.parametrize("pattern", ["**", "packages/python/*", None])
def test_history_as_ndjson(server, index, one_topic, pattern):
    pattern = pattern or one_topic
    with httpx.stream("GET", f"{server.base}/api/v1/events/history", params={"topic": pattern},
                      headers={"Accept": "application/x-ndjson"}, timeout=HANGS_S) as answer:
        got = [(event["offset"], compact(event["data"])) for event in map(json.loads, answer.iter_lines())]
    check(index, pattern, got)
