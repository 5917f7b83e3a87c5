"""API §5: WebSocket."""

import contextlib
import json
import os
import signal
import struct
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from harness import Patience, Server, wait_for_end
from wire import Ws, events_of, raw_upgrade, status_of


def frame(opcode, payload=b"", fin=True, masked=True, rsv=0):
    """One client frame."""
    mask = os.urandom(4)
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    length = len(payload)
    bit = 0x80 if masked else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", length)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", length)
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def read_frames(stream, rest=b"", last=lambda opcode, payload: False):
    """Server frames until the end, up to one that is to come last, or until neither has come for 20 s, whatever else does: (opcode, payload)."""
    stream.settimeout(1)
    stream.seconds = -1  # It has none of its own beside those here.
    got, frames, patience = rest, whole_frames(rest), Patience(20)
    with contextlib.suppress(ConnectionResetError):
        while not any(last(*frame) for frame in frames) and not patience.is_over():
            with contextlib.suppress(TimeoutError):
                if not (part := stream.recv(65536)):
                    break
                got += part
                frames = whole_frames(got)
    return frames


def whole_frames(got):
    """The frames that are there from the first byte on, and whole."""
    frames = []
    while len(got) >= 2:
        assert not got[1] & 0x80, "a server does not mask"
        more = {126: 2, 127: 8}.get(got[1] & 0x7F, 0)
        at = 2 + more
        length = int.from_bytes(got[2:at], "big") if more else got[1] & 0x7F
        if len(got) < at or len(got) < at + length:
            break
        frames.append((got[0] & 0x0F, got[at:at + length]))
        got = got[at + length:]
    return frames


def close_code(frames):
    """The code of the close frame."""
    for opcode, payload in frames:
        if opcode == 8:
            return struct.unpack(">H", payload[:2])[0]
    return None


def test_established(server):
    """connection.established with connectionId and tag; a bare `/ws` opens no subscription"""
    with Ws(server, None) as ws:
        assert ws.hello["type"] == "connection.established" and ws.hello["connectionId"] and ws.hello["tag"]
        assert ws.silent()


def test_subscription_1_from_the_query(server, topic):
    """`topic`, `type`, `from` or a cursor in the query opens subscription 1"""
    server.append(topic, "0")
    with Ws(server, {"topic": topic, "from": "earliest"}) as ws:
        subscribed = ws.next()
        assert subscribed["type"] == "subscribed" and subscribed["subscription"] == 1 and subscribed["state"] == "live"
        event = ws.next()
        assert event["type"] == "event" and event["subscription"] == 1 and event["data"] == 0 and event["event"] == "message"
    with Ws(server, {"topic": topic, "from": "earliest"}, path="/api/v1/events/stream") as ws:
        assert ws.next()["subscription"] == 1


def test_subscribe(server, topic):
    """subscribed: id, subscription, state, from, earliest, durable, tag, cursor; `subscribed` precedes its events"""
    offsets = [server.append(topic, json.dumps({"n": at}), Event_Type="trade") for at in range(3)]
    with Ws(server) as ws:
        answer = ws.ask(type="subscribe", id=7, topics=[topic], types=["trade"], **{"from": "earliest"})
        assert {"id": 7, "subscription": 1, "state": "live", "type": "subscribed"}.items() <= answer.items()
        assert {"from", "earliest", "durable", "tag", "cursor"} <= set(answer)
        events = [ws.next() for _ in range(3)]
        assert [event["offset"] for event in events] == offsets and events[0]["data"] == {"n": 0}
        assert set(events[0]) == {"type", "subscription", "event", "offset", "time", "topic", "content_type", "data"}
        answer = ws.ask(type="subscribe", id="again", topics=[topic], last_event_id=f"{offsets[1]}.{answer['tag']}")
        assert answer["id"] == "again" and answer["subscription"] == 2 and answer["state"] == "resumed" and answer["from"] == offsets[1] + 1
        assert ws.next()["offset"] == offsets[2]
        answer = ws.ask(type="subscribe", id=1, topics=[topic], last_event_id="1.zzzz", **{"from": "latest"})
        assert answer["state"] == "reset" and answer["reason"] == "other_log"


