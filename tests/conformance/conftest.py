"""What every conformance test shares: a server, streams that are read event by event."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import Server  # noqa: E402


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
