"""Issue: bad input. Nothing here may hurt the server or anyone else on it."""

import contextlib
import datetime
import http.client
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import threading
import time

import pytest

from commands import run
from harness import Patience, Server
from wire import Sse, Ws, raw_upgrade, status_of

SEED = int(os.environ.get("STRANDLINE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
STRINGS = int(os.environ.get("STRANDLINE_RANDOM_STRINGS", "10000"))


def serve_fails(data, *arguments):
    """Starts a server that must not start; returns what it said."""
    done = run("serve", "--listen", "127.0.0.1:0", "--data", str(data), *arguments)
    assert done.returncode == 1 and "panicked" not in done.stderr, done
    return done.stderr


def test_a_slow_head_is_closed_by_its_deadline(server):
    """a slow head (one byte a second: closed by deadline); 10 s for a head"""
    with socket.create_connection(("127.0.0.1", server.port), timeout=1) as stream:
        started, patience, answer, is_closed = time.monotonic(), Patience(14), b"", False
        head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100
        for byte in head:
            try:
                stream.send(bytes([byte]))
                answer += stream.recv(1000)
                is_closed = True
            except TimeoutError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                is_closed = True
            if is_closed:
                break
        took, is_late = time.monotonic() - started, patience.is_over()
        # Not before its time, nor long behind it, though bytes still come.
        assert is_closed and took >= 8 and not is_late and (not answer or status_of(answer) == 408), (took, answer)


@pytest.mark.parametrize("raw, status", [(b"GET / HTTP/1.1\r\nno field\r\n\r\n", 400), (b"GET / HTTP/9.9\r\n\r\n", 505), (b"\x16\x03\x01\x00\xa5\x01\r\n\r\n", 400)])
def test_a_refused_head_is_answered_with_the_date(server, raw, status):
    """RFC 9110 6.6.1: who has a clock generates Date in all 4xx responses"""
    answer = server.exchange(raw)
    assert status_of(answer) == status and b"\r\nDate: " in answer and b"\r\nConnection: close\r\n" in answer, answer


def test_random_bytes_at_the_port(server, topic):
    """10,000 random byte strings at the port"""
    print(f"STRANDLINE_SEED={SEED}")
    chance = random.Random(SEED)
    pieces = [b"GET ", b"POST ", b"/api/v1/events", b"/stream", b"/ws", b" HTTP/1.1\r\n", b"Host: localhost\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"Upgrade: websocket\r\n",
              b"Connection: Upgrade\r\n", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"Sec-WebSocket-Version: 13\r\n", b"?topic=", b"%", b"\0", b"\xff", b"[{", b'"topic":', b"application/x-ndjson", b"Content-Type: "]
    def hammer(count, seed):
        chance = random.Random(seed)
        for _ in range(count):
            raw = b"".join(chance.choice(pieces) if chance.random() < 0.7 else chance.randbytes(chance.randrange(1, 40)) for _ in range(chance.randrange(1, 25)))
            try:
                with socket.create_connection(("127.0.0.1", server.port), timeout=5) as stream:
                    stream.sendall(raw)
                    if chance.random() < 0.3:
                        stream.settimeout(0.02)
                        answer = stream.recv(1000)
                        assert not answer or answer.startswith(b"HTTP/1.1 "), (raw, answer)
            except OSError:
                pass
    threads = [threading.Thread(target=hammer, args=(STRINGS // 4, chance.randrange(1 << 31))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.process.poll() is None
    server.append(topic, "still here")


def test_random_websocket_bytes(server):
    """random bytes after a handshake close that connection and nothing else"""
    chance = random.Random(SEED)
    for _ in range(200):
        stream, _ = raw_upgrade(server)
        with stream:
            try:
                stream.sendall(chance.randbytes(chance.randrange(1, 200)))
            except OSError:
                pass
    assert server.request("GET", "/livez")[0] == 200


def test_many_half_open_requests(server):
    """connections that send half a head hold nobody up"""
    streams = []
    for _ in range(200):
        stream = socket.create_connection(("127.0.0.1", server.port))
        stream.sendall(b"GET /livez HT")
        streams.append(stream)
    assert server.request("GET", "/livez")[0] == 200
    for stream in streams:
        stream.close()


# ---- data directories -------------------------------------------------------------------------


def log_dir(data):
    return pathlib.Path(data) / "default" / "main"


def stopped(count=200, *arguments):
    """A server that has run, was stopped, and keeps its directory."""
    server = Server("--shards", "1", *arguments).start()
    for at in range(count):
        server.append(f"t/{at % 5}", f"{at:06}" + "x" * 500)
    return server


def test_a_missing_directory_is_made(tmp_path):
    """a data directory that is missing"""
    with Server(data=str(tmp_path / "a" / "b" / "c")) as server:
        assert server.append("a", "x") == 0


def test_not_a_directory(tmp_path):
    """a data directory that is a file"""
    (tmp_path / "file").write_text("x")
    assert "file" in serve_fails(tmp_path / "file")


def test_not_ours(tmp_path):
    """a data directory that is not ours"""
    (tmp_path / "thesis.txt").write_text("mine")
    said = serve_fails(tmp_path)
    assert str(tmp_path) in said and "--data" in said and sorted(os.listdir(tmp_path)) == ["thesis.txt"]


def test_locked():
    """locked: exit 1 (directory in use)"""
    with Server() as server:
        said = serve_fails(server.data)
        assert "in use" in said and "--data" in said
        assert run("verify", server.data).returncode == 1


def test_of_a_newer_version(tmp_path):
    """of a newer version"""
    server = stopped(3)
    server.terminate()
    marker = pathlib.Path(server.data) / "STRANDLINE"
    marker.write_text(marker.read_text().replace("1", "9999"))
    said = serve_fails(server.data)
    assert "newer" in said and "9999" in said and "--data" in said
    shutil.rmtree(server.data)


def test_read_only(tmp_path):
    """read-only (a read-only bind mount, as root passes permission bits by)"""
    server = stopped(3)
    server.terminate()
    if subprocess.run(["mount", "--bind", "-o", "ro", server.data, server.data], capture_output=True).returncode != 0:
        pytest.skip("mount is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", server.data], check=True)
        said = serve_fails(server.data)
        assert "read-only" in said.lower() and "--data" in said
    finally:
        subprocess.run(["umount", server.data], check=True)
        shutil.rmtree(server.data)


def test_on_tmpfs():
    """on tmpfs: buffered write + fdatasync, and it says so"""
    with Server(data=f"/dev/shm/strandline-test-{os.getpid()}") as server:
        try:
            for at in range(50):
                server.append("a", str(at))
            server.kill()
            server.start()
            assert server.json("GET", "/api/v1/topics/a")[1]["count"] == 50
            log = open(server.log.name).read().lower()
            assert "buffered" in log or "fdatasync" in log
        finally:
            server.kill()
            shutil.rmtree(server.data)


def segments(data):
    return sorted(log_dir(data).glob("*.log"))


def flip(path, position):
    """Flips one bit."""
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0x10]))


def sealed():
    """A server that was stopped, of 300 events in a sealed segment and one behind it, and that segment."""
    server = stopped(300)
    server.terminate()
    server.start()
    server.append("t/late", "after")
    server.terminate()
    return server, segments(server.data)[0]


def test_one_flipped_bit_in_a_sealed_segment():
    """a segment with one flipped bit (sealed: named by `verify` and never served)"""
    server, first = sealed()
    assert run("verify", server.data).returncode == 0
    flip(first, first.read_bytes().index(b"000150xxx"))
    done = run("verify", server.data)
    assert done.returncode == 1 and first.name in done.stdout, done
    server.start()
    with Sse(server, {"from": "earliest"}) as stream:
        stream.established()
        seen, reset = [], False
        while True:
            event = stream.next()
            if event.get("event") == "connection.reset":
                assert event.json["reason"] == "gap"
                reset = True
                continue
            seen.append(event["data"])
            if event["data"] == "after":
                break
        assert reset and all(text == "after" or text[6:] == "x" * 500 for text in seen)
        assert f"000150{'x' * 500}" not in seen and len(seen) > 200
    status, page = server.json("GET", "/api/v1/events/history?limit=10000")
    gap, got = page.get("gap"), [event["data"] for event in page["events"]]
    assert status == 200 and gap["from"] <= 150 < gap["to"]
    while page.get("next"):
        page = server.json("GET", page["next"])[1]
        got += [event["data"] for event in page["events"]]
    assert got == seen
    server.kill()
    shutil.rmtree(server.data)


def test_a_gap_is_said_once_and_to_whom_it_concerns():
    """`gap` (corruption): a client that resumes from the `id:` of the reset misses nothing, and is not told again"""
    server, first = sealed()
    flip(first, first.read_bytes().index(b"000150xxx"))
    server.arguments = ("--shards", "2")
    server.start()
    gap = server.json("GET", "/api/v1/events/history?limit=10000")[1]["gap"]
    tag = server.json("GET", "/api/v1/logs/main")[1]["tag"]
    behind = f"{gap['to'] - 1}.{tag}"
    for cursor in (f"{gap['from'] - 1}.{tag}", f"{gap['to'] - 2}.{tag}"):
        with Sse(server, {"topic": "t/*"}, {"Last-Event-ID": cursor}) as stream:
            assert stream.established()["state"] == "resumed"
            reset = stream.next()
            assert reset["event"] == "connection.reset" and reset["id"] == behind, reset
            assert reset.json == {"reason": "gap", "from": gap["to"]}
            assert [event["id"] for event in stream.take(2)] == [f"{gap['to'] + at}.{tag}" for at in range(2)]
    with Sse(server, {"topic": "t/*"}, {"Last-Event-ID": behind}) as stream:
        assert stream.established()["state"] == "resumed" and stream.next()["id"] == f"{gap['to']}.{tag}"
    with Ws(server) as ws:
        for topics in (["t/*"], ["t/0"], ["t/1"]):
            ws.send(type="subscribe", topics=topics, **{"from": 0})
        seen, resets = {1: [], 2: [], 3: []}, []
        while seen[1][-1:] != [300] or seen[2][-1:] != [295] or seen[3][-1:] != [296]:
            message = ws.next()
            if message["type"] == "event":
                seen[message["subscription"]].append(message["offset"])
            elif message["type"] == "reset":
                resets.append(message)
        # The index of the segment knows where the events of a topic are: not among those that are lost.
        assert sorted(reset["subscription"] for reset in resets) == [1, 2]
        assert all((reset["reason"], reset["from"], reset["cursor"]) == ("gap", gap["to"], behind) for reset in resets)
        lost = range(gap["from"], gap["to"])
        assert seen == {1: [at for at in range(301) if at not in lost], 2: [at for at in range(0, 300, 5) if at not in lost], 3: list(range(1, 300, 5))}
    # Inside the gap a page is empty, and `next` goes on behind it.
    page = server.json("GET", f"/api/v1/events/history?topic=t/*&from={gap['from']}")[1]
    assert (page["events"], page["gap"], page["cursor"]) == ([], gap, f"{gap['from'] - 1}.{tag}")
    assert server.json("GET", page["next"])[1]["events"][0]["offset"] == gap["to"]
    # "Damage is in the server's log, once, and in `/metrics`"
    assert b"\nstrandline_reported_gaps_total 1\n" in server.request("GET", "/metrics")[2]
    server.kill()
    shutil.rmtree(server.data)


def test_an_export_names_a_gap_and_goes_on():
    """Events that cannot be read are named on standard error, and the rest follows: of a server as of its directory"""
    server, first = sealed()
    flip(first, first.read_bytes().index(b"000150xxx"))
    export = lambda *arguments: run("export", *arguments)
    stopped = export("--data", server.data)
    events = [json.loads(line) for line in stopped.stdout.splitlines()]
    assert stopped.returncode == 1 and len(events) > 200 and events[-1]["data"] == "after"
    server.start()
    gap = server.json("GET", "/api/v1/events/history?limit=10000")[1]["gap"]
    running = export("--url", server.base)
    assert running.stdout == stopped.stdout and running.returncode == 1
    assert f"warning: events from {gap['from']} to {gap['to']} are lost" in running.stderr, running.stderr
    of_topic = export("--url", server.base, "--topic", events[0]["topic"], "--from", "3")
    assert [json.loads(line) for line in of_topic.stdout.splitlines()] == [event for event in events[3:] if event["topic"] == events[0]["topic"]]
    assert of_topic.returncode == 1 and "are lost" in of_topic.stderr
    cloud = export("--url", server.base, "--format", "cloudevents")
    assert len(json.loads(cloud.stdout)) == len(events) and cloud.returncode == 1
    server.kill()
    shutil.rmtree(server.data)


def test_a_gap_is_reported_once_in_the_servers_log():
    """Corruption in a sealed segment: the range is reported once, whoever reads it and however often"""
    server, first = sealed()
    flip(first, first.read_bytes().index(b"000150xxx"))
    server.arguments = ("--shards", "2")
    before = os.path.getsize(server.log.name)
    server.start()
    for at in range(8):
        with Sse(server, {"from": "earliest", "format": ["data", "event"][at % 2]}) as stream:
            stream.established()
            while stream.next().get("event") != "connection.reset":
                pass
        assert server.json("GET", "/api/v1/events/history?limit=10000")[1]["gap"]
        with contextlib.suppress(http.client.IncompleteRead):
            server.request("GET", "/api/v1/events/history", headers={"Accept": "application/x-ndjson"})
    with open(server.log.name) as log:
        log.seek(before)
        said = [line for line in log if "gap" in line]
    assert len(said) == 1 and "ERROR" in said[0] and " lost: " in said[0], said
    server.kill()
    shutil.rmtree(server.data)


def test_a_time_is_found_around_damage_in_what_is_not_sealed():
    """a part that cannot be read is passed over: who asks for a time elsewhere finds it, who asks for one in it is told of the gap"""
    with Server("--shards", "2") as server:
        for at in range(40):
            server.append("t/t", f"{at:06}" + "x" * 800_000)
            time.sleep(0.003)
        path, = segments(server.data)
        flip(path, path.read_bytes().index(b"000010xxx") + 1000)
        page = server.json("GET", "/api/v1/events/history?limit=10&from=10")[1]
        assert page["gap"]["from"] == 10 and page["gap"]["to"] == 11, page
        times = [server.json("GET", f"/api/v1/events/history?limit=1&from={at}")[1]["events"][0]["time"] for at in range(11, 40)]
        times = dict(enumerate(times, 11))
        for at in (12, 13, 19, 20, 25, 39):
            with Sse(server, {"from": times[at]}) as stream:
                assert stream.established()["from"] == at
        # Behind the last before it, and no later than the first behind it: damage hides the answer.
        with Sse(server, {"from": times[11]}) as stream:
            assert stream.established()["from"] == 10
        first = server.json("GET", "/api/v1/events/history?limit=1&from=9")[1]["events"][0]["time"]
        moment = (datetime.datetime.fromisoformat(first) + datetime.timedelta(milliseconds=1)).isoformat()
        with Sse(server, {"from": moment}) as stream:
            assert stream.established()["from"] == 10
            reset = stream.next()
            assert reset["event"] == "connection.reset" and reset.json == {"reason": "gap", "from": 11}


def test_a_flipped_bit_in_the_synced_part_of_the_last_segment():
    """last segment: cut only where nothing shows that it had been synced, else refused with the way out"""
    server = stopped(100)
    server.kill()
    last = segments(server.data)[-1]
    at = last.read_bytes().index(b"000050xxx")
    flip(last, at)
    said = serve_fails(server.data)
    assert last.name in said and "repair" in said
    done = run("repair", server.data)
    assert done.returncode in (0, 1) and "--yes" in done.stdout + done.stderr
    serve_fails(server.data)
    done = run("repair", "--yes", server.data)
    assert done.returncode == 0, done
    aside, = [name for name in os.listdir(log_dir(server.data)) if name.startswith("damaged-")]
    assert last.name in os.listdir(os.path.join(log_dir(server.data), aside))
    assert run("verify", server.data).returncode == 0
    server.start()
    with Sse(server, {"from": "earliest"}) as stream:
        stream.established()
        assert [event["data"][:6] for event in stream.take(50)] == [f"{at:06}" for at in range(50)]
        reset = stream.next()
        assert reset["event"] == "connection.reset" and reset.json["reason"] == "gap", reset
        assert stream.next()["data"][:6] == f"{reset.json['from']:06}", "nothing behind it is lost"
    server.append("t/new", "goes on")
    server.kill()
    shutil.rmtree(server.data)


def test_a_cursor_of_before_a_repair():
    """cursor of this log after a repair: good where only a gap was made, of another log where the end was lost"""
    server = stopped(60)
    with Sse(server, {"from": "earliest"}) as stream:
        stream.established()
        cursor = stream.take(30)[-1]["id"]
    server.kill()
    last = segments(server.data)[-1]
    flip(last, last.read_bytes().index(b"000050xxx"))
    assert run("repair", "--yes", server.data).returncode == 0
    server.start()
    with Sse(server, headers={"Last-Event-ID": cursor}) as stream:
        hello = stream.established()
        assert hello["state"] == "resumed"
        assert stream.next()["id"].startswith("30.")
    server.append("t/late", "after")
    server.kill()
    flip(segments(server.data)[-1], 30)
    assert run("repair", "--yes", server.data).returncode == 0
    server.start()
    with Sse(server, headers={"Last-Event-ID": cursor}) as stream:
        hello = stream.established()
        assert hello["state"] == "reset" and hello["reason"] == "other_log"
        assert stream.next()["id"].startswith("0.")
    server.kill()
    shutil.rmtree(server.data)


def test_a_torn_tail_is_cut():
    """a torn tail that was never synced is no finding, and is cut"""
    server = stopped(50)
    time.sleep(0.3)
    server.kill()
    last = segments(server.data)[-1]
    content = last.read_bytes()
    end = len(content.rstrip(b"\0"))
    end += -end % 4096
    assert run("verify", server.data).returncode == 0
    with open(last, "r+b") as file:  # half of a frame that a power cut left behind
        file.seek(end)
        file.write(content[4096:4096 + 2048])
    done = run("verify", server.data)
    assert done.returncode == 0, done.stdout
    server.start()
    assert server.append("t/0", "next") == 50
    server.kill()
    shutil.rmtree(server.data)


def test_rubbish_in_the_directory():
    """files that are not ours inside a log are reported, not touched"""
    server = stopped(20)
    server.terminate()
    (log_dir(server.data) / "notes.txt").write_text("mine")
    server.start()
    assert (log_dir(server.data) / "notes.txt").read_text() == "mine"
    server.kill()
    shutil.rmtree(server.data)


def test_a_missing_segment():
    """a segment that is gone is named, and nothing is cut"""
    server = stopped(20)
    for _ in range(2):
        server.terminate()
        server.start()
        server.append("t/0", "more")
    server.terminate()
    middle = segments(server.data)[1]
    os.rename(middle, str(middle) + ".away")
    os.rename(str(middle) + ".away", pathlib.Path(server.data).parent / middle.name)
    said = serve_fails(server.data)
    assert "20" in said
    assert run("verify", server.data).returncode == 1
    os.unlink(pathlib.Path(server.data).parent / middle.name)
    shutil.rmtree(server.data)


def test_a_segment_of_zeroes_or_rubbish():
    """rubbish in place of a segment is refused or named, never served"""
    server = stopped(20)
    server.terminate()
    last = segments(server.data)[-1]
    last.write_bytes(random.Random(SEED).randbytes(100_000))
    said = serve_fails(server.data)
    assert last.name in said
    shutil.rmtree(server.data)


def fill(path):
    """Leaves no block of a disk to others."""
    for size in (1 << 16, 1 << 12):
        with contextlib.suppress(OSError), open(path, "ab", buffering=0) as filler:
            while filler.write(bytes(size)):
                pass


def test_a_full_small_disk(disk_of):
    """a full disk: appends are refused whole, reads go on"""
    directory = disk_of(24)
    with Server("--segment-bytes", "4194304", data=str(directory / "data")) as server:
        kept = 0
        for _ in range(100):
            # What cannot be compressed: rewriting it makes no space.
            status, _, body = server.request("POST", "/api/v1/topics/a/events", os.urandom(1_000_000))
            if status == 201:
                kept += 1
                continue
            # `/readyz` (200 as long as reads go on, also on a full disk; says what does not work)
            ready, state = server.json("GET", "/readyz")
            assert ready == 200 and state["reads"], state
            # The segment that has ended may have given back what it had set aside: then once more.
            if not state["appends"]:
                break
        assert status == 507 and 5 < kept < 24, (status, kept, body)
        assert "full" in state["reason"], state
        assert len(server.json("GET", "/api/v1/events/history?limit=3")[1]["events"]) == 3
        # What is prepared behind the end is used up, for a second in which nothing more is taken: a start finds too little there to begin
        # with.
        since = time.monotonic()
        while time.monotonic() - since < 1:
            if server.request("POST", "/api/v1/topics/a/events", os.urandom(50_000))[0] == 201:
                kept += 1
                since = time.monotonic()
            else:
                time.sleep(0.05)
        assert server.json("GET", "/api/v1/topics/a")[1]["count"] == kept
        # What frees the disk may have the reserve just now; then it is made anew as soon as there is space.
        reserve, patience = directory / "data" / "default" / "main" / "reserve.tmp", Patience(10)
        while not reserve.exists() and not patience.is_over():
            time.sleep(0.05)
        server.kill()
        has_reserve = reserve.exists()
        fill(directory / "filler")
        if has_reserve:
            # A start of this log says that there is nothing beside its reserve; a new one has none.
            server.start()
            for _ in range(400):
                status, _, body = server.request("POST", "/api/v1/topics/a/events", os.urandom(50_000))
                if status != 201:
                    break
                # If the killed one had not made all indexes, its reserve was larger than what this one needs: that is filled as well.
                kept += 1
                fill(directory / "filler")
            assert status == 507, (status, body)
            ready, state = server.json("GET", "/readyz")
            assert (ready, state["status"], state["reads"], state["appends"]) == (200, "disk-full", True, False), state
            assert b"\nstrandline_disk_full 1\n" in server.request("GET", "/metrics")[2]
            assert server.json("GET", "/api/v1/topics/a")[1]["count"] == kept
            server.kill()
            fill(directory / "filler")
        said = serve_fails(directory / "other")
        assert "disk is full" in said and "strandline dump" in said, said
        dumped = run("dump", server.data)
        assert dumped.returncode == 0 and len(dumped.stdout.splitlines()) == kept
        (directory / "filler").unlink()
        server.start()
        assert server.json("GET", "/api/v1/topics/a")[1]["count"] == kept
