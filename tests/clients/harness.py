"""Starts, kills and asks the server under test, for every suite in Python.

`STRANDLINE_BIN` names the binary (default: target/release/strandline, then target/debug).
"""

import contextlib
import fcntl
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binary() -> str:
    """The path of the server's binary."""
    named = os.environ.get("STRANDLINE_BIN")
    if named:
        return named
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for profile in ("release", "debug"):
        path = target / profile / "strandline"
        if path.exists():
            return str(path)
    raise SystemExit("no binary: run `cargo build --release` or set STRANDLINE_BIN")


def free_port() -> int:
    """A free port that no connection is given for its own end, as it could be while the server is down."""
    first = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    own = random.sample(range(10_000, first), 100) if first > 10_100 else []
    for port in (*own, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise RuntimeError("no port is free")


# What nothing takes, however busy the machine is.
HANGS_S = 900


def free_s() -> float:
    """For how many seconds a processor has had nothing to do since the machine was started, on average; those in which it waited for a disk not counted."""
    return float(pathlib.Path("/proc/uptime").read_text().split()[1]) / os.cpu_count()


class Patience:
    """How long something is waited for: so many seconds in which a processor was free. Rewrites, backups and others that make way for
    everything else may get none for minutes where other programs take all of it."""

    # Whether something hung, and kept all processors busy: what is waited for behind it has its seconds by the clock.
    has_hung = False

    def __init__(self, seconds: float):
        self.free_until_s = free_s() + seconds
        self.until_s = time.monotonic() + (seconds if Patience.has_hung else HANGS_S)

    def is_over(self) -> bool:
        """Whether it has had its time."""
        if time.monotonic() > self.until_s:
            Patience.has_hung = True
            return True
        return free_s() > self.free_until_s


def wait_for(condition, seconds: float = 10, every_s: float = 0.02, told=lambda: None):
    """Waits until something is true, and returns it."""
    patience = Patience(seconds)
    while not (value := condition()):
        assert not patience.is_over(), told()
        time.sleep(every_s)
    return value


def wait_for_end(process: subprocess.Popen, seconds: float) -> int:
    """Waits until a process has ended; returns its exit code."""
    patience = Patience(seconds)
    while True:
        try:
            return process.wait(0.5)
        except subprocess.TimeoutExpired:
            if patience.is_over():
                raise


def patiently(seconds: float, once, *arguments):
    """What `once` returns: it is tried again where it raises a TimeoutError, and has so many seconds from the first one on."""
    patience = None
    while True:
        try:
            return once(*arguments)
        except TimeoutError:
            patience = patience or Patience(seconds)
            if patience.is_over():
                raise


class PatientSocket(socket.socket):
    """A connection to the server, which has so many seconds (see `Patience`) for whatever is waited for next: more of its answer, or that it
    takes more."""

    def __init__(self, port: int, seconds: float, receive_bytes: int | None = None, address: str = "127.0.0.1"):
        super().__init__(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seconds = seconds
        if receive_bytes:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.settimeout(HANGS_S)
        self.connect((address, port))
        self.settimeout(0.5)

    def recv(self, *arguments):
        return patiently(self.seconds, super().recv, *arguments)

    def recv_into(self, *arguments):
        return patiently(self.seconds, super().recv_into, *arguments)

    def sendall(self, data):
        rest = memoryview(data)
        while rest:
            rest = rest[patiently(self.seconds, self.send, rest):]


class Connection(http.client.HTTPConnection):
    """Requests one after the other, on a connection that is patient."""

    def __init__(self, port: int, seconds: float):
        super().__init__("127.0.0.1", port)
        self.seconds = seconds

    def connect(self):
        self.sock = PatientSocket(self.port, self.seconds)


class Server:
    """A server process on a data directory of its own; a context manager."""

    def __init__(self, *arguments: str, data: str | None = None, port: int | None = None):
        self.arguments = arguments
        self.own_data = data is None
        self.data = data or tempfile.mkdtemp(prefix="strandline-test-")
        self.process: subprocess.Popen | None = None
        while True:
            self.port = port or free_port()
            self.log = open(os.path.join(tempfile.gettempdir(), f"strandline-test-{self.port}.log"), "ab")
            # Whoever has it has the port, though nobody listens there yet.
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if port:
                break
            self.log.close()

    @property
    def base(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout_s: float = 30) -> "Server":
        """Starts it and waits for the line that says that it listens."""
        self.process = subprocess.Popen(
            [binary(), "serve", "--listen", f"127.0.0.1:{self.port}", "--data", self.data, *self.arguments],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        os.set_blocking(self.process.stdout.fileno(), False)
        line, patience = "", Patience(timeout_s)
        while not patience.is_over():
            # A text stream cannot be read without blocking: what it decodes may be nothing.
            with contextlib.suppress(BlockingIOError):
                line += os.read(self.process.stdout.fileno(), 4096).decode()
            if "strandline listening" in line and "\n" in line:
                return self
            if self.process.poll() is not None:
                raise RuntimeError(f"server ended with {self.process.returncode}: see {self.log.name}")
            time.sleep(0.005)
        raise RuntimeError("server did not say that it listens")

    def kill(self) -> None:
        """`kill -9`, and waits until it is gone."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def terminate(self, timeout_s: float = 12) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = wait_for_end(self.process, timeout_s)
        self.process.stdout.close()
        self.process = None
        return code

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *exc) -> None:
        self.kill()
        self.log.close()
        if self.own_data:
            shutil.rmtree(self.data, ignore_errors=True)

    def request(self, method: str, path: str, body=None, headers: dict | None = None, timeout_s: float = 30):
        """One request on a connection of its own; returns (status, headers, body bytes)."""
        connection = Connection(self.port, timeout_s)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body=None, headers: dict | None = None):
        """One request whose answer is JSON; returns (status, value)."""
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body), {"Content-Type": "application/json", **(headers or {})}
        status, _, answer = self.request(method, path, body, headers)
        return status, json.loads(answer) if answer else None

    def append(self, topic: str, data, **headers: str) -> int:
        """Appends one raw event; returns its offset."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, _, answer = self.request("POST", f"/api/v1/topics/{topic}/events", data, named)
        assert status == 201, (status, answer)
        return json.loads(answer)["offset"]

    def exchange(self, raw: bytes, wait_s: float = 5, end_write: bool = False, last: bytes | None = None) -> bytes:
        """Sends raw bytes and returns all that comes until the server closes or is silent, or up to what is to come last."""
        with PatientSocket(self.port, wait_s) as stream:
            try:
                stream.sendall(raw)
                if end_write:
                    stream.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass
            got = b""
            try:
                while (last is None or last not in got) and (part := stream.recv(65536)):
                    got += part
            except (TimeoutError, ConnectionResetError):
                pass
            return got
