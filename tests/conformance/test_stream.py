"""API §4: Server-Sent Events."""

import contextlib
import datetime
import http.client
import os
import threading
import time

import pytest

from harness import Patience, Server, wait_for
from wire import PATH, Sse, problem


def fill(server, topic, count, start=0):
    """Appends `count` numbered events; returns their offsets."""
    return [server.append(topic, str(at)) for at in range(start, start + count)]


def test_head_and_first_block(server, topic):
    """the head leaves at once (`text/event-stream`, `Cache-Control: no-store, no-transform`, `X-Accel-Buffering: no`), then retry, id, connection.established"""
    with Sse(server, {"topic": topic}) as stream:
        assert stream.status == 200 and stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store, no-transform" and stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["transfer-encoding"] == "chunked"
        hello = stream.established()
        assert set(hello) - {"id", "retry"} >= {"connectionId", "state", "from", "earliest", "durable", "tag"}
        assert hello["state"] == "live" and 1000 <= int(hello["retry"]) <= 3000
        assert hello["id"] == f"{hello['from'] - 1}.{hello['tag']}"
        offset = server.append(topic, "one\ntwo\r\nthree")
        event = stream.next()
        assert event == {"id": f"{offset}.{hello['tag']}", "data": "one\ntwo\nthree"}


def test_each_connection_has_its_own_retry(server):
    """retry: each connection its own, 1000 to 3000"""
    values = set()
    for _ in range(12):
        with Sse(server, None) as stream:
            values.add(stream.established()["retry"])
    assert len(values) > 3


def test_types(server, topic):
    """`event:` left out when it is `message`; `type`: only these event types; may be repeated"""
    server.append(topic, "a")
    server.append(topic, "b", Event_Type="trade")
    server.append(topic, "c", Event_Type="quote")
    with Sse(server, {"topic": topic, "from": "earliest"}) as stream:
        stream.established()
        assert [event.get("event") for event in stream.take(3)] == [None, "trade", "quote"]
    with Sse(server, [("topic", topic), ("from", "earliest"), ("type", "trade"), ("type", "message")]) as stream:
        stream.established()
        assert [event["data"] for event in stream.take(2)] == ["a", "b"]
        server.append(topic, "d", Event_Type="quote")
        server.append(topic, "e", Event_Type="trade")
        assert stream.next()["data"] == "e"


def test_data_forms(server, topic):
    """lines become `data:` lines; empty data is one empty `data:` line; binary is padded base64"""
    server.append(topic, b"")
    server.append(topic, b"\xff")
    server.append(topic, b"a\rb\r\nc\n")
    server.append(topic, b'{"a": [1,\n2]}')
    with Sse(server, {"topic": topic, "from": "earliest"}) as stream:
        stream.established()
        assert stream.block()[1:] == ["data: "] or stream.raw.endswith(b"data:\n\n")
        assert stream.block()[-1] == "data: /w=="
        assert stream.block()[-4:] == ["data: a", "data: b", "data: c", "data: "] or stream.raw.endswith(b"data: c\ndata:\n\n")
        assert stream.block()[-2:] == ['data: {"a": [1,', "data: 2]}"]


def test_format_event(server, topic):
    """format=event: the object of §3"""
    offset = server.append(topic, b'{"a":\r\n1}', Event_Key="k", Event_Type="trade")
    with Sse(server, {"topic": topic, "from": "earliest", "format": "event"}) as stream:
        stream.established()
        event = stream.next()
        value = event.json
        assert event["event"] == "trade" and "\n" not in event["data"]
        assert value["offset"] == offset and value["topic"] == topic and value["type"] == "trade" and value["key"] == "k"
        assert value["data"] == {"a": 1} and value["content_type"] == "application/json" and "id" not in value and "headers" not in value


@pytest.mark.parametrize("start,expected", [
    ("earliest", [0, 1, 2, 3, 4]), ("latest", []), ("-2", [3, 4]), ("-100", [0, 1, 2, 3, 4]),
])
def test_from(server, topic, start, expected):
    """from: `earliest`, `latest`, or `-N` (the last N matching)"""
    fill(server, topic, 5)
    server.append(topic + "/other", "other")
    with Sse(server, {"topic": topic, "from": start}) as stream:
        hello = stream.established()
        assert hello["state"] == "live"
        server.append(topic, "live")
        assert [event["data"] for event in stream.take(len(expected) + 1)] == [str(at) for at in expected] + ["live"]


