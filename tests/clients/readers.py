"""Starts the reader programs, one per client that users have."""

import os
import pathlib
import subprocess
import sys

from harness import wait_for_end

HERE = pathlib.Path(__file__).resolve().parent
PYTHON_CLIENTS = ("curl", "httpx-sse", "websockets")
NODE_CLIENTS = ("eventsource", "ws", "chromium-sse", "chromium-ws")
CLIENTS = PYTHON_CLIENTS + NODE_CLIENTS
# Read event streams alone, for the sake of what they decode.
DECODING_CLIENTS = ("curl", "httpx-sse", "requests", "eventsource", "node-fetch", "chromium-sse", "chromium-fetch")


class ReaderProcess:
    """A reader that writes what it sees into a file."""

    def __init__(self, client: str, base: str, out: pathlib.Path, topic: str = "**", count: int = -1,
                 cut_every: int = 0, seed: int = 1, start: str = "earliest", accept: str | None = None):
        program = [sys.executable, str(HERE / "py_client.py")]
        environment = dict(os.environ)
        if client in NODE_CLIENTS or client in ("node-fetch", "chromium-fetch"):
            # The npm packages live outside the checkout (tests/run installs them there).
            modules = os.environ.get("STRANDLINE_NODE_DIR")
            program = ["node", str(pathlib.Path(modules or HERE) / "node_client.mjs")]
        self.client, self.out = client, out
        self.errors = out.with_suffix(".err")
        with open(out, "wb") as stdout, open(self.errors, "wb") as stderr:
            self.process = subprocess.Popen(
                [*program, client, f"--base={base}", f"--topic={topic}", f"--count={count}",
                 f"--cut-every={cut_every}", f"--seed={seed}", f"--start={start}",
                 *([f"--accept={accept}"] if accept else [])],
                stdout=stdout, stderr=stderr, env=environment)

    def wait(self, timeout_s: float) -> list[tuple[int, str]]:
        """Waits for its end; returns the (offset, data) pairs in the order in which they came."""
        try:
            code = wait_for_end(self.process, timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            seen = len(self.pairs())
            raise AssertionError(f"{self.client} was not done after {timeout_s} s, with {seen} events") from None
        assert code == 0, f"{self.client} ended with {code}: {self.errors.read_text()[-2000:]}"
        return self.pairs()

    def pairs(self) -> list[tuple[int, str]]:
        """What it has seen so far."""
        lines = self.out.read_bytes().decode().split("\n")
        return [(int(offset), data) for offset, _, data in (line.partition("\t") for line in lines[:-1])]

    def cuts(self) -> int:
        """How often it cut its own connection."""
        for line in self.errors.read_text().splitlines():
            if line.startswith("cuts="):
                return int(line.removeprefix("cuts="))
        return 0

    def encodings(self) -> list[str]:
        """How the event streams came that have begun so far; only said with `accept`."""
        lines = self.errors.read_text().splitlines()
        return [line.removeprefix("encoding=") for line in lines if line.startswith("encoding=")]

    def stop(self) -> None:
        """Ends it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
