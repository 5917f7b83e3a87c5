"""Runs the commands of the binary that the servers are of."""

import json
import subprocess

from harness import Patience, binary


def run(*arguments, stdin=None, timeout_s=60, **options):
    """Runs a command to its end."""
    command, patience = [binary(), *map(str, arguments)], Patience(timeout_s)
    source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    options = {"stdin": source, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with subprocess.Popen(command, **options) as process:
        while True:
            try:
                out, told = process.communicate(stdin, timeout=1)
                return subprocess.CompletedProcess(command, process.returncode, out, told)
            except subprocess.TimeoutExpired:
                stdin = None  # It has begun to take it, and goes on.
                if patience.is_over():
                    process.kill()
                    raise


def fine(*arguments, **more):
    """Runs a command that must succeed."""
    done = run(*arguments, **more)
    assert done.returncode == 0, done
    return done


def fill(server):
    """Events of every kind."""
    lines = [
        {"topic": "a/b", "data": {"x": [1.50, "ä\n"]}, "type": "t", "key": "k", "headers": {"trace-id": "1"}, "id": "one"},
        {"topic": "a/c", "data": "text\r\nof lines", "content_type": "text/plain", "id": "two"},
        {"topic": "x", "data_base64": "/wA=", "content_type": "image/png", "id": "three"},
        {"topic": "x", "id": "four"},
        {"topic": "x", "data": None, "id": "five"},
        {"topic": "a/b", "data": {"x": 1}, "content_type": "application/ld+json", "id": "six"},
    ]
    fine("append", "--url", server.base, "--ndjson", stdin="".join(json.dumps(line) + "\n" for line in lines))
    return len(lines)