def test_from_offset(server, topic):
    """an offset (the first wanted); `from=<offset>` counts as the cursor before it, but beyond the end it waits"""
    offsets = fill(server, topic, 3)
    with Sse(server, {"topic": topic, "from": offsets[1]}) as stream:
        assert stream.established()["state"] == "resumed"
        assert [event["data"] for event in stream.take(2)] == ["1", "2"]
    with Sse(server, {"topic": topic, "from": offsets[2] + 3}) as stream:
        stream.established()
        fill(server, topic, 5, start=3)
        assert stream.next()["id"].split(".")[0] == str(offsets[2] + 3)


def test_who_waits_beyond_the_end_has_no_cursor_yet(fresh):
    """beyond the end it waits; `id:` stands only where a client that resumes from it misses nothing"""
    fill(fresh, "a", 5)
    query = {"topic": "a", "from": 100, "ping": "true", "heartbeat": 1}
    with Sse(fresh, query) as stream:
        hello = stream.established()
        assert hello["state"] == "resumed" and hello["from"] == 100 and hello["id"] is None
        ping = stream.next()
        assert ping["event"] == "ping" and "id" not in ping and "offset" not in ping.json and ping.json["timestamp"]
        # What comes before is not wanted, and is no reason for a cursor.
        fill(fresh, "a", 5, start=5)
        ping = stream.next()
        assert ping["event"] == "ping" and "id" not in ping
        fill(fresh, "a", 90, start=10)
        patience = Patience(10)
        while "id" not in (event := stream.next()):
            assert event["event"] == "ping" and not patience.is_over()
        assert event["id"] == f"99.{hello['tag']}" and event.json["offset"] == 99
        fill(fresh, "a", 2, start=100)
        cursor = event["id"]
        assert [event["data"] for event in stream.take_but_pings(2, cursor)] == ["100", "101"]
    with Sse(fresh, query, {"Last-Event-ID": cursor}) as stream:
        assert stream.established()["state"] == "resumed" and stream.take_but_pings(1, cursor)[0]["data"] == "100"


def test_an_event_source_that_waits_beyond_the_end_comes_back_and_waits(fresh):
    """a client that keeps what it was told, as an EventSource does, is not sent everything when it reconnects"""
    fill(fresh, "a", 5)
    last, got = None, []
    for _ in range(3):
        with Sse(fresh, {"topic": "a", "from": 8, "heartbeat": 1, "ping": "true"}, {"Last-Event-ID": last} if last else {}) as stream:
            hello = stream.established()
            assert hello["state"] == "resumed" and hello["from"] == 8
            last = hello["id"] or last
            last = stream.next().get("id", last)
    with Sse(fresh, {"topic": "a", "from": 8}, {"Last-Event-ID": last} if last else {}) as stream:
        stream.established()
        fill(fresh, "a", 5, start=5)
        got = [event["data"] for event in stream.take(2)]
    assert got == ["8", "9"]


def test_from_time(server, topic):
    """an RFC 3339 time; a space in a time counts as `+`"""
    fill(server, topic, 2)
    time.sleep(0.05)
    now = datetime.datetime.now(datetime.timezone.utc)
    time.sleep(0.05)
    fill(server, topic, 2, start=2)
    for text in (now.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z", now.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+00:00",
                 now.astimezone(datetime.timezone(datetime.timedelta(hours=2))).isoformat(timespec="milliseconds")):
        with Sse(server, f"topic={topic}&from={text}") as stream:
            stream.established()
            assert [event["data"] for event in stream.take(2)] == ["2", "3"]


@pytest.mark.parametrize("start", ["x", "1.5", "18446744073709551616", "-10001", "-0x1", "--1", "2026-13-01T00:00:00Z", "2026-01-01", "1e3", "9223372036854775808", " 1"])
def test_bad_from(server, start):
    """a number as `from` that is not one is 400; N at most 10,000"""
    assert server.request("GET", f"{PATH}?from={start.replace(' ', '%20')}")[0] == 400


