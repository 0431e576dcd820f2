"""What surrounds a run goes wrong: archives that change, folders that cannot be read, closed streams, no threads."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from imagetar import TAG
from swrbatch import Cancel, Store, StoreError, UsageError, check_archives, import_archives, prepare
from swrbatch.assembly import assemble
from swrbatch.blob_writer import BLOCK, BlobWriter, StagedBlob
from swrbatch.compression import Compression
from swrbatch.digest import Digest
from swrbatch.layout import RegistryLayout
from swrbatch.opening import Opening
from swrbatch.staging import Staging
from swrbatch.store_folder import StoreFolder
from swrbatch.sweep import collect_garbage
from swrbatch.verify import verify_store
from test_cli import COMMAND, Call, call, environment, image, named, save
from test_store import archive, check_sound, codes, statuses, store

__all__ = ["call", "store"]

# --- archives ----------------------------------------------------------------------------------------------------------


def test_an_archive_that_changes_while_it_is_read(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config is parsed first and stored last: it must be the same, or a manifest would name a blob that is not there."""
    before = check_sound(store)
    path = archive(tmp_path / "b.tar", "b")
    check_layers = prepare.check_layers

    def changed(image: Any, facts: Any) -> Any:
        with path.open("r+b") as file:
            file.seek(image.config_extent.offset)
            file.write(b"[")
        return check_layers(image, facts)

    monkeypatch.setattr(prepare, "check_layers", changed)
    result = import_archives([path], store)
    assert (statuses(result), codes(result), int(result.exit_code)) == (["rejected"], ["archive-changed"], 1)
    assert check_sound(store) == before


