"""API §4: "In mid-stream `event: connection.reset` (with `id:`, `reason` .. `deleted`, `from`) says that something was passed over"."""

import re
import time

from harness import Server, wait_for
from wire import Sse, Ws


def delete(server, topic):
    """Deletes a topic; returns the offset of the event that says so."""
    status, _, body = server.request("DELETE", f"/api/v1/topics/{topic}")
    assert status == 204, body
    return server.json("GET", "/api/v1/logs/main")[1]["durable"] - 1


def trim(server, topic, before):
    """Trims a topic."""
    assert server.request("POST", f"/api/v1/topics/{topic}/trim?before={before}")[0] == 200


def fill(server, topic, count):
    """Appends events; returns their offsets."""
    return [server.append(topic, str(at)) for at in range(count)]


def test_a_cursor_inside_what_a_delete_hid(server, topic):
    """`resumed` (continues exactly after the cursor), and then that something was passed over"""
    offsets = fill(server, f"{topic}/a", 5)
    tag = server.json("GET", "/api/v1/logs/main")[1]["tag"]
    delete(server, f"{topic}/a")
    new = server.append(f"{topic}/a", '"new"')
    with Sse(server, {"topic": f"{topic}/a", "lastEventId": f"{offsets[1]}.{tag}"}) as stream:
        assert stream.established()["state"] == "resumed"
        reset = stream.next()
        assert reset["event"] == "connection.reset"
        assert reset.json["reason"] == "deleted"
        assert offsets[4] < reset.json["from"] <= new
        assert reset["id"] == f"{reset.json['from'] - 1}.{tag}"
        event = stream.next()
        assert (event["id"], event["data"]) == (f"{new}.{tag}", '"new"')
    # From the cursor of the reset nothing is passed over any more.
    with Sse(server, {"topic": f"{topic}/a", "lastEventId": reset["id"]}) as stream:
        assert stream.established()["state"] == "resumed"
        assert stream.next()["data"] == '"new"'


def test_who_had_everything_and_who_asks_for_another_topic_is_told_nothing(server, topic):
    """says that something was passed over"""
    offsets = fill(server, f"{topic}/a", 3)
    server.append(f"{topic}/b", "0")
    with Sse(server, {"topic": f"{topic}/a", "from": offsets[0]}) as had, Sse(server, {"topic": f"{topic}/b", "from": offsets[0]}) as other:
        had.established(), other.established()
        assert [event["data"] for event in had.take(3)] == ["0", "1", "2"]
        assert other.next()["data"] == "0"
        delete(server, f"{topic}/a")
        server.append(f"{topic}/a", '"on"')
        server.append(f"{topic}/b", '"on"')
        assert had.next()["data"] == '"on"'
        assert other.next()["data"] == '"on"'


def test_who_never_knew_what_is_gone_is_told_nothing(server, topic):
    """`live` (no cursor)"""
    fill(server, f"{topic}/a", 3)
    delete(server, f"{topic}/a")
    server.append(f"{topic}/a", '"new"')
    with Sse(server, {"topic": f"{topic}/a", "from": "earliest"}) as stream:
        assert stream.established()["state"] == "live"
        assert stream.next()["data"] == '"new"'


def test_one_reset_stands_for_all_that_was_deleted_until_then(server, topic):
    """says that something was passed over"""
    kept, first = [], server.append(f"{topic}/kept", '"first"')
    for at in range(20):
        fill(server, f"{topic}/gone/{at}", 3)
        kept.append(server.append(f"{topic}/kept", str(at)))
    trim(server, f"{topic}/kept", kept[4])
    for at in range(20):
        delete(server, f"{topic}/gone/{at}")
    with Sse(server, {"topic": f"{topic}/**", "from": first}) as stream:
        assert stream.established()["state"] == "resumed"
        reset = stream.next()
        assert (reset["event"], reset.json["reason"]) == ("connection.reset", "deleted")
        assert first < reset.json["from"] <= kept[4]
        assert [event["data"] for event in stream.take(16)] == [str(at) for at in range(4, 20)]
        # What is deleted later is told of again, to who lacks some of it; this one has everything.
        delete(server, f"{topic}/kept")
        server.append(f"{topic}/kept", '"last"')
        assert stream.next()["data"] == '"last"'


