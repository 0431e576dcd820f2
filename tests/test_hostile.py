"""Whatever a file holds, it ends in an issue or a load: no exception, no hang, no file elsewhere, no more than 250 MB of memory.

Every kind of `hostile`, and of the table below, is checked and imported in a child of its own (`in_child`), so that its peak
memory is the product's, and what hangs is killed. `fuzz_parsers.py` feeds many more inputs to the parsers, outside the test run.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import ROOT
from hostile import (
    CONFIG,
    FREE,
    GOOD,
    HOSTILE,
    IMAGE,
    LAYER,
    LOADS,
    MANIFEST,
    MIB,
    PARTS,
    TAR,
    TWO_LAYERS,
    Kind,
    config,
    hybrid,
    kind,
    layers_of,
    manifest,
    mutated,
    parts,
    pointing_at,
    truncations,
    with_config,
    zstd_frame,
)
from imagetar import TAG, TarBuilder, entry, files, header, oci_manifest, outer, sha256, tar_of, to_json
from in_child import Children
from swrbatch import Store, check_archives, import_archives
from swrbatch.verify import verify_store

MOST_MEMORY = 250 * MIB
SECONDS = 60  # no kind takes more than a few; what takes this long hangs

ARCHIVES = ROOT / "fixtures" / "archives"
REAL = sorted(path.name for path in ARCHIVES.glob("*.tar*"))

# --- more kinds: what stays in memory, added up ----------------------------------------------------------------------


def numbered(count: int) -> Iterator[tuple[int, str]]:
    return ((number, f"{TAG}-{number}") for number in range(count))


def many_configs(count: int, make: Callable[[int], bytes]) -> bytes:
    """An image for each of so many configs, all with one layer."""
    tar = TarBuilder().member(LAYER, TAR)
    manifest = []
    for number, tag in numbered(count):
        tar.member(f"config{number}", make(number))
        manifest.append(entry(replace(IMAGE, tags=(tag,)), f"config{number}", [LAYER]))
    return tar.member(MANIFEST, to_json(manifest)).end().getvalue()


def one_config(count: int, layers: list[str], contents: dict[str, bytes] = PARTS, name: str = CONFIG) -> bytes:
    """So many images of one config."""
    listed = [entry(replace(IMAGE, tags=(tag,)), name, layers) for _, tag in numbered(count)]
    return tar_of({**contents, MANIFEST: to_json(listed)})


def many_mismatches() -> bytes:
    image = replace(TWO_LAYERS, overrides={"rootfs": layers_of([f"sha256:{'0' * 64}"] * 10)})
    return one_config(3000, [next(iter(files(image)))] * 10, files(image), f"{image.hex}.json")


def many_oci_manifests() -> bytes:
    blobs = {}
    for number in range(100):
        oci = oci_manifest(
            IMAGE, lambda made, number=number: made.update(annotations={"a": f"{number}" + "b" * (4 * MIB - 2000)})
        )
        blobs[sha256(oci)] = oci
    index = json.loads(pointing_at(*blobs))
    for one in index["manifests"]:
        one["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    return gzip.compress(hybrid({f"blobs/sha256/{d}": oci for d, oci in blobs.items()} | {"index.json": to_json(index)}), 1)


def one_oci_manifest_often() -> bytes:
    oci = oci_manifest(IMAGE, lambda made: made.update(annotations={"a": "b" * (4 * MIB - 2000)}))
    index = {"manifests": [{"digest": "sha256:" + sha256(oci), "size": len(oci)}] * 10_000}
    return hybrid({f"blobs/sha256/{sha256(oci)}": oci, "index.json": to_json(index)})


def large_windows(blob: Callable[[], bytes]) -> Callable[[], bytes]:
    """Four layers whose decoders want a large window each: no more than one may have it at a time.

    Each is padded (which makes it corrupt, in the end) to be large enough for a thread of its own.
    """

    def make() -> bytes:
        layers = dict.fromkeys((f"layer{number}" for number in range(4)), blob().ljust(MIB + 1, b"\0"))
        image = replace(IMAGE, overrides={"rootfs": layers_of([f"sha256:{'0' * 64}"] * 4)})
        return tar_of({**layers, "config": image.config, MANIFEST: manifest(Config="config", Layers=list(layers))})

    return make


def zstd_window() -> bytes:
    return zstd_frame([(1, MIB // 8, b"z")] * 140 * 8, 27)


def xz_window() -> bytes:
    return lzma.compress(b"x" * 110 * MIB, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 100 * MIB}])


def long_names() -> bytes:
    """A gigabyte of names in a megabyte: each below the bound of one member's headers."""
    return outer(TarBuilder().pax({"path": "a" * 1_000_000}).member("x").getvalue(), "gzip") * 1000 + outer(GOOD, "gzip")


def many_names() -> bytes:
    return TarBuilder().raw(b"".join(header(f"{number:06}{'é' * 47}") for number in range(99_000))).raw(GOOD).getvalue()


