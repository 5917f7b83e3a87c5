"""API §7 and §8: history, topics."""

import datetime
import json
import pathlib
import re
import time
import urllib.parse

import pytest

from harness import Patience, PatientSocket, Server, wait_for
from wire import Sse, events_of, problem

HISTORY = "/api/v1/events/history"


def get(server, **asks):
    """A page; on a busy machine it may end after a second's search with none of its events, which the next one has."""
    asks = {name.rstrip("_"): value for name, value in asks.items()}
    status, page = server.json("GET", HISTORY + "?" + urllib.parse.urlencode(asks, doseq=True))
    patience = Patience(60)
    while status == 200 and not page["events"] and "next" in page:
        assert not patience.is_over(), page
        status, page = server.json("GET", page["next"])
    assert status == 200, page
    return page


def data(page):
    return [event["data"] for event in page["events"]]


def fill(server, topic, count):
    lines = "".join(f"{at}\n" for at in range(count))
    status, _, body = server.request("POST", f"/api/v1/topics/{topic}/events", lines, {"Content-Type": "application/x-ndjson"})
    assert status == 201
    return json.loads(body)


def test_page(server, topic):
    """{"events":[..],"cursor":"..","next":"..","earliest":0,"durable":64000,"tag":".."}"""
    fill(server, topic, 5)
    page = get(server, topic=topic)
    assert data(page) == [0, 1, 2, 3, 4] and "next" not in page
    assert page["earliest"] == 0 and page["durable"] > page["events"][-1]["offset"] and page["cursor"].endswith("." + page["tag"])
    assert set(page["events"][0]) == {"offset", "time", "topic", "type", "content_type", "data"}


def test_pages_follow_next(server, topic):
    """limit 1 to 10,000 (default 100); only an absent `next` is the end; next keeps the other parameters"""
    fill(server, topic, 250)
    fill(server, topic + "/other", 3)
    for order, expected in (("asc", list(range(250))), ("desc", list(range(249, -1, -1)))):
        got, path, pages = [], f"{HISTORY}?topic={topic}&order={order}", 0
        while path:
            status, page = server.json("GET", path)
            assert status == 200 and len(page["events"]) <= 100
            got, path, pages = got + data(page), page.get("next"), pages + 1
        assert got == expected and pages in (3, 4)


def test_cursor_joins_the_stream(server, topic):
    """everything up to `cursor` has been considered, so a stream from it continues exactly"""
    fill(server, topic, 10)
    page = get(server, topic=topic, limit=4)
    with Sse(server, {"topic": topic}, {"Last-Event-ID": page["cursor"]}) as stream:
        assert stream.established()["state"] == "resumed"
        assert [event["data"] for event in stream.take(6)] == [str(at) for at in range(4, 10)]
    page = get(server, topic=topic, limit=100)
    with Sse(server, {"topic": topic}, {"Last-Event-ID": page["cursor"]}) as stream:
        stream.established()
        server.append(topic, "live")
        assert stream.next()["data"] == "live"


def test_from_and_last_event_id(server, topic):
    """from (`earliest`, the default, or an offset, inclusive), last_event_id"""
    ack = fill(server, topic, 10)
    offsets = [event["offset"] for event in get(server, topic=topic)["events"]]
    assert data(get(server, topic=topic, from_="earliest")) == list(range(10))
    assert data(get(server, topic=topic, from_=offsets[3])) == list(range(3, 10))
    tag = ack["cursor"].split(".")[1]
    assert data(get(server, topic=topic, last_event_id=f"{offsets[3]}.{tag}")) == list(range(4, 10))
    assert data(get(server, topic=topic, from_=offsets[-1] + 10**9)) == []


def test_skip(server, topic):
    """`offset` skips that many matching events"""
    fill(server, topic, 20)
    assert data(get(server, topic=topic, offset=15)) == [15, 16, 17, 18, 19]
    assert data(get(server, topic=topic, offset=5, limit=3, order="desc")) == [14, 13, 12]
    assert data(get(server, topic=topic, offset=100)) == []
    page = get(server, topic=topic, offset=5, limit=10)
    assert data(page) == list(range(5, 15)) and data(server.json("GET", page["next"])[1]) == list(range(15, 20))


