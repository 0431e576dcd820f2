"""Several imports into one store at once, and several workers in one import: the tags end as if one thing came after another."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from imagetar import HELLO, TAG, Image, Layer, containerd, crane, docker25, docker_legacy, outer, skopeo
from swrbatch import RunResult, Store, StoreError, faults, import_archives
from swrbatch.compression import Compression
from swrbatch.digest import Cancel
from swrbatch.disk import run_folder
from swrbatch.policy import limits_for
from swrbatch.prepare import Rules, Workshop, prepare
from swrbatch.rename import Rename
from swrbatch.staging import Staging
from swrbatch.verify import verify_store
from test_crash import (
    TEAM,
    check_sound,
    events_of,
    fast_path,
    finish,
    join,
    run_import,
    spawn,
    temporaries,
    write,
)

__all__ = ["fast_path"]
FORMS: Final[tuple[Callable[..., bytes], ...]] = (docker_legacy, docker25, skopeo, crane, containerd)
BASE: Final = Layer.of({"base": random.Random(1).randbytes(1500 << 10)})


def archive(path: Path, *tags: str, own: object, form: Any = docker_legacy) -> Path:
    """An archive of one image: a base that all share, and a layer of its own."""
    image = Image(layers=(BASE, HELLO[0], Layer.of({"own": str(own).encode() * 50})), tags=tags)
    return write(path, form(image))


def together(count: int, work: Callable[[int], object]) -> list[int]:
    """Run `work(0)`, `work(1)`, … in children that start at the same moment; their exit codes."""
    reading, writing = os.pipe()

    def child(number: int) -> Callable[[], object]:
        def begin() -> object:
            os.close(writing)
            os.read(reading, 1)
            return work(number)

        return begin

    pids = [spawn(child(number)) for number in range(count)]
    os.close(reading)
    os.close(writing)
    return [join(pid) for pid in pids]


def ended_with(result: RunResult, code: int = 0) -> None:
    assert result.exit_code == code, (result.failure, result.issues)


# --- processes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4])
def test_commands_at_once_into_one_new_store(tmp_path: Path, count: int) -> None:
    """Overlapping layers and tags, and the race of making the store."""
    lists = []
    for who in range(count):
        mine = [
            archive(
                tmp_path / f"{who}-{n}.tar", f"{TEAM}/app-{who}:v{n}", f"{TEAM}/shared:v{n % 3}", own=(who, n), form=FORMS[n % 5]
            )
            for n in range(6)
        ]
        mine.insert(who, archive(tmp_path / f"{who}-same.tar", f"{TEAM}/same:v1", own="the same for all"))
        lists.append(mine)
    store = tmp_path / "store"
    running = [run_import(mine, store, "--format", "json", "--jobs", "2") for mine in lists]
    outcomes = [finish(process) for process in running]
    assert [code for code, _, _ in outcomes] == [0] * count, [err for _, _, err in outcomes]
    reports = [json.loads(out) for _, out, _ in outcomes]

    rows = check_sound(store)
    names = {f"team/app-{who}:v{n}" for who in range(count) for n in range(6)}
    assert rows.keys() == names | {f"team/shared:v{n}" for n in range(3)} | {"team/same:v1"}
    with Store(store) as opened:
        ledger = [event["trace_id"] for event in events_of(opened)]
    # Each event that a command told of is in the ledger, once, where it said; and there are no others.
    told = {event["seq"]: event["trace_id"] for report in reports for event in report["events"]}
    assert [told.get(seq) for seq in range(1, len(ledger) + 1)] == ledger
    assert len(ledger) == sum(len(report["events"]) for report in reports)
    for report in reports:
        assert [event["seq"] for event in report["events"]] == sorted(event["seq"] for event in report["events"])
    # A tag is made once, and from then on each load says truly what it replaces.
    history: dict[str, str | None] = {}
    images = [row for report in reports for row in report["images"]]
    uploads = {e["seq"]: e for report in reports for e in report["events"] if e["trace_name"] == "uploadImagePackage"}
    for _, event in sorted(uploads.items()):
        response = json.loads(event["response"])
        assert response["previous_digest"] == history.get(event["resource_name"])
        history[event["resource_name"]] = response["digest"]
    assert history == rows
    statuses = [row["status"] for row in images if row["repository"] == "same"]
    assert sorted(statuses) == ["loaded", *["unchanged"] * (count - 1)]
    assert temporaries(store) == []


def test_the_race_of_making_a_store(fast_path: Path) -> None:
    archives = [archive(fast_path / f"{who}.tar", f"{TEAM}/app:v{who}", own=who) for who in range(4)]
    for number in range(12):
        store = fast_path / f"store-{number}"

        def work(who: int, store: Path = store) -> None:
            ended_with(import_archives([archives[who]], store, jobs=1))

        assert together(4, work) == [0] * 4
        assert list(check_sound(store)) == [f"team/app:v{who}" for who in range(4)]
        assert temporaries(store) == []


def test_a_store_that_appears_just_now_is_no_foreign_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look for a ledger and the look for foreign files another process may make the store."""
    path = tmp_path / "store"
    path.mkdir()
    others: list[Store] = []
    real = os.path.isdir

    def isdir(name: Any) -> bool:
        if os.fspath(name) == str(path) and not others:
            monkeypatch.setattr(os.path, "isdir", real)
            others.append(Store(path, create=True))
        return real(name)

    monkeypatch.setattr(os.path, "isdir", isdir)
    Store(path, create=True).close()
    assert len(others) == 1
    others[0].close()