def test_resume(server, topic):
    """`Last-Event-ID`: resume strictly after this cursor"""
    offsets = fill(server, topic, 5)
    with Sse(server, {"topic": topic, "from": "earliest"}) as stream:
        stream.established()
        cursor = stream.take(3)[-1]["id"]
    with Sse(server, {"topic": topic, "from": "earliest"}, {"Last-Event-ID": cursor}) as stream:
        hello = stream.established()
        assert hello["state"] == "resumed" and hello["from"] == offsets[2] + 1 and hello["id"] == cursor
        assert [event["data"] for event in stream.take(2)] == ["3", "4"]


def test_the_ends_of_the_offsets(server, topic):
    """`-1.k3f9q` is before the first; an offset beyond the end waits, a cursor beyond it is `ahead`"""
    fill(server, topic, 2)
    most = 2**63 - 1
    with Sse(server, {"topic": topic}) as stream:
        tag = stream.established()["tag"]
    for cursor in ("-1", f"-1.{tag}"):
        with Sse(server, {"topic": topic, "lastEventId": cursor}) as stream:
            hello = stream.established()
            assert hello["state"] == "resumed" and hello["from"] == 0 and hello["id"] == f"-1.{tag}"
            assert [event["data"] for event in stream.take(2)] == ["0", "1"]
        assert server.json("GET", f"/api/v1/events/history?topic={topic}&last_event_id={cursor}")[1]["events"][0]["data"] == 0
    for cursor in (str(most), f"{most}.{tag}"):
        with Sse(server, {"topic": topic}, {"Last-Event-ID": cursor}) as stream:
            assert stream.established()["reason"] == "ahead" and stream.next()["data"] == "0"
        status, problem = server.json("GET", f"/api/v1/events/history?topic={topic}&last_event_id={cursor}")
        assert (status, problem["tag"]) == (410, tag), "a page has no place for a reset, and does not begin before the cursor in silence"
    with Sse(server, {"topic": topic, "from": most}) as stream:
        hello = stream.established()
        assert hello["state"] == "resumed" and hello["from"] == most and hello["id"] is None
        server.append(topic, "x")
        assert stream.silent()


def test_from_a_time_to_come(server, topic):
    """an RFC 3339 time: one to come is the live edge"""
    fill(server, topic, 2)
    with Sse(server, {"topic": topic, "from": "2999-01-01T00:00:00Z"}) as stream:
        assert stream.established()["state"] == "live"
        server.append(topic, "live")
        assert stream.next()["data"] == "live"


@pytest.mark.parametrize("sent,data,member", [
    ("text/plain", b"", '"data":""'), ("image/png", b"", '"data_base64":""'), ("text/html", b"\xff", '"data_base64":"/w=="'), ("text/plain", b"a\r\nb\0\"\\", '"data":"a\\r\\nb\\u0000\\"\\\\"'),
    ("text/plain", "\u2028é".encode(), '"data":"\u2028é"'), ("application/json", b" [1e400,\r\n-0, 123456789012345678901234567890] ", '"data": [1e400,  -0, 123456789012345678901234567890] '),
    ("application/ld+json", b'"x\\u0000"', '"data":"x\\u0000"'), (None, b"\xef\xbb\xbf1", '"data":"\ufeff1"'),
])
def test_format_event_of_every_form(server, topic, sent, data, member):
    """§3: `data` (JSON itself for JSON types, a string for text) or `data_base64`; CR and LF between JSON tokens become spaces"""
    assert server.request("POST", f"/api/v1/topics/{topic}/events", data, {"Content-Type": sent} if sent else {})[0] == 201
    with Sse(server, {"topic": topic, "from": "earliest", "format": "event"}) as stream:
        stream.established()
        event = stream.next()
        assert event["data"].endswith(f",{member}}}") and event.json["offset"] == int(event["id"].split(".")[0]), event["data"]


def test_cursor_strength(server, topic):
    """`Last-Event-ID` header; `lastEventId`, `last_event_id`, `lastEventID`: in this order of strength, all win over `from`; empty is absent"""
    offsets = fill(server, topic, 6)
    tagged = [str(offset) for offset in offsets]
    asks = {"topic": topic, "lastEventId": tagged[3], "last_event_id": tagged[2], "lastEventID": tagged[1], "from": tagged[0]}
    order = [("header", 4), ("lastEventId", 3), ("last_event_id", 2), ("lastEventID", 1)]
    for name, at in order:
        with Sse(server, asks, {"Last-Event-ID": tagged[4]} if name == "header" else {"Last-Event-ID": ""}) as stream:
            stream.established()
            assert stream.next()["data"] == str(at + 1)
        if name != "header":
            asks[name] = ""


