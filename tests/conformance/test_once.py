"""API §2: exactly once into the log: ids, conditions, producers."""

import concurrent.futures
import json
import threading

import pytest

import wire
from harness import Server
from wire import Ws, problem

WINDOW = "events=1000000, seconds=600"
NDJSON = {"Content-Type": "application/x-ndjson"}


def path(topic):
    return f"/api/v1/topics/{topic}/events"


def events(server, topic):
    """All events of a topic."""
    return server.json("GET", f"/api/v1/events/history?topic={topic}&limit=10000")[1]["events"]


def post(server, target, body=b"x", **headers):
    """(status, headers, body as JSON if there is any)"""
    status, fields, answer = wire.post(server, target, body, **headers)
    return status, fields, json.loads(answer) if answer else None


def objects(server, *items, **headers):
    """Appends an array of event objects."""
    return post(server, "/api/v1/events", json.dumps(list(items)), Content_Type="application/json", **headers)


def lines(server, *items):
    """Appends a stream of event objects."""
    return post(server, "/api/v1/events", "".join(json.dumps(item) + "\n" for item in items), Content_Type="application/x-ndjson")


def produce(server, target, seq, epoch=0, name="p", body=b"x", **headers):
    """Appends as a producer."""
    return post(server, target, body, Producer_Id=name, Producer_Epoch=str(epoch), Producer_Seq=str(seq), **headers)


# --- Ids

def test_a_duplicate_is_answered_as_the_first_was(server, topic):
    """the first answer again, plus "duplicate":true; the window, which every answer to one with an id states"""
    first = post(server, path(topic), Event_Id=f"{topic}-1")
    again = post(server, path(topic), Event_Id=f"{topic}-1")
    assert first[0] == again[0] == 201 and "duplicate" not in first[2]
    assert again[2] == {**first[2], "duplicate": True}
    assert first[1]["Event-Offset"] == again[1]["Event-Offset"]
    assert first[1]["Event-Id-Window"] == again[1]["Event-Id-Window"] == WINDOW
    assert "Event-Id-Window" not in post(server, path(topic))[1]
    assert [event.get("id") for event in events(server, topic)] == [f"{topic}-1", None]


def test_headers_in_another_order_are_the_same(server, topic):
    """Compared is all but the time and the order of headers: of an object, whose members have none, and of a request"""
    one, two = {"zone": "1", "alpha": "2"}, {"alpha": "2", "zone": "1"}
    first, again, other = (objects(server, {"topic": topic, "id": f"{topic}-1", "headers": of}) for of in (one, two, {**one, "zone": "2"}))
    assert first[0] == again[0] == 201 and again[2]["duplicates"] == 1 and other[0] == 422
    named = {"Event_Header_Zone": "1", "Event_Header_Alpha": "2"}
    first, again = (post(server, path(topic), Event_Id=f"{topic}-2", **dict(of)) for of in (named.items(), reversed(named.items())))
    assert first[0] == again[0] == 201 and again[2]["duplicate"]
    assert [list(event["headers"]) for event in events(server, topic)] == [["alpha", "zone"]] * 2


def test_a_duplicate_with_return_minimal(server, topic):
    """`204` has `Event-Duplicate: true`"""
    first = post(server, path(topic), Event_Id=f"{topic}-1", Prefer="return=minimal")
    again = post(server, path(topic), Event_Id=f"{topic}-1", Prefer="return=minimal")
    assert first[0] == again[0] == 204 and "Event-Duplicate" not in first[1]
    assert again[1]["Event-Duplicate"] == "true" and again[1]["Event-Offset"] == first[1]["Event-Offset"] and again[1]["Event-Id-Window"] == WINDOW


