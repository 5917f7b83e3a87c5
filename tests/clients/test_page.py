"""The built-in page against a real server: what is appended in it, and what it shows after a `kill -9`."""

import json
import os
import pathlib
import subprocess
import time

import pytest

from harness import Patience, Server, wait_for_end
from readers import HERE

ROWS = 'return [...document.querySelectorAll("#events li")].map((row) => Number(row.dataset.offset)).reverse()'
APPEND = """for (const [id, value] of Object.entries(%s)) document.getElementById(id).value = value;
document.querySelector("#append button").click();"""
ANSWER = 'return document.querySelector("#append button").disabled ? null : document.getElementById("answer").textContent'


class Page:
    """The page at `/`; a context manager."""

    def __init__(self, server: Server):
        # The npm packages live outside the checkout (tests/run installs them there).
        program = pathlib.Path(os.environ.get("STRANDLINE_NODE_DIR") or HERE) / "page.mjs"
        self.process = subprocess.Popen(["node", program, server.base + "/"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            wait_for_end(self.process, 30)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def run(self, body: str):
        """What a function with this body returns in the page."""
        self.process.stdin.write(json.dumps(body) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def until(self, body: str, wanted, timeout_s: float = 30):
        """Waits until the body returns what is wanted; returns it."""
        patience = Patience(timeout_s)
        while not wanted(got := self.run(body)):
            assert not patience.is_over(), got
            time.sleep(0.1)
        return got

    def append(self, **fields: str) -> str:
        """Fills the form and sends it; returns the answer shown."""
        self.run(APPEND % json.dumps(fields))
        return self.until(ANSWER, lambda answer: answer)


@pytest.fixture
def server():
    with Server("--shards", "2") as server:
        yield server


def test_the_form_appends_what_was_typed(server):
    """JSON as its bytes stand, text, custom types; a topic that is none is refused, and is no other topic"""
    with Page(server) as page:
        for offset, (data, kind, content_type) in enumerate([
            ('{"n": 12345678901234567890}', "", "application/json"), ("plain ☃ <b>", "grüß", "text/plain;charset=utf-8"), ("", "", None),
        ]):
            assert f'"offset":{offset},' in page.append(topic="demo/#a?b", type=kind, data=data)
            event = server.json("GET", f"/api/v1/events/history?from={offset}")[1]["events"][0]
            assert event["topic"] == "demo/#a?b" and event["type"] == (kind or "message")
            assert content_type is None or event["content_type"] == content_type
        status, _, raw = server.request("GET", "/api/v1/events/history?limit=1")
        assert status == 200 and b'{"n": 12345678901234567890}' in raw
        for topic in ("demo/../x", "./x", "a//b", "$sys/x"):
            assert "invalid-topic" in page.append(topic=topic, type="", data="x"), topic
        page.until(ROWS, lambda rows: rows == [0, 1, 2])


def test_the_page_resumes(server):
    """The server is killed and comes back: what was missed appears, of whatever type, each event once"""
    with Page(server) as page:
        for at in range(5):
            server.append("a", str(at))
        page.until(ROWS, lambda rows: rows == [0, 1, 2, 3, 4])
        server.kill()
        page.until('return document.getElementById("state").textContent', lambda state: state != "live")
        server.start()
        for at in range(5, 10):
            server.append("a", str(at), **{"Event-Type": f"type-{at}"} if at % 2 else {})
        page.until(ROWS, lambda rows: rows == list(range(10)))
        assert "resumed" in page.run('return document.getElementById("state").textContent')
