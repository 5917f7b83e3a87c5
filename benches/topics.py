#!/usr/bin/env python3
"""What a log of many topics takes: by default ten events of each of a million.

    benches/topics.py             everything below
    benches/topics.py append      the same events to a million topics and to one, in turn: rate and processor time of the server
    benches/topics.py requests    the same, a request an event: 64 connections with many requests in flight
    benches/topics.py memory      memory a topic beside its name, after the load and after a start
    benches/topics.py list        pages of topics: by prefix, deep ones, and once retention has passed the first events of all
    benches/topics.py delete      a hundred thousand topics deleted one by one: processor time of the first and the last of them
    benches/topics.py replay      the history of one topic, cold (restart, empty page cache: needs root) and warm

The server runs with one shard on one core, the load on the other. Needs: `cargo build --release`.
`STRANDLINE_BENCH_DIR` names the directory for data, `STRANDLINE_TOPICS` and `STRANDLINE_EVENTS` other numbers of topics and events of each,
`STRANDLINE_KEEP` a directory in which the loaded log is left, or found.
"""

import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from figures import scratch, strandline  # noqa: E402

TOPICS = int(os.environ.get("STRANDLINE_TOPICS", "1000000"))
EVENTS = int(os.environ.get("STRANDLINE_EVENTS", "10"))
KEEP = os.environ.get("STRANDLINE_KEEP")
DATA = "The quick brown fox jumps over the lazy dog. " * 2
PART = 4 << 20


def name(number):
    """Names of one length, in no order: what sorts them learns nothing from how they came."""
    return f"rooms/{number * 2654435761 % (1 << 32):08x}/messages"


ONE = name(1 << 20)


def body(topic_of, event, start, end):
    """NDJSON lines, one event of each topic."""
    return "".join(f'{{"topic":"{topic_of(number)}","data":{{"event":{event},"text":"{DATA}"}}}}\n' for number in range(start, end)).encode()