def test_the_other_spelling_of_an_id(server, topic):
    """other spelling `Idempotency-Key`; of both a pair of quotes around it is stripped; two that differ: 400; values are percent-encoded UTF-8"""
    first = post(server, path(topic), Event_Id=f"{topic}-%C3%A9")
    assert post(server, path(topic), Idempotency_Key=f'"{topic}-%C3%A9"')[2]["duplicate"] is True
    assert post(server, path(topic), Idempotency_Key=f"{topic}-%C3%A9", Event_Id=f"{topic}-%C3%A9")[2]["offset"] == first[2]["offset"]
    for again in ({"Event_Id": f'"{topic}-%C3%A9"'}, {"Event_Id": f'"{topic}-%C3%A9"', "Idempotency_Key": f'"{topic}-%C3%A9"'}):
        assert post(server, path(topic), **again)[2]["duplicate"] is True, again
    assert post(server, path(topic), Idempotency_Key="a", Event_Id="b")[0] == 400
    # Heads of a shape that the server has learnt mean the same, and quotes that belong to an id are encoded.
    other = f"{topic}/2"
    for number in range(6):
        first, quoted = (post(server, path(other), Event_Id=value.format(f"{topic}-{number}"))[2] for value in ("{}", '"{}"'))
        assert quoted["offset"] == first["offset"] and quoted["duplicate"] is True, (first, quoted)
        assert "duplicate" not in post(server, path(other), Event_Id=f"%22{topic}-{number}%22")[2]
    assert [event["id"] for event in events(server, other)][:2] == [f"{topic}-0", f'"{topic}-0"']
    assert events(server, topic)[0]["id"] == f"{topic}-é" and len(events(server, topic)) == 1


@pytest.mark.parametrize("value", ["", "%0A", "a" * 257, "%ff"])
def test_what_is_no_id(server, topic, value):
    """at most 256 bytes, no control characters, no outer spaces"""
    assert post(server, path(topic), Event_Id=value)[0] == 400


def test_the_same_id_for_another_event(server, topic):
    """compared are all but the time: different is `422`"""
    offset = post(server, path(topic), b"1", Event_Id=f"{topic}-1")[2]["offset"]
    for target, body, headers in ((path(topic), b"2", {}), (path(topic) , b"1", {"Event-Type": "t"}), (path(topic), b"1", {"Event-Key": "k"}), (path(topic), b"1", {"Event-Header-A": "b"}),
                                  (path(topic), b"1", {"Content-Type": "text/plain"}), (path(topic + "/other"), b"1", {})):
        answer = server.request("POST", target, body, {"Event-Id": f"{topic}-1", **headers})
        value = problem(answer, "id-conflict", 422)
        assert value["offset"] == offset and answer[1]["Event-Id-Window"] == WINDOW
    assert post(server, path(topic), b"1", Event_Id=f"{topic}-1", Content_Type="application/json")[2]["duplicate"] is True, "the same, spelt out"
    assert len(events(server, topic)) == 1


def test_the_window_stands_in_refusals_of_what_was_not_read(server, topic):
    """The window, which every answer to one with an id states: who is refused decides whether a retry is safe"""
    def refused(status, *request, **headers):
        answer = wire.post(server, *request, **headers)
        assert answer[0] == status and answer[1].get("Event-Id-Window") == (WINDOW if "Event_Id" in headers or "Idempotency_Key" in headers else None), answer
    for ids in ({"Event_Id": "a"}, {"Idempotency_Key": '"a"'}, {}):
        refused(400, path(topic), b"[1,", Content_Type="application/json", **ids)
        refused(400, path(topic) + "?foo=1", b"1", **ids)
        refused(404, path(topic) + "?log=other", b"1", **ids)
        refused(415, path(topic), b"1", Content_Encoding="gzip", **ids)
        refused(413, path(topic), bytes((1 << 20) + 1), **ids)
        refused(400, path(topic), b"1", Expected_Offset="x", **ids)
    refused(400, path(topic), b"1", Event_Id="%")
    refused(400, path(topic), b"1", Event_Id="a", Idempotency_Key="b")
    chunks = b"100001\r\n" + bytes((1 << 20) + 1)
    head = f"POST {path(topic)} HTTP/1.1\r\nHost: localhost\r\nEvent-Id: a\r\n"
    for rest in (b"Transfer-Encoding: chunked\r\n\r\n" + chunks, b"Transfer-Encoding: chunked\r\n\r\nx\r\n", b"\r\n"):
        answer = server.exchange(head.encode() + rest, last=b"}\n")
        assert answer.startswith(b"HTTP/1.1 4") and f"\r\nEvent-Id-Window: {WINDOW}\r\n".encode() in answer, answer
    # Objects have been read, and are refused for what they ask for together.
    for window, ids in ((WINDOW, {"id": "a"}), (None, {})):
        status, fields, value = objects(server, {"topic": topic, **ids}, {"topic": f"{topic}/b"}, Expected_Offset="0")
        assert status == 400 and fields.get("Event-Id-Window") == window, value
    # Heads that the server has learnt mean the same.
    for number in range(6):
        refused(400, path(topic), b"[1,", Content_Type="application/json", Event_Id=f"{topic}-{number}")
    refused(400, "/api/v1/events", b'[{"topic":"a","id":"x"}', Content_Type="application/json")
    assert events(server, topic) == []


