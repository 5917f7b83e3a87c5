"""The day when something went wrong: verify, backup, restore against real servers."""

import fcntl
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import threading
import time

from commands import fill, fine, run
from harness import Server, binary, wait_for


def test_verify_as_json(fresh):
    """a machine-readable report"""
    fill(fresh)
    fresh.terminate()
    report = json.loads(fine("verify", "--json", fresh.data).stdout)
    log, = report["logs"]
    assert report["sound"] and log["sound"] and log["events"] == log["end"] == 6 and log["findings"] == []
    segments = sorted(name for name in os.listdir(log["dir"]) if name.endswith(".log"))
    with open(os.path.join(log["dir"], segments[0]), "r+b") as file:
        file.seek(4096 + 80)
        byte = file.read(1)
        file.seek(4096 + 80)
        file.write(bytes([byte[0] ^ 1]))
    done = run("verify", "--json", "--threads", 1, fresh.data)
    report = json.loads(done.stdout)
    assert done.returncode == 1 and not report["sound"]
    finding = report["logs"][0]["findings"][0]
    assert finding["file"].endswith(segments[0]) and finding["position"] == 4096 and finding["what"]


def test_backups_beside_a_busy_server(tmp_path):
    """a running server is backed up while it is written to: each backup holds all that had been acknowledged when it
    was begun, opens, and is incremental"""
    backup = tmp_path / "backup"
    with Server("--shards", "1", "--segment-bytes", str(1 << 20), data=str(tmp_path / "data")) as server:
        acknowledged, stop, last = [0], threading.Event(), 0

        def write():
            while not stop.is_set():
                # A backup that makes way for all others takes as long as they like, and its log does not grow with that.
                if acknowledged[0] - last > 20_000:
                    stop.wait(0.05)
                    continue
                lines = "".join(json.dumps({"topic": "t", "data": [acknowledged[0] + at, "x" * 500]}) + "\n" for at in range(200))
                status, answer = server.json("POST", "/api/v1/events", lines, {"Content-Type": "application/x-ndjson"})
                assert status == 201, answer
                acknowledged[0] = answer["last"] + 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for options in ([], ["--fast"], [], ["--fast"], []):
                time.sleep(0.4)
                wait_for(lambda: acknowledged[0] > last or not writer.is_alive(), 60)  # A busy disk may take a while.
                before = acknowledged[0]
                done = fine("backup", *options, "--data", server.data, "--url", server.base, backup)
                report = json.loads(fine("verify", "--json", backup).stdout)["logs"][0]
                assert report["sound"] and report["end"] >= before > last, (done, report)
                last = report["end"]
                exported = fine("export", "--data", backup).stdout.splitlines()
                assert [json.loads(line)["data"][0] for line in exported] == list(range(len(exported)))
                assert len(exported) == report["end"]
        finally:
            stop.set()
            writer.join()
        assert sorted(os.listdir(tmp_path)) == ["backup", "data"]
        # The files are those of the server, but for the tail, once what is full has its index: on a busy machine that takes a while.
        log = pathlib.Path(server.data, "default", "main")
        wait_for(lambda: len(list(log.glob("*.idx"))) + 1 >= len(list(log.glob("*.log"))), 60)
        done = fine("backup", "--data", server.data, "--url", server.base, backup)
        assert re.search(r" linked, [01] copied", done.stderr), done
        last = json.loads(fine("verify", "--json", backup).stdout)["logs"][0]["end"]
        tag = server.json("GET", "/api/v1/events/history?limit=1")[1]["tag"]
        with Server("--shards", "1") as other:
            done = run("backup", "--data", server.data, "--url", other.base, backup)
            assert done.returncode == 1 and "another log" in done.stderr, done
        middle = last // 2 + 3
        when = json.loads(fine("export", "--data", backup, "--from", middle, "--until", middle + 1).stdout)["time"]
        for until, end in (([], last), (["--until", middle], middle), (["--until", when], None)):
            target = tmp_path / "restored"
            done = fine("restore", backup, "--data", target, *until)
            assert run("restore", backup, "--data", target).returncode == 1, "it is not empty"
            with Server("--shards", "1", data=str(target)) as restored:
                status, page = restored.json("GET", "/api/v1/events/history?limit=1&order=desc")
                assert status == 200 and page["tag"] != tag and page["tag"] in done.stderr
                if end is None:
                    assert page["events"][0]["time"] < when
                else:
                    assert page["durable"] == end and page["events"][0]["data"][0] == end - 1
                assert restored.append("t", "goes on") == page["durable"]
            shutil.rmtree(target)
    # Of a stopped one, on to another file system if there is one.
    shm = f"/dev/shm/strandline-backup-test-{os.getpid()}"
    for target in [tmp_path / "stopped"] + ([shm] if os.path.isdir("/dev/shm") else []):
        target = pathlib.Path(target)
        for number in range(2):
            done = fine("backup", "--data", server.data, target)
            # Of what has not changed nothing is copied again, on another file system neither.
            assert number == 0 or re.search(r"[1-9]\d* files? linked, [012] copied", done.stderr), done
        for name in os.listdir(target / "default" / "main"):
            if name.endswith(".idx") and os.stat(target).st_dev != os.stat(tmp_path).st_dev:
                with open(target / "default" / "main" / name, "r+b") as file:
                    file.seek(-1, os.SEEK_END)
                    last = file.read(1)[0]
                    file.seek(-1, os.SEEK_END)
                    file.write(bytes([last ^ 1]))  # Another index of the same name and length.
                assert run("verify", target).returncode == 1
                fine("backup", "--data", server.data, target)
                break
        assert json.loads(fine("verify", "--json", target).stdout)["logs"][0]["end"] == acknowledged[0]
    shutil.rmtree(shm, ignore_errors=True)