def repositories_bomb() -> bytes:
    """One name of 10 MiB with 190,000 tags: 1.9 TB if they were put together."""
    return parts({"repositories": b'{"' + b"a" * 10 * MIB + b'":{' + b",".join(b'"%d":""' % n for n in range(190_000)) + b"}}"})


def in_lists(content: bytes) -> Callable[[], bytes]:
    """manifest.json with this inside more lists than are allowed."""
    return lambda: parts({MANIFEST: b"[" * 65 + content + b"]" * 65})


def named(*names: str) -> Callable[[], bytes]:
    return lambda: parts({MANIFEST: manifest(RepoTags=list(names))})


def whole(content: bytes) -> Callable[[], bytes]:
    return lambda: parts({MANIFEST: content})


EMOJI = "\U0001f600"
BROKEN = "A.-" + "Z" * 1900 + "/_./_./_./:..."
MORE = [
    kind("json-of-19-mib-and-an-emoji", "json-too-complex", whole(f'["{EMOJI}{"a" * 19 * MIB}"]'.encode())),
    kind("json-of-19-mib-and-an-escaped-emoji", "json-too-complex", whole(b'["\\ud83d\\ude00' + b"a" * 19 * MIB + b'"]')),
    kind("json-string-of-20-mib", "manifest-schema", whole(b'"' + b"a" * (20 * MIB - 2) + b'"')),
    kind("json-string-in-lists", "json-too-complex", in_lists(b'"' + b"a" * 19 * MIB + b'"')),
    kind("json-escapes-in-lists", "json-too-complex", in_lists(b'"' + b"\\n" * 9 * MIB + b'"')),
    kind("json-quotes-in-lists", "json-too-complex json-invalid", in_lists(b'"' * 19 * MIB)),
    kind("name-of-19-mib", "tag-invalid", named(TAG + "a" * 19 * MIB)),
    kind("name-of-a-million-emoji", "reference-invalid registry-missing", named(EMOJI * 600_000)),
    kind("names-that-break-every-rule", "registry-invalid", named(*(f"{number}{BROKEN}" for number in range(5000)))),
    kind("missing-layers-30000", "layer-missing", lambda: one_config(3, [f"{number:080}" for number in range(10_000)])),
    kind("missing-layers-of-5000-images", "layer-missing", lambda: one_config(5000, ["x" * 80] * 6)),
    kind("missing-layers-100000", "too-many-images", lambda: one_config(1, ["x"] * 100_000)),
    kind("mismatches-30000", "diff-id-mismatch", many_mismatches),
    kind(
        "bad-config-of-5000-images",
        "json-invalid",
        lambda: one_config(5000, [LAYER], {**PARTS, "c": b"[0" + b",0" * 199_000}, "c"),
    ),
    kind(
        "configs-of-4-mib-100-times",
        "metadata-too-large",
        lambda: gzip.compress(many_configs(100, lambda number: with_config(extra="x" * (4 * MIB - 2000), number=number)), 1),
    ),
    kind(
        "configs-of-long-histories",
        "metadata-too-large",
        lambda: many_configs(20, lambda number: with_config(history=[{}] * 190_000, number=number, extra="x" * 2 * MIB)),
    ),
    kind(
        "configs-of-many-diff-ids",
        "layer-count-mismatch",
        lambda: many_configs(
            8, lambda number: with_config(rootfs=layers_of([f"sha256:{i:063x}{number}" for i in range(50_000)]))
        ),
    ),
    kind("layers-10000-in-one-image", LOADS, lambda: config(replace(IMAGE, layers=IMAGE.layers * 10_000))),
    kind("layers-10001-in-one-image", "too-many-images", lambda: config(replace(IMAGE, layers=IMAGE.layers * 10_001))),
    kind("repositories-of-one-long-name", "repositories-differ", repositories_bomb),
    kind("oci-manifests-of-4-mib-100-times", LOADS, many_oci_manifests, warnings="index-disagrees"),
    kind("oci-manifest-of-4-mib-pointed-at-10000-times", LOADS, one_oci_manifest_often, warnings="index-disagrees"),
    kind("names-of-1-mb-1000-times", "metadata-too-large", long_names),
    kind("names-of-99000-members", LOADS, many_names),
    kind("zstd-windows-of-128-mib", "layer-corrupt", large_windows(zstd_window), **FREE),
    kind("xz-windows-of-100-mib", "layer-corrupt", large_windows(xz_window), **FREE),
]
KINDS = [*HOSTILE, *MORE]


# --- how a kind is run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children(SECONDS) as running:
        yield running


def objection(kind: Kind, issues: Iterable[tuple[str, str]]) -> str:
    return kind.objection([SimpleNamespace(code=code, is_error=severity == "error") for code, severity in issues])