def test_ids_are_of_the_log(server, topic):
    """id unique per log: raw, in objects, in lines and over WebSocket"""
    event = {"topic": topic, "data": 1, "id": f"{topic}-1"}
    offset = server.json("POST", "/api/v1/events", event)[1]["offset"]
    assert server.json("POST", "/api/v1/events", event)[1] == {**server.json("POST", "/api/v1/events", event)[1], "offset": offset, "duplicate": True}
    assert post(server, path(topic), b"1", Event_Id=f"{topic}-1")[2]["duplicate"] is True
    assert lines(server, event)[2]["duplicates"] == 1
    with Ws(server) as ws:
        ack = ws.ask(type="publish", id=1, topic=topic, data=1, event_id=f"{topic}-1")
        assert ack["type"] == "ack" and ack["offset"] == offset and ack["duplicate"] is True
        ack = ws.ask(type="publish", id=2, topic=topic, data=1, event_id=f"{topic}-2")
        assert ack["type"] == "ack" and "duplicate" not in ack
        error = ws.ask(type="publish", id=3, topic=topic, data=2, event_id=f"{topic}-2")
        assert error["status"] == 422 and error["problem"] == "id-conflict" and error["id"] == 3
    assert len(events(server, topic)) == 2


def test_an_id_of_a_raw_append_is_no_header_of_objects(server, topic):
    """`Event-Id` is for raw appends"""
    assert objects(server, {"topic": topic}, Event_Id="a")[0] == 400
    assert objects(server, {"topic": topic}, Idempotency_Key="a")[0] == 400


def test_duplicates_inside_an_array(server, topic):
    """a number, `duplicates`, for many; an array is appended whole or not at all"""
    one, two = {"topic": topic, "data": 1, "id": f"{topic}-1"}, {"topic": topic, "data": 2, "id": f"{topic}-2"}
    status, fields, value = objects(server, one, two, one)
    assert status == 201 and value["count"] == 3 and value["duplicates"] == 1 and fields["Event-Id-Window"] == WINDOW
    assert value["last"] == value["offset"] + 1
    again = objects(server, one, two, one)[2]
    assert again == {**value, "duplicates": 3}
    assert "duplicates" not in objects(server, {"topic": topic, "id": f"{topic}-3"})[2]
    mixed = objects(server, two, {"topic": topic, "data": 4})[2]
    assert mixed["count"] == 2 and mixed["duplicates"] == 1
    status, _, value = objects(server, {"topic": topic, "data": 5}, {**one, "data": 6})
    assert status == 422 and value["type"] == "/problems/id-conflict"
    status, _, value = objects(server, {"topic": topic, "id": f"{topic}-9", "data": 1}, {"topic": topic, "id": f"{topic}-9", "data": 2})
    assert status == 422 and value["type"] == "/problems/id-conflict" and "offset" not in value, "no event has it"
    minimal = objects(server, one, two, Prefer="return=minimal")
    assert minimal[0] == 204 and minimal[1]["Event-Duplicate"] == "true"
    assert len(events(server, topic)) == 4