def test_a_restored_log_has_its_rules_and_knows_whom_it_heard(tmp_path):
    """settings are part of every backup, and what was deleted stays so; ids, producers and conditions survive it"""
    backup, target = tmp_path / "backup", tmp_path / "restored"
    by_id, producer = {"Event-Id": "one"}, {"Producer-Id": "p", "Producer-Epoch": "2", "Producer-Seq": "0"}
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        for name in ("kept", "kept", "gone", "trimmed", "trimmed"):
            server.append(name, "1")
        first = server.json("POST", "/api/v1/topics/kept/events", b"by id", by_id)[1]
        assert server.json("POST", "/api/v1/topics/kept/events", b"by p", producer)[0] == 201
        rules = {"retain": {"count": 3}, "expire": {"idle_s": 900}}
        assert server.json("PUT", "/api/v1/topics/rooms/**", rules)[0] == 200
        assert server.json("PUT", "/api/v1/logs/main", {"retain": {"count": 1000}})[0] == 200
        assert server.request("DELETE", "/api/v1/topics/gone")[0] == 204
        assert server.json("POST", "/api/v1/topics/trimmed/trim?before=4")[0] == 200
        fine("backup", "--data", server.data, "--url", server.base, backup)
    fine("restore", backup, "--data", target)
    with Server("--shards", "1", data=str(target)) as server:
        page = server.json("GET", "/api/v1/events/history?limit=100")[1]
        assert [event["topic"] for event in page["events"]] == ["kept", "kept", "trimmed", "kept", "kept"]
        assert server.request("GET", "/api/v1/topics/gone")[0] == 404
        assert server.json("GET", "/api/v1/topics/rooms/**")[1]["settings"] == rules
        assert server.json("GET", "/api/v1/logs/main")[1]["retain"] == {"count": 1000}
        status, again = server.json("POST", "/api/v1/topics/kept/events", b"by id", by_id)
        assert (status, again["offset"], again["duplicate"]) == (201, first["offset"], True)
        assert server.request("POST", "/api/v1/topics/kept/events", b"another", by_id)[0] == 422
        assert server.request("POST", "/api/v1/topics/kept/events", b"by p", producer)[0] == 204, "a duplicate"
        assert server.request("POST", "/api/v1/topics/kept/events", b"by p", {**producer, "Producer-Epoch": "1"})[0] == 403
        assert server.request("POST", "/api/v1/topics/kept/events", b"2", {"Expected-Offset": "1"})[0] == 412
        server.append("rooms/a", "1")
        assert server.json("GET", "/api/v1/topics/rooms/a")[1]["settings"] == rules