@cache
def groups() -> list[list[Kind]]:
    """The kinds, dealt out: a test for each would be mostly overhead, one for all would keep one processor busy."""
    return [KINDS[start::24] for start in range(24)]


def outside(folder: Path) -> list[Path]:
    """What there is beside the stores."""
    return [path for path in folder.rglob("*") if not path.is_dir() and "store" not in path.relative_to(folder).parts]


# --- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(24))
def test_every_kind_ends_well(number: int, children: Children, tmp_path: Path) -> None:
    """Checked and imported: the outcome is one that the kind allows, and nothing is written but the store."""
    objections = []
    for position, one in enumerate(groups()[number]):
        folder = tmp_path / str(position)
        folder.mkdir()
        path, store = folder / "archive", folder / "store"
        one.build(path)
        for ended in (children.run([path], options=one.options), children.run([path], options=one.options, store=store)):
            if ended.failure:
                objections.append(f"{one.name}: {ended.failure}")
            elif ended.peak > MOST_MEMORY:
                objections.append(f"{one.name}: {ended.peak / MIB:.0f} MiB of memory")
            elif wrong := objection(one, ended.issues):
                objections.append(wrong)
        path.unlink()
        if written := outside(tmp_path):
            objections.append(f"{one.name}: written outside of the store: {written}")
        shutil.rmtree(store)
    assert not objections, "\n".join(objections)


def test_there_are_kinds_enough_and_each_has_its_own_name() -> None:
    names = [one.name for one in KINDS]
    assert len(names) == len(set(names)) >= 300
    assert sum(map(len, groups())) == len(KINDS)


def test_a_child_that_crashes_hangs_or_grows_is_found_out() -> None:
    """The net itself: what it is there to catch, it catches."""
    with Children(0.5) as children:
        assert "hangs" in children.run([], act="time.sleep(20)").failure
    with Children(60) as children:
        assert "ZeroDivisionError" in children.run([], act="1 / 0").failure
        assert "died" in children.run([], act="os.kill(os.getpid(), signal.SIGKILL)").failure
        small, large = (children.run([], act=f"len(b'x' * {size} * 2**20)").peak for size in (0, 200))
    assert large - small > 190 * MIB
    assert small < 120 * MIB


@pytest.mark.parametrize("name", REAL)
def test_a_real_archive_cut_anywhere(name: str, children: Children, tmp_path: Path) -> None:
    """At every 1/16, and in the last bytes, where a checksum or an end marker is only half there."""
    data = (ARCHIVES / name).read_bytes()
    cuts = [*truncations(data), *(data[:-length] for length in (1, 4, 9, 512, 1024, 1536))]
    paths = [tmp_path / str(number) for number in range(len(cuts))]
    for path, cut in zip(paths, cuts, strict=True):
        path.write_bytes(cut)
    ended = children.run([ARCHIVES / name, *paths], options=FREE)
    assert not ended.failure and ended.peak < MOST_MEMORY
    (_, unharmed, _), *rows = ended.archives
    for cut, (path, status, codes) in zip(cuts, rows, strict=True):
        if not data[len(cut) :].strip(b"\0"):  # only zeros are gone: what is there may be whole all the same
            assert status == unharmed or "archive-truncated" in codes, path
        else:
            assert status == "rejected", path
            assert set(codes) & {"archive-empty", "archive-truncated", "archive-corrupt", "not-a-tar"}, (path, codes)


@cache
def seeds() -> dict[str, bytes]:
    return {name: (ARCHIVES / name).read_bytes() for name in REAL}


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
@pytest.mark.parametrize("half", [0, 1])
def test_a_real_archive_with_random_damage(half: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(REAL[half::2]))
    broken = data.draw(mutated(seeds()[name]))
    fd = os.memfd_create("archive")
    try:
        os.pwrite(fd, broken, 0)
        result = check_archives([f"/proc/self/fd/{fd}"], **FREE)
    finally:
        os.close(fd)
    assert result.failure is None
    (row,) = result.archives
    assert (row.status == "valid") == (not any(each.severity == "error" for each in result.issues))
    for each in result.issues:
        assert each.message and each.message.isprintable()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_loads_of_damaged_archives_is_sound(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Ten damaged archives into one store: what is refused leaves nothing, what is loaded is whole."""
    folder = tmp_path_factory.mktemp("damaged")
    paths = []
    for number in range(10):
        paths.append(folder / str(number))
        paths[-1].write_bytes(data.draw(mutated(seeds()[data.draw(st.sampled_from(REAL))])))
    result = import_archives(paths, folder / "store", **FREE)
    assert result.failure is None and len(result.archives) == 10
    with Store(folder / "store") as store:
        assert verify_store(store, deep=True).ok
    uploads = sqlite3.connect(folder / "store" / "ledger.db").execute(
        "select count(*) from events where trace_name = 'uploadImagePackage'"
    )
    nameless = sum(not row.images for row in result.archives)
    assert uploads.fetchone()[0] >= max(len(result.images), nameless)