def test_duplicates_inside_lines(server, topic):
    """one event object a line; duplicates are counted"""
    many = [{"topic": topic, "data": at, "id": f"{topic}-{at}"} for at in range(3000)]
    status, fields, value = lines(server, *many)
    assert status == 201 and value["count"] == 3000 and "duplicates" not in value and fields["Event-Id-Window"] == WINDOW
    assert lines(server, *many, {"topic": topic, "data": "new"})[2]["duplicates"] == 3000
    assert [event["data"] for event in events(server, topic)] == [*range(3000), "new"]


def test_an_id_that_comes_again_far_behind_in_the_same_lines(server, topic):
    """also where the first is still on its way, the second is a duplicate of it"""
    many = [{"topic": topic, "data": at, "id": f"{topic}-{at}", "headers": {"filling": "x" * 200}} for at in range(2000)]
    status, _, value = lines(server, *many, *many)
    assert status == 201 and value["count"] == 4000 and value["duplicates"] == 2000, value
    assert [event["data"] for event in events(server, topic)] == list(range(2000))


def test_a_conflict_inside_lines_names_its_line(server, topic):
    """the status and problem of the failing line, with `line`, `appended`, `duplicates`, `last`; what was appended stays"""
    post(server, path(topic), b"0", Event_Id=f"{topic}-500")
    many = [{"topic": topic, "data": at, "id": f"{topic}-{at}"} for at in range(1000)]
    status, fields, value = lines(server, *many)
    assert status == 422 and value["type"] == "/problems/id-conflict" and fields["Event-Id-Window"] == WINDOW
    assert value["line"] == 501 and value["appended"] == 500 and value["duplicates"] == 0, value
    kept = events(server, topic)
    assert [event["data"] for event in kept] == [0, *range(500)] and value["last"] == kept[-1]["offset"]
    value = lines(server, *many)[2]
    assert value["line"] == 501 and value["appended"] == 0 and value["duplicates"] == 500, value


def test_the_same_id_at_once_is_one_event(server, topic):
    """first still in flight: `409` (with Retry-After); never two events"""
    statuses = []
    for at in range(10):
        barrier = threading.Barrier(16)

        def append(_):
            barrier.wait()
            return server.request("POST", path(topic), str(at), {"Event-Id": f"{topic}-{at}"})

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(append, range(16)))
        new = [answer for answer in answers if answer[0] == 201 and "duplicate" not in json.loads(answer[2])]
        assert len(new) == 1, answers
        for status, fields, body in answers:
            assert status in (201, 409) and fields["Event-Id-Window"] == WINDOW
            if status == 409:
                assert json.loads(body)["type"] == "/problems/append-in-flight" and int(fields["Retry-After"]) >= 1
            else:
                assert json.loads(body)["offset"] == json.loads(new[0][2])["offset"]
        statuses += [answer[0] for answer in answers]
    assert [event["data"] for event in events(server, topic)] == list(range(10))


def test_a_pipelined_repetition_is_answered_in_order(server, topic):
    """requests of one connection: the second is a duplicate or in flight, and the third is answered behind it"""
    def one(at, name):
        return f"POST {path(topic)} HTTP/1.1\r\nHost: localhost\r\nEvent-Id: {topic}-{name}\r\nContent-Length: {len(at)}\r\n\r\n{at}"
    raw = server.exchange((one("1", "a") + one("1", "a") + one("2", "b") + "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").encode())
    statuses = [int(part[:3]) for part in raw.decode().split("HTTP/1.1 ")[1:]]
    assert statuses[0] == 201 and statuses[1] in (201, 409) and statuses[2:] == [201, 200]
    assert [event["data"] for event in events(server, topic)] == [1, 2]


