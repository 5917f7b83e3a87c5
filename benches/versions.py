#!/usr/bin/env python3
"""Whether one version of the server is slower than another: appends and fan-out of both, in turns.

    benches/versions.py BEFORE AFTER        two programs, each built with `cargo build --release`
    STRANDLINE_ROUNDS=15 STRANDLINE_SECONDS=2 benches/versions.py BEFORE AFTER

Both servers get the load of AFTER's `strandline bench`: one shard on core 0, the load on core 1, a fresh log each time. In every round each
of the two has its turn with each load, and who comes first changes with the round. What is compared is the two of a round, which the same minute
of the machine has seen: the median of these ratios, and between which two of them 95 of 100 such medians lie (the order statistics
of a binomial with p = 1/2, which ask nothing of how the ratios are spread).
"""

import json
import math
import os
import statistics
import subprocess
import sys

from figures import ROUNDS, SERVER_CORE, Process, free_port, scratch

SECONDS = os.environ.get("STRANDLINE_SECONDS", "2")
CLIENT_CORE = "1"

LOADS = {
    "64 publishers": ["append", "--publishers", "64"],
    "1,000 subscribers, 150 events/s": ["fanout", "--subscribers", "1000", "--rate", "150"],
    "1,000 subscribers, 16 publishers unthrottled": ["fanout", "--subscribers", "1000", "--publishers", "16"],
}


def measure(program, load, arguments):
    """Events a second, the server's CPU for each, in µs, and how late the slowest hundredth is, in ms: appends, or deliveries."""
    port, data = free_port(), scratch()
    server = Process([program, "serve", "--shards", "1", "--listen", f"127.0.0.1:{port}", "--data", data], port, data)
    try:
        run = [load, "bench", *arguments, "--url", f"http://127.0.0.1:{port}", "--server-pid", str(server.process.pid), "--seconds", SECONDS, "--warmup", "1", "--json"]
        done = subprocess.run(["taskset", "-c", CLIENT_CORE, *run], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    finally:
        server.end()
    (point,) = json.loads(done.stdout)["points"]
    if point["deliveries"]:
        return point["deliveries_per_s"], point["server"]["cpu_us_per_delivery"], point["receipt"]["p99_ms"]
    return point["appends_per_s"], point["server"]["cpu_us_per_append"], point["ack"]["p99_ms"]


def interval(values):
    """Between which of the values their true median lies with 95 %: the k-th from either end, k as large as that allows."""
    count, beyond, k = len(values), 0.0, 0
    while k < count // 2 and (beyond := beyond + math.comb(count, k) / 2**count) <= 0.025:
        k += 1
    return sorted(values)[max(k - 1, 0)], sorted(values)[count - max(k, 1)]


def compare(before, after):
    ratio = [new / old for old, new in zip(before, after)]
    low, high = interval(ratio)
    return f"{statistics.median(before):12,.2f} {statistics.median(after):12,.2f}   {statistics.median(ratio):.3f} ({low:.3f} to {high:.3f})"


def main(before, after):
    print(f"{ROUNDS} rounds of {SECONDS} s                               before        after   after / before (95 %)")
    for name, arguments in LOADS.items():
        rounds = []
        for number in range(ROUNDS):
            turns = [(0, before), (1, after)]
            found = {at: measure(program, after, arguments) for at, program in (turns if number % 2 == 0 else reversed(turns))}
            rounds.append((found[0], found[1]))
        for at, unit in enumerate(("events/s", "µs of CPU", "p99 ms")):
            print(f"{name:44} {unit:9} " + compare([old[at] for old, _ in rounds], [new[at] for _, new in rounds]), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
