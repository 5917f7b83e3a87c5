"""Events out of a log and into another one: export, import, and CloudEvents, against real servers."""

import json
import os
import time

from commands import fill, fine, run
from harness import Server, wait_for


def events(text):
    """The events of an export, without what an import does not keep."""
    return [{name: value for name, value in json.loads(line).items() if name not in ("offset", "time")} for line in text.splitlines()]


def test_an_export_is_imported_and_exported_again(fresh):
    """export | import | export is equal but for offset and time, in both formats; a repeated import appends nothing"""
    count = fill(fresh)
    first = fine("export", "--url", fresh.base).stdout
    assert len(first.splitlines()) == count and first.count('"id"') == count
    for options in ([], ["--format", "cloudevents"]):
        exported = fine("export", "--url", fresh.base, *options).stdout
        with Server("--shards", "1") as other:
            done = fine("import", "--url", other.base, *options, stdin=exported)
            assert f"imported {count} events" in done.stderr
            assert events(fine("export", "--url", other.base).stdout) == events(first)
            done = fine("import", "--url", other.base, *options, stdin=exported)
            assert f"of which the log had {count} already: appended 0" in done.stderr, done
            assert events(fine("export", "--url", other.base).stdout) == events(first)
    batch = json.loads(fine("export", "--url", fresh.base, "--format", "cloudevents").stdout)
    assert all(event["specversion"] == "1.0" and event["source"] and event["type"] and event["id"] for event in batch)
    assert fine("export", "--url", fresh.base, "--topic", "none", "--format", "cloudevents").stdout == "[]\n"


def test_an_export_is_imported_where_it_came_from(fresh):
    """what a body had around and between its tokens is not in an export: the log is asked for the event that has the id"""
    bodies = [b"{\"a\":1}\n", b" 1 ", b"{\"a\":\r\n 1}", b"[1, 2]", b"\n[\n]\n", b"\"text\""]
    for at, body in enumerate(bodies * 3):
        fresh.append("whole", body, Event_Id=f"id-{at}", Event_Key="k", Event_Header_A="1")
    count = len(bodies) * 3
    first = fine("export", "--url", fresh.base).stdout
    for options in ([], ["--format", "cloudevents"]):
        exported = fine("export", "--url", fresh.base, *options).stdout
        done = fine("import", "--url", fresh.base, *options, stdin=exported)
        assert f"imported {count} events, of which the log had {count} already" in done.stderr, done
        assert fine("export", "--url", fresh.base).stdout == first
    # What is new among them is appended, and another event under an id that is taken stays refused, by its number.
    lines = first.splitlines()
    lines[5:5] = [json.dumps({"topic": "whole", "data": "new"})]
    done = fine("import", "--url", fresh.base, stdin="\n".join(lines))
    assert f"imported {count + 1} events, of which the log had {count} already: appended 1" in done.stderr, done
    lines[7] = lines[7].replace('"key":"k"', '"key":"other"')
    done = run("import", "--url", fresh.base, stdin="\n".join(lines))
    assert done.returncode == 1 and "record 8: " in done.stderr and "(422)" in done.stderr and "--skip 7" in done.stderr, done


def test_parts_of_an_export(fresh):
    """--topic, --from, --until, of a server and of its directory"""
    fine("append", "--url", fresh.base, "--topic", "t", stdin="\n".join(map(str, range(2000))))
    time.sleep(0.02)
    fresh.append("late", "x")
    when = fresh.json("GET", "/api/v1/events/history?topic=late")[1]["events"][0]["time"]
    def parts(*source):
        def offsets(*arguments):
            return [json.loads(line)["offset"] for line in fine("export", *source, *arguments).stdout.splitlines()]
        assert offsets() == list(range(2001))
        assert offsets("--topic", "late") == [2000]
        assert offsets("--from", 1990) == list(range(1990, 2001))
        assert offsets("--until", 10) == list(range(10))
        assert offsets("--from", when) == [2000]
        assert offsets("--until", when) == list(range(2000))
        assert offsets("--from", 5, "--until", 5) == []
        for arguments in (["--from", 5, "--until", 3], ["--from", when, "--until", "2000-01-01T00:00:00Z"]):
            done = run("export", *source, *arguments)
            assert done.returncode == 2 and "is before --from" in done.stderr, done
    parts("--url", fresh.base)
    assert run("export", "--data", fresh.data).returncode == 1, "it is in use"
    fresh.terminate()
    parts("--data", fresh.data)