@pytest.mark.parametrize("shards", ["1", "2"])
def test_a_retry_after_kill_9_gets_the_first_answer(shards):
    """as durable as the events: ids and producers survive `kill -9` and recovery"""
    with Server("--shards", shards) as server:
        first = post(server, path("a"), b"1", Event_Id="i-1")[2]
        array = objects(server, {"topic": "a", "data": 2, "id": "i-2"}, {"topic": "b", "data": 3, "id": "i-3"})[2]
        assert produce(server, path("a"), 0)[0] == 201 and produce(server, path("a"), 1)[0] == 201
        for _ in range(3):
            server.kill()
            server.start()
            assert post(server, path("a"), b"1", Event_Id="i-1")[2] == {**first, "duplicate": True}
            assert post(server, path("a"), b"2", Event_Id="i-1")[0] == 422
            again = objects(server, {"topic": "a", "data": 2, "id": "i-2"}, {"topic": "b", "data": 3, "id": "i-3"})[2]
            assert again == {**array, "duplicates": 2}
            status, fields, _ = produce(server, path("a"), 1)
            assert status == 204 and fields["Producer-Seq"] == "1" and fields["Event-Duplicate"] == "true"
            assert produce(server, path("a"), 3)[0] == 409
            assert post(server, path("a"), Expected_Offset="0")[0] == 412
        assert len(events(server, "**")) == 5


# --- Conditions

def test_expected_offset_of_a_topic(server, topic):
    """must be one more than the offset of the topic's last event ever (0 if none); else `412` with `expected_offset`"""
    value = problem(server.request("POST", path(topic), b"x", {"Expected-Offset": "7"}), "offset-mismatch", 412)
    assert value["expected_offset"] == 0
    offset = post(server, path(topic), Expected_Offset="0")[2]["offset"]
    post(server, path(topic + "/other"))
    value = problem(server.request("POST", path(topic), b"x", {"Expected-Offset": "0"}), "offset-mismatch", 412)
    assert value["expected_offset"] == offset + 1
    assert post(server, path(topic), Expected_Offset=str(offset + 1))[0] == 201
    assert len(events(server, topic)) == 2
    last = events(server, topic)[-1]["offset"]
    assert objects(server, {"topic": topic}, {"topic": topic}, Expected_Offset=str(last))[0] == 412
    assert objects(server, {"topic": topic}, {"topic": topic}, Expected_Offset=str(last + 1))[2]["count"] == 2
    with Ws(server) as ws:
        error = ws.ask(type="publish", id=1, topic=topic, data=1, expected_offset=0)
        assert error["status"] == 412 and error["problem"] == "offset-mismatch" and error["expected_offset"] > last + 1
        assert ws.ask(type="publish", id=2, topic=topic, data=1, expected_offset=error["expected_offset"])["type"] == "ack"


def test_expected_offset_of_the_log(fresh):
    """with `?scope=log` of the log's"""
    assert post(fresh, path("a") + "?scope=log", Expected_Offset="0")[2]["offset"] == 0
    post(fresh, path("b"))
    value = problem(fresh.request("POST", path("a") + "?scope=log", b"x", {"Expected-Offset": "1"}), "offset-mismatch", 412)
    assert value["expected_offset"] == 2
    assert post(fresh, path("a") + "?scope=topic", Expected_Offset="1")[2]["offset"] == 2
    assert objects(fresh, {"topic": "b"}, Expected_Offset="3")[0] == 412
    assert post(fresh, "/api/v1/events?scope=log", b'{"topic":"b"}', Expected_Offset="3")[2]["offset"] == 3


def test_conditions_that_cannot_be(server, topic):
    """400 for streams and for arrays over several topics"""
    assert server.request("POST", path(topic), b"1\n", {**NDJSON, "Expected-Offset": "0"})[0] == 400
    assert server.request("POST", "/api/v1/events", b'{"topic":"a"}\n', {**NDJSON, "Expected-Offset": "0"})[0] == 400
    assert objects(server, {"topic": topic}, {"topic": topic + "/b"}, Expected_Offset="0")[0] == 400
    for value in ("", "-1", "x", "1.5", "01", "99999999999999999999", "*"):
        assert server.request("POST", path(topic), b"1", {"Expected-Offset": value})[0] == 400, value
    assert post(server, path(topic) + "?scope=log")[0] == 400, "of what?"
    assert post(server, path(topic) + "?scope=all", Expected_Offset="0")[0] == 400
    assert server.request("POST", path(topic) + "?scope=log", b"1\n", NDJSON)[0] == 400
    assert server.request("GET", f"/api/v1/topics/{topic}")[0] == 404


