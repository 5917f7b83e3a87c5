"""API §2, pipelining: what is asked for finds what was appended before it on its connection, and nothing of what is asked for behind it."""

import contextlib
import itertools
import json
import re
import socket
import time

import pytest

from harness import PatientSocket, Server, wait_for

ROUNDS = 60
APPENDS = re.compile(rb"^strandline_appends_total (\d+)$", re.M)
FRAMES = re.compile(rb"^strandline_commit_write_seconds_count (\d+)$", re.M)


@pytest.fixture(scope="module", params=["1", "2"], ids=["one-shard", "two-shards"])
def server(request):
    """One server a number of shards, on which nobody but the test appends: nothing expires here."""
    with Server("--shards", request.param) as server:
        yield server


def path(topic):
    return f"/api/v1/topics/{topic}"


def request(method, target, body=None, *fields, version="1.1"):
    """The bytes of a request."""
    sized = () if body is None else (f"Content-Length: {len(body)}",)
    return "\r\n".join((f"{method} {target} HTTP/{version}", "Host: localhost", *fields, *sized, "", "")).encode() + (body or b"")


def append(topic, body=b"1", *fields, **others):
    """An event, as a body of its own."""
    return request("POST", path(topic) + "/events", body, *fields, **others)


def chunked(topic, *parts, kind):
    """A body in chunks, each a part."""
    head = request("POST", path(topic) + "/events", None, f"Content-Type: {kind}", "Transfer-Encoding: chunked")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


