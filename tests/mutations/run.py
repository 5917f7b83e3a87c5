#!/usr/bin/env python3
"""Plants each bug of `storage/src/mutation.rs` and shows that the tests find it: `tests/mutations/run.py [--all] [name ...]`.

One build serves all: the bugs are compiled in, and an environment variable names the one to be had. A bug is found when
a program fails, and the first of its tests that failed (of random lives, the one that it tells) passes where nothing is
planted; one that still runs after `TIMEOUT_S` has found nothing. The programs are asked until one has found it, or, with
`--all`, each.
"""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT_S = 90
VARIABLE = "STRANDLINE_MUTATION"

STORAGE = ["log_model", "crash", "strandline_storage"]
"""The test programs in the order in which they are asked: lives of a log, named crashes, units."""
SERVER = ["server"]
FIRST = {
    "no_hole_check": ("crash", "rows::a_hole_in_a_write_that_a_later_one_says_was_synced_is_not_cut"),
    "stale_frame_taken": ("crash", "a_frame_of_an_older_incarnation_is_never_taken"),
    "state_from_live_memory": ("crash", "a_deletion_removes_nothing_before_it_is_synced"),
    "old_index_believed": ("strandline_storage", "verify::tests::swapped_and_foreign_files_are_found"),
    "visible_to_one_shard": ("server", "an_acknowledged_event_is_found_on_every_shard"),
}
"""Which program's test to ask first, where one alone is known to find it: saves time, and nothing else."""


def build() -> dict[str, str]:
    """Test programs by name: of the whole workspace, as `tests/run unit` has them. For one package alone its dependencies
    have other features, and all of it would be compiled again."""
    environment = dict(os.environ, RUSTC_WORKSPACE_WRAPPER=str(ROOT / "tests/mutations/rustc"))
    command = ["cargo", "test", "--quiet", "--locked", "--no-run", "--message-format=json", "--workspace", "--lib"]
    command += [argument for name in (*STORAGE[:2], *SERVER) for argument in ("--test", name)]
    built = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    return {message["target"]["name"]: message["executable"] for message in messages
            if message.get("reason") == "compiler-artifact" and message.get("executable")}


def run(program: str, mutation: str, *arguments: str, seed: str | None = None) -> tuple[str, str]:
    """What became of a test program ("passes", "fails", "hangs"), and what it printed."""
    environment = dict(os.environ, RUST_BACKTRACE="0", **{VARIABLE: mutation})
    if seed:
        environment["STRANDLINE_SEED"] = seed
    try:
        done = subprocess.run([program, "--quiet", *arguments], cwd=ROOT, env=environment, timeout=TIMEOUT_S,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except subprocess.TimeoutExpired as expired:
        return "hangs", str(expired.stdout or "")
    return ("passes" if done.returncode == 0 else "fails"), done.stdout


@functools.cache
def fails_by_itself(program: str, test: str | None, seed: str | None) -> str:
    """What a test (or, without a name, all of them) printed that does not pass though nothing is planted; else ""."""
    outcome, output = run(program, "", *(["--exact", test] if test else []), seed=seed)
    ran = re.search(r"^test result: ok\. [1-9]", output, re.MULTILINE)
    return "" if outcome == "passes" and ran else f"{output}\n{test or program} {outcome} though nothing is planted"


def failed_tests(output: str) -> list[str]:
    """The names of the tests that failed."""
    return sorted(set(re.findall(r"^---- (\S+) stdout ----$", output, re.MULTILINE)))


def mutations() -> list[str]:
    """The names of all that can be planted."""
    text = (ROOT / "storage/src/mutation.rs").read_text()
    return re.findall(r'^ +\w+ = "(\w+)",$', text, re.MULTILINE)


def main() -> int:
    known = mutations()
    wanted = [name for name in sys.argv[1:] if name != "--all"] or known
    asks_all = "--all" in sys.argv
    unknown = set(wanted) - set(known)
    assert known and not unknown, f"no mutation {unknown}: {known}"
    programs = build()
    missed = []
    for mutation in wanted:
        began, finds = time.monotonic(), []
        names = SERVER if mutation == "visible_to_one_shard" else STORAGE
        asked = [(name, []) for name in names]
        if mutation in FIRST and not asks_all:
            program, test = FIRST[mutation]
            asked.insert(0, (program, ["--exact", test]))
        for name, arguments in asked:
            if finds and not asks_all:
                break
            outcome, output = run(programs[name], mutation, *arguments)
            if outcome == "fails":
                tests = failed_tests(output)
                seed = re.search(r"repeat it with STRANDLINE_SEED=(\d+)", output)
                if told := fails_by_itself(programs[name], tests[0] if tests else None, seed and seed[1]):
                    print(told, file=sys.stderr)
                    return 1
                first = tests[0] if tests else "it ended"
                finds.append(f"{name}: {first}" + (f" and {len(tests) - 1} more" if len(tests) > 1 else ""))
        if not finds:
            missed.append(mutation)
        print(f"{mutation}: {'; '.join(finds) or 'NOT FOUND'} ({time.monotonic() - began:.0f} s)", flush=True)
    if missed:
        print(f"not found by any test: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
