"""What every conformance test shares: a server, streams that are read event by event."""

import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import Server  # noqa: E402


@pytest.fixture
def disk_of():
    """`disk_of(16)` is a directory on a disk of so many MiB, which goes with the test."""
    directory = pathlib.Path("/tmp") / f"strandline-disk-{os.getpid()}"

    def mount(mebibytes):
        directory.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(directory)], capture_output=True).returncode != 0:
            directory.rmdir()
            pytest.skip("mount is not allowed here")
        return directory

    yield mount
    if directory.exists():
        subprocess.run(["umount", str(directory)], check=False)
        directory.rmdir()


@pytest.fixture(scope="session", params=["1", "2"], ids=["one-shard", "two-shards"])
def server(request):
    """One server a number of shards, shared by all tests: each uses topics of its own."""
    with Server("--shards", request.param) as server:
        yield server


@pytest.fixture
def fresh():
    """A server of its own, for tests that look at the whole log."""
    with Server("--shards", "1") as server:
        yield server


@pytest.fixture
def topic(request):
    """A topic that no other test uses."""
    topic.count = getattr(topic, "count", 0) + 1
    return f"t{topic.count}/{request.node.originalname}"