def test_other_log_resets_to_earliest_or_from(server, topic):
    """`reset` with `reason` `other_log` (another tag); a reset continues at `from` if one was given as `earliest`, `latest` or `-N`, else at `earliest`"""
    fill(server, topic, 3)
    for start, first in ((None, "0"), ("earliest", "0"), ("-1", "2"), ("latest", "live"), ("1", "0")):
        asks = {"topic": topic} | ({"from": start} if start else {})
        with Sse(server, asks, {"Last-Event-ID": "1.zzzzzzzzz"}) as stream:
            hello = stream.established()
            assert hello["state"] == "reset" and hello["reason"] == "other_log"
            if start == "latest":
                server.append(topic, "live")
            assert stream.next()["data"] == first


def test_ahead(server, topic):
    """`ahead` (beyond the end, as the log's owner knows it)"""
    fill(server, topic, 1)
    with Sse(server, {"topic": topic}) as stream:
        tag = stream.established()["tag"]
    with Sse(server, {"topic": topic}, {"Last-Event-ID": f"999999999.{tag}"}) as stream:
        hello = stream.established()
        assert hello["state"] == "reset" and hello["reason"] == "ahead"
        assert stream.next()["data"] == "0"


@pytest.mark.parametrize("cursor", ["garbled", "1.", ".k", "1.UPPER", "-2.abc", "1.abcdefghijklmnopq", "18446744073709551616", "1 .a", "1.a.b", "0x1"])
def test_unknown_cursor(server, topic, cursor):
    """`unknown` (not a cursor; as a *parameter* that is 400)"""
    with Sse(server, {"topic": topic}, {"Last-Event-ID": cursor}) as stream:
        hello = stream.established()
        assert hello["state"] == "reset" and hello["reason"] == "unknown"
    for name in ("lastEventId", "last_event_id", "lastEventID"):
        with Sse(server, {"topic": topic, name: cursor}) as stream:
            assert stream.status == 400


def test_heartbeat_is_one_line(server, topic):
    """Heartbeat: the single line `:` and *no* empty line after it"""
    with Sse(server, {"topic": topic, "heartbeat": 1}) as stream:
        stream.established()
        assert stream.line() == ":" and stream.line() == ":"


def test_ping_events(server, topic):
    """`ping=true`: heartbeats are `ping` events: `id:` + `event: ping` + `data: {"timestamp":...,"offset":...}`"""
    with Sse(server, {"topic": topic, "heartbeat": 1, "ping": "true"}) as stream:
        hello = stream.established()
        ping = stream.next()
        assert ping["event"] == "ping" and ping["id"].endswith("." + hello["tag"])
        assert set(ping.json) == {"timestamp", "offset"} and abs(ping.json["timestamp"] - time.time() * 1000) < 60_000


def test_ping_moves_the_cursor_of_a_filtered_stream(server, topic):
    """When a filtered stream has been silent while the log moved on, it is a `ping` event with `id:`"""
    with Sse(server, {"topic": topic, "heartbeat": 1}) as stream:
        stream.established()
        offset = server.append(topic + "/other", "x")
        ping = stream.next()
        assert ping["event"] == "ping" and int(ping["id"].split(".")[0]) >= offset
        cursor = ping["id"]
    mine = server.append(topic, "mine")
    with Sse(server, {"topic": topic}, {"Last-Event-ID": cursor}) as stream:
        assert stream.established()["state"] == "resumed"
        assert stream.next()["id"].startswith(f"{mine}.")


@pytest.mark.parametrize("query", [
    "heartbeat=0", "heartbeat=301", "heartbeat=x", "format=xml", "ping=maybe", "compression=7", "topic=a&colour=red", "lastEventId=x", "topic=" + "&topic=".join(["a"] * 65), "type=error%00",
])
def test_bad_parameters(server, query):
    """Unknown query parameters are refused by name; heartbeat 1 to 300; at most 64 topics"""
    assert server.request("GET", f"{PATH}?{query}")[0] == 400


def test_64_topics(server, topic):
    """`topic` may be repeated (OR); at most 64"""
    with Sse(server, [("topic", f"{topic}/{at}") for at in range(64)]) as stream:
        stream.established()
        server.append(f"{topic}/64", "no")
        server.append(f"{topic}/63", "yes")
        assert stream.next()["data"] == "yes"


