#!/usr/bin/env python3
"""A long mixed load with retention on, and a plot of what it did to memory, files and latency.

    benches/soak.py                      30 minutes, plot in docs/soak.svg
    benches/soak.py --minutes 2 --plot /tmp/soak.svg

Needs `cargo build --release` and matplotlib (`pip install matplotlib`). One server with one shard on core 0. Beside each other:

- 300 SSE subscribers of a topic with 100 events a second (`strandline bench fanout`, on core 1: every delivery is checked for gaps,
  repeats and order, and timed),
- 1,500 events a second in NDJSON bodies: topics of which the latest of each of 200 keys is kept, topics that keep 100 events,
- 50 appends a second with event ids, each tenth sent twice: the second must be answered with the first one's offset,
- a room every two seconds: made, filled, deleted a minute later; a topic that is trimmed every ten seconds,
- a reader that catches up over the last events, and one of histories, four times a second.

The log keeps 64 MiB in segments of 4 MiB, which are compressed after a minute; all of it is read again every five minutes. What the
server says of itself is read every ten seconds. Fails if an answer is not what it should be, if the server logs an error or a warning (but of a full disk), if a delivery
was wrong, or if `strandline verify` finds damage afterwards.
"""

import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "clients"))
from harness import binary, free_port  # noqa: E402

SAMPLE_EVERY_S = 10
RETAIN = {"bytes": 64 << 20}
SEGMENT_BYTES = 4 << 20


