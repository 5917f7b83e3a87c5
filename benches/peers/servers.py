"""Starts and stops each server on its core, and reads from /proc what it uses.

A server runs alone, from a fresh data directory on the disk that is measured, and is gone afterwards.
"""

import http.client
import os
import pathlib
import resource
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import threading
import time

import install

sys.path.insert(0, str(install.ROOT / "tests" / "clients"))
from harness import binary, free_port  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SERVER_CORE, CLIENT_CORE = "0", "1"
START_S_MAX = 30
# A server that grows past this is stopped, and the table says so: it would take the machine with it.
RESIDENT_BYTES_MAX = 4 << 30
# Sockets for 10,000 subscribers on either side: a child inherits it.
FILES_WANTED = 20_000


def raise_file_limit() -> int:
    """Raises the limit of open files as far as is allowed and needed; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def scratch() -> pathlib.Path:
    """A fresh directory on the disk that is measured: STRANDLINE_BENCH_DIR, or the system's for temporary files."""
    return pathlib.Path(tempfile.mkdtemp(prefix="strandline-peers-", dir=os.environ.get("STRANDLINE_BENCH_DIR")))


class Server:
    """One server process, with its children, on its core. A context manager."""

    def __init__(self, name: str, command: list, port: int, data: pathlib.Path):
        self.name, self.port, self.data = name, port, data
        self.resident_bytes_highest, self.over_limit = 0, False
        self.log = open(data / "log", "wb")
        self.process = subprocess.Popen(["taskset", "-c", SERVER_CORE, *map(str, command)], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        self.ended = threading.Event()
        try:
            self.await_listening()
        except BaseException:
            self.end()
            raise
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def await_listening(self) -> None:
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = (self.data / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{self.name} did not start: {said}") from None
                time.sleep(0.01)

    def processes(self) -> list[int]:
        """The process and its children: nginx works in one."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [self.process.pid, *map(int, children.read_text().split())]
        except OSError:
            return [self.process.pid]

    def resident_bytes(self) -> int:
        """Resident memory. What nginx's two processes share is counted where it is touched: in the larger one."""
        return max((status_kib(pid, "VmRSS:") for pid in self.processes()), default=0) * 1024

    def cpu_s(self) -> float:
        """CPU seconds used so far, in user and kernel mode, by every thread that it has or had."""
        return sum(map(cpu_s, self.processes()))

    def watch(self) -> None:
        while not self.ended.wait(0.05):
            resident = self.resident_bytes()
            self.resident_bytes_highest = max(self.resident_bytes_highest, resident)
            if resident > RESIDENT_BYTES_MAX:
                self.over_limit = True
                self.kill()
                return

    def kill(self) -> None:
        for pid in reversed(self.processes()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def end(self) -> None:
        self.ended.set()
        if self.process.poll() is None:
            self.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.data, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, 0 if it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status_kib(pid: int, name: str) -> int:
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def configured(name: str, **values) -> pathlib.Path:
    """Writes a config with its @placeholders@ filled in beside the data; returns its path."""

    class Placeholders(string.Template):
        pattern = r"@(?:(?P<named>[a-z]+)|(?P<braced>\b\B)|(?P<escaped>\b\B)|(?P<invalid>\b\B))@"

    path = pathlib.Path(values["data"]) / name
    path.write_text(Placeholders((HERE / name).read_text()).substitute(values))
    return path


def strandline() -> Server:
    port, data = free_port(), scratch()
    return Server("strandline", [binary(), "serve", "--shards", "1", "--listen", f"127.0.0.1:{port}", "--data", data / "log.d"], port, data)


def bare(program: str) -> Server:
    """No server, but what answers each append at once and keeps nothing (bare.rs, in the load's `program`)."""
    port, data = free_port(), scratch()
    return Server("bare", [program, "bare", "--listen", f"127.0.0.1:{port}"], port, data)


def durable_streams(*, tail_cache: bool = False) -> Server:
    """As its README and WAL_TUNING.md advise for one core and one disk.

    - `--durability wal` (its default): acknowledged once synced. `--worker-threads`: "<vCPUs>".
    - One WAL shard, "shard count = CPU cores": the load is one stream, and a stream has one shard.
    - The checkpoint by size and once a minute: "checkpoint cost is about 0".
    - `--tail-cache-bytes 65536`, for fan-out: "without it, N caught-up SSE subscribers each re-read and re-encode the same bytes"
      (ARCHITECTURE.md). With a thousand of them and 16 publishers it took its p99 from 9 s to 1.4 s and its memory to a third.
    """
    port, data = free_port(), scratch()
    cache = ["--tail-cache-bytes", 65536] if tail_cache else []
    server = Server("durable-streams", [
        install.DURABLE_STREAMS, "--port", port, "--data-dir", data / "streams", "--durability", "wal", "--worker-threads", 1, "--wal-shards", 1,
        "--wal-checkpoint-wal-bytes", 1 << 30, "--wal-checkpoint-interval-ms", 60_000, *cache], port, data)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    # Text: its live reads carry it as it is, where binary is base64 and JSON is parsed first.
    connection.request("PUT", "/bench", headers={"Content-Type": "text/plain"})
    answer = connection.getresponse()
    if answer.status not in (200, 201):
        server.end()
        raise RuntimeError(f"durable-streams refused the stream: {answer.status}")
    connection.close()
    return server


def redis() -> Server:
    port, data = free_port(), scratch()
    return Server("redis", ["redis-server", HERE / "redis.conf", "--port", port, "--dir", data], port, data)


def nats() -> Server:
    port, data = free_port(), scratch()
    server = Server("nats", [install.NATS_SERVER, "--config", configured("nats.conf", port=port, data=data)], port, data)
    try:
        # A stream as `nats stream add` makes it: on disk, by limits, one replica.
        answer = nats_request(port, "$JS.API.STREAM.CREATE.BENCH", b'{"name":"BENCH","subjects":["bench"],"storage":"file","retention":"limits","num_replicas":1}')
        if b'"error"' in answer:
            raise RuntimeError(f"nats refused the stream: {answer}")
    except BaseException:
        server.end()
        raise
    return server


def nats_request(port: int, subject: str, body: bytes) -> bytes:
    """One request of JetStream's API over a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\nSUB _INBOX.setup 1\r\nPUB %s _INBOX.setup %d\r\n%s\r\n' % (subject.encode(), len(body), body))
        said = b""
        while b"MSG _INBOX.setup" not in said or not said.endswith(b"\r\n"):
            more = connection.recv(65536)
            if not more:
                raise RuntimeError(f"nats hung up: {said}")
            said += more
        return said[said.index(b"MSG _INBOX.setup"):]


def nchan() -> Server:
    port, data = free_port(), scratch()
    # Its worker drops to another user when started by root, who must then reach the directory.
    data.chmod(0o755)
    config = configured("nginx.conf", port=port, data=data, files=raise_file_limit())
    server = Server("nchan", [install.found("nginx"), "-p", data, "-c", config], port, data)
    # The first process listens, the second works.
    deadline = time.monotonic() + START_S_MAX
    while len(server.processes()) < 2:
        if time.monotonic() > deadline:
            server.end()
            raise RuntimeError("nginx started no worker")
        time.sleep(0.01)
    return server


START = {"strandline": strandline, "durable-streams": durable_streams, "redis": redis, "nats": nats, "nchan": nchan}
