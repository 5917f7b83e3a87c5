"""API §4 "Not now" and §9: what a server tells whom, when all its places for connections are taken."""

import contextlib
import json
import subprocess
import time

import pytest
from websockets.exceptions import InvalidStatus

from commands import run
from harness import Connection, Patience, Server, binary, wait_for, wait_for_end
from wire import Sse, Ws, problem, status_of

APPEND = "/api/v1/topics/places/events"


@pytest.fixture
def full(taken):
    """The server, whose publisher has just been heard of: one that is silent for 75 s, for which others may be at work, loses its place, and takes
    it again."""
    try:
        ask(taken, "GET", "/livez")
    except ConnectionError:
        assert time.monotonic() - taken.heard_at > 60, "nobody else takes its place from it"
        taken.publisher.close()
        # Who has no place is answered too, and hung up on.
        wait_for(lambda: json.loads(ask(taken, "GET", "/readyz"))["connections"]["open"] == 4 and taken.publisher.sock)
    return taken


@pytest.fixture(scope="module", params=["1", "2"], ids=["one-shard", "two-shards"])
def taken(request):
    """A server with four places, all taken: three subscribers, and a publisher that keeps its connection."""
    options = ("--shards", request.param, "--connections-max", "4", "--cors-origin", "https://app.example")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(*options))
        server.subscribers = [stack.enter_context(Sse(server, "topic=places")) for _ in range(3)]
        for subscriber in server.subscribers:
            subscriber.established()
        server.publisher = Connection(server.port, 10)
        stack.callback(server.publisher.close)
        publish(server, b"first")
        yield server


def publish(server, data):
    return json.loads(ask(server, "POST", APPEND, data, status=201))["offset"]


def ask(server, method, path, body=None, status=200):
    """What the publisher is answered."""
    server.publisher.request(method, path, body)
    answer = server.publisher.getresponse()
    told = answer.read()
    assert answer.status == status, told
    server.heard_at = time.monotonic()
    return told


@pytest.mark.parametrize("headers", [{}, {"Accept": "text/event-stream"}, {"Accept": "*/*", "Last-Event-ID": "0"}])
def test_a_stream_is_told_to_come_back(full, headers):
    """where the request accepts `text/event-stream`, overload [...] answer `200`, `retry: <ms>`, `connection.closing`, end"""
    with Sse(full, "topic=places", headers=headers) as refused:
        assert refused.status == 200 and refused.headers["content-type"] == "text/event-stream"
        closing = refused.next()
        assert closing["event"] == "connection.closing" and 1000 <= int(closing["retry"]) <= 5000
        assert closing.json["code"] == 1013 and closing.json["reason"]
        assert refused.next() is None, "a proper end: http.client raises otherwise"


def test_a_page_of_an_allowed_origin_can_read_the_refusal(full):
    """an `EventSource` gives up for ever where an answer lacks its CORS fields"""
    with Sse(full, headers={"Origin": "https://app.example"}) as refused:
        assert refused.status == 200 and refused.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("method,path,body", [
    ("POST", APPEND, b"x"), ("POST", "/api/v1/events", b"[]"), ("POST", APPEND, b"x" * (900 << 10)),
    ("GET", "/api/v1/events/history", None), ("GET", "/api/v1/topics", None), ("GET", "/", None),
])
def test_the_rest_is_503(full, method, path, body):
    """429 and 503 with `Retry-After`; `application/problem+json`; also for who is still sending a body"""
    answer = full.request(method, path, body)
    problem(answer, "overloaded", 503)
    assert 1 <= int(answer[1]["retry-after"]) <= 60
    assert answer[1]["connection"] == "close"


def test_the_window_stands_in_a_503_for_what_has_an_id(full):
    """The window, which every answer to one with an id states"""
    for headers, window in (({"Event-Id": "a"}, True), ({}, False)):
        status, fields, _ = full.request("POST", APPEND, b"1", headers)
        assert status == 503 and ("Event-Id-Window" in fields) == window


def test_a_websocket_is_503(full):
    with pytest.raises(InvalidStatus) as refused, Ws(full):
        pass
    assert refused.value.response.status_code == 503
    assert "retry-after" in refused.value.response.headers


def test_a_full_server_lives_and_is_ready(full):
    """`/livez`, `/readyz` (200 as long as reads go on; says what does not work), `/healthz`"""
    assert full.request("GET", "/livez")[0] == 200
    for path in ("/readyz", "/healthz"):
        status, _, body = full.request("GET", path)
        assert status == 200 and json.loads(body)["connections"] == {"open": 4, "max": 4}


