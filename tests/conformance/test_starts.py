"""A start that cannot have all that it needs ends and says so; one that says that it listens serves, on each of its shards."""

import os
import re
import resource
import signal
import subprocess

from harness import PatientSocket, binary, wait_for, wait_for_end

SHARDS = 3


def starts(tmp_path, number, at_most, **environment):
    """Starts a server that may have so much of a resource; returns its process once it has said that it listens, or has ended, and both that it
    said."""
    out, told = tmp_path / f"out-{at_most}", tmp_path / f"told-{at_most}"
    command = [binary(), "serve", "--listen", "127.0.0.1:0", "--data", tmp_path / f"data-{at_most}", "--shards", str(SHARDS)]
    with open(out, "wb") as stdout, open(told, "wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env={**os.environ, **environment}, preexec_fn=lambda: resource.setrlimit(number, (at_most, at_most)))
    try:
        wait_for(lambda: process.poll() is not None or "\n" in out.read_text(), 30, told=lambda: f"neither serves nor ends with {at_most}: {told.read_text()}")
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process, out, told


def is_alive(port):
    """Whether the shard to which the kernel gives a new connection answers on it."""
    with PatientSocket(port, 30) as stream:
        stream.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := stream.recv(4096):
            answer += part
    return answer.startswith(b"HTTP/1.1 200 ")


def ends_or_serves(tmp_path, number, at_most, **environment):
    """Whether such a server serves: else it has ended, with 1."""
    process, out, told = starts(tmp_path, number, at_most, **environment)
    try:
        if process.poll() is not None:
            assert process.returncode == 1 and "\nerror: " in told.read_text() and out.read_text() == "", (at_most, process.returncode, told.read_text())
            return False
        port = int(re.match(r"strandline listening http://127\.0\.0\.1:(\d+) ", out.read_text())[1])
        # One that has no file left cannot take a connection: it waits, as do those that come.
        has_room = number != resource.RLIMIT_NOFILE or len(os.listdir(f"/proc/{process.pid}/fd")) + 2 <= at_most
        for _ in range(8 * SHARDS if has_room else 0):
            assert is_alive(port), (at_most, told.read_text())
        process.send_signal(signal.SIGTERM)
        assert wait_for_end(process, 30) == 0, (at_most, told.read_text())
        return has_room
    finally:
        process.kill()
        process.wait()


def test_few_files(tmp_path):
    """Exit 0 fine, 1 failure: wherever on its way a shard finds that no file may be opened any more"""
    served, at_most = 0, 16
    # From the first that is enough on there are some in which others of its threads want a file at the same time.
    while served < 6:
        served += ends_or_serves(tmp_path, resource.RLIMIT_NOFILE, at_most)
        at_most += 1
        assert at_most < 200, served


def test_few_threads(tmp_path):
    """Exit 0 fine, 1 failure: wherever on its way it finds that no thread may be started any more"""
    stack_bytes = 1 << 30
    served, at_most = 0, stack_bytes // 2
    while served < 3:
        served += ends_or_serves(tmp_path, resource.RLIMIT_AS, at_most, RUST_MIN_STACK=str(stack_bytes))
        at_most += stack_bytes // 2
        assert at_most < 50 * stack_bytes, served
