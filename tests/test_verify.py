"""`verify`: every fault is found by the level that promises it, and `--repair` mends what it promises and deletes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from imagetar import HELLO, Image, Layer, containerd, docker_legacy
from swrbatch import Cancel, Store, StoreError, import_archives
from swrbatch.digest import Digest
from swrbatch.disk import locked
from swrbatch.errors import CODES, Cancelled
from swrbatch.image import Manifest
from swrbatch.verify import VerifyResult, verify_store
from test_crash import TEAM, check_sound, files_of, in_memory, write

ROOT: Final = Path(__file__).resolve().parent.parent
NAME: Final = "team/app:v1"
QUICK: Final = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking: it takes minutes where each try makes a store."""
LAYERS: Final = (*HELLO, Layer.of({"own": b"a layer of some size\n" * 5000}))
IMAGES: Final = {
    "a.tar": docker_legacy(Image(layers=LAYERS, tags=(f"{TEAM}/app:v1",))),
    "b.tar": docker_legacy(Image(layers=(HELLO[0],), tags=(f"{TEAM}/app:v2", f"{TEAM}/tool:v1"))),
    "c.tar": containerd(Image(layers=(Layer.of({"kept": b"as it is\n" * 90}),), tags=(f"{TEAM}/kept:v1",)).stored("gzip")),
}