def test_since_until(server, topic):
    """`since` <= time < `until`; times clamp"""
    fill(server, topic, 3)
    time.sleep(0.02)
    middle = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    time.sleep(0.02)
    for at in range(3, 6):
        server.append(topic, str(at))
        time.sleep(0.005)  # each in a millisecond of its own
    assert data(get(server, topic=topic, since=middle)) == [3, 4, 5]
    assert data(get(server, topic=topic, until=middle)) == [0, 1, 2]
    first = get(server, topic=topic, since=middle)["events"][1]["time"]
    between = get(server, topic=topic, since=middle, until=first)
    assert all(middle <= event["time"] < first for event in between["events"]) and data(between) == [3]
    assert data(get(server, topic=topic, since="1999-01-01T00:00:00Z", until="2999-01-01T00:00:00Z")) == list(range(6))
    assert data(get(server, topic=topic, since="2999-01-01T00:00:00Z")) == []


def test_a_plus_in_a_time(server, topic):
    """a space in a time counts as `+`: `2026-01-01T00:00:00+00:00` may stand in a query as it is"""
    fill(server, topic, 1)
    time.sleep(0.005)
    server.append(topic, "1")
    at = get(server, topic=topic)["events"][1]["time"].replace("Z", "+00:00")
    for spelt in (at, at.replace("+", "%2B"), at.replace("+", "%20")):
        assert data(server.json("GET", f"{HISTORY}?topic={topic}&since={spelt}")[1]) == [1]
        with Sse(server, f"topic={topic}&from={spelt}") as stream:
            stream.established()
            assert stream.next()["data"] == "1"
    assert server.json("POST", f"/api/v1/topics/{topic}/trim?before={at}")[0] == 200
    assert data(get(server, topic=topic)) == [1]


def test_types_and_patterns(server, topic):
    """`topic`, `type` as above"""
    server.append(topic + "/a", "1", Event_Type="x")
    server.append(topic + "/b", "2", Event_Type="y")
    server.append(topic + "/b/c", "3", Event_Type="x")
    assert data(get(server, topic=f"{topic}/*")) == [1, 2]
    assert data(get(server, topic=f"{topic}/**", type="x")) == [1, 3]
    assert data(get(server, topic=[f"{topic}/a", f"{topic}/b/c"])) == [1, 3]
    assert data(get(server, topic=f"{topic}/**", type="x", order="desc", limit=1)) == [3]


def test_a_page_ends_early_at_8_mib(server, topic):
    """A page may end early (8 MiB)"""
    for _ in range(12):
        server.append(topic, b"x" * 1_000_000)
    path = f"{HISTORY}?topic={topic}"

    def is_full():
        status, _, body = server.request("GET", path)
        page = json.loads(body)
        assert status == 200 and len(body) <= 10 << 20 and len(page["events"]) < 12 and page["next"]
        return len(body) > 8_000_000

    wait_for(is_full)  # On a busy machine it may end earlier.
    assert len(events_of(server, path)) == 12


def memory_mib(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024


def longest_page():
    """Bytes of a page beside those of others who take none: what the kernel has taken of these, up to its longest send buffer each, is
    not held, so it ends about as long as that."""
    return int(pathlib.Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2]) + (512 << 10)


def begins(client):
    """Takes the beginning of an answer"""
    assert client.recv(12) == b"HTTP/1.1 200"


def stalled_clients(server, requests, one_by_one=False):
    """100 that ask, get the beginning of an answer, and take nothing more; one by one the kernel has what it takes of one's
    answer before the next asks"""
    clients = []
    for _ in range(100):
        client = PatientSocket(server.port, 30, receive_bytes=4096)
        client.sendall(requests.encode())
        clients.append(client)
        if one_by_one:
            begins(client)
    if not one_by_one:
        for client in clients:
            begins(client)
    return clients