def test_a_slow_reader_is_told_of_what_was_deleted_before_it_came_to_it(server, topic):
    """A slow reader costs a cursor: it reads the log, and is told"""
    big = '"' + "x" * 200_000 + '"'
    server.append(f"{topic}/a", big)
    with Sse(server, {"topic": f"{topic}/*", "from": "-1"}, timeout_s=30) as stream:
        stream.established()
        first = stream.next()
        assert len(first["data"]) == len(big)
        for _ in range(60):
            server.append(f"{topic}/a", big)
        time.sleep(0.3)
        delete(server, f"{topic}/a")
        server.append(f"{topic}/b", '"end"')
        seen, resets = 0, []
        while (event := stream.next())["data"] != '"end"':
            if event.get("event") == "connection.reset":
                resets.append(event.json["reason"])
            else:
                seen += 1
        assert resets == ["deleted"], (resets, seen)
        assert seen < 60


def test_websocket(server, topic):
    """<- {"type":"reset","subscription":2,"reason":..,"from":500,"cursor":"499.k3f9q"}"""
    offsets = fill(server, f"{topic}/a", 4)
    server.append(f"{topic}/b", '"b"')
    delete(server, f"{topic}/a")
    new = server.append(f"{topic}/a", '"new"')
    with Ws(server) as socket:
        tag = socket.hello["tag"]
        socket.send(type="subscribe", topics=[f"{topic}/a"], last_event_id=f"{offsets[0]}.{tag}")
        assert socket.next_of("subscribed")["state"] == "resumed"
        reset = socket.next()
        assert (reset["type"], reset["subscription"], reset["reason"]) == ("reset", 1, "deleted")
        assert reset["cursor"] == f"{reset['from'] - 1}.{tag}" and offsets[3] < reset["from"] <= new
        assert socket.next()["data"] == "new"
        socket.send(type="subscribe", topics=[f"{topic}/b"], last_event_id=f"{offsets[0]}.{tag}")
        assert socket.next_of("subscribed")["subscription"] == 2
        assert socket.next()["data"] == "b", "nothing of it was deleted"


def test_what_is_still_in_memory_does_not_come_back_once_the_segments_have_let_it_go():
    """`DELETE` of a topic hides its events at once, and for ever"""
    with Server("--segment-bytes", "1048576", "--shards", "2", "--compress-after", "1") as server:
        filler = "".join(f'{{"topic":"filler","data":"{"x" * 1000}"}}\n' for _ in range(600))

        def more():
            status, _, body = server.request("POST", "/api/v1/events", filler, {"Content-Type": "application/x-ndjson"})
            assert status == 201, body

        fill(server, "going/1", 3)
        delete(server, "going/1")
        more(), more()
        wait_for(lambda: re.search(rb"\nstrandline_compacted_segments_total [1-9]", server.request("GET", "/metrics")[2]), 40, every_s=0.2)
        # The next look finds that nothing is left, and the deletion is forgotten.
        for _ in range(24):
            for order in ("asc", "desc"):
                for at in range(2):
                    page = server.json("GET", f"/api/v1/events/history?topic=going/1&order={order}")[1]
                    assert page["events"] == []
            time.sleep(0.5)
        with Sse(server, {"topic": "going/*", "from": "-3"}) as stream:
            stream.established()
            server.append("going/2", '"new"')
            assert stream.next()["data"] == '"new"'


def test_what_a_rewrite_has_dropped_is_seen_by_no_reader():
    """§8: `count`, `first`: every reader sees the same as these say, in memory or not"""
    with Server("--segment-bytes", "1048576", "--compress-after", "1", "--shards", "2") as server:
        lines = "".join(f'{{"topic":"few","data":"{at}{"x" * 3000}"}}\n' for at in range(200))
        filler = "".join(f'{{"topic":"filler","data":"{"x" * 3000}"}}\n' for _ in range(450))
        with Sse(server, {"topic": "few"}) as follower:
            follower.established()
            assert server.request("POST", "/api/v1/events", lines, {"Content-Type": "application/x-ndjson"})[0] == 201
            assert server.request("PUT", "/api/v1/topics/few", b'{"retain":{"count":10}}')[0] == 200
            assert server.request("POST", "/api/v1/events", filler, {"Content-Type": "application/x-ndjson"})[0] == 201
            few = lambda: server.json("GET", "/api/v1/topics/few")[1]
            wait_for(lambda: few()["count"] == 10, 40, every_s=0.2)
            topic = few()
            # The next look of each shard finds it.
            server.append("few", '"last"')
            for order in ("asc", "desc"):
                for _ in range(4):
                    page = server.json("GET", f"/api/v1/events/history?topic=few&limit=1000&order={order}")[1]
                    offsets = sorted(event["offset"] for event in page["events"])
                    assert (len(offsets), offsets[0]) == (11, topic["first"]), order
        for query in ({"topic": "few", "from": "earliest"}, {"topic": "few", "from": "-100"}, {"topic": "few", "from": "0"}):
            with Sse(server, query) as stream:
                stream.established()
                assert int(stream.next()["id"].split(".")[0]) == topic["first"], query
