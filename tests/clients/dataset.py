#!/usr/bin/env python3
"""The machine's own Debian package index as NDJSON of event objects: a data set that no one here made.

    apt-cache dumpavail | tests/clients/dataset.py > packages.ndjson

Each record becomes `{"topic":"packages/<section>/<name>","data":{...}}`, one a line, in the order of the
index. Members of `data` are strings and the text is compact UTF-8, so that `JSON.stringify(JSON.parse(x))`
and Python's `dumps(loads(x))` give its bytes back: readers that only see parsed data can still compare them.
"""

import json
import subprocess
import sys


def compact(value) -> str:
    """JSON as the other languages' serialisers write it: no spaces, UTF-8 as it stands."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def records(lines):
    """Yields each record of a Debian control file as an ordered dict of strings."""
    record, field = {}, None
    for line in lines:
        line = line.rstrip("\n")
        if not line:
            if record:
                yield record
            record, field = {}, None
        elif line[0] in " \t":
            if field is not None:
                record[field] += "\n" + line
        else:
            field, _, value = line.partition(":")
            record[field] = value.strip()
    if record:
        yield record


def events(lines):
    """Yields (topic, data text) for each record that has a name."""
    for record in records(lines):
        name = record.get("Package")
        if name:
            yield f"packages/{record.get('Section') or 'unknown'}/{name}", compact(record)


def load(limit: int | None = None):
    """The index of this machine as a list of (topic, data text)."""
    dump = subprocess.run(["apt-cache", "dumpavail"], check=True, capture_output=True)
    found = list(events(dump.stdout.decode("utf-8", "replace").splitlines(keepends=True)))
    if not found:
        raise SystemExit("apt-cache knows no packages: run `apt-get update` first")
    return found[:limit] if limit else found


if __name__ == "__main__":
    for topic, data in events(sys.stdin):
        sys.stdout.write(f'{{"topic":{compact(topic)},"data":{data}}}\n')