def test_what_a_backup_replaces_is_nobody_elses_meanwhile(tmp_path):
    """the old one gets the name of one that is being made, and the next backup began in it while it was removed"""
    backup = tmp_path / "backup"
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        server.append("t", "1")
        server.terminate()
    fine("backup", "--data", server.data, backup)
    before = tree(backup)
    held = os.open(backup, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    done = run("backup", "--data", server.data, backup)
    assert done.returncode == 1 and "in use" in done.stderr, done
    assert tree(backup) == before
    os.close(held)
    fine("backup", "--data", server.data, backup)


def rotten_behind_a_backup(tmp_path):
    """The data directory of five events, of which the fourth has rotted since the backup beside it was made; and which file it is in."""
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        for at in range(5):
            server.append("t", f"{at}" * 300)
        server.terminate()
        server.start()  # seals it
        server.terminate()
    fine("backup", "--data", server.data, tmp_path / "backup")
    path = sorted((tmp_path / "data" / "default" / "main").glob("*.log"))[0]
    content = bytearray(path.read_bytes())
    content[content.index(b"3" * 300)] ^= 1
    path.unlink()  # else it would be damaged in the backup too: it is the same file
    path.write_bytes(content)
    return server.data, str(path)


def test_a_damaged_log_replaces_no_backup(tmp_path):
    """a backup is verified, and one with findings is kept only when told"""
    data, path = rotten_behind_a_backup(tmp_path)
    backup = tmp_path / "backup"
    done = run("backup", "--data", data, backup)
    assert done.returncode == 1 and "--keep-damaged" in done.stderr and path in done.stderr, done
    assert f"{backup}/default" not in done.stderr, "that one is not kept"
    assert "copy" not in done.stderr, "a link is the very file"
    assert json.loads(fine("verify", "--json", backup).stdout)["sound"]
    before = tree(backup)
    done = run("backup", "--keep-damaged", "--data", data, backup)
    assert done.returncode == 1 and "from offset 3 to 4" in done.stderr and "--replace" in done.stderr, done
    assert tree(backup) == before, "it is the last that can read it"
    done = run("backup", "--keep-damaged", "--replace", "--data", data, backup)
    assert done.returncode == 1 and "kept with 1 finding," in done.stderr and "verified, in" not in done.stderr, done
    assert f"{backup}/default/main/" in done.stderr and ".unfinished" not in done.stderr, "a finding has the name of a file that is there"
    assert path not in done.stderr, done
    assert run("verify", backup).returncode == 1
    assert run("restore", backup, "--data", tmp_path / "restored").returncode == 1
    fine("repair", "--yes", backup)
    fine("restore", backup, "--data", tmp_path / "restored")
    assert sorted(os.listdir(tmp_path)) == ["backup", "data", "restored"]


def test_a_backup_stays_that_has_what_a_repair_has_lost(tmp_path):
    """it was exchanged for one with a gap, and removed: nobody had those events any more"""
    data, _ = rotten_behind_a_backup(tmp_path)
    backup = tmp_path / "backup"
    fine("repair", "--yes", data)
    before = tree(backup)
    done = run("backup", "--data", data, backup)
    assert done.returncode == 1 and "from offset 3 to 4" in done.stderr and "--replace" in done.stderr, done
    assert tree(backup) == before
    fine("backup", "--replace", "--data", data, backup)
    fine("backup", "--data", data, backup)

    # What is lost is missed by an export of it alone.
    time.sleep(0.01)
    with Server("--shards", "1", data=data) as server:
        server.append("t", "5")
        server.append("u", "6")
        server.terminate()
    exported = run("export", "--data", data)
    assert exported.returncode == 1 and "from 3 to 4" in exported.stderr, exported
    first, *_, last, _ = map(json.loads, exported.stdout.splitlines())
    after = fine("export", "--data", data, "--from", last["time"])
    assert [json.loads(line)["data"] for line in after.stdout.splitlines()][-2:] == [5, 6]
    # By events of other topics as well.
    assert len(fine("export", "--data", data, "--from", last["time"], "--topic", "u").stdout.splitlines()) == 1
    assert fine("export", "--data", data, "--until", first["time"], "--topic", "u").stdout == ""
    assert run("export", "--data", data, "--topic", "u").returncode == 1


def test_a_backup_takes_nothing_rotten_from_the_one_before(tmp_path):
    """on another file system sealed segments come from the backup before: what rotted there is copied from the log, and told"""
    backup = pathlib.Path(f"/dev/shm/strandline-rotten-backup-test-{os.getpid()}")
    if not backup.parent.is_dir():
        return
    try:
        with Server("--shards", "1", data=str(tmp_path / "data")) as server:
            for at in range(5):
                server.append("t", f"{at}" * 300)
            server.terminate()
            server.start()  # seals it
            server.terminate()
        fine("backup", "--data", server.data, backup)
        dirs = [os.path.join(data, "default", "main") for data in (backup, server.data)]
        first = sorted(name for name in os.listdir(dirs[0]) if name.endswith(".log"))[0]

        def rot(dir):
            with open(os.path.join(dir, first), "r+b") as file:
                file.seek(file.read().index(b"3" * 300))
                file.write(b"4")

        rot(dirs[0])
        done = fine("backup", "--data", server.data, backup)
        assert f"{first} of the backup before is damaged; that of the log is sound" in done.stderr, done
        assert json.loads(fine("verify", "--json", backup).stdout)["sound"]
        for dir in dirs:
            rot(dir)
        done = run("backup", "--data", server.data, backup)
        assert done.returncode == 1 and "1 finding" in done.stderr and "repair the log" in done.stderr, done
        assert f"{first} of the backup before is damaged; that of the log is damaged as well" in done.stderr, done
        assert f"{dirs[1]}/{first}" in done.stderr, "the other is not kept"
        assert "(read in a copy of this file, which is not kept)" in done.stderr, done
    finally:
        shutil.rmtree(backup, ignore_errors=True)


def tree(dir):
    """All names below a directory, and what each leads to."""
    return sorted((os.path.join(at, name), os.stat(os.path.join(at, name)).st_ino) for at, dirs, files in os.walk(dir) for name in dirs + files)


def refused(what, *arguments):
    """Runs a command that must fail, and say so."""
    done = run(*arguments)
    assert done.returncode == 1 and what in done.stderr, (what, done)


def test_a_backup_replaces_nothing_but_an_older_one(tmp_path):
    """a data directory, of a server that runs or is stopped, the source itself under any name, and the backup of another log
    stay as they are; nothing is left beside them"""
    live, stopped, backup, link = tmp_path / "live", tmp_path / "stopped", tmp_path / "backup", tmp_path / "link"
    with Server("--shards", "1", data=str(stopped)) as other:
        other.append("t", "another log")
        other.terminate()
    with Server("--shards", "1", data=str(live)) as server:
        source = ["--data", live, "--url", server.base]
        server.append("t", "one")
        link.symlink_to(live)
        wait_for(lambda: list(live.glob("default/main/reserve.tmp")))  # the server makes it when it finds the time
        before = tree(live), tree(stopped)
        refused("itself", "backup", *source, live)
        refused("itself", "backup", *source, link)
        refused("itself", "backup", "--replace", *source, live / "default" / "..")
        refused("lies in the data directory", "backup", *source, live / "inside")
        refused("lies in the data directory", "backup", *source, link / "default" / "main" / "deep" / "inside")
        refused("lies in it", "backup", *source, tmp_path)
        refused("of another log", "backup", *source, stopped)
        refused("in use", "backup", "--data", stopped, live)
        refused("in use", "backup", "--replace", "--data", stopped, live)
        (tmp_path / "file").write_text("x")
        refused("not a directory", "backup", *source, tmp_path / "file")
        (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
        refused("leads nowhere", "backup", *source, tmp_path / "nowhere")
        assert before == (tree(live), tree(stopped))
        # A symlink to an empty directory is one to where the backup goes.
        (tmp_path / "real").mkdir()
        (tmp_path / "to-real").symlink_to(tmp_path / "real")
        for _ in range(2):
            fine("backup", *source, tmp_path / "to-real")
        assert (tmp_path / "to-real").is_symlink() and run("verify", tmp_path / "real").returncode == 0
        fine("backup", *source, backup)
        assert server.append("t", "two") == 1
    refused("lies in the data directory", "restore", backup, "--data", backup / "inside")
    refused("lies in the data directory", "restore", backup, "--data", live / "inside")
    # The two arguments in the wrong order: the log has more than its backup.
    refused("ends before, at offset 1", "backup", "--data", backup, live)
    assert len(fine("export", "--data", live).stdout.splitlines()) == 2
    fine("backup", "--data", live, backup)
    # A log that got a new tag says what it would replace.
    done = fine("restore", backup, "--data", tmp_path / "again")
    refused("gave it a new tag", "backup", "--data", tmp_path / "again", backup)
    fine("backup", "--replace", "--data", tmp_path / "again", backup)
    assert sorted(os.listdir(tmp_path)) == ["again", "backup", "file", "link", "live", "nowhere", "real", "stopped", "to-real"]


def test_a_backup_is_not_replaced_by_a_log_that_went_another_way(tmp_path):
    """a copy of the directory that went its own way, and a log that lost its end and grew again, have the same tag and more events"""
    backup, copy = tmp_path / "backup", tmp_path / "copy"
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        for at in range(5):
            server.append("t", f"old{at}")
        server.terminate()
        shutil.copytree(server.data, copy)
        server.start()
        for at in range(5):
            server.append("t", f"lost{at}")
        fine("backup", "--data", server.data, "--url", server.base, backup)
        for at in range(3):
            server.append("t", f"more{at}")
        fine("backup", "--data", server.data, "--url", server.base, backup)
    with Server("--shards", "1", data=str(copy)) as other:
        for at in range(20):
            other.append("t", f"other{at}")
        source = ["--data", copy, "--url", other.base]
        refused("up to offset 13, and the log in --data, up to offset 25, does not go on from there", "backup", *source, backup)
        other.terminate()
        refused("--replace", "backup", "--data", copy, backup)
        assert "lost0" in fine("dump", backup).stdout
        fine("backup", "--replace", "--data", copy, backup)
        assert "lost0" not in fine("dump", backup).stdout
        other.start()
        other.append("t", "and on")
        fine("backup", *source, backup)


def test_a_backup_is_not_made_with_the_word_of_a_server_of_a_copy(tmp_path):
    """a copy of the directory has the same tag: what its server says of how far it goes is nothing for this one, be it less or more"""
    backup, copy = tmp_path / "backup", tmp_path / "copy"
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        for at in range(5):
            server.append("t", f"old{at}")
        server.terminate()
        shutil.copytree(server.data, copy)
        server.start()
        said = server.json("GET", "/api/v1/logs/main")[1]["segment"]
        assert re.fullmatch(r"5\.\d{13}", said)
        for at in range(3):
            server.append("t", f"new{at}")
        with Server("--shards", "1", data=str(copy)) as other:
            assert other.json("GET", "/api/v1/logs/main")[1]["segment"] != said
            for _ in range(2):
                refused(f"the server at {other.base} has another log than {server.data}", "backup", "--data", server.data, "--url", other.base, backup)
                assert not backup.exists()
                for at in range(5):
                    other.append("t", f"other{at}")
            fine("backup", "--data", copy, "--url", other.base, tmp_path / "backup of the copy")
        # What a server says stays as it is with the file, and a change of settings is answered with it too.
        status, told = server.json("PUT", "/api/v1/logs/main", {})
        assert (status, told["segment"]) == (200, said)
        assert server.json("GET", "/api/v1/logs")[1]["logs"][0]["segment"] == said
        fine("backup", "--data", server.data, "--url", server.base, backup)
    assert len(fine("export", "--data", backup).stdout.splitlines()) == 8


def test_a_backup_is_made_while_files_end_and_begin(tmp_path):
    """the file that takes appends is another one every few moments"""
    with Server("--shards", "1", "--segment-bytes", str(1 << 20), data=str(tmp_path / "data")) as server:
        stopped, left = threading.Event(), [0]

        def append():
            while not stopped.is_set():
                # Forty files or so for each backup: the log does not grow with the time that a busy machine takes.
                if left[0] > 0:
                    server.append("t", os.urandom(300_000))
                    left[0] -= 1
                # A backup has what a busy machine leaves.
                stopped.wait(0.05)

        appending = threading.Thread(target=append)
        appending.start()
        try:
            for _ in range(4):
                left[0] = 120
                fine("backup", "--data", server.data, "--url", server.base, tmp_path / "backup")
        finally:
            stopped.set()
            appending.join()


def test_a_restore_says_where_it_cannot_be_cut(tmp_path):
    """below what the log keeps it is refused, and one without events is named"""
    backup = tmp_path / "backup"
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        for at in range(3):
            server.append("t", str(at))
        fine("backup", "--data", server.data, "--url", server.base, backup)
        done = fine("restore", backup, "--data", tmp_path / "none", "--until", "2001-01-01T00:00:00Z")
        assert "note:" in done.stderr and "is empty" in done.stderr and "2001-01-01" in done.stderr, done
        assert "note:" not in fine("restore", backup, "--data", tmp_path / "two", "--until", 2).stderr
        # What a start has sealed goes with its last event that is kept.
        server.terminate()
        server.start()
        server.request("PUT", "/api/v1/logs/main", b'{"retain":{"count":1}}', {"Content-Type": "application/json"})
        first = tmp_path / "data" / "default" / "main" / f"{0:020}.1.log"
        wait_for(lambda: server.append("t", "more") and not first.exists(), 20, every_s=0.2)
        server.terminate()
    fine("backup", "--data", server.data, backup)
    # Wherever it is asked for in what is gone, and at its end: the first cut that leaves an event.
    for cut in (0, 1, 3):
        refused(f"--until {cut} would leave no event: what was before offset 3 is not kept", "restore", backup, "--data", tmp_path / "one", "--until", cut)
        refused("; cut at 4 or later", "restore", backup, "--data", tmp_path / "one", "--until", cut)
    assert not (tmp_path / "one").exists()
    fine("restore", backup, "--data", tmp_path / "one", "--until", 4)
    end = json.loads(fine("verify", "--json", backup).stdout)["logs"][0]["end"]
    assert "beyond" not in fine("restore", backup, "--data", tmp_path / "all", "--until", end).stderr
    done = fine("restore", backup, "--data", tmp_path / "more", "--until", end + 1)
    assert f"note: --until {end + 1} lies beyond the backup, which ends at offset {end}" in done.stderr, done


def test_nothing_unfinished_is_left_where_nothing_can_be_written(tmp_path):
    """1 failure (nothing is left in DIR): nor beside it, also where the disk has no byte free from the beginning"""
    backup, place = tmp_path / "backup", tmp_path / "place"
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        server.append("t", "x")
        server.terminate()
    fine("backup", "--data", server.data, backup)
    place.mkdir()

    def no_byte():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    for arguments in (["backup", "--data", server.data, place / "new"], ["restore", backup, "--data", place / "new"]):
        done = run(*arguments, preexec_fn=no_byte, restore_signals=False)
        assert done.returncode == 1 and "File too large" in done.stderr, done
        assert list(place.iterdir()) == [], done


def test_a_backup_has_what_was_acknowledged_or_says_what_it_lacks(tmp_path):
    """"The backup holds every event that was acknowledged when it was begun": also where syncs come later, and never"""
    def held(backup):
        return json.loads(fine("verify", "--json", backup).stdout)["logs"][0]["end"]

    for mode in ("interval:1500", "never"):
        backup = tmp_path / mode
        with Server("--shards", "1", "--sync", mode, data=str(tmp_path / f"data-{mode}")) as server:
            for at in range(7):
                server.append("t", f"{at}")
            done = run("backup", "--data", server.data, "--url", server.base, backup)
            if mode == "never":
                assert done.returncode == 1 and "events from 0 to 7" in done.stderr, done
                assert held(backup) == 0
            else:
                assert done.returncode == 0 and held(backup) == 7, done
            server.terminate()
        fine("backup", "--data", server.data, backup)
        assert held(backup) == 7


def test_a_lost_marker_is_named_and_can_be_written_anew(fresh):
    """OPERATIONS says what the STRANDLINE file holds, and so does the message"""
    fresh.append("t", "one")
    fresh.terminate()
    marker = pathlib.Path(fresh.data) / "STRANDLINE"
    for damaged in (None, "", "strandline data 1"):
        marker.unlink(missing_ok=True)
        if damaged is not None:
            marker.write_text(damaged)
        for arguments in (["serve", "--listen", "127.0.0.1:0", "--data"], ["verify"], ["repair"], ["dump"], ["backup", "x", "--data"]):
            done = run(*arguments, fresh.data)
            assert done.returncode == 1 and f"(`echo 'strandline data 1' > {fresh.data}/STRANDLINE`; docs/OPERATIONS.md)" in done.stderr, done
            assert "another directory" not in done.stderr, "his log is in this one"
    fine("verify", pathlib.Path(fresh.data) / "default" / "main")
    operations = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "OPERATIONS.md").read_text()
    assert "`echo 'strandline data 1' > DIR/STRANDLINE`" in operations
    subprocess.run(["sh", "-c", f"echo 'strandline data 1' > {fresh.data}/STRANDLINE"], check=True)
    fine("verify", fresh.data)
    fresh.start()
    assert fresh.append("t", "two") == 1


def test_what_a_message_proposes_can_be_pasted(tmp_path):
    """a path is one word of a shell, whatever is in it"""
    data = tmp_path / "my data's"
    with Server("--shards", "1", data=str(data)) as server:
        server.append("t", "one")
        server.terminate()
        server.start()  # seals it
        server.terminate()
    (data / "default" / "main" / f"{0:020}.1.idx").write_bytes(b"damaged")
    done = run("repair", data)
    proposed = done.stdout.strip().splitlines()[-1].partition("to do this: strandline ")[2]
    assert done.returncode == 1 and proposed, done
    assert subprocess.run(["sh", "-c", f"{binary()} {proposed}"], capture_output=True).returncode == 0, proposed
    fine("verify", data)
    (data / "STRANDLINE").unlink()
    proposed = re.search("`(echo .*)`;", run("verify", data).stderr).group(1)
    subprocess.run(["sh", "-c", proposed], check=True)
    fine("verify", data)


def test_what_is_wanted_is_said_where_another_directory_was_given(tmp_path):
    """a data directory, and not that of a log or a tenant in it, be there a repaired log; a backup, and not what a server has"""
    new = tmp_path / "new"
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        server.append("t", "one")
        server.terminate()
        server.start()  # seals it
        server.terminate()
    log = tmp_path / "data" / "default" / "main"
    for arguments in (["restore", log, "--data", new], ["backup", "--data", log, new]):
        done = run(*arguments)
        assert done.returncode == 1 and "is the directory of one log: give the data directory" in done.stderr, done
    done = run("restore", tmp_path / "nowhere", "--data", new)
    assert done.returncode == 1 and "give what `strandline backup` has made" in done.stderr, done
    (log / f"{0:020}.1.idx").write_bytes(b"damaged")
    fine("repair", "--yes", tmp_path / "data")
    assert list(log.glob("damaged-*/*.idx")), os.listdir(log)
    (log / f"{0:020}.1.log").rename(next(log.glob("damaged-*")) / f"{0:020}.1.log")
    for arguments in (["restore", log.parent, "--data", new], ["verify", log.parent]):
        done = run(*arguments)
        assert done.returncode == 1 and "echo" not in done.stderr, done
    assert not new.exists()


def test_who_has_a_directory_is_told_in_the_same_words(tmp_path):
    """what to do where a server runs, by each command; with --json the report says so too"""
    hint = "stop the server first, or look at a backup of it (`strandline backup`)"
    with Server("--shards", "1", data=str(tmp_path / "data")) as server:
        server.append("t", "one")
        for arguments in (["verify"], ["verify", "--json"], ["dump"], ["repair"], ["restore", "--data", tmp_path / "new"], ["export", "--data"]):
            done = run(*arguments, server.data)
            assert done.returncode == 1 and "is in use by another process" in done.stderr and hint in done.stderr, done
            if "--json" in arguments:
                report = json.loads(done.stdout)
                assert (report["sound"], report["logs"]) == (False, []) and hint in report["error"], report
    assert "error" not in json.loads(fine("verify", "--json", tmp_path / "data").stdout)
    report = json.loads(run("verify", "--json", tmp_path).stdout)
    assert not report["sound"] and "neither a data directory" in report["error"]


def test_a_backup_empties_nothing_that_is_not_its_own(tmp_path):
    """what stands under the name of an unfinished one is what an interrupted run left, or stays as it is"""
    data, backup, unfinished = tmp_path / "data", tmp_path / "backup", tmp_path / ".backup.unfinished"
    with Server("--shards", "1", data=str(data)) as server:
        server.append("t", "one")
        server.terminate()
    makes = (["backup", "--data", data, backup], ["restore", data, "--data", backup])
    for arguments in makes:
        unfinished.mkdir()
        (unfinished / "letter").write_text("dear")
        refused("is in the way", *arguments)
        assert (unfinished / "letter").read_text() == "dear" and not backup.exists()
        shutil.rmtree(unfinished)
        unfinished.symlink_to(data)
        refused("is in the way", *arguments)
        fine("verify", data)
        unfinished.unlink()
    # What an interrupted run leaves: nothing yet, a marker that has no name yet, and more than that.
    for left in ([], ["STRANDLINE.tmp"], ["STRANDLINE", "STRANDLINE.tmp", "default/main/x.log.tmp"]):
        for arguments in makes:
            unfinished.mkdir()
            for name in left:
                (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                (unfinished / name).write_text("strandline data 1\n")
            fine(*arguments)
            assert not unfinished.exists()
            shutil.rmtree(backup)
    # And while one is made, another says so.
    unfinished.mkdir()
    held = os.open(unfinished, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    for arguments in makes:
        refused("another `backup` or `restore` to the same place runs", *arguments)
    os.close(held)
    # One that is renewed: its logs are locked until it is replaced.
    unfinished.rmdir()
    fine("backup", "--data", data, backup)
    held = os.open(backup / "default" / "main", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    refused("such as a backup", "backup", "--data", data, backup)
    os.close(held)
