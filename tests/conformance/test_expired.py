"""API §4, §5 and §7: what happens to readers whom retention passes, in mid-stream and when they come back."""

import http.client
import itertools
import json
import os
import pathlib
import re
import subprocess
import threading
import time

import pytest

from harness import Connection, Patience, Server, binary, wait_for
from wire import Sse, Ws, problem

HISTORY = "/api/v1/events/history"
JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}

# More than the sockets of stalled readers hold, in segments of a MiB.
EVENTS = 6000


def fill(server):
    """Appends events to three topics in turn: the data of each is its offset, and filler behind it."""
    lines = "".join(f'{{"topic":"t/{at % 3}","content_type":"text/plain","data":"{at:06}{"x" * 970}"}}\n' for at in range(EVENTS))
    status, _, body = server.request("POST", "/api/v1/events", lines, LINES)
    assert status == 201, body


def log(server):
    """The log, as it says of itself."""
    return server.json("GET", "/api/v1/logs/main")[1]


def put(server, target, settings):
    """Sets something."""
    assert server.request("PUT", target, json.dumps(settings), JSON)[0] == 200


@pytest.fixture(params=["1", "2"], ids=["one-shard", "two-shards"])
def filled(request):
    """A server whose log has several sealed segments."""
    with Server("--shards", request.param, "--segment-bytes", "1048576", "--compress-after", "100000") as server:
        fill(server)
        yield server


def of_sse(stream, last):
    """All offsets that come up to `last`, and the resets: how many came before, and the event."""
    seen, resets = [], []
    while not seen or seen[-1] != last:
        event = stream.next()
        if event.get("event") == "connection.reset":
            resets.append((len(seen), event))
        else:
            seen.append(int(event["id"].split(".")[0]))
    return seen, resets


class Slow(Ws):
    """A WebSocket with subscriptions that have begun, and whose events nobody takes until `up_to`."""

    def __init__(self, server, *topics):
        super().__init__(server, max_queue=1)
        self.seen, self.resets = {}, []
        for topic in topics:
            self.send(type="subscribe", topics=[topic], **{"from": "earliest"})
        while len(self.seen) < len(topics):
            self.take()

    def take(self):
        """Takes one message."""
        message = self.next()
        number = message["subscription"]
        if message["type"] == "subscribed":
            self.seen[number] = []
        elif message["type"] == "reset":
            self.resets.append((len(self.seen[number]), message))
        elif message["type"] == "event":
            self.seen[number].append(message["offset"])

    def up_to(self, *last):
        """Takes what comes up to these offsets, one of each subscription; all offsets seen, and the resets: how many came before, and the message."""
        while any(self.seen[number][-1:] != [offset] for number, offset in enumerate(last, 1)):
            self.take()
        return self.seen, self.resets