class Api:
    """One kept connection to the server."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def call(self, method, path, body=None, expect=(200, 201), **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, dict):
            body, headers["content-type"] = json.dumps(body), "application/json"
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        content = response.read()
        if response.status not in expect:
            raise AssertionError(f"{method} {path}: {response.status} {content[:300]!r}")
        return response, content


class Load:
    """Threads that do one thing each, again and again, until the end."""

    def __init__(self, port):
        self.port, self.ended, self.errors, self.done, self.threads = port, threading.Event(), [], collections.Counter(), []

    def every(self, seconds, make):
        """Calls what `make(api)` gives every so many seconds."""

        def run():
            try:
                step, due = make(Api(self.port)), time.monotonic()
                while not self.ended.is_set():
                    step()
                    self.done[make.__name__] += 1
                    due = max(due + seconds, time.monotonic())
                    self.ended.wait(due - time.monotonic())
            except Exception as error:  # noqa: BLE001: whatever it is, the soak has failed
                self.errors.append(f"{make.__name__}: {error!r}")
                self.ended.set()

        self.threads.append(threading.Thread(target=run, name=make.__name__))
        self.threads[-1].start()

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def ndjson(lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


def latest_of_each_key(api):
    def step():
        lines = [{"key": f"k{random.randrange(200)}", "data": {"at": time.time(), "value": random.random(), "text": "x" * random.randrange(300)}} for _ in range(250)]
        api.call("POST", f"/api/v1/topics/state/{random.randrange(20)}/events", ndjson(lines), content_type="application/x-ndjson")

    return step


def topics_that_keep_a_hundred(api):
    def step():
        lines = [{"type": "counted", "data": {"n": number, "text": "y" * random.randrange(200)}} for number in range(125)]
        api.call("POST", f"/api/v1/topics/counted/{random.randrange(200)}/events", ndjson(lines), content_type="application/x-ndjson")

    return step


def exactly_once(api):
    number = 0

    def step():
        nonlocal number
        number += 1

        def send():
            _, content = api.call("POST", "/api/v1/topics/once/events", f"payload {number}", event_id=f"id-{number}", content_type="text/plain")
            return json.loads(content)

        first = send()
        if number % 10 == 0:
            again = send()
            assert again["offset"] == first["offset"] and again.get("duplicate"), f"{first} and then {again}"

    return step


def rooms_that_go(api):
    number, alive = 0, collections.deque()

    def step():
        nonlocal number
        number += 1
        lines = [{"data": {"said": "hello", "n": n}} for n in range(50)]
        api.call("POST", f"/api/v1/topics/rooms/{number}/events", ndjson(lines), content_type="application/x-ndjson")
        alive.append(number)
        if len(alive) > 30:
            gone = alive.popleft()
            api.call("DELETE", f"/api/v1/topics/rooms/{gone}", expect=(200, 204))
            _, content = api.call("GET", f"/api/v1/events/history?topic=rooms/{gone}")
            assert not json.loads(content)["events"], f"room {gone} was deleted: {content[:200]!r}"

    return step


def a_topic_that_is_trimmed(api):
    def step():
        lines = [{"data": "z" * 200} for _ in range(500)]
        _, content = api.call("POST", "/api/v1/topics/trimmed/events", ndjson(lines), content_type="application/x-ndjson")
        last = json.loads(content)["last"]
        api.call("POST", f"/api/v1/topics/trimmed/trim?before={last}", "", expect=(200, 204))

    return step


def readers_of_history(api):
    def step():
        topic = random.choice(["once", f"state/{random.randrange(20)}", f"counted/{random.randrange(200)}"])
        api.call("GET", f"/api/v1/events/history?topic={topic}&order=desc&limit=100")

    return step


def readers_that_catch_up(api):
    def step():
        _, content = api.call("GET", "/api/v1/logs/main")
        visible = json.loads(content)["durable"]
        connection = http.client.HTTPConnection("127.0.0.1", api.connection.port, timeout=30)
        connection.request("GET", f"/api/v1/events/stream?from={max(0, visible - 2000)}&topic=**", headers={"accept": "text/event-stream"})
        response, last = connection.getresponse(), -1
        assert response.status == 200, f"{response.status} {response.read()[:200]!r}"
        offset, is_control = None, False
        for _ in range(400):
            line = response.readline()
            if line.startswith(b"id:"):
                offset = int(re.search(rb"-?\d+", line).group())
            elif line.startswith((b"event: connection.", b"event: ping")):
                is_control = True
            elif line == b"\n":
                # What is no event stands at a cursor: just behind the last event, or further.
                if offset is not None:
                    assert offset >= last if is_control else offset > last, f"{offset} behind {last}"
                    last = offset
                offset, is_control = None, False
        connection.close()

    return step


def sample(api, pid, data):
    """What the server says of itself, and what its process and directory take."""
    _, text = api.call("GET", "/metrics")
    values = dict(re.findall(rb"^(strandline_\w+) (\S+)$", text, re.M))
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    files = [path for path in data.rglob("*") if path.is_file()]
    value = lambda name: float(values[b"strandline_" + name])  # noqa: E731
    return {
        "resident_mib": int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024,
        "open_files": len(os.listdir(f"/proc/{pid}/fd")),
        "files": len(files),
        "disk_mib": sum(path.stat().st_blocks * 512 for path in files if path.exists()) / (1 << 20),
        "segments": value(b"log_segments"),
        "topics": value(b"log_topics"),
        "events": value(b"events_total"),
        "compacted": value(b"compacted_segments_total"),
    }


def plot(samples, series, path):
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(13, 6.5), sharex=True, constrained_layout=True)
    minutes = [point["at_s"] / 60 for point in samples]

    def own(axis, title, unit, *names):
        for name in names:
            axis.plot(minutes, [point[name] for point in samples], label=name.replace("_", " "))
        axis.set(title=title, ylabel=unit, ylim=(0, None))

    own(axes[0][0], "Resident memory", "MiB", "resident_mib")
    own(axes[0][1], "Disk", "MiB", "disk_mib")
    own(axes[0][2], "Files", "number", "files", "open_files", "segments")
    axes[0][2].legend()
    for axis, kind, title in ((axes[1][0], "ack", "Acknowledgement"), (axes[1][1], "receipt", "Delivery to 300 subscribers")):
        for name in ("p50_ms", "p99_ms"):
            axis.plot([point["at_s"] / 60 for point in series], [point[kind][name] for point in series], label=name[:3])
        axis.set(title=title, ylabel="ms", yscale="log", xlabel="minutes")
        axis.legend()
    own(axes[1][2], "Topics", "number", "topics")
    axes[1][2].set(xlabel="minutes")
    figure.savefig(path, metadata={"Date": None})


def summary(samples, series):
    """First against last third, once the log is as large as it may be."""
    third = len(samples) // 3
    print(f"{'':>14} {'second third':>14} {'last third':>14}")

    def mean(points, get):
        return sum(get(point) for point in points) / len(points)

    for name in ("resident_mib", "disk_mib", "files", "open_files", "segments", "topics"):
        print(f"{name:>14} {mean(samples[third : 2 * third], lambda p: p[name]):14.1f} {mean(samples[2 * third :], lambda p: p[name]):14.1f}")
    third = len(series) // 3
    for kind in ("ack", "receipt"):
        for name in ("p50_ms", "p99_ms"):
            median = lambda points: sorted(point[kind][name] for point in points)[len(points) // 2]  # noqa: E731
            print(f"{kind + ' ' + name:>14} {median(series[third : 2 * third]):14.2f} {median(series[2 * third :]):14.2f}   (medians of ten seconds each)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--plot", type=pathlib.Path, default=ROOT / "docs" / "soak.svg")
    arguments = parser.parse_args()
    seconds = int(arguments.minutes * 60)
    data = pathlib.Path(tempfile.mkdtemp(prefix="strandline-soak-", dir=os.environ.get("STRANDLINE_BENCH_DIR")))
    port, server_log = free_port(), open(data.with_suffix(".out"), "w+")
    command = [binary(), "serve", "--listen", f"127.0.0.1:{port}", "--data", data, "--shards", "1", "--segment-bytes", SEGMENT_BYTES]
    command += ["--compress-after", 60, "--scrub-interval", 300]
    server = subprocess.Popen(["taskset", "-c", "0", *map(str, command)], stdout=server_log, stderr=subprocess.STDOUT)
    while True:
        try:
            api = Api(port)
            api.call("GET", "/readyz")
            break
        except OSError:
            time.sleep(0.05)
            assert server.poll() is None, "the server did not start"
    api.call("PUT", "/api/v1/logs/main", {"retain": RETAIN})
    api.call("PUT", "/api/v1/topics/state/**", {"retain": {"latest_per_key": True}})
    api.call("PUT", "/api/v1/topics/counted/**", {"retain": {"count": 100}})
    fanout = [binary(), "bench", "fanout", "--url", f"http://127.0.0.1:{port}", "--server-pid", server.pid, "--subscribers", 300]
    fanout += ["--rate", 100, "--seconds", seconds, "--warmup", 2, "--interval", SAMPLE_EVERY_S, "--json"]
    # Not a pipe: half an hour makes a longer report than a pipe holds.
    report = open(data.with_suffix(".json"), "w+")
    bench = subprocess.Popen(["taskset", "-c", "1", *map(str, fanout)], stdout=report, stderr=subprocess.DEVNULL)
    load, start, samples = Load(port), time.monotonic(), []
    load.every(0.25, latest_of_each_key)
    load.every(0.25, topics_that_keep_a_hundred)
    load.every(0.02, exactly_once)
    load.every(2, rooms_that_go)
    load.every(10, a_topic_that_is_trimmed)
    load.every(0.25, readers_of_history)
    load.every(0.25, readers_that_catch_up)
    try:
        while bench.poll() is None and not load.ended.wait(SAMPLE_EVERY_S):
            samples.append({"at_s": time.monotonic() - start, **sample(api, server.pid, data)})
            print(" ".join(f"{name} {value:,.0f}" for name, value in samples[-1].items()), flush=True)
        load.end()
        assert not load.errors, load.errors
        assert bench.wait() == 0, "the subscribers' side failed"
        report.seek(0)
        measured = json.load(report)
    finally:
        load.end()
        bench.kill()
        server.send_signal(signal.SIGTERM)
        server.wait()
    assert server.returncode == 0, f"the server ended with {server.returncode}"
    assert not measured["violations"], measured["violations"][:10]
    server_log.seek(0)
    series = measured["points"][0]["series"]
    print(f"{samples[-1]['events']:,.0f} events, {measured['points'][0]['deliveries']:,} deliveries; {dict(load.done)}")
    summary(samples, series)
    plot(samples, series, arguments.plot)
    # How full the machine's disk is, is not the server's doing.
    bad = [line for line in server_log if (" ERROR " in line or " WARN " in line) and "the disk is filling up" not in line]
    assert not bad, bad[:10]
    verified = subprocess.run([binary(), "verify", data, "--json"], capture_output=True, check=False)
    assert verified.returncode == 0, verified
    shutil.rmtree(data)


if __name__ == "__main__":
    main()
