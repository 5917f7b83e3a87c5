#!/usr/bin/env python3
"""The figures of docs/PERFORMANCE.md that need whole processes: who measures what is printed with each.

    benches/figures.py append     beside durable-streams-server and Redis, 1 to 256 publishers, one request in flight each,
                                  and 64 with eight pipelined
    benches/figures.py ndjson     four streams of lines, beside fio
    benches/figures.py recovery   start on an unsealed tail of 1 GiB, killed with SIGKILL
    benches/figures.py replay     one topic of 100 events out of a log of 5 million
    benches/figures.py fan-out    1,000 SSE subscribers at 100 events a second (cargo bench --bench fan_out)

Servers run with one shard on one core, the load (wrk, which sleeps in epoll) on the other. Peers take turns within
a round, so that both see the same weather; the median over rounds is shown with the lowest and the highest.
Needs: `cargo build --release`, wrk, fio, redis (Debian), durable-streams-server (`cargo install durable-streams`).
A peer that is not installed is left out.
`STRANDLINE_BENCH_DIR` names the directory for data: put it on the disk that is to be measured.
"""

import csv
import http.client
import json
import math
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "clients"))
from harness import binary, free_port  # noqa: E402

SERVER_CORE, CLIENT_CORE = "0", "1"
ROUNDS = int(os.environ.get("STRANDLINE_ROUNDS", "5"))
SECONDS = int(os.environ.get("STRANDLINE_SECONDS", "5"))
EVENT_BYTES = 256


def scratch() -> str:
    """A fresh data directory."""
    return tempfile.mkdtemp(prefix="strandline-bench-", dir=os.environ.get("STRANDLINE_BENCH_DIR"))


