#!/usr/bin/env python3
"""What compaction saves, how fast it is, and what it and the scrub cost those who append meanwhile.

    benches/compaction.py            JSON events of a mix of kinds, and the Debian package index if `apt-cache` has one
    benches/compaction.py reading    the JSON events alone, and only what reading them costs before and after
    STRANDLINE_ROUNDS=5 STRANDLINE_SECONDS=4 benches/compaction.py

`STRANDLINE_SEGMENT_BYTES` makes the segments smaller than 256 MiB, and all of it quicker.
The server has one shard, on core 0. Needs `cargo build --release`. Each round starts three servers on the same full segments, one after
the other: one that leaves them alone, one that rewrites them, one that reads them again; 16 publishers append 2,000 events a second. The
publishers are first on core 0 too, so that core 1 is free for the thread that rewrites, then on core 1, so that no core is. What it costs
to read full segments is the server's CPU for all their events, as an NDJSON history and as an event stream, page cache warm, before and
after, in turns.
"""

import datetime
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

from figures import ROUNDS, SERVER_CORE, Process, binary, fill, free_port, scratch

from versions import interval

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "clients"))
from dataset import load  # noqa: E402

SECONDS = int(os.environ.get("STRANDLINE_SECONDS", "4"))
SEGMENT_BYTES = int(os.environ.get("STRANDLINE_SEGMENT_BYTES", 256 << 20))
BYTES = SEGMENT_BYTES * 11 // 4
NEVER = 1_000_000


def mix():
    """Events of five kinds such as an online shop may have, 202 bytes of JSON each on average, 158 of them data."""
    random.seed(7)
    now = 1_764_200_000.0
    pick, below, number = random.choice, random.randrange, random.getrandbits

    def trade():
        price = round(random.uniform(90, 900), 2)
        return {"symbol": pick(["AAPL", "MSFT", "TSLA", "GOOG", "AMZN"]), "price": price, "size": below(1, 5000), "side": pick(["buy", "sell"]), "venue": pick(["XNAS", "ARCX", "BATS"]), "id": below(10**9)}

    def order():
        items = [{"sku": f"SKU-{below(30000):05}", "qty": below(1, 5), "price": round(random.uniform(1, 200), 2)} for _ in range(below(1, 3))]
        return {"order": f"{number(48):012x}", "customer": below(10**6), "items": items, "currency": "EUR", "status": pick(["new", "paid", "shipped"])}

    def login():
        version = below(100, 130)
        agent = f"Mozilla/5.0 (X11; Linux x86_64; rv:{version}.0) Gecko/20100101 Firefox/{version}.0"
        return {"user": f"user{below(10000)}", "ip": ".".join(str(below(256)) for _ in range(4)), "agent": agent, "ok": random.random() < 0.95}

    def page():
        path = pick(["/", "/cart", "/checkout", f"/product/{below(9999)}"])
        return {"session": f"{number(64):016x}", "path": path, "referrer": "https://example.com/", "ms": below(20, 900), "status": pick([200, 200, 304, 404]), "country": pick(["DE", "FR", "US", "JP"])}

    def sensor():
        place = {"site": pick(["north", "south"]), "room": below(120)}
        return {"device": f"sensor-{below(2000):04}", "temperature": round(random.gauss(21, 3), 2), "humidity": round(random.gauss(45, 9), 1), "battery": below(101), "location": place, "rssi": -below(30, 90)}

    while True:
        now += random.random() / 50
        make = pick([trade, order, login, page, sensor])
        data = {**make(), "ts": datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec="milliseconds")}
        yield json.dumps({"topic": f"{make.__name__}s/{below(40)}", "type": make.__name__, "data": data}, separators=(",", ":")) + "\n"


def server(data, compress_after, scrub_interval=NEVER):
    """A server whose log is kept, in `<data>.out`."""
    port = free_port()
    command = [binary(), "serve", "--shards", "1", "--listen", f"127.0.0.1:{port}", "--data", data]
    command += ["--compress-after", str(compress_after), "--scrub-interval", str(scrub_interval)]
    command += ["--segment-bytes", str(SEGMENT_BYTES)]
    log = open(f"{data}.out", "w")
    return Process(command, port, data, cores="0,1", log=log)


def full_segments(lines):
    """A directory with at least `BYTES` in full segments, and how many events those are."""
    running, done = server(scratch(), NEVER), 0
    part, size = [], 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= BYTES // 8:
            fill(running.port, part)
            part, size = [], 0
            done = sum(path.stat().st_size for path in pathlib.Path(running.data).glob("*/*/*.1.log"))
            if done >= BYTES + SEGMENT_BYTES:
                break
    running.end(signal.SIGTERM, keep=True)
    return running.data


def copy_of(data):
    copy = scratch()
    shutil.rmtree(copy)
    shutil.copytree(data, copy)
    # Nothing of it is left to be written, and nothing is in memory.
    subprocess.run(["sync"], check=True)
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except PermissionError:
        pass
    return copy


READINGS = {
    "a history as NDJSON": ("/api/v1/events/history?order=asc", "application/x-ndjson", b"\n"),
    "an event stream": ("/api/v1/events/stream?from=0", "text/event-stream", b"\n\n"),
}