def test_two_registries_at_once(fast_path: Path) -> None:
    """A store has the registry of whoever commits first; all images of the other are refused."""
    hosts = ("a.example.com", "b.example.com")
    archives = [[archive(fast_path / f"{h}-{n}.tar", f"{h}/team/app:v{n}", own=(h, n)) for n in range(4)] for h in hosts]
    for number in range(5):
        store = fast_path / f"store-{number}"

        def work(who: int, store: Path = store) -> None:
            os._exit(int(import_archives(archives[who], store, jobs=2).exit_code))

        codes = together(2, work)
        assert sorted(codes) == [0, 1]
        check_sound(store)
        with Store(store) as opened:
            assert opened.settings()["registry"] == hosts[codes.index(0)]
            assert len(opened.images()) == 4


def test_verify_sees_nothing_wrong_while_imports_go_on(fast_path: Path) -> None:
    store = fast_path / "store"
    archives = [archive(fast_path / f"{n}.tar", f"{TEAM}/app:v{n % 2}", f"{TEAM}/app-{n}:v1", own=n) for n in range(8)]
    ended_with(import_archives(archives[:1], store))
    pids = [spawn(partial(_import_in_turns, archives, store, step)) for step in (1, 3)]
    looks = 0
    running = set(pids)
    while running:
        with Store(store) as opened:
            result = verify_store(opened, deep=looks % 3 == 0)
        assert [found.message for found in result.issues] == []
        looks += 1
        running -= {pid for pid in running if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None}
    assert [join(pid) for pid in pids] == [0, 0]
    assert looks > 5
    check_sound(store)


def _import_in_turns(archives: Sequence[Path], store: Path, step: int) -> None:
    for turn in range(15):
        ended_with(import_archives([archives[turn * step % len(archives)]], store, jobs=1))


@pytest.mark.parametrize("overtaking", [1, 2])
def test_crashes_while_loads_overtake_one_that_writes_its_links(fast_path: Path, overtaking: int) -> None:
    """One load has committed and writes its links, others commit over it; all are killed before they write theirs.

    What is served then is what the first of them wrote: the heal must not take it for a foreign push.
    """
    store = fast_path / "store"
    archives = [archive(fast_path / f"{n}.tar", TAG, own=n) for n in range(2 + overtaking)]
    ended_with(import_archives(archives[:1], store))
    told, tell = os.pipe()
    gates = [os.pipe() for _ in archives]

    def hear(word: bytes) -> None:
        assert select.select([told], [], [], 60)[0], f"nobody comes to {word!r}"
        assert os.read(told, 1) == word

    def pausing(who: int, **stops: bytes) -> None:
        """Import, but stop at the first passage of each point, say so, and wait."""

        def hook(name: str) -> None:
            if word := stops.pop(name.replace(":", "_").replace("-", "_"), None):
                os.write(tell, word)
                os.read(gates[who][0], 1)

        with Store(store) as opened:
            faults.hook = hook
            import_archives([archives[who]], opened, jobs=1)

    def generation() -> int:
        # Not through `Store`: to open one is to heal it.
        with contextlib.closing(sqlite3.connect(store / "ledger.db")) as ledger:
            return int(ledger.execute("SELECT generation FROM tags").fetchone()[0])

    pids = []
    for who in range(2, 2 + overtaking):
        pids.append(spawn(partial(pausing, who, run_mkdir_before=b"a")))
        hear(b"a")
    pids.append(spawn(partial(pausing, 1, link_rename_before=b"b", link_folders_sync_after=b"c")))
    hear(b"b")
    for who in range(2, 2 + overtaking):
        os.write(gates[who][1], b"!")
        # A design in which the other commits wait for the links is fine, too.
        end = time.monotonic() + 1
        while generation() <= who and time.monotonic() < end:
            time.sleep(0.01)
    os.write(gates[1][1], b"!")
    hear(b"c")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert {join(pid) for pid in pids} == {-signal.SIGKILL}
    for fd in (told, tell, *(end for gate in gates for end in gate)):
        os.close(fd)
    check_sound(store)


