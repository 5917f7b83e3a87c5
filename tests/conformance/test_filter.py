"""API §6: filters, over Server-Sent Events, WebSocket and history."""

import json
import urllib.parse

import pytest

from wire import PATH, Sse, Ws, problem

HISTORY = "/api/v1/events/history"

PRICES = ('{"price":99.5,"venue":{"name":"X"},"tags":["a","b"]}', '{"price":100}', '{"price":100.0,"venue":null}', '{"price":1e2,"price":101}',
          '{"\\u0070rice":"100"}', '[{"price":200}]', "17")


def asks(topic, text=None, tree=None, **more):
    """The query of a filter, in either spelling or both."""
    query = {"topic": topic, **more}
    if text is not None:
        query["where"] = text
    if tree is not None:
        query["filter"] = json.dumps(tree)
    return query


def found(server, topic, text=None, tree=None):
    """The data of the events that history finds, as it stood; checks that both transports find the same."""
    query = asks(topic, text, tree)
    status, page = server.json("GET", HISTORY + "?" + urllib.parse.urlencode(query))
    assert status == 200, page
    offsets = [event["offset"] for event in page["events"]]
    last = server.append(topic, b"end", Event_Type="end", Content_Type="text/plain")
    with Sse(server, {**query, "from": "earliest"}) as stream:
        stream.established()
        assert [int(event["id"].split(".")[0]) for event in stream.take(len(offsets))] == offsets
    with Ws(server) as ws:
        ws.send(type="subscribe", id=1, topics=[topic], **{"from": "earliest"},
                **({} if text is None else {"where": text}), **({} if tree is None else {"filter": tree}))
        assert ws.next()["type"] == "subscribed"
        assert [ws.next()["offset"] for _ in offsets] == offsets
    assert last not in offsets
    return [event.get("data") for event in page["events"]]


def fill(server, topic, lines=PRICES):
    """Appends each line as an event."""
    for line in lines:
        server.append(topic, line, Content_Type="application/json")


@pytest.mark.parametrize("text, tree, expected", [
    ("data.price > 100", {"field": "data.price", "op": "gt", "value": 100}, [3]),
    ("data.price == 100.00", {"field": "data.price", "op": "eq", "value": 1e2}, [1, 2]),
    ("data.price < 100", {"field": "data.price", "op": "lt", "value": 100}, [0]),
    ("data.price >= 100", {"field": "data.price", "op": "ge", "value": 100}, [1, 2, 3]),
    ("data.price <= 100", {"field": "data.price", "op": "le", "value": 100}, [0, 1, 2]),
    ("data.price != 100", {"field": "data.price", "op": "ne", "value": 100}, [0, 3]),
    ("not data.price == 100 and exists data", {"all": [{"not": {"field": "data.price", "op": "eq", "value": 100}}, {"field": "data", "op": "exists"}]}, [0, 3, 4, 5, 6]),
    ('data.price == "100"', {"field": "data.price", "op": "eq", "value": "100"}, [4]),
    ("data.price in [99.50, \"100\"]", {"field": "data.price", "op": "in", "value": ["100", 99.5]}, [0, 4]),
    ("exists data.venue", {"field": "data.venue", "op": "exists"}, [0, 2]),
    ("data.venue == null", {"field": "data.venue", "op": "eq", "value": None}, [2]),
    ('data.venue.name prefix "X"', {"field": "data.venue.name", "op": "prefix", "value": "X"}, [0]),
    ('data.venue.name suffix "Y" or data == 17', {"any": [{"field": "data.venue.name", "op": "suffix", "value": "Y"}, {"field": "data", "op": "eq", "value": 17}]}, [6]),
    ('data.tags contains "b"', {"field": "data.tags", "op": "contains", "value": "b"}, [0]),
    ("data.0.price > 199.999", {"field": ["data", "0", "price"], "op": "gt", "value": 199.999}, [5]),
    ("(data.price > 100 or data.price < 100) and data.tags.1 == \"b\"", {"all": [{"field": "data.tags.1", "op": "eq", "value": "b"}, {"field": "data.price", "op": "ne", "value": 100}]}, [0]),
])
def test_comparisons(server, topic, text, tree, expected):
    """`op` one of `eq ne gt ge lt le in prefix suffix contains exists`; the same as text; numbers compare as exact decimals; different types make a comparison false; `exists` is true for null"""
    fill(server, topic)
    expected = [json.loads(PRICES[at]) for at in expected]
    assert found(server, topic, text=text) == expected
    assert found(server, topic, tree=tree) == expected


