"""The examples of README.md and docs/USES.md: each `console` block is run as it stands and answers what it says, `…` standing for anything."""

import os
import pathlib
import re
import select
import signal
import subprocess
import time

import pytest

from harness import Patience, Server, binary

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
USES = ROOT / "docs" / "USES.md"


def blocks(document):
    """(command, expected output) of each example, in order."""
    for block in re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL):
        first, _, expected = block.partition("\n")
        assert first.startswith("$ "), first
        yield first[2:], expected


def printed(command, wanted):
    """What a command prints until it ends; one that goes on is ended two seconds after it has printed what is wanted."""
    with subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        out, ends_s, patience = b"", None, Patience(20)
        while not patience.is_over() and (ends_s is None or time.monotonic() < ends_s):
            if select.select([process.stdout], [], [], 0.1)[0]:
                part = os.read(process.stdout.fileno(), 65536)
                if not part:
                    break
                out += part
            if ends_s is None and wanted.fullmatch(out.decode(errors="ignore").strip()):
                ends_s = time.monotonic() + 2
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return out.decode().strip()


@pytest.mark.parametrize("document,count", [(README, 5), (USES, 4)], ids=["README", "USES"])
def test_examples(document, count):
    found = list(blocks(document))
    assert len(found) >= count
    with Server() as server:
        for command, expected in found:
            command = command.replace("http://127.0.0.1:7400", server.base).replace("curl ", "curl -sS ", 1)
            wanted = re.compile(re.escape(expected.strip()).replace("…", ".*"), re.DOTALL)
            out = printed(command, wanted)
            assert wanted.fullmatch(out), f"{command}\n{out}"


def shell_blocks():
    """The lines of each `sh` block that has commands of the binary."""
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    return [block.splitlines() for block in blocks if "strandline append" in block or "strandline verify" in block]


def test_the_shell_examples_work_line_by_line(tmp_path):
    """the first block beside a running server, the second once it is stopped"""
    running, stopped = shell_blocks()
    with Server(data=str(tmp_path / "strandline-data")) as server:
        # As they stand, but that the server has another port and `tail` does not stay for ever, but until it has all that there is.
        said = {}
        here = f"""strandline() {{ case $1 in
            tail) {binary()} "$@" --limit 5 --url {server.base};;
            append|topics|export|backup) {binary()} "$@" --url {server.base};;
            *) {binary()} "$@";; esac; }}"""

        def run(line):
            done = subprocess.run(["bash", "-c", f"{here}\nset -o pipefail\n{line}"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
            name = re.search(r"strandline (\w+)", line)[1]
            assert done.returncode == 0, (line, done)
            said[name] = done.stdout

        for line in running:
            run(line)
        assert said["tail"].split() == list("12345") and "logs/web" in said["topics"]
        assert len((tmp_path / "logs.ndjson").read_text().splitlines()) == 5
        server.terminate()
        for line in stopped:
            run(line)
        assert set(said) == {"append", "tail", "topics", "export", "backup", "restore", "verify", "repair", "dump"}
        assert len((tmp_path / "everything.ndjson").read_text().splitlines()) == 5
        restored = subprocess.run([binary(), "dump", "before-the-mistake"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert len(restored.stdout.splitlines()) == 3


def test_the_two_commands_are_there():
    text = README.read_text()
    assert "cargo run --release -- serve" in text and "tests/run" in text
