"""API §8: settings of topics and logs, DELETE, trim."""

import json
import time

import pytest

from harness import Server
from wire import Sse, problem

LOG = "/api/v1/logs/main"
JSON = {"Content-Type": "application/json"}


def path(topic):
    return f"/api/v1/topics/{topic}"


def put(server, target, value, headers=JSON):
    """(status, headers, body)"""
    return server.request("PUT", target, value if isinstance(value, (str, bytes)) else json.dumps(value), headers)


def offsets(server, topic):
    """The offsets of the events of a topic, as history shows them."""
    page = server.json("GET", f"/api/v1/events/history?topic={topic}&limit=1000")[1]
    return [event["offset"] for event in page["events"]]


def test_settings_of_a_topic(server, topic):
    """`PUT` {"retain":..,"expire":..} replaces the settings of a topic; `GET` has that object and `settings`"""
    server.append(topic, "1")
    assert server.json("GET", path(topic))[1]["settings"] == {"retain": {}, "expire": {}}
    settings = {"retain": {"age_s": 3600, "count": 100, "latest_per_key": True}, "expire": {"age_s": 7200, "idle_s": 60}}
    status, _, body = put(server, path(topic), settings)
    assert status == 200 and json.loads(body) == {"topic": topic, "settings": settings}
    got = server.json("GET", path(topic))[1]
    assert got["settings"] == settings and got["count"] == 1
    assert put(server, path(topic), {"retain": {"count": 7, "age_s": None}})[0] == 200
    assert server.json("GET", path(topic))[1]["settings"] == {"retain": {"count": 7}, "expire": {}}
    assert put(server, path(topic), {}, {})[0] == 200
    assert server.json("GET", path(topic))[1]["settings"] == {"retain": {}, "expire": {}}


def test_settings_of_a_topic_that_is_to_come(server, topic):
    """404 if never used, and nothing set"""
    problem(server.request("GET", path(topic)), "topic-not-found", 404)
    assert put(server, path(topic), {"retain": {"count": 3}})[0] == 200
    assert server.json("GET", path(topic)) == (200, {"topic": topic, "count": 0, "settings": {"retain": {"count": 3}, "expire": {}}})
    assert server.request("DELETE", path(topic))[0] == 204
    problem(server.request("GET", path(topic)), "topic-not-found", 404)


def test_exact_wins_and_then_the_longest_pattern(server, topic):
    """(exact wins, then the longest pattern)"""
    for at, pattern in enumerate(("**", "*/*", "*", ""), 1):
        assert put(server, path(f"{topic}/{pattern}" if pattern else f"{topic}/a/b"), {"retain": {"count": at}})[0] == 200
    for name, count in (("a/b", 4), ("a/c", 2), ("a", 3), ("a/b/c", 1)):
        server.append(f"{topic}/{name}", "1")
        assert server.json("GET", path(f"{topic}/{name}"))[1]["settings"]["retain"] == {"count": count}, name
    assert server.json("GET", path(f"{topic}/*/*"))[1] == {"pattern": f"{topic}/*/*", "settings": {"retain": {"count": 2}, "expire": {}}}
    assert server.json("GET", path(f"{topic}%2F%2A%2F%2A"))[1]["pattern"] == f"{topic}/*/*"
    problem(server.request("GET", path(f"{topic}/x/*")), "settings-not-found", 404)


def test_delete_of_a_pattern_removes_its_settings_only(server, topic):
    """`DELETE` .. of a pattern removes its settings only"""
    offset = server.append(f"{topic}/a", "1")
    put(server, path(f"{topic}/*"), {"retain": {"count": 9}})
    status, _, body = server.request("DELETE", path(f"{topic}/*"))
    assert status == 204 and body == b""
    assert server.json("GET", path(f"{topic}/a"))[1]["settings"] == {"retain": {}, "expire": {}}
    assert offsets(server, f"{topic}/**") == [offset]
    problem(server.request("DELETE", path(f"{topic}/*")), "settings-not-found", 404)