class Pipe:
    """A connection on which answers are read one by one."""

    def __init__(self, server, receive_bytes=None):
        self.socket = PatientSocket(server.port, 20, receive_bytes)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()
        self.socket.close()

    def send(self, *requests):
        self.socket.sendall(b"".join(requests))

    def answer(self, is_head=False):
        """(status, fields in lower case, body)"""
        line = self.file.readline()
        assert line.startswith(b"HTTP/1."), line
        status, fields = int(line.split()[1]), {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            fields[name.lower()] = value.strip()
        if is_head or status in (100, 204):
            return status, fields, b""
        if "chunked" not in fields.get("transfer-encoding", ""):
            return status, fields, self.file.read(int(fields["content-length"]))
        body = b""
        while size := int(self.file.readline(), 16):
            body += self.file.read(size)
            self.file.readline()
        self.file.readline()
        return status, fields, body

    def json(self):
        status, _, body = self.answer()
        return status, json.loads(body)


def newest_of_page(body):
    return json.loads(body)["events"][-1]["offset"]


# What tells of the log: the target, fields, and the offset of the topic's newest event, or how far the log reaches, in the answer.
READS = {
    "page": ("/api/v1/events/history?topic={topic}&from={from_}", (), newest_of_page, None),
    "newest": ("/api/v1/events/history?topic={topic}&order=desc&limit=1", (), newest_of_page, None),
    "lines": ("/api/v1/events/history?topic={topic}&from={from_}", ("Accept: application/x-ndjson",), lambda body: json.loads(body.splitlines()[-1])["offset"], None),
    "topic": ("/api/v1/topics/{topic}", (), lambda body: json.loads(body)["last"], None),
    "topics": ("/api/v1/topics?prefix={topic}", (), lambda body: json.loads(body)["topics"][0]["last"], None),
    "log": ("/api/v1/logs/main", (), None, lambda body: json.loads(body)["durable"]),
    "ready": ("/readyz", (), None, lambda body: json.loads(body)["durable"]),
    "metrics": ("/metrics", (), None, lambda body: int(APPENDS.search(body)[1])),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_has_what_stands_before_it_and_nothing_of_what_stands_behind(server, topic, read):
    """what is asked for behind an append, on its connection, finds its event, and nothing of what is asked for behind it"""
    target, fields, newest, reaches = READS[read]
    server.append(topic, "0")
    before = None
    with Pipe(server) as pipe:
        for round_ in range(ROUNDS):
            get = request("GET", target.format(topic=topic, from_=0 if before is None else before), None, *fields)
            # Alone, twice, and between appends that would share a frame.
            pipe.send(get, append(topic), get, get, append(topic), append(topic), get, append(topic))
            answers = [pipe.answer() for _ in range(8)]
            assert [status for status, _, _ in answers] == [200, 201, 200, 200, 201, 201, 200, 201], answers
            bodies = [body for _, _, body in answers]
            offsets = {at: json.loads(bodies[at])["offset"] for at in (1, 4, 5, 7)}
            if newest:
                seen = [newest(bodies[at]) for at in (0, 2, 3, 6)]
                assert seen[0] == before or before is None and seen[0] < offsets[1], (round_, seen, offsets)
                assert seen[1:] == [offsets[1], offsets[1], offsets[5]], (round_, seen, offsets)
            else:
                seen = [reaches(bodies[at]) for at in (0, 2, 3, 6)]
                # One appends at a time, all in all: each read is as far on as what stands between it and the one before.
                assert [seen[at + 1] - seen[at] for at in range(3)] == [1, 0, 2], (round_, seen)
                assert before is None or seen[0] == before, (round_, seen)
            before = offsets[7] if newest else seen[3] + 1


def test_how_far_the_log_reaches(server, topic):
    """`HEAD`: `Log-Earliest`, `Log-Durable`"""
    head = request("HEAD", "/api/v1/events/history")
    with Pipe(server) as pipe:
        for _ in range(ROUNDS):
            pipe.send(append(topic), head, append(topic))
            (_, _, first), (status, fields, _), second = pipe.answer(), pipe.answer(is_head=True), pipe.answer()
            assert status == 200 and int(fields["log-durable"]) == json.loads(first)["offset"] + 1 and second[0] == 201


BODIES = {
    "raw": lambda topic: append(topic, b"2"),
    "another head each time": lambda topic: append(topic, b"2", f"Event-Id: {topic}/{time.monotonic_ns()}"),
    "object": lambda topic: request("POST", "/api/v1/events", json.dumps({"topic": topic, "data": 2}).encode(), "Content-Type: application/json"),
    "array": lambda topic: request("POST", "/api/v1/events", json.dumps([{"topic": topic, "data": 2}] * 3).encode(), "Content-Type: application/json"),
    "chunks": lambda topic: chunked(topic, b"[2", b",2]", kind="application/json"),
    "lines": lambda topic: append(topic, b"2\n2\n", "Content-Type: application/x-ndjson"),
    "lines in chunks": lambda topic: chunked(topic, b"2\n2", b"\n2\n", kind="application/x-ndjson"),
    "HTTP/1.0": lambda topic: append(topic, b"2", "Connection: keep-alive", version="1.0"),
    "larger than a read": lambda topic: append(topic, b'"' + b"x" * 300_000 + b'"'),
}


@pytest.mark.parametrize("body", BODIES)
def test_no_body_is_begun_before_a_read_in_front_of_it(server, topic, body):
    """however it comes"""
    newest = request("GET", f"/api/v1/events/history?topic={topic}&order=desc&limit=1")
    with Pipe(server) as pipe:
        for round_ in range(ROUNDS):
            pipe.send(append(topic), newest, BODIES[body](topic), newest)
            (_, first), (_, page), (status, second), (_, after) = (pipe.json() for _ in range(4))
            assert status == 201, second
            assert page["events"][0]["offset"] == first["offset"], (round_, first, page)
            assert after["events"][0]["offset"] == second.get("last", second["offset"])


def test_a_body_that_waits_to_be_asked_for(server, topic):
    """`100 Continue` only once the head is accepted"""
    newest = request("GET", f"/api/v1/events/history?topic={topic}&order=desc&limit=1")
    head = request("POST", path(topic) + "/events", None, "Expect: 100-continue", "Content-Length: 1")
    with Pipe(server) as pipe:
        for _ in range(ROUNDS):
            pipe.send(append(topic), newest, head)
            first, page = pipe.json()[1], pipe.json()[1]
            assert page["events"][0]["offset"] == first["offset"]
            assert pipe.answer()[0] == 100
            pipe.send(b"2")
            assert pipe.answer()[0] == 201


def test_changes_wait_and_are_waited_for(server, topic):
    """settings, `DELETE` and trim, before and behind what reads and appends"""
    get, delete = request("GET", path(topic)), request("DELETE", path(topic))
    settings = [json.dumps({"retain": {"count": count}}).encode() for count in (100, 200)]
    kind = "Content-Type: application/json"
    with Pipe(server) as pipe:
        for _ in range(ROUNDS // 3):
            pipe.send(append(topic), request("PUT", path(topic), settings[0], kind), get, request("PUT", path(topic), settings[1], kind), get,
                      append(topic), get, delete, get, append(topic), get, delete)
            assert pipe.json()[0] == 201
            for count in (100, 200):
                assert pipe.json()[0] == 200
                status, found = pipe.json()
                assert status == 200 and found["count"] == 1 and found["settings"]["retain"]["count"] == count
            assert pipe.json()[0] == 201 and pipe.json()[1]["count"] == 2
            assert pipe.answer()[0] == 204 and pipe.answer()[0] == 404
            assert pipe.json()[0] == 201 and pipe.json()[1]["count"] == 1
            assert pipe.answer()[0] == 204
            # A trim takes what stands before it alone.
            trim = request("POST", path(topic) + "/trim?before=1000000000", b"")
            pipe.send(append(topic), get, trim, append(topic), get, delete)
            assert pipe.json()[0] == 201 and pipe.json()[1]["count"] == 1 and pipe.json()[0] == 200
            last = pipe.json()[1]["offset"]
            found = pipe.json()[1]
            assert (found["first"], found["last"], found["count"]) == (last, last, 1)
            assert pipe.answer()[0] == 204


def test_appends_are_not_waited_for_by_appends(fresh, topic):
    """appends behind each other are not waited for and share a write to the disk"""
    frames = lambda: int(FRAMES.search(fresh.request("GET", "/metrics")[2])[1])
    before = frames()
    with Pipe(fresh) as pipe:
        pipe.send(*[append(topic)] * 300)
        assert [pipe.answer()[0] for _ in range(300)] == [201] * 300
        assert frames() - before < 30
        # Also behind one that had to wait.
        before = frames()
        pipe.send(request("GET", path(topic)), *[append(topic)] * 300)
        assert [pipe.answer()[0] for _ in range(301)] == [200] + [201] * 300
        assert frames() - before < 30


def test_the_last_request_of_a_connection_is_begun_too(server, topic):
    """`Connection: close`, and a client that ends its sending side"""
    newest = request("GET", f"/api/v1/events/history?topic={topic}&order=desc&limit=1")
    for last, ends in ((append(topic, b"2", "Connection: close"), False), (append(topic, b"2"), True)):
        with Pipe(server) as pipe:
            pipe.send(append(topic), newest, last)
            if ends:
                pipe.socket.shutdown(socket.SHUT_WR)
            first, page = pipe.json()[1], pipe.json()[1]
            assert page["events"][0]["offset"] == first["offset"] and pipe.json()[0] == 201
            assert pipe.file.read() == b""


LARGE = 24  # MiB, more than the kernel keeps for who does not read


def append_large(server):
    """A topic whose history does not fit into what the kernel keeps."""
    for _ in range(LARGE):
        server.append("large", b"x" * (1 << 20))


@pytest.fixture(scope="module")
def large(server):
    """The server, with such a topic."""
    append_large(server)
    return server


UNREAD = request("GET", "/api/v1/events/history?topic=large", None, "Accept: application/x-ndjson")


def has(server, topic):
    return server.request("GET", path(topic))[0] == 200


def test_lines_at_the_readers_pace_are_waited_for(large, topic):
    """an append behind history in lines begins when those have left"""
    with Pipe(large, receive_bytes=4096) as pipe:
        pipe.send(UNREAD, append(topic))
        time.sleep(0.5)
        assert not has(large, topic)
        status, _, body = pipe.answer()
        assert status == 200 and body.count(b"\n") == LARGE
        assert pipe.answer()[0] == 201 and has(large, topic)


def test_a_page_is_waited_for_until_it_is_made(large, topic):
    """not until it is taken: who reads slowly does not hold up what was appended behind"""
    def page_bytes(topic):
        with Pipe(large, receive_bytes=4096) as pipe:
            pipe.send(request("GET", "/api/v1/events/history?topic=large"), append(topic))
            wait_for(lambda: has(large, topic))
            status, _, body = pipe.answer()
            assert status == 200 and pipe.answer()[0] == 201
            return len(body)

    attempts = itertools.count()
    # On a busy machine it may end early, with no more than the kernel takes: then once more.
    wait_for(lambda: page_bytes(f"{topic}/{next(attempts)}") > 7 << 20)


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/x-ndjson"])
def test_what_waits_is_not_read(large, topic, kind):
    """and until then it is not read: what does not fit into the kernel stays with the client"""
    sent = 0
    with Pipe(large, receive_bytes=4096) as pipe:
        body_bytes = 64 << 20 if "json" in kind else 1 << 20
        pipe.send(UNREAD, request("POST", path(topic) + "/events", None, f"Content-Type: {kind}", f"Content-Length: {body_bytes}"))
        pipe.socket.settimeout(1)  # For what is sent once, whoever else is busy.
        body = (b"1" * 1023 + b"\n") * (body_bytes // 1024)
        with contextlib.suppress(TimeoutError):
            while sent < body_bytes:
                sent += pipe.socket.send(body[sent:sent + 65536])
        assert sent < 48 << 20 and not has(large, topic)
        # Once the answer before is taken it goes on.
        assert pipe.answer()[0] == 200
        pipe.send(body[sent:])
        assert pipe.answer()[0] == 201 and has(large, topic)


def test_what_waits_goes_with_its_client(large, topic):
    """a client that is gone before its turn has appended nothing"""
    pipe = Pipe(large, receive_bytes=4096)
    pipe.send(UNREAD, append(topic))
    time.sleep(0.2)
    pipe.__exit__()
    time.sleep(0.5)
    assert not has(large, topic)
    # Others are served as ever.
    with Pipe(large) as pipe:
        pipe.send(request("GET", path("large")), append(topic))
        assert pipe.answer()[0] == 200 and pipe.answer()[0] == 201


@pytest.mark.parametrize("shards", ["1", "2"])
def test_what_waits_does_not_hold_up_the_end(topic, shards):
    """after the signal to stop, connections have so long to end by themselves"""
    with Server("--shards", shards) as server:
        append_large(server)
        with Pipe(server, receive_bytes=4096) as pipe:
            pipe.send(UNREAD, append(topic))
            time.sleep(0.2)
            assert server.terminate() == 0
        server.start()
        assert not has(server, topic)
