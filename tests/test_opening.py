"""A store that is opened while archives are read: what keeps it from being opened is told, and nothing of the reading is left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagetar import HELLO, Image, Layer, docker_legacy
from swrbatch import Store, StoreError, UsageError, import_archives
from swrbatch.digest import Cancel
from swrbatch.errors import Cancelled
from swrbatch.opening import Opening
from test_crash import TEAM, check_sound, temporaries, write


@pytest.fixture
def archives(tmp_path: Path) -> list[Path]:
    """Archives that share a layer, so that the later ones ask what the store knows."""
    images = [Image(layers=(*HELLO, Layer.of({"own": bytes([n]) * 2**21})), tags=(f"{TEAM}/app:v{n}",)) for n in range(4)]
    return [write(tmp_path / f"{number}.tar", docker_legacy(image)) for number, image in enumerate(images)]


def test_a_ledger_that_is_none(archives: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    Store(store, create=True).close()
    for name in os.listdir(store):
        if name.startswith("ledger.db"):
            (store / name).write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="file is not a database"):
        import_archives(archives, store, report=str(tmp_path / "report"))
    assert temporaries(store) == [] and not (store / "docker").exists()
    assert not (tmp_path / "report").exists()


def test_another_registry(archives: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Store(store, create=True) as opened:
        opened.init(registry="other.example.com")
    with pytest.raises(UsageError, match=r"one store has one registry"):
        import_archives(archives, store, registry="swr.cn-north-1.example.com")
    assert temporaries(store) == [] and not (store / "docker").exists()


@pytest.mark.parametrize("jobs", [1, 4])
def test_the_store_is_what_one_that_is_open_before_becomes(archives: list[Path], tmp_path: Path, jobs: int) -> None:
    for _ in range(2):
        late = import_archives(archives, tmp_path / "late", jobs=jobs)
        with Store(tmp_path / "open", create=True) as opened:
            early = import_archives(archives, opened, jobs=jobs)
        assert [row.manifest_digest for row in late.images] == [row.manifest_digest for row in early.images]
        assert [row.status for row in late.images] == [row.status for row in early.images]
        assert [(row.digest, row.reused) for row in late.layers] == [(row.digest, row.reused) for row in early.layers]
    assert check_sound(tmp_path / "late") == check_sound(tmp_path / "open")


def test_it_is_opened_once(tmp_path: Path) -> None:
    with Opening(tmp_path / "store", create=True) as opening:
        assert opening.folder.new and not opening.done
        assert not (tmp_path / "store/ledger.db").exists()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(opening.wait, Cancel())
            store = opening.store()
            assert waiting.result(60) is store is opening.store()
    with Store(tmp_path / "store") as opened:
        assert Opening.of(opened).store() is opened


def test_who_waits_is_told_what_went_wrong_and_may_be_cancelled(tmp_path: Path) -> None:
    Store(tmp_path / "store", create=True).close()
    opening, cancel = Opening(tmp_path / "store"), Cancel()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(opening.wait, cancel)
        threading.Timer(0.05, cancel.set).start()
        assert isinstance(waiting.exception(60), Cancelled)
        (tmp_path / "store/ledger.db").write_bytes(b"no database" * 1000)
        waiting = pool.submit(opening.wait, Cancel())
        for _ in range(2):
            with pytest.raises(StoreError, match="file is not a database"):
                opening.store()
        assert isinstance(waiting.exception(60), StoreError)


def test_reading_needs_no_database(archives: list[Path]) -> None:
    """That is what is gained: an import begins to read, and a check without a store ends, before SQLAlchemy is imported."""
    check = f"result = swrbatch.batch.check_archives({[str(path) for path in archives]!r})"
    code = f"import sys, swrbatch.cli.batch, swrbatch.batch; {check}; print(result.exit_code, 'sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"]