def test_delete_of_a_topic_hides_its_events_at_once(server, topic):
    """`DELETE` of a topic hides its events at once; the topic goes on behind them"""
    for at in range(5):
        server.append(topic, str(at))
    kept = server.append(f"{topic}/b", "1")
    assert server.request("DELETE", path(topic))[0] == 204
    assert offsets(server, topic) == []
    problem(server.request("GET", path(topic)), "topic-not-found", 404)
    problem(server.request("DELETE", path(topic)), "topic-not-found", 404)
    assert offsets(server, f"{topic}/**") == [kept]
    page = server.json("GET", f"/api/v1/topics?prefix={topic}")[1]["topics"]
    assert [entry["topic"] for entry in page] == [f"{topic}/b"]
    value = problem(server.request("POST", path(topic) + "/events", b"x", {"Expected-Offset": "0"}), "offset-mismatch", 412)
    assert value["expected_offset"] > 0, "of the topic's last event ever"
    offset = server.append(topic, "new")
    entry = server.json("GET", path(topic))[1]
    assert entry["count"] == 1 and entry["first"] == entry["last"] == offset and offsets(server, topic) == [offset]
    with Sse(server, {"topic": topic, "from": "earliest"}) as stream:
        stream.established()
        assert stream.next()["data"] == "new"


def test_trim_before_an_offset(server, topic):
    """`trim?before=` (first offset kept)"""
    all_offsets = [server.append(topic, str(at)) for at in range(5)]
    status, value = server.json("POST", path(topic) + f"/trim?before={all_offsets[2]}")
    assert status == 200 and value == {"topic": topic, "before": all_offsets[2]}
    assert offsets(server, topic) == all_offsets[2:]
    entry = server.json("GET", path(topic))[1]
    assert entry["count"] == 3 and entry["first"] == all_offsets[2]
    assert server.json("POST", path(topic) + f"/trim?before={all_offsets[1]}")[0] == 200
    assert offsets(server, topic) == all_offsets[2:], "what is gone is gone"
    assert server.json("POST", path(topic) + "/trim?before=9000000000000000")[0] == 200
    assert offsets(server, topic) == []
    assert offsets(server, topic) == [] and server.append(topic, "new") in offsets(server, topic)


def test_trim_before_a_time(server, topic):
    """`trim?before=` (.. or a time)"""
    server.append(topic, "old")
    time.sleep(0.05)
    new = server.append(topic, "new")
    at = server.json("GET", f"/api/v1/events/history?topic={topic}&from={new}")[1]["events"][0]["time"]
    assert server.json("POST", path(topic) + f"/trim?before={at}")[0] == 200
    assert offsets(server, topic) == [new]


def test_what_cannot_be_trimmed(server, topic):
    """with all the refusals"""
    problem(server.request("POST", path(topic) + "/trim?before=1"), "topic-not-found", 404)
    server.append(topic, "1")
    for query in ("", "?before=", "?before=x", "?before=-1", "?before=1&before=2", "?after=1&before=1", "?before=1&log=B"):
        assert server.request("POST", path(topic) + "/trim" + query)[0] == 400, query
    assert server.request("POST", path(topic) + "/trim?before=1&log=other")[0] == 404
    assert server.request("POST", path("a/*") + "/trim?before=1")[0] == 400
    assert server.request("POST", path(topic) + "/trim?before=1", b"x")[0] == 400
    assert len(offsets(server, topic)) == 1


def test_paths_that_end_like_operations(server, topic):
    """A path that ends in `/events` or `/trim` .. under `PUT` and `DELETE` is 409 with a hint unless that topic exists"""
    server.append(topic, "1")
    for ending in ("events", "trim"):
        for method, body in (("PUT", "{}"), ("DELETE", None)):
            value = problem(server.request(method, f"{path(topic)}/{ending}", body, JSON if body else {}), "operation-path", 409)
            assert topic in value["detail"] and "%2F" in value["detail"]
            assert server.request(method, f"{path('*')}/{ending}", body, JSON if body else {})[0] == 409
        assert put(server, f"{path(topic)}%2F{ending}", {"retain": {"count": 5}})[0] == 200
        assert server.json("GET", f"{path(topic)}/{ending}")[1]["settings"]["retain"] == {"count": 5}
        server.append(f"{topic}%2F{ending}", "1")
        assert put(server, f"{path(topic)}/{ending}", {"retain": {"count": 6}})[0] == 200
        assert server.request("DELETE", f"{path(topic)}/{ending}")[0] == 204
    assert len(offsets(server, topic)) == 1 and offsets(server, f"{topic}/*") == []


@pytest.mark.parametrize("body,headers,status", [
    (b"no JSON", {}, 400), (b"", {}, 400), (b"{}", {"Content-Type": "text/plain"}, 415), (b"x" * 1_000_000, {}, 413), (b"x" * 1_000_000, {"Expect": "100-continue"}, 413),
    ((b"{", b"}"), {}, 200), ((b"x" * 100_000,) * 10, {}, 413), (b'{"colour":1}', JSON, 400),
])
def test_an_operation_whatever_the_body(server, topic, body, headers, status):
    """under `PUT` and `DELETE` it is 409 with a hint unless that topic exists (`curl -T file .../events`); then the body is judged"""
    for method in ("PUT", "DELETE"):
        for ending in ("events", "trim"):
            sent = iter(body) if isinstance(body, tuple) else body
            value = problem(server.request(method, f"{path(topic)}/{ending}", sent, headers), "operation-path", 409)
            assert topic in value["detail"]
    server.append(f"{topic}%2Fevents", "1")
    sent = iter(body) if isinstance(body, tuple) else body
    assert server.request("PUT", f"{path(topic)}/events", sent, headers)[0] == status


