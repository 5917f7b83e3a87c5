"""The examples of README.md and docs/USES.md: each `console` block is run as it stands and answers what it says, `…` standing for anything."""

import pathlib
import re
import subprocess

import pytest

from harness import Server, binary

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
USES = ROOT / "docs" / "USES.md"


def blocks(document):
    """(command, expected output) of each example, in order."""
    for block in re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL):
        first, _, expected = block.partition("\n")
        assert first.startswith("$ "), first
        yield first[2:], expected


@pytest.mark.parametrize("document,count", [(README, 5), (USES, 4)], ids=["README", "USES"])
def test_examples(document, count):
    found = list(blocks(document))
    assert len(found) >= count
    with Server() as server:
        for command, expected in found:
            command = command.replace("http://127.0.0.1:7400", server.base).replace("curl ", "curl -sS --max-time 3 ", 1)
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=20)
            pattern = re.escape(expected.strip()).replace("…", ".*")
            assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), f"{command}\n{done.stdout}\n{done.stderr}"


def shell_blocks():
    """The lines of each `sh` block that has commands of the binary."""
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    return [block.splitlines() for block in blocks if "strandline append" in block or "strandline verify" in block]


def test_the_shell_examples_work_line_by_line(tmp_path):
    """the first block beside a running server, the second once it is stopped"""
    running, stopped = shell_blocks()
    with Server(data=str(tmp_path / "strandline-data")) as server:
        # As they stand, but that the server has another port and `tail` does not stay for ever.
        said = {}
        here = f"""strandline() {{ case $1 in
            tail) timeout 3 {binary()} "$@" --url {server.base};;
            append|topics|export|backup) {binary()} "$@" --url {server.base};;
            *) {binary()} "$@";; esac; }}"""

        def run(line):
            done = subprocess.run(["bash", "-c", f"{here}\nset -o pipefail\n{line}"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
            name = re.search(r"strandline (\w+)", line)[1]
            assert done.returncode in ((124,) if name == "tail" else (0,)), (line, done)
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
