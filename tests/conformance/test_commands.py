"""The command line: append, tail, topics, verify, dump; exit codes; `--help` with an example."""

import json
import socket
import subprocess
import threading
import time

import pytest

from commands import run
from harness import binary, wait_for, wait_for_end


@pytest.mark.parametrize("command", ["serve", "append", "tail", "topics", "verify", "dump", "repair", "backup", "restore", "export", "import", "bench"])
def test_help_has_an_example(command):
    """each with `--help` that has an example"""
    done = run(command, "--help")
    assert done.returncode == 0 and f"strandline {command}" in done.stdout and "xample" in done.stdout


def test_append_lines_and_ndjson(server, topic):
    """`append` reads NDJSON or raw lines from a file or a pipe, in batches"""
    done = run("append", "--url", server.base, "--topic", topic, stdin="one\ntwo\nthree\n")
    assert done.returncode == 0, done
    lines = "".join(json.dumps({"topic": f"{topic}/x", "data": at}) + "\n" for at in range(5000))
    done = run("append", "--url", server.base, "--ndjson", stdin=lines)
    assert done.returncode == 0, done
    assert server.json("GET", f"/api/v1/topics/{topic}")[1]["count"] == 3
    assert server.json("GET", f"/api/v1/topics/{topic}/x")[1]["count"] == 5000


def test_append_a_file(server, topic, tmp_path):
    """from a file"""
    path = tmp_path / "lines"
    path.write_text("a\nb\n")
    assert run("append", "--url", server.base, "--topic", topic, path).returncode == 0
    assert [event["data"] for event in server.json("GET", f"/api/v1/events/history?topic={topic}")[1]["events"]] == ["a", "b"]


def test_append_keeps_empty_lines_of_text(server, topic):
    """blank lines are passed over, but with --text they are events without data"""
    done = run("append", "--url", server.base, "--topic", topic, stdin="a\n\nb\n")
    assert done.returncode == 0 and "appended 2 events" in done.stderr, done
    done = run("append", "--url", server.base, "--topic", topic, "--text", stdin="\nc\n\r\n\n")
    assert done.returncode == 0 and "appended 4 events" in done.stderr, done
    data = [event["data"] for event in server.json("GET", f"/api/v1/events/history?topic={topic}")[1]["events"]]
    assert data == ["a", "b", "", "c", "", ""]


def test_append_names_the_bad_line(server, topic):
    """errors say what to do: the failing line is named, and what was appended"""
    done = run("append", "--url", server.base, "--ndjson", stdin=json.dumps({"topic": topic}) + "\n{bad\n")
    assert done.returncode == 1 and "line 2" in done.stderr, done


def test_append_says_what_is_appended(server, topic):
    """says which line: what stands before it is appended, whoever finds the fault"""
    def count():
        return server.json("GET", f"/api/v1/topics/{topic}")[1].get("count", 0)

    done = subprocess.run([binary(), "append", "--url", server.base, "--topic", topic], input=b"one\ntwo\n\xff\nthree\n", capture_output=True)
    assert done.returncode == 1 and b"line 3: not UTF-8" in done.stderr and b"tail -n +3" in done.stderr, done
    assert count() == 2
    done = run("append", "--url", server.base, "--ndjson", stdin="{bad\n")
    assert done.returncode == 1 and "line 1" in done.stderr and "nothing is appended" in done.stderr, done
    done = run("append", "--url", server.base, "--topic", topic, stdin="x" * (1 << 20) + "x\n")
    assert done.returncode == 1 and "413" in done.stderr and "nothing is appended" in done.stderr, done
    assert count() == 2