def test_4xx_stays_where_a_retry_cannot_mend_it(full):
    """4xx only where a retry cannot mend it"""
    assert full.request("GET", "/nothing")[0] == 404
    assert full.request("DELETE", "/api/v1/events")[0] == 405
    assert full.request("GET", "/livez", headers={"Host": "evil.example"})[0] == 421


@pytest.mark.parametrize("method,path,headers,status,slug", [
    ("GET", "/api/v1/events/stream?foo=1", {}, 400, "unknown-parameter"),
    ("GET", "/api/v1/events/stream?foo=1", {"Accept": "text/event-stream"}, 400, "unknown-parameter"),
    ("GET", "/sse?from=never", {}, 400, "invalid-parameter"),
    ("GET", "/sse?where=data.a%20==", {}, 400, "invalid-filter"),
    ("GET", "/sse?log=other", {}, 404, "log-not-found"),
    ("GET", "/sse", {"Accept": "text/html"}, 406, "not-acceptable"),
    ("GET", "/ws", {}, 426, "upgrade-required"),
    ("GET", "/api/v1/events/history?limit=0", {}, 400, "invalid-parameter"),
    ("GET", "/api/v1/topics?foo=1", {}, 400, "unknown-parameter"),
    ("POST", APPEND + "?foo=1", {"Content-Length": "0"}, 400, "unknown-parameter"),
    ("POST", APPEND, {"Event-Id": "%", "Content-Length": "0"}, 400, "invalid-header"),
    ("POST", APPEND, {"Content-Encoding": "gzip", "Content-Length": "0"}, 415, "unsupported-encoding"),
    ("POST", APPEND, {"Content-Length": str(2 << 20)}, 413, "event-too-large"),
    ("POST", APPEND, {}, 411, "length-required"),
    ("PUT", "/api/v1/topics/places?foo=1", {"Content-Length": "0"}, 400, "unknown-parameter"),
    ("PUT", "/api/v1/topics/places", {}, 411, "length-required"),
    ("POST", "/api/v1/topics/places/trim", {"Content-Length": "0"}, 400, "invalid-parameter"),
])
def test_what_is_4xx_anyway_is_answered_as_ever(full, method, path, headers, status, slug):
    """All places taken: the health paths, a preflight and what is 4xx anyway are answered as ever"""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = full.exchange(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode(), end_write=True)
    assert status_of(answer) == status and f'"/problems/{slug}"'.encode() in answer, answer


def test_who_has_a_place_is_served_as_ever(full):
    """appends over connections that are there go on, and reach who is there"""
    for number in range(3):
        with Sse(full) as refused:
            assert refused.next()["event"] == "connection.closing"
        publish(full, b"%d" % number)
    for subscriber in full.subscribers:
        assert [subscriber.next()["data"] for _ in range(4)] == ["first", "0", "1", "2"]


def test_a_place_is_given_back():
    with Server("--shards", "1", "--connections-max", "1") as server:
        with Sse(server) as first:
            first.established()
            with Sse(server) as refused:
                assert refused.next()["event"] == "connection.closing"
        patience = Patience(5)
        while True:
            with Sse(server) as again:
                if again.next()["event"] == "connection.established":
                    return
            assert not patience.is_over(), "a hang-up was not noticed"


def test_append_waits_for_a_place():
    """`strandline append` sends again after `Retry-After` what was refused before any of it was read"""
    with Server("--shards", "1", "--connections-max", "1") as server:
        with Sse(server) as first:
            first.established()
            command = [binary(), "append", "--url", server.base, "--topic", "a"]
            append = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            append.stdin.write("one\n")
            append.stdin.close()
            told = append.stderr.readline()
            assert "trying again in 2 s" in told and "may or may not" not in told, told
        rest = append.stderr.read()
        assert wait_for_end(append, 30) == 0 and "appended 1 event" in rest, rest


@pytest.mark.parametrize("value", ["0", "-1", "many", "1e3", "99999999999"])
def test_a_number_that_is_none(value, tmp_path):
    """exit 2 usage, and what to give"""
    done = run("serve", "--data", tmp_path, f"--connections-max={value}")
    assert done.returncode == 2 and "connections-max" in done.stderr, done


def test_more_than_there_are_files_is_said():
    """a limit that cannot be kept is lowered, and said on stderr"""
    with Server("--shards", "1", "--connections-max", "9999999") as server:
        status, _, body = server.request("GET", "/readyz")
        assert status == 200 and json.loads(body)["connections"]["max"] < 9999999
        with open(server.log.name) as log:
            assert "fewer connections than asked for" in log.read()