@pytest.mark.parametrize("body,slug", [
    ("", "invalid-json"), ("{", "invalid-json"), ("[]", "invalid-settings"), ("null", "invalid-settings"), ('{"retian":{}}', "invalid-settings"), ('{"retain":{"bytes":1}}', "invalid-settings"),
    ('{"retain":{"age_s":0}}', "invalid-settings"), ('{"retain":{"age_s":1.5}}', "invalid-settings"), ('{"retain":{"count":"1"}}', "invalid-settings"), ('{"retain":{"count":-1}}', "invalid-settings"),
    ('{"retain":{"latest_per_key":1}}', "invalid-settings"), ('{"retain":{"count":1,"count":2}}', "invalid-settings"), ('{"expire":{"count":1}}', "invalid-settings"), ('{"sync":"commit"}', "invalid-settings"),
])
def test_what_is_no_settings(server, topic, body, slug):
    """unknown JSON members of a request are refused by name"""
    problem(put(server, path(topic), body), slug, 400)
    problem(server.request("GET", path(topic)), "topic-not-found", 404)


def test_other_refusals_of_settings(server, topic):
    """415, 411, 413, 400 for what is no topic or pattern, 404 for another log"""
    assert put(server, path(topic), "{}", {"Content-Type": "text/plain"})[0] == 415
    assert put(server, path(topic), "{}", {"Content-Encoding": "gzip"})[0] == 415
    assert put(server, path(topic), "{}", {"Content-Type": "application/x-www-form-urlencoded"})[0] == 200
    assert put(server, path(topic), " " * 65537)[0] == 413
    assert put(server, path(topic) + "?colour=1", "{}")[0] == 400
    assert put(server, path(topic) + "?log=other", "{}")[0] == 404
    assert server.request("DELETE", path(topic) + "?log=other")[0] == 404
    raw = server.exchange(f"PUT {path(topic)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert raw.startswith(b"HTTP/1.1 411")
    for name in ("$a", "a//b", "a/**/b", "a*b", "$a/*"):
        assert put(server, path(name), "{}")[0] == 400, name
        assert server.request("DELETE", path(name))[0] == 400, name
    assert server.request("DELETE", path(topic), b"x")[0] == 400


def test_changes_of_other_origins(server, topic):
    """appends with an `Origin` that is neither our own host nor allowed are 403: so is everything that changes a log"""
    server.append(topic, "1")
    headers = {"Origin": "https://evil.example"}
    problem(put(server, path(topic), "{}", headers), "origin-not-allowed", 403)
    problem(put(server, LOG, "{}", headers), "origin-not-allowed", 403)
    problem(server.request("DELETE", path(topic), headers=headers), "origin-not-allowed", 403)
    problem(server.request("POST", path(topic) + "/trim?before=99999", headers=headers), "origin-not-allowed", 403)
    assert len(offsets(server, topic)) == 1


def test_settings_of_a_log(fresh):
    """`GET /api/v1/logs`, `GET | PUT /api/v1/logs/{log}` {"retain":{"age_s":..,"bytes":..,"count":..},"sync":"commit"}"""
    status, value = fresh.json("GET", LOG)
    assert status == 200 and value["log"] == "main" and value["retain"] == {} and value["sync"] == "commit" and value["earliest"] == 0 and value["tag"]
    assert fresh.json("GET", "/api/v1/logs")[1] == {"logs": [value]}
    settings = {"retain": {"age_s": 86400, "bytes": 1 << 40, "count": 1000}, "sync": "commit"}
    status, _, body = put(fresh, LOG, settings)
    assert status == 200 and {name: json.loads(body)[name] for name in settings} == settings
    value = fresh.json("GET", LOG)[1]
    assert {name: value[name] for name in settings} == settings
    assert put(fresh, LOG, {"retain": {"count": 5}})[0] == 200 and fresh.json("GET", LOG)[1]["retain"] == {"count": 5}
    for body in ({"retain": {"latest_per_key": True}}, {"expire": {}}, {"retain": {"bytes": 0}}, {"sync": 1}, {"sync": "comit"}, {"sync": "interval:0"}, {"log": "main"}):
        problem(put(fresh, LOG, body), "invalid-settings", 400)
    for sync in ("never", "interval:20"):
        problem(put(fresh, LOG, {"sync": sync}), "not-yet", 501)
    problem(put(fresh, "/api/v1/logs/other", {}), "not-yet", 501)
    problem(fresh.request("GET", "/api/v1/logs/other"), "log-not-found", 404)
    problem(fresh.request("GET", "/api/v1/logs/Main"), "invalid-name", 400)
    assert fresh.request("GET", LOG + "?log=main")[0] == 400
    status, headers, _ = fresh.request("DELETE", LOG)
    assert status == 405 and headers["Allow"] == "GET, HEAD, PUT, OPTIONS"
    assert fresh.json("GET", LOG)[1]["retain"] == {"count": 5}
    assert fresh.request("HEAD", LOG)[2] == b""


@pytest.mark.parametrize("shards", ["1", "2"])
def test_settings_and_deletions_survive_kill_9(shards):
    """Settings live in the log itself, as durable as the rest"""
    with Server("--shards", shards) as server:
        old = [server.append(name, "1") for name in ("a", "b", "c", "b")]
        put(server, path("a"), {"retain": {"count": 3}})
        put(server, path("x/*"), {"expire": {"idle_s": 9}})
        put(server, LOG, {"retain": {"count": 1000}})
        assert server.request("DELETE", path("c"))[0] == 204
        assert server.json("POST", path("b") + f"/trim?before={old[3]}")[0] == 200
        for _ in range(3):
            server.kill()
            server.start()
            assert server.json("GET", path("a"))[1]["settings"]["retain"] == {"count": 3}
            assert server.json("GET", path("x/*"))[1]["settings"]["expire"] == {"idle_s": 9}
            assert server.json("GET", LOG)[1]["retain"] == {"count": 1000}
            assert offsets(server, "**") == [old[0], old[3]]
            problem(server.request("GET", path("c")), "topic-not-found", 404)


def test_control_events_do_not_show(fresh):
    """Control events take offsets too, so gaps are normal; patterns never match levels with a leading `$`"""
    first = fresh.append("a", "1")
    put(fresh, path("a"), {})
    second = fresh.append("a", "2")
    assert second == first + 2 and offsets(fresh, "**") == [first, second]
    assert [entry["topic"] for entry in fresh.json("GET", "/api/v1/topics")[1]["topics"]] == ["a"]
    with Sse(fresh, {"from": "earliest"}) as stream:
        stream.established()
        assert [event["data"] for event in stream.take(2)] == ["1", "2"]
        put(fresh, path("a"), {})
        fresh.append("a", "3")
        assert stream.next()["data"] == "3"


def test_a_change_holds_for_what_follows_it_on_its_connection(server, topic):
    """requests of one connection, without a pause: what follows a change finds it made"""
    def one(method, target, body=""):
        return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    raw = server.exchange((one("POST", path(topic) + "/events", "1") + one("DELETE", path(topic)) + one("POST", path(topic) + "/events", "2") + one("PUT", path(topic), '{"retain":{"count":3}}')
                           + one("GET", path(topic)) + "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").encode())
    assert [int(part[:3]) for part in raw.decode().split("HTTP/1.1 ")[1:]] == [201, 204, 201, 200, 200, 200], raw
    assert b'"count":1' in raw and len(offsets(server, topic)) == 1


@pytest.mark.parametrize("take", ["delete", "trim"])
def test_what_is_gone_is_gone_for_streams_that_begin_then(server, topic, take):
    """hides its events at once: also where others hold the same view, with its newest events at hand"""
    with Sse(server, {"topic": topic, "from": "earliest"}) as first:
        first.established()
        for at in range(5):
            server.append(topic, str(at))
        assert [event["data"] for event in first.take(5)] == ["0", "1", "2", "3", "4"]
        with Sse(server, {"topic": topic, "from": "earliest"}) as second:
            second.established()
            assert second.next()["data"] == "0"
        if take == "delete":
            assert server.request("DELETE", path(topic))[0] == 204
        else:
            assert server.request("POST", path(topic) + "/trim?before=9000000000000000")[0] == 200
        with Sse(server, {"topic": topic, "from": "earliest"}) as third, Sse(server, {"topic": topic, "from": "-3"}) as fourth:
            third.established()
            fourth.established()
            server.append(topic, "new")
            assert [stream.next()["data"] for stream in (first, third, fourth)] == ["new"] * 3