def test_who_waits_beyond_the_end_has_no_cursor_yet(fresh):
    """beyond the end it waits: `cursor` stands only where a client that resumes from it misses nothing"""
    for at in range(5):
        fresh.append("a", str(at))
    with Ws(fresh, {"topic": "a", "from": 8, "heartbeat": 1}) as ws:
        subscribed = ws.next()
        assert subscribed["state"] == "resumed" and subscribed["from"] == 8 and "cursor" not in subscribed
        assert ws.silent(2.5), "nothing is true that a cursor could say"
        for at in range(5, 8):
            fresh.append("a", str(at))
        assert ws.next()["cursor"] == f"7.{subscribed['tag']}"
        fresh.append("a", "8")
        assert ws.next_of("event")["data"] == 8


def test_what_opens_subscription_1(server):
    """`topic`, .. or a cursor in the query opens subscription 1; `_` alone is ignored"""
    with Ws(server, {"_": "1", "log": "main", "heartbeat": 5}) as ws:
        assert ws.silent()
        assert ws.ask(type="subscribe", id=1, topics=["none"])["subscription"] == 1


def test_ids_of_messages(server):
    """`id` of a message: a number or a string of at most 128 bytes; an answer has it as its bytes came"""
    with Ws(server) as ws:
        for text in ("x" * 128, "\u00e9" * 64, 'quoted "' * 16):
            assert ws.ask(type="ping", id=text)["id"] == text
        for text in ("x" * 129, "\u00e9" * 65):
            error = ws.ask(type="ping", id=text)
            assert error["type"] == "error" and "128 bytes" in error["message"] and "id" not in error


def test_lowest_free_number(server, topic):
    """Subscriptions are numbered from 1 per connection, the lowest free one first; unsubscribed is its last frame"""
    with Ws(server) as ws:
        for number in (1, 2, 3):
            assert ws.ask(type="subscribe", id=number, topics=[f"{topic}/{number}"])["subscription"] == number
        assert ws.ask(type="unsubscribe", id=9, subscription=2) == {"type": "unsubscribed", "id": 9, "subscription": 2}
        server.append(f"{topic}/2", "no")
        assert ws.silent()
        assert ws.ask(type="subscribe", id=5, topics=[f"{topic}/5"])["subscription"] == 2
        assert ws.ask(type="unsubscribe", id=1, subscription=77)["type"] == "error"


def test_at_most_256(server, topic):
    """At most 256"""
    with Ws(server) as ws:
        for number in range(1, 257):
            assert ws.ask(type="subscribe", id=number, topics=[f"{topic}/{number}"])["subscription"] == number
        assert ws.ask(type="subscribe", id=257, topics=["x"])["type"] == "error"
        assert ws.ask(type="ping")["type"] == "pong"


def test_publish(server, topic):
    """publish is acknowledged with offset, cursor, sync; a publish without `id` gets no ack, but errors"""
    with Ws(server, {"topic": topic}) as ws:
        assert ws.next()["type"] == "subscribed"
        ws.send(type="publish", id=8, topic=topic, event="trade", data={"a": 1}, key="k", headers={"X": "y"})
        got = sorted([ws.next(), ws.next()], key=lambda message: message["type"])
        ack, event = got
        assert ack["type"] == "ack" and ack["id"] == 8 and ack["sync"] == "commit" and ack["cursor"].startswith(f"{ack['offset']}.")
        assert event["offset"] == ack["offset"] and event["data"] == {"a": 1} and event["event"] == "trade" and event["key"] == "k" and event["headers"] == {"x": "y"}
        ws.send(type="publish", topic=topic, data=1)
        assert ws.next()["type"] == "event"
        assert ws.silent()
        ws.send(type="publish", topic="$no", data=1)
        assert ws.next()["type"] == "error"


def test_publishes_keep_their_order(server, topic):
    """Publishes of a connection are appended in the order sent; beyond 1,000 or 4 MiB without answer we stop reading"""
    with Ws(server) as ws:
        def send():
            for at in range(3000):
                ws.send(type="publish", id=at, topic=topic, data=at)
        sender = threading.Thread(target=send)
        sender.start()
        acks = [ws.next() for _ in range(3000)]
        sender.join()
    assert [ack["id"] for ack in acks] == list(range(3000))
    assert [ack["offset"] for ack in acks] == sorted(ack["offset"] for ack in acks)
    events = events_of(server, f"/api/v1/events/history?topic={topic}&limit=10000")
    assert [event["data"] for event in events] == list(range(3000))