def test_a_duplicate_is_found_before_the_condition(server, topic):
    """It is checked before the condition."""
    first = post(server, path(topic), Event_Id=f"{topic}-1", Expected_Offset="0")
    again = post(server, path(topic), Event_Id=f"{topic}-1", Expected_Offset="0")
    assert again[0] == 201 and again[2] == {**first[2], "duplicate": True}
    answer = server.request("POST", path(topic), b"other", {"Event-Id": f"{topic}-2", "Expected-Offset": "0"})
    assert problem(answer, "offset-mismatch", 412) and answer[1]["Event-Id-Window"] == WINDOW
    assert post(server, path(topic), b"other", Event_Id=f"{topic}-2")[2].get("duplicate") is None, "a refused one has no id"


def test_of_fifty_that_expect_the_same_one_wins(server, topic):
    """`Expected-Offset` races: exactly one wins each round"""
    expected = 0
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        for round_number in range(20):
            def append(client):
                return server.request("POST", path(topic), json.dumps([round_number, client]), {"Expected-Offset": str(expected)})

            answers = list(pool.map(append, range(50)))
            won = [json.loads(body)["offset"] for status, _, body in answers if status == 201]
            assert len(won) == 1, [status for status, _, _ in answers]
            for status, _, body in answers:
                assert status == 201 or (status == 412 and json.loads(body)["expected_offset"] == won[0] + 1)
            expected = won[0] + 1
    assert [event["data"][0] for event in events(server, topic)] == list(range(20))


# --- Producers

def test_a_producer(server, topic):
    """`Producer-Id`, `Producer-Epoch`, `Producer-Seq`, as Durable Streams has them"""
    status, fields, value = produce(server, path(topic), 0)
    assert status == 201 and fields["Producer-Epoch"] == "0" and fields["Producer-Seq"] == "0" and value["count"] == 1
    assert produce(server, path(topic), 1)[1]["Producer-Seq"] == "1"
    status, fields, body = produce(server, path(topic), 1)
    assert status == 204 and body is None and fields["Event-Duplicate"] == "true"
    assert fields["Producer-Epoch"] == "0" and fields["Producer-Seq"] == "1" and int(fields["Event-Offset"]) == events(server, topic)[-1]["offset"]
    status, fields, _ = produce(server, path(topic), 0, body=b"whatever")
    assert status == 204 and fields["Producer-Seq"] == "1" and fields["Event-Duplicate"] == "true", "the highest accepted"
    assert len(events(server, topic)) == 2


def test_a_gap_of_a_producer(server, topic):
    """gaps `409` with the expected sequence"""
    value = problem(server.request("POST", path(topic), b"x", {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "1"}), "producer-gap", 409)
    assert value["expected_seq"] == 0
    produce(server, path(topic), 0)
    answer = server.request("POST", path(topic), b"x", {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "5"})
    value = problem(answer, "producer-gap", 409)
    assert answer[1]["Producer-Expected-Seq"] == "1" and answer[1]["Producer-Received-Seq"] == "5"
    assert value["expected_seq"] == 1 and value["received_seq"] == 5
    assert produce(server, path(topic), 1)[0] == 201


def test_epochs_of_a_producer(server, topic):
    """older epochs `403`; a new epoch begins with sequence 0"""
    for seq in range(3):
        produce(server, path(topic), seq, epoch=1)
    assert produce(server, path(topic), 3, epoch=2)[2]["type"] == "/problems/epoch-start"
    assert produce(server, path(topic), 3, epoch=2)[0] == 400
    assert produce(server, path(topic), 0, epoch=2)[0] == 201
    answer = server.request("POST", path(topic), b"x", {"Producer-Id": "p", "Producer-Epoch": "1", "Producer-Seq": "3"})
    value = problem(answer, "stale-epoch", 403)
    assert answer[1]["Producer-Epoch"] == "2" and value["epoch"] == 2
    assert produce(server, path(topic), 1, epoch=2)[0] == 201
    assert len(events(server, topic)) == 5


