#!/usr/bin/env python3
"""Strandline beside what else there is: the same load for each, on the same core in turn, and docs/PERFORMANCE.md's tables.

    benches/peers/run.py [append] [disk] [fanout] [unthrottled] [many] [replay] [all]
                         [--rounds 3] [--seconds 5] [--only NAME,NAME] [--watch-stops] [--dry]

    append        durable appends: 1 to 256 publishers with one request in flight, and 64 with eight; beside them what
                  answers at once and keeps nothing
    disk          NDJSON streams, and fio beside them
    fanout        1,000 subscribers, 150 events of 256 bytes a second
    unthrottled   1,000 subscribers, 16 and 64 publishers as fast as they are acknowledged
    many          10,000 subscribers, 5 events a second
    replay        one and ten readers that catch up by Server-Sent Events

Installs what is missing (install.py), builds the server and the load (main.rs here, over strandline::bench), then takes
turns: within a round each server runs once, alone, from an empty directory, so that all see the same weather, and every
other round goes the other way. All connections use Reno, as Strandline's own do over loopback: BBR, where the system
prefers it, paces by a timer what cannot be lost. The server has one core, the load the other. Everything is bounded: a server that grows past 4 GiB or a load that does not end is
stopped, and the table says so. Rows of all runs go to target/peers/results.json; --dry leaves the document alone.
`STRANDLINE_BENCH_DIR` names the directory for data: put it on the disk that is to be measured.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import disk
import install
import servers
import tables

# What is run: (name in tables, how the server is started, how the load speaks to it)
STRANDLINE = ("Strandline", servers.strandline, "strandline")
DURABLE_STREAMS = ("durable-streams", servers.durable_streams, "durable-streams")
DURABLE_STREAMS_FAN_OUT = ("durable-streams", functools.partial(servers.durable_streams, tail_cache=True), "durable-streams")
DURABLE_STREAMS_GET = ("durable-streams, one plain GET", servers.durable_streams, "durable-streams-get")
REDIS_STREAMS = ("Redis streams", servers.redis, "redis-streams")
REDIS_PUBSUB = ("Redis pub/sub, not durable", servers.redis, "redis-pubsub")
NATS_ORDERED = ("JetStream, ordered consumers", servers.nats, "nats-ordered")
NATS_CORE = ("JetStream, core subscribers", servers.nats, "nats-core")
NCHAN = ("Nchan, not durable", servers.nchan, "nchan")
JETSTREAM = ("JetStream", servers.nats, "nats-core")

WARM_UP_S = 0.5
CONGESTION_CONTROL = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")
# Over the time that a load is meant to take: connecting, draining what is late.
GRACE_S = 25


def loads(client: str, seconds: float, watch_stops: bool) -> dict:
    """{load: {group: (arguments of the client, who takes part)}}"""
    bare = (tables.LIMIT, functools.partial(servers.bare, client), "bare")
    timed = ["--seconds", seconds, "--warm-up-seconds", WARM_UP_S, *(["--watch-stops"] if watch_stops else [])]
    durable = [STRANDLINE, DURABLE_STREAMS, REDIS_STREAMS, JETSTREAM]
    append = {}
    for publishers in (1, 16, 64, 256):
        append[f"{publishers} publishers" if publishers > 1 else "1 publisher"] = (["append", "--publishers", publishers, *timed], [*durable, bare])
    append["64, eight in flight each"] = (["append", "--publishers", 64, "--in-flight", 8, *timed], durable[:3])
    everyone = [STRANDLINE, DURABLE_STREAMS_FAN_OUT, REDIS_STREAMS, NATS_ORDERED, NATS_CORE, REDIS_PUBSUB, NCHAN]
    fanout = {"150 events/s": (["fanout", "--subscribers", 1000, "--publishers", 1, "--rate", 150, *timed], everyone)}
    unthrottled = {
        f"{publishers} publishers": (["fanout", "--subscribers", 1000, "--publishers", publishers, *timed], everyone) for publishers in (16, 64)}
    # An ordered consumer or a blocked XREAD each is not what anybody advises for ten thousand.
    for_many = [STRANDLINE, DURABLE_STREAMS_FAN_OUT, NATS_CORE, REDIS_PUBSUB, NCHAN]
    many = {"5 events/s": (["fanout", "--subscribers", 10_000, "--publishers", 1, "--rate", 5, *timed], for_many)}
    replay = {}
    for readers in (1, 10):
        replay[f"{readers} readers" if readers > 1 else "1 reader"] = (["replay", "--readers", readers, "--events", 250_000], [STRANDLINE, DURABLE_STREAMS, DURABLE_STREAMS_GET])
    # Long enough that most of it is in sealed segments, and read from the page cache.
    replay["1 reader, a million, the second time"] = (
        ["replay", "--readers", 1, "--events", 1_000_000, "--readings", 2], [STRANDLINE, DURABLE_STREAMS, DURABLE_STREAMS_GET])
    return {"append": append, "fanout": fanout, "unthrottled": unthrottled, "many": many, "replay": replay}


def build() -> str:
    """Builds the server and the load; returns the path of the load's program."""
    cargo = dict(cwd=install.ROOT, check=True)
    subprocess.run(["cargo", "build", "--release", "--quiet"], **cargo)
    done = subprocess.run(["cargo", "bench", "--bench", "peers", "--no-run", "--quiet", "--message-format", "json"], stdout=subprocess.PIPE, text=True, **cargo)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "peers":
            return message["executable"]
    raise SystemExit("cargo built no load")