class Process:
    """A server on its core, gone at the end."""

    def __init__(self, command, port, data):
        self.port, self.data = port, data
        self.process = subprocess.Popen(["taskset", "-c", SERVER_CORE, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
                return
            except OSError:
                assert time.monotonic() < deadline and self.process.poll() is None, f"{command} did not start"
                time.sleep(0.01)

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Resident memory."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0

    def end(self, number=signal.SIGKILL, keep=False):
        self.process.send_signal(number)
        self.process.wait()
        if not keep:
            shutil.rmtree(self.data, ignore_errors=True)


def strandline(data=None, *arguments):
    port, data = free_port(), data or scratch()
    return Process([binary(), "serve", "--shards", "1", "--listen", f"127.0.0.1:{port}", "--data", data, *arguments], port, data)


def durable_streams():
    port, data = free_port(), scratch()
    server = Process(["durable-streams-server", "--port", str(port), "--data-dir", data, "--durability", "wal", "--worker-threads", "1", "--wal-shards", "1"], port, data)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", "/bench", headers={"Content-Type": "application/octet-stream"})
    assert connection.getresponse().status in (200, 201)
    return server


def redis():
    port, data = free_port(), scratch()
    return Process(["redis-server", "--port", str(port), "--dir", data, "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--logfile", os.devnull], port, data)


def wrk(port, path, publishers, content_type, pipelined=1):
    """One load: (events/s, p50 ms, p99 ms). wrk does not tell the latency of pipelined requests."""
    script = f'wrk.method="POST"\nwrk.body=string.rep("x",{EVENT_BYTES})\nwrk.headers["Content-Type"]="{content_type}"\n'
    if pipelined > 1:
        script += f'local all\ninit = function() local one = wrk.format(); all = string.rep(one, {pipelined}) end\nrequest = function() return all end\n'
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        out = subprocess.run(["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{publishers}", f"-d{SECONDS}s", "--latency", "-s", lua.name, f"http://127.0.0.1:{port}{path}"],
                             capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in out and "Socket errors" not in out, out
    to_ms = {"us": 1e-3, "ms": 1, "s": 1e3}
    quantile = lambda name: (lambda found: float(found[1]) * to_ms[found[2]])(re.search(rf"{name}%\s+([\d.]+)(us|ms|s)\b", out))
    p50, p99 = (quantile("50"), quantile("99")) if pipelined == 1 else (math.nan, math.nan)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), p50, p99


def xadd(port, publishers, pipelined, events):
    """The same by redis-benchmark, which ends after a number of events."""
    command = ["taskset", "-c", CLIENT_CORE, "redis-benchmark", "-p", str(port), "-c", str(publishers), "-P", str(pipelined), "-n", str(events), "--csv", "XADD", "bench", "*", "d", "x" * EVENT_BYTES]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout
    fields = next(csv.reader([out.strip().splitlines()[-1]]))
    return float(fields[1]), float(fields[4]), float(fields[6])


def append():
    by_wrk = lambda path, content_type: lambda port, publishers, pipelined: wrk(port, path, publishers, content_type, pipelined)
    by_xadd = lambda port, publishers, pipelined: xadd(port, publishers, pipelined, SECONDS * (4_000 if publishers == 1 else 60_000 * pipelined))
    peers = {
        "strandline": (strandline, by_wrk("/api/v1/topics/bench/append/events", "text/plain")),
        "durable-streams": (durable_streams, by_wrk("/bench", "application/octet-stream")),
        "redis": (redis, by_xadd),
    }
    for name, program in (("durable-streams", "durable-streams-server"), ("redis", "redis-server")):
        if not shutil.which(program):
            print(f"{program} is not installed")
            del peers[name]
    print(f"{EVENT_BYTES}-byte events, synced before the answer; {ROUNDS} rounds of {SECONDS} s, median (lowest to highest)")
    for publishers, pipelined in ((1, 1), (16, 1), (64, 1), (256, 1), (64, 8)):
        results = {name: [] for name in peers}
        for _ in range(ROUNDS):
            for name, (start, load) in peers.items():
                server = start()
                try:
                    before, began = server.cpu_s(), time.monotonic()
                    rate, p50, p99 = load(server.port, publishers, pipelined)
                    events = rate * (time.monotonic() - began if name == "redis" else SECONDS)
                    results[name].append((rate, p50, p99, (server.cpu_s() - before) * 1e6 / events, server.resident_mib()))
                finally:
                    server.end()
        of = lambda name, at: statistics.median(row[at] for row in results[name])
        for name, rows in results.items():
            rates = [row[0] for row in rows]
            print(f"{publishers:4} publishers x {pipelined}  {name:16} {of(name, 0):9.0f}/s ({min(rates):.0f} to {max(rates):.0f})  p50 {of(name, 1):6.2f}  p99 {of(name, 2):6.2f} ms  {of(name, 3):5.1f} us CPU each  {of(name, 4):5.0f} MiB", flush=True)
        for name in results.keys() - {"strandline"}:
            print(f"{'':17} {of('strandline', 0) / of(name, 0):.2f} x {name}", flush=True)


def ndjson():
    """Raw lines of JSON strings, four streams at once, beside what the disk takes of synced writes of a full frame."""
    streams = 4
    line = b'"' + b"x" * (EVENT_BYTES - 2) + b'"\n'
    part = line * (1 << 20 >> 8)
    part = b"%x\r\n%s\r\n" % (len(part), part)
    head = b"POST /api/v1/topics/bench/lines/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"

    def publish(port, counts):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                connection.sendall(part)
            connection.sendall(b"0\r\n\r\n")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            body = json.loads(answer.read())
            assert answer.status == 201, body
            counts.append(body["count"])

    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    for depth in (2, 4):
        data = scratch()
        out = subprocess.run(["fio", "--name=w", f"--filename={data}/f", "--rw=write", "--bs=128k", "--size=1g", "--direct=1", "--sync=dsync", "--ioengine=io_uring", f"--iodepth={depth}",
                              f"--runtime={SECONDS}", "--time_based", "--overwrite=1", f"--cpus_allowed={SERVER_CORE}", "--output-format=json"], capture_output=True, text=True, check=True).stdout
        shutil.rmtree(data)
        write_bytes_s = json.loads(out)["jobs"][0]["write"]["bw_bytes"]
        print(f"fio, O_DSYNC over written blocks, {depth} of 128 KiB in flight: {write_bytes_s / 1e6:.0f} MB/s; with the zeroing of new blocks counted in, half: {write_bytes_s / 2 / EVENT_BYTES:.0f} events/s", flush=True)
    rows = []
    for _ in range(ROUNDS):
        server = strandline()
        counts, before, began = [], server.cpu_s(), time.monotonic()
        threads = [threading.Thread(target=publish, args=(server.port, counts)) for _ in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed_s, cpu_s = time.monotonic() - began, server.cpu_s() - before
        assert len(counts) == streams
        rows.append((sum(counts) / elapsed_s, cpu_s * 1e6 / sum(counts), cpu_s / elapsed_s))
        server.end()
    rate, each_us, busy = (statistics.median(column) for column in zip(*rows))
    print(f"{streams} streams of lines: {rate:.0f} durable events/s ({min(row[0] for row in rows):.0f} to {max(row[0] for row in rows):.0f}), {rate * EVENT_BYTES / 1e6:.0f} MB/s, {each_us:.2f} us CPU each, core {busy:.0%} busy")


def fill(port, lines, parts_bytes=4 << 20):
    """Appends NDJSON lines of event objects as one stream."""
    def parts():
        part, size = [], 0
        for line in lines:
            part.append(line)
            size += len(line)
            if size >= parts_bytes:
                yield "".join(part).encode()
                part, size = [], 0
        yield "".join(part).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/api/v1/events", body=parts(), headers={"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}, encode_chunked=True)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 201, body
    return json.loads(body)


def recovery():
    size = 1 << 30
    server = strandline(None, "--segment-bytes", str(4 << 30))
    line = '{"topic":"bench/recovery/%d","data":"' + "x" * (EVENT_BYTES - 2) + '"}\n'
    directory = pathlib.Path(server.data)
    written, started = 0, time.monotonic()
    while used(directory) < size:
        fill(server.port, (line % (at % 100) for at in range(200_000)))
        written += 200_000
    print(f"{written} events of {EVENT_BYTES} bytes in {time.monotonic() - started:.1f} s; {used(directory) >> 20} MiB unsealed")
    server.end(keep=True)
    for _ in range(ROUNDS):
        copy = scratch()
        shutil.rmtree(copy)
        shutil.copytree(server.data, copy)
        subprocess.run(["sync"], check=True)
        port = free_port()
        begin = time.monotonic()
        process = subprocess.Popen(["taskset", "-c", SERVER_CORE, binary(), "serve", "--shards", "1", "--listen", f"127.0.0.1:{port}", "--data", copy], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        process.stdout.readline()
        print(f"from start to listening: {time.monotonic() - begin:.2f} s", flush=True)
        process.kill()
        process.wait()
        process.stdout.close()
        shutil.rmtree(copy)
    shutil.rmtree(server.data)


def used(directory):
    """Bytes of frames in the log's segments: up to the last byte that is not zero."""
    total = 0
    for path in directory.glob("*/*/*.log"):
        with open(path, "rb") as file:
            end = path.stat().st_size
            while end > 0:
                start = max(0, end - (1 << 20))
                file.seek(start)
                block = file.read(end - start).rstrip(b"\0")
                if block:
                    total += start + len(block)
                    break
                end = start
    return total


def replay():
    server = strandline()
    events, wanted = 5_000_000, 100
    every = events // wanted
    line, mine = '{"topic":"bench/other/%d","data":"' + "x" * (EVENT_BYTES - 2) + '"}\n', '{"topic":"bench/mine","data":%d}\n'
    begin = time.monotonic()
    for start in range(0, events, 500_000):
        fill(server.port, (mine % at if at % every == every // 2 else line % (at % 1000) for at in range(start, start + 500_000)))
    print(f"{events} events in {time.monotonic() - begin:.0f} s; {used(pathlib.Path(server.data)) >> 20} MiB")
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    times = []
    for _ in range(21):
        begin = time.monotonic()
        connection.request("GET", "/api/v1/events/history?topic=bench/mine&limit=1000")
        page = json.loads(connection.getresponse().read())
        times.append((time.monotonic() - begin) * 1e3)
        assert len(page["events"]) == wanted, len(page["events"])
    print(f"history of one topic of {wanted} events: first {times[0]:.1f} ms, then median {statistics.median(times[1:]):.1f} ms, at most {max(times[1:]):.1f} ms")
    server.end(signal.SIGTERM, keep=True)
    server = strandline(server.data)
    subprocess.run(["sync"], check=True)
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    begin = time.monotonic()
    connection.request("GET", "/api/v1/events/history?topic=bench/mine&limit=1000")
    assert len(json.loads(connection.getresponse().read())["events"]) == wanted
    print(f"first request after a restart: {(time.monotonic() - begin) * 1e3:.1f} ms")
    server.end()


def fan_out():
    subprocess.run(["cargo", "bench", "--quiet", "--bench", "fan_out"], check=True, cwd=ROOT)


if __name__ == "__main__":
    figures = {"append": append, "ndjson": ndjson, "recovery": recovery, "replay": replay, "fan-out": fan_out}
    if len(sys.argv) < 2 or any(name not in figures for name in sys.argv[1:]):
        raise SystemExit(__doc__)
    for name in sys.argv[1:]:
        print(f"== {name}", flush=True)
        figures[name]()