def test_where_the_sequence_of_a_producer_counts(server, topic):
    """for `POST /api/v1/topics/{topic}/events` in the topic, for `POST /api/v1/events` in the log"""
    name = topic.replace("/", "-")
    assert produce(server, path(topic), 0, name=name)[0] == 201
    assert produce(server, path(topic + "/b"), 0, name=name)[0] == 201
    body = json.dumps([{"topic": topic}, {"topic": topic + "/c"}])
    status, fields, value = produce(server, "/api/v1/events", 0, name=name, body=body)
    assert status == 201 and value["count"] == 2 and fields["Producer-Seq"] == "0"
    status, fields, _ = produce(server, "/api/v1/events", 0, name=name, body=body)
    assert status == 204 and fields["Event-Duplicate"] == "true"
    assert produce(server, "/api/v1/events", 1, name=name, body=json.dumps({"topic": topic + "/d"}))[0] == 201
    assert produce(server, path(topic), 1, name=name)[0] == 201
    assert len(events(server, topic + "/**")) == 6


def test_what_a_producer_must_say(server, topic):
    """all three or none; integers 0..2^53-1; not for streams; not with an event id"""
    whole = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
    for name in whole:
        assert server.request("POST", path(topic), b"x", {other: value for other, value in whole.items() if other != name})[0] == 400, name
    for name in ("Producer-Epoch", "Producer-Seq"):
        for value in ("", "-1", "x", "1.0", "00", "9007199254740992"):
            assert server.request("POST", path(topic), b"x", {**whole, name: value})[0] == 400, (name, value)
    for value in ("", "p" * 257, "%0A"):
        assert server.request("POST", path(topic), b"x", {**whole, "Producer-Id": value})[0] == 400, value
    assert server.request("POST", path(topic), b"1\n", {**NDJSON, **whole})[0] == 400
    assert server.request("POST", "/api/v1/events", json.dumps({"topic": topic}), {**NDJSON, **whole})[0] == 400
    assert server.request("POST", path(topic), b"x", {**whole, "Event-Id": "a"})[0] == 400
    body = json.dumps([{"topic": topic}, {"topic": topic, "id": "a"}])
    assert server.request("POST", "/api/v1/events", body, {**whole, "Content-Type": "application/json"})[0] == 400
    assert server.request("GET", f"/api/v1/topics/{topic}")[0] == 404
    assert server.request("POST", path(topic), b"x", {**whole, "Producer-Epoch": "9007199254740991"})[0] == 201


def test_a_producer_that_races_with_itself(server, topic):
    """an append of a producer happens once, however often it is sent at once"""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for seq in range(20):
            statuses = sorted(answer[0] for answer in pool.map(lambda _: produce(server, path(topic), seq, body=str(seq).encode()), range(8)))
            assert statuses == [201] + [204] * 7
    assert [event["data"] for event in events(server, topic)] == list(range(20))


def test_what_a_producer_is_does_not_show(server, topic):
    """the fields of a producer are no part of its events"""
    produce(server, path(topic), 0, Event_Header_A="b")
    assert events(server, topic)[0]["headers"] == {"a": "b"}
    produce(server, path(topic), 1)
    assert "headers" not in events(server, topic)[1]


def test_other_origins_may_say_so():
    """preflight echoes the asked headers we know (`Event-*`, ..)"""
    with Server("--cors-origin", "https://app.example") as server:
        asked = "event-id, idempotency-key, expected-offset, producer-id, producer-epoch, producer-seq"
        headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
        _, fields, _ = server.request("OPTIONS", path("a"), headers=headers)
        assert fields["access-control-allow-headers"] == asked
        _, fields, _ = server.request("POST", path("a"), b"x", {"Origin": "https://app.example", "Event-Id": "1"})
        for name in ("Event-Id-Window", "Event-Duplicate", "Producer-Epoch", "Producer-Seq", "Producer-Expected-Seq", "Producer-Received-Seq"):
            assert name.lower() in fields["access-control-expose-headers"].lower()