class Load:
    """Appends lines, made while nobody measures; remembers how long the server took, and on which clock."""

    def __init__(self, server):
        self.server, self.seconds, self.cpu_seconds, self.events = server, 0.0, 0.0, 0

    def append(self, lines, count):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=600)
        parts = [lines[at:at + PART] for at in range(0, len(lines), PART)]
        cpu, begin = cpu_seconds(self.server), time.monotonic()
        connection.request("POST", "/api/v1/events", body=iter(parts), headers={"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}, encode_chunked=True)
        answer = connection.getresponse()
        text = answer.read()
        self.seconds += time.monotonic() - begin
        self.cpu_seconds += cpu_seconds(self.server) - cpu
        self.events += count
        assert answer.status == 201, text

    def __str__(self):
        return f"{self.events / self.seconds / 1e3:.0f}k events/s, {self.cpu_seconds / self.events * 1e6:.2f} us of processor time an event"


def cpu_seconds(server):
    fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(server):
    """What the process has for itself."""
    lines = pathlib.Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def settle(server):
    """Lets the allocator give back what was freed: it looks now and then while it is used."""
    time.sleep(3)
    for _ in range(2_000):
        timed_get(server.port, "/api/v1/topics?prefix=none")


def load_all(server, topic_of=name, rounds=EVENTS):
    load = Load(server)
    for event in range(rounds):
        for start in range(0, TOPICS, 250_000):
            end = min(start + 250_000, TOPICS)
            load.append(body(topic_of, event, start, end), end - start)
    return load


def loaded():
    """A server with all events in it."""
    data = pathlib.Path(KEEP) if KEEP else None
    if data and data.exists():
        return strandline(str(data))
    server = strandline(str(data) if data else None)
    load_all(server)
    return server


def restarted(server, cold=False):
    server.end(signal.SIGTERM, keep=True)
    if cold:
        subprocess.run(["sync"], check=True)
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    begin = time.monotonic()
    server = strandline(server.data)
    print(f"  started in {time.monotonic() - begin:.2f} s{' (cold)' if cold else ''}")
    return server


def done(server):
    server.end(signal.SIGTERM, keep=bool(KEEP))


def append():
    many, one = strandline(), strandline()
    loads = {"many": Load(many), "one": Load(one)}
    shown = dict.fromkeys(loads, 0.0)
    for event in range(EVENTS):
        for start in range(0, TOPICS, 250_000):
            end = min(start + 250_000, TOPICS)
            for what, topic_of in (("many", name), ("one", lambda _: ONE)):
                loads[what].append(body(topic_of, event, start, end), end - start)
        rates = {what: loads[what].seconds - shown[what] for what in loads}
        shown = {what: loads[what].seconds for what in loads}
        print(f"  event {event + 1} of each topic: {TOPICS / rates['many'] / 1e3:.0f}k events/s to {TOPICS} topics, {TOPICS / rates['one'] / 1e3:.0f}k to one", flush=True)
    for what, load in loads.items():
        print(f"  {what}: {load}; {memory_bytes(load.server) / 1e6:.0f} MB")
    slower = loads["many"].seconds / loads["one"].seconds - 1
    more = loads["many"].cpu_seconds / loads["one"].cpu_seconds - 1
    print(f"  to {TOPICS} topics: {slower * 100:+.1f} % time, {more * 100:+.1f} % processor time")
    many.end(signal.SIGTERM)
    one.end(signal.SIGTERM)


def memory():
    """Against a log with as many events of one topic, so that buffers and caches are in neither."""
    name_bytes = len(name(0))
    one = strandline()
    load_all(one, lambda _: ONE)
    many = strandline()
    load_all(many)
    for _ in range(2):
        settle(one)
        settle(many)
        more = memory_bytes(many) - memory_bytes(one)
        print(f"  {memory_bytes(many) / 1e6:.0f} MB instead of {memory_bytes(one) / 1e6:.0f}: {more / TOPICS - name_bytes:.0f} bytes a topic beside its name of {name_bytes}", flush=True)
        one, many = restarted(one), restarted(many)
    one.end(signal.SIGTERM)
    many.end(signal.SIGTERM)


def timed_get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    begin = time.monotonic()
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read()
    took_ms = (time.monotonic() - begin) * 1e3
    assert answer.status == 200, text
    return json.loads(text), took_ms


def show_pages(server, what):
    pages = {
        "the first page": "",
        "prefix rooms/7": "prefix=rooms/7",
        "prefix rooms/7abc": "prefix=rooms/7abc",
        "a page in the middle": "after=rooms/8",
        "the last page": f"after={urllib.parse.quote('rooms/ffff')}",
        "1,000 topics": "prefix=rooms/3&limit=1000",
        "10,000 topics": "prefix=rooms/9&limit=10000",
    }
    for title, query in pages.items():
        times = []
        for _ in range(6):
            page, took_ms = timed_get(server.port, f"/api/v1/topics?{query}")
            times.append(took_ms)
        print(f"  {what}, {title}: {len(page['topics'])} topics, {times[0]:.2f} ms, then {statistics.median(times[1:]):.2f} ms", flush=True)
    return page


def list_topics():
    server = loaded()
    show_pages(server, "as loaded")
    server = restarted(server, cold=os.geteuid() == 0)
    show_pages(server, "after a start")
    total = TOPICS * EVENTS
    for share in (35, 55):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        retain = json.dumps({"retain": {"count": total - total * share // 100}})
        connection.request("PUT", "/api/v1/logs/main", body=retain, headers={"Content-Type": "application/json"})
        assert connection.getresponse().read()
        deadline = time.monotonic() + 60
        while timed_get(server.port, "/api/v1/logs/main")[0]["earliest"] < total * share // 100 - 1000:
            assert time.monotonic() < deadline, "retention did not come"
            time.sleep(0.1)
        page = show_pages(server, f"without the first {share} % of events")
        counts = {topic["count"] for topic in page["topics"]}
        assert counts <= set(range(EVENTS - EVENTS * share // 100 - 1, EVENTS - EVENTS * share // 100 + 2)), counts
    done(server)


def pipelined(server, requests, status, connections=64):
    """Sends all requests over some connections, without waiting for answers, which must be of this status; returns seconds, also of the processor."""
    texts = ["".join(requests[at::connections]).encode() for at in range(connections)]
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in texts]
    cpu, begin = cpu_seconds(server), time.monotonic()
    for each, text in zip(sockets, texts):
        threading.Thread(target=each.sendall, args=[text]).start()
    line = f"HTTP/1.1 {status}".encode()
    for at, each in enumerate(sockets):
        left, rest = len(requests[at::connections]), b""
        while left > 0:
            part = each.recv(1 << 16)
            assert part, "the server hung up"
            part = rest + part
            left -= part.count(line)
            rest = part[max(0, len(part) - len(line) + 1):]
        each.close()
    return time.monotonic() - begin, cpu_seconds(server) - cpu


def request(server, method, topic, text=""):
    head = f"{method} /api/v1/topics/{topic} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    return head + (f"Content-Type: application/json\r\nPrefer: return=minimal\r\nContent-Length: {len(text)}\r\n\r\n{text}" if text else "\r\n")


def requests():
    server = loaded()
    text, count, rounds = json.dumps({"text": DATA}), 100_000, 4
    totals = {"many": [0.0, 0.0], "one": [0.0, 0.0]}
    for turn in range(rounds + 1):
        for what, topic_of in (("many", lambda number: name((number * 7 + turn) % TOPICS)), ("one", lambda _: ONE)):
            taken = pipelined(server, [request(server, "POST", topic_of(number) + "/events", text) for number in range(count)], 204)
            if turn > 0:
                totals[what] = [known + more for known, more in zip(totals[what], taken)]
    for what, (seconds, cpu) in totals.items():
        print(f"  {what}: {count * rounds / seconds / 1e3:.0f}k requests/s, {cpu / count / rounds * 1e6:.2f} us of processor time each")
    slower, more = (totals["many"][at] / totals["one"][at] - 1 for at in range(2))
    print(f"  to {TOPICS} topics: {slower * 100:+.1f} % time, {more * 100:+.1f} % processor time")
    done(server)


def delete():
    count = min(TOPICS, 100_000)
    server = strandline()
    Load(server).append(body(name, 0, 0, count), count)
    # Somebody whom it does not concern.
    stream = socket.create_connection(("127.0.0.1", server.port))
    stream.sendall(f"GET /api/v1/events/stream?topic=other HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    share = count // 10
    for begin in range(0, count, share):
        took, cpu = pipelined(server, [request(server, "DELETE", name(number)) for number in range(begin, begin + share)], 204, 16)
        if begin in (0, share * 4, share * 9):
            print(f"  {begin} to {begin + share}: {share / took / 1e3:.1f}k a second, {cpu / share * 1e6:.1f} us of processor time each", flush=True)
    server.end(signal.SIGTERM)


def replay():
    server = loaded()
    wanted = [name(number * (TOPICS // 40) + 7) for number in range(40)]

    def show(what, topics):
        times = []
        for topic in topics:
            page, took_ms = timed_get(server.port, f"/api/v1/events/history?topic={topic}&limit=100")
            assert 0 < len(page["events"]) <= EVENTS, (topic, len(page["events"]))
            times.append(took_ms)
        print(f"  {what}: first {times[0]:.1f} ms, median {statistics.median(times):.1f} ms, at most {max(times):.1f} ms", flush=True)

    show("as loaded", wanted[:10])
    show("as loaded, again", wanted[:10])
    for at in range(10, 40, 10):
        server = restarted(server, cold=True)
        show("cold, each another topic", wanted[at:at + 10])
        show("the same again", wanted[at:at + 10])
    done(server)


if __name__ == "__main__":
    figures = {"append": append, "requests": requests, "memory": memory, "list": list_topics, "delete": delete, "replay": replay}
    chosen = sys.argv[1:] or list(figures)
    if any(each not in figures for each in chosen):
        raise SystemExit(__doc__)
    for each in chosen:
        print(f"== {each}", flush=True)
        figures[each]()