def test_folders_of_runs_and_their_sweep(fast_path: Path) -> None:
    """However many runs begin and end at once, nobody sweeps the folder of one that lives."""
    tmp = str(fast_path / "tmp")

    def work(who: int) -> None:
        for turn in range(40):
            with run_folder(tmp, f"run-{who}-{turn}") as folder:
                mark = Path(folder, "mark")
                mark.write_text("here")
                time.sleep(0.0005 * ((who + turn) % 3))
                assert mark.read_text() == "here"

    assert together(6, work) == [0] * 6
    assert os.listdir(tmp) == []


def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    """A folder with its lock, a folder without one, a lock without a folder; what a living run has is left alone."""
    tmp = tmp_path / "tmp"
    for name in ("with", "without"):
        (tmp / name).mkdir(parents=True)
        write(tmp / name / "blob-1", b"x")
    for name in ("with.lock", "alone.lock"):
        write(tmp / name, b"")
    with run_folder(str(tmp), "living") as living:
        write(Path(living, "blob-1"), b"x")
        with run_folder(str(tmp), "other"):
            assert sorted(os.listdir(tmp)) == ["living", "living.lock", "other", "other.lock"]
        assert os.listdir(living) == ["blob-1"]
    assert os.listdir(tmp) == []


# --- workers -----------------------------------------------------------------------------------------------------------


def test_the_order_given_decides_whatever_jobs(tmp_path: Path) -> None:
    """Many archives write the same few tags; large ones first, so that with many workers the later ones are read sooner."""
    rng = random.Random(42)
    archives: list[Path] = []
    model: dict[str, str] = {}
    steps = []
    for number in range(60):
        size = 2 << 20 if number % 9 == 0 else rng.randrange(1, 3000)
        image = Image(
            layers=(HELLO[0], Layer.of({"own": number.to_bytes(2, "big") + rng.randbytes(size)})),
            tags=tuple(f"{TEAM}/app:t{n}" for n in rng.sample(range(5), rng.randrange(1, 4))),
        )
        data = FORMS[number % 5](image)
        archives.append(write(tmp_path / f"{number:02}.tar", outer(data, "gzip") if number % 7 == 3 else data))
        for tag in image.tags:
            steps.append((archives[-1].name, tag, "overwritten" if tag in model else "loaded"))
            model[tag] = image.image_id
    seen = []
    for jobs in (1, 8):
        store = tmp_path / f"store-{jobs}"
        result = import_archives(archives, store, jobs=jobs)
        ended_with(result)
        check_sound(store)
        with Store(store) as opened:
            assert {row["reference"]: row["image_id"] for row in opened.images()} == model
        assert [(Path(row.archive).name, row.reference, row.status) for row in result.images] == steps
        assert [Path(row.archive).name for row in result.archives] == [path.name for path in archives]
        digests: dict[str | None, str | None] = {}
        for row in result.images:
            assert row.previous_digest == digests.get(row.reference)
            digests[row.reference] = row.manifest_digest
        assert [json.loads(event.request)["archive"] for event in result.events if event.trace_name == "uploadImagePackage"] == [
            row.archive for row in result.images
        ]
        seen.append([(row.reference, row.manifest_digest, row.image_id, row.previous_digest) for row in result.images])
    assert seen[0] == seen[1]


def test_one_layer_in_two_forms_is_that_of_the_first_archive_whatever_jobs(tmp_path: Path) -> None:
    """Docker's archive comes first, but its shared layer is read after a large one; crane's small one is read meanwhile."""
    large = Layer.of({"large": random.Random(1).randbytes(30 << 20)})
    first = write(tmp_path / "a.tar", docker_legacy(Image(layers=(large, HELLO[0]), tags=(f"{TEAM}/a:v1",))))
    second = write(tmp_path / "b.tar", crane(Image(layers=(HELLO[0],), tags=(f"{TEAM}/b:v1",))))
    seen = []
    for jobs in (1, 2):
        result = import_archives([first, second], tmp_path / f"store-{jobs}", jobs=jobs)
        ended_with(result)
        check_sound(tmp_path / f"store-{jobs}")
        seen.append([row.manifest_digest for row in result.images])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("compression", ["auto", "gzip", "zstd", "none"])