def run(client: str, arguments: list, start, speaks: str, seconds: float) -> dict:
    """One load against one server: a row of figures, with a `note` if it did not go as it should."""
    try:
        server = start()
    except RuntimeError as error:
        return {"note": str(error)}
    with server:
        pids = ",".join(map(str, server.processes()))
        command = ["taskset", "-c", servers.CLIENT_CORE, client, *map(str, arguments), "--target", speaks, "--address", server.address, "--processes", pids]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, failure = load.communicate(timeout=seconds * 2 + GRACE_S)
            said = out.strip().splitlines()
            row = json.loads(said[-1]) if load.returncode == 0 and said else {"note": (failure.strip().splitlines() or ["the load failed"])[-1]}
        except subprocess.TimeoutExpired:
            load.kill()
            load.communicate()
            row = {"note": f"did not end within {seconds * 2 + GRACE_S:.0f} s"}
        row["resident_mib"] = server.resident_bytes_highest / 2**20
        if server.over_limit:
            row["note"] = f"stopped at {servers.RESIDENT_BYTES_MAX >> 30} GiB"
    return row


@contextlib.contextmanager
def same_congestion_control():
    """New connections of the whole machine use Reno meanwhile; yields what they do use."""
    before = "what the system has"
    try:
        before = CONGESTION_CONTROL.read_text().strip()
        if before != "reno":
            CONGESTION_CONTROL.write_text("reno")
    except OSError as error:
        print(f"peers use {before}, Strandline Reno: {error}", file=sys.stderr)
        yield before
        return
    # What ends the script by a signal puts it back as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield "reno"
    finally:
        CONGESTION_CONTROL.write_text(before)


def command_line(load: str, options) -> str:
    only = f" --only {options.only}" if options.only else ""
    watched = " --watch-stops" if options.watch_stops else ""
    return f"benches/peers/run.py {load} --rounds {options.rounds} --seconds {options.seconds:g}{only}{watched}"


def describe(load: str, options, groups: dict, control: str) -> str:
    unlike = "" if control == "reno" else f" (peers over {control}, Strandline over Reno)"
    heading = f"`{command_line(load, options)}`, median (lowest to highest) of {options.rounds} rounds{unlike}; the best of each column in bold:"
    return f"{heading}\n\n{tables.table(load, groups)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*loads("", 1, watch_stops=False), "disk"]
    parser.add_argument("loads", nargs="*", choices=[*names, "all"], default=["all"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", help="comma separated: how the load speaks (strandline, bare, durable-streams, redis-streams, redis-pubsub, nats-core, nats-ordered, nchan)")
    parser.add_argument("--watch-stops", action="store_true", help="latencies also without what was under way while the machine stood still; needs the right to real-time threads")
    parser.add_argument("--dry", action="store_true", help="print the tables, leave docs/PERFORMANCE.md alone")
    options = parser.parse_args()
    wanted = [name for name in names if "all" in options.loads or name in options.loads]
    only = options.only.split(",") if options.only else None

    install.install()
    client = build()
    servers.raise_file_limit()
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", file=sys.stderr, flush=True)

    with same_congestion_control() as control:
        measure(wanted, only, options, client, progress, control)


def measure(wanted: list, only: list | None, options, client: str, progress, control: str) -> None:
    """Runs the loads that are wanted, and writes down what came of them."""
    results = {}
    for load in wanted:
        if load == "disk":
            results[load] = disk.measure(options.rounds, options.seconds, progress)
            text = f"`{command_line(load, options)}`, median (lowest to highest) of {options.rounds} rounds:\n\n{tables.disk_table(results[load])}"
        else:
            groups = {group: {name: [] for name, _, speaks in who if not only or speaks in only} for group, (_, who) in loads(client, options.seconds, options.watch_stops)[load].items()}
            for at in range(options.rounds):
                for group, (arguments, who) in loads(client, options.seconds, options.watch_stops)[load].items():
                    for name, start, speaks in who[::-1] if at % 2 else who:
                        if only and speaks not in only:
                            continue
                        row = run(client, arguments, start, speaks, options.seconds)
                        groups[group][name].append(row)
                        figures = ", ".join(f"{key} {value:,.4g}" for key, value in row.items() if isinstance(value, int | float))
                        progress(f"{load}, {group}, {name}, round {at + 1}: {figures} {row.get('note', '')}")
            results[load] = groups
            text = describe(load, options, groups, control)
        print(f"\n{text}\n", flush=True)
        if not options.dry:
            tables.write(load, text)
    install.HOME.mkdir(parents=True, exist_ok=True)
    versions = {peer: install.version(peer) for peer in ("durable-streams", "nats", "redis", "nchan", "fio")}
    (install.HOME / "results.json").write_text(json.dumps({"versions": versions, "kernel": os.uname().release, "congestion_control": control, "results": results}, indent=1))


if __name__ == "__main__":
    main()
