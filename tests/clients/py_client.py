#!/usr/bin/env python3
"""One reader, through curl, httpx-sse, requests or websockets; the same contract as node_client.mjs.

Prints `offset<TAB>data` for each event, in the order of arrival, and ends after the event of type `end`
or after `--count` events. It resumes by itself: after a lost connection, and after each cut of its own
(`--cut-every N`: at a random event, about every N). With `--accept ENCODINGS` each event is printed at once,
and standard error says how each event stream came: `encoding=zstd`, when its first block has been read.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import urllib.parse

import httpx
import httpx_sse
import requests
import urllib3
import websockets

from dataset import compact
from harness import HANGS_S

PAUSE_S = 0.05


class Done(Exception):
    """The reader has what it came for."""


class Reader:
    """Where the reader stands, and when it cuts its own connection."""

    def __init__(self, options):
        self.options = options
        self.cursor: str | None = None
        self.seen = 0
        self.cuts = 0
        self.random = random.Random(options.seed)
        self.next_cut = self.draw()

    def draw(self) -> float:
        every = self.options.cut_every
        return self.seen + self.random.randint(1, 2 * every) if every else float("inf")

    def query(self) -> str:
        # No heartbeat pushes out what a decoder may hold back.
        silent = {"heartbeat": 300} if self.options.accept else {}
        return urllib.parse.urlencode({"topic": self.options.topic, "from": self.options.start} | silent)

    def headers(self) -> dict[str, str]:
        accept = {"Accept-Encoding": self.options.accept} if self.options.accept else {}
        return accept | ({"Last-Event-ID": self.cursor} if self.cursor else {})

    def opened(self, encoding: str | None) -> None:
        """Says how the stream comes whose first block has been read."""
        if self.options.accept:
            print(f"encoding={encoding or 'identity'}", file=sys.stderr, flush=True)

    def event(self, cursor: str, kind: str, data: str) -> bool:
        """Takes one event; returns whether to cut the connection now."""
        self.cursor = cursor
        sys.stdout.write(f"{cursor.split('.')[0]}\t{data}\n")
        if self.options.accept:
            sys.stdout.flush()
        self.seen += 1
        if kind == "end" or self.seen == self.options.count:
            sys.stdout.flush()
            raise Done
        if self.seen >= self.next_cut:
            sys.stdout.flush()
            self.cuts += 1
            self.next_cut = self.draw()
            return True
        return False


async def httpx_reader(reader: Reader) -> None:
    """One connection of httpx-sse."""
    async with httpx.AsyncClient(timeout=HANGS_S) as client:
        url = f"{reader.options.base}/api/v1/events/stream?{reader.query()}"
        async with httpx_sse.aconnect_sse(client, "GET", url, headers=reader.headers()) as source:
            async for event in source.aiter_sse():
                if event.event.startswith("connection.") or event.event == "ping":
                    assert event.event != "connection.reset", event.data
                    if event.event == "connection.established":
                        reader.opened(source.response.headers.get("Content-Encoding"))
                    reader.cursor = event.id or reader.cursor
                elif event.event and reader.event(event.id, event.event, event.data):
                    return


async def websockets_reader(reader: Reader) -> None:
    """One connection of websockets."""
    url = f"{reader.options.base.replace('http', 'ws', 1)}/api/v1/events/ws"
    async with websockets.connect(url, max_size=None, open_timeout=HANGS_S, ping_interval=None, close_timeout=0.2) as socket:
        ask = {"type": "subscribe", "id": 1, "topics": [reader.options.topic], "from": "earliest"}
        if reader.cursor:
            ask["last_event_id"] = reader.cursor
        await socket.send(json.dumps(ask))
        tag = None
        async for message in socket:
            message = json.loads(message)
            match message["type"]:
                case "subscribed":
                    assert message["state"] != "reset", message
                    tag, reader.cursor = message["tag"], message["cursor"]
                case "event":
                    cursor = f"{message['offset']}.{tag}"
                    if reader.event(cursor, message["event"], compact(message.get("data"))):
                        return
                case "cursor":
                    reader.cursor = message["cursor"]
                case "error":
                    raise RuntimeError(message)


def take_lines(reader: Reader, lines, encoding) -> None:
    """Parses the lines of one event stream, each with its LF, as the SSE specification says."""
    kind, data, last_id = "", [], reader.cursor
    for line in lines:
        if not line.endswith("\n"):
            return  # cut in the middle of a line: an unfinished event counts for nothing
        line = line[:-1]
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data and not kind.startswith("connection.") and kind != "ping":
                if reader.event(last_id, kind, "\n".join(data)):
                    return
            elif data:
                assert kind != "connection.reset", data
                reader.cursor = last_id
                if kind == "connection.established":
                    reader.opened(encoding)
            kind, data = "", []
        elif name == "id":
            last_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)


async def curl_reader(reader: Reader) -> None:
    """One `curl -N -i`."""
    command = ["curl", "-sS", "-N", "-i", f"{reader.options.base}/api/v1/events/stream?{reader.query()}"]
    for name, value in reader.headers().items():
        command += ["-H", f"{name}: {value}"]
    if reader.options.accept:
        command.append("--compressed")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        encoding = None
        for field in process.stdout:
            name, _, value = field.decode("latin-1").partition(":")
            if name.lower() == "content-encoding":
                encoding = value.strip()
            if field == b"\r\n":
                break
        take_lines(reader, map(bytes.decode, process.stdout), encoding)
    finally:
        process.kill()
        process.wait()


def text_lines(pieces):
    """Cuts text that comes in pieces of bytes into lines with their LF."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode() + "\n"
    yield rest.decode()


async def requests_reader(reader: Reader) -> None:
    """One streamed answer of requests; read from urllib3 itself, whose pieces come as they arrive."""
    url = f"{reader.options.base}/api/v1/events/stream?{reader.query()}"
    with requests.get(url, headers=reader.headers(), stream=True, timeout=HANGS_S) as answer:
        pieces = answer.raw.stream(65536, decode_content=True)
        take_lines(reader, text_lines(pieces), answer.headers.get("Content-Encoding"))


READERS = {"curl": curl_reader, "httpx-sse": httpx_reader, "requests": requests_reader,
           "websockets": websockets_reader}
LOST = (httpx.HTTPError, requests.RequestException, urllib3.exceptions.HTTPError, OSError, websockets.WebSocketException, TimeoutError, EOFError)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("client", choices=READERS)
    parser.add_argument("--base", required=True)
    parser.add_argument("--topic", default="**")
    parser.add_argument("--start", default="earliest", help="an offset, earliest or latest")
    parser.add_argument("--accept", help="what Accept-Encoding says")
    parser.add_argument("--count", type=int, default=-1)
    parser.add_argument("--cut-every", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    reader = Reader(options)
    try:
        while True:
            try:
                await READERS[options.client](reader)
            except LOST:
                pass
            await asyncio.sleep(PAUSE_S)
    except Done:
        print(f"cuts={reader.cuts}", file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main())