def test_a_limit_of_the_log_passes_readers_in_mid_stream(filled):
    """In mid-stream `event: connection.reset` (with `id:`, `reason` `expired`, `from`) says that something was passed over; "readers get nothing older" than `earliest`"""
    tag, next_page = log(filled)["tag"], filled.json("GET", f"{HISTORY}?topic=t/*&limit=3")[1]["next"]
    lines = Connection(filled.port, 10)
    lines.request("GET", f"{HISTORY}?topic=t/*", headers={"Accept": "application/x-ndjson"})
    lines = lines.getresponse()
    with Sse(filled, {"topic": "t/*", "from": "earliest"}) as every, Sse(filled, {"topic": "t/1", "from": 0, "format": "event"}) as one, \
            Slow(filled, "t/*", "t/2") as ws:
        every.established(), one.established()
        last = [filled.append(f"t/{at}", "end") for at in range(3)]
        # Not where a segment begins: what stands before it in its segment is gone for everybody. Nothing is
        # appended from now on, which would move it.
        put(filled, "/api/v1/logs/main", {"retain": {"count": 1500}})
        wait_for(lambda: log(filled)["earliest"] > EVENTS - 1500)
        wait_for(lambda: len(list((pathlib.Path(filled.data) / "default/main").glob("*.log"))) < 5)
        earliest = log(filled)["earliest"]
        ends = [*range(earliest, EVENTS), *last]
        mine = {0: ends, **{1 + at: [offset for offset in ends[:-3] if offset % 3 == at] + [last[at]] for at in range(3)}}

        for stream, steps, want in ((every, 1, ends), (one, 3, mine[2])):
            seen, resets = of_sse(stream, want[-1])
            (before, reset), = resets
            assert seen == [*range(steps // 3, steps * before, steps), *want], (before, reset, seen[before:][:3], want[:3])
            assert reset.json == {"reason": "expired", "from": earliest} and reset["id"] == f"{earliest - 1}.{tag}"
            # Nothing is passed over, and nothing told, from there on.
            with Sse(filled, {"topic": "t/*" if stream is every else "t/1"}, {"Last-Event-ID": reset["id"]}) as again:
                assert again.established()["state"] == "resumed"
                assert again.next()["id"] == f"{want[0]}.{tag}"
        seen, resets = ws.up_to(ends[-1], last[2])
        assert sorted(reset["subscription"] for _, reset in resets) == [1, 2]
        for before, reset in resets:
            number = reset["subscription"]
            steps, want = {1: (1, ends), 2: (3, mine[3])}[number]
            assert (reset["reason"], reset["from"], reset["cursor"]) == ("expired", earliest, f"{earliest - 1}.{tag}")
            assert seen[number] == [*range(2 * (steps // 3), steps * before, steps), *want]
    # A history in lines that has begun goes on as long as its files are there; else it is cut, without its proper end.
    try:
        text, is_whole = lines.read(), True
    except http.client.IncompleteRead as cut:
        text, is_whole = cut.partial, False
    got = [json.loads(line)["offset"] for line in text.splitlines()]
    assert got == list(range(len(got))) and (len(got) == EVENTS) == is_whole
    value = problem(filled.request("GET", next_page), "expired", 410)
    assert (value["earliest"], value["tag"]) == (earliest, tag)


def test_nobody_is_told_of_what_was_not_for_it():
    """`reset` says that something was passed over: retention passes the place of a silent reader, which has missed nothing"""
    with Server("--segment-bytes", "1048576") as server:
        put(server, "/api/v1/logs/main", {"retain": {"count": 50}})
        with Sse(server, {"topic": "quiet", "heartbeat": 300}) as stream:
            began = stream.established()["from"]
            for _ in range(20):
                server.request("POST", "/api/v1/topics/loud/events", "".join(f"{at}\n" for at in range(50)), LINES)
            wait_for(lambda: log(server)["earliest"] > began + 500)
            # More in one frame than is kept encoded for those who follow the end.
            big = ["x" * 900_000, "y" * 900_000, "z" * 900_000]
            events = [{"topic": "quiet", "content_type": "text/plain", "data": data} for data in big]
            assert server.request("POST", "/api/v1/events", json.dumps(events), JSON)[0] == 201
            assert [stream.next()["data"] for _ in big] == big


def test_an_export_that_retention_overtakes_goes_on_at_the_earliest():
    """What it has not got is named, and the rest follows."""
    with Server("--segment-bytes", "1048576", "--compress-after", "100000") as server:
        for _ in range(5):
            fill(server)
        with subprocess.Popen([binary(), "export", "--url", server.base], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as export:
            first = export.stdout.readline()
            put(server, "/api/v1/logs/main", {"retain": {"count": 500}})
            wait_for(lambda: len(list((pathlib.Path(server.data) / "default/main").glob("*.log"))) < 4)
            end = server.append("t/0", "end")
            rest, told = export.stdout.read(), export.stderr.read()
    offsets = [json.loads(line)["offset"] for line in [first, *rest.splitlines()]]
    missing = re.fullmatch(r"warning: events from (\d+) to (\d+) are gone: retention was faster\n", told)
    assert missing and export.returncode == 1, told
    behind, earliest = map(int, missing.groups())
    # All that there was until then, and all that there is.
    assert offsets == [*range(behind), *range(earliest, 5 * EVENTS), end]


def test_who_comes_back_after_retention(filled):
    """`reset` with `reason` `expired` (retention passed it); a reset continues at `from` if one was given as `earliest`, `latest` or `-N`, else at `earliest`; an offset below `earliest` is 410"""
    tag = log(filled)["tag"]
    put(filled, "/api/v1/logs/main", {"retain": {"count": 1500}})
    wait_for(lambda: log(filled)["earliest"] > EVENTS - 1500)
    earliest = log(filled)["earliest"]
    first, end = f"{earliest:06}", EVENTS
    for start, data in ((None, first), ("earliest", first), ("7", first), ("-2", f"{end - 2:06}")):
        asks = {"topic": "t/*", "lastEventId": f"3.{tag}"} | ({"from": start} if start else {})
        with Sse(filled, asks) as stream:
            hello = stream.established()
            assert (hello["state"], hello["reason"], hello["earliest"]) == ("reset", "expired", earliest), hello
            assert hello["id"] == f"{hello['from'] - 1}.{tag}"
            assert stream.next()["data"][:6] == data, start
    with Sse(filled, {"topic": "t/*", "from": 3}) as stream:
        assert stream.established()["reason"] == "expired", "`from=<offset>` counts as the cursor before it"
    with Ws(filled) as ws:
        for number, (cursor, state) in enumerate(((f"-1.{tag}", "reset"), (f"{earliest - 2}.{tag}", "reset"), (f"{earliest - 1}.{tag}", "resumed")), 1):
            ws.send(type="subscribe", id=number, topics=["t/*"], last_event_id=cursor)
            subscribed = ws.next_of("subscribed")
            assert (subscribed["state"], subscribed.get("reason"), subscribed["from"]) == (state, "expired" if state == "reset" else None, earliest)
            ws.send(type="unsubscribe", id=number, subscription=subscribed["subscription"])
            ws.next_of("unsubscribed")
    for query in ("from=0", f"from={earliest - 1}", "last_event_id=3", f"last_event_id={earliest - 2}.{tag}", f"last_event_id=-1.{tag}"):
        value = problem(filled.request("GET", f"{HISTORY}?{query}"), "expired", 410)
        assert value["earliest"] == earliest
    for query in ("", "from=earliest", f"from={earliest}", f"last_event_id={earliest - 1}.{tag}", "since=2001-01-01T00:00:00Z"):
        status, page = filled.json("GET", f"{HISTORY}?limit=1&{query}")
        assert status == 200 and page["events"][0]["offset"] == earliest == page["earliest"], query
    assert filled.request("HEAD", HISTORY)[1]["Log-Earliest"] == str(earliest)
    with Sse(filled, {"topic": "t/*", "lastEventId": f"3.{tag}", "from": "latest"}) as stream:
        hello = stream.established()
        new = filled.append("t/0", "new")
        assert (hello["state"], hello["reason"], hello["from"]) == ("reset", "expired", new) and stream.next()["data"] == "new"


def test_the_earliest_is_there_while_it_moves():
    """`from` (`earliest`, the default, ..): never 410, nor cut before its first line, however fast segments go"""
    with Server("--shards", "2", "--segment-bytes", "1048576", "--compress-after", "100000") as server:
        for _ in range(2):
            fill(server)
        refused, is_over = [], threading.Event()

        def ask():
            while not is_over.is_set():
                for query in ("", "?from=earliest", "?since=2001-01-01T00:00:00Z"):
                    status, page = server.json("GET", HISTORY + query)
                    if status != 200:
                        refused.append((query, page))
                try:
                    server.request("GET", HISTORY, headers={"Accept": "application/x-ndjson"})
                except http.client.IncompleteRead as cut:
                    refused.extend([cut] if not cut.partial else [])

        for topic in range(3):
            assert server.request("DELETE", f"/api/v1/topics/t/{topic}")[0] == 204
        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        try:
            wait_for(lambda: log(server)["earliest"] > 2 * EVENTS - 2000, 20)
        finally:
            is_over.set()
            for thread in asking:
                thread.join()
        assert not refused, (len(refused), refused[0])


@pytest.mark.parametrize("take", ["delete", "trim"])
def test_a_slow_websocket_is_told_of_what_was_deleted(filled, take):
    """<- {"type":"reset","subscription":2,"reason":.. "deleted"}: to each that lacks some of it, and once"""
    with Slow(filled, "t/*", "t/1", "t/2") as ws:
        if take == "delete":
            assert filled.request("DELETE", "/api/v1/topics/t/1")[0] == 204
        else:
            assert filled.request("POST", f"/api/v1/topics/t/1/trim?before={EVENTS}")[0] == 200
        ends = [filled.append(f"t/{at}", "end") for at in range(3)]
        seen, resets = ws.up_to(ends[2], ends[1], ends[2])
    told = [reset["subscription"] for _, reset in resets if reset["reason"] == "deleted"]
    assert sorted(told) == [1, 2] and len(resets) == 2, resets
    for offsets in seen.values():
        assert offsets == sorted(set(offsets))
    assert len(seen[2]) < EVENTS // 3 and [offset for offset in seen[1] if offset % 3 == 0 and offset < EVENTS] == list(range(0, EVENTS, 3))


def test_expiry_goes_on_while_the_disk_is_full(disk_of):
    """`DELETE`, trim and `expire` act at once, also where the disk is full: then that frees it"""
    directory = disk_of(16)
    with Server("--shards", "1", "--segment-bytes", "1048576", data=str(directory / "data")) as server:
        server.append("keep", "1")
        def fill_up():
            """until what is smaller than all that is refused below is refused for a second"""
            for size in (200_000, 50_000):
                since = time.monotonic()
                while time.monotonic() - since < 1:
                    answer = server.request("POST", "/api/v1/topics/fill/events", os.urandom(size))
                    if answer[0] == 201:
                        since = time.monotonic()
                    else:
                        time.sleep(0.05)
            return answer

        def refused(ask, is_refused):
            """the answer to one of several tries, and which: what was written is compressed now and then, and gives a little back"""
            patience = Patience(30)
            for attempt in itertools.count():
                answer = ask(attempt)
                if is_refused(answer):
                    return attempt, answer
                fill_up()
                assert not patience.is_over(), answer

        status, _, body = fill_up()
        problem((status, {"content-type": "application/problem+json"}, body), "disk-full", 507)

        def array_of(attempt):
            return [{"topic": f"other/{attempt}", "data": "x" * 100_000, "id": f"{attempt}/{at}"} for at in range(5)]

        def lines_of(attempt):
            return "".join(json.dumps({**event, "topic": "line"} | {"id": f"line/{event['id']}"}) + "\n" for event in array_of(attempt))

        # Whole refusals, of every form.
        attempt, _ = refused(lambda attempt: server.json("POST", "/api/v1/events", array_of(attempt)), lambda answer: answer[0] == 507)
        array, other = array_of(attempt), f"other/{attempt}"
        _, answer = refused(lambda attempt: server.request("POST", "/api/v1/events", lines_of(attempt), LINES), lambda answer: answer[0] == 507 and json.loads(answer[2])["line"] == 1)
        assert {"appended": 0, "duplicates": 0}.items() <= json.loads(answer[2]).items()
        with Ws(server, {"topic": "keep", "from": "earliest"}) as ws:
            assert ws.next()["type"] == "subscribed" and ws.next()["data"] == 1, "reads go on"

            def publish(attempt):
                return ws.ask(type="publish", id=attempt + 1, topic="published", data="x" * 100_000)

            attempt, error = refused(publish, lambda answer: answer["type"] == "error")
            assert (error["id"], error["status"], error["problem"]) == (attempt + 1, 507, "disk-full")
        assert server.request("GET", f"/api/v1/topics/{other}")[0] == 404
        refused(lambda _: server.request("GET", "/metrics")[2], lambda metrics: b"\nstrandline_disk_full 1\n" in metrics)
        put(server, "/api/v1/topics/fill", {"expire": {"age_s": 1}})
        # Who goes on appending keeps it full: one that nobody asks for room counts as full for 5 s only, and then topics expire anyway.
        patience = Patience(30)
        while server.json("GET", "/api/v1/topics/fill")[1]["count"] > 0:
            server.request("POST", "/api/v1/topics/more/events", os.urandom(1_000_000))
            assert not patience.is_over()
        # Appends go on by themselves, and an id that was refused is nobody's.
        wait_for(lambda: server.json("POST", "/api/v1/events", array)[0] == 201, 30)
        assert server.json("POST", "/api/v1/events", array)[1]["duplicates"] == 5
        wait_for(lambda: server.json("GET", "/readyz")[1]["appends"], 30)
        assert b"\nstrandline_disk_full 0\n" in server.request("GET", "/metrics")[2]