def test_pages_that_nobody_takes_are_not_all_kept():
    """A page may end early: a slow reader costs a cursor, not a buffer"""
    with Server("--shards", "1") as server:
        lines = "\n".join(f'"{at}{"x" * 1000}"' for at in range(12_000))
        assert server.request("POST", "/api/v1/topics/a/events", lines, {"Content-Type": "application/x-ndjson"})[0] == 201

        def page(path):
            value = server.json("GET", path)[1]
            return value, sum(len(event["data"]) for event in value["events"])

        first = f"{HISTORY}?topic=a&limit=10000"
        before = memory_mib(server)
        wait_for(lambda: page(first)[1] > 7_000_000)  # On a busy machine it may end early.
        asked = f"GET {first} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        stalled = stalled_clients(server, asked)
        assert memory_mib(server) - before < 250
        # Who asks at once is given little, as nothing has left yet of what the others are given: once the kernel has taken that, not
        # much may be held. Who asks behind that has as much held of his page as it is longer than what the kernel takes.
        stalled += stalled_clients(server, asked, one_by_one=True)
        assert memory_mib(server) - before < 250
        # Whoever reads gets everything all the same, in more pages.
        events, pages, path = [], 0, first
        while path:
            value, bytes_in_page = page(path)
            assert value["events"] and bytes_in_page < min(longest_page(), 7_000_000)
            events, pages, path = events + value["events"], pages + 1, value.get("next")
        assert [event["offset"] for event in events] == list(range(12_000)) and pages > 2
        # and long ones again once the others have gone.
        for client in stalled:
            client.close()
        wait_for(lambda: page(first)[1] >= 7_000_000, every_s=0.1)


def test_ndjson(server, topic):
    """`Accept: application/x-ndjson`: the events alone, one a line, no limit unless given"""
    fill(server, topic, 500)
    status, headers, body = server.request("GET", f"{HISTORY}?topic={topic}", headers={"Accept": "application/x-ndjson"})
    assert status == 200 and headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line)["data"] for line in body.decode().splitlines()] == list(range(500))
    body = server.request("GET", f"{HISTORY}?topic={topic}&limit=7&order=desc", headers={"Accept": "application/x-ndjson"})[2]
    assert [json.loads(line)["data"] for line in body.decode().splitlines()] == list(range(499, 492, -1))


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_behind_an_append_on_its_connection(server, topic, accept):
    """what is asked for behind an append, on its connection, finds its event"""
    for number in range(20):
        body = b"%d" % number
        append = b"POST /api/v1/topics/%s/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (topic.encode(), len(body), body)
        page = f"GET {HISTORY}?topic={topic}&order=desc&limit=1 HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n".encode()
        answer = server.exchange(append + page)
        assert b'"data":%d' % number in answer, (number, answer)


def test_head(server, topic):
    """`HEAD`: `Log-Earliest`, `Log-Durable`"""
    offset = server.append(topic, "x")
    status, headers, body = server.request("HEAD", HISTORY)
    assert status == 200 and headers["Log-Earliest"] == "0" and int(headers["Log-Durable"]) > offset and body == b""
    for kind in ("application/json", "application/x-ndjson"):
        assert server.request("HEAD", HISTORY, headers={"Accept": kind})[1]["content-type"] == server.request("GET", HISTORY + "?limit=1", headers={"Accept": kind})[1]["content-type"] == kind


