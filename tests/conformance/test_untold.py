"""The server and the commands where nobody takes what they tell: standard error on a full disk, or a pipe without a reader."""

import contextlib
import json
import os
import subprocess

import pytest

from commands import run
from harness import Server


@contextlib.contextmanager
def full():
    """A file whose disk has no byte free."""
    with open("/dev/full", "wb") as file:
        yield file


@contextlib.contextmanager
def hung_up():
    """A pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as file:
        yield file


both = pytest.mark.parametrize("dead_end", [full, hung_up])


class Untold(Server):
    """A server that tells what it does where nobody takes it."""

    def __init__(self, log, **more):
        super().__init__("--shards", "1", "--cors-origin", "*", **more)
        # Its own log keeps the port for it.
        self.port_lock, self.log = self.log, log

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.port_lock.close()


@both
@pytest.mark.parametrize("level", ["debug", "off"])
def test_a_server_goes_on(dead_end, level, tmp_path, monkeypatch):
    """"What it cannot write of its log is lost, and it goes on": appends are taken, and SIGTERM ends it in order"""
    monkeypatch.setenv("STRANDLINE_LOG", level)
    for begun in (0, 5):
        with dead_end() as log, Untold(log, data=str(tmp_path / "data")) as server:
            for at in range(5):
                assert server.append("t", f"{at}") == begun + at
            assert server.terminate() == 0


def test_a_server_goes_on_where_its_log_has_filled_the_disk(disk_of):
    """the file that its log is written to lies on the disk of the data: what is told of the full disk finds no room itself"""
    disk = disk_of(64)
    with open(disk / "server.log", "wb", buffering=0) as log, Untold(log, data=str(disk / "data")) as server:
        server.append("t", "before")
        # Also what is left of the last page of the log.
        with open(disk / "filler", "wb", buffering=0) as filler:
            for file, piece in ((filler, b"x" * 4096), (log, b"x")):
                with contextlib.suppress(OSError):
                    while file.write(piece):
                        pass
        status = 201
        while status == 201:
            status = server.request("POST", "/api/v1/topics/t/events", b"x" * 100_000)[0]
        assert status == 507
        assert server.json("GET", "/readyz")[1]["status"] == "disk-full"
        assert server.json("GET", "/api/v1/events/history?limit=1")[1]["events"][0]["data"] == "before"
        os.remove(disk / "filler")
        assert server.terminate() == 0


@both
def test_commands_do_their_work(dead_end, fresh, tmp_path):
    """the exit code is the same as where somebody reads, and nothing unfinished is left"""
    line = json.dumps({"topic": "t", "data": 1}) + "\n"

    def code(*arguments, stdin=""):
        with dead_end() as nobody:
            return run(*arguments, stdin=stdin, stdout=subprocess.DEVNULL, stderr=nobody).returncode

    url, data = ["--url", fresh.base], ["--data", fresh.data]
    assert code("append", *url, "--ndjson", stdin=line) == 0
    assert code("append", *url, "--ndjson", stdin=line + "{bad\n") == 1
    assert code("import", *url, stdin=line * 2) == 0
    assert code("import", *url, stdin="{bad\n") == 1
    assert code("topics", *url) == 0
    assert code("tail", *url, "--from", "earliest", "--limit", 2) == 0
    assert code("export", *url) == 0
    assert code("backup", *data, *url, tmp_path / "backup") == 0
    assert code("verify", fresh.data) == 1
    assert code("serve", "--listen", "127.0.0.1:0", *data) == 1
    fresh.terminate()
    assert code("append", *url, "--ndjson", stdin=line) == 1
    assert code("tail", *url, "--limit", 1) == 1
    assert code("topics", *url) == 1
    assert code("verify", fresh.data) == 0
    assert code("repair", fresh.data) == 0
    assert code("dump", fresh.data) == 0
    assert code("export", *data) == 0
    assert code("export", *data, "--until", 0, "--from", 1) == 2
    assert code("backup", *data, tmp_path / "backup") == 0
    assert code("restore", tmp_path / "backup", "--data", tmp_path / "restored") == 0
    assert code("restore", tmp_path / "backup", "--data", tmp_path / "restored") == 1
    assert code("backup", *data, tmp_path / "restored") == 1
    assert sorted(os.listdir(tmp_path)) == ["backup", "restored"]


@pytest.mark.parametrize(("dead_end", "code"), [(full, 1), (hung_up, 0)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_bench_says_when_its_outcome_cannot_be_written(dead_end, code, options):
    """a result that is lost is a failure, but where nobody reads any more"""
    with dead_end() as nobody:
        arguments = ["bench", "append", "--publishers", "1", "--seconds", "0.2", "--warmup", "0", *options]
        done = run(*arguments, stdout=nobody)
    assert done.returncode == code, done
    assert ("error: writing the result: No space left" in done.stderr) == (code == 1), done


@both
def test_usage_is_told_to_nobody(dead_end, monkeypatch):
    """2 usage, as it would be"""
    monkeypatch.setenv("STRANDLINE_LOG", "loud")
    for arguments in (["serve"], ["serve", "--shards", "x"], ["import", "--subject-as-header", "--topic", "t"], ["nonsense"]):
        with dead_end() as nobody:
            assert run(*arguments, stderr=nobody).returncode == 2, arguments