def test_what_comes_later(server):
    """`wait=` (long-poll) comes later: 501"""
    problem(server.request("GET", f"{PATH}?wait=5"), "not-yet", 501)


def test_accept_encoding_is_never_refused(server):
    """`compression`: what `Accept-Encoding` allows of zstd and gzip, none where it allows neither"""
    for accepted in ("br", "gzip;q=0, identity;q=0", "identity, gzip;q=0.5", ""):
        with Sse(server, "compression=true", {"Accept-Encoding": accepted}) as stream:
            assert stream.status == 200 and "content-encoding" not in stream.headers
            stream.established()
    with Sse(server, "compression=false", {"Accept-Encoding": "zstd, gzip"}) as stream:
        assert "content-encoding" not in stream.headers
        stream.established()
    for accepted, coding in (("gzip, deflate, br, zstd", "zstd"), ("zstd;q=0.2, gzip", "gzip"), ("*", "gzip")):
        with Sse(server, "", {"Accept-Encoding": accepted}) as stream:
            assert stream.status == 200 and stream.headers["content-encoding"] == coding
            assert stream.headers["vary"] == "Accept-Encoding"


def test_accept(server):
    """`Accept`: `*/*` or none is SSE; something else only is 406, before anything is done"""
    for good in ("*/*", "text/event-stream", "text/*", "application/json, text/event-stream;q=0.5", "text/html, */*;q=0.1"):
        with Sse(server, headers={"Accept": good}) as stream:
            assert stream.status == 200
    for bad in ("application/json", "text/html", "text/event-stream;q=0"):
        assert server.request("GET", PATH, headers={"Accept": bad})[0] == 406


def test_head(server):
    """HEAD gives the head alone"""
    status, headers, body = server.request("HEAD", PATH)
    assert status == 200 and headers["content-type"].startswith("text/event-stream") and body == b""


def test_405_carries_allow(server):
    """405 carries `Allow`"""
    for method, path in (("POST", PATH), ("DELETE", "/api/v1/events/history"), ("GET", "/api/v1/events"), ("PUT", "/")):
        status, headers, _ = server.request(method, path)
        assert status == 405 and headers["allow"], path


def test_sse_alias_ignores_upgrade(server, topic):
    """`/sse` ignores `Upgrade`; `/ws`, or a `Sec-WebSocket-Key` that lost its `Upgrade` in a proxy: 426"""
    with Sse(server, {"topic": topic}, {"Upgrade": "websocket", "Connection": "Upgrade"}, path="/api/v1/events/sse") as stream:
        assert stream.status == 200
        stream.established()
    assert server.request("GET", "/api/v1/events/ws")[0] == 426
    assert server.request("GET", PATH, headers={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})[0] == 426


def test_http_1_0_is_close_delimited(server, topic):
    """chunked, or close-delimited for HTTP/1.0"""
    fill(server, topic, 1)
    raw = server.exchange(f"GET {PATH}?topic={topic}&from=earliest HTTP/1.0\r\nHost: localhost\r\n\r\n".encode(), wait_s=20, last=b"data: 0\n\n")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower() and body.startswith(b"retry: ") and b"data: 0\n\n" in body


def test_head_of_http_1_0_keeps_the_connection_that_it_says_stays(server):
    """HEAD gives the head alone; close-delimited for HTTP/1.0: without a body there is nothing that the end would tell"""
    ask = f"HEAD {PATH} HTTP/1.0\r\nHost: localhost\r\n"
    raw = server.exchange(f"{ask}Connection: keep-alive\r\n\r\n{ask}\r\n".encode())
    first, second, rest = raw.decode().lower().split("\r\n\r\n")
    assert "200 ok" in first and "\r\nconnection: keep-alive" in first and "connection: close" not in first
    assert "200 ok" in second and "\r\nconnection: close" in second and rest == ""


def test_unknown_topic_is_never_404(server, topic):
    """An unknown topic is never 404 on stream or history."""
    with Sse(server, {"topic": topic + "/never", "from": "earliest"}) as stream:
        assert stream.status == 200
        stream.established()
    assert server.json("GET", f"/api/v1/events/history?topic={topic}/never")[1]["events"] == []


def test_latest_is_fixed_before_the_head_leaves(server, topic):
    """`latest` is fixed before the head leaves"""
    for count in range(30):
        with Sse(server, {"topic": topic}) as stream:
            server.append(topic, str(count))  # after the head came: must be seen
            stream.established()
            assert stream.next()["data"] == str(count)