def test_an_export_of_what_is_gone(tmp_path):
    """an offset that is not kept any more is told, and exits with 1, of a server and of its directory; without --from nothing is missing"""
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        fine("append", "--url", server.base, "--topic", "t", stdin="\n".join(map(str, range(20))))
        server.terminate()
        server.start()  # seals them
        server.request("PUT", "/api/v1/logs/main", b'{"retain":{"count":6}}', {"Content-Type": "application/json"})
        dir = tmp_path / "data" / "default" / "main"
        wait_for(lambda: server.append("t", "more") and not any(dir.glob(f"{0:020}.*.log")), 20, every_s=0.2)
        server.request("PUT", "/api/v1/logs/main", b"{}", {"Content-Type": "application/json"})

        def gone(begin, *source):
            everything = fine("export", *source)
            offsets = [json.loads(line)["offset"] for line in everything.stdout.splitlines()]
            assert offsets and min(offsets) >= begin and everything.stderr == "", everything
            for from_, to, end in ((0, None, begin), (1, 15, 15), (0, 5, 5), (3, max(offsets) + 1, begin), (begin - 1, None, begin)):
                done = run("export", *source, "--from", from_, *([] if to is None else ["--until", to]))
                assert done.returncode == 1, done
                assert done.stderr == f"warning: events from {from_} to {end} are gone: the log begins at offset {begin}\n", done
                assert done.stdout == (everything.stdout if end == begin else ""), done
            for arguments in (["--until", 5], ["--from", "earliest", "--until", 5], ["--from", "2020-01-01T00:00:00Z", "--until", 5]):
                done = fine("export", *source, *arguments)
                assert done.stdout == "" and done.stderr == "", done
            for arguments in (["--from", begin], ["--from", "2020-01-01T00:00:00Z"], ["--from", "earliest"]):
                assert fine("export", *source, *arguments).stdout == everything.stdout

        gone(server.json("GET", "/api/v1/logs/main")[1]["earliest"], "--url", server.base)
        server.terminate()
        # Its files begin where the first one that is left does.
        begin = min(int(name.split(".")[0]) for name in os.listdir(dir) if name.endswith(".log"))
        gone(begin, "--data", server.data)


def test_an_import_names_the_bad_record(fresh):
    """refusals are named with the line"""
    lines = ['{"topic":"a","data":1}', "", '{"topic":"a","data":2}', '{"topic":"$x","data":3}', '{"topic":"a","data":4}']
    done = run("import", "--url", fresh.base, stdin="\n".join(lines))
    assert done.returncode == 1 and "record 4" in done.stderr and "--skip 3" in done.stderr, done
    assert fresh.json("GET", "/api/v1/topics/a")[1]["count"] == 2
    lines[3] = '{"topic":"a","data":3,"surplus":1}'
    done = run("import", "--url", fresh.base, "--skip", 3, stdin="\n".join(lines))
    assert done.returncode == 1 and "record 4" in done.stderr and "surplus" in done.stderr, done
    lines[3] = '{"topic":"a","data":3}'
    fine("import", "--url", fresh.base, "--skip", 3, stdin="\n".join(lines))
    assert [event["data"] for event in fresh.json("GET", "/api/v1/events/history?topic=a")[1]["events"]] == [1, 2, 3, 4]
    done = run("import", "--url", fresh.base, "--format", "cloudevents", stdin='[{"specversion":"1.0","id":"1","source":"/s","subject":"c","data":1},{"id":"2"}]')
    assert done.returncode == 1 and "record 2" in done.stderr, done
    assert fresh.json("GET", "/api/v1/topics/c")[1]["count"] == 1
    for bad in ('"id":"","source":"/s"', '"id":"2"', '"source":"/s"', '"id":"2","source":""', f'"id":"{"x" * 240}","source":"/s"'):
        batch = '[{"specversion":"1.0","id":"1","source":"/s","subject":"c","data":1},{"specversion":"1.0","subject":"c",%s}]' % bad
        done = run("import", "--url", fresh.base, "--format", "cloudevents", stdin=batch)
        assert done.returncode == 1 and "record 2: \"" in done.stderr and "--skip 1" in done.stderr, done
    for number, told in ((5, False), (6, True)):
        done = fine("import", "--url", fresh.base, "--skip", number, stdin="\n".join(lines))
        assert (f"note: --skip {number} is more than there are: 5 records" in done.stderr) == told and "imported 0" in done.stderr, done
    for array in ("[]", "[\n{}\n]\n"):
        done = run("import", "--url", fresh.base, stdin=array)
        assert done.returncode == 1 and "record 1: " in done.stderr and "--format cloudevents" in done.stderr, done
    made = '{"offset":7,"topic":"m"}'
    for _ in range(2):
        fine("import", "--url", fresh.base, "--make-ids", "old-", stdin=made)
    assert [event["id"] for event in fresh.json("GET", "/api/v1/events/history?topic=m")[1]["events"]] == ["old-7"]