def test_both_must_hold(server, topic):
    """`filter`, `where`: both given: both must hold; `{}` matches all"""
    fill(server, topic)
    tree = {"field": "data.price", "op": "ge", "value": 100}
    assert found(server, topic, text="data.price < 101", tree=tree) == [{"price": 100}, {"price": 100.0, "venue": None}]
    assert len(found(server, topic, text="data exists", tree={})) == len(PRICES)


def test_exact_numbers(server, topic):
    """numbers compare as exact decimals"""
    lines = ["123456789012345678901234567890", "123456789012345678901234567891", "1e400", "0.1", "0.1000000000000000055511151231257827"]
    fill(server, topic, lines)

    def lines_of(text):
        query = urllib.parse.urlencode(asks(topic, text))
        _, _, body = server.request("GET", f"{HISTORY}?{query}", headers={"Accept": "application/x-ndjson"})
        return [line.split('"data":')[1][:-1] for line in body.decode().splitlines()]

    assert lines_of("data == 123456789012345678901234567891") == lines[1:2]
    assert lines_of("data > 123456789012345678901234567890") == lines[1:3]
    assert lines_of("data == 10e399") == lines[2:3]
    assert lines_of("data == 0.10") == lines[3:4]


def test_what_is_beside_the_data(server, topic):
    """`field`: `topic`, `type`, `key`, `time`, `headers.NAME`; `time` compares as an instant; data that is not JSON has no `data`"""
    server.append(topic, b"plain", Content_Type="text/plain", Event_Type="note", Event_Key="k1", **{"Event-Header-Trace": "abc"})
    server.append(topic + "/below", '{"a":1}')
    pattern = topic + "/**"

    def found_at(text):
        status, page = server.json("GET", HISTORY + "?" + urllib.parse.urlencode(asks(pattern, text)))
        assert status == 200, page
        return [event["topic"][len(topic):] for event in page["events"]]

    assert found_at('type == "note"') == [""]
    assert found_at('key == "k1" and headers.TRACE contains "b"') == [""]
    assert found_at('topic suffix "/below"') == ["/below"]
    assert found_at("exists data") == ["/below"]
    assert found_at("not exists data") == [""]
    assert found_at('time > "2020-01-01T00:00:00+01:00" and time < "2199-12-31T23:59:59.999999Z"') == ["", "/below"]
    assert found_at('time < "2020-01-01T00:00:00Z"') == []
    _, page = server.json("GET", HISTORY + "?" + urllib.parse.urlencode({"topic": topic}))
    assert found_at('time == ' + json.dumps(page["events"][0]["time"]))[0] == ""


def test_names_with_dots_and_ids(server, topic):
    """`field`: `id`, or an array of names where a key holds a dot"""
    server.append(topic, '{"a.b":{"c":1}}', Event_Id=topic)
    server.append(topic, '{"a":{"b":{"c":1}}}')
    dotted, plain = {"a.b": {"c": 1}}, {"a": {"b": {"c": 1}}}
    assert found(server, topic, text='["data", "a.b", "c"] == 1', tree={"field": ["data", "a.b", "c"], "op": "eq", "value": 1}) == [dotted]
    assert found(server, topic, text="data.a.b.c == 1") == [plain]
    assert found(server, topic, text=f"id == {json.dumps(topic)}", tree={"field": "id", "op": "in", "value": [topic]}) == [dotted]


def test_a_name_twice_counts_by_its_last_value(server, topic):
    """what a filter sees is what JSON.parse makes of the data"""
    fill(server, topic, ['{"a":{"x":1},"a":{"y":2}}'])
    assert found(server, topic, text="data.a.y == 2 and not exists data.a.x") == [{"a": {"y": 2}}]


def test_live_events_are_filtered(server, topic):
    """evaluated once per event and view: at the live edge as in the past"""
    with Sse(server, asks(topic, "data.n in [2, 4]")) as stream, Ws(server, asks(topic, "data.n > 3")) as ws:
        stream.established()
        assert ws.next()["subscription"] == 1
        for number in range(6):
            server.append(topic, json.dumps({"n": number}))
        assert [event.json["n"] for event in stream.take(2)] == [2, 4]
        assert [ws.next()["data"]["n"] for _ in range(2)] == [4, 5]
        assert stream.silent() and ws.silent()