def test_the_same_archive_gives_the_same_digests(tmp_path: Path, compression: str) -> None:
    """Into fresh stores, whatever the number of workers: layers over several blocks, hardly and well compressible ones."""
    rng = random.Random(5)
    layers = (
        Layer.of({"noise": rng.randbytes((2 << 20) + 17)}),
        Layer.of({"text": b"".join(b"line %d\n" % number**3 for number in range(150_000))}),
        Layer.of({"zeros": bytes(3 << 20)}),
        Layer.of({"empty/": b""}),
    )
    for number, form in enumerate(FORMS[:2] + FORMS[3:4]):
        path = write(tmp_path / f"{number}.tar", form(Image(layers=layers, tags=(f"{TEAM}/app:v{number}",))))
        runs = [
            import_archives([path], tmp_path / f"store-{number}-{jobs}", jobs=jobs, compression=compression) for jobs in (1, 2, 6)
        ]
        digests = [[(row.manifest_digest, row.stored_bytes) for row in run.images] for run in runs]
        assert digests[0] == digests[1] == digests[2] and digests[0][0][0] is not None
        assert [layer.digest for layer in runs[0].layers] == [layer.digest for layer in runs[2].layers]


def test_one_layer_in_many_archives_is_stored_once(tmp_path: Path) -> None:
    archives = [archive(tmp_path / f"{n}.tar", f"{TEAM}/app:v{n}", own=n, form=FORMS[n % 3]) for n in range(12)]
    result = import_archives(archives, tmp_path / "store", jobs=8)
    ended_with(result)
    base = [layer for layer in result.layers if layer.diff_id == BASE.diff_id]
    assert len(base) == 12 and len({layer.digest for layer in base}) == 1
    assert [layer.reused for layer in base].count(False) == 1
    blobs = list((tmp_path / "store/docker/registry/v2/blobs/sha256").glob("*/*/data"))
    assert sum(blob.stat().st_size == base[0].stored_bytes for blob in blobs) == 1
    assert result.run.bytes_stored == sum({layer.digest: layer.stored_bytes for layer in result.layers}.values())


def test_a_worker_that_meets_a_store_error_ends_the_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever fails: what came before in the order given is loaded and reported, the rest is not."""
    archives = [archive(tmp_path / f"{n}.tar", f"{TEAM}/app:v{n}", own=n) for n in range(6)]
    real = os.write

    def refuse(fd: int, data: Any) -> int:
        if (b"%d%d" % (3, 3)) in bytes(data) or b"(disk full here)" in bytes(data):
            raise OSError(28, os.strerror(28))
        return real(fd, data)

    big = Image(layers=(Layer.of({"own": b"(disk full here)"}),), tags=(f"{TEAM}/app:v3",))
    archives[3] = write(tmp_path / "3.tar", docker_legacy(big))
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(StoreError, match="free some space"):
        import_archives(archives, tmp_path / "store", jobs=4, compression="none")
    monkeypatch.undo()
    assert list(check_sound(tmp_path / "store")) in ([f"team/app:v{n}" for n in range(k)] for k in range(4))
    ended_with(import_archives(archives, tmp_path / "store", jobs=4, compression="none"))
    assert len(check_sound(tmp_path / "store")) == 6


def test_a_layer_stays_while_any_archive_needs_it(tmp_path: Path) -> None:
    """An archive is refused, and two of its images share a layer with the next one: that one's file must not go."""
    two = [Image(layers=(BASE, HELLO[0]), tags=(f"{TEAM}/two:v{n}",)) for n in range(2)]
    first, second = write(tmp_path / "first.tar", docker_legacy(*two)), archive(tmp_path / "second.tar", TAG, own=1)
    with Store(tmp_path / "store", create=True) as store, store.run("run", Cancel()) as folder, ThreadPoolExecutor(1) as pool:
        staging = Staging(store.layout, folder, Compression.GZIP)
        limits = limits_for("none")
        rules = Rules(limits=limits, naming="guide", registry=None, organization=None, rename=Rename(), hash_archives=False)
        shop = Workshop(
            rules=rules,
            cancel=Cancel(),
            target=Compression.GZIP,
            layer_pool=pool,
            block_pool=None,
            spool_dir=folder,
            known_layers=store.known_layers,
            staging=staging,
        )
        refused, needing = (prepare(str(path), position, shop) for position, path in enumerate((first, second)))
        for image in refused.images:
            staging.release(refused.position, image.attempt.blobs)
        blobs = needing.images[0].attempt.blobs
        shared = {blob.path for image in refused.images for blob in image.attempt.blobs} & {blob.path for blob in blobs}
        assert len(shared) == 2
        assert [blob.digest for blob in blobs if not os.path.exists(blob.path)] == []
        staging.release(needing.position, blobs)
        assert os.listdir(folder) == []
