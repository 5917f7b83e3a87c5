"""NDJSON streams at full speed, and what the disk itself can do beside them.

Frames go into blocks that were zeroed, so that every byte goes to the disk twice, or, where commits are long and that is
faster, into blocks that were only allocated; synced as they are written (O_DIRECT | O_DSYNC). `fio` does either.
"""

import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import threading
import time

import install
import servers

LINE_BYTES = 256
# One piece that is sent again and again: its making costs the load's core nothing while it runs.
PIECE_LINES = 4096
WRITES_IN_FLIGHT = 4
# The longest write of several frames (storage: write_bytes_max).
WRITE_BYTES = 1 << 20
# The server zeroes ahead in pieces of so many bytes (storage: PREALLOCATE in pieces of 256 KiB).
ZEROES_BYTES = 256 << 10
FIO_FILE_BYTES = 512 << 20
FIO_SECONDS_MAX = 20


def bulk(server: servers.Server, streams: int, seconds: float) -> dict:
    """Sends NDJSON over `streams` connections for so long; counts what was acknowledged at their ends."""
    piece = (b'"' + b"x" * (LINE_BYTES - 2) + b'"\n') * PIECE_LINES
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    outcomes, failures = [], []

    def stream() -> None:
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
                connection.sendall(b"POST /api/v1/topics/bench/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
                sent, until = 0, time.monotonic() + seconds
                while time.monotonic() < until:
                    connection.sendall(chunk)
                    sent += PIECE_LINES
                connection.sendall(b"0\r\n\r\n")
                answer = b""
                while b"\r\n\r\n" not in answer or b"}" not in answer:
                    more = connection.recv(65536)
                    if not more:
                        break
                    answer += more
                if b" 201 " not in answer.split(b"\r\n", 1)[0]:
                    raise RuntimeError(f"refused: {answer.decode(errors='replace')}")
                outcomes.append((sent, json.loads(answer.split(b"\r\n\r\n", 1)[1])["count"]))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            failures.append(error)

    cpu_s, begin = server.cpu_s(), time.monotonic()
    threads = [threading.Thread(target=stream) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s, cpu_s = time.monotonic() - begin, server.cpu_s() - cpu_s
    if failures:
        raise failures[0]
    events = sum(count for _, count in outcomes)
    if events != sum(sent for sent, _ in outcomes):
        raise RuntimeError(f"{outcomes}: not everything was acknowledged")
    frames, frame_bytes = frames_of(server.data)
    return {"events_per_s": events / elapsed_s, "cpu_us_each": cpu_s * 1e6 / events, "frame_bytes": frame_bytes // max(frames, 1),
            "disk_bytes_per_s": frame_bytes / elapsed_s, "resident_mib": server.resident_bytes_highest / 2**20}


def frames_of(data: pathlib.Path) -> tuple[int, int]:
    """(frames with events, their bytes with padding), read from the segments: see docs/ON_DISK_FORMAT.md."""
    count = total = 0
    for path in data.glob("**/*.log"):
        with open(path, "rb") as segment:
            position = 4096
            while True:
                segment.seek(position)
                head = segment.read(64)
                if len(head) < 64 or head[:4] != b"SLFR":
                    break
                body_bytes = struct.unpack_from("<I", head, 44)[0]
                frame_bytes = (64 + body_bytes + 4095) // 4096 * 4096
                if body_bytes:
                    count += 1
                    total += frame_bytes
                position += frame_bytes
    return count, total


def fio(name: str, file: pathlib.Path, *arguments) -> float:
    """One job on the server's core; returns bytes a second."""
    command = ["fio", f"--name={name}", f"--filename={file}", "--direct=1", "--fallocate=none", "--ioengine=io_uring", f"--cpus_allowed={servers.SERVER_CORE}",
               "--output-format=json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"fio failed: {done.stdout}{done.stderr}")
    # Notes may stand before the report.
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["write"]
    return job["io_bytes"] / (job["runtime"] / 1e3)


def disk(seconds: float) -> dict:
    """Bytes a second of synced writes of `WRITE_BYTES`, one behind the other."""
    directory = servers.scratch()
    file = directory / "frames"
    synced = (f"--bs={WRITE_BYTES}", "--rw=write", "--sync=dsync")
    limits = (f"--size={FIO_FILE_BYTES}", f"--runtime={FIO_SECONDS_MAX}")
    try:
        # Over blocks that were written before: what a commit meets.
        zeroed = fio("zero", file, f"--bs={ZEROES_BYTES}", "--rw=write", "--end_fsync=1", "--zero_buffers", *limits)
        over = fio("over", file, *synced, f"--iodepth={WRITES_IN_FLIGHT}", f"--size={FIO_FILE_BYTES}", f"--runtime={seconds}", "--time_based")
        over_one = fio("over-one", file, *synced, "--iodepth=1", f"--size={FIO_FILE_BYTES}", f"--runtime={seconds}", "--time_based")
        file.unlink()
        # Into blocks that are the file's and were never written: each write makes the file system record that they are.
        with open(file, "wb") as new:
            os.posix_fallocate(new.fileno(), 0, FIO_FILE_BYTES)
            os.fsync(new.fileno())
        blocks = fio("blocks", file, *synced, f"--iodepth={WRITES_IN_FLIGHT}", f"--size={FIO_FILE_BYTES}", f"--runtime={seconds}")
        file.unlink()
        # Into a new file, whose length and blocks are the file system's to record at every write.
        fresh = fio("fresh", file, *synced, f"--iodepth={WRITES_IN_FLIGHT}", f"--size={FIO_FILE_BYTES}", f"--runtime={seconds}")
        # One byte of zeroes, then one of frames.
        both = 1 / (1 / zeroed + 1 / over)
        return {"zeroes": zeroed, "over": over, "over_one": over_one, "blocks": blocks, "fresh": fresh, "zeroes_and_over": both}
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(rounds: int, seconds: float, progress) -> dict:
    """NDJSON over one and four streams, and fio, in turn; the medians come later."""
    results = {"bulk-1": [], "bulk-4": [], "fio": []}
    for at in range(rounds):
        for streams in (1, 4):
            with servers.strandline() as server:
                row = bulk(server, streams, seconds)
            progress(f"bulk, {streams} streams, round {at + 1}: {row['events_per_s']:,.0f} events/s, frames of {row['frame_bytes'] >> 10} KiB")
            results[f"bulk-{streams}"].append(row)
        row = disk(min(seconds, 3))
        progress(f"fio, {WRITE_BYTES >> 10} KiB, round {at + 1}: " + ", ".join(f"{name} {value / 1e6:.0f} MB/s" for name, value in row.items()))
        results["fio"].append(row)
    return results


if __name__ == "__main__":
    install.install()
    measure(1, 3, print)