def test_join_races_with_appends(server, topic):
    """A subscriber catches up from the log and joins the live edge with no gap and no repeat, even when appends race with it"""
    stop, total = threading.Event(), [0]
    def write():
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        while not stop.is_set():
            connection.request("POST", f"/api/v1/topics/{topic}/events", str(total[0]))
            assert connection.getresponse().read()
            total[0] += 1
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for attempt in range(20):
            time.sleep(0.02)
            with Sse(server, {"topic": topic, "from": "earliest"}) as stream:
                stream.established()
                want = total[0] + 50
                assert [int(event["data"]) for event in stream.take(want)] == list(range(want))
    finally:
        stop.set()
        writer.join()


def test_a_slow_subscriber_delays_nobody_and_loses_nothing(server, topic):
    """a slow one never delays another and holds a bounded number of bytes"""
    body = b"x" * 100_000
    with Sse(server, {"topic": topic}, timeout_s=60) as slow, Sse(server, {"topic": topic}) as quick:
        slow.established(), quick.established()
        for _ in range(300):  # 30 MB: more than any socket buffer
            offset = server.append(topic, body)
            assert quick.next()["id"].split(".")[0] == str(offset)
        seen = [int(event["id"].split(".")[0]) for event in slow.take(300)]
        assert seen == sorted(set(seen)) and len(seen) == 300


def open_but_files(server):
    """How much a server has open that is no file: sockets, timers, pipes."""
    directory, found = f"/proc/{server.process.pid}/fd", 0
    for number in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # It is closed by now.
            found += not os.readlink(f"{directory}/{number}").startswith("/")
    return found


def test_hang_up_is_noticed(fresh):
    """a hang-up is noticed: connections that go leave nothing behind"""
    streams = [Sse(fresh, {"topic": "x"}) for _ in range(50)]
    for stream in streams:
        stream.established()
    before = open_but_files(fresh)
    for stream in streams:
        stream.close()
    # Whatever files it opens: a log that has just begun is not done with them.
    wait_for(lambda: open_but_files(fresh) <= before - 50, 2)


def test_kill_and_resume():
    """kills the server with `kill -9`, starts it again, and every reader goes on exactly where it was"""
    with Server() as server:
        fill(server, "a/b", 10)
        with Sse(server, {"topic": "a/*", "from": "earliest"}) as stream:
            stream.established()
            cursor = stream.take(6)[-1]["id"]
        server.kill()
        server.start()
        fill(server, "a/b", 3, start=10)
        with Sse(server, {"topic": "a/*"}, {"Last-Event-ID": cursor}) as stream:
            assert stream.established()["state"] == "resumed"
            assert [event["data"] for event in stream.take(7)] == [str(at) for at in range(6, 13)]


def test_unclean_stop_in_another_sync_mode_gives_a_new_tag():
    """The tag is new when the log stops uncleanly in a sync mode that could take back what readers saw"""
    with Server("--sync", "never") as server:
        fill(server, "a", 3)
        with Sse(server) as stream:
            tag = stream.established()["tag"]
        server.kill()
        server.start()
        with Sse(server, headers={"Last-Event-ID": f"1.{tag}"}) as stream:
            hello = stream.established()
            assert hello["state"] == "reset" and hello["reason"] == "other_log" and hello["tag"] != tag
            tag = hello["tag"]
        assert server.terminate() == 0
        server.start()
        with Sse(server) as stream:
            assert stream.established()["tag"] == tag


def test_drain():
    """at the end `event: connection.closing` (`code`, `reason`), then a proper end; exit within 10 s"""
    with Server() as server:
        streams = [Sse(server) for _ in range(20)]
        for stream in streams:
            stream.established()
        codes = []
        closer = threading.Thread(target=lambda: codes.append(server.terminate()))
        closer.start()
        retries = set()
        for stream in streams:
            event = stream.next()
            assert event["event"] == "connection.closing" and event.json["code"] in (1001, 4000) and event.json["reason"]
            retries.add(event.get("retry"))
            assert stream.next() is None
        closer.join()
        assert codes == [0], "1 where it took too long"
        assert len(retries) > 3  # spread out
        server.start()
        assert server.request("GET", "/livez")[0] == 200
