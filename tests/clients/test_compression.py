"""Compressed event streams through real decoders: whoever joins at whichever chunk, each event at once, equal bytes.

What is asked for is `gzip` or `zstd` alone, so that each client meets both, as far as it can decode them.
"""

import concurrent.futures
import hashlib
import subprocess
import time

import httpx
import pytest
import requests

from harness import HANGS_S, Patience, Server, wait_for
from readers import DECODING_CLIENTS, ReaderProcess

# Node before 22.15 has no zstd, and does not ask for it.
CASES = [(client, accept) for client in DECODING_CLIENTS for accept in ("gzip", "zstd")
         if accept == "gzip" or client not in ("eventsource", "node-fetch")]
EVENTS = 20_000


def trade(at: int) -> str:
    """One event's data: JSON of some 150 bytes, never twice the same."""
    noise = hashlib.sha256(str(at).encode()).hexdigest()
    return f'{{"n":{at},"symbol":"ACME","price":{at % 997 / 100},"venue":"XNAS","order":"{noise[:32]}","note":"grüß ☃"}}'


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


def until(reader, what, wanted, timeout_s: float = 20):
    """Waits until `what()` of the reader is `wanted`; fails with what it is."""
    patience = Patience(timeout_s)
    while (got := what()) != wanted:
        assert not patience.is_over(), (reader.client, got, wanted, reader.errors.read_text()[-2000:])
        time.sleep(0.002)


@pytest.mark.parametrize(("client", "accept"), CASES)
def test_joining_anywhere_without_delay(server, tmp_path, client, accept):
    """Readers join one after the other; each sees each event before the next one is sent"""
    topic, joins, between = f"join/{client}/{accept}", 4, 5
    readers, sent, took_s = [], [], []
    try:
        for at in range(joins):
            reader = ReaderProcess(client, server.base, tmp_path / f"out{at}", topic, start="latest", accept=accept,
                                   count=(joins - at) * between)
            readers.append((reader, len(sent)))
            until(reader, reader.encodings, [accept])
            for number in range(between):
                data, began = trade(at * between + number), time.monotonic()
                sent.append((server.append(topic, data.encode()), data))
                # Nothing follows an event that would push it out: it comes by itself.
                for reader, first in readers:
                    until(reader, reader.pairs, sent[first:])
                took_s.append(time.monotonic() - began)
        # A busy machine may take long for some of them, what holds each back for a while does so for all.
        assert min(took_s) < 2, took_s
        for reader, first in readers:
            assert reader.wait(20) == sent[first:]
            assert reader.encodings() == [accept]
    finally:
        for reader, _ in readers:
            reader.stop()


@pytest.fixture(scope="module")
def many(server):
    """The data of many events of one topic, appended."""
    datas = [trade(at) for at in range(EVENTS)]
    answer = httpx.post(f"{server.base}/api/v1/topics/many/events", content="\n".join(datas).encode(), timeout=HANGS_S,
                        headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 201, answer.text
    return datas


@pytest.mark.parametrize(("client", "accept"), CASES)
def test_many_events_are_equal(server, many, tmp_path, client, accept):
    """20,000 events from the log: a hash over the data equals that of what was sent"""
    reader = ReaderProcess(client, server.base, tmp_path / "out", "many", count=EVENTS, accept=accept)
    got = [data for _, data in reader.wait(60)]
    assert reader.encodings() == [accept] and len(got) == EVENTS
    assert hashlib.sha256("\n".join(got).encode()).digest() == hashlib.sha256("\n".join(many).encode()).digest()


@pytest.mark.parametrize(("client", "accept"), CASES)
def test_cut_and_resumed(server, many, tmp_path, client, accept):
    """A reader that cuts its connection every now and then begins with another chunk each time"""
    reader = ReaderProcess(client, server.base, tmp_path / "out", "many", count=EVENTS, accept=accept, cut_every=2500)
    assert [data for _, data in reader.wait(60)] == many
    assert reader.cuts() > 2 and set(reader.encodings()) == {accept}


def test_what_is_asked_decides(server):
    """`compression`: what `Accept-Encoding` allows of zstd and gzip; `false`: none. The answer says that it varies"""
    for accept, query, wanted in [
        ("gzip, deflate, br, zstd", "", "zstd"), ("gzip, deflate, br", "", "gzip"), ("gzip;q=1, zstd;q=0.5", "", "gzip"),
        ("gzip, zstd", "?compression=false", None), ("gzip, zstd", "?compression=true", "zstd"), ("identity", "", None), ("", "", None),
    ]:
        with httpx.stream("GET", f"{server.base}/api/v1/events/stream{query}", headers={"Accept-Encoding": accept}) as answer:
            assert answer.headers.get("Content-Encoding") == wanted, (accept, query)
            assert "accept-encoding" in answer.headers["Vary"].lower()
            assert next(answer.iter_text()).startswith("retry: ")


def curl_pieces(url: str, accept: str):
    """What comes of a stream, decoded, as it comes and up to its proper end."""
    command = ["curl", "-sS", "-N", "--compressed", "-H", f"Accept-Encoding: {accept}", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        yield from iter(lambda: curl.stdout.read1(65536), b"")
    assert curl.returncode == 0, "it says so where the end is none"


def httpx_pieces(url: str, accept: str):
    with httpx.stream("GET", url, headers={"Accept-Encoding": accept}, timeout=HANGS_S) as answer:
        yield from answer.iter_bytes()


def requests_pieces(url: str, accept: str):
    with requests.get(url, headers={"Accept-Encoding": accept}, timeout=HANGS_S, stream=True) as answer:
        yield from answer.raw.stream(65536, decode_content=True)


def read_into(came: bytearray, pieces) -> None:
    """Takes all there is, which others see meanwhile."""
    for piece in pieces:
        came += piece


@pytest.mark.parametrize("accept", ["gzip", "zstd"])
def test_a_server_that_stops_ends_its_streams(accept):
    """at the end `event: connection.closing`, then a proper end: also one for the decoder, of old and of new streams"""
    # The server goes first, also where something fails: who still reads would not end before it.
    with concurrent.futures.ThreadPoolExecutor() as threads, Server() as server:
        url = f"{server.base}/api/v1/events/stream?topic=end&from="
        server.append("end", b"first")
        reads = []
        for pieces in (curl_pieces, httpx_pieces, requests_pieces):
            for start in ("earliest", "latest"):
                came = bytearray()
                reads.append((start, came, threads.submit(read_into, came, pieces(url + start, accept))))

        def wait_until_all_have(wanted):
            wait_for(lambda: all(wanted in came for _, came, _ in reads), 60, told=lambda: reads)

        # Who has been told where it begins has its place.
        wait_until_all_have(b"event: connection.established\n")
        server.append("end", b"last")
        wait_until_all_have(b"data: last\n")
        assert server.terminate() == 0
        for start, came, read in reads:
            read.result(HANGS_S)
            text = came.decode()
            assert ("data: first" in text) == (start == "earliest") and "data: last" in text
            assert "event: connection.closing\n" in text and text.endswith("\n\n")