def test_the_subject_of_cloud_events(fresh):
    """becomes the topic; one that is none is said to be the subject, and can be a header"""
    batch = json.dumps([{"specversion": "1.0", "id": str(at), "source": "/s", "type": "t", "subject": subject} for at, subject in enumerate(("a/b", "/a//b"))])
    cloud = ["import", "--url", fresh.base, "--format", "cloudevents"]
    done = run(*cloud, stdin=batch)
    assert done.returncode == 1 and 'record 2: "subject" becomes the topic, and ' in done.stderr and "/a//b" in done.stderr and "--skip 1" in done.stderr, done
    fine(*cloud, "--topic", "in", "--subject-as-header", "--skip", 1, stdin=batch)
    events = fresh.json("GET", "/api/v1/events/history")[1]["events"]
    assert [(event["topic"], event["headers"].get("ce-subject")) for event in events] == [("a/b", None), ("in", "/a//b")]
    back = json.loads(fine("export", "--url", fresh.base, "--format", "cloudevents").stdout)
    assert [event["subject"] for event in back] == ["a/b", "in"], "a topic is kept where it is moved on"
    for bad in ([*cloud, "--subject-as-header"], ["import", "--topic", "in", "--subject-as-header"], [*cloud, "--topic", "/a//b"]):
        assert run(*bad, stdin=batch).returncode == 2, bad


def test_events_come_back_after_a_delete(fresh):
    """the log remembers ids of events that are gone: an import says so, and what to do"""
    fresh.append("other", "stays")
    count = fill(fresh)
    exported = fine("export", "--url", fresh.base, "--topic", "a/**").stdout
    for topic in ("a/b", "a/c"):
        assert fresh.request("DELETE", f"/api/v1/topics/{topic}")[0] in (200, 204)
    done = fine("import", "--url", fresh.base, stdin=exported)
    assert "warning" in done.stderr and "--new-ids" in done.stderr and "DELETE" in done.stderr, done
    assert fine("export", "--url", fresh.base, "--topic", "a/**").stdout == ""
    for already in (0, 3):
        done = fine("import", "--url", fresh.base, "--new-ids", "back-", stdin=exported)
        assert ("warning" in done.stderr) == (already > 0), done
        back = events(fine("export", "--url", fresh.base, "--topic", "a/**").stdout)
        assert back == [{**event, "id": f"back-{event['id']}"} for event in events(exported)] and len(back) == 3 < count