# --- folders of the store ------------------------------------------------------------------------------------------------


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], contextlib.AbstractContextManager[None]]:
    """Have a folder refuse to be read, as one of another user does (tests may run as root, whom nothing refuses)."""

    def refusing(folder: Path, real: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def read(path: Any = ".") -> Any:
            if not isinstance(path, int) and os.path.abspath(os.fsdecode(path)) == str(folder):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        return read

    @contextlib.contextmanager
    def refuse(folder: Path) -> Iterator[None]:
        with monkeypatch.context() as patch:
            for name in ("listdir", "scandir"):
                patch.setattr(os, name, refusing(folder, getattr(os, name)))
            yield

    return refuse


Refuse = Callable[[Path], contextlib.AbstractContextManager[None]]


PARTS = [
    "docker/registry/v2/blobs/sha256",
    "docker/registry/v2/repositories",
    "docker/registry/v2/repositories/team",
    "docker/registry/v2/repositories/team/app/_manifests/tags",
    "docker/registry/v2/repositories/team/app/_layers/sha256",
    "docker/registry/v2/repositories/team/app/_manifests/revisions/sha256",
]


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_removed_while_a_folder_cannot_be_read(part: str, store: Path, unreadable: Refuse) -> None:
    before = sorted(store.rglob("data"))
    told = pytest.raises(StoreError, match=r"a folder of the store cannot be read.*Permission denied")
    with Store(store) as opened, unreadable(store / part), told:
        collect_garbage(opened, opened.actor(None, None), min_age_ms=0)
    assert sorted(store.rglob("data")) == before


@pytest.mark.parametrize("part", PARTS[:4])
def test_a_verification_says_what_it_cannot_read(part: str, store: Path, unreadable: Refuse) -> None:
    told = pytest.raises(StoreError, match="a folder of the store cannot be read")
    with Store(store) as opened, unreadable(store / part), told:
        verify_store(opened)


def test_a_folder_that_may_not_be_listed_is_no_store(tmp_path: Path, unreadable: Refuse) -> None:
    (tmp_path / "other").mkdir()
    with unreadable(tmp_path / "other"), pytest.raises(StoreError, match=r"cannot be read.*Permission denied"):
        StoreFolder(tmp_path / "other", create=True)


def test_a_temporary_file_that_cannot_be_removed_stops_nothing(tmp_path: Path) -> None:
    """It goes with the run's folder. (A folder in its place refuses as a file in one without rights does.)"""
    (tmp_path / "blob").mkdir()
    staging = Staging(RegistryLayout(str(tmp_path)), str(tmp_path), Compression.NONE)
    staging.release(0, [StagedBlob(str(tmp_path / "blob"), Digest.of(b""), 0)])
    path = tmp_path / "other"

    def fail() -> None:
        with BlobWriter(str(path)) as writer:
            writer.write(b"x" * BLOCK)
            path.unlink()
            path.mkdir()
            raise StoreError("what went wrong")

    with pytest.raises(StoreError, match="what went wrong"):
        fail()


def test_an_interrupt_is_heard_while_another_opens_the_store(store: Path) -> None:
    cancel = Cancel()
    threading.Timer(0.1, cancel.set).start()
    began = time.monotonic()
    with (store / "locks/ledger").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with Opening(store, cancel=cancel) as opening, pytest.raises(Exception, match="interrupted"):
            opening.store()
    assert time.monotonic() - began < 20


def test_an_interrupt_is_heard_while_another_writes_the_ledger(tmp_path: Path, store: Path) -> None:
    before = check_sound(store)
    cancel = Cancel()
    began = time.monotonic()
    with Store(store, cancel=cancel) as opened, contextlib.closing(sqlite3.connect(store / "ledger.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.5, cancel.set).start()
        result = import_archives([archive(tmp_path / "b.tar", "b")], opened, cancel=cancel)
        other.rollback()
    assert (int(result.exit_code), result.images) == (130, ()) and time.monotonic() - began < 20
    assert check_sound(store) == before


def test_a_writer_waits_for_another(tmp_path: Path, store: Path) -> None:
    with Store(store) as opened, contextlib.closing(sqlite3.connect(store / "ledger.db", check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(1, other.rollback).start()
        assert statuses(import_archives([archive(tmp_path / "b.tar", "b")], opened)) == ["overwritten"]


# --- threads -------------------------------------------------------------------------------------------------------------


class NoThreads:
    """A pool that the system gives no thread."""

    def submit(self, *_: Any) -> Any:
        raise RuntimeError("can't start new thread")


def test_a_blob_is_made_without_help(tmp_path: Path) -> None:
    blocks = iter([b"a", b"b", b"c"])
    got: list[bytes] = []
    assemble(blocks, bytes.upper, got.append, NoThreads())  # type: ignore[arg-type]
    assert got == [b"A", b"B", b"C"]


def test_a_run_without_threads_ends_with_a_way_out(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = check_sound(store)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(StoreError, match=r"no more threads .*ulimit -u"):
            import_archives([archive(tmp_path / "b.tar", "b")], store, report=tmp_path / "report")
    assert check_sound(store) == before
    (run,) = pq.read_table(tmp_path / "report" / "runs").to_pylist()
    assert run["exit_code"] == 3 and "threads" in run["error"]


# --- streams -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full", "2>&1 >/dev/null | true"])
def test_who_hears_the_messages_changes_nothing(stream: str, tmp_path: Path) -> None:
    """Standard error closed, full, or a pipe that nobody reads: work and exit codes are the same."""
    save(tmp_path, "a.tar", image(named("team/a:v1")))
    save(tmp_path, "d/b.tar", image(named("team/b:v1")))
    shutil.copy(tmp_path / "a.tar", tmp_path / "d" / "other")

    def code(words: str) -> int:
        line = f"{' '.join(COMMAND)} {words} >out {stream}" if "|" not in stream else f"{' '.join(COMMAND)} {words} {stream}"
        script = f"{line}; exit ${{PIPESTATUS[0]}}"
        return subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(), timeout=60).returncode

    assert code("check a.tar") == 0
    assert code("import a.tar --store s") == 0
    assert code("import d --store s") == 0  # with a message of what is left out
    assert code("images --store nowhere") == 3
    with Store(tmp_path / "s") as opened:
        assert [row["tag"] for row in opened.images()] == ["v1", "v1"]


@pytest.mark.parametrize("words", ["import @-", "import -", "check -", "check @-", "lint -"])
def test_a_closed_standard_input(words: str, tmp_path: Path) -> None:
    script = f"{' '.join(COMMAND)} {words} <&-"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(), timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "swrbatch: standard input is closed\n")


# --- where reports go ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run:1", "file:x", "gs:x", "s3://bucket/x"])
def test_a_report_is_a_folder_whatever_it_is_called(name: str, call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", image(named("team/a:v1")))
    assert call("import", "a.tar", "--report", name).code == 0
    assert len(list((tmp_path / name / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--report", "", "--report is empty (is a variable unset?)"),
        ("--junit", "", "--junit is empty (is a variable unset?)"),
        ("--org", "", "--org is empty (is a variable unset?)"),
        ("--report", "a.tar", "it is no folder"),
        ("--junit", "nowhere/j.xml", "it must be a file in a folder that there is"),
        ("--junit", ".", "it must be a file in a folder that there is"),
        ("--junit", "swr-store/ledger.db", "it lies in the store"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_loaded(option: str, value: str, told: str, call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", image(named("team/a:v1")))
    call("init")
    done = call("import", "a.tar", option, value)
    assert done.code == 2 and told in done.err
    assert call("images", "--format", "json").json() == []


def test_what_was_not_looked_at_is_told_everywhere(call: Call, tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path, f"{name}.tar", image("noregistry"))
    done = call("check", "a.tar", "b.tar", "c.tar", "--fail-fast", "--junit", "j.xml", "--format", "json")
    told = "stopped at the first rejected archive (--fail-fast): 2 archives not looked at"
    assert done.json()["run"]["error"] == told and told in done.err
    (skipped,) = ET.parse(tmp_path / "j.xml").iter("skipped")
    assert skipped.get("message") == told


def test_other_files_of_a_folder_are_told(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "d/a.tar", image(named("team/a:v1")))
    save(tmp_path, "d/sub/b.img", image(named("team/b:v1")))
    save(tmp_path, "d/.hidden", image(named("team/b:v1")))
    (tmp_path / "d" / "readme.md").write_text("archives\n" * 100)
    (tmp_path / "d" / "c.tar.gz.part").write_bytes(gzip.compress(b"c"))
    os.mkfifo(tmp_path / "d" / "pipe")
    done = call("check", "d")
    told = " ".join(done.err.split())
    assert done.code == 0 and "2 files left out that may be archives, such as d/c.tar.gz.part" in told


def test_an_empty_list_of_images_says_why(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", image(named("team/a:v1")))
    call("import", "a.tar")
    assert call("images").err == ""
    done = call("images", "--format", "json", env={"SWRBATCH_USER": "somebody"})
    assert done.json() == [] and "somebody may download none of this store's images" in done.err


def test_what_renames_nothing_is_told(call: Call, tmp_path: Path) -> None:
    save(tmp_path, "a.tar", image("old/a:v1"))
    (tmp_path / "rules.yaml").write_text(f"- {{match: 'no/*', to: 'x'}}\n- {{match: 'old/*', to: '{named('team/a')}:{{tag}}'}}\n")
    (tmp_path / "others.yaml").write_text("- {match: 'no/*', to: x}\n")
    (tmp_path / "names.csv").write_text(f"archive,image_id,reference\nb.tar,{'a' * 64},{named('team/b')}:v1\n")
    done = call(
        "check", "a.tar", "--retag", "nope/*=x", "--retag", "rules.yaml", "--retag", "others.yaml", "--names", "names.csv"
    )
    assert done.code == 0
    told = ("--retag nope/*=x", "--retag others.yaml", "--names names.csv")
    assert done.err == "".join(f"swrbatch: {option} matched nothing\n" for option in told)


# --- from Python ---------------------------------------------------------------------------------------------------------


def test_paths_and_sizes_as_they_come(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", "a")
    rules = tmp_path / "rules.yaml"
    rules.write_text("- {match: '*', to: 'r.example.com/team/{repository}:{tag}'}\n")
    result = import_archives(path, tmp_path / "s", report=tmp_path / "report", retag=[rules], max_layer_size="2GiB")
    assert statuses(result) == ["loaded"] and json.loads(result.run.options)["report"] == str(tmp_path / "report")
    assert [row.reference for row in check_archives(str(path)).images] == [TAG.rpartition("/")[0] + "/app:v1"]
    with pytest.raises(UsageError, match=r"unknown option org; there are .*organization.*retag"):
        check_archives([path], org="team")
    with pytest.raises(UsageError, match="size"):
        check_archives([path], max_layer_size="much")


def test_a_rule_without_its_list(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("match: a\nto: b\n")
    with pytest.raises(UsageError, match="one rule without its list; write '- ' before match"):
        check_archives([tmp_path / "a.tar"], retag=[tmp_path / "rules.yaml"])