@pytest.mark.parametrize("message,status", [
    ({"type": "publish", "id": 1, "topic": "a//b"}, 400), ({"type": "publish", "id": 1}, 400), ({"type": "publish", "id": 1, "topic": "a", "colour": 1}, 400),
    ({"type": "publish", "id": 1, "topic": "a", "event": "error"}, 422), ({"type": "publish", "id": 1, "topic": "a", "event_id": ""}, 400),
    ({"type": "publish", "id": 1, "topic": "a", "expected_offset": "1"}, 400), ({"type": "publish", "id": 1, "topic": "a", "data": "x" * 1048577, "content_type": "text/plain"}, 413),
    ({"type": "subscribe", "id": 1, "topics": ["a/**/b"]}, 400), ({"type": "subscribe", "id": 1, "topics": ["a"], "filter": []}, 400), ({"type": "subscribe", "id": 1, "topics": ["a"], "log": "other"}, 404),
    ({"type": "subscribe", "id": 1, "topics": ["a"], "last_event_id": "?"}, 400), ({"type": "subscribe", "id": 1, "topics": "a"}, 400), ({"type": "subscribe", "id": 1, "topics": ["a"], "from": "x"}, 400),
    ({"type": "subscribe", "id": 1, "topics": ["a"] * 65}, 400), ({"type": "dance", "id": 1}, 400), ({"id": 1}, 400),
])
def test_an_error_answers_its_message_and_keeps_the_connection(server, message, status):
    """An error in one message answers that message (`id` if it had one) and keeps the connection"""
    with Ws(server) as ws:
        ws.send(**message)
        error = ws.next()
        assert error["type"] == "error" and error["id"] == 1 and error["status"] == status and error["problem"] and error["message"], error
        assert ws.ask(type="ping")["type"] == "pong"


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "nul", '{"type":"ping"', '{"type":"ping","type":"ping"}'])
def test_not_a_message(server, text):
    """not JSON: `Invalid message format`"""
    with Ws(server) as ws:
        ws.socket.send(text)
        error = ws.next()
        assert error["type"] == "error" and error["status"] == 400
        if text in ("", "{", "nul", '{"type":"ping"'):
            assert error["message"] == "Invalid message format"
        assert ws.ask(type="ping")["type"] == "pong"


def test_ping_pong(server):
    """ping is answered by pong with a timestamp"""
    with Ws(server) as ws:
        assert abs(ws.ask(type="ping")["timestamp"] - time.time() * 1000) < 60_000


def test_subprotocol(server):
    """`strandline.v1` is chosen if offered as subprotocol"""
    with Ws(server, subprotocols=["other", "strandline.v1"]) as ws:
        assert ws.socket.subprotocol == "strandline.v1"
    with Ws(server) as ws:
        assert ws.socket.subprotocol is None


def test_extensions(server):
    """Extension: `permessage-deflate` with no context takeover on our side, or none"""
    with Ws(server, compression="deflate") as ws:
        assert ws.ask(type="ping")["type"] == "pong"


def test_cursor_on_silent_heartbeat(server, topic):
    """cursor message on every silent heartbeat, with RFC 6455 pings"""
    with Ws(server, {"topic": topic, "heartbeat": 1}) as ws:
        ws.next()
        offset = server.append(topic + "/other", "x")
        patience = Patience(10)
        while int((message := ws.next_of("cursor"))["cursor"].split(".")[0]) < offset:
            assert not patience.is_over(), message
        assert message["subscription"] == 1 and abs(message["timestamp"] - time.time() * 1000) < 60_000
    stream, rest = raw_upgrade(server, f"/api/v1/events/ws?topic={topic}&heartbeat=1")
    with stream:
        frames = read_frames(stream, rest, lambda opcode, _: opcode == 9)
        assert 9 in [opcode for opcode, _ in frames]


