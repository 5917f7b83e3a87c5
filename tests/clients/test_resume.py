"""Readers that are cut at random, by their own hand and by `kill -9` of the server while appends go on.

Every acknowledged event arrives exactly once and in order; one that was sent but never acknowledged, at
most once for each attempt. `STRANDLINE_CRASHES=n` sets how often the server is killed (default 20),
`STRANDLINE_SEED=n` repeats a run's random choices.
"""

import http.client
import json
import os
import random
import threading
import time

from harness import HANGS_S, Patience, Server
from readers import CLIENTS, ReaderProcess

CRASHES = int(os.environ.get("STRANDLINE_CRASHES", "20"))
SEED = int(os.environ.get("STRANDLINE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
CUTS_MIN = 200
WRITERS = 4


class Writer(threading.Thread):
    """Appends numbered events, one in flight; remembers what was acknowledged and every attempt."""

    def __init__(self, server: Server, number: int, stop: threading.Event):
        super().__init__(daemon=True)
        self.server, self.number, self.stop = server, number, stop
        self.acknowledged: dict[str, int] = {}
        self.attempts: dict[str, int] = {}

    def run(self):
        connection, count = None, 0
        while not self.stop.is_set():
            data = json.dumps({"writer": self.number, "n": count}, separators=(",", ":"))
            self.attempts[data] = self.attempts.get(data, 0) + 1
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
                connection.request("POST", f"/api/v1/topics/load/{self.number}/events", data,
                                   {"Content-Type": "application/json"})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 201:
                    self.acknowledged[data] = json.loads(body)["offset"]
                    count += 1
                else:
                    time.sleep(0.02)
            except (OSError, http.client.HTTPException):
                if connection:
                    connection.close()
                connection = None
                time.sleep(0.02)
            time.sleep(0.004)


def test_every_client_resumes(tmp_path):
    print(f"STRANDLINE_SEED={SEED}")
    chance = random.Random(SEED)
    with Server() as server:
        readers = [ReaderProcess(client, server.base, tmp_path / client, "load/**", cut_every=120, seed=SEED + at)
                   for at, client in enumerate(CLIENTS)]
        try:
            stop = threading.Event()
            writers = [Writer(server, number, stop) for number in range(WRITERS)]
            for writer in writers:
                writer.start()
            for _ in range(CRASHES):
                time.sleep(chance.uniform(0.2, 1.4))
                server.kill()
                time.sleep(chance.uniform(0, 0.2))
                server.start()
            # Kills alone may not make enough cuts: go on until the readers' own make up the rest, by the clock, as the writers may leave
            # no processor free, or until the slowest has had nothing new for long.
            give_up, most = time.monotonic() + HANGS_S, -1
            while time.monotonic() < give_up and (fewest := min(len(reader.pairs()) for reader in readers)) < 40 * CUTS_MIN / 2:
                if fewest > most:
                    most, patience = fewest, Patience(60)
                elif patience.is_over():
                    break
                time.sleep(0.5)
            stop.set()
            for writer in writers:
                writer.join()
            server.append("load/end", "0", Event_Type="end")
            seen = {reader.client: reader.wait(90) for reader in readers}
        finally:
            for reader in readers:
                reader.stop()

        acknowledged = {offset: data for writer in writers for data, offset in writer.acknowledged.items()}
        attempts = {data: count for writer in writers for data, count in writer.attempts.items()}
        assert len(acknowledged) > 20 * CRASHES
        first = seen[CLIENTS[0]]
        for client, pairs in seen.items():
            offsets = [offset for offset, _ in pairs]
            assert offsets == sorted(set(offsets)), f"{client}: repeated or out of order (seed {SEED})"
            got = dict(pairs)
            for offset, data in acknowledged.items():
                assert got.get(offset) == data, f"{client}: lost offset {offset} (seed {SEED})"
            counts: dict[str, int] = {}
            for data in got.values():
                counts[data] = counts.get(data, 0) + 1
            for data, count in counts.items():
                assert data == "0" or count <= attempts[data], f"{client}: {data} {count} times (seed {SEED})"
            assert pairs == first, f"{client} and {CLIENTS[0]} disagree (seed {SEED})"
        cuts = sum(reader.cuts() for reader in readers) + CRASHES * len(readers)
        print(f"{cuts} cuts ({CRASHES} kills), {len(acknowledged)} acknowledged events, {len(first)} read")
        if CRASHES >= 20:
            assert cuts >= CUTS_MIN
