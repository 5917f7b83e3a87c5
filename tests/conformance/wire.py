"""Small readers of the wire: Server-Sent Events and WebSocket messages, one at a time."""

import json
import urllib.parse

from harness import Connection, Patience, PatientSocket, patiently, wait_for
from websockets.sync.client import ClientConnection, connect

PATH = "/api/v1/events/stream"


def silent_target(path, query):
    """What to ask a stream of: it gets no heartbeat, however long a busy machine takes, unless the query asks for them or is None."""
    if query is None:
        return path
    if not isinstance(query, str):
        query = urllib.parse.urlencode(query, doseq=True)
    return f"{path}?{query}" + ("" if "heartbeat=" in query else "&heartbeat=300" if query else "heartbeat=300")


class Event(dict):
    """One SSE event: `id`, `event`, `data`, `retry`, as they stood (absent members are absent)."""

    @property
    def json(self):
        """The data as JSON."""
        return json.loads(self["data"])


class Sse:
    """A stream, read line by line. `comments` counts heartbeat lines; `raw` holds all that came."""

    def __init__(self, server, query="", headers=None, path=PATH, timeout_s=10, method="GET"):
        self.connection = Connection(server.port, timeout_s)
        self.connection.request(method, silent_target(path, query), headers=headers or {})
        self.answer = self.connection.getresponse()
        self.status, self.headers = self.answer.status, self.answer.headers
        self.comments, self.raw = 0, b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Hangs up."""
        try:
            self.answer.close()
        finally:
            self.connection.close()

    def line(self):
        """The next line without its end; None at the end of the stream."""
        line = self.answer.readline()
        self.raw += line
        if not line:
            return None
        assert line.endswith(b"\n"), line
        return line[:-1].decode()

    def block(self):
        """The next block of lines up to an empty line, heartbeats counted apart; None at the end."""
        lines = []
        while True:
            line = self.line()
            if line is None:
                return None
            if line == ":":
                self.comments += 1
            elif line == "":
                if lines:
                    return lines
            else:
                lines.append(line)

    def next(self):
        """The next event."""
        lines = self.block()
        if lines is None:
            return None
        event, data = Event(), []
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            else:
                event[name] = value
        if data:
            event["data"] = "\n".join(data)
        return event

    def take(self, count):
        """The next `count` events."""
        return [self.next() for _ in range(count)]

    def take_but_pings(self, count, cursor, timeout_s=10):
        """The next `count` events after the one with a cursor. The heartbeats that a busy machine lets come between them are passed over, each with
        the cursor of what came before it."""
        patience, events = Patience(timeout_s), []
        while len(events) < count and (event := self.next()):
            if event.get("event") == "ping":
                assert event.get("id") == cursor and not patience.is_over(), (event, cursor)
            else:
                events, cursor = [*events, event], event["id"]
        return events

    def established(self):
        """The event that every stream begins with, as JSON; its `id` and `retry` beside it."""
        event = self.next()
        assert event["event"] == "connection.established", event
        return {**event.json, "id": event.get("id"), "retry": event.get("retry")}

    def silent(self, seconds=0.3):
        """Whether nothing comes for a while."""
        self.connection.sock.settimeout(seconds)
        self.connection.sock.seconds = -1
        try:
            return self.line() is None
        except (TimeoutError, OSError):
            return True


class PatientHandshake(ClientConnection):
    """A WebSocket that has ten seconds in which a processor was free for the answer to its handshake, not so many by the clock."""

    def handshake(self, *arguments):
        answered = self.response_rcvd.wait
        self.response_rcvd.wait = lambda _: wait_for(lambda: answered(0.5), every_s=0)
        super().handshake(*arguments)


class Ws:
    """A WebSocket, its messages as JSON."""

    def __init__(self, server, query="", path="/api/v1/events/ws", headers=None, **options):
        url = f"ws://127.0.0.1:{server.port}{silent_target(path, query)}"
        # Nor does this side end what a busy machine takes long for.
        options = {"compression": None, "open_timeout": None, "ping_interval": None} | options
        self.manager = connect(url, sock=PatientSocket(server.port, 10), create_connection=PatientHandshake, additional_headers=headers or {},
                               max_size=None, **options)
        self.socket = self.manager.__enter__()
        self.hello = self.next()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.manager.__exit__(*exc)

    def send(self, **message):
        """Sends one message."""
        self.socket.send(json.dumps(message))

    def next(self, timeout_s=10):
        """The next message."""
        return json.loads(patiently(timeout_s, self.socket.recv, 0.5))

    def next_of(self, kind, timeout_s=10):
        """The next message of a type, the others passed over."""
        patience = Patience(timeout_s)
        while (message := self.next(timeout_s))["type"] != kind:
            assert not patience.is_over(), message
        return message

    def ask(self, **message):
        """Sends a message and returns the next one."""
        self.send(**message)
        return self.next()

    def silent(self, seconds=0.3):
        """Whether nothing comes for a while."""
        try:
            self.socket.recv(timeout=seconds)
            return False
        except TimeoutError:
            return True


def post(server, target, body=b"x", **headers):
    """One POST, whose header fields are written with `_` for `-`; returns (status, headers, body)."""
    return server.request("POST", target, body, {name.replace("_", "-"): value for name, value in headers.items()})


def events_of(server, target):
    """The events of a page and of those that it leads to: on a busy machine it may end early, as it may after a second's search."""
    events = []
    while target:
        page = server.json("GET", target)[1]
        assert page.get("next") != target, "it does not go on"
        events, target = events + page["events"], page.get("next")
    return events


def problem(answer, slug, status=None):
    """Checks that an exchange's (status, headers, body) is the problem, and returns it."""
    got_status, headers, body = answer
    assert headers["content-type"].startswith("application/problem+json"), (got_status, headers.items(), body)
    value = json.loads(body)
    assert value["type"] == f"/problems/{slug}", value
    assert value["status"] == got_status, value
    assert status is None or status == got_status, value
    assert value["title"] and value["detail"], value
    return value


def status_of(raw):
    """The status of a raw answer."""
    return int(raw.split(b" ", 2)[1]) if raw.startswith(b"HTTP/1.") else None


def raw_upgrade(server, target="/api/v1/events/ws", extra=""):
    """A raw socket after a WebSocket handshake; returns (socket, first bytes after the head)."""
    stream = PatientSocket(server.port, 10)
    stream.sendall((f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n").encode())
    got = b""
    while b"\r\n\r\n" not in got:
        part = stream.recv(4096)
        assert part, got
        got += part
    head, _, rest = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    return stream, rest
