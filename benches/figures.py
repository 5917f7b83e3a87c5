#!/usr/bin/env python3
"""The figures of docs/PERFORMANCE.md that need whole processes: who measures what is printed with each.

    benches/figures.py recovery   start on an unsealed tail of 1 GiB, killed with SIGKILL
    benches/figures.py replay     one topic of 100 events out of a log of 5 million
    benches/figures.py idle       what the memory of 4,000 to 16,000 idle subscribers is, by the kernel's list of mappings

Servers run with one shard on one core, the load on the other. Needs: `cargo build --release`. The comparison with other
servers is benches/peers/run.py.
`STRANDLINE_BENCH_DIR` names the directory for data: put it on the disk that is to be measured.
"""

import http.client
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "clients"))
from harness import binary, free_port  # noqa: E402

SERVER_CORE = "0"
ROUNDS = int(os.environ.get("STRANDLINE_ROUNDS", "5"))
EVENT_BYTES = 256


def scratch() -> str:
    """A fresh data directory."""
    return tempfile.mkdtemp(prefix="strandline-bench-", dir=os.environ.get("STRANDLINE_BENCH_DIR"))


class Process:
    """A server on its core, gone at the end."""

    def __init__(self, command, port, data, cores=SERVER_CORE, log=subprocess.DEVNULL):
        self.port, self.data = port, data
        self.process = subprocess.Popen(["taskset", "-c", cores, *command], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
                return
            except OSError:
                assert time.monotonic() < deadline and self.process.poll() is None, f"{command} did not start"
                time.sleep(0.01)

    def cpu_s(self):
        """What it has used so far, of user and of system."""
        user, system = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def end(self, number=signal.SIGKILL, keep=False):
        self.process.send_signal(number)
        self.process.wait()
        if not keep:
            shutil.rmtree(self.data, ignore_errors=True)


def strandline(data=None, *arguments):
    port, data = free_port(), data or scratch()
    return Process([binary(), "serve", "--shards", "1", "--listen", f"127.0.0.1:{port}", "--data", data, *arguments], port, data)


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


def idle():
    for transport in ("sse", "ws"):
        for subscribers in (4000, 8000, 12000, 16000):
            server = strandline()
            time.sleep(1)  # It has come to rest.
            before = resident(server)
            load = [binary(), "bench", "idle", "--subscribers", str(subscribers), "--transport", transport, "--hang-ups", "0"]
            bench = subprocess.Popen([*load, "--url", f"http://127.0.0.1:{server.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            most = before
            while bench.poll() is None:
                most = max(most, resident(server), key=lambda kib: sum(kib.values()))
                time.sleep(0.2)
            assert bench.returncode == 0, "the load failed"
            grown = {kind: most[kind] - before[kind] for kind in most}
            print(f"{subscribers} by {transport}: heap {grown['heap']} KiB more, the program itself {grown['program']} KiB more", flush=True)
            server.end()


def resident(server):
    """KiB of its memory that is there: what it allocated, and files, which are its own code and constants."""
    found, kind = {"heap": 0, "program": 0}, None
    for line in pathlib.Path(f"/proc/{server.process.pid}/smaps").read_text().splitlines():
        name, value = line.split(maxsplit=1)
        if name == "Rss:":
            found[kind] += int(value.split()[0])
        elif not name.endswith(":"):
            kind = "program" if "/" in value else "heap"
    return found


if __name__ == "__main__":
    figures = {"recovery": recovery, "replay": replay, "idle": idle}
    if len(sys.argv) < 2 or any(name not in figures for name in sys.argv[1:]):
        raise SystemExit(__doc__)
    for name in sys.argv[1:]:
        print(f"== {name}", flush=True)
        figures[name]()