def test_cloud_events_are_known_by_source_and_id():
    """the same id of several sources is several events, and their sources come back; events without an id of two servers are told apart"""
    foreign = [{"specversion": "1.0", "id": "1", "source": source, "type": "x", "subject": "in", "traceparent": "00", "data": at} for at, source in enumerate(("/one", "/two"))]
    exports = []
    with Server("--shards", "1") as target:
        for _ in range(2):
            fine("import", "--url", target.base, "--format", "cloudevents", stdin=json.dumps(foreign))
        lines = [json.loads(line) for line in fine("export", "--url", target.base).stdout.splitlines()]
        assert [(line["data"], line["headers"]["ce-source"]) for line in lines] == [(0, "/one"), (1, "/two")]
        out = json.loads(fine("export", "--url", target.base, "--format", "cloudevents").stdout)
        assert [(event["id"], event["source"]) for event in out] == [("1", "/one"), ("1", "/two")]
        for _ in range(2):
            with Server("--shards", "1") as server:
                server.append("n", "no id")
                tag = server.json("GET", "/api/v1/events/history?limit=1")[1]["tag"]
                exports.append(fine("export", "--url", server.base, "--format", "cloudevents").stdout)
                assert json.loads(exports[-1])[0]["id"] == f"{tag}/0"
                server.terminate()
                assert fine("export", "--data", server.data, "--format", "cloudevents").stdout == exports[-1]
        for _ in range(2):
            for exported in exports:
                fine("import", "--url", target.base, "--format", "cloudevents", stdin=exported)
        assert target.json("GET", "/api/v1/topics/n")[1]["count"] == 2


def test_an_import_refuses_a_member_that_is_given_twice(fresh):
    """"A repeated member is 400": which of the two is meant nobody knows, an export that was mended by hand neither"""
    cloud = '{"specversion":"1.0","source":"/x","type":"t","subject":"a",'
    for options, before, line, name in (
        ([], '{"topic":"a","data":1}', '{"topic":"a","data":1,"data":2}', "data"),
        ([], '{"topic":"a","data":1}', '{"topic":"a","topic":"b","data":1}', "topic"),
        ([], '{"topic":"a","data":1}', '{"offset":1,"offset":2,"topic":"a"}', "offset"),
        (["--format", "cloudevents"], cloud + '"id":"0"}', cloud + '"id":"1","id":"2"}', "id"),
        (["--format", "cloudevents"], cloud + '"id":"0"}', cloud + '"id":"1","extra":"1","extra":"1"}', "extra"),
        (["--format", "cloudevents"], cloud + '"id":"0"}', cloud + '"id":null,"id":"2"}', "id"),
        (["--format", "cloudevents"], cloud + '"id":"0"}', cloud + '"id":"1","eventheaders":"{\\"h\\":\\"1\\",\\"h\\":\\"2\\"}"}', "h"),
    ):
        text = f"[{before},{line}]" if options else f"{before}\n{line}\n"
        done = run("import", "--url", fresh.base, *options, stdin=text)
        assert done.returncode == 1 and f'"{name}"' in done.stderr and "twice" in done.stderr, done
        assert "record 2: " in done.stderr and "--skip 1" in done.stderr, done
    assert fresh.json("GET", "/api/v1/topics/b")[0] == 404
    # What came before the bad record is sent: an id is taken once, and three had none.
    assert fresh.json("GET", "/api/v1/topics/a")[1]["count"] == 4


def test_an_import_says_how_to_go_on_where_its_input_is_cut_off(fresh):
    """"failure (says which record, and how to go on)": also of an array that has no end"""
    event = '{"specversion":"1.0","source":"/x","type":"t","subject":"a","id":"%d"}'
    array = "[" + ",".join(event % at for at in range(5))
    done = run("import", "--url", fresh.base, "--format", "cloudevents", stdin=array[:-10])
    assert done.returncode == 1 and "record 5" in done.stderr and "go on with --skip 4" in done.stderr, done
    done = run("import", "--url", fresh.base, "--format", "cloudevents", "--skip", 4, stdin=array)
    assert done.returncode == 1 and "go on with --skip 5" in done.stderr, done
    assert fresh.json("GET", "/api/v1/topics/a")[1]["count"] == 5
    done = run("import", "--url", fresh.base, "--format", "cloudevents", stdin="nonsense")
    assert done.returncode == 1 and "nothing is imported" in done.stderr, done
