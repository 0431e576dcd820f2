"""Guarantee 2 of the design: killed at any moment, a store is sound, nothing is half, and the next import completes.

    at(k, work)         run `work` in a forked child that kills itself with SIGKILL at its k-th write boundary
    check_sound(path)   everything that must hold of a store whatever happened; returns its tags

The parent has everything loaded already, so that a child costs a fork. SIGKILL ends a process, not the machine: what the
kernel has taken is kept. That nothing is renamed before it was synced is shown by the order of the calls instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

import swrbatch.layout
from imagetar import HELLO, Image, Layer, TarBuilder, docker25, docker_legacy, outer, skopeo, to_json
from swrbatch import RunResult, Store, StoreError, faults, import_archives
from swrbatch.digest import Digest
from swrbatch.image import Manifest
from swrbatch.ledger.events import chain_hash, read_events
from swrbatch.ledger.schema import tags
from swrbatch.verify import verify_store

ROOT: Final = Path(__file__).resolve().parent.parent
KILLED: Final = -signal.SIGKILL
PATIENCE: Final = 60.0  # seconds until a child that should have ended is a failure
TEAM: Final = "swr.cn-north-1.example.com/team"
OTHER: Final = (HELLO[0], Layer.of({"srv/new.txt": b"another layer\n" * 100}))

# --- what the other files about stores use, too ------------------------------------------------------------------------


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def files_of(store: Path) -> dict[str, str]:
    """The registry's side, read without swrbatch: `org/repo:tag` -> what `current/link` holds."""
    base = store / "docker/registry/v2/repositories"
    found = {}
    for link in base.glob("*/*/_manifests/tags/*/current/link"):
        tag, repository = link.parents[1].name, link.parents[4].relative_to(base)
        found[f"{repository}:{tag}"] = link.read_text()
    return found


def rows_of(store: Store) -> dict[str, str]:
    """The ledger's side: `org/repo:tag` -> digest."""
    return {f"{row.organization}/{row.repository}:{row.tag}": row.digest for row in store.tag_rows()}


def events_of(store: Store) -> list[dict[str, Any]]:
    """All events, parsed; the chain is checked on the way."""
    before, found = "0" * 64, []
    with store.ledger.read() as connection:
        for number, row in enumerate(read_events(connection), 1):
            assert (row.seq, row.previous_hash, row.hash) == (number, before, chain_hash(before, row.text))
            before = row.hash
            found.append(json.loads(row.text))
    return found