@dataclass(frozen=True)
class Home:
    """A store with the images of IMAGES, and where things lie in it."""

    path: Path

    @property
    def archives(self) -> list[Path]:
        return [self.path.parent / name for name in IMAGES]

    def blob(self, digest: object) -> Path:
        hexa = str(digest).removeprefix("sha256:")
        return self.path / f"docker/registry/v2/blobs/sha256/{hexa[:2]}/{hexa}/data"

    def manifest(self, name: str = NAME) -> Manifest:
        return Manifest.parse(self.blob(files_of(self.path)[name]).read_bytes())

    @property
    def layer(self) -> Path:
        """The blob of a layer that only NAME has, well over 71 bytes."""
        return self.blob(self.manifest().layers[2].digest)

    def link(self, what: str) -> Path:
        base, manifest = self.path / "docker/registry/v2/repositories/team/app", self.manifest()
        return {
            "current": base / "_manifests/tags/v1/current/link",
            "index": base / f"_manifests/tags/v1/index/sha256/{manifest.digest.hex}/link",
            "revision": base / f"_manifests/revisions/sha256/{manifest.digest.hex}/link",
            "layer": base / f"_layers/sha256/{manifest.layers[2].digest.hex}/link",
            "config": base / f"_layers/sha256/{manifest.config.digest.hex}/link",
        }[what]

    def sql(self, statement: str, *values: object) -> None:
        with contextlib.closing(sqlite3.connect(self.path / "ledger.db")) as connection, connection:
            assert connection.execute(statement, values).rowcount == 1

    def verify(self, *, deep: bool = False, repair: bool = False) -> VerifyResult:
        with Store(self.path) as store:
            return verify_store(store, deep=deep, repair=repair)

    def reload(self) -> None:
        assert import_archives(self.archives, self.path).exit_code == 0

    def bytes(self) -> dict[str, bytes]:
        """All content below `docker/` and `quarantine/`, by path."""
        folders = (self.path / "docker", self.path / "quarantine")
        return {str(f.relative_to(self.path)): f.read_bytes() for folder in folders for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    with in_memory() as folder:
        for name, data in IMAGES.items():
            write(folder / name, data)
        assert import_archives([folder / name for name in IMAGES], folder / "store").exit_code == 0
        assert len(check_sound(folder / "store")) == 4
        yield folder


@contextlib.contextmanager
def copied(base: Path) -> Iterator[Home]:
    with in_memory() as folder:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        yield Home(folder / "store")


@pytest.fixture
def home(base: Path) -> Iterator[Home]:
    with copied(base) as home:
        yield home


def seen(result: VerifyResult) -> list[tuple[str, str]]:
    return sorted((found.code, found.place) for found in result.issues)


def flip(path: Path, at: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# --- what is found -----------------------------------------------------------------------------------------------------


def test_a_sound_store_has_no_issue(home: Home) -> None:
    for deep in (False, True):
        result = home.verify(deep=deep)
        assert (result.ok, result.issues, result.repaired) == (True, [], [])
        assert (result.tags, result.blobs, result.unreferenced) == (4, len(list(home.path.rglob("data"))), 0)
        assert result.events == 4 + 3 + 1
        assert result.bytes_hashed == (sum(data.stat().st_size for data in home.path.rglob("data")) if deep else 0)


def _replace(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _swap_layers(home: Home) -> None:
    """Two good blobs under each other's names: only hashing tells (their sizes differ, though)."""
    one, two = (home.blob(layer.digest) for layer in home.manifest().layers[:2])
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


# What is done to a store -> the code that tells, and whether `--deep` is needed.
FAULTS: Final[Mapping[str, tuple[Callable[[Home], object], str, bool]]] = {
    "a layer is missing": (lambda home: home.layer.unlink(), "blob-missing", False),
    "a config is missing": (lambda home: home.blob(home.manifest().config.digest).unlink(), "blob-missing", False),
    "a manifest is missing": (lambda home: home.blob(home.manifest().digest).unlink(), "blob-missing", False),
    "a layer is truncated": (lambda home: os.truncate(home.layer, 100), "blob-corrupt", False),
    "a layer is empty": (lambda home: os.truncate(home.layer, 0), "blob-corrupt", False),
    "a layer has a byte more": (lambda home: _replace(home.layer, home.layer.read_bytes() + b"x"), "blob-corrupt", False),
    "a byte of a manifest is flipped": (lambda home: flip(home.blob(home.manifest().digest)), "blob-corrupt", False),
    "a byte of a layer is flipped": (lambda home: flip(home.layer), "blob-corrupt", True),
    "the first byte of a layer is flipped": (lambda home: flip(home.layer, 0), "blob-corrupt", True),
    "a byte of a config is flipped": (lambda home: flip(home.blob(home.manifest().config.digest)), "blob-corrupt", True),
    "two layers are swapped": (_swap_layers, "blob-corrupt", False),
    "the link current is missing": (lambda home: home.link("current").unlink(), "link-missing", False),
    "the link index is missing": (lambda home: home.link("index").unlink(), "link-missing", False),
    "the link of the revision is missing": (lambda home: home.link("revision").unlink(), "link-missing", False),
    "the link of a layer is missing": (lambda home: home.link("layer").unlink(), "link-missing", False),
    "the link of the config is missing": (lambda home: home.link("config").unlink(), "link-missing", False),
    "the link current is garbage": (lambda home: _replace(home.link("current"), b"garbage"), "link-invalid", False),
    "the link current is empty": (lambda home: _replace(home.link("current"), b""), "link-invalid", False),
    "the link current ends in a newline": (
        lambda home: _replace(home.link("current"), home.link("current").read_bytes() + b"\n"),
        "link-invalid",
        False,
    ),
    "the link of a layer is garbage": (lambda home: _replace(home.link("layer"), b"\xff" * 71), "link-invalid", False),
    "the link of a layer names another": (
        lambda home: _replace(home.link("layer"), str(home.manifest().digest).encode()),
        "link-invalid",
        False,
    ),
    "the digest of a tag row is changed": (
        lambda home: home.sql("UPDATE tags SET digest = ? WHERE tag = 'v2'", str(home.manifest().digest)),
        "replay-differs",
        False,
    ),
    "the image ID of a tag row is changed": (
        lambda home: home.sql("UPDATE tags SET image_id = ? WHERE tag = 'v2'", str(home.manifest().digest)),
        "replay-differs",
        False,
    ),
    "the media type of a tag row is changed": (
        lambda home: home.sql("UPDATE tags SET media_type = 'x/y' WHERE tag = 'v2'"),
        "replay-differs",
        False,
    ),
    "a tag row is renamed": (lambda home: home.sql("UPDATE tags SET tag = 'v3' WHERE tag = 'v2'"), "replay-differs", False),
    "a tag row is gone": (lambda home: home.sql("DELETE FROM tags WHERE tag = 'v2'"), "replay-differs", False),
    "a repository is renamed": (
        lambda home: home.sql("UPDATE repositories SET name = 'x' WHERE name = 'tool'"),
        "replay-differs",
        False,
    ),
    "an event is changed": (lambda home: home.sql("UPDATE events SET text = text || ' ' WHERE seq = 3"), "chain-broken", False),
    "an event is gone": (lambda home: home.sql("DELETE FROM events WHERE seq = 3"), "chain-broken", False),
    "the newest event is gone": (
        lambda home: home.sql("DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)"),
        "replay-differs",
        False,
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_each_fault_is_found_by_its_level(home: Home, what: str) -> None:
    damage, code, deep = FAULTS[what]
    damage(home)
    shallow = home.verify()
    assert shallow.ok == deep, seen(shallow)
    found = home.verify(deep=True)
    assert not found.ok and code in {each.code for each in found.issues}
    # Looking changes nothing: it is found as often as one looks, and only the places that have to do with it are named.
    assert seen(home.verify(deep=True)) == seen(found)
    for each in found.issues:
        assert each.message and each.message_zh and each.way_out and each.way_out_zh and each.place
        assert "team/kept" not in each.place


def test_faults_of_many_kinds_are_all_found_at_once(home: Home) -> None:
    home.blob(home.manifest("team/tool:v1").digest).unlink()
    os.truncate(home.layer, 10)
    home.link("index").unlink()
    (home.path / "docker/registry/v2/repositories/team/kept/_manifests/tags/v1/current/link").write_text("x")
    home.sql("UPDATE tags SET image_id = 'x' WHERE tag = 'v2'")
    found = {(each.code, each.place) for each in home.verify(deep=True).issues}
    assert found >= {
        ("blob-missing", "team/tool:v1"),
        ("blob-missing", "team/app:v2"),
        ("blob-corrupt", NAME),
        ("link-missing", NAME),
        ("link-invalid", "team/kept:v1"),
    }


def test_a_stale_note_of_a_layer_is_a_warning(home: Home) -> None:
    """Nothing that a tag needs is missing; the next import looks before it believes the note."""
    home.sql(
        "INSERT INTO layer_blobs VALUES (?, 'application/vnd.oci.image.layer.v1.tar+gzip', ?, 5)",
        f"sha256:{'1' * 64}",
        f"sha256:{'2' * 64}",
    )
    result = home.verify()
    assert result.ok and [found.code for found in result.issues] == ["map-stale"]
    result = home.verify(repair=True)
    assert (result.issues, result.repaired) == ([], ["1 note of layers forgotten"])
    assert home.verify(deep=True).issues == []


def test_tags_that_somebody_else_pushed_are_warnings(home: Home) -> None:
    tags = home.path / "docker/registry/v2/repositories/team/app/_manifests/tags"
    shutil.copytree(tags / "v1", tags / "pushed")
    mine, theirs = home.manifest().digest, home.manifest("team/app:v2").digest
    home.link("current").write_text(str(theirs))
    for options in ({}, {"deep": True}, {"repair": True}, {"repair": True, "deep": True}):
        result = home.verify(**options)
        assert result.ok and result.repaired == []
        assert seen(result) == [("foreign-overwrite", NAME), ("foreign-tag", "team/app:pushed")]
        assert files_of(home.path)[NAME] == str(theirs) and files_of(home.path)["team/app:pushed"] == str(mine)
    (message,) = [found.message for found in result.issues if found.code == "foreign-overwrite"]
    assert str(mine) in message and str(theirs) in message


def test_a_damaged_link_of_a_foreign_tag_is_an_error(home: Home) -> None:
    """The registry answers 500 for it. What it should hold nobody knows, so it is left alone."""
    link = home.path / "docker/registry/v2/repositories/team/app/_manifests/tags/pushed/current/link"
    link.parent.mkdir(parents=True)
    link.write_text("garbage")
    assert seen(home.verify()) == [("link-invalid", "team/app:pushed")]
    assert seen(home.verify(repair=True)) == [("link-invalid", "team/app:pushed")]
    assert link.read_text() == "garbage"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_holds_nothing_and_is_not_waited_for(home: Home, make: Callable[[Path], None]) -> None:
    """A FIFO or a folder in the place of a link or of a blob: one finding among the others."""
    link, layer = home.link("current"), home.layer
    for path in (link, layer):
        path.unlink()
        make(path)
    assert {code for code, _ in seen(home.verify(deep=True))} == {"link-invalid", "blob-missing", "map-stale"}
    ours = home.archives[1]
    assert import_archives([ours], home.path).exit_code == 0, "other images are loaded all the same"


def test_every_damaged_page_of_the_ledger_is_found(home: Home) -> None:
    whole = (home.path / "ledger.db").read_bytes()
    for begin in range(4096, len(whole), 4096):
        (home.path / "ledger.db").write_bytes(whole[:begin] + b"U" * 4096 + whole[begin + 4096 :])
        told = True
        with contextlib.suppress(StoreError):
            told = not home.verify(deep=True).ok
        assert told, begin


def test_unreferenced_blobs_are_counted_and_hashed(home: Home) -> None:
    good, bad = b"left by a crash", b"and this one is damaged"
    for data, stored in ((good, good), (bad, b"x")):
        path = home.blob(Digest.of(data))
        path.parent.mkdir(parents=True)
        path.write_bytes(stored)
    result = home.verify()
    assert result.ok and (result.unreferenced, result.unreferenced_bytes) == (2, len(good) + 1)
    result = home.verify(deep=True)
    assert [found.code for found in result.issues] == ["blob-corrupt"] and str(Digest.of(bad)) in result.issues[0].message


def test_a_layer_whose_config_tells_of_another_content_is_found(home: Home) -> None:
    """Every digest fits, but the config lies about what is in the layer: --deep holds the content against the diff_id."""
    old = home.manifest()
    config = json.loads(home.blob(old.config.digest).read_bytes())
    config["rootfs"]["diff_ids"].reverse()
    raw = json.dumps(config).encode()
    body = json.loads(old.raw)
    body["config"] |= {"digest": str(Digest.of(raw)), "size": len(raw)}
    manifest = json.dumps(body).encode()
    for data in (raw, manifest):
        home.blob(Digest.of(data)).parent.mkdir(parents=True)
        home.blob(Digest.of(data)).write_bytes(data)
    home.sql(
        "UPDATE tags SET digest = ?, image_id = ? WHERE tag = 'v1' AND repository_id = 1",
        str(Digest.of(manifest)),
        str(Digest.of(raw)),
    )
    found = [each for each in home.verify(deep=True).issues if each.code == "manifest-invalid"]
    assert len(found) == 2 and all("the config says" in each.message and each.place == NAME for each in found)
    # The blobs are whole, and other images need them: none is set aside.
    assert home.verify(deep=True, repair=True).repaired == [] and not (home.path / "quarantine").exists()


# --- repair ------------------------------------------------------------------------------------------------------------

LINKS: Final = [what for what, (_, code, _) in FAULTS.items() if code.startswith("link-")]
BLOBS: Final = [what for what, (_, code, _) in FAULTS.items() if code == "blob-corrupt"]
MISSING: Final = [what for what, (_, code, _) in FAULTS.items() if code == "blob-missing"]
LEDGER: Final = [what for what, (_, code, _) in FAULTS.items() if code in ("replay-differs", "chain-broken")]


def test_every_fault_has_its_repair_tested() -> None:
    assert {*LINKS, *BLOBS, *MISSING, *LEDGER} == set(FAULTS)
    assert {"blob-missing", "blob-corrupt", "link-missing", "link-invalid", "chain-broken", "replay-differs"} <= set(CODES)


@pytest.mark.parametrize("what", LINKS)
def test_repair_writes_links_again(home: Home, what: str) -> None:
    whole = home.bytes()
    FAULTS[what][0](home)
    result = home.verify(repair=True)
    assert (result.ok, result.issues) == (True, [])
    assert result.repaired == [f"1 link of {NAME} written again"]
    assert home.bytes() == whole
    assert len(check_sound(home.path)) == 4


@pytest.mark.parametrize("what", BLOBS)
def test_repair_sets_damaged_blobs_aside_and_an_import_brings_them_back(home: Home, what: str) -> None:
    whole = home.bytes()
    FAULTS[what][0](home)
    damaged = home.bytes()
    wrong = {Path(path).parent.name: damaged[path] for path in whole if damaged[path] != whole[path]}
    result = home.verify(deep=True, repair=True)
    # Still an error: the registry cannot serve the image until its archive is imported again.
    assert not result.ok
    after = home.bytes()
    assert {Path(path).name: data for path, data in after.items() if path.startswith("quarantine/")} == wrong
    # Nothing is lost but what was damaged, and that is not lost either.
    assert {path for path in damaged if path not in after} == {
        f"docker/registry/v2/blobs/sha256/{hexa[:2]}/{hexa}/data" for hexa in wrong
    }
    assert {f"sha256:{hexa} was moved to quarantine/{hexa}" for hexa in wrong} <= set(result.repaired)
    missing = home.verify(deep=True)
    assert {found.code for found in missing.issues} == {"blob-missing"}
    home.reload()
    assert {path: data for path, data in home.bytes().items() if not path.startswith("quarantine/")} == whole
    assert len(check_sound(home.path)) == 4


def test_what_was_set_aside_before_stays(home: Home) -> None:
    layer, whole = home.layer, home.layer.read_bytes()
    for number in (1, 2, 3):
        layer.write_bytes(b"damage %d" % number)
        assert len(home.verify(repair=True).repaired) == 2
        home.reload()
        assert layer.read_bytes() == whole
    kept = sorted((home.path / "quarantine").iterdir())
    assert [path.read_bytes() for path in kept] == [b"damage 1", b"damage 2", b"damage 3"]


@pytest.mark.parametrize("what", MISSING)
def test_repair_cannot_bring_back_what_is_missing_but_an_import_can(home: Home, what: str) -> None:
    whole = home.bytes()
    FAULTS[what][0](home)
    before = home.bytes()
    result = home.verify(repair=True)
    assert not result.ok and {found.code for found in result.issues} == {"blob-missing"}
    assert "a.tar" in result.issues[0].way_out
    assert home.bytes() == before
    home.reload()
    assert home.bytes() == whole
    assert len(check_sound(home.path)) == 4


@pytest.mark.parametrize("what", LEDGER)
def test_repair_does_not_touch_the_ledger(home: Home, what: str) -> None:
    """What is wrong there was done by somebody: it is for people to judge."""
    FAULTS[what][0](home)
    with contextlib.closing(sqlite3.connect(home.path / "ledger.db")) as ledger:
        before = list(ledger.iterdump())
    found, files = home.verify(), home.bytes()
    result = home.verify(repair=True)
    assert result.repaired == [] and seen(result) == seen(found) and not result.ok
    with contextlib.closing(sqlite3.connect(home.path / "ledger.db")) as ledger:
        assert list(ledger.iterdump()) == before
    assert home.bytes() == files


def test_repair_waits_for_running_imports(home: Home) -> None:
    """A load that has decided to use a blob again must not lose it."""
    home.link("index").unlink()
    cancel = Cancel()
    with Store(home.path) as store, locked(str(home.path / "locks/sweep"), shared=True):
        assert [found.code for found in verify_store(store).issues] == ["link-missing"]
        cancel.set()
        with pytest.raises(Cancelled):
            verify_store(store, repair=True, cancel=cancel)
    assert not home.link("index").exists()


def test_verify_can_be_cancelled(home: Home) -> None:
    cancel = Cancel()
    cancel.set()
    with Store(home.path) as store, pytest.raises(Cancelled):
        verify_store(store, deep=True, cancel=cancel)


def test_a_damaged_blob_is_told_with_every_tag_that_needs_it(home: Home) -> None:
    flip(home.blob(home.manifest().layers[0].digest))
    (found,) = (found for found in home.verify(deep=True).issues if found.code == "blob-corrupt")
    assert sorted(found.place.split(", ")) == ["team/app:v1", "team/app:v2", "team/tool:v1"]


def test_the_command(home: Home) -> None:
    """Exit codes and both outputs of the real command."""

    def verify(*options: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "swrbatch", "verify", "--store", str(home.path), *options]
        return subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    assert (done := verify()).returncode == 0 and done.stdout.endswith("the store is sound\n")
    assert done.stdout.startswith("4 tags, 8 events, ")
    home.link("index").unlink()
    flip(home.layer)
    done = verify("--deep", "--format", "json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and not told["ok"]
    assert sorted(found["code"] for found in told["issues"]) == ["blob-corrupt", "link-missing"]
    assert "error blob-corrupt team/app:v1: the blob sha256:" in verify("--deep").stdout
    chinese = verify("--deep", "--lang", "zh").stdout
    assert "4个镜像版本，8条事件" in chinese and chinese.endswith("仓库有问题\n")
    done = verify("--deep", "--repair")
    assert done.returncode == 1 and "repaired: 1 link of team/app:v1 written again" in done.stdout
    home.reload()
    assert verify("--deep").returncode == 0


# --- any damage at all -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, phases=QUICK, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_damage_to_any_file_is_found_and_mended(base: Path, data: st.DataObject) -> None:
    """Flip, cut, empty or remove any files below `docker/`: verify --deep tells, and repair with a new import mends all of it."""
    with copied(base) as home:
        whole = home.bytes()
        for name in data.draw(st.lists(st.sampled_from(sorted(whole)), min_size=1, max_size=4, unique=True)):
            path, content = home.path / name, whole[name]
            match data.draw(st.sampled_from(("flip", "cut", "empty", "remove", "grow"))):
                case "flip":
                    flip(path, data.draw(st.integers(0, len(content) - 1)))
                case "cut":
                    os.truncate(path, data.draw(st.integers(0, len(content) - 1)))
                case "empty":
                    os.truncate(path, 0)
                case "grow":
                    path.write_bytes(content + b"\0")
                case _:
                    path.unlink()
        assert home.verify(deep=True).issues != []
        home.verify(deep=True, repair=True)
        # A manifest that was damaged hides what is wrong behind it, so the links come with the second look.
        home.reload()
        home.verify(deep=True, repair=True)
        home.reload()
        assert home.verify(deep=True).ok
        assert {path: content for path, content in home.bytes().items() if not path.startswith("quarantine/")} == whole
        assert len(check_sound(home.path)) == 4


def test_a_store_that_cannot_be_read_is_a_store_error(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("/data"):
            raise PermissionError(13, os.strerror(13), str(path))
        return int(real(path, *args, **kwargs))

    with Store(home.path) as store:
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(StoreError, match=r"a blob cannot be read .*Permission denied"):
            verify_store(store, deep=True)
