"""The README's examples: each `console` block is run as it stands and answers what it says, `…` standing for anything."""

import pathlib
import re
import subprocess

from harness import Server

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def blocks():
    """(command, expected output) of each example, in order."""
    for block in re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL):
        first, _, expected = block.partition("\n")
        assert first.startswith("$ "), first
        yield first[2:], expected


def test_examples():
    found = list(blocks())
    assert len(found) >= 5
    with Server() as server:
        for command, expected in found:
            command = command.replace("http://127.0.0.1:7400", server.base).replace("curl ", "curl -sS --max-time 3 ", 1)
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=20)
            pattern = re.escape(expected.strip()).replace("…", ".*")
            assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_two_commands_are_there():
    text = README.read_text()
    assert "cargo run --release -- serve" in text and "tests/run" in text