def test_head_is_refused_as_get_is(fresh):
    """HEAD is GET without the body: 410 and 400 too"""
    for at in range(3):
        fresh.append("a", str(at))
    assert fresh.request("PUT", "/api/v1/logs/main", '{"retain":{"count":1}}', {"Content-Type": "application/json"})[0] == 200
    for query in ("last_event_id=1.zzz", "last_event_id=?", "colour=red", "from=-1", "from=1&log=other", "since=2999-01-01T00:00:00Z", ""):
        for accept in ("application/json", "application/x-ndjson", "text/html"):
            asked = [fresh.request(method, f"{HISTORY}?{query}", headers={"Accept": accept}) for method in ("HEAD", "GET")]
            (status, headers, body), (wanted, wanted_headers, _) = asked
            assert (status, body) == (wanted, b""), (query, accept)
            assert headers["content-type"] == wanted_headers["content-type"]


@pytest.mark.parametrize("query", [
    "limit=0", "limit=10001", "limit=x", "limit=-1", "offset=-1", "offset=18446744073709551616", "order=up", "from=latest", "from=-1", "from=18446744073709551616", "from=x", "since=yesterday",
    "until=2026-99-01T00:00:00Z", "last_event_id=x", "colour=red", "topic=", "topic=a&log=", "heartbeat=5",
])
def test_bad_parameters(server, query):
    """400 syntax; unknown parameters are refused by name"""
    assert server.request("GET", f"{HISTORY}?{query}")[0] == 400


def test_not_acceptable(server):
    """406 for something else only"""
    assert server.request("GET", HISTORY, headers={"Accept": "text/html"})[0] == 406


def test_cursor_of_another_log(server):
    """a cursor of another log is not silently taken"""
    assert server.request("GET", f"{HISTORY}?last_event_id=5.zzzzzz")[0] == 410


def test_cursor_beyond_the_end(server, topic):
    """a cursor of a log that had more is not silently taken, and an offset that is to come is"""
    offset = server.append(topic, "1")
    page = server.json("GET", f"{HISTORY}?topic={topic}")[1]
    assert server.request("GET", f"{HISTORY}?last_event_id={page['cursor']}")[0] == 200
    for cursor in (f"{offset + 1000000}.{page['tag']}", str(offset + 1000000), "9223372036854775806"):
        status, problem = server.json("GET", f"{HISTORY}?last_event_id={cursor}")
        assert (status, problem["earliest"], problem["tag"]) == (410, page["earliest"], page["tag"]), cursor
    assert server.json("GET", f"{HISTORY}?from={offset + 1000000}")[1]["events"] == []


def test_topics(server, topic):
    """{"topics":[{"topic":"a/b","count":10,"first":0,"last":90,"time":".."}],"next":".."}; `prefix` is bytes"""
    for name in ("b", "a/x", "a/y", "a-", "a"):
        server.append(f"{topic}/{name}", "1")
    last = server.append(f"{topic}/a/x", "2")
    status, page = server.json("GET", f"/api/v1/topics?prefix={topic}/a")
    assert status == 200 and [entry["topic"] for entry in page["topics"]] == [f"{topic}/{name}" for name in ("a", "a-", "a/x", "a/y")]
    entry = page["topics"][2]
    assert entry["count"] == 2 and entry["last"] == last and entry["first"] < last and entry["time"].endswith("Z")
    names, path = [], f"/api/v1/topics?prefix={topic}/&limit=2"
    while path:
        page = server.json("GET", path)[1]
        names, path = names + [entry["topic"] for entry in page["topics"]], page.get("next")
    assert names == [f"{topic}/{name}" for name in ("a", "a-", "a/x", "a/y", "b")]
    page = server.json("GET", f"/api/v1/topics?prefix={topic}/&after={topic}/a/x")[1]
    assert [entry["topic"] for entry in page["topics"]] == [f"{topic}/a/y", f"{topic}/b"]
    assert server.request("GET", "/api/v1/topics?limit=0")[0] == 400 and server.request("GET", "/api/v1/topics?colour=1")[0] == 400