def test_last_n_matching(server, topic):
    """`from=-N`: the last N matching"""
    for number in range(10):
        server.append(topic, json.dumps({"n": number % 3}))
    offset = server.append(topic, '{"n":1}')
    with Sse(server, asks(topic, "data.n == 0", **{"from": "-2"})) as stream:
        stream.established()
        assert [int(event["id"].split(".")[0]) - offset for event in stream.take(2)] == [-4, -1]


def test_ping_moves_the_cursor(server, topic):
    """When a filtered stream has been silent while the log moved on, it is a `ping` event with `id:`"""
    with Sse(server, asks(topic, "data.n == 1", heartbeat="1")) as stream:
        stream.established()
        offset = server.append(topic, '{"n":0}')
        ping = stream.next()
        assert ping["event"] == "ping" and int(ping["id"].split(".")[0]) >= offset


def test_pages_keep_the_filter(server, topic):
    """`next` has all of the request's other parameters"""
    for number in range(20):
        server.append(topic, json.dumps({"n": number, "t": "a+b c&d"}))
    query = asks(topic, 'data.n >= 5 and data.t == "a+b c&d"', tree={"not": {"field": "data.n", "op": "gt", "value": 14}}, limit="4")
    got, path, pages = [], HISTORY + "?" + urllib.parse.urlencode(query), 0
    while path:
        status, page = server.json("GET", path)
        assert status == 200
        got, path, pages = got + [event["data"]["n"] for event in page["events"]], page.get("next"), pages + 1
    assert got == list(range(5, 15)) and pages >= 3
    _, page = server.json("GET", HISTORY + "?" + urllib.parse.urlencode(asks(topic, "data.n > 2", limit="2", offset="3", order="desc")))
    assert [event["data"]["n"] for event in page["events"]] == [16, 15]


@pytest.mark.parametrize("query, place", [
    ({"where": "data.price = 1"}, "column 12"), ({"where": ""}, "column 1"), ({"where": "price > 1"}, "column 1"), ({"where": "data.a == 'x'"}, "column 11"),
    ({"where": "(" * 9 + "exists key" + ")" * 9}, "column 9"), ({"where": " or ".join(["exists key"] * 33)}, "column 449"), ({"where": "exists key" + " " * 4087}, "4097 bytes"),
    ({"filter": ""}, "empty"), ({"filter": "[]"}, "filter"), ({"filter": '{"all":[{},{"field":"data.a","op":"like","value":1}]}'}, "all[1].op"),
    ({"filter": '{"field":"data.a","op":"eq"'}, "line 1"), ({"filter": '{"not":{"field":"time","op":"gt","value":"soon"}}'}, "not.value"),
    ({"filter": '{"field":"data.a","op":"eq","value":1,"not":{}}'}, "both"), ({"filter": '{"field":"data.a","op":"lt","value":null}'}, "value"),
])
def test_bad_filters(server, query, place):
    """An error names the place; at most 32 comparisons, depth 8, 4 KiB"""
    text = urllib.parse.urlencode(query)
    for path in (PATH, HISTORY):
        value = problem(server.request("GET", f"{path}?{text}"), "invalid-filter", 400)
        assert place in value["detail"] and next(iter(query)) in value["detail"], value
    if "where" in query:
        with Ws(server) as ws:
            answer = ws.ask(type="subscribe", id="f", **query)
            assert (answer["type"], answer["id"], answer["status"], answer["problem"]) == ("error", "f", 400, "invalid-filter")
            assert place in answer["message"]
            assert ws.ask(type="ping")["type"] == "pong", "the connection stays"


def test_a_bad_filter_on_a_websocket(server):
    """An error in one message answers that message and keeps the connection"""
    with Ws(server) as ws:
        answer = ws.ask(type="subscribe", id=3, filter={"any": [{"field": "data.a", "op": "in", "value": 5}]})
        assert answer["problem"] == "invalid-filter" and "any[0].value" in answer["message"] and answer["id"] == 3
        assert ws.ask(type="subscribe", id=4, filter={})["type"] == "subscribed"


def test_a_filter_is_given_once(server):
    """400 syntax"""
    problem(server.request("GET", f"{PATH}?where=exists+key&where=exists+key"), "invalid-parameter", 400)
