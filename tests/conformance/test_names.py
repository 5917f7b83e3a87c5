"""API §1: names."""

import urllib.parse

import pytest

from wire import Sse, post, problem


def append_path(topic):
    return f"/api/v1/topics/{topic}/events"


@pytest.mark.parametrize("topic", [
    "a", "a/b", "/".join("abcdefghijklmnop"), "x" * 128, "x" * 128 + "/" + "y" * 128 + "/" + "z" * 128 + "/" + "w" * 125,
    "é/日本", "a b", "a.b", "...", "-", "a$b",
])
def test_good_topics(server, topic):
    """Topic: 1 to 16 levels of 1 to 128 bytes, at most 512 bytes in all, UTF-8."""
    status, _, body = post(server, append_path(urllib.parse.quote(topic)))
    assert status == 201, body
    assert server.json("GET", "/api/v1/topics/" + urllib.parse.quote(topic))[1]["topic"] == topic


@pytest.mark.parametrize("topic", [
    "/".join("abcdefghijklmnopq"),  # 17 levels
    "x" * 129, "x" * 128 + "/" + "y" * 128 + "/" + "z" * 128 + "/" + "w" * 126,  # 513 bytes
    ".", "a/..", "../a", "$a", "a/$b", "a/*", "*", "**", "a*b", "a/%00", "a/%0A", "a%C2%85b", "a%7Fb", "a//b", "a%2F%2Fb", "%2Fa", "a%2F",
    "%FF", "a/%C3", "%", "%4", "%GG",
])
def test_bad_topics(server, topic):
    """A level is not `.` or `..`, does not begin with `$`, and holds no `*`, `/` or control character; empty levels are 400."""
    status, _, body = post(server, append_path(topic))
    assert status == 400, (status, body)


def test_percent_encoded_slash_separates(server, topic):
    """`%2F` separates like `/` (`encodeURIComponent(topic)` works)."""
    status, _, _ = post(server, append_path(urllib.parse.quote(topic, safe="")))
    assert status == 201
    assert server.json("GET", f"/api/v1/topics/{topic}")[1]["count"] == 1


def test_percent_decoded_once(server, topic):
    """each level is percent-decoded once"""
    status, _, _ = post(server, append_path(topic + "%252F"))
    assert status == 201
    assert server.json("GET", f"/api/v1/topics/{topic}%252F")[1]["topic"] == topic + "%2F"


def test_no_normalisation(server, topic):
    """no normalisation"""
    for form in ("é", "e\u0301"):
        assert post(server, append_path(f"{topic}/{urllib.parse.quote(form)}"))[0] == 201
    listed = server.json("GET", "/api/v1/topics?prefix=" + urllib.parse.quote(topic + "/"))[1]["topics"]
    assert len(listed) == 2


def test_unknown_log(server, topic):
    """Log: an unknown one is 404; default `main`."""
    assert post(server, append_path(topic) + "?log=main")[0] == 201
    problem(post(server, append_path(topic) + "?log=other"), "log-not-found", 404)
    assert post(server, append_path(topic) + "?log=NotALog")[0] == 400
    assert post(server, append_path(topic) + "?log=" + "a" * 65)[0] == 400
    for path in ("stream", "history"):
        assert server.request("GET", f"/api/v1/events/{path}?log=other")[0] == 404


@pytest.mark.parametrize("pattern,matches", [
    ("*/b/c", ["a/b/c"]), ("a/*/c", ["a/b/c", "a/x/c"]), ("a/**", ["a", "a/b", "a/b/c", "a/x/c"]), ("**", ["a", "a/b", "a/b/c", "a/x/c"]),
    ("a/*", ["a/b"]), ("a/b/**", ["a/b", "a/b/c"]), ("*", ["a"]), ("*/**", ["a", "a/b", "a/b/c", "a/x/c"]),
])
def test_patterns(fresh, pattern, matches):
    """`*` is one whole level, `**` (last) any number of levels, also none."""
    for name in ("a", "a/b", "a/b/c", "a/x/c"):
        fresh.append(name, name)
    status, page = fresh.json("GET", f"/api/v1/events/history?topic={pattern}")
    assert status == 200 and [event["topic"] for event in page["events"]] == matches


@pytest.mark.parametrize("pattern", ["a/**/b", "**/a", "a*", "a/b*", "***", "a//b", "", "/a", "$x/*", "a/%24x"])
def test_bad_patterns(server, pattern):
    """`*` is one whole level, `**` last."""
    for path in ("stream", "history"):
        assert server.request("GET", f"/api/v1/events/{path}?topic={pattern}")[0] == 400


@pytest.mark.parametrize("kind", ["error", "open", "ping", "connection.x", "connection.established"])
def test_reserved_types(server, topic, kind):
    """Types `error`, `open`, `ping` and `connection.*` are reserved: 422."""
    assert post(server, append_path(topic), Event_Type=kind)[0] == 422
    assert server.json("POST", "/api/v1/events", {"topic": topic, "type": kind})[0] == 422
    for path in ("stream", "history"):
        assert server.request("GET", f"/api/v1/events/{path}?type={kind}")[0] == 422


@pytest.mark.parametrize("name,limit", [("Event-Type", 128), ("Event-Key", 128)])
def test_type_and_key_limits(server, topic, name, limit):
    """Type, key: at most 128 bytes, no control characters, no outer spaces."""
    for good in ("x" * limit, "%C3%A9" * (limit // 2), "a b"):
        assert server.request("POST", append_path(topic), b"x", {name: good})[0] == 201
    for bad in ("x" * (limit + 1), "%C3%A9" * (limit // 2) + "x", "%20a", "a%20", "a%0Ab", "a%00", "%FF", "%zz"):
        assert server.request("POST", append_path(topic), b"x", {name: bad})[0] == 400, bad


def test_cursor_is_offset_and_tag(server, topic):
    """Cursor: `<offset>.<tag>`; wherever a cursor is taken a plain offset is too; the tag is `[a-z0-9]{1,16}`."""
    status, ack = server.json("POST", append_path(topic), "one")
    offset, _, tag = ack["cursor"].partition(".")
    assert status == 201 and int(offset) == ack["offset"] and tag.isalnum() and tag == tag.lower() and len(tag) <= 16
    server.append(topic, "two")
    for cursor in (ack["cursor"], offset):
        with Sse(server, {"topic": topic}, {"Last-Event-ID": cursor}) as stream:
            assert stream.established()["state"] == "resumed"
            assert stream.next()["data"] == "two"
    with Sse(server, {"topic": topic}, {"Last-Event-ID": "-1." + tag}) as stream:
        assert stream.established()["state"] == "resumed"
        assert [event["data"] for event in stream.take(2)] == ["one", "two"]