@pytest.mark.parametrize("frames,code", [
    (lambda: frame(2, b"x"), 1003), (lambda: frame(1, b"{}", masked=False), 1002), (lambda: frame(1, b"{}", rsv=4), 1002), (lambda: frame(1, b"{}", rsv=1), 1002),
    (lambda: frame(3, b""), 1002), (lambda: frame(11, b""), 1002), (lambda: frame(9, b"x" * 126), 1002), (lambda: frame(9, b"x", fin=False), 1002),
    (lambda: frame(0, b"x"), 1002), (lambda: frame(1, b"a", fin=False) + frame(1, b"b"), 1002), (lambda: frame(1, b"\xff\xfe"), 1007),
    (lambda: frame(1, b"x" * ((2 << 20) + 1)), 1009), (lambda: frame(8, b"\x03"), 1002), (lambda: frame(1, b"x" * (1 << 20), fin=False) + frame(0, b"x" * (1 << 20) + b"x"), 1009),
])
def test_broken_protocol_closes(server, frames, code):
    """a broken protocol closes it with the RFC 6455 code (binary frames 1003, more than 2 MiB 1009)"""
    stream, rest = raw_upgrade(server)
    with stream:
        try:
            stream.sendall(frames())
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert close_code(read_frames(stream, rest)) == code


def test_fragments_and_interleaved_control_frames(server):
    """fragmented messages with control frames in between are fine"""
    stream, rest = raw_upgrade(server)
    with stream:
        stream.sendall(frame(1, b'{"type"', fin=False) + frame(9, b"beat") + frame(0, b':"pi', fin=False) + frame(0, b'ng"}'))
        frames = read_frames(stream, rest, lambda _, payload: b"pong" in payload)
        assert (10, b"beat") in frames and any(b"pong" in payload for opcode, payload in frames if opcode == 1)


def test_2_mib_is_a_message(server, topic):
    """more than 2 MiB 1009: exactly 2 MiB is not"""
    with Ws(server) as ws:
        text = json.dumps({"type": "ping"})
        ws.socket.send(text + " " * ((2 << 20) - len(text)))
        assert ws.next()["type"] == "pong"


@pytest.mark.parametrize("payload,answer", [
    (b"", b""), *((struct.pack(">H", code) + b"why", struct.pack(">H", code)) for code in (1000, 1001, 1011, 3000, 4999)),
    *((struct.pack(">H", code), struct.pack(">H", 1002)) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)), (b"\x03\xe8\xff", struct.pack(">H", 1007)),
])
def test_close_is_answered(server, payload, answer):
    """a close is answered by a close; a broken protocol closes it with the RFC 6455 code"""
    stream, rest = raw_upgrade(server)
    with stream:
        stream.sendall(frame(8, payload))
        assert [got[:2] for opcode, got in read_frames(stream, rest) if opcode == 8] == [answer]


def test_pings_of_clients(server):
    """RFC 6455: a ping is answered with what it says, a pong that nobody asked for is not"""
    stream, rest = raw_upgrade(server)
    with stream:
        stream.sendall(frame(10, b"unasked") + frame(10) + frame(9, b"x" * 125) + frame(9))
        answers = read_frames(stream, rest, lambda opcode, got: (opcode, got) == (10, b""))
        assert [got for opcode, got in answers if opcode != 1] == [b"x" * 125, b""]


def test_a_cursor_in_the_query(server, topic):
    """`topic`, .. or a cursor in the query opens subscription 1; a `Last-Event-ID` header is one for it, and alone opens none"""
    offsets = [server.append(topic, str(at)) for at in range(4)]
    for name in ("lastEventId", "last_event_id", "lastEventID"):
        with Ws(server, {name: offsets[1]}) as ws:
            subscribed = ws.next()
            assert (subscribed["subscription"], subscribed["state"], subscribed["from"]) == (1, "resumed", offsets[1] + 1)
    header = {"Last-Event-ID": str(offsets[2])}
    with Ws(server, {"topic": topic}, headers=header) as ws:
        assert ws.next()["state"] == "resumed" and ws.next()["data"] == 3
    with Ws(server, headers=header) as ws:
        assert ws.silent()


def test_forms_of_what_is_published(server, topic):
    """`data`, or `data_base64`; with a `text/*` `content_type`, a string's characters; neither is empty data"""
    with Ws(server) as ws:
        for number, event in enumerate(({"data": [1, "2"]}, {"data_base64": "AAE="}, {"data": "a\nb", "content_type": "text/plain"}, {})):
            assert ws.ask(type="publish", id=number, topic=topic, **event)["type"] == "ack"
    events = server.json("GET", f"/api/v1/events/history?topic={topic}")[1]["events"]
    assert [(event["content_type"], event.get("data", event.get("data_base64"))) for event in events] == [
        ("application/json", [1, "2"]), ("application/octet-stream", "AAE="), ("text/plain", "a\nb"), ("text/plain", "")]