def test_append_in_doubt():
    """a server that takes a request and is gone: what it may have appended is in doubt, and is said to be"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def take():
            stream, _ = listener.accept()
            with stream:
                stream.recv(1 << 16)

        thread = threading.Thread(target=take)
        thread.start()
        done = run("append", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}", "--topic", "a", stdin="x\n")
        thread.join()
    assert done.returncode == 1 and "may or may not be" in done.stderr and "is it running" not in done.stderr, done


def test_append_comes_again_where_there_was_no_room():
    """503 `overloaded` of a request of which nothing was read: sent again after Retry-After, a few times, and no line is in doubt; from the line
    on that a server names whose disk has failed, all are"""
    refusal = b'HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nConnection: close\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s'
    full = b'{"type":"/problems/overloaded","title":"The server is busy","status":503,"detail":"all 4 places for connections are taken"}'
    began = b'{"type":"/problems/overloaded","title":"The server is busy","status":503,"detail":"the queue is full","line":2,"appended":1}'
    failed = b'{"type":"/problems/read-only","title":"The log is read-only","status":503,"detail":"the disk failed (sync); offsets from 1 on are in doubt","line":2,"appended":1}'
    done_ = b'HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"count":1}'
    once = refusal % (len(full), full)

    def asked(command, answers, lines='{"topic":"a","data":1}\n'):
        seen = []

        def serve(listener):
            for answer in answers:
                stream, _ = listener.accept()
                with stream:
                    request = b""
                    while not request.endswith(b"}\n"):
                        request += stream.recv(1 << 16)
                    seen.append(request)
                    stream.sendall(answer)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve, args=(listener,), daemon=True)
            thread.start()
            done = run(*command, "--url", f"http://127.0.0.1:{listener.getsockname()[1]}", stdin=lines)
            thread.join(10)
            assert not thread.is_alive(), done
        assert len(set(seen)) == 1, "the same request"
        return done

    for command in (["append", "--ndjson"], ["import"]):
        done = asked(command, [once, once, done_])
        assert done.returncode == 0 and done.stderr.count("trying again") == 2, done
        done = asked(command, [once] * 6)
        assert done.returncode == 1 and "may or may not" not in done.stderr and "nothing is" in done.stderr, done
        done = asked(command, [refusal % (len(began), began)])
        assert done.returncode == 1 and "trying again" not in done.stderr, "a part of it was appended"
        # `append` sends what has come: that may be the first line.
        done = asked(command, [refusal % (len(failed), failed)], '{"topic":"a","data":1}\n' * 3)
        assert done.returncode == 1 and "may or may not" in done.stderr and "trying again" not in done.stderr, done
        assert "the rest is not" not in done.stderr and "those before it are" not in done.stderr, done
        assert command != ["import"] or "records 2 to 3 may or may not" in done.stderr, done


def test_no_server(tmp_path):
    """no server: exit 1 and what to do"""
    done = run("append", "--url", "http://127.0.0.1:9", "--topic", "a", stdin="x\n")
    assert done.returncode == 1 and "strandline serve" in done.stderr, done
    assert "may or may not" not in done.stderr, "nothing was sent"
    assert "http://127.0.0.1:9: Connection refused" in done.stderr, done
    for url in ("127.0.0.1:9", "http://", "https://127.0.0.1:9"):
        done = run("topics", "--url", url)
        assert done.returncode == 2 and "http://" in done.stderr, done


def test_tail_follows_a_cursor_file(server, topic, tmp_path):
    """`tail` prints events as they come, follows a cursor file with `--cursor FILE`"""
    cursor = tmp_path / "cursor"
    server.append(topic, "one")
    server.append(topic, "two")
    first = run("tail", "--url", server.base, "--topic", topic, "--from", "earliest", "--limit", 2, "--cursor", cursor)
    assert first.returncode == 0 and "one" in first.stdout and "two" in first.stdout, first
    server.append(topic, "three")
    second = run("tail", "--url", server.base, "--topic", topic, "--limit", 1, "--cursor", cursor)
    assert second.returncode == 0 and "three" in second.stdout and "two" not in second.stdout, second


def test_tail_ends_with_its_reader(server, topic, tmp_path):
    """Exit codes: 0 done (.., or the reader of a pipe went away): also while nothing comes that it could print, and not between an event and its cursor"""
    offset = server.append(topic, "one")
    for run_ in range(5):
        cursor = tmp_path / f"cursor-{run_}"
        command = [binary(), "tail", "--url", server.base, "--topic", topic, "--from", "earliest", "--cursor", cursor]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as tail:
            try:
                assert tail.stdout.readline() == b"one\n"
                tail.stdout.close()
                assert wait_for_end(tail, 5) == 0
            finally:
                tail.kill()
        assert cursor.read_text().startswith(f"{offset}."), "what was printed is not printed again"


def test_tail_begins_anew_where_it_cannot_go_on(server, topic, tmp_path):
    """a run that is killed may print its last events again, and never passes one over: also after a repair gave the log a new tag"""
    cursor = tmp_path / "cursor"
    server.append(topic, "one")
    server.append(topic, "two")
    cursor.write_text("0.otherlog\n")
    done = run("tail", "--url", server.base, "--topic", topic, "--limit", 2, "--cursor", cursor)
    assert done.returncode == 0 and done.stdout.split() == ["one", "two"], done
    assert "after cursor 0.otherlog: it is of another log (other_log); goes on at offset 0" in done.stderr, done
    for empty in ("", "\n"):
        cursor.write_text(empty)
        done = run("tail", "--url", server.base, "--topic", topic, "--limit", 2, "--cursor", cursor)
        assert done.returncode == 0 and done.stdout.split() == ["one", "two"], done
        assert f"note: {cursor} is empty" in done.stderr and len(cursor.read_text()) > 5, done
    cursor.write_text("")
    done = run("tail", "--url", server.base, "--topic", topic, "--limit", 1, "--from", "-1", "--cursor", cursor)
    assert done.returncode == 0 and done.stdout.split() == ["two"] and "begins at -1" in done.stderr, done


@pytest.mark.parametrize("arguments", [
    ["append"], ["append", "--ndjson", "--topic", "a"], ["append", "--ndjson", "--type", "a"], ["append", "--ndjson", "--text"], ["tail", "--limit", "0"], ["tail", "--topic", "a**"], ["tail", "--topic", ""], ["tail", "--from", "bogus"], ["tail", "--from", "-0"], ["verify"], ["dump"], ["dump", "x", "--from", "y"], ["repair"],
    ["topics", "--colour"], ["append", "--topic", "bad/*", "/dev/null"], ["export", "--from", "5", "--until", "3"],
])
def test_usage_errors(arguments):
    """exit 2 usage: nothing that was asked for is silently left out"""
    done = run(*arguments, stdin="")
    assert done.returncode == 2 and done.stderr, done


@pytest.mark.parametrize("arguments,wanted", [
    (["dump", "x", "--from", "y"], "from 0 to "), (["dump", "x", "--from", "-1"], "from 0 to "), (["dump", "x", "--limit", "1.5"], "from 0 to "), (["verify", "x", "--threads", "0"], "from 1 to 1024"), (["verify", "x", "--threads", "-1"], "from 1 to 1024"),
    (["serve", "--shards", "-1"], "from 1 to 1024"), (["serve", "--shards", "many"], "from 1 to 1024"), (["serve", "--connections-max", "-5"], "from 1 to 10000000"), (["serve", "--segment-bytes", "-1"], "a multiple of 4096"), (["serve", "--segment-bytes", "1M"], "a multiple of 4096"),
    (["serve", "--scrub-interval", "-1"], "from 1 to 10000000000"), (["serve", "--compress-after", "1h"], "from 0 to 10000000000"), (["tail", "--limit", "-1"], "from 1 to "), (["import", "--skip", "x"], "from 0 to "), (["export", "--from", "-1"], "neither an offset nor a time"),
    (["bench", "append", "--publishers", "x"], "from 1 to 15000"), (["bench", "fanout", "--stall", "-1"], "from 0 to "), (["bench", "append", "--seconds", "-1"], "at least 0.01"), (["bench", "append", "--server-core", "a"], "from 0 to "), (["bench", "append", "--shards", "0"], "from 1 to 1024"),
])
def test_what_is_no_number_is_told_which_there_are(arguments, wanted):
    """exit 2 usage: and what would be right"""
    done = run(*arguments, stdin="")
    assert done.returncode == 2 and wanted in done.stderr and arguments[-1] in done.stderr, done
    assert "invalid digit" not in done.stderr and "unexpected argument" not in done.stderr, done


def test_tail_reconnects(fresh, tmp_path):
    """reconnects by itself"""
    out = tmp_path / "out"
    with open(out, "wb") as stdout, subprocess.Popen([binary(), "tail", "--url", fresh.base, "--topic", "a", "--from", "earliest", "--limit", "4"], stdout=stdout, stderr=subprocess.DEVNULL) as tail:
        try:
            fresh.append("a", "one")
            fresh.append("a", "two")
            wait_for(lambda: out.read_text() == "one\ntwo\n", 30, told=out.read_text)
            fresh.kill()
            fresh.start()
            fresh.append("a", "three")
            fresh.append("a", "four")
            assert wait_for_end(tail, 30) == 0 and out.read_text() == "one\ntwo\nthree\nfour\n"
        finally:
            tail.kill()


def test_tail_comes_back_when_a_full_server_asks(tmp_path):
    """overload [...] answer `200`, `retry: <ms>`, `connection.closing`: no sooner than that, and it is told once; a stream that was taken may be told anew"""
    closing = "retry: 300\nevent: connection.closing\ndata: {\"code\":1013,\"reason\":\"all places are taken\"}\n\n"
    taken = "event: connection.established\ndata: {\"state\":\"live\"}\n\n"
    event = "id: 5.a\nevent: t\ndata: {\"content_type\":\"text/plain\",\"data\":\"one\"}\n\n"
    came = []

    def serve(listener):
        for answer in (closing, closing, closing, taken, closing, taken + event):
            stream, _ = listener.accept()
            came.append(time.monotonic())
            with stream:
                stream.recv(1 << 16)
                stream.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{answer}".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        done = run("tail", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}", "--limit", 1, "--cursor", tmp_path / "cursor")
        thread.join()
    assert done.returncode == 0 and done.stdout == "one\n", done
    # Before the stream that was taken, and after it.
    assert done.stderr.count("(1013): all places are taken") == 2 and done.stderr.count("connecting again") == 2, done
    pauses = [later - sooner for sooner, later in zip(came, came[1:])]
    # Doubled where nothing comes of it, and begun anew by a stream that was taken.
    assert all(pause >= asked for pause, asked in zip(pauses, (0.3, 0.6, 1.2, 0.3, 0.6))), pauses


def test_tail_says_where_it_cannot_begin(fresh):
    """an offset that the log does not keep any more is named: there was no cursor"""
    for _ in range(20):
        fresh.append("a", "x")
    assert fresh.request("PUT", "/api/v1/logs/main", b'{"retain":{"count":3}}', {"Content-Type": "application/json"})[0] == 200
    wait_for(lambda: fresh.json("GET", "/api/v1/logs/main")[1]["earliest"] >= 10, 20)
    earliest = fresh.json("GET", "/api/v1/logs/main")[1]["earliest"]
    done = run("tail", "--url", fresh.base, "--from", 2, "--limit", 1)
    assert done.returncode == 0 and "note: cannot begin at offset 2: " in done.stderr and f"begins at offset {earliest}" in done.stderr, done
    assert "cursor" not in done.stderr, done


def test_topics(server, topic):
    """`topics` lists them"""
    server.append(topic, "x")
    done = run("topics", "--url", server.base, "--prefix", topic)
    assert done.returncode == 0 and topic in done.stdout
    assert done.stdout.startswith("         1  last "), "columns stand below each other"


def test_verify_and_dump(fresh, tmp_path):
    """`verify DIR` exit 0; `dump` writes events as NDJSON, also of a server that was killed"""
    for at in range(20):
        fresh.append(f"a/{at % 2}", str(at))
    fresh.kill()
    done = run("verify", fresh.data)
    assert done.returncode == 0, done
    events = [json.loads(line) for line in run("dump", fresh.data).stdout.splitlines()]
    assert [event["data"] for event in events] == list(range(20))
    events = [json.loads(line) for line in run("dump", fresh.data, "--topic", "a/1", "--from", 4, "--limit", 3).stdout.splitlines()]
    assert [event["data"] for event in events] == [5, 7, 9]
    assert run("verify", tmp_path / "nothing").returncode in (1, 2)
    fresh.start()
    assert fresh.append("a/0", "20") == 20


def test_a_directory_may_be_given_as_data(fresh):
    """`verify`, `dump` and `repair` take DIR, or --data DIR as `serve`, `backup` and `export` do"""
    fresh.append("a", "1")
    fresh.terminate()
    for command in ("verify", "dump", "repair"):
        plain, named = run(command, fresh.data), run(command, "--data", fresh.data)
        assert plain.returncode == named.returncode == 0 and plain.stdout == named.stdout, (plain, named)
        both, none = run(command, fresh.data, "--data", fresh.data), run(command)
        assert both.returncode == 2 and "cannot be used with" in both.stderr and "--data <DIR>" in both.stderr, both
        assert none.returncode == 2 and "<DIR|--data <DIR>>" in none.stderr, none


def test_a_dump_is_what_readers_get(fresh):
    """settings and deletes stand in the log as well: they are no events of anybody, and an import refuses them"""
    fresh.append("a", "one")
    fresh.request("PUT", "/api/v1/topics/a", b'{"retain":{"count":9}}', {"Content-Type": "application/json"})
    fresh.append("a", "two")
    fresh.terminate()
    dump = run("dump", fresh.data)
    assert [json.loads(line)["topic"] for line in dump.stdout.splitlines()] == ["a", "a"], dump
    assert len(run("dump", fresh.data, "--limit", 2).stdout.splitlines()) == 2
    control = run("dump", "--control", fresh.data)
    assert [json.loads(line)["topic"] for line in control.stdout.splitlines()] == ["a", "$log", "a"], control
    fresh.start()
    done = run("import", "--url", fresh.base, stdin=dump.stdout)
    assert done.returncode == 0 and "imported 2 events" in done.stderr, done


def test_what_is_printed_can_be_pasted(tmp_path):
    """`serve` says what to try next: each line works as it stands, also where it listens on every address"""
    for listen in ("0.0.0.0:0", "[::1]:0"):
        server = subprocess.Popen([binary(), "serve", "--listen", listen, "--data", tmp_path / "data"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said = ""
        while "Stop " not in said:
            line = server.stderr.readline()
            assert line, said
            said += line
        commands = dict(line.split(maxsplit=1) for line in said.splitlines() if line.startswith(("Watch", "Append", "Look")))
        assert "//0.0.0.0" not in commands["Append"]
        done = subprocess.run(["bash", "-O", "failglob", "-c", commands["Append"]], capture_output=True, text=True)
        assert done.returncode == 0 and '"offset":' in done.stdout, (commands, done)
        with subprocess.Popen(["bash", "-c", "exec timeout 60 " + commands["Watch"]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
            lines = iter(watch.stdout.readline, "")
            assert "data: hello\n" in lines, (commands, watch.communicate())
            watch.terminate()
        assert ("no authentication" in said) == (listen == "0.0.0.0:0")
        server.kill()
        server.communicate()


def test_errors_of_directories_say_what_to_do(fresh, tmp_path):
    """Errors say what to do"""
    said = run("serve", "--listen", "127.0.0.1:0", "--data", fresh.data).stderr
    assert "in use" in said and said.count("--data") == 1, said
    for bytes_ in (1000, 1048577):
        said = run("serve", "--segment-bytes", bytes_).stderr
        assert "a multiple of 4096, at least 1048576" in said, said
    (tmp_path / "mine").write_text("x")
    said = run("serve", "--listen", "127.0.0.1:0", "--data", tmp_path).stderr
    assert "not a data directory" in said and "--data" in said
    for command in ("verify", "dump", "repair"):
        done = run(command, tmp_path / "nothing")
        assert done.returncode == 1 and "serve --data" in done.stderr, done