def replayed(events: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The tag table that the events of rating normal tell of (null: skipped, since a tag of somebody else was there)."""
    table = {}
    for event in events:
        if event["trace_rating"] == "normal" and event["trace_name"] == "uploadImagePackage":
            table[event["resource_name"]] = json.loads(event["response"])["digest"]
        elif event["trace_rating"] == "normal" and event["trace_name"] == "deleteImageTag":
            del table[event["resource_name"]]
    return {name: digest for name, digest in table.items() if digest is not None}


def check_links(path: Path, name: str, digest: str) -> None:
    """All the links and blobs that a pull of `org/repo:tag` needs."""
    repository, _, tag = name.rpartition(":")
    base = path / "docker/registry/v2/repositories" / repository
    blobs = path / "docker/registry/v2/blobs/sha256"
    manifest = Manifest.parse((blobs / digest[7:9] / digest[7:] / "data").read_bytes())
    assert str(manifest.digest) == digest
    wanted = {base / f"_manifests/tags/{tag}/index/sha256/{digest[7:]}/link": digest}
    wanted[base / f"_manifests/revisions/sha256/{digest[7:]}/link"] = digest
    for descriptor in (manifest.config, *manifest.layers):
        hexa = descriptor.digest.hex
        wanted[base / f"_layers/sha256/{hexa}/link"] = f"sha256:{hexa}"
        data = (blobs / hexa[:2] / hexa / "data").read_bytes()
        assert Digest.of(data) == descriptor.digest and len(data) == descriptor.size
    assert {link: link.read_text() for link in wanted} == wanted


def check_sound(path: Path) -> dict[str, str]:
    """Nothing is wrong with a store: `verify --deep` has no issue, the links are the rows, the events give the rows."""
    with Store(path) as store:
        assert store.foreign == []
        result = verify_store(store, deep=True)
        assert result.issues == [], [found.message for found in result.issues]
        rows = rows_of(store)
        assert replayed(events_of(store)) == rows
        with store.ledger.read() as connection:
            assert not connection.execute(select(tags.c.id).where(tags.c.link_pending)).all()
    assert files_of(path) == rows
    for name, digest in rows.items():
        check_links(path, name, digest)
    stray = [file for file in (path / "docker").rglob("*") if file.is_file() and file.name not in ("data", "link")]
    assert stray == []
    return rows


def temporaries(store: Path) -> list[str]:
    """What lies in the temporary folder of a store."""
    return sorted(os.listdir(store / "tmp")) if (store / "tmp").exists() else []


def run_import(archives: Sequence[Path | str], store: Path, *options: str, **popen: Any) -> subprocess.Popen[str]:
    """The real command, in the background."""
    argv = [sys.executable, "-m", "swrbatch", "import", *map(str, archives), "--store", str(store), *options]
    pipe = subprocess.PIPE
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=env, **{"stdin": subprocess.DEVNULL, **popen})


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; one that does not end is killed, and fails the test."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the command does not end; it said:\n{out}\n{err}")
    return process.returncode, out, err


# --- children ----------------------------------------------------------------------------------------------------------


def spawn(work: Callable[[], object]) -> int:
    """The process ID of a forked child that does `work` and ends with 0, or with 70 and a traceback."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def join(pid: int) -> int:
    """A child's exit code, negative for a signal."""
    end = time.monotonic() + PATIENCE
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail("a child does not end")
        time.sleep(0.0005)


def kill_at(number: int) -> Callable[[str], None]:
    """A hook that kills its process at the `number`-th point that any thread of it reaches."""
    lock, count = threading.Lock(), 0

    def hook(_name: str) -> None:
        nonlocal count
        with lock:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def at(number: int, work: Callable[[], object]) -> int:
    """Run `work` in a child that is killed at its `number`-th write boundary; `KILLED`, or 0 when it came to its end."""

    def child() -> None:
        faults.hook = kill_at(number)
        work()

    return join(spawn(child))


def points_of(work: Callable[[], object]) -> list[str]:
    """The write boundaries that `work` passes, in order."""
    passed: list[str] = []
    faults.hook = passed.append
    try:
        work()
    finally:
        faults.hook = None
    return passed


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """A temporary folder in memory, where there is one: what is shown there does not depend on the disk."""
    memory: Path | None = Path("/dev/shm")
    if not os.access("/dev/shm", os.W_OK) or shutil.disk_usage("/dev/shm").free < 256 << 20:
        memory = None
    with tempfile.TemporaryDirectory(prefix="swrbatch-test-", dir=memory) as name:
        yield Path(name)


@pytest.fixture
def fast_path() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


# --- every write boundary ----------------------------------------------------------------------------------------------


def _load(archive: Path, store: Path) -> Callable[[], RunResult]:
    return partial(import_archives, [archive], store, jobs=1)


def test_killed_at_every_write_boundary_of_a_first_import(fast_path: Path) -> None:
    archive = write(fast_path / "a.tar", docker_legacy(Image()))
    points = points_of(_load(archive, fast_path / "whole"))
    want = check_sound(fast_path / "whole")
    assert list(want) == ["team/hello:v1"] and len(points) > 80
    outcomes = []
    for number in range(1, len(points) + 2):
        store = fast_path / f"store-{number}"
        code = at(number, _load(archive, store))
        assert code == (KILLED if number <= len(points) else 0), number
        if (store / "ledger.db").exists():
            # All or nothing, before anything is done about it.
            tags_now = check_sound(store)
            assert tags_now in ({}, want), points[number - 1]
            outcomes.append(bool(tags_now))
        again = import_archives([archive], store, jobs=1)
        assert again.exit_code == 0
        assert check_sound(store) == want
        assert temporaries(store) == []
        shutil.rmtree(store)
    # The transaction is the moment: before it nothing, after it everything.
    committed = [number for number, name in enumerate(points, 1) if name == "ledger:commit:after"][1]
    assert outcomes == sorted(outcomes) and outcomes.count(True) == len(points) + 1 - committed + 1


def test_killed_at_every_write_boundary_of_an_overwriting_import(fast_path: Path) -> None:
    first = write(fast_path / "a.tar", docker_legacy(Image()))
    second = write(fast_path / "b.tar", docker_legacy(Image(layers=OTHER)))
    base = fast_path / "base"
    assert import_archives([first], base, jobs=1).exit_code == 0
    before = check_sound(base)
    whole = fast_path / "whole"
    shutil.copytree(base, whole)
    points = points_of(_load(second, whole))
    after = check_sound(whole)
    assert before.keys() == after.keys() and before != after
    outcomes = []
    for number in range(1, len(points) + 2):
        store = fast_path / f"store-{number}"
        shutil.copytree(base, store)
        assert at(number, _load(second, store)) == (KILLED if number <= len(points) else 0)
        tags_now = check_sound(store)
        assert tags_now in (before, after), points[number - 1]
        outcomes.append(tags_now == after)
        again = import_archives([second], store, jobs=1)
        assert again.exit_code == 0
        assert again.images[0].status == ("unchanged" if outcomes[-1] else "overwritten")
        assert check_sound(store) == after
        assert temporaries(store) == []
        shutil.rmtree(store)
    assert outcomes == sorted(outcomes) and len(set(outcomes)) == 2


def _open(store: Path) -> None:
    Store(store).close()


def test_killed_at_every_write_boundary_while_healing(fast_path: Path) -> None:
    """The next open writes the links that a crash left; it may be killed as well, as often as it likes."""
    archive = write(fast_path / "a.tar", docker_legacy(Image()))
    base = fast_path / "base"
    names = points_of(_load(archive, fast_path / "whole"))
    assert at(names.index("link:create:before") + 1, _load(archive, base)) == KILLED
    whole = fast_path / "healed"
    shutil.copytree(base, whole)
    points = points_of(partial(_open, whole))
    assert {"link:rename:after", "ledger:commit:after"} <= set(points)
    worn = fast_path / "worn"
    shutil.copytree(base, worn)
    for number in range(1, len(points) + 1):
        store = fast_path / f"store-{number}"
        shutil.copytree(base, store)
        assert at(number, partial(_open, store)) == KILLED
        assert len(check_sound(store)) == 1
        if number % 5 == 0:
            # What was left in the temporary folder goes with the next import.
            assert import_archives([archive], store, jobs=1).exit_code == 0
            assert temporaries(store) == []
        at(number, partial(_open, worn))
    assert len(check_sound(worn)) == 1


def test_killed_twice_in_a_row(fast_path: Path) -> None:
    """A crash on top of crashes, at some boundaries of each."""
    archive = write(fast_path / "a.tar", docker_legacy(Image()))
    total = len(points_of(_load(archive, fast_path / "whole")))
    for number in range(5, total, 12):
        store = fast_path / f"store-{number}"
        for then in range(3, total, 30):
            assert at(number, _load(archive, store)) in (KILLED, 0)
            at(then, _load(archive, store))
        assert import_archives([archive], store, jobs=1).exit_code == 0
        assert len(check_sound(store)) == 1
        assert temporaries(store) == []


# --- the points are where the writes are -------------------------------------------------------------------------------

_CALLS: Final = ("write", "rename", "unlink", "fdatasync", "fsync", "makedirs", "mkdir", "replace", "link", "symlink", "truncate")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Points and calls that changed the disk, in order: ("point", "blob:write:before"), ("write", "7"), ("rename", path)."""
    seen: list[tuple[str, str]] = []

    def watch(owner: Any, name: str, shown: str, changes: Callable[..., bool] = lambda *_: True) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            done = real(*args, **kwargs)
            if changes(*args):
                seen.append((shown, str(args[0])))
            return done

        monkeypatch.setattr(owner, name, call)

    for name in _CALLS:
        watch(os, name, name)
    watch(os, "open", "create", lambda _path, flags, *_: bool(flags & os.O_CREAT))
    watch(shutil, "rmtree", "rmtree")
    watch(swrbatch.layout, "_syncfs", "syncfs")
    faults.hook = lambda name: seen.append(("point", name))
    yield seen
    faults.hook = None


def test_every_write_sync_and_rename_lies_between_two_points(fast_path: Path, recorded: list[tuple[str, str]]) -> None:
    large = Layer.of({"big": random.Random(1).randbytes(9 << 20)})
    archive, store = write(fast_path / "a.tar", docker_legacy(Image(layers=(*HELLO, large)))), fast_path / "store"
    for _ in range(2):
        # Opened before: otherwise archives are read meanwhile, and the calls of two threads mingle.
        with Store(store, create=True) as opened:
            assert import_archives([archive], opened, jobs=1).exit_code == 0
    kinds = {what for what, _ in recorded}
    assert kinds == {"point", "write", "rename", "unlink", "fdatasync", "makedirs", "mkdir", "create", "syncfs", "rmtree"}
    points = [(number, name) for number, (what, name) in enumerate(recorded) if what == "point"]
    bare = set()
    for number, (what, place) in enumerate(recorded):
        before = next((name for at, name in reversed(points) if at < number), "")
        after = next((name for at, name in points if at > number), "")
        if what != "point" and not (before.endswith(":before") and after == before.removesuffix("before") + "after"):
            bare.add((what, os.path.relpath(place, store)))
    # Outside of the points: empty folders, locks, and the end of a temporary file. Nothing of that could be half.
    assert {place.partition("/")[0] for _, place in bare} == {".", "locks", "tmp"}, bare
    assert {what for what, _ in bare} <= {"makedirs", "mkdir", "create", "unlink"}, bare
    assert all(what == "unlink" or place.endswith(".lock") or "tmp/" not in place for what, place in bare), bare


def test_nothing_is_renamed_before_it_is_synced(fast_path: Path, recorded: list[tuple[str, str]]) -> None:
    """What a power cut needs: data, then a sync, then the names, then a sync, then the commit; the links likewise."""
    archive = write(fast_path / "a.tar", docker_legacy(Image()))
    with Store(fast_path / "store", create=True) as opened:
        recorded.clear()
        assert import_archives([archive], opened, jobs=1).exit_code == 0
    dirty: set[str] = set()
    renamed, commits = 0, 0
    for number, (what, name) in enumerate(recorded):
        if what == "write":
            dirty.add("data")
        elif what == "syncfs":
            dirty.clear()
        elif what == "rename":
            assert "data" not in dirty, recorded[: number + 1]
            dirty.add("names")
            renamed += 1
        elif name == "ledger:commit:before":
            # Rows are committed over durable blobs; `pending` is cleared over durable links.
            assert dirty == set(), recorded[: number + 1]
            commits += 1
    assert (renamed, commits) == (4 + 6, 2)


# --- the real command --------------------------------------------------------------------------------------------------


def _many_archives(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Several archives that share layers and one tag; and, for each reference, the image ID that it ends with."""
    made: list[Path] = []
    want: dict[str, str] = {}
    shared = Layer.of({"shared": random.Random(7).randbytes(2 << 20)})
    for number in range(8):
        own = Layer.of({"own": random.Random(number).randbytes(600 << 10)})
        names = (f"{TEAM}/app-{number}:v1", f"{TEAM}/app:latest")
        image = Image(layers=(shared, own), tags=names)
        data = (docker_legacy, skopeo, docker25)[number % 3](image)
        made.append(write(folder / f"{number}.tar", outer(data, "gzip") if number % 4 == 3 else data))
        want |= dict.fromkeys((name.partition("/")[2] for name in names), image.image_id)
    return made, want


def test_killed_at_random_moments_of_the_real_command(tmp_path: Path) -> None:
    archives, want = _many_archives(tmp_path)
    options = ("--jobs", "2")

    def images(store: Path) -> dict[str, str]:
        with Store(store) as opened:
            return {f"{row.organization}/{row.repository}:{row.tag}": row.image_id for row in opened.tag_rows()}

    def start(store: Path) -> tuple[subprocess.Popen[str], float]:
        """The command, and when it began to work on the store (the start of Python is not what is measured)."""
        process = run_import(archives, store, *options)
        while not store.exists() and process.poll() is None:
            time.sleep(0.001)
        return process, time.monotonic()

    process, began = start(tmp_path / "measured")
    assert finish(process)[0] == 0
    lasted = time.monotonic() - began
    assert images(tmp_path / "measured") == want
    whole = check_sound(tmp_path / "measured")
    rng = random.Random(20261124)
    killed, partial = 0, 0
    for number, delay in enumerate([rng.uniform(0, 0.9 * lasted) for _ in range(10)]):
        store = tmp_path / f"store-{number}"
        process, began = start(store)
        time.sleep(max(0.0, began + delay - time.monotonic()))
        process.send_signal(signal.SIGKILL)
        killed += finish(process)[0] == KILLED
        if (store / "ledger.db").exists():
            partial += bool(check_sound(store))
        code, _, err = finish(run_import(archives, store, *options)) if number == 0 else (_again(archives, store), "", "")
        assert code == 0, err
        assert check_sound(store) == whole and images(store) == want
        assert temporaries(store) == []
    # On a machine that is much faster the second time some may come too late; most must not.
    assert killed >= 5, (killed, partial, lasted)


def _again(archives: Sequence[Path], store: Path) -> int:
    return int(import_archives(archives, store, jobs=2).exit_code)


def _wait_until(ready: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"the command ended early, or does not come to the point:\n{process.communicate()}")
        time.sleep(0.01)


def _processor_seconds(process: subprocess.Popen[str]) -> float:
    """What a running process has taken of the processors, with all its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _interrupt(process: subprocess.Popen[str], number: signal.Signals, store: Path, report: Path, want: dict[str, str]) -> None:
    """Send the signal, and check how the command ends, and what it leaves.

    It must end within a second; but the tests share the machine, so that the time is bounded generously, and what it takes of
    the processors (most of it to load what writes the report) tightly.
    """
    before, asked = _processor_seconds(process), time.monotonic()
    process.send_signal(number)
    used = before
    with contextlib.suppress(OSError, IndexError):
        while process.poll() is None and time.monotonic() < asked + PATIENCE:
            used = max(used, _processor_seconds(process))
            time.sleep(0.01)
    lasted = time.monotonic() - asked
    code, out, err = finish(process)
    assert code == 130, err
    assert "interrupted" in err and "Traceback" not in err
    assert lasted < 15 and used - before < 2, (lasted, used - before)
    (run,) = pq.read_table(report / "runs").to_pylist()
    assert (run["exit_code"], run["error"]) == (130, "interrupted")
    rows = pq.read_table(report / "images").to_pylist()
    assert {f"{row['organization']}/{row['repository']}:{row['tag']}": row["manifest_digest"] for row in rows} == want
    assert json.loads(out)["run"]["exit_code"] == 130
    assert check_sound(store) == want
    assert temporaries(store) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_interrupted_while_a_pipe_is_silent(tmp_path: Path, number: signal.Signals, compression: Any) -> None:
    """One archive is loaded; the next comes through a pipe that says nothing more."""
    first = write(tmp_path / "a.tar", docker_legacy(Image()))
    data = outer(docker_legacy(Image(layers=OTHER, tags=(f"{TEAM}/slow:v1",))), compression)
    pipe, store, report = tmp_path / "pipe.tar", tmp_path / "store", tmp_path / "report"
    os.mkfifo(pipe)
    process = run_import([first, pipe], store, "--report", str(report), "--format", "json")
    with pipe.open("wb", buffering=0) as f:
        f.write(data[: len(data) // 2])
        _wait_until(lambda: files_of(store) if store.exists() else None, process)
        with Store(store) as opened:
            want = rows_of(opened)
        _interrupt(process, number, store, report, want)
    assert list(want) == ["team/hello:v1"]


def test_interrupted_while_nobody_writes_to_a_pipe(tmp_path: Path) -> None:
    """The open of a FIFO without a writer must not hold the command up."""
    first = write(tmp_path / "a.tar", docker_legacy(Image()))
    pipe, store, report = tmp_path / "pipe.tar", tmp_path / "store", tmp_path / "report"
    os.mkfifo(pipe)
    process = run_import([first, pipe], store, "--report", str(report), "--format", "json")
    _wait_until(lambda: files_of(store) if store.exists() else None, process)
    with Store(store) as opened:
        want = rows_of(opened)
    _interrupt(process, signal.SIGINT, store, report, want)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle_of_a_large_layer(tmp_path: Path, number: signal.Signals) -> None:
    """A layer of 64 GiB of zeros, which takes no space in the archive."""
    image = Image(layers=(Layer.of({"a": b"a"}),), tags=(f"{TEAM}/large:v1",))
    archive, store, report = tmp_path / "large.tar", tmp_path / "store", tmp_path / "report"
    size = 64 << 30
    with archive.open("wb") as f:
        tar = TarBuilder(f)
        tar.member("config.json", image.config)
        tar.member("manifest.json", to_json([{"Config": "config.json", "RepoTags": list(image.tags), "Layers": ["layer.tar"]}]))
        tar.member("layer.tar", size=size)
        f.truncate(f.tell() + size)
        f.seek(0, os.SEEK_END)
        tar.end()
    limits = ("--profile", "none", "--max-decompressed", "128GiB")
    process = run_import([archive], store, *limits, "--report", str(report), "--format", "json")
    _wait_until(lambda: any(blob.stat().st_size > 50_000 for blob in store.glob("tmp/*/blob-*")), process)
    _interrupt(process, number, store, report, {})


# --- a full disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("512k")` mounts a file system of that size, or gives the one there is another size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = False

    def size(text: str) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={text}"
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root can mount a small disk")
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode and not mounted:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        mounted = True
        return disk

    yield size
    if mounted:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_the_real_command_on_a_full_disk(tmp_path: Path, small_disk: Callable[[str], Path]) -> None:
    small = write(tmp_path / "a.tar", docker_legacy(Image()))
    big = Image(layers=(Layer.of({"big": random.Random(3).randbytes(6 << 20)}),), tags=(f"{TEAM}/big:v1",))
    large = write(tmp_path / "b.tar", docker_legacy(big))
    store = small_disk("4m") / "store"
    report = tmp_path / "report"
    options = ("--jobs", "1", "--format", "json")
    assert finish(run_import([small], store, *options))[0] == 0
    code, out, err = finish(run_import([large], store, *options, "--report", str(report)))
    assert code == 3
    assert "No space left on device" in err and "free some space and run again" in err
    # The estimate before the start names the space that is needed.
    assert "the archives are 6." in err and "free" in err
    assert json.loads(out)["run"]["exit_code"] == 3
    assert len(list((report / "runs").iterdir())) == 1
    assert list(check_sound(store)) == ["team/hello:v1"]
    assert temporaries(store) == []
    small_disk("64m")
    assert finish(run_import([small, large], store, *options))[0] == 0
    assert list(check_sound(store)) == ["team/big:v1", "team/hello:v1"]


def test_a_disk_that_is_full_at_any_moment(tmp_path: Path, small_disk: Callable[[str], Path]) -> None:
    """Sizes in small steps, so that another write is refused each time: of the ledger, a layer, a config, a link, a commit."""
    image = Image(layers=(Layer.of({"big": random.Random(3).randbytes(100 << 10)}), *HELLO))
    archive = write(tmp_path / "a.tar", docker_legacy(image))
    messages: dict[str, int] = {}
    loaded = 0
    for number, kib in enumerate(range(16, 800, 24)):
        store = small_disk(f"{kib}k") / f"store-{number}"
        reason = ""
        try:
            # Opened before, or while the archive is read: then what comes first of a layer and the ledger differs.
            with contextlib.nullcontext(store) if number % 2 else Store(store, create=True) as target:
                assert import_archives([archive], target, jobs=1).exit_code == 0
            loaded += 1
        except StoreError as e:
            reason = str(e)
            messages[reason.replace(str(store), "STORE").split(":")[0].partition("(")[0]] = kib
        small_disk("64m")
        if (store / "ledger.db").exists():
            assert check_sound(store).keys() <= {"team/hello:v1"}
        assert import_archives([archive], store, jobs=1).exit_code == 0, reason
        assert list(check_sound(store)) == ["team/hello:v1"]
        assert temporaries(store) == []
        if reason:
            assert any(word in reason for word in ("free some space", "full")), reason
        shutil.rmtree(store)
    assert loaded >= 3
    assert len(messages) >= 3, messages