def reading(running, events, kind):
    """What the server uses for a reader of its first events: µs of CPU each, page cache warm."""
    path, accept, end = READINGS[kind]
    before = running.cpu_s()
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=120)
    connection.request("GET", path, headers={"Accept": accept})
    answer, done, rest = connection.getresponse(), 0, b""
    while done < events:
        part = answer.read1(1 << 20)
        assert part, f"{done} of {events} events"
        done += (rest + part).count(end)
        # An end may be in two parts, and none is counted twice.
        rest = b"" if part.endswith(end) else part[len(part) - len(end) + 1:]
    connection.close()
    return (running.cpu_s() - before) / events * 1e6


def saved(name, data):
    """Rewrites all full segments with nothing beside."""
    events = max(int(path.name.split(".")[0]) for path in pathlib.Path(data).glob("*/*/*.1.log"))
    plain, running = server(copy_of(data), NEVER), server(copy_of(data), 0)
    segments = len(list(pathlib.Path(data).glob("*/*/*.idx")))
    pattern = re.compile(r"^(\S+)Z .*a segment was rewritten.*bytes_before=(\d+) bytes_after=(\d+)")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = [line for line in open(f"{running.data}.out").read().splitlines() if pattern.match(line)]
        if len(lines) >= segments:
            break
        time.sleep(0.05)
    found = [pattern.match(line).groups() for line in lines]
    before, after = (sum(int(each[place]) for each in found) for place in (1, 2))
    # From one to the next: the first also has what the start does.
    times = [datetime.datetime.fromisoformat(each[0]) for each in found]
    rate = (before - int(found[0][1])) / (times[-1] - times[0]).total_seconds() / 1e6
    print(f"{name}: {before} bytes in {segments} segments become {after}, {after / before:.1%}; {rate:.0f} MB of input a second", flush=True)
    for kind in READINGS:
        turns = [(reading(plain, events, kind), reading(running, events, kind)) for _ in range(ROUNDS + 1)]
        plain_us, rewritten_us = (statistics.median(each) for each in zip(*turns[1:]))
        times = " ".join(f"{rewritten / plain:.2f}" for plain, rewritten in turns[1:])
        print(f"  a reader of {events} of its events, {kind}: {rewritten_us:.3f} µs of CPU each, {plain_us:.3f} before: {rewritten_us / plain_us:.2f} times ({times})", flush=True)
    plain.end()
    running.end()


def verified(data):
    """How long `strandline verify` takes for a directory that nobody has open, page cache warm."""
    times = []
    for _ in range(ROUNDS + 1):
        began = time.monotonic()
        subprocess.run([binary(), "verify", data], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.monotonic() - began)
    size = sum(path.stat().st_size for path in pathlib.Path(data).glob("*/*/*.log"))
    print(f"verify: {size / 1e9:.2f} GB in {statistics.median(times[1:]):.2f} s, both cores", flush=True)


def latency(data, core, compress_after, scrub_interval=NEVER):
    running = server(copy_of(data), compress_after, scrub_interval)
    time.sleep(0.3)
    command = ["taskset", "-c", core, binary(), "bench", "append", "--url", f"http://127.0.0.1:{running.port}", "--server-pid", str(running.process.pid)]
    command += ["--publishers", "16", "--rate", "2000", "--warmup", "1", "--seconds", str(SECONDS), "--json"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    running.end()
    ack = report["points"][0]["ack"]
    return ack["p50_ms"], ack["p99_ms"]


def beside(data):
    """Acknowledgements while segments are rewritten, and while they are scrubbed: in turns, each compared with its own round's."""
    for core, what in ((SERVER_CORE, "a core is free"), ("1", "no core is free")):
        found = {"alone": [], "rewriting": [], "scrubbing": []}
        for _ in range(ROUNDS):
            found["alone"].append(latency(data, core, NEVER))
            found["rewriting"].append(latency(data, core, 0))
            found["scrubbing"].append(latency(data, core, NEVER, 1))
        print(f"acknowledgements of 2,000 appends a second, ms, {what}:")
        for name, each in found.items():
            ratios = [p99 / alone for (_, p99), (_, alone) in zip(each, found["alone"])]
            low, high = interval(ratios)
            p50, p99 = (statistics.median(one[place] for one in each) for place in (0, 1))
            print(f"  {name:>10}: p50 {p50:.2f}, p99 {p99:.2f}, {statistics.median(ratios):.2f} times ({low:.2f} to {high:.2f}) of alone; {' '.join(f'{p99:.2f}' for _, p99 in each)}", flush=True)


def main(parts):
    data = full_segments(mix())
    if "sizes" in parts:
        verified(data)
    if {"sizes", "reading"} & set(parts):
        saved("JSON events of five kinds", data)
    if "beside" in parts:
        beside(data)
    shutil.rmtree(data)
    if "sizes" in parts and shutil.which("apt-cache"):
        packages = [f'{{"topic":{json.dumps(topic)},"data":{data}}}\n' for topic, data in load()]
        data = full_segments(line for _ in range(100) for line in packages)
        saved("the Debian package index", data)
        shutil.rmtree(data)


if __name__ == "__main__":
    main(sys.argv[1:] or ["sizes", "beside"])