@pytest.mark.parametrize("headers", [{"Sec-WebSocket-Version": "12"}, {"Sec-WebSocket-Key": "short"}, {"Sec-WebSocket-Key": ""}])
def test_bad_handshakes(server, headers):
    """a bad handshake is refused with a problem"""
    base = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    status, got, _ = server.request("GET", "/api/v1/events/ws", headers=base | headers)
    assert status in (400, 426)
    if headers.get("Sec-WebSocket-Version"):
        assert status == 426 and got["sec-websocket-version"] == "13"


def test_a_handshake_has_no_body(server):
    """What is ambiguous is refused and the connection closed: the body of a handshake would be read as frames"""
    head = (f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
    for field in ("Content-Length: 3", "Transfer-Encoding: chunked"):
        answer = server.exchange(f"{head}{field}\r\n\r\n".encode() + b"abc")
        assert status_of(answer) == 400 and b"connection: close" in answer.lower(), answer


def test_frames_right_behind_the_handshake(server, topic):
    """what comes in one packet with the handshake, and behind other requests, is read"""
    first = f"POST /api/v1/topics/{topic}/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1"
    head = ("GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    subscribe = json.dumps({"type": "subscribe", "topics": [topic], "from": "earliest"}).encode()
    answer = server.exchange((first + head).encode() + frame(1, b'{"type":"ping"}') + frame(1, subscribe), wait_s=20, last=b'"type":"event"')
    at = [answer.find(text) for text in (b"HTTP/1.1 201", b"HTTP/1.1 101", b"connection.established", b"pong", b"subscribed", b'"type":"event"')]
    assert -1 not in at and at == sorted(at), answer


def test_foreign_origin(server):
    """WebSocket with an `Origin` that is neither our own host nor allowed is 403"""
    with pytest.raises(InvalidStatus) as refused:
        Ws(server, headers={"Origin": "https://evil.example"})
    assert refused.value.response.status_code == 403
    with Ws(server, headers={"Origin": server.base}) as ws:
        assert ws.hello["type"] == "connection.established"


def test_many_events_in_order(server, topic):
    """catch-up and live over one socket, in order, none twice"""
    lines = "".join(f"{at}\n" for at in range(20_000))
    assert server.request("POST", f"/api/v1/topics/{topic}/events", lines, {"Content-Type": "application/x-ndjson"})[0] == 201
    with Ws(server, {"topic": topic, "from": "earliest"}) as ws:
        ws.next()
        assert server.request("POST", f"/api/v1/topics/{topic}/events", lines, {"Content-Type": "application/x-ndjson"})[0] == 201
        assert [ws.next()["data"] for _ in range(40_000)] == list(range(20_000)) * 2


def test_drain_acknowledges_what_was_taken():
    """finish commits, tell subscribers: a publish that is in the log was acknowledged before the close"""
    with Server("--shards", "2") as server:
        acknowledged = 0
        for _ in range(3):
            ws = Ws(server)
            for at in range(900):
                ws.send(type="publish", id=at, topic="a", data="x" * 2000)
            server.process.send_signal(signal.SIGTERM)
            acks = []
            with pytest.raises(ConnectionClosed):
                while True:
                    acks.append(ws.next())
            assert [ack["id"] for ack in acks] == list(range(len(acks))) and ws.socket.close_code in (1001, 4000)
            assert wait_for_end(server.process, 12) == 0
            acknowledged += len(acks)
            server.start()
            assert server.json("GET", "/api/v1/topics/a")[1].get("count", 0) == acknowledged


def test_drain():
    """Close codes: 1001 and 4000 drained"""
    with Server() as server:
        ws = Ws(server, {"topic": "a"})
        ws.next()
        closer = threading.Thread(target=server.terminate)
        closer.start()
        with pytest.raises(ConnectionClosed):
            while True:
                ws.next()
        closer.join()
        assert ws.socket.close_code in (1001, 4000)