def test_pages_of_topics_that_nobody_takes_are_not_all_kept():
    """`limit` is the most that a page has; `next` goes on"""
    names = [f"{at:05}{'a' * 123}/{'b' * 127}/{'c' * 127}/{'d' * 126}" for at in range(10_000)]
    with Server("--shards", "1") as server:
        lines = "\n".join(json.dumps({"topic": name}) for name in names)
        assert server.request("POST", "/api/v1/events", lines, {"Content-Type": "application/x-ndjson"})[0] == 201
        first = "/api/v1/topics?limit=10000"
        page = server.json("GET", first)[1]
        assert [entry["topic"] for entry in page["topics"]] == names and "next" not in page
        # A page that is full is not the end: whether one follows does not depend on why it ended.
        page = server.json("GET", "/api/v1/topics?limit=9999")[1]
        assert len(page["topics"]) == 9_999 and [entry["topic"] for entry in server.json("GET", page["next"])[1]["topics"]] == names[-1:]
        before = memory_mib(server)
        asked = f"GET {first} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        stalled = stalled_clients(server, asked)
        assert memory_mib(server) - before < 200
        # See above.
        stalled += stalled_clients(server, asked, one_by_one=True)
        assert memory_mib(server) - before < 200
        # Whoever reads gets all of them all the same, in more pages, each about as long as what the kernel has taken of the others' at the most:
        # see above. All are longer than 5 MB.
        seen, path = [], first
        while path:
            body = server.request("GET", path)[2]
            page = json.loads(body)
            assert page["topics"] and len(body) < min(longest_page(), 5_000_000)
            seen, path = seen + [entry["topic"] for entry in page["topics"]], page.get("next")
        assert seen == names
        # and in one again once the others have gone.
        for client in stalled:
            client.close()
        wait_for(lambda: "next" not in server.json("GET", first)[1], every_s=0.1)


def test_answers_to_requests_in_a_row_that_nobody_takes_are_not_all_kept():
    """However much is asked for in a row, a client that takes nothing costs what one write carries"""
    with Server("--shards", "1") as server:
        one = "GET /assets/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        script = server.request("GET", "/assets/app.js")[2]
        before = memory_mib(server)
        stalled = stalled_clients(server, one * 500)
        assert memory_mib(server) - before < 150
        # They are all there for who takes them after all.
        got = stalled[0].recv(65536)
        while got.count(script) < 500:
            got += (some := stalled[0].recv(1 << 20))
            assert some
        for client in stalled:
            client.close()


def test_questions_in_a_row_behind_an_answer_that_nobody_takes_are_not_all_kept():
    """They are read as fast as they are answered"""
    with Server("--shards", "1") as server:
        lines = "\n".join(f'"{at}{"x" * 1000}"' for at in range(2_000))
        assert server.request("POST", "/api/v1/topics/a/events", lines, {"Content-Type": "application/x-ndjson"})[0] == 201
        long, short = (f"GET {HISTORY}?topic=a&limit={limit} HTTP/1.1\r\nHost: localhost\r\n\r\n" for limit in (10_000, 1))
        before = memory_mib(server)
        stalled = stalled_clients(server, long + short * 500)
        assert memory_mib(server) - before < 200
        # They are all answered for who takes the answers after all.
        marker, answers, tail = b"HTTP/1.1 200", 1, b""
        while answers < 501:
            assert (some := stalled[0].recv(1 << 20))
            answers += (tail + some).count(marker)
            tail = (tail + some)[-len(marker) + 1:]
        for client in stalled:
            client.close()


def test_one_topic(server, topic):
    """that object; 404 if never used"""
    offset = server.append(topic, "1")
    status, entry = server.json("GET", f"/api/v1/topics/{topic}")
    assert status == 200 and entry["topic"] == topic and entry["count"] == 1 and entry["first"] == entry["last"] == offset
    problem(server.request("GET", f"/api/v1/topics/{topic}/never"), "topic-not-found", 404)


@pytest.mark.parametrize("method,path", [
    ("GET", "/openapi.json"), ("GET", "/asyncapi.json"), ("GET", "/llms.txt"),
])
def test_what_comes_later_is_501(server, method, path):
    """OpenAPI comes next: 501"""
    problem(server.request(method, path), "not-yet", 501)
